"""How a command ends that could not do what it was asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from integration.cli.columns import visible


class Failed(Exception):
    """Said already; the exit code is 1."""


def complain(text: str, details: Iterable[str] = ()) -> None:
    """On stderr: what is wrong, and indented below it one line for each thing in particular."""
    found = [visible(detail) for detail in details]
    print(f"catbird: {visible(text)}" + (":" if found else ""), file=sys.stderr)
    for detail in found:
        print(f"  {detail}", file=sys.stderr)
