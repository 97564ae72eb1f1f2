from __future__ import annotations

import pytest

from integration.node.debt import Debt


def test_a_first_failure_is_answered_at_once_and_a_flapping_link_within_the_budget() -> None:
    debt = Debt()
    assert debt.pause_s(now=1000.0) == 0
    debt.add(0.6, now=1000.0)
    assert debt.pause_s(now=1000.0) == 0
    debt.add(0.6, now=1000.0)
    assert debt.pause_s(now=1000.0) == pytest.approx(2.0)
    assert debt.pause_s(now=1002.0) == pytest.approx(0.0)


def test_a_quiet_hour_pays_everything_back_but_saves_nothing_up() -> None:
    debt = Debt()
    debt.add(5.0, now=1000.0)
    assert debt.pause_s(now=4600.0) == 0
    debt.add(2.0, now=4600.0)
    assert debt.pause_s(now=4600.0) == pytest.approx(10.0)
