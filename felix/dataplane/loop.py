"""The one place where the kernel is changed: messages come in, everybody who programs a part of the kernel applies in order.

Nothing is applied before the calculation is in sync: what a former process left stays in force until then. One part that
fails, or has a fault of ours, leaves the others alone and is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from felix.desired import InSync, Message
from felix.ports import Failure, Programmer

# Between two applies so much of the time that the last one took: a storm of changes is taken in few bites, and a single
# change after a quiet moment is applied at once.
REST = 1.0
LONGEST_REST_S = 0.5
URGENT_REST_S = 0.02  # where others took away what is ours: the node may be open
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
FAULTS_IN_A_ROW = 10  # of one part; then the process ends, and a new one starts from what the kernel has


@dataclass(slots=True)
class Check:
    """Comparing with the kernel what others may have altered: `run` says what it found. `interval_s` 0: only when asked."""

    run: Callable[[], Awaitable[Sequence[str]]]
    interval_s: float
    due_at: float = field(default=0.0, init=False)


class Observer(Protocol):
    """Whoever tells people. Must neither block nor raise."""

    def applied(self, took_s: float, messages: int, failures: Sequence[Failure]) -> None: ...

    def found(self, check: str, what: Sequence[str]) -> None:
        """Others had altered this; it has been put right by the apply that follows."""
        ...

    def fault(self, part: str, error: Exception) -> None:
        """A fault of ours in one part: its apply is tried again."""
        ...

    def alive(self) -> None:
        """Once a turn, at the latest after `Dataplane.heartbeat_s`."""
        ...


class PartKeepsFailing(Exception):
    """A part raised FAULTS_IN_A_ROW times in a row: start anew."""


class Dataplane:
    """`run()` until cancelled. `take`, `wake`, `apply_at` and `check_soon` from the same event loop."""

    heartbeat_s = 5.0

    def __init__(
        self,
        parts: Mapping[str, Programmer],
        checks: Mapping[str, Check],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`parts` apply in the order of the mapping: rules before routes, so that no packet comes before its policy."""
        self._parts = dict(parts)
        self._checks = dict(checks)
        self._observer = observer
        self._clock = clock
        self._is_wanted = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._messages = 0
        self._is_in_sync = False
        self._retry_at: float | None = None
        self._apply_at: float | None = None
        self._retry_s = FIRST_RETRY_S
        self._rested_at = 0.0
        self._faults = dict.fromkeys(self._parts, 0)
        self.is_applied = asyncio.Event()  # the first apply is done
        self.failures: tuple[Failure, ...] = ()  # of the last apply
        now = clock()
        for check in self._checks.values():
            check.due_at = now + check.interval_s

    def take(self, messages: Iterable[Message]) -> None:
        """Pass on what the calculation says; it is applied soon."""
        for message in messages:
            self._messages += 1
            if isinstance(message, InSync):
                self._is_in_sync = True
            for name, part in self._parts.items():
                try:
                    part.on_message(message)
                except Exception as error:
                    self._note_fault(name, error)
        self.wake()

    def wake(self) -> None:
        """Something else has changed (an interface came, settings): apply soon."""
        self._is_wanted.set()

    def check_soon(self, name: str) -> None:
        """Somebody altered what is ours: compare before the next apply."""
        self._checks[name].due_at = 0.0
        self._is_urgent.set()
        self.wake()

    def apply_at(self, at: float) -> None:
        """Somebody has something to do at a moment of the clock, even if nothing changes until then."""
        self._apply_at = at if self._apply_at is None else min(at, self._apply_at)

    def set_interval(self, name: str, interval_s: float) -> None:
        check = self._checks[name]
        check.interval_s = interval_s
        check.due_at = min(check.due_at, self._clock() + interval_s) if interval_s else check.due_at
        self.wake()

    async def run(self) -> None:
        """Raises PartKeepsFailing."""
        while True:
            await self._something_to_do()
            self._observer.alive()
            if self._is_in_sync:
                await self._check_what_is_due()
                if self._is_wanted.is_set() or self._apply_is_due():
                    await self._apply()

    async def _something_to_do(self) -> None:
        now = self._clock()
        if self._is_wanted.is_set() and self._is_in_sync and (rest_s := self._rested_at - now) > 0:
            await asyncio.sleep(min(rest_s, URGENT_REST_S))
            if not self._is_urgent.is_set() and rest_s > URGENT_REST_S:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_urgent.wait(), rest_s - URGENT_REST_S)
            return
        times = [check.due_at for check in self._checks.values() if check.interval_s or not check.due_at]
        times += [at for at in (self._retry_at, self._apply_at) if at is not None]
        until_s = min([self.heartbeat_s, *(at - now for at in times)]) if self._is_in_sync else self.heartbeat_s
        if self._is_wanted.is_set() and not self._is_in_sync:
            self._is_wanted.clear()  # remembered by the parts; InSync wakes again
        if until_s > 0:
            try:
                await asyncio.wait_for(self._is_wanted.wait(), until_s)
            except TimeoutError:
                pass

    def _apply_is_due(self) -> bool:
        return any(at is not None and at <= self._clock() for at in (self._retry_at, self._apply_at))

    async def _check_what_is_due(self) -> None:
        for name, check in self._checks.items():
            now = self._clock()
            if check.due_at > now or not (check.interval_s or not check.due_at):
                continue
            check.due_at = now + (check.interval_s or float("inf"))
            try:
                found = await check.run()
            except Exception as error:
                self._note_fault(name, error)
                continue
            if found:
                self._observer.found(name, found)
                self._is_wanted.set()

    async def _apply(self) -> None:
        began_at = self._clock()
        self._is_wanted.clear()
        self._is_urgent.clear()
        self._apply_at = None
        messages, self._messages = self._messages, 0
        failures: list[Failure] = []
        is_faulty = False
        for name, part in self._parts.items():
            try:
                failures += await part.apply(began_at)
                self._faults[name] = 0
            except Exception as error:
                is_faulty = True
                self._note_fault(name, error)
        now = self._clock()
        self._rested_at = now + min(LONGEST_REST_S, REST * (now - began_at))
        self.failures = tuple(failures)
        if failures or is_faulty:
            self._retry_at = now + self._retry_s
            self._retry_s = min(LONGEST_RETRY_S, 2 * self._retry_s)
        else:
            self._retry_at, self._retry_s = None, FIRST_RETRY_S
        self.is_applied.set()
        self._observer.applied(now - began_at, messages, failures)

    def _note_fault(self, name: str, error: Exception) -> None:
        self._observer.fault(name, error)
        self._faults[name] = self._faults.get(name, 0) + 1
        if self._faults[name] >= FAULTS_IN_A_ROW:
            raise PartKeepsFailing(f"{name}: {type(error).__name__}: {error}") from error
