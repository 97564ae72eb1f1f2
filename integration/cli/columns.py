"""Aligned columns as plain text: never cut, never wrapped, streamed if long; colour only where a terminal looks on.

Not rich's tables: they hold every row, and fit a pipe to 80 columns by cutting addresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

MEASURED_ROWS = 500  # widths come from the first so many rows; a wider cell later shifts its own line only
GAP = "  "


@dataclass(frozen=True, slots=True)
class Cell:
    """`style` is a rich style, used on a terminal only."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    is_number: bool = False  # aligned to the right


def visible(text: object) -> str:
    """What a peer or a file may have put there, with control and invisible characters escaped."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in plain
    )


def lines_of(columns: Sequence[Column], rows: Iterable[Row], paint: Callable[[str, str], str]) -> Iterator[str]:
    """The header and one line a row, without line ends. `paint(text, style)` is the identity off a terminal."""
    iterator = iter(rows)
    first = list(itertools.islice(iterator, MEASURED_ROWS))
    widths = [
        max(len(column.title), *(len(visible(_text(row[index]))) for row in first)) if first else len(column.title)
        for index, column in enumerate(columns)
    ]
    yield _line([Cell(column.title, "bold") for column in columns], columns, widths, paint)
    for row in itertools.chain(first, iterator):
        yield _line(row, columns, widths, paint)


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def _line(row: Row, columns: Sequence[Column], widths: Sequence[int], paint: Callable[[str, str], str]) -> str:
    pieces = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        text = visible(_text(cell))
        padding = " " * (width - len(text))
        painted = paint(text, cell.style) if isinstance(cell, Cell) and cell.style else text
        pieces.append(padding + painted if column.is_number else painted + padding)
    return GAP.join(pieces).rstrip()


def fields_of(pairs: Iterable[tuple[str, str | Cell]], paint: Callable[[str, str], str]) -> Iterator[str]:
    """`name   value` lines, values aligned; pairs with an empty value are left out."""
    shown = [(name, value) for name, value in pairs if _text(value)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        text = visible(_text(value))
        yield f"{paint(name.ljust(width), 'bold')}{GAP}{paint(text, value.style) if isinstance(value, Cell) else text}"


def duration(seconds: float | None) -> str:
    """`4d03h`, `2h05m`, `3m20s`, `12s`; empty for None."""
    if seconds is None:
        return ""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
