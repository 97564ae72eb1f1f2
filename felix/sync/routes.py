"""Which routes Felix wants in the main table, and what a reading of it means for them. Pure.

Source: Calico's routetable: whose a route is, what may be removed when, which of two wishes for one destination wins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

FELIX_PROTOCOL = 80
IPV6_DEFAULT_METRIC = 1024
RTPROT_KERNEL, RTPROT_BIRD = 2, 12
GRACE_S = 10.0  # a CNI plugin writes a new interface's routes before the datastore tells of it


class RouteClass(IntEnum):
    """Of two wishes for one destination the lower class wins."""

    LOCAL_WORKLOAD = 0
    WIREGUARD = 1
    VXLAN_SAME_SUBNET = 2
    VXLAN_TUNNEL = 3
    IPIP_SAME_SUBNET = 4
    IPIP_TUNNEL = 5
    NO_ENCAPSULATION = 6
    BLACKHOLE = 7


@dataclass(frozen=True, slots=True)
class WantedRoute:
    """`destination` with its length; `interface` empty for a blackhole; `gateway` empty: on the link."""

    destination: str
    kind: RouteClass
    interface: str = ""
    gateway: str = ""
    is_onlink: bool = False
    protocol: int = FELIX_PROTOCOL
    metric: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """As the kernel has it. `interface_index` 0: leads nowhere."""

    destination: str
    interface_index: int
    gateway: str
    protocol: int
    metric: int
    source: str = ""
    is_onlink: bool = False
    is_plain: bool = True  # a single next hop, or a blackhole


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which routes are ours to remove."""

    device_protocol: int = 3
    prefixes: tuple[str, ...] = ("cali",)
    removes_external: bool = True
    tunnel_devices: frozenset[str] = frozenset()

    def is_ours(self, route: KernelRoute, interface: str) -> bool:
        """The kernel's own routes follow its addresses, and without fe80::/64 no pod finds its IPv6 router. What a BGP
        speaker on this node learned from a pod goes through the pod's interface, and is the speaker's."""
        if route.protocol == FELIX_PROTOCOL:
            return True
        if route.protocol in (RTPROT_KERNEL, RTPROT_BIRD) and route.protocol != self.device_protocol:
            return False
        if interface in self.tunnel_devices:
            return route.protocol == self.device_protocol
        is_workload = interface.startswith(self.prefixes)
        return is_workload and (self.removes_external or route.protocol == self.device_protocol)


@dataclass(slots=True)
class Step:
    """What to write, in order: first `puts`, then `deletes`; `waiting` have no interface to go out by yet."""

    puts: list[WantedRoute] = field(default_factory=list)
    deletes: list[KernelRoute] = field(default_factory=list)
    waiting: list[WantedRoute] = field(default_factory=list)
    look_again_at: float | None = None


class RouteBook:
    """Wishes by who has them."""

    def __init__(self) -> None:
        self._by_maker: dict[str, dict[str, WantedRoute]] = {}
        self._appeared: dict[int, float] = {}  # interface index → when
        self._led: dict[str, int] = {}  # what the last step wanted: destination → interface index, 0 if it never was up

    def want(self, maker: str, routes: Iterable[WantedRoute]) -> None:
        """All that `maker` wants now."""
        self._by_maker[maker] = {route.destination: route for route in routes}

    def interface_appeared(self, index: int, now: float) -> None:
        self._appeared.setdefault(index, now)

    def interface_gone(self, index: int) -> None:
        self._appeared.pop(index, None)

    def wanted(self) -> dict[str, WantedRoute]:
        found: dict[str, WantedRoute] = {}
        for routes in self._by_maker.values():
            for destination, route in routes.items():
                other = found.get(destination)
                if other is None or (route.kind, other.interface) < (other.kind, route.interface):
                    found[destination] = route
        return found

    def step(
        self,
        there: Collection[KernelRoute],
        up: Mapping[str, int],
        ownership: Ownership,
        interface_name: Callable[[int], str],
        now: float,
    ) -> Step:
        """From what is there to what is wanted. `up`: name → index of the interfaces that are up."""
        step = Step()
        wanted = self.wanted()
        led = self._led
        self._led = {to: up.get(one.interface) or led.get(to, 0) for to, one in wanted.items()}
        right: set[str] = set()
        for one in there:
            name = interface_name(one.interface_index)
            want = wanted.get(one.destination)
            has_led = bool(one.interface_index) and led.get(one.destination) == one.interface_index
            if want is None:
                if ownership.is_ours(one, name):
                    self._remove(one, step, now, is_news=not has_led and name.startswith(ownership.prefixes))
            elif want.interface and want.interface not in up:
                # What is there may be better than nothing; but over an interface that has another name now no policy is met.
                if has_led and name != want.interface:
                    step.deletes.append(one)
            elif fits(want, one, up):
                right.add(one.destination)
            elif ownership.is_ours(one, name):
                step.deletes.append(one)
        for route in wanted.values():
            if route.interface and route.interface not in up:
                step.waiting.append(route)
            elif route.destination not in right:
                step.puts.append(route)
        _leave_what_is_replaced(step)
        return step

    def _remove(self, one: KernelRoute, step: Step, now: float, *, is_news: bool) -> None:
        """What we wrote ourselves and want no more is nobody's news."""
        due_at = self._appeared.get(one.interface_index, float("-inf")) + GRACE_S
        if is_news and now < due_at:
            step.look_again_at = min(due_at, step.look_again_at or due_at)
        else:
            step.deletes.append(one)


def _leave_what_is_replaced(step: Step) -> None:
    """A put replaces the first route of its metric; a deletion after it could only hit the new one."""
    metrics = {route.destination: shown_metric(route) for route in step.puts}
    kept = []
    for one in step.deletes:
        if metrics.get(one.destination, -1) == one.metric:
            del metrics[one.destination]
        else:
            kept.append(one)
    step.deletes = kept


def fits(want: WantedRoute, one: KernelRoute, up: Mapping[str, int]) -> bool:
    return (
        one.is_plain
        and one.interface_index == (up[want.interface] if want.interface else 0)
        and one.gateway == want.gateway
        and one.protocol == want.protocol
        and one.metric == shown_metric(want)
        and one.source == want.source
        and one.is_onlink == want.is_onlink
    )


def shown_metric(want: WantedRoute) -> int:
    """IPv6 makes 1024 of a metric that is not said."""
    return 0 if ":" in want.destination and want.metric == IPV6_DEFAULT_METRIC else want.metric
