"""How long something is left to others who alter it again and again."""

from __future__ import annotations

from felix.sync.fights import FIRST_HOLD_S, FORGIVEN_AFTER_S, LONGEST_HOLD_S, Fights


def test_the_first_time_it_is_put_right_at_once() -> None:
    assert Fights().hold_until("a", 100.0) == 100.0


def test_each_time_it_is_left_twice_as_long_up_to_a_bound() -> None:
    fights, now, holds = Fights(), 100.0, []
    for _ in range(12):
        until = fights.hold_until("a", now)
        holds.append(round(until - now, 6))
        now = until + 0.001
    assert holds[:4] == [0.0, FIRST_HOLD_S, 2 * FIRST_HOLD_S, 4 * FIRST_HOLD_S]
    assert holds[-1] == LONGEST_HOLD_S


def test_after_a_while_it_is_forgiven_and_others_were_never_concerned() -> None:
    fights = Fights()
    for _ in range(5):
        fights.hold_until("a", 100.0)
    assert fights.hold_until("b", 100.0) == 100.0
    assert fights.hold_until("a", 100.1 + FORGIVEN_AFTER_S) == 100.1 + FORGIVEN_AFTER_S


def test_what_was_long_ago_is_not_kept() -> None:
    fights = Fights()
    for number in range(5000):
        assert fights.hold_until(str(number), number * 0.01) == number * 0.01
    assert len(fights._last) <= 1001
