"""Which routes the calculation's messages ask for. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from felix.claims import LocalWorkloads
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
    WorkloadId,
)
from felix.sync.routes import RouteBook, RouteClass, WantedRoute

VXLAN_DEVICE, VXLAN_V6_DEVICE, IPIP_DEVICE = "vxlan.calico", "vxlan-v6.calico", "tunl0"


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
        self._workloads = LocalWorkloads()
        self._changed: set[WorkloadId] = set()

    def on_message(self, message: Message) -> None:
        self._changed |= self._workloads.on_message(message)

    def everything_changed(self) -> None:
        self._changed |= self._workloads.by_id.keys()

    def pass_on(self, book: RouteBook, settings: RouteSettings) -> None:
        """What has changed since the last time."""
        for id in self._changed:
            book.want(id, self._routes_of(id, settings))
        self._changed.clear()

    def _routes_of(self, id: WorkloadId, settings: RouteSettings) -> list[WantedRoute]:
        endpoint = self._workloads.by_id.get(id)
        if (
            endpoint is None
            or not endpoint.is_up
            or endpoint.live_migration == "target"
            or not self._workloads.owns(id)
        ):
            return []
        metrics = settings.elevated_metrics if endpoint.live_migration == "live" else settings.metrics
        externals = [f"{ext}/{128 if ':' in ext else 32}" for _, ext in endpoint.nats]
        return [
            WantedRoute(
                destination, RouteClass.LOCAL_WORKLOAD, endpoint.interface, protocol=settings.device_protocol,
                metric=metrics[":" in destination], source=settings.sources[":" in destination],
            )
            for destination in (*endpoint.ipv4_nets, *endpoint.ipv6_nets, *externals)
        ]  # fmt: skip


class ClusterRoutes:
    """How other nodes' blocks are reached, and blackholes for what of our own blocks nobody has."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._by_node: dict[str, set[str]] = {}
        self._hosts: dict[str, Host] = {}
        self._vteps: dict[str, VTEP] = {}
        self._changed: set[str] = set()
        self._parents = ("", "")  # interfaces that have this node's IPv4 and IPv6 address

    def on_message(self, message: Message) -> None:
        match message:
            case RouteUpdate(route):
                self._set(route.destination, route)
            case RouteRemove(destination):
                self._set(destination, None)
            case HostUpdate(host):
                self._hosts[host.name] = host
            case HostRemove(name):
                self._hosts.pop(name, None)
            case VTEPUpdate(vtep):
                self._vteps[vtep.node] = vtep
                self._changed |= self._by_node.get(vtep.node, set())
            case VTEPRemove(node):
                self._vteps.pop(node, None)
                self._changed |= self._by_node.get(node, set())

    def _set(self, destination: str, route: Route | None) -> None:
        before = self._routes.pop(destination, None)
        if before is not None:
            self._by_node[before.node].discard(destination)
            if not self._by_node[before.node]:
                del self._by_node[before.node]
        if route is not None:
            self._routes[destination] = route
            self._by_node.setdefault(route.node, set()).add(destination)
        self._changed.add(destination)

    def everything_changed(self) -> None:
        self._changed |= self._routes.keys()

    def pass_on(self, book: RouteBook, settings: RouteSettings, holder: Callable[[str], str]) -> None:
        """What has changed since the last time. `holder` is the interface that has an address, empty if none has."""
        own = self._hosts.get(settings.node)
        four, six = ("", "") if own is None else (own.ipv4, own.ipv6)
        parents = holder(four) if four else "", holder(six) if six else ""
        if parents != self._parents:
            self._parents = parents
            self.everything_changed()
        for destination in self._changed:
            one = self._wanted(destination, settings)
            book.want(destination, [] if one is None else [one])
        self._changed.clear()

    def _wanted(self, destination: str, settings: RouteSettings) -> WantedRoute | None:
        route = self._routes.get(destination)
        if route is None or not route.type.is_workload or route.pool not in settings.programs:
            return None
        if route.type.is_remote and route.node_ip:
            return self._remote(route, ":" in destination)
        if route.type.is_local and not is_single(destination):
            return WantedRoute(destination, RouteClass.BLACKHOLE)
        return None

    def _remote(self, route: Route, is_six: bool) -> WantedRoute | None:
        if route.same_subnet or route.pool == "none":
            kind = {"vxlan": RouteClass.VXLAN_SAME_SUBNET, "ipip": RouteClass.IPIP_SAME_SUBNET}.get(
                route.pool, RouteClass.NO_ENCAPSULATION
            )
            parent = self._parents[is_six]
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
