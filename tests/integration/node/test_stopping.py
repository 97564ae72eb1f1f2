"""Stopping within bounds, on a loop whose clock jumps to the next timer: nothing here waits."""

from __future__ import annotations

import asyncio
import selectors

import pytest

from integration.node.stopping import LONGEST_S, PATIENCE_S, finish


class Jumping(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class Removal:
    """Work that takes a step each `pause_s`, and then `stall_s` for nothing."""

    def __init__(self, steps: int, pause_s: float, stall_s: float = 0.0) -> None:
        self.left = steps
        self._pause_s = pause_s
        self._stall_s = stall_s
        self.is_cancelled = False
        self.long_at: list[float] = []

    async def work(self) -> None:
        try:
            while self.left:
                await asyncio.sleep(self._pause_s)
                self.left -= 1
            await asyncio.sleep(self._stall_s)
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise

    def stop(self) -> float:
        """How long that took."""
        loop = JumpingLoop()
        try:
            loop.run_until_complete(finish(self.work(), lambda: self.left, lambda: self.long_at.append(loop.time())))
        except TimeoutError:
            assert self.is_cancelled
        finally:
            took = loop.time()
            loop.close()
        return took


def test_what_is_quick_is_done_at_once_and_nothing_is_said() -> None:
    removal = Removal(10, 0.05)
    assert removal.stop() == pytest.approx(0.5, abs=0.1)
    assert (removal.left, removal.long_at) == (0, [])


def test_what_gets_on_may_take_long_and_that_is_said_once() -> None:
    removal = Removal(15, 1.0)
    assert removal.stop() == pytest.approx(15.0, abs=0.2)
    assert (removal.left, removal.is_cancelled) == (0, False)
    assert removal.long_at == [pytest.approx(PATIENCE_S, abs=0.2)]


def test_what_hangs_is_left_after_the_patience() -> None:
    assert Removal(1, 1000.0).stop() == pytest.approx(PATIENCE_S, abs=0.3)


def test_what_stalls_in_the_middle_is_left_after_the_patience() -> None:
    assert Removal(2, 2.5, stall_s=1000.0).stop() == pytest.approx(5.0 + PATIENCE_S, abs=0.3)


def test_what_never_ends_is_left_at_last() -> None:
    assert Removal(1000, 1.0).stop() == pytest.approx(LONGEST_S, abs=0.3)


def test_what_breaks_says_so() -> None:
    async def breaks() -> None:
        raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        asyncio.run(finish(breaks(), lambda: 0))
