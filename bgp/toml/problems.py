"""What is wrong with a file, all of it at once, and the walk through it that collects that."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from bgp.config import Policy
from bgp.toml.positions import Path, line_of

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_NAME = re.compile(r"[\w.:@%/-]{1,64}", re.ASCII)
_LONGEST_SHOWN = 60

_KINDS: tuple[tuple[type, str], ...] = (  # bool before int, which it is one of
    (bool, "a boolean"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`line` counts from 1, 0 is the file itself; `field` is empty where no field is concerned."""

    line: int
    field: str
    text: str


class ConfigError(Exception):
    """The file cannot be used. `problems` are all that were found, in the file's order; str() has one a line."""

    def __init__(self, filename: str, problems: Iterable[Problem]) -> None:
        self.filename = filename
        self.problems = tuple(sorted(problems))
        super().__init__(filename, self.problems)

    def __str__(self) -> str:
        return "\n".join(
            f"{self.filename}{f':{problem.line}' if problem.line else ''}: "
            f"{f'{problem.field}: ' if problem.field else ''}{problem.text}"
            for problem in self.problems
        )


class Refused(Exception):
    """A value cannot be used; the reason has been noted."""


@dataclass(slots=True)
class Document:
    """A parsed file, and what has been found wrong with it."""

    filename: str
    directory: pathlib.Path  # relative file names start here
    content: dict[str, Any]
    lines: dict[Path, int]
    problems: dict[Problem, None] = field(default_factory=dict)  # in the order found, each once
    policies: dict[str, Policy | None] = field(default_factory=dict)  # None: written, but not usable
    composed: dict[tuple[str, ...], Policy] = field(default_factory=dict)  # by the names they are made of

    def note(self, path: Path, text: str) -> None:
        self.problems[Problem(line_of(self.lines, path), self.field_text(path), text)] = None

    def field_text(self, path: Path) -> str:
        """`peer[tor1].families[#2]`: items by their name if they have one, else by number from 1."""
        words = ""
        value: Any = self.content
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                value = None
            if isinstance(key, int):
                name = value.get("name") if isinstance(value, dict) else None
                is_plain = isinstance(name, str) and _PLAIN_NAME.fullmatch(name)
                words += f"[{name}]" if is_plain else f"[#{key + 1}]"
            else:
                words += ("." if words else "") + key_text(key)
        return words


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file and where it stands."""

    value: Any
    path: Path
    document: Document

    def child(self, key: str | int) -> Node:
        return Node(self.value[key], (*self.path, key), self.document)

    @property
    def field(self) -> str:
        return self.document.field_text(self.path)

    def note(self, text: str, key: str | None = None) -> None:
        """Write down that something is wrong with this value, or with the key of it."""
        self.document.note(self.path if key is None else (*self.path, key), text)

    def refuse(self, text: str) -> NoReturn:
        self.note(text)
        raise Refused

    def expect(self, kind: type[T], words: str) -> T:
        """The value, if it is of this kind (a boolean is no number). Raises Refused."""
        if not isinstance(self.value, kind) or (isinstance(self.value, bool) and kind is not bool):
            self.refuse(f"{kind_text(self.value)} does not fit here; allowed: {words}")
        return self.value


Reader = Callable[[Node], T]


def attempt(reader: Reader[T], node: Node) -> T | None:
    """What the reader makes of it; None if it was refused, and noted."""
    try:
        return reader(node)
    except Refused:
        return None


def read_table(node: Node, readers: Mapping[str, Reader[Any]], required: Collection[str] = ()) -> dict[str, Any]:
    """Read every known key and note unknown, unusable and missing ones; what could be read comes back.

    Raises Refused only if it is no table at all.
    """
    table: dict[str, Any] = node.expect(dict, "a table")
    values: dict[str, Any] = {}
    for key in table:
        if key not in readers:
            node.note(f"unknown key; {did_you_mean(key, readers)}", key)
            continue
        try:
            values[key] = readers[key](node.child(key))
        except Refused:
            pass
    for key in required:
        if key not in table:
            node.note(f"{key} is missing")
    return values


def did_you_mean(word: str, allowed: Collection[str]) -> str:
    """`did you mean asn?` if something is near, else all that is allowed."""
    near = get_close_matches(word[:64].lower(), allowed, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"


def key_text(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else shown(key)


def shown(value: object) -> str:
    """A value for a message: one line, no control characters, not too long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def kind_text(value: object) -> str:
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")
