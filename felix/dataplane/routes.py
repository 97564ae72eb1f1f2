"""The routes of local workloads and of other nodes' blocks, kept in the kernel's main table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from felix.claims import Claims
from felix.dataplane.holders import Holders
from felix.desired import (
    VTEP,
    Host,
    HostRemove,
    HostUpdate,
    Message,
    Route,
    RouteRemove,
    RouteUpdate,
    VTEPRemove,
    VTEPUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from felix.kernel.routes import KernelRoutes
from felix.ports import Failure
from felix.sync.routes import FELIX_PROTOCOL, KernelRoute, Ownership, RouteBook, RouteClass, Step, WantedRoute

VXLAN_DEVICE, VXLAN_V6_DEVICE, IPIP_DEVICE = "vxlan.calico", "vxlan-v6.calico", "tunl0"
TUNNELS = frozenset((VXLAN_DEVICE, VXLAN_V6_DEVICE, IPIP_DEVICE))
State = Literal["up", "down", "gone"]
Forget = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """`programs`: whose pools' cluster routes are ours to write; the BGP speaker writes the others'."""

    node: str
    prefixes: tuple[str, ...] = ("cali",)
    device_protocol: int = 3
    metrics: tuple[int, int] = (1024, 1024)  # IPv4, IPv6
    elevated_metrics: tuple[int, int] = (512, 512)
    sources: tuple[str, str] = ("", "")
    removes_external: bool = True
    programs: frozenset[str] = frozenset({"vxlan", "ipip"})
    is_disabled: bool = False


class WorkloadRoutes:
    """A route to each address of each local workload."""

    def __init__(self) -> None:
        self._claims = Claims()
        self._workloads: dict[WorkloadId, WorkloadEndpoint] = {}

    def on_message(self, message: Message) -> bool:
        """Whether it may matter."""
        match message:
            case WorkloadUpdate(endpoint):
                self._workloads[endpoint.id] = endpoint
                self._claims.claim(endpoint.id, endpoint.interface)
            case WorkloadRemove(id):
                self._workloads.pop(id, None)
                self._claims.forget(id)
            case _:
                return False
        return True

    def wanted(self, settings: RouteSettings) -> list[WantedRoute]:
        found = []
        for interface, id in self._claims.owners.items():
            endpoint = self._workloads[id]
            if not endpoint.is_up or endpoint.live_migration == "target":
                continue
            metrics = settings.elevated_metrics if endpoint.live_migration == "live" else settings.metrics
            externals = [f"{ext}/{128 if ':' in ext else 32}" for _, ext in endpoint.nats]
            for destination in (*endpoint.ipv4_nets, *endpoint.ipv6_nets, *externals):
                is_six = ":" in destination
                found.append(
                    WantedRoute(
                        destination, RouteClass.LOCAL_WORKLOAD, interface, protocol=settings.device_protocol,
                        metric=metrics[is_six], source=settings.sources[is_six],
                    )
                )  # fmt: skip
        return found


class ClusterRoutes:
    """How other nodes' blocks are reached, and blackholes for what of our own blocks nobody has."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._hosts: dict[str, Host] = {}
        self._vteps: dict[str, VTEP] = {}

    def on_message(self, message: Message) -> bool:
        match message:
            case RouteUpdate(route):
                self._routes[route.destination] = route
            case RouteRemove(destination):
                self._routes.pop(destination, None)
            case HostUpdate(host):
                self._hosts[host.name] = host
            case HostRemove(name):
                self._hosts.pop(name, None)
            case VTEPUpdate(vtep):
                self._vteps[vtep.node] = vtep
            case VTEPRemove(node):
                self._vteps.pop(node, None)
            case _:
                return False
        return True

    def wanted(self, settings: RouteSettings, parent_of: Callable[[str], str]) -> list[WantedRoute]:
        """`parent_of` is the interface that has an address."""
        own = self._hosts.get(settings.node)
        found = []
        for route in self._routes.values():
            if not route.type.is_workload or route.pool not in settings.programs:
                continue
            if route.type.is_remote and route.node_ip:
                is_six = ":" in route.destination
                address = "" if own is None else own.ipv6 if is_six else own.ipv4
                one = self._remote(route, parent_of(address) if address else "", is_six)
                if one is not None:
                    found.append(one)
            elif route.type.is_local and not is_single(route.destination):
                found.append(WantedRoute(route.destination, RouteClass.BLACKHOLE))
        return found

    def _remote(self, route: Route, parent: str, is_six: bool) -> WantedRoute | None:
        if route.same_subnet or route.pool == "none":
            kind = {"vxlan": RouteClass.VXLAN_SAME_SUBNET, "ipip": RouteClass.IPIP_SAME_SUBNET}.get(
                route.pool, RouteClass.NO_ENCAPSULATION
            )
            return WantedRoute(route.destination, kind, parent, route.node_ip) if parent else None
        if route.pool == "ipip":
            return WantedRoute(route.destination, RouteClass.IPIP_TUNNEL, IPIP_DEVICE, route.node_ip, is_onlink=True)
        vtep = self._vteps.get(route.node)
        gateway = "" if vtep is None else vtep.ipv6 if is_six else vtep.ipv4
        if not gateway:
            return None
        device = VXLAN_V6_DEVICE if is_six else VXLAN_DEVICE
        return WantedRoute(route.destination, RouteClass.VXLAN_TUNNEL, device, gateway, is_onlink=True)


def is_single(destination: str) -> bool:
    return destination.endswith("/128" if ":" in destination else "/32")


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
    """Connections of addresses that have moved away, forgotten beside everything else: a pod that goes costs several
    processes' start, and policy of others must not wait for that. The next pod's route to the address must."""

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
    """A Programmer and an InterfaceListener. `forget_connections` is told an address that has moved away or gone,
    `apply_at` when there is something to do though nothing changes."""

    def __init__(
        self,
        settings: RouteSettings,
        forget_connections: Forget,
        clock: Callable[[], float] = time.monotonic,
        apply_at: Callable[[float], None] = lambda _at: None,
    ) -> None:
        """`clock` is the one of `apply`."""
        self._kernel = KernelRoutes()
        self._book = RouteBook()
        self._workloads, self._cluster = WorkloadRoutes(), ClusterRoutes()
        self._interfaces = Interfaces()
        self.forgetting = Forgetting(forget_connections)
        self._clock, self._apply_at = clock, apply_at
        self._is_stale = True
        self._is_everything_due = True  # other settings may have been in force: routes of another protocol
        self._appeared: set[int] = set()
        self._reached: dict[str, int] = {}  # a local workload's address → index of the interface that leads to it
        self.look_again_at: float | None = None
        self._set(settings)

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
        self._is_stale = self._is_everything_due = True

    def on_message(self, message: Message) -> None:
        if self._workloads.on_message(message) or self._cluster.on_message(message):
            self._is_stale = True

    def interface_changed(self, name: str, state: State, addresses: frozenset[str], ifindex: int) -> None:
        is_new = ifindex not in self._interfaces.names
        for index in self._interfaces.take(name, state, addresses, ifindex):
            self._book.interface_gone(index)
            self._appeared.discard(index)
        if is_new and state != "gone":
            self._appeared.add(ifindex)
        self._is_stale = True

    async def apply(self, now: float) -> list[Failure]:
        is_due = self.look_again_at is not None and self.look_again_at <= now
        if self._settings.is_disabled or not (self._is_stale or is_due):
            return []
        there = (
            self._kernel.read() if self._is_everything_due else self._kernel.read(FELIX_PROTOCOL) + self._read_devices()
        )
        step = self._step(there, now)
        await self.forgetting.done(route.destination.partition("/")[0] for route in step.puts)
        failures = self._kernel.write(step.puts, step.deletes, self._interfaces.up)
        self._is_stale, self._is_everything_due = bool(failures), False
        self._look_again(step.look_again_at)
        self._forget_what_moved(step)
        return failures

    def _look_again(self, at: float | None) -> None:
        self.look_again_at = at
        if at is not None:
            self._apply_at(at)

    def _read_devices(self) -> list[KernelRoute]:
        protocol = self._settings.device_protocol
        return self._kernel.read(protocol) if protocol != FELIX_PROTOCOL else []

    def _step(self, there: list[KernelRoute], now: float) -> Step:
        for index in self._appeared:
            self._book.interface_appeared(index, now)
        self._appeared.clear()
        known = self._interfaces
        self._book.want("workloads", self._workloads.wanted(self._settings))
        self._book.want("cluster", self._cluster.wanted(self._settings, known.holder))
        return self._book.step(there, known.up, self._ownership, known.name, now)

    def _forget_what_moved(self, step: Step) -> None:
        """The kernel drops an interface's routes in silence: what counts is whom an address led to when we last looked."""
        before, wanted = self._reached, self._book.wanted()
        self._reached = {
            destination: self._interfaces.up.get(route.interface, before.get(destination, 0))
            for destination, route in wanted.items()
            if route.kind is RouteClass.LOCAL_WORKLOAD and is_single(destination)
        }
        moved = {one for one, index in before.items() if index and self._reached.get(one) != index}
        moved |= {
            one.destination for one in step.deletes if is_single(one.destination) and one.destination not in wanted
        }
        for destination in moved:
            self.forgetting.begin(destination.partition("/")[0])

    async def check(self) -> list[str]:
        """Everything in the table, others' routes over workloads' interfaces too."""
        if self._settings.is_disabled:
            return []
        step = self._step(self._kernel.read(), self._clock())
        found = [f"route {one.destination} was missing or altered" for one in step.puts]
        found += [f"route {one.destination} was not ours" for one in step.deletes]
        failures = self._kernel.write(step.puts, step.deletes, self._interfaces.up) if found else []
        self._is_stale = self._is_stale or bool(failures)
        self._look_again(step.look_again_at)
        return found
