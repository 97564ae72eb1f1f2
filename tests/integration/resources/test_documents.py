"""Files: YAML's traps, lists, and errors that say where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.resources.documents import DocumentError, read, to_json_text, to_yaml
from integration.resources.yaml_text import dump_all, load_all
from tests.integration.resources.samples import json_values

PEER = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: rack1\n"


def problems(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_many_documents_lists_and_empty_ones() -> None:
    item = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: %s}}"
    text = f"""
---
# nothing
---
{PEER}
---
- {item % "a"}
- {item % "b"}
---
apiVersion: projectcalico.org/v3
kind: TierList
items:
- metadata: {{name: c}}
---
apiVersion: v1
kind: List
items:
- {item % "d"}
"""
    read_back = read(text, "f.yaml")
    assert [(each.kind.name, each.resource.metadata.name) for each in read_back] == [
        ("BGPPeer", "rack1"),
        ("Tier", "a"),
        ("Tier", "b"),
        ("Tier", "c"),
        ("Tier", "d"),
    ]
    assert read_back[3].resource.to_json() == {
        "kind": "Tier",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "c"},
    }
    assert read("") == []


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("5663:12", "5663:12"),
        ("1:2:3", "1:2:3"),
        ("no", "no"),
        ("on", "on"),
        ("2026-11-26T10:00:00Z", "2026-11-26T10:00:00Z"),
        ("2026-11-26", "2026-11-26"),
        ("1_000", "1_000"),
        ("0x10", 16),
        ("010", 10),
        ("-1", -1),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ("!!str 12", "12"),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(plain: str, value: object) -> None:
    [document] = load_all(f"a: {plain}\n")
    assert document.value == {"a": value}


@given(st.lists(json_values, min_size=1, max_size=3))
def test_what_is_written_reads_the_same(values: list[object]) -> None:
    assert [document.value for document in load_all(dump_all(values))] == values


def test_texts_that_other_readers_would_take_for_something_else_are_quoted() -> None:
    for text in ("no", "5663:12", "2026-11-26", "1e3", "0x10", "null", "12", "true", ""):
        assert dump_all([text]).startswith("'")


def test_anchors_and_merge_keys() -> None:
    [document] = load_all("base: &b {x: 1, y: 2}\none:\n  <<: *b\n  y: 3\ntwo: *b\n")
    assert document.value == {"base": {"x": 1, "y": 2}, "one": {"x": 1, "y": 3}, "two": {"x": 1, "y": 2}}


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert problems(bomb)[0].endswith("the document stands for more than 2000000 values")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", "f.yaml, line 1: mapping values are not allowed here"),
        ("\n{", "f.yaml, line 2: while parsing a flow node, expected the node content"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml, line 3: the field a stands here twice"),
        ('{"a": ' + "9" * 5000 + "}", "f.yaml: Exceeds the limit"),
        ('{"a": 1,\t"a": 2}', "f.yaml: the field a stands in one object twice"),
        ("a: !!python/object:os.system x", "f.yaml, line 1: tag:yaml.org,2002:python/object:os.system is not"),
        ("[" * 5000, "f.yaml: is nested too deeply"),
        ("&a [*a]", "f.yaml: is nested too deeply"),
        ("? [a]\n: b\n", "f.yaml, line 1: a field's name is not a text"),
        ("3", "f.yaml, document 1, line 1: 3 is not a resource"),
        ("metadata: {name: x}", "f.yaml, document 1, line 1, x: apiVersion: is required; allowed: "),
        (
            "apiVersion: v1\nkind: Foo",
            "f.yaml, document 1, line 1, Foo: unknown resource type (Foo) and/or version (v1)",
        ),
        (PEER + "spec:\n  asNumber: x\n", "f.yaml, document 1, line 6, BGPPeer rack1: spec.asNumber = 'x': is not"),
        (
            PEER + "---\n" + PEER + "spec:\n  foo: 1\n",
            "f.yaml, document 2, line 11, BGPPeer rack1: spec.foo: field in ",
        ),
        (PEER + "  labels:\n    rack: 1\n", "f.yaml, document 1, line 6, BGPPeer rack1: metadata.labels.rack = 1: is"),
    ],
)
def test_errors_say_where_and_what(text: str, expected: str) -> None:
    assert problems(text)[0].startswith(expected)


def test_all_documents_problems_come_at_once() -> None:
    assert len(problems(f"{PEER}spec: 1\n---\n3\n---\n{PEER}spec: {{x: 1, y: 2}}\n")) == 4


def test_unknown_fields_stay_if_wanted_and_always_in_kubernetes_kinds() -> None:
    text = PEER + "spec: {foo: {bar: [1, null]}}\nstatus: {x: 1}\n"
    [document] = read(text, keep_unknown=True)
    assert document.resource.to_json()["spec"] == {"foo": {"bar": [1, None]}}
    assert "foo" in to_yaml([document.resource])
    [service] = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {sessionAffinity: None, clusterIP: 10.0.0.1}"
    )
    assert service.resource.to_json()["spec"] == {"clusterIP": "10.0.0.1", "sessionAffinity": "None"}


def test_validation_finds_the_line_of_a_list_item() -> None:
    text = """apiVersion: projectcalico.org/v3
kind: BGPFilterList
items:
- metadata: {name: f}
  spec:
    exportV4:
    - action: Accept
      cidr: 10.0.0.0/8
      matchOperator: In
    - action: Maybe
"""
    [document] = read(text, "f.yaml")
    [problem] = document.problems()
    assert str(problem) == (
        "f.yaml, document 1, line 10, BGPFilter f: spec.exportV4[1].action = 'Maybe': is not one of the known values; "
        "allowed: Accept, Reject"
    )


def test_json_with_tabs_and_json_out() -> None:
    text = '{\n\t"apiVersion": "projectcalico.org/v3",\n\t"kind": "Tier",\n\t"metadata": {"name": "t"}\n}'
    [document] = read(text)
    assert to_json_text([document.resource]).splitlines()[1] == '  "kind": "Tier",'
    assert to_json_text([document.resource] * 2).startswith("[\n  {")


@pytest.mark.parametrize(
    "character",
    ["\x7f", "\x85", "\x9f", "\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff", "\t", "\n", "é", "\U0001f600"],
)
def test_every_character_survives_both_forms(character: str) -> None:
    made = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPPeer",
        "metadata": {"name": "a"},
        "spec": {"note": f"a{character} b"},
    }
    for text in (to_yaml([made, made]), "\n---\n".join([to_json_text([made])] * 2)):
        assert [each.resource.to_json() for each in read(text, keep_unknown=True)] == [made, made], repr(text)


def test_a_character_that_no_yaml_may_have_is_an_error_of_the_file() -> None:
    with pytest.raises(DocumentError, match="not allowed"):
        read("kind: \ufffe\n---\nkind: x\n", "f.yaml")
