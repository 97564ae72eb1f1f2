from __future__ import annotations

from typing import Any

from integration.node.event_limit import LimitedEvents


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))


def test_a_thousand_events_of_one_name_become_a_few_and_a_number() -> None:
    told, now = Told(), [100.0]
    events = LimitedEvents(told, limit=3, window_s=10.0, clock=lambda: now[0])
    for number in range(1000):
        events.event("fib_error", number=number)
    events.event("fib_conflict")
    assert [name for name, _ in told.events] == ["fib_error"] * 3 + ["fib_conflict"]
    now[0] = 110.0
    events.event("fib_error", number=1000)
    assert told.events[-1] == ("fib_error", {"number": 1000, "untold": 997})
    now[0] = 120.0
    events.event("fib_error", number=1001)
    assert told.events[-1] == ("fib_error", {"number": 1001})
