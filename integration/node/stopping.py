"""Waiting on the way out: what hangs may not keep the process alive, what gets on is not cut off in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

PATIENCE_S = 3.0
LONGEST_S = 25.0  # with PATIENCE_S for the peers that is below the 30 s after which Kubernetes kills
_LOOK_S = 0.1


async def finish(
    work: Coroutine[Any, Any, Any], left: Callable[[], int], takes_long: Callable[[], None] = lambda: None
) -> None:
    """Await `work` for PATIENCE_S, and as long again whenever `left()`, what there is to do, has become another.

    Calls `takes_long` once if PATIENCE_S were not enough. Raises TimeoutError if the work was given up, also if it has
    not come to its end after LONGEST_S; and what the work raises.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    began_at = moved_at = loop.time()
    seen, is_told = left(), False
    while not task.done():
        now = loop.time()
        if left() != seen:
            seen, moved_at = left(), now
        if now - moved_at >= PATIENCE_S or now - began_at >= LONGEST_S:
            task.cancel()
            await asyncio.wait([task], timeout=_LOOK_S)
            raise TimeoutError
        if now - began_at >= PATIENCE_S and not is_told:
            is_told = True
            takes_long()
        await asyncio.wait([task], timeout=_LOOK_S)
    task.result()
