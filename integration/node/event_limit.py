"""Events that one cause can produce by the thousand, thinned out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bgp.ports import EventSink


class LimitedEvents:
    """Passes on the first `limit` events of a name in `window_s` seconds; the next one says how many were not told."""

    def __init__(
        self, events: EventSink, limit: int = 10, window_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._events = events
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}  # name → start of its window, events in it

    def event(self, name: str, **fields: Any) -> None:
        now = self._clock()
        started_at, count = self._windows.get(name, (now, 0))
        untold = 0
        if now - started_at >= self._window_s:
            untold = max(0, count - self._limit)
            started_at, count = now, 0
        self._windows[name] = (started_at, count + 1)
        if count < self._limit:
            self._events.event(name, **fields, **({"untold": untold} if untold else {}))
