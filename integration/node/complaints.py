"""Telling of a failure that lasts."""

from __future__ import annotations

from bgp.ports import EventSink


class Complaints:
    """The same failure is told once, and when it is over."""

    def __init__(self, log: EventSink, name: str) -> None:
        self._log, self._name, self._said = log, name, ""

    def tell(self, error: str) -> None:
        if error and error != self._said:
            self._log.event(f"{self._name}_failed", error=error)
        elif self._said and not error:
            self._log.event(f"{self._name}_works_again")
        self._said = error
