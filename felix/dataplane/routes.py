"""The routes of local workloads and of other nodes' blocks, kept in the kernel's main table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from felix.dataplane.holders import Holders
from felix.dataplane.wanted_routes import (
    IPIP_DEVICE,
    VXLAN_DEVICE,
    VXLAN_V6_DEVICE,
    ClusterRoutes,
    RouteSettings,
    WorkloadRoutes,
    is_single,
)
from felix.desired import Message
from felix.figures import Reading
from felix.kernel.routes import KernelRoutes, what
from felix.ports import Failure
from felix.sync.fights import Fights
from felix.sync.routes import KernelRoute, Ownership, RouteBook, RouteClass, Step

__all__ = ["RouteProgrammer", "RouteSettings"]

TUNNELS = frozenset((VXLAN_DEVICE, VXLAN_V6_DEVICE, IPIP_DEVICE))
TABLE = "routes"
State = Literal["up", "down", "gone"]
Forget = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class Interfaces:
    """What the monitor says: names and indexes of those that are up, all names, who has an address."""

    up: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    holders: Holders = field(default_factory=Holders)

    def holder(self, address: str) -> str:
        """Empty if nobody has it."""
        found = self.holders.of(address)
        return found.name if found is not None else ""

    def name(self, index: int) -> str:
        return self.names.get(index, "")

    def take(self, name: str, state: State, addresses: frozenset[str], index: int) -> list[int]:
        """Indexes that are no more: an interface may go and come back by the same name before we are told."""
        self.holders.interface_changed(name, state, addresses, index)
        gone = [self.indexes[name]] if self.indexes.get(name, index) != index else []
        if state == "gone":
            if self.indexes.get(name) == index:
                del self.indexes[name]
                self.up.pop(name, None)
            gone = [index]
        else:
            was = self.names.get(index)
            if was is not None and was != name and self.indexes.get(was) == index:
                del self.indexes[was]
                self.up.pop(was, None)
            self.names[index], self.indexes[name] = name, index
            if state == "up":
                self.up[name] = index
            else:
                self.up.pop(name, None)
        for one in gone:
            if state != "gone" or self.names.get(one) == name:
                self.names.pop(one, None)
        return gone


class Forgetting:
    """Connections of addresses that have moved away, forgotten beside everything else: that may mean to read hundreds of
    thousands, and policy of others must not wait for it. The next pod's route to the address must."""

    def __init__(self, forget: Forget) -> None:
        self._forget = forget
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, address: str) -> None:
        if address not in self._tasks:
            task = self._tasks[address] = asyncio.get_running_loop().create_task(self._work(address))
            task.add_done_callback(lambda _: self._tasks.pop(address, None))

    async def _work(self, address: str) -> None:
        await self._forget(address)

    async def done(self, addresses: Iterable[str] | None = None) -> None:
        """Of these, or of all."""
        some = (
            list(self._tasks.values())
            if addresses is None
            else [self._tasks[one] for one in addresses if one in self._tasks]
        )
        await asyncio.gather(*some, return_exceptions=True)


class RouteProgrammer:
    """A Programmer, an InterfaceListener and a RouteListener. `forget_connections` is told an address that has moved away
    or gone, `apply_at` when there is something to do though nothing changes."""

    def __init__(
        self,
        settings: RouteSettings,
        forget_connections: Forget,
        apply_at: Callable[[float], None] = lambda _at: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is the one of `apply`."""
        self._kernel = KernelRoutes()
        self._book = RouteBook()
        self._workloads, self._cluster = WorkloadRoutes(), ClusterRoutes()
        self._interfaces = Interfaces()
        self.forgetting = Forgetting(forget_connections)
        self._clock, self._apply_at = clock, apply_at
        self._read_at = 0.0  # when the table is to be read: at once
        self._fights = Fights()
        self._has_wishes = False  # before the first apply what is there is a former process', and stays
        self._appeared: set[int] = set()
        self._gone: set[int] = set()  # or renamed: that is told next
        self._reached: dict[str, int] = {}  # a local workload's address → index of the interface that leads to it
        self.look_again_at: float | None = None
        self._set(settings)

    def figures(self) -> Iterator[Reading]:
        yield "felix_route_table_num_routes", len(self._book.wanted), {}

    @property
    def port_id(self) -> int:
        """By which the kernel's notifications of our own writes are known."""
        return self._kernel.port_id

    def close(self) -> None:
        self._kernel.close()

    def reconfigure(self, settings: RouteSettings) -> None:
        if settings != self._settings:
            self._set(settings)

    def _set(self, settings: RouteSettings) -> None:
        self._settings = settings
        self._ownership = Ownership(settings.device_protocol, settings.prefixes, settings.removes_external, TUNNELS)
        self._read_at = 0.0
        self._book.judge_anew()
        self._workloads.everything_changed()
        self._cluster.everything_changed()

    def on_message(self, message: Message) -> None:
        self._workloads.on_message(message)
        self._cluster.on_message(message)

    def interface_changed(self, name: str, state: State, addresses: frozenset[str], ifindex: int) -> None:
        is_new = ifindex not in self._interfaces.names
        gone = self._interfaces.take(name, state, addresses, ifindex)
        self._gone.update(gone)
        self._appeared.difference_update(gone)
        if is_new and state != "gone":
            self._appeared.add(ifindex)
        self._book.interface_changed(name, ifindex)

    def routes_dropped(self, index: int) -> None:
        """By the kernel, from this link, perhaps."""
        self._book.interface_changed(self._interfaces.name(index), index)

    def route_changed(self, route: KernelRoute, *, is_gone: bool, is_replacement: bool) -> float | None:
        """Somebody else's doing. When it is to be put right, by `put_right`, if at all: who does it again and again waits."""
        if is_gone:
            needed: Literal["", "write", "read"] = "write" if self._book.was_deleted(route) else ""
        else:
            is_ours = self._ownership.is_ours(route.protocol, self._interfaces.name(route.interface_index))
            needed = self._book.was_put(route, is_replacement=is_replacement, is_ours=is_ours)
        if not needed:
            return None
        at = self._fights.hold_until(route.destination, self._clock())
        self._book.hold(route.destination, at)
        if needed == "read":
            self._read_at = min(self._read_at, at)
        return at

    def routes_lost(self) -> None:
        """Nobody knows what others did."""
        self._read_at = 0.0

    async def apply(self, now: float) -> list[Failure]:
        if self._settings.is_disabled:
            return []
        self._workloads.pass_on(self._book, self._settings)
        self._cluster.pass_on(self._book, self._settings, self._interfaces.holder)
        self._has_wishes = True
        return (await self._make_it_so(now))[1]

    async def put_right(self) -> list[str]:
        """What others are known to have altered. What could not be done is said too, and left to `apply`.

        New wishes are left to it as well: it comes after the packet filter's.
        """
        if self._settings.is_disabled or not self._has_wishes:
            return []
        found, failures = await self._make_it_so(self._clock())
        return found or [f"{one.what}: {one.reason}" for one in failures]

    async def check(self) -> list[str]:
        """Everything in the table, others' routes over workloads' interfaces too."""
        self._read_at = 0.0
        return await self.put_right()

    async def _make_it_so(self, now: float) -> tuple[list[str], list[Failure]]:
        """What was otherwise than we had left it, and what the kernel refused."""
        book, known = self._book, self._interfaces
        self._note_interfaces(now)
        if self._read_at <= now:
            try:
                await self._read()
            except OSError as error:
                return [], [Failure(TABLE, error.strerror or str(error))]
        await self.forgetting.done(destination.partition("/")[0] for destination in book.due(now))
        step = book.step(known.up, self._ownership, known.name, now)
        failures = await self._write(step)
        self._look_again(book.look_again_at())
        found = [
            f"route {one.destination} was missing or altered" for one in step.puts if one.destination in step.altered
        ]
        found += [f"route {one.destination} was not ours" for one in step.deletes if one.destination in step.altered]
        return found, failures

    def _note_interfaces(self, now: float) -> None:
        for index in self._gone:
            if index in self._interfaces.names:
                self._book.interface_renamed(index)
            else:
                self._book.interface_gone(index)
        for index in self._appeared:
            self._book.interface_appeared(index, now)
        self._gone.clear()
        self._appeared.clear()

    async def _read(self) -> None:
        self._read_at = float("inf")
        self._book.begin_reading()
        try:
            there = await self._kernel.read(
                self._book.wanted,
                lambda protocol, index: self._ownership.is_ours(protocol, self._interfaces.name(index)),
            )
        except OSError:
            self._read_at = 0.0
            raise
        self._book.read(there)

    async def _write(self, step: Step) -> list[Failure]:
        up = dict(self._interfaces.up)
        try:
            failures = await self._kernel.write(step.puts, step.deletes, up)
        except OSError as error:  # what came of it is not known
            self._book.wrote(Step(looked_at=step.looked_at), up, step.looked_at)
            self._read_at = 0.0
            return [Failure(TABLE, error.strerror or str(error))]
        refused = {one.what for one in failures}
        failed = {one for one in step.looked_at if what(one) in refused} if refused else set()
        self._book.wrote(step, up, failed)
        self._forget_what_moved(step)
        return failures

    def _look_again(self, at: float | None) -> None:
        self.look_again_at = at
        if at is not None:
            self._apply_at(at)

    def _forget_what_moved(self, step: Step) -> None:
        """The kernel drops an interface's routes in silence: what counts is whom an address led to when we last looked."""
        moved = {
            one.destination
            for one in step.deletes
            if is_single(one.destination) and one.destination not in self._book.wanted
        }
        for destination in step.looked_at:
            route, before = self._book.wanted.get(destination), self._reached.pop(destination, 0)
            index = 0
            if route is not None and route.kind is RouteClass.LOCAL_WORKLOAD and is_single(destination):
                index = self._reached[destination] = self._interfaces.up.get(route.interface, before)
            if before and index != before:
                moved.add(destination)
        for destination in moved:
            self.forgetting.begin(destination.partition("/")[0])
