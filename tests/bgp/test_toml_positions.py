"""The scan for lines against texts whose lines are known."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.toml.positions import Path, line_of, lines_of

TEXT = '''\
# [comment]
top = "a # b [c]"
[table."quoted.key"]   # [[not this]]
x = """
[fake]
y = 1 \\"""
""""
'lit.eral' = \'\'\'
[fake]\'\'\'
dotted.key = 2
when = 1979-05-27 07:32:00
many = [
    1, # ]
    "]",
    [2,
     3],
    { a = "}", b = [
        4 ], "c d" = {} },
]

[[list]]
v = 1
[list.sub]
w = 1
[[list]]
v = 2
[[list.deep]]
u = 1
[[list.deep]]
u = 2
[ after . all ]
z = true
'''

LINES: dict[Path, int] = {
    ("top",): 2,
    ("table", "quoted.key"): 3,
    ("table", "quoted.key", "x"): 4,
    ("table", "quoted.key", "lit.eral"): 8,
    ("table", "quoted.key", "dotted", "key"): 10,
    ("table", "quoted.key", "when"): 11,
    ("table", "quoted.key", "many"): 12,
    ("table", "quoted.key", "many", 0): 13,
    ("table", "quoted.key", "many", 1): 14,
    ("table", "quoted.key", "many", 2): 15,
    ("table", "quoted.key", "many", 2, 1): 16,
    ("table", "quoted.key", "many", 3, "a"): 17,
    ("table", "quoted.key", "many", 3, "b", 0): 18,
    ("table", "quoted.key", "many", 3, "c d"): 18,
    ("list",): 21,
    ("list", 0): 21,
    ("list", 0, "v"): 22,
    ("list", 0, "sub", "w"): 24,
    ("list", 1): 25,
    ("list", 1, "v"): 26,
    ("list", 1, "deep", 0, "u"): 28,
    ("list", 1, "deep", 1, "u"): 30,
    ("after", "all"): 31,
    ("after", "all", "z"): 32,
}


@pytest.mark.parametrize(("path", "line"), LINES.items(), ids=str)
def test_line_of_a_key(path: Path, line: int) -> None:
    value: Any = tomllib.loads(TEXT)
    for key in path:
        value = value[key]  # the path is one of this text
    assert lines_of(TEXT)[path] == line


def test_a_path_that_is_not_there_has_the_line_of_what_surrounds_it() -> None:
    lines = lines_of(TEXT)
    assert line_of(lines, ("list", 1, "missing", 3)) == 25
    assert line_of(lines, ("nowhere",)) == 1


_STRINGS = st.text("ab\"'\\[]{}#=,. \té", max_size=6)
_TREES = st.recursive(
    st.one_of(_STRINGS, st.integers(-5, 5), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_STRINGS, inner, max_size=3)),
    max_leaves=10,
)


class _Writer:
    """Writes a tree with line ends wherever arrays allow them, and notes the line of every path."""

    def __init__(self) -> None:
        self.text = ""
        self.lines: dict[Path, int] = {}

    def note(self, path: Path) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def value(self, value: Any, path: Path) -> None:
        if isinstance(value, list):
            self.text += "[ # ]\n"
            for at, item in enumerate(value):
                self.note((*path, at))
                self.value(item, (*path, at))
                self.text += ",\n\n"
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{"
            for at, (key, item) in enumerate(value.items()):
                self.text += ", " if at else ""
                self.key(key, item, (*path, key))
            self.text += "}"
        elif isinstance(value, str) and "'" not in value and len(value) % 2:
            self.text += f"'''\n{value}'''"
        else:
            self.text += json.dumps(value)

    def key(self, key: str, value: Any, path: Path) -> None:
        self.note(path)
        self.text += json.dumps(key) + " = "
        self.value(value, path)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_STRINGS, st.dictionaries(_STRINGS, _TREES, max_size=3), max_size=3), st.booleans())
def test_lines_of_any_tree(tree: dict[str, dict[str, Any]], is_array: bool) -> None:
    writer = _Writer()
    for header, table in tree.items():
        path: Path = (header, 0) if is_array else (header,)
        writer.note(path)
        writer.text += f"[[{json.dumps(header)}]]\n" if is_array else f"[{json.dumps(header)}] # [\n"
        for key, value in table.items():
            writer.key(key, value, (*path, key))
            writer.text += "\n"
    tomllib.loads(writer.text)  # it is TOML
    lines = lines_of(writer.text)
    assert {path: lines.get(path) for path in writer.lines} == writer.lines


@given(st.text("[]{}=\"'\\#\n ab.,", max_size=40))
def test_the_scan_takes_what_is_no_toml_too(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())
