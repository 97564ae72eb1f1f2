"""How late the event loop runs: what a keepalive waits at worst."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
INTERVAL_S = 0.25
WARN_S = 1.0  # a third of the smallest hold time that is allowed
RECENT_SAMPLES = 240  # a minute


class LoopLag:
    """Sleeps, and sees how much later than asked it wakes. `told(lag_s)` is called when that is WARN_S or more."""

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told
        self._recent: deque[float] = deque(maxlen=RECENT_SAMPLES)
        self.bucket_counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0
        self.count = 0
        self.max_s = 0.0  # since the start

    @property
    def recent_max_s(self) -> float:
        return max(self._recent, default=0.0)

    def record(self, lag_s: float) -> None:
        self._recent.append(lag_s)
        self.sum_s += lag_s
        self.count += 1
        self.max_s = max(self.max_s, lag_s)
        index = next((index for index, bound in enumerate(BUCKETS_S) if lag_s <= bound), len(BUCKETS_S))
        self.bucket_counts[index] += 1
        if lag_s >= WARN_S:
            self._told(lag_s)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            self.record(max(0.0, loop.time() - due))
