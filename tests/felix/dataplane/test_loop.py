"""The dataplane's loop: what is applied when, and what a failing part does to the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from felix.dataplane.loop import FAULTS_IN_A_ROW, Check, Dataplane, PartKeepsFailing
from felix.desired import HostRemove, InSync, Message
from felix.ports import Failure


class Part:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name
        self.messages: list[Message] = []
        self.failures: list[list[Failure]] = []  # of the next applies
        self.faults = 0
        self.later: Callable[[], None] = lambda: None

    def on_message(self, message: Message) -> None:
        self.messages.append(message)

    async def apply(self, now: float) -> list[Failure]:
        self.log.append(self.name)
        self.later()
        if self.faults:
            self.faults -= 1
            raise RuntimeError("broken")
        return self.failures.pop(0) if self.failures else []


class Told:
    def __init__(self) -> None:
        self.applies: list[tuple[int, int]] = []
        self.what: list[str] = []
        self.faults: list[str] = []
        self.has_applied = asyncio.Event()

    def applied(self, took_s: float, messages: int, failures: Sequence[Failure]) -> None:
        self.applies.append((messages, len(failures)))
        self.has_applied.set()

    def found(self, check: str, what: Sequence[str]) -> None:
        self.what += [f"{check}: {one}" for one in what]

    def fault(self, part: str, error: Exception) -> None:
        self.faults.append(part)

    def alive(self) -> None:
        pass

    async def next_apply(self) -> None:
        async with asyncio.timeout(5):
            await self.has_applied.wait()
        self.has_applied.clear()


def with_dataplane(
    body: Callable[[Dataplane, Told, list[str], dict[str, Part]], Awaitable[None]], **checks: Check
) -> None:
    async def run() -> None:
        log: list[str] = []
        told = Told()
        parts = {name: Part(log, name) for name in ("rules", "routes")}
        plane = Dataplane(parts, checks, told)
        task = asyncio.create_task(plane.run())
        try:
            await body(plane, told, log, parts)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_nothing_is_applied_before_the_calculation_is_in_sync() -> None:
    async def body(plane: Dataplane, told: Told, log: list[str], parts: dict[str, Part]) -> None:
        plane.take([HostRemove("a")])
        plane.wake()
        await turns()
        assert log == []
        plane.take([InSync()])
        await told.next_apply()
        assert log == ["rules", "routes"]
        assert told.applies == [(2, 0)]
        assert parts["routes"].messages == [HostRemove("a"), InSync()]

    with_dataplane(body)


def test_a_failure_is_tried_again_without_being_asked() -> None:
    async def body(plane: Dataplane, told: Told, log: list[str], parts: dict[str, Part]) -> None:
        parts["routes"].failures = [[Failure("route 10.0.0.1/32", "Network is unreachable")]]
        plane.take([InSync()])
        await told.next_apply()
        assert [failure.what for failure in plane.failures] == ["route 10.0.0.1/32"]
        await told.next_apply()
        assert told.applies == [(1, 1), (0, 0)]
        assert plane.failures == ()

    with_dataplane(body)


def test_a_faulty_part_leaves_the_others_alone() -> None:
    async def body(plane: Dataplane, told: Told, log: list[str], parts: dict[str, Part]) -> None:
        parts["rules"].faults = 1
        plane.take([InSync()])
        await told.next_apply()
        assert log == ["rules", "routes"]
        assert told.faults == ["rules"]
        await told.next_apply()
        assert log == ["rules", "routes"] * 2

    with_dataplane(body)


def test_a_part_that_keeps_failing_ends_the_process() -> None:
    async def run() -> None:
        part = Part([], "rules")
        part.faults = FAULTS_IN_A_ROW
        plane = Dataplane({"rules": part}, {}, Told())
        plane.take([InSync()])
        task = asyncio.create_task(plane.run())
        for _ in range(FAULTS_IN_A_ROW):
            plane.wake()
            await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            await task

    with pytest.raises(PartKeepsFailing, match="rules: RuntimeError: broken"):
        asyncio.run(run())


def test_a_check_that_finds_something_brings_an_apply() -> None:
    found = [["chain filter cali-FORWARD is gone"], []]

    async def look() -> list[str]:
        return found.pop(0)

    async def body(plane: Dataplane, told: Told, log: list[str], parts: dict[str, Part]) -> None:
        plane.take([InSync()])
        await told.next_apply()
        plane.check_soon("rules")
        await told.next_apply()
        assert told.what == ["rules: chain filter cali-FORWARD is gone"]
        assert len(found) == 1

    with_dataplane(body, rules=Check(look, 0))


def test_a_check_runs_in_its_interval() -> None:
    looked = asyncio.Event()

    async def look() -> list[str]:
        looked.set()
        return []

    async def body(plane: Dataplane, told: Told, log: list[str], parts: dict[str, Part]) -> None:
        plane.take([InSync()])
        async with asyncio.timeout(5):
            await looked.wait()

    with_dataplane(body, rules=Check(look, 0.02))


def test_a_part_that_has_something_to_do_later_is_applied_then() -> None:
    async def body(plane: Dataplane, told: Told, log: list[str], parts: dict[str, Part]) -> None:
        part = parts["routes"]
        part.later = lambda: plane.apply_at(time.monotonic() + 0.05)
        plane.take([InSync()])
        await told.next_apply()
        began = time.monotonic()
        await told.next_apply()
        assert 0.04 <= time.monotonic() - began < plane.heartbeat_s

    with_dataplane(body)
