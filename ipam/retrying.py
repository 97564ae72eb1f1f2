"""Compare-and-swap, again and again: what every change of a stored object goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ipam.errors import TooManyConflicts
from ipam.ports import Changed, Exists

Result = TypeVar("Result")
TRIES = 100  # Calico: datastoreRetries


async def until_unchallenged(what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
    """What `attempt` returns once nobody else was faster; it has to read anew each time. Raises TooManyConflicts."""
    for _ in range(TRIES):
        try:
            return await attempt()
        except (Changed, Exists):
            continue
    raise TooManyConflicts(what)
