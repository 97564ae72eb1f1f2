"""The routes of local workloads and of other nodes' blocks, kept in the kernel's main table."""

from __future__ import annotations

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
from felix.sync.routes import FELIX_PROTOCOL, KernelRoute, Ownership, RouteBook, RouteClass, WantedRoute

VXLAN_DEVICE, VXLAN_V6_DEVICE, IPIP_DEVICE = "vxlan.calico", "vxlan-v6.calico", "tunl0"
TUNNELS = frozenset((VXLAN_DEVICE, VXLAN_V6_DEVICE, IPIP_DEVICE))
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
        self._wanted: dict[str, WantedRoute] = {}
        self._settings: RouteSettings | None = None  # with which, and with which parents, `_wanted` was made
        self._parents: list[str] = []
        self._changed: set[str] = set()
        self._is_all_stale = True

    def on_message(self, message: Message) -> bool:
        match message:
            case RouteUpdate(route):
                self._routes[route.destination] = route
                self._changed.add(route.destination)
                return True
            case RouteRemove(destination):
                self._routes.pop(destination, None)
                self._changed.add(destination)
                return True
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
        self._is_all_stale = True
        return True

    def wanted(self, settings: RouteSettings, parent_of: Callable[[str], str]) -> Iterable[WantedRoute]:
        """`parent_of` is the interface that has an address. Each pod is a route: only what changed is made anew."""
        own = self._hosts.get(settings.node)
        addresses = ("", "") if own is None else (own.ipv4, own.ipv6)
        parents = [parent_of(address) if address else "" for address in addresses]
        if self._is_all_stale or (settings, parents) != (self._settings, self._parents):
            self._wanted.clear()
            self._changed = set(self._routes)
        self._settings, self._parents, self._is_all_stale = settings, parents, False
        for destination in self._changed:
            route = self._routes.get(destination)
            made = self._made(route) if route is not None else None
            if made is None:
                self._wanted.pop(destination, None)
            else:
                self._wanted[destination] = made
        self._changed = set()
        return self._wanted.values()

    def _made(self, route: Route) -> WantedRoute | None:
        assert self._settings is not None
        if not route.type.is_workload or route.pool not in self._settings.programs:
            return None
        if route.type.is_remote and route.node_ip:
            is_six = ":" in route.destination
            return self._remote(route, self._parents[is_six], is_six)
        if route.type.is_local and not is_single(route.destination):
            return WantedRoute(route.destination, RouteClass.BLACKHOLE)
        return None

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
    holders: Holders = field(default_factory=Holders)

    def holder(self, address: str) -> str:
        """Empty if nobody has it."""
        found = self.holders.of(address)
        return found.name if found is not None else ""


class RouteProgrammer:
    """A Programmer and an InterfaceListener. `forget_connections` is told an address that has moved away or gone,
    `apply_at` when there is something to do though nothing changes."""

    def __init__(
        self,
        settings: RouteSettings,
        forget_connections: Forget,
        apply_at: Callable[[float], None] = lambda _at: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernel = KernelRoutes()
        self._book = RouteBook()
        self._workloads, self._cluster = WorkloadRoutes(), ClusterRoutes()
        self._interfaces = Interfaces()
        self._forget, self._apply_at, self._clock = forget_connections, apply_at, clock
        self._is_stale = self._is_cluster_stale = True
        self._appeared: set[int] = set()
        self.look_again_at: float | None = None
        self.reconfigure(settings)

    @property
    def port_id(self) -> int:
        """By which the kernel's notifications of our own writes are known."""
        return self._kernel.port_id

    def close(self) -> None:
        self._kernel.close()

    def reconfigure(self, settings: RouteSettings) -> None:
        self._settings = settings
        self._ownership = Ownership(settings.device_protocol, settings.prefixes, settings.removes_external, TUNNELS)
        self._is_stale = self._is_cluster_stale = True

    def on_message(self, message: Message) -> None:
        if self._workloads.on_message(message):
            self._is_stale = True
        elif self._cluster.on_message(message):
            self._is_stale = self._is_cluster_stale = True

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        known = self._interfaces
        if known.holders.interface_changed(name, state, addresses, ifindex):
            self._is_cluster_stale = True
        if state == "gone":
            known.up.pop(name, None)
            if known.names.get(ifindex) == name:
                del known.names[ifindex]
            self._book.interface_gone(ifindex)
        else:
            if ifindex not in known.names:
                self._appeared.add(ifindex)
            known.names[ifindex] = name
            if state == "up":
                known.up[name] = ifindex
            else:
                known.up.pop(name, None)
        self._is_stale = True

    async def apply(self, now: float) -> list[Failure]:
        is_due = self.look_again_at is not None and self.look_again_at <= now
        if self._settings.is_disabled or not (self._is_stale or is_due):
            return []
        for index in self._appeared:
            self._book.interface_appeared(index, now)
        self._appeared.clear()
        return await self._make_it_so(self._kernel.read(FELIX_PROTOCOL) + self._read_devices(), now)

    def _read_devices(self) -> list[KernelRoute]:
        protocol = self._settings.device_protocol
        return self._kernel.read(protocol) if protocol != FELIX_PROTOCOL else []

    async def _make_it_so(self, there: list[KernelRoute], now: float) -> list[Failure]:
        self._want()
        known = self._interfaces
        step = self._book.step(there, known.up, self._ownership, lambda index: known.names.get(index, ""), now)
        failures = self._kernel.write(step.puts, step.deletes, known.up)
        self._is_stale = bool(failures)
        self.look_again_at = step.look_again_at
        if step.look_again_at is not None:
            self._apply_at(step.look_again_at)
        wanted = self._book.wanted()
        for gone in step.deletes:
            if is_single(gone.destination) and gone.destination not in wanted:
                await self._forget(gone.destination.partition("/")[0])
        return failures

    def _want(self) -> None:
        self._book.want("workloads", self._workloads.wanted(self._settings))
        if self._is_cluster_stale:
            self._is_cluster_stale = False
            self._book.want("cluster", self._cluster.wanted(self._settings, self._interfaces.holder))

    async def check(self) -> list[str]:
        """Everything in the table, others' routes over workloads' interfaces too."""
        if self._settings.is_disabled:
            return []
        self._want()
        known = self._interfaces
        there = self._kernel.read()
        step = self._book.step(
            there, known.up, self._ownership, lambda index: known.names.get(index, ""), self._clock()
        )
        found = [f"route {one.destination} was missing or altered" for one in step.puts]
        deletes = [one for one in step.deletes if not one.interface_index or one.interface_index in known.names]
        found += [f"route {one.destination} was not ours" for one in deletes]
        if found:
            self._kernel.write(step.puts, deletes, known.up)
        return found
