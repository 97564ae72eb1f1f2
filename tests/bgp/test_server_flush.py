"""When SpeakerServer tells peers what has changed: once for what comes together, at once on a quiet line, soon always."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bgp.config import SpeakerConfig
from bgp.io import server as server_module
from bgp.io.server import SpeakerServer
from bgp.speaker import Speaker
from tests.bgp.world import Told, config_of

TURNS_OF_A_QUIET_LINE = 2  # the first is what is readable now, the second finds nothing new
MOST_S = 0.02


class Counting(Speaker):
    """`flushes`: at what time, and how many changes had come by then."""

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__(config, fib=None, next_hops=None, events=Told(), rng=random.Random(1), now=0.0)
        self.flushes: list[tuple[float, int]] = []
        self.changes = 0
        self.still_to_send = 0

    def flush(self, now: float) -> None:
        self.flushes.append((now, self.changes))
        if self.still_to_send:
            self.still_to_send -= 1
            self.transport.flush_soon()


class Bench:
    """A server on a clock that moves when the test says so. `peers` connections are there, as far as it is concerned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, peers: int) -> None:
        config = config_of("10.0.0.1", "")
        self.now = 100.0
        monkeypatch.setattr(server_module, "time", self)
        self.speaker = Counting(config)
        self.server = SpeakerServer(self.speaker, config)
        connections: dict[Any, Any] = dict.fromkeys(range(peers))
        self.server._connections = connections

    def monotonic(self) -> float:
        return self.now

    def change(self) -> None:
        """An UPDATE has been taken."""
        self.speaker.changes += 1
        self.server.flush_soon()

    async def turns(self, count: int, *, each_s: float = 0.0) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.now += each_s

    @property
    def flushes(self) -> list[tuple[float, int]]:
        return self.speaker.flushes


def run(
    monkeypatch: pytest.MonkeyPatch, peers: int, what: Callable[[Bench], Awaitable[None]]
) -> list[tuple[float, int]]:
    """The flushes until `what` is over; the loop's last turns, when it is closed, do not count."""
    bench = Bench(monkeypatch, peers)

    async def play() -> list[tuple[float, int]]:
        await what(bench)
        return list(bench.flushes)

    return asyncio.run(play())


@pytest.mark.parametrize("peers", [0, 2, 10_000])
def test_a_quiet_line_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, peers: int) -> None:
    """However many peers there are: the clock stands still."""

    async def one_change(bench: Bench) -> None:
        bench.change()
        assert bench.flushes == [], "what else is readable in this turn is to leave with it"
        await bench.turns(TURNS_OF_A_QUIET_LINE)

    assert run(monkeypatch, peers, one_change) == [(100.0, 1)]


def test_what_comes_in_one_turn_leaves_in_one_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    async def many_changes(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(50):
            loop.call_soon(bench.change)
        await bench.turns(10)

    assert run(monkeypatch, 0, many_changes) == [(100.0, 50)]


def test_what_is_readable_on_several_connections_leaves_in_one_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_speak(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(8)]

        def read(near: socket.socket) -> None:
            assert near.recv(1)
            bench.change()

        for near, far in pairs:
            near.setblocking(False)
            far.send(b"x")
            loop.add_reader(near, read, near)
        await bench.turns(10)
        for near, far in pairs:
            loop.remove_reader(near)
            near.close()
            far.close()

    assert run(monkeypatch, 0, all_speak) == [(100.0, 8)]


def test_what_comes_turn_after_turn_is_collected_while_writing_costs_more_than_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def a_burst(bench: Bench) -> None:
        for _ in range(7):
            bench.change()
            await bench.turns(1, each_s=0.001)
        await bench.turns(5)

    flushes = run(monkeypatch, 1500, a_burst)
    assert [changes for _, changes in flushes] == [7]
    assert flushes[0][0] == pytest.approx(100.007)


@pytest.mark.parametrize(
    ("peers", "most_s"), [(0, 0.0), (10, 0.0001), (100, 0.001), (1000, 0.01), (2000, MOST_S), (50_000, MOST_S)]
)
def test_a_line_that_is_never_quiet_does_not_hold_up_longer_than_a_write_to_all(
    monkeypatch: pytest.MonkeyPatch, peers: int, most_s: float
) -> None:
    turn_s = 0.0005

    async def a_flood(bench: Bench) -> None:
        for _ in range(400):
            bench.change()
            await bench.turns(1, each_s=turn_s)
        await bench.turns(100)

    flushes = run(monkeypatch, peers, a_flood)
    assert flushes[-1][1] == 400
    times = [100.0, *(at for at, _ in flushes)]
    longest = max(later - earlier for earlier, later in itertools.pairwise(times))
    assert longest <= most_s + (TURNS_OF_A_QUIET_LINE + 1) * turn_s
    assert len(flushes) <= 2 + 400 * turn_s / max(most_s, turn_s), "and not more often than that"


def test_what_a_flush_leaves_to_be_sent_has_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def a_table(bench: Bench) -> None:
        bench.speaker.still_to_send = 3
        bench.change()
        await bench.turns(20)

    assert len(run(monkeypatch, 2000, a_table)) == 4


def test_nothing_is_flushed_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_changes_apart(bench: Bench) -> None:
        await bench.turns(10)
        bench.change()
        await bench.turns(10, each_s=1.0)
        bench.change()
        await bench.turns(10)

    assert [changes for _, changes in run(monkeypatch, 2000, two_changes_apart)] == [1, 2]
