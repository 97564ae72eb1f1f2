"""The books of one nftables table: what is told at any moment is written in the end, and nothing twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from felix.filter_rules import Accept, Chain, HookRules, InPortSet, InSet, Jump, Rule
from felix.sync.nft_table import CLOSED, EMPTY, NftTable, VerdictMap, merged
from felix.sync.set_members import Effect

nets = st.sets(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.0.2.0/24"]))


@given(st.lists(st.tuples(nets, nets), max_size=6))
def test_changes_of_members_in_a_row_are_one_change(steps: list[tuple[set[str], set[str]]]) -> None:
    table = NftTable(4, "calico")
    table.set_ip_set("s:a", "net", {"10.0.0.0/8"})
    one = table.sets["s:a"]
    one.take()
    one.is_there = True
    before = set(one.members.effective)
    for added, removed in steps:
        table.change_ip_set("s:a", added, removed - added)
    effect = one.take()
    assert (before - effect.removed) | effect.added == one.members.effective
    assert not effect.added & before
    assert effect.removed <= before
    if effect.added and effect.removed and len({text.partition("/")[2] for text in effect.added | effect.removed}) > 1:
        assert effect.must_be_one
    assert one.take() == Effect()


def test_what_was_put_back_comes_with_what_was_told_since() -> None:
    assert merged([Effect({"a"}), Effect({"b"}, {"a"})]) == Effect({"b"})
    assert merged([Effect(removed={"a"}), Effect({"a"})]) == Effect()
    assert merged([Effect({"a"}, must_be_one=True), Effect({"b"})]).must_be_one


entries = st.dictionaries(st.sampled_from(["cali1", "cali2", "cali3", "x" * 16]), st.sampled_from(["a", "b", "gone"]))


@given(st.lists(st.tuples(entries, st.booleans()), min_size=1, max_size=8))
def test_a_map_has_what_was_told_last_however_often_a_write_fails(steps: list[tuple[dict[str, str], bool]]) -> None:
    verdicts = VerdictMap("filter-to", "filter")
    there = {"filter-a", "filter-b"}
    kernel: dict[str, str] = {}
    for told, is_refused in [*steps, (steps[-1][0], False)]:
        verdicts.tell(told)
        gone, come = verdicts.differences(there.__contains__)
        verdicts.unsettled = set()
        if is_refused:
            verdicts.unsettled |= {*gone, *come}
            continue
        for interface in gone:
            del kernel[interface]
        assert not kernel.keys() & come.keys()
        kernel |= come
        verdicts.written(gone, come)
    last = steps[-1][0]
    closed = f"filter-{CLOSED}"
    wanted = {one: f"filter-{target}" if target != "gone" else closed for one, target in last.items() if len(one) < 16}
    assert kernel == verdicts.standing == wanted
    assert verdicts.astray == {one for one, target in last.items() if target == "gone" and len(one) < 16}
    assert verdicts.nameless == {one for one in last if len(one) == 16}


def test_a_chain_that_is_wanted_otherwise_while_it_is_written_stays_dirty() -> None:
    table = NftTable(4, "calico")
    table.set_chains("filter", [Chain("cali-x")])
    written = table.chains["filter-cali-x"]
    table.set_chains("filter", [Chain("cali-x", (Rule((), Accept()),))])
    table.chain_stands(written, b"mark")
    assert "filter-cali-x" in table.dirty
    table.chain_stands(table.chains["filter-cali-x"], b"other")
    assert "filter-cali-x" not in table.dirty


def test_a_chain_that_is_told_again_as_it_is_keeps_its_counters() -> None:
    table = NftTable(4, "calico")
    table.set_chains("filter", [Chain("cali-x", (Rule((), Accept()),))])
    table.chain_stands(table.chains["filter-cali-x"], b"mark")
    table.set_chains("filter", [Chain("cali-x", (Rule((), Accept()),))])
    assert "filter-cali-x" not in table.dirty


def test_a_set_that_is_wanted_again_before_it_went_is_not_made_anew() -> None:
    table = NftTable(4, "calico")
    table.set_ip_set("s:a", "net", {"10.0.0.0/8"})
    one = table.sets["s:a"]
    one.take()
    one.is_there = True
    table.remove_ip_set("s:a")
    table.set_ip_set("s:a", "net", {"10.0.0.0/8", "192.0.2.0/24"})
    assert table.sets["s:a"] is one
    assert not table.gone_sets
    assert one.take().added == {"192.0.2.0/24"}
    table.set_ip_set("s:a", "ip,port", {"10.0.0.1,tcp:80"})
    assert table.must_rebuild, "the kernel cannot change a set's type, nor remove one that rules name"


def test_what_leads_to_a_chain_is_seen_in_the_hooks_of_its_table_alone() -> None:
    table = NftTable(4, "calico")
    jump = HookRules((Rule((), Jump("cali-x")),))
    table.set_hook("filter", "INPUT", jump)
    table.set_hook("nat", "OUTPUT", jump)
    table.set_chains("filter", [Chain("cali-x")])
    assert table.hooks_to(table.chains["filter-cali-x"]) == {"INPUT"}


def test_a_set_without_members_is_not_made_nor_the_rules_that_ask_for_one() -> None:
    table = NftTable(6, "calico")
    table.set_ip_set("s:web", "net", {"10.0.0.1/32"})
    table.set_ip_set("n:http", "ip,port", ())
    not_web, http = InSet("source", "s:web", negated=True), InPortSet("destination", "n:http")
    rules = (Rule((not_web,), Accept()), Rule((http,), Accept()), Rule((not_web, http), Accept()), Rule((), Accept()))
    table.set_chains("filter", [Chain("x", rules)])
    chain = table.chains["filter-x"]
    written = [rule.criteria for rule in table.to_write(chain).rules]
    assert written == [(InSet("source", EMPTY["net"], negated=True),), ()]
    assert table.written("filter-x") == [0, 3]
    assert {one.id for one in table.unsettled.values()} == set(EMPTY.values())
    table.change_ip_set("n:http", {"fd00::1,tcp:80"}, ())
    assert len(table.to_write(chain).rules) == 4
    assert table.written("filter-x") == [0, 1, 2, 3]
    table.remove_ip_set("s:web")
    assert not table.gone_sets  # the kernel never heard of it


def test_a_first_member_makes_the_set_and_writes_what_it_was_left_out_of_even_if_that_is_being_written() -> None:
    table = NftTable(4, "calico")
    table.set_ip_set("s:web", "net", ())
    table.set_chains("filter", [Chain("x", (Rule((InSet("source", "s:web"),), Accept()),)), Chain("y")])
    being_written = [table.chains["filter-x"], table.chains["filter-y"]]
    for chain in being_written:
        table.to_write(chain)
    table.change_ip_set("s:web", {"10.0.0.1/32"}, ())
    for chain in being_written:
        table.chain_stands(chain, b"")
    assert "filter-x" in table.dirty
    assert "filter-y" not in table.dirty
    chain = table.chains["filter-x"]
    assert table.to_write(chain) == chain.chain
    assert "cali40s-web" in table.unsettled
    table.chain_stands(chain, b"")
    table.change_ip_set("s:web", (), {"10.0.0.1/32"})
    assert "filter-x" not in table.dirty  # once made it stays: pods come and go


def test_a_set_that_goes_and_comes_back_with_members_is_asked_for_again() -> None:
    """As when a policy is deleted and made again between two applies: its chain is what it was."""
    table = NftTable(4, "calico")
    table.set_ip_set("s:web", "net", ())
    table.set_chains("filter", [Chain("x", (Rule((InSet("source", "s:web"),), Accept()),))])
    chain = table.chains["filter-x"]
    assert not table.to_write(chain).rules
    table.chain_stands(chain, b"")
    table.remove_ip_set("s:web")
    table.set_ip_set("s:web", "net", {"10.0.0.1/32"})
    assert "filter-x" in table.dirty
    assert table.to_write(table.chains["filter-x"]) == chain.chain


def test_a_set_that_a_former_process_made_is_kept_though_it_is_empty() -> None:
    table = NftTable(4, "calico")
    table.set_ip_set("s:web", "net", ())
    table.set_ip_set("s:db", "net", ())
    table.sets_stand({"cali40s-web"})
    assert "cali40s-web" in table.unsettled
    assert "cali40s-db" not in table.unsettled
    assert not table.gone_sets
