"""Liveness and readiness from what parts report."""

from __future__ import annotations

import pytest

from felix.health import Health, duration_text


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_table_says_who_is_how() -> None:
    health = Health(Clock())
    health.register("InternalDataplaneMainLoop", timeout_s=90)
    health.register("FelixStartup", live=False)
    health.report("FelixStartup", ready=False, detail="waiting for\nthe datastore")
    verdict = health.readiness()
    assert not verdict.is_ok
    assert verdict.text == (
        "+---------------------------+---------+----------------+---------------------+---------------------------+\n"
        "| COMPONENT                 | TIMEOUT | LIVENESS       | READINESS           | DETAIL                    |\n"
        "+---------------------------+---------+----------------+---------------------+---------------------------+\n"
        "| FelixStartup              | -       | -              | reporting non-ready | waiting for the datastore |\n"
        "| InternalDataplaneMainLoop | 1m30s   | reporting live | reporting non-ready |                           |\n"
        "+---------------------------+---------+----------------+---------------------+---------------------------+\n"
    )


def test_who_has_just_begun_is_live_and_not_ready() -> None:
    health = Health(Clock())
    health.register("a", timeout_s=10)
    assert health.liveness().is_ok
    assert not health.readiness().is_ok
    health.report("a")
    assert health.readiness().is_ok


def test_nobody_at_all_is_live_and_not_ready() -> None:
    assert Health(Clock()).liveness().is_ok
    assert not Health(Clock()).readiness().is_ok


def test_who_falls_silent_is_neither_live_nor_ready_until_it_reports_again() -> None:
    clock = Clock()
    health = Health(clock)
    health.register("a", timeout_s=10)
    health.report("a")
    clock.now += 10
    assert health.liveness().is_ok
    clock.now += 0.1
    assert not health.liveness().is_ok
    assert not health.readiness().is_ok
    assert "timed out" in health.liveness().text
    health.report("a")
    assert health.readiness().is_ok


def test_one_that_reports_readiness_alone_does_not_end_the_process() -> None:
    clock = Clock()
    health = Health(clock)
    health.register("a", live=False, timeout_s=1)
    health.report("a", live=False)
    clock.now += 5
    assert health.liveness().is_ok
    assert not health.readiness().is_ok


def test_an_override_beats_the_timeout_that_a_part_asks_for() -> None:
    clock = Clock()
    health = Health(clock, [("a", 100.0)])
    health.register("a", timeout_s=10)
    health.report("a")
    clock.now += 50
    assert health.liveness().is_ok
    health.override([])
    assert not health.liveness().is_ok


def test_who_was_removed_counts_no_more_and_may_still_report() -> None:
    health = Health(Clock())
    health.register("a")
    health.register("b")
    health.report("a")
    health.remove("b")
    health.report("b", live=False)
    assert health.readiness().is_ok
    assert health.liveness().is_ok


@pytest.mark.parametrize(
    ("seconds", "text"), [(20, "20s"), (90, "1m30s"), (3600, "1h0m0s"), (0.5, "500ms"), (1.5, "1.5s"), (60, "1m0s")]
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
