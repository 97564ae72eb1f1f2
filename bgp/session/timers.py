"""The timers of one session: names and deadlines."""

from __future__ import annotations

import random
from typing import Literal

Name = Literal["hold", "send_hold", "delay_open", "connect_retry", "keepalive", "refresh"]
_LEAST_JITTER = 0.75  # RFC 4271 §10


class Timers:
    """Deadlines in monotonic seconds. A timer that expired or was stopped does not run."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._deadlines: dict[str, float] = {}

    def start(self, name: Name, now: float, after_s: float) -> None:
        self._deadlines[name] = now + after_s

    def start_jittered(self, name: Name, now: float, after_s: float, *, at_least_s: float = 0.0) -> None:
        """Shortened by up to a quarter, at random, so that peers do not fall into step."""
        self._deadlines[name] = now + max(at_least_s, after_s * self._rng.uniform(_LEAST_JITTER, 1.0))

    def stop(self, name: Name) -> None:
        self._deadlines.pop(name, None)

    def stop_all(self) -> None:
        self._deadlines.clear()

    def is_running(self, name: Name) -> bool:
        return name in self._deadlines

    def deadlines(self) -> dict[str, float]:
        return dict(self._deadlines)

    def next_at(self) -> float | None:
        return min(self._deadlines.values(), default=None)

    def pop_due(self, now: float) -> str | None:
        """The timer that was due first and no longer runs; None: none is due."""
        if not self._deadlines:
            return None
        name = min(self._deadlines, key=self._deadlines.__getitem__)
        if self._deadlines[name] > now:
            return None
        del self._deadlines[name]
        return name
