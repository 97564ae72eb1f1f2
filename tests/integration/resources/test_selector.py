"""The selector language: grammar, quirks, canonical form, and an evaluator of its own to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.resources.selector import Restriction, SelectorError, parse

# (selector, labels that match, labels that do not)
MATCHES: list[tuple[str, list[dict[str, str]], list[dict[str, str]]]] = [
    ("", [{}, {"a": "b"}], []),
    (" \t", [{}], []),
    ("all()", [{}, {"a": "b"}], []),
    ("all( \t)", [{}], []),
    ("global()", [{}, {"a": "b"}], []),
    ("!all()", [], [{}, {"a": "b"}]),
    ('a == "b"', [{"a": "b", "c": "d"}], [{}, {"a": "c"}, {"c": "b"}]),
    ("a=='b'", [{"a": "b"}], [{}]),
    ('a != "b"', [{}, {"a": "c"}], [{"a": "b"}]),
    ('a contains "b"', [{"a": "abc"}], [{}, {"a": "ac"}]),
    ('a contains ""', [{"a": ""}], [{}]),
    ('a starts with "b"', [{"a": "bc"}], [{}, {"a": "cb"}]),
    ('a starts \t with "b"', [{"a": "bc"}], [{"a": "cb"}]),
    ('a startswith "b"', [{"a": "bc"}], [{"a": "cb"}]),
    ('a endswith"b"', [{"a": "cb"}], [{}, {"a": "bc"}]),
    ("a in {\"b\", 'c'}", [{"a": "b"}, {"a": "c"}], [{}, {"a": "d"}]),
    ('a in{"b",}', [{"a": "b"}], [{"a": ""}]),
    ("a in {}", [], [{}, {"a": ""}]),
    ("a not in {}", [{}, {"a": ""}], []),
    ('a notin {"b"}', [{}, {"a": "c"}], [{"a": "b"}]),
    ("a in {\"'\", '\"'}", [{"a": "'"}, {"a": '"'}], [{"a": ""}]),
    ("has(a)", [{"a": ""}], [{}]),
    ("has( a )", [{"a": ""}], [{}]),
    ("!has(a)", [{}], [{"a": ""}]),
    ("!! ! has(a)", [{}], [{"a": ""}]),
    ('!a == "b"', [{}, {"a": "c"}], [{"a": "b"}]),
    ('in in {"x"}', [{"in": "x"}], [{}]),
    ('not not in {"x"}', [{}], [{"not": "x"}]),
    ('contains contains "x"', [{"contains": "axe"}], [{}]),
    ('has == "x"', [{"has": "x"}], [{}]),
    ('all != "x"', [{}], [{"all": "x"}]),
    ('k8s.io/a-b_c.D == "x"', [{"k8s.io/a-b_c.D": "x"}], [{}]),
    # && binds stronger than ||, ! than both
    ("has(a) || has(b) && has(c)", [{"a": ""}, {"b": "", "c": ""}], [{"b": ""}, {"c": ""}]),
    ("(has(a) || has(b)) && has(c)", [{"a": "", "c": ""}], [{"a": ""}, {"c": ""}]),
    ("!(has(a) || has(b))", [{}], [{"a": ""}, {"b": ""}]),
    ("! has(a) && has(b)", [{"b": ""}], [{"a": "", "b": ""}]),
]


@pytest.mark.parametrize(("text", "matching", "others"), MATCHES)
def test_matching(text: str, matching: list[dict[str, str]], others: list[dict[str, str]]) -> None:
    selector = parse(text)
    for sample in (selector, parse(selector.canonical)):
        assert [labels for labels in matching if not sample.matches(labels)] == []
        assert [labels for labels in others if sample.matches(labels)] == []


@pytest.mark.parametrize(
    ("text", "reason", "at"),
    [
        ("a", "an operator is missing", 1),
        ("a b", "an operator is missing", 2),
        ("a == b", "a quoted text is missing", 5),
        ("'a' == b", "a label, has(), all()", 0),
        ('a = "b"', "== is meant", 2),
        ("has(a) & has(b)", "&& is meant", 7),
        ("has(a) | has(b)", "|| is meant", 7),
        ("has(a) has(b)", "should end here", 7),
        ("has(a) &&", "a label, has(), all()", 9),
        ('a == "b', "no closing", 5),
        ("a == 'b\"", "no closing", 5),
        ('a in "b"', "a { with texts is missing", 5),
        ('a in {"b"', "a closing } is missing", 9),
        ("a in {,}", "a closing } is missing", 6),
        ('a in {"b" "c"}', "a closing } is missing", 10),
        ('a inn {"b"}', "an operator is missing", 2),
        ('a containsx "b"', "an operator is missing", 2),
        ('a starts "b"', "an operator is missing", 2),
        ("(has(a)", "a closing ) is missing", 7),
        (")", "a label, has(), all()", 0),
        ("()", "a label, has(), all()", 1),
        ("!", "a label, has(), all()", 1),
        ("has()", "takes one label", 0),
        ("has(a b)", "takes one label", 0),
        ("all(a)", "takes nothing", 0),
        ("has (a)", "an operator is missing", 4),
        ("has(a)\n&& has(b)", "has no meaning", 6),
        ("%", "has no meaning", 0),
        ("é == 'a'", "has no meaning", 0),
        ("x" * 513 + " == 'a'", "more than 512", 0),
        ("(" * 3000 + "all()" + ")" * 3000, "more than 100 parentheses", 100),
    ],
)
def test_what_is_no_selector_is_refused_at_the_place(text: str, reason: str, at: int) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert reason in caught.value.reason
    assert caught.value.at == at


def test_many_negations_and_operands_need_no_stack() -> None:
    assert parse("!" * 5000 + "has(a)").matches({"a": ""})
    assert parse(" || ".join(["has(a)"] * 5000)).matches({"a": ""})


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", "all()"),
        (" (all() )", "all()"),
        ("global( )", "global()"),
        ("! (has( b)||! has(a ))", "!(has(b) || !has(a))"),
        ("! (a == \"b\"&&! c != 'd')", '!(a == "b" && !c != "d")'),
        ("a == '\"'", "a == '\"'"),
        ('a startswith "\'"', 'a starts with "\'"'),
        ("a in {'z', 'x', \"z\", '\"'}", 'a in {\'"\', "x", "z"}'),
        ("a notin {'b'}", 'a not in {"b"}'),
        ("a in {}", "a in {}"),
        ("has(a) && has(b) && (has(c) && has(d))", "(has(a) && has(b) && (has(c) && has(d)))"),
        ("has(a) || has(b) && has(c)", "(has(a) || (has(b) && has(c)))"),
        ("!(!has(a))", "!!has(a)"),  # Calico's canonical text is no fixed point here
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert parse(text).canonical == canonical
    assert parse(text) == parse(parse(text).canonical) or canonical == "!!has(a)"


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("(all())", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("! (has( b)||! has(a ))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
        ('! (a == "b"&&! c != "d")', "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
    ],
)
def test_uid_is_calicos(text: str, uid: str) -> None:
    assert parse(text).uid == uid


PRESENT, ABSENT = Restriction(present=True), Restriction(absent=True)


def one_of(*values: str) -> Restriction:
    return Restriction(present=True, values=frozenset(values))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all()", {}),
        ("a == 'b'", {"a": one_of("b")}),
        ("a != 'b'", {}),
        ("a in {'b', 'c'}", {"a": one_of("b", "c")}),
        ("a not in {'b'}", {}),
        ("has(a)", {"a": PRESENT}),
        ("!has(a)", {"a": ABSENT}),
        ("!(has(a))", {"a": ABSENT}),
        ("!a == 'b'", {}),
        ("!(has(a) && has(b))", {}),
        ("a contains 'b'", {"a": PRESENT}),
        ("a starts with 'b' && c ends with 'd'", {"a": PRESENT, "c": PRESENT}),
        ("a == 'b' && has(a)", {"a": one_of("b")}),
        ("a == 'b' && a == 'c'", {"a": one_of()}),
        ("a in {'b', 'c'} && a in {'c', 'd'} && has(e)", {"a": one_of("c"), "e": PRESENT}),
        ("a == 'b' || a == 'c'", {"a": one_of("b", "c")}),
        ("a == 'b' || has(a)", {"a": PRESENT}),
        ("a == 'b' || has(c)", {}),
        ("a == 'b' && has(c) || a == 'd' && has(e)", {"a": one_of("b", "d")}),
        ("!has(a) || !has(a) && has(b)", {"a": ABSENT}),
        ("!has(a) || has(a)", {}),
        ("has(a) || all()", {}),
    ],
)
def test_restrictions(text: str, expected: dict[str, Restriction]) -> None:
    assert parse(text).restrictions() == expected


def test_prefixed_asks_for_other_labels() -> None:
    selector = parse("!(!(k == 'v' && has(t) || all()) && (a in {'b'})) && x starts with 'y'").prefixed("pcns.")
    assert selector.canonical == (
        '(!(!((pcns.k == "v" && has(pcns.t)) || all()) && pcns.a in {"b"}) && pcns.x starts with "y")'
    )


def test_global_is_seen_wherever_it_stands() -> None:
    assert parse("global()").is_global
    assert not parse("global() && has(a)").is_global
    assert parse("!(has(a) || !global())").mentions_global
    assert not parse("all()").mentions_global


# --- compared with a tree of tuples, written as text and evaluated by rules of its own

labels_of = st.dictionaries(st.sampled_from(["a", "b", "in", "has"]), st.sampled_from(["", "x", "xy", "y'"]))
texts = st.sampled_from(["", "x", "y", "xy", "y'"])
names = st.sampled_from(["a", "b", "in", "has"])
leaves = st.one_of(
    st.tuples(st.sampled_from(["==", "!=", "contains", "starts with", "ends  with"]), names, texts),
    st.tuples(st.sampled_from(["in", "not in", "notin"]), names, st.lists(texts, max_size=3)),
    st.tuples(st.just("has"), names),
    st.just(("all",)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("!"), inner),
        st.tuples(st.sampled_from(["&&", "||"]), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=12,
)


def written(tree: Any) -> str:
    match tree:
        case ("all",):
            return "all( )"
        case ("has", name):
            return f"has({name} )"
        case ("!", inner):
            return f"! {written(inner)}"
        case ("&&" | "||" as sign, inner):
            return f"({str(sign).join(written(part) for part in inner)})"
        case (operator, name, list() as members):
            return f"{name} {operator}{{{','.join(chr(34) + text + chr(34) for text in members)}}}"
        case (operator, name, text):
            return f'{name} {operator}"{text}"'
    raise AssertionError(tree)


def holds(tree: Any, labels: dict[str, str]) -> bool:
    match tree:
        case ("all",):
            return True
        case ("!", inner):
            return not holds(inner, labels)
        case ("&&", inner):
            return False not in [holds(part, labels) for part in inner]
        case ("||", inner):
            return True in [holds(part, labels) for part in inner]
        case ("has", name):
            return name in labels
    operator, name, operand = tree
    if name not in labels:
        return operator in ("!=", "not in", "notin")
    value = labels[name]
    answers: dict[str, Callable[[], bool]] = {
        "==": lambda: value == operand,
        "!=": lambda: value != operand,
        "contains": lambda: value.find(operand) >= 0,
        "starts with": lambda: value[: len(operand)] == operand,
        "ends  with": lambda: operand == "" or value[-len(operand) :] == operand,
        "in": lambda: operand.count(value) > 0,
        "not in": lambda: operand.count(value) == 0,
        "notin": lambda: operand.count(value) == 0,
    }
    return answers[operator]()


@given(trees, labels_of)
def test_agrees_with_another_evaluator(tree: Any, labels: dict[str, str]) -> None:
    selector = parse(written(tree))
    assert selector.matches(labels) == holds(tree, labels)
    assert parse(selector.canonical).matches(labels) == holds(tree, labels)


@given(trees, labels_of)
def test_what_matches_meets_the_restrictions(tree: Any, labels: dict[str, str]) -> None:
    selector = parse(written(tree))
    if selector.matches(labels):
        for name, restriction in selector.restrictions().items():
            assert name in labels or not restriction.present
            assert name not in labels or not restriction.absent
            assert restriction.values is None or labels[name] in restriction.values


@given(st.text(alphabet="ab ()!&|={}\"',has.in\t\n", max_size=30))
def test_any_text_parses_or_raises_a_selector_error(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError as error:
        assert 0 <= error.at <= len(text)  # noqa: PT017
    else:
        assert parse(selector.canonical).restrictions() == selector.restrictions() or "!!" in selector.canonical
