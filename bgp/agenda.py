"""Whose timers are due: a heap, so that a tick costs what is due and not what there is.

Deadlines mostly move away (each UPDATE puts the hold timer off), so an entry may be too early: its neighbour is looked at,
does nothing and is put back. A deadline that comes nearer is noted at once.
"""

from __future__ import annotations

import heapq
import math

from bgp.neighbour import Neighbour


class Agenda:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Neighbour]] = []
        self._count = 0  # neighbours are not ordered

    def note(self, neighbour: Neighbour) -> None:
        """Call after everything that may have started a timer."""
        at = neighbour.next_at()
        if at < neighbour.noted_at:
            neighbour.noted_at = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, neighbour))

    def due(self, now: float) -> list[Neighbour]:
        """Those to look at now; each must be noted again."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, _, neighbour = heapq.heappop(self._heap)
            if at == neighbour.noted_at:
                neighbour.noted_at = math.inf
                found.append(neighbour)
        return found
