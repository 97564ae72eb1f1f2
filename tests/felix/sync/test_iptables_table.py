"""From any table to any other, by lines that a small model of iptables-restore carries out."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from felix.filter_rules import Chain, Drop, GoTo, HookRules, InSet, Jump, Rule
from felix.rules.iptables_text import IptablesText, Rendered
from felix.sync.iptables_saved import Unreadable, read_counters, read_saved
from felix.sync.iptables_table import HookWanted, Lines, TableBook
from tests.felix.sync.iptables_model import ModelTable, Wrong

TEXT = IptablesText(4)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whole tables are drawn
NAMES = [f"cali-{letter}" for letter in "abcdef"]
FOREIGN = ["-s 192.0.2.1/32 -j ACCEPT", "-j KUBE-FORWARD", '-m comment --comment "cali" -j KUBE-FORWARD']
LEFTOVERS = [
    '-m comment --comment "cali:AAAAAAAAAAAAAAAA" -j DROP',
    '-m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-old',
    "-j felix-FORWARD",
    "-i eth0 -g cali-old",
]


def book_of(chains: list[Chain], hooks: dict[str, HookRules]) -> TableBook:
    by_name = {chain.name: chain for chain in chains}

    def closed(name: str) -> Rendered:
        return TEXT.closed(by_name[name], drops=True)

    book = TableBook("filter", closed)
    for chain in chains:
        book.want(TEXT.chain(chain))
    for hook, rules in hooks.items():
        book.want_hook(hook, HookWanted(TEXT.inserted(hook, rules.inserted), TEXT.appended(hook, rules.appended)))
    return book


def bring(book: TableBook, table: ModelTable) -> None:
    """As the filter does it."""
    if book.standing is None:
        book.take_standing(read_saved(table.saved()))
    table.restore(book.changes().text())
    book.changed()
    lines = book.removals()
    try:
        table.restore(lines.text())
    except Wrong:
        # A hook that stayed as it was, since it would lead to nothing, holds chains of former days.
        assert any(book.missing_of(hook) for hook in book.hooks)
        book.standing = None
    else:
        book.removed(lines)


# --- any table, any wish ---------------------------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> list[Chain]:
    """Each leads to later ones only: our chains call in no circles."""
    made = []
    for at, name in enumerate(NAMES):
        if draw(st.booleans()):
            continue
        targets = NAMES[at + 1 :]
        actions = [st.just(Drop()), *([st.builds(Jump, st.sampled_from(targets))] if targets else [])]
        actions += [st.builds(GoTo, st.sampled_from(targets))] if targets else []
        rule = st.builds(
            Rule, st.sampled_from([(), (InSet("source", "x"),), (InSet("source", "y"),)]), st.one_of(actions)
        )
        made.append(Chain(name, tuple(draw(st.lists(rule, max_size=3)))))
    return made


@st.composite
def wishes(draw: st.DrawFn) -> tuple[list[Chain], dict[str, HookRules]]:
    wanted = draw(chains())
    names = [chain.name for chain in wanted] or ["cali-none"]
    jump = st.builds(lambda name: Rule((), Jump(name)), st.sampled_from(names))
    rules = st.builds(
        lambda first, last: HookRules(tuple(first), tuple(last)), st.lists(jump, max_size=2), st.lists(jump, max_size=2)
    )
    return wanted, draw(st.dictionaries(st.sampled_from(["INPUT", "FORWARD"]), rules))


@st.composite
def tables(draw: st.DrawFn) -> ModelTable:
    """Some former wish come true, and then all kinds of people at it."""
    table = ModelTable("filter", ["INPUT", "FORWARD", "OUTPUT"])
    bring(book_of(*draw(wishes())), table)
    table.restore("*filter\n:KUBE-FORWARD - -\n:cali-old - -\n:felix-FORWARD - -\nCOMMIT\n")
    for chain in ("INPUT", "FORWARD", "KUBE-FORWARD", *NAMES[:2]):
        strange = FOREIGN[:1] + LEFTOVERS if chain == "KUBE-FORWARD" else FOREIGN + LEFTOVERS
        for rule in draw(st.lists(st.sampled_from(strange), max_size=2)) if chain in table.chains else ():
            table.chains[chain].insert(draw(st.integers(0, len(table.chains[chain]))), rule)
    for name in [name for name in table.chains if name.startswith("cali-") and table.chains[name]]:
        if draw(st.booleans()):
            table.chains[name].pop()
    return table


def ours_in(table: ModelTable) -> dict[str, list[str]]:
    return {name: rules for name, rules in table.chains.items() if name.startswith(("cali", "felix-"))}


def expected(book: TableBook) -> dict[str, list[str]]:
    return {
        name: list(form.rules) for name in book.wanted if book.is_live(name) and (form := book.form(name)) is not None
    }


@MANY
@given(tables(), wishes())
def test_from_any_table_to_any_other(table: ModelTable, wish: tuple[list[Chain], dict[str, HookRules]]) -> None:
    before = copy.deepcopy(table)
    book = book_of(*wish)
    bring(book, table)
    if not any(book.missing_of(hook) for hook in book.hooks):
        assert ours_in(table) == expected(book)
    for hook in ("INPUT", "FORWARD", "OUTPUT", "KUBE-FORWARD"):
        foreign = [rule for rule in before.chains[hook] if rule in FOREIGN]
        rules = wish[1].get(hook, HookRules())
        first = list(TEXT.inserted(hook, rules.inserted).rules)
        last = list(TEXT.appended(hook, rules.appended).rules)
        if not book.missing_of(hook):
            assert table.chains[hook] == first + foreign + last


@MANY
@given(tables(), wishes())
def test_a_new_process_writes_nothing_where_all_stands(
    table: ModelTable, wish: tuple[list[Chain], dict[str, HookRules]]
) -> None:
    bring(book_of(*wish), table)
    heir = book_of(*wish)
    heir.take_standing(read_saved(table.saved()))
    assert heir.changes().lines == []
    if not any(heir.missing_of(hook) for hook in heir.hooks):
        assert heir.removals().lines == []


@MANY
@given(tables(), wishes(), wishes())
def test_from_wish_to_wish_without_looking_again(
    table: ModelTable,
    first: tuple[list[Chain], dict[str, HookRules]],
    second: tuple[list[Chain], dict[str, HookRules]],
) -> None:
    book = book_of(*first)
    bring(book, table)
    for chain in first[0]:
        if chain.name not in {one.name for one in second[0]}:
            book.forget(chain.name)
    for chain in second[0]:
        book.want(TEXT.chain(chain))
    for hook in ("INPUT", "FORWARD"):
        rules = second[1].get(hook, HookRules())
        book.want_hook(hook, HookWanted(TEXT.inserted(hook, rules.inserted), TEXT.appended(hook, rules.appended)))
    book._closed_form = book_of(*second)._closed_form
    bring(book, table)
    if not any(book.missing_of(hook) for hook in book.hooks):
        assert ours_in(table) == expected(book)
        assert book.standing is not None
        assert read_saved(table.saved()).chains == book.standing.chains


# --- single points ---------------------------------------------------------------------------------------------------


def looked_at(book: TableBook, text: str) -> TableBook:
    book.take_standing(read_saved(text))
    return book


SAVED = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:cali-FORWARD - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -s 192.0.2.1/32 -j ACCEPT
COMMIT
"""
TO_FORWARD = {"FORWARD": HookRules((Rule((), Jump("cali-FORWARD")),))}


def test_a_rule_in_the_middle_is_replaced_and_those_before_it_are_left_alone() -> None:
    rules = [Rule((), Jump("cali-a")), Rule((InSet("source", "x"),), Drop()), Rule((), Drop())]
    table = ModelTable("filter", ["FORWARD"])
    bring(book_of([Chain("cali-FORWARD", tuple(rules)), Chain("cali-a")], TO_FORWARD), table)
    after = book_of([Chain("cali-FORWARD", (rules[0], rules[2])), Chain("cali-a")], TO_FORWARD)
    after.take_standing(read_saved(table.saved()))
    replaced, deleted = after.changes().lines
    assert replaced.startswith("-R cali-FORWARD 2 ")
    assert deleted == "-D cali-FORWARD 3"


def test_a_hook_is_cleared_by_the_text_of_our_rules() -> None:
    book = looked_at(book_of([], {}), SAVED)
    assert book.changes().lines == ['-D FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD']
    assert book.removals().lines == ["--flush cali-FORWARD", "--delete-chain cali-FORWARD"]


def test_a_jump_to_a_chain_that_nobody_wants_closes_the_chain_that_has_it() -> None:
    book = looked_at(book_of([Chain("cali-FORWARD", (Rule((), Jump("cali-none")),))], TO_FORWARD), SAVED)
    (line,) = book.changes().lines
    assert line.endswith('"catbird: this chain was refused" --jump DROP')
    assert book.dangling == {"cali-FORWARD": "cali-none"}
    book.changed()
    book.want(TEXT.chain(Chain("cali-none")))
    assert [line.split()[0] for line in book.changes().lines] == [":cali-FORWARD", ":cali-none", "-A"]
    assert not book.dangling


def test_a_hook_that_leads_to_nothing_stays_as_it_was() -> None:
    book = looked_at(book_of([], {"FORWARD": HookRules((Rule((), Jump("cali-none")),))}), SAVED)
    assert book.changes().lines == []
    assert book.missing_of("FORWARD") == "cali-none"


def test_chains_that_only_idle_chains_lead_to_are_not_written() -> None:
    book = looked_at(
        book_of([Chain("cali-FORWARD"), Chain("cali-idle", (Rule((), Jump("cali-a")),)), Chain("cali-a")], TO_FORWARD),
        SAVED,
    )
    assert book.changes().lines == []
    assert not book.is_live("cali-a")


def test_whose_a_line_is() -> None:
    lines = Lines("filter", [":a - -", "-A a -j DROP", "-A b -j DROP"], ["a", "a", "b"])
    text = lines.text().splitlines()
    assert [(text[number - 1], lines.owner_of(number)) for number in range(1, 6)] == [
        ("*filter", ""),
        (":a - -", "a"),
        ("-A a -j DROP", "a"),
        ("-A b -j DROP", "b"),
        ("COMMIT", ""),
    ]


def test_trials_lead_nowhere() -> None:
    book = looked_at(
        book_of([Chain("cali-FORWARD", (Rule((), Jump("cali-a")), Rule((), Drop()))), Chain("cali-a")], TO_FORWARD),
        SAVED,
    )
    _, first, second = book.trial(["cali-FORWARD"]).lines
    assert first.startswith("-A cali-trial -m comment")
    assert first.endswith("--jump RETURN")
    assert second.endswith("--jump DROP")


def test_what_others_altered_is_said() -> None:
    table = ModelTable("filter", ["INPUT", "FORWARD"])
    book = book_of([Chain("cali-FORWARD", (Rule((), Drop()),))], TO_FORWARD)
    bring(book, table)
    table.chains["FORWARD"].insert(0, FOREIGN[0])
    table.chains["INPUT"].append(LEFTOVERS[0])
    table.chains["cali-FORWARD"].clear()
    table.chains["cali-new"] = []
    assert book.take_standing(read_saved(table.saved())) == [
        "chain cali-FORWARD was altered",
        "chain cali-new was added",
        "hook FORWARD was altered",
        "hook INPUT was altered",
    ]
    bring(book, table)
    assert book.take_standing(read_saved(table.saved())) == []


def test_a_table_that_iptables_cannot_show_is_said_to_be_so() -> None:
    with pytest.raises(Unreadable, match="only nft can show"):
        read_saved("# Table `filter' is incompatible, use 'nft' tool.\n")


def test_counters_are_those_of_the_chains_asked_for() -> None:
    text = "[1:20] -A cali-a -j DROP\n[0:0] -A cali-b -j DROP\n[3:40] -A cali-a\n"
    assert read_counters(text, ["cali-a"]) == [("cali-a", 0, 1, 20), ("cali-a", 1, 3, 40)]


def test_the_model_refuses_what_the_kernel_refuses() -> None:
    table = ModelTable("filter", ["FORWARD"])
    for text in ("-A FORWARD -j cali-x", "--delete-chain cali-y", "-R FORWARD 1 -j DROP", "-D FORWARD -j DROP"):
        with pytest.raises(Wrong):
            table.restore(f"*filter\n{text}\nCOMMIT\n")
    assert table.chains == {"FORWARD": []}
