"""Tables as calicoctl draws them around IPAM: boxes of `+`, `-` and `|`, which scripts cut apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from integration.cli.columns import visible


def box(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int] = frozenset()) -> Iterator[str]:
    """`numbers` are the columns aligned to the right; titles are in the middle."""
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max([len(title), *(len(row[at]) for row in cells)]) for at, title in enumerate(titles)]
    line = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    yield line
    yield "|" + "|".join(f" {title.center(width)} " for title, width in zip(titles, widths, strict=True)) + "|"
    yield line
    for row in cells:
        yield (
            "|"
            + "|".join(
                f" {cell.rjust(width) if at in numbers else cell.ljust(width)} "
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + "|"
        )
    yield line
