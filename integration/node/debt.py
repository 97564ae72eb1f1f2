"""A bound on work that others cause: at most a tenth of the time, but at once after a quiet while. Pure."""

from __future__ import annotations

SHARE = 10.0  # one part of the time in so many
ALLOWED_DEBT_S = 1.0  # before the bound is felt


class Debt:
    """Time spent on reading everything anew, paid back at a tenth of a second a second.

    A link that fails after a quiet hour is answered at once; one that flaps on a node with a million routes is not.
    """

    def __init__(self) -> None:
        self._debt_s = 0.0
        self._at = 0.0

    def add(self, spent_s: float, now: float) -> None:
        self._debt_s = self._left(now) + spent_s
        self._at = now

    def pause_s(self, now: float) -> float:
        return max(0.0, self._left(now) - ALLOWED_DEBT_S) * SHARE

    def _left(self, now: float) -> float:
        return max(0.0, self._debt_s - (now - self._at) / SHARE)
