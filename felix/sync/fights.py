"""Others who alter the same thing again and again: each time it is left to them a little longer. Pure."""

from __future__ import annotations

FIRST_HOLD_S, LONGEST_HOLD_S = 0.005, 0.5
FORGIVEN_AFTER_S = 2.0
MANY = 1000


class Fights:
    """By whatever names the thing."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}  # when it was altered last, and for how long it was left then

    def hold_until(self, what: str, now: float) -> float:
        """It was altered at `now`: until when it is to be left as it is. `now` for the first time in a while."""
        if len(self._last) > MANY:
            self._last = {one: entry for one, entry in self._last.items() if now - entry[0] <= FORGIVEN_AFTER_S}
        at, held_s = self._last.get(what, (float("-inf"), 0.0))
        hold_s = 0.0
        if now - at <= FORGIVEN_AFTER_S:
            hold_s = min(LONGEST_HOLD_S, max(FIRST_HOLD_S, 2 * held_s))
        self._last[what] = now, hold_s
        return now + hold_s
