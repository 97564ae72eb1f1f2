"""Which line of a TOML text holds which key: tomllib keeps no positions, and an error without a line is half an error.

The scan runs after tomllib has accepted the text, so it may take the grammar (TOML 1.0) for granted: it looks for the
ends of strings, arrays and inline tables and for nothing else. Should the two ever disagree, a message names the line
of an enclosing table; no value comes from here.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]  # ("peer", 1, "families", 0): tables by key, array items by number from 0

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # up to two quotes may stand before the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_OTHER_VALUE = re.compile(r"[^,\]}\n#]+")  # numbers, booleans, dates (which may hold a blank)


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of every key, table header and array item in a valid TOML text."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (_NotUnderstood, RecursionError):
        pass  # what was found so far is right
    return scanner.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a path, or of the nearest thing around it that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _NotUnderstood(Exception):
    pass


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._array_lengths: dict[Path, int] = {}  # of [[arrays of tables]]

    def document(self) -> None:
        table: Path = ()
        while self._skip_blank() != "":
            table = self._header() if self._next() == "[" else self._key_and_value(table)

    def _header(self) -> Path:
        """[a.b] or [[a.b]]: where the following keys go."""
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._take("[[" if is_array else "[")
        keys = self._keys()
        self._take("]]" if is_array else "]")
        path: Path = ()
        for key in keys[:-1]:
            path = self._latest((*path, key))
        path = (*path, keys[-1])
        self._note(path, start)
        if is_array:
            self._array_lengths[path] = self._array_lengths.get(path, 0) + 1
            self._note(self._latest(path), start)
        return self._latest(path)

    def _latest(self, path: Path) -> Path:
        """A header through an array of tables means its last table."""
        length = self._array_lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _key_and_value(self, table: Path) -> Path:
        start = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        self._take("=")
        self._value(path)
        return table

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self._skip_blank() == ".":
            self._at += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        if self._skip_blank() in ('"', "'"):
            written = self._match(_STRING)
            try:
                return str(tomllib.loads("key = " + written)["key"])
            except tomllib.TOMLDecodeError:
                raise _NotUnderstood from None
        return self._match(_BARE_KEY)

    def _value(self, path: Path) -> None:
        opening = self._skip_blank()
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._match(_STRING if opening in ('"', "'") else _OTHER_VALUE)

    def _array(self, path: Path) -> None:
        self._take("[")
        number = 0
        while self._skip_blank() != "]":
            self._note((*path, number), self._at)
            self._value((*path, number))
            number += 1
            if self._skip_blank() == ",":
                self._at += 1
        self._take("]")

    def _inline_table(self, path: Path) -> None:
        self._take("{")
        while self._skip_blank() != "}":
            self._key_and_value(path)
            if self._skip_blank() == ",":
                self._at += 1
        self._take("}")

    def _note(self, path: Path, offset: int) -> None:
        self.lines.setdefault(path, bisect_right(self._starts, offset))

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_blank(self) -> str:
        """Pass blanks, line ends and comments; return the character that follows, empty at the end."""
        self._match(_BLANK)
        return self._next()

    def _take(self, expected: str) -> None:
        self._skip_blank()
        if not self._text.startswith(expected, self._at):
            raise _NotUnderstood
        self._at += len(expected)

    def _match(self, expression: re.Pattern[str]) -> str:
        match = expression.match(self._text, self._at)
        if match is None:
            raise _NotUnderstood
        self._at = match.end()
        return match.group()
