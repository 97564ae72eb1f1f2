"""Keeping out of the daemon's memory what other packages import only in case it is wanted, and the collector out of its way."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (20_000, 20, 20)


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Imports inside find `module` missing, as if it were not installed; afterwards it can be imported again."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def collect_seldom() -> None:
    """A table that grows makes two containers a path and no cycles: with the interpreter's thresholds (700, 10, 10) looking
    for some took an eighth of the time of a full load.
    """
    gc.freeze()  # what the imports left is for good
    gc.set_threshold(*SELDOM)


def load_undisturbed() -> None:
    """Until `settled` nothing walks all that has been read so far."""
    gc.freeze()
    gc.set_threshold(*SELDOM[:2], 10_000)


def settled() -> None:
    """What is there now is there to stay: to walk all of it takes 0.8 s with 10,000 policies, and everything waits."""
    gc.freeze()
    gc.set_threshold(*SELDOM)
