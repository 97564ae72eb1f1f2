"""Which routes Felix wants in the main table, and what a reading of it means for them. Pure.

Source: Calico's routetable: whose a route is, what may be removed when, which of two wishes for one destination wins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

FELIX_PROTOCOL = 80
IPV6_DEFAULT_METRIC = 1024
RTPROT_KERNEL, RTPROT_BIRD = 2, 12
GRACE_S = 10.0  # a CNI plugin writes a new interface's routes before the datastore tells of it


class RouteClass(IntEnum):
    """Of two wishes for one destination the lower class wins."""

    LOCAL_WORKLOAD = 0
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

    def is_ours(self, protocol: int, interface: str) -> bool:
        """The kernel's own routes follow its addresses, and without fe80::/64 no pod finds its IPv6 router. What a BGP
        speaker on this node learned from a pod goes through the pod's interface, and is the speaker's."""
        if protocol == FELIX_PROTOCOL:
            return True
        if protocol in (RTPROT_KERNEL, RTPROT_BIRD) and protocol != self.device_protocol:
            return False
        if interface in self.tunnel_devices:
            return protocol == self.device_protocol
        is_workload = interface.startswith(self.prefixes)
        return is_workload and (self.removes_external or protocol == self.device_protocol)


@dataclass(slots=True)
class Step:
    """What to write, in order: first `puts`, then `deletes`; `waiting` have no interface to go out by yet.

    `looked_at`: the destinations that this is about; `altered`: those that are not as they were left; `doubtful`: those that
    may not be as they are thought to be.
    """

    puts: list[WantedRoute] = field(default_factory=list)
    deletes: list[KernelRoute] = field(default_factory=list)
    waiting: list[WantedRoute] = field(default_factory=list)
    looked_at: frozenset[str] = frozenset()
    altered: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()


class RouteBook:
    """What is wanted, and what the table has of it and of ours. A step is about destinations of which one has changed.

    `want` and `there` are told what is known; whatever may have become otherwise unseen is doubted, and then written
    again though it may stand: the kernel takes that for nothing.
    """

    def __init__(self) -> None:
        self.wanted: dict[str, WantedRoute] = {}  # by destination
        self._wishes: dict[str, dict[Hashable, WantedRoute]] = {}  # destination → maker → route
        self._by_maker: dict[Hashable, dict[str, WantedRoute]] = {}
        self._by_interface: dict[str, set[str]] = {}  # what is wanted
        self._there: dict[str, list[KernelRoute]] = {}
        self._by_index: dict[int, set[str]] = {}  # what is there, or was
        # What was wanted last → by which interface, and its index, 0 before it was up.
        self._led: dict[str, tuple[str, int]] = {}
        self._dirty: set[str] = set()
        self._doubtful: set[str] = set()
        self._altered: set[str] = set()  # by others
        self._appeared: dict[int, float] = {}  # interface index → when
        self._spared: dict[str, float] = {}  # destination → until when nothing of it is removed
        self._held: dict[str, float] = {}  # destination → until when nothing of it is written

    # --- what is wanted

    def want(self, maker: Hashable, routes: Iterable[WantedRoute]) -> None:
        """All that `maker` wants now."""
        before = self._by_maker.get(maker, {})
        now = {route.destination: route for route in routes}
        if now == before:
            return
        if now:
            self._by_maker[maker] = now
        else:
            del self._by_maker[maker]
        for destination in before.keys() - now.keys():
            del self._wishes[destination][maker]
            self._choose(destination)
        for destination, route in now.items():
            if before.get(destination) != route:
                self._wishes.setdefault(destination, {})[maker] = route
                self._choose(destination)

    def _choose(self, destination: str) -> None:
        wishes = self._wishes[destination]
        best: WantedRoute | None = None
        for one in wishes.values():
            if best is None or (one.kind, best.interface) < (best.kind, one.interface):
                best = one
        before = self.wanted.get(destination)
        if best == before:
            return
        self._dirty.add(destination)
        if before is not None:
            self._by_interface[before.interface].discard(destination)
        if best is not None:
            self.wanted[destination] = best
            self._by_interface.setdefault(best.interface, set()).add(destination)
            return
        del self.wanted[destination]
        if not wishes:
            del self._wishes[destination]

    # --- what is there

    def begin_reading(self) -> None:
        """What is doubted from now on may be newer than the reading."""
        self._doubtful.clear()

    def read(self, there: Iterable[KernelRoute]) -> None:
        """All that is there for a destination that is wanted, or ours."""
        before, self._there, self._by_index = self._there, {}, {}
        for one in there:
            self._keep(one)
        altered = {one for one in before.keys() | self._there.keys() if before.get(one) != self._there.get(one)}
        self._dirty |= altered
        self._altered |= altered

    def judge_anew(self) -> None:
        """Other routes may be ours now."""
        self._dirty |= self._there.keys()

    def _keep(self, one: KernelRoute) -> None:
        self._there.setdefault(one.destination, []).append(one)
        self._by_index.setdefault(one.interface_index, set()).add(one.destination)

    def was_put(self, one: KernelRoute, *, is_replacement: bool, is_ours: bool) -> Literal["", "write", "read"]:
        """Somebody else has written it. What is to be done about it: nothing, a step, or a reading and a step.

        What it replaced the kernel does not say, nor which of several of one metric ours would replace.
        """
        if is_replacement and self.doubt(one.destination):
            return "read"
        if one.destination not in self.wanted and not is_ours:
            return ""
        is_clear = all(other.metric != one.metric for other in self._there.get(one.destination, ()))
        self._keep(one)
        self._dirty.add(one.destination)
        self._altered.add(one.destination)
        return "write" if is_clear else "read"

    def was_deleted(self, one: KernelRoute) -> bool:
        """By somebody else. Whether it matters to us."""
        matters = self.doubt(one.destination)
        self._forget(one.destination, one.__eq__)
        return matters

    def doubt(self, destination: str) -> bool:
        """Somebody else has touched it. Whether it matters to us."""
        matters = destination in self.wanted or destination in self._there
        if matters:
            self._doubtful.add(destination)
            self._altered.add(destination)
            self._dirty.add(destination)
        return matters

    def interface_appeared(self, index: int, now: float) -> None:
        self._appeared.setdefault(index, now)

    def interface_changed(self, name: str, index: int) -> None:
        """The kernel drops routes with a link that goes down, and does not say so."""
        changed = self._by_interface.get(name, set()) | self._by_index.get(index, set())
        self._doubtful |= changed
        self._dirty |= changed

    def interface_renamed(self, index: int) -> None:
        self._appeared.pop(index, None)

    def interface_gone(self, index: int) -> None:
        """With every route through it."""
        self._appeared.pop(index, None)
        for destination in self._by_index.pop(index, ()):
            self._forget(destination, lambda one: one.interface_index == index)
            self._dirty.add(destination)

    def _forget(self, destination: str, is_gone: Callable[[KernelRoute], bool]) -> None:
        kept = [one for one in self._there.get(destination, ()) if not is_gone(one)]
        if kept:
            self._there[destination] = kept
        else:
            self._there.pop(destination, None)

    # --- from one to the other

    def hold(self, destination: str, until: float) -> None:
        """Somebody fights us over it: let it be for a while."""
        self._held[destination] = until

    def look_again_at(self) -> float | None:
        return min((*self._spared.values(), *self._held.values()), default=None)

    def due(self, now: float) -> set[str]:
        """Destinations that the next step is about."""
        found = self._dirty | {destination for destination, at in self._spared.items() if at <= now}
        if self._held:
            self._held = {destination: at for destination, at in self._held.items() if at > now}
            found -= self._held.keys()
        return found

    def step(
        self, up: Mapping[str, int], ownership: Ownership, interface_name: Callable[[int], str], now: float
    ) -> Step:
        """From what is there to what is wanted. `up`: name → index of the interfaces that are up. `wrote` must follow."""
        due = self.due(now)
        step = Step(
            looked_at=frozenset(due), altered=frozenset(self._altered & due), doubtful=frozenset(self._doubtful & due)
        )
        for marked in (self._dirty, self._doubtful, self._altered):
            marked.difference_update(due)  # what comes while it is written is due again
        for destination in step.looked_at:
            self._spared.pop(destination, None)
            want = self.wanted.get(destination)
            is_waiting = want is not None and bool(want.interface) and want.interface not in up
            is_right = False
            for one in self._there.get(destination, ()):
                name = interface_name(one.interface_index)
                led_by, index = self._led.get(destination, ("", 0))
                has_led = bool(index) and index == one.interface_index
                if want is None:
                    if ownership.is_ours(one.protocol, name):
                        self._remove(one, step, now, is_news=not has_led and name.startswith(ownership.prefixes))
                elif is_waiting:
                    # What is there may be better than nothing; but over an interface that has another name now no policy is met.
                    if has_led and led_by == want.interface != name:
                        step.deletes.append(one)
                elif fits(want, one, up):
                    is_right = destination not in step.doubtful
                elif ownership.is_ours(one.protocol, name):
                    step.deletes.append(one)
            if want is not None and is_waiting:
                step.waiting.append(want)
            elif want is not None and not is_right:
                step.puts.append(want)
        _leave_what_is_replaced(step)
        return step

    def _remove(self, one: KernelRoute, step: Step, now: float, *, is_news: bool) -> None:
        """What we wrote ourselves and want no more is nobody's news."""
        due_at = self._appeared.get(one.interface_index, float("-inf")) + GRACE_S
        if is_news and now < due_at:
            self._spared[one.destination] = max(due_at, self._spared.get(one.destination, due_at))
        else:
            step.deletes.append(one)

    def wrote(self, step: Step, up: Mapping[str, int], failed: Collection[str]) -> None:
        """`failed` destinations are due again."""
        for route in step.puts:
            if route.destination not in failed:
                written = as_written(route, up)
                self._forget(route.destination, lambda one: one.metric == written.metric)  # noqa: B023
                self._keep(written)
        for gone in step.deletes:
            if gone.destination not in failed:
                self._forget(gone.destination, gone.__eq__)
        for destination in step.looked_at.difference(failed):
            want = self.wanted.get(destination)
            if want is None:
                self._led.pop(destination, None)
            else:
                led_by, index = self._led.get(destination, ("", 0))
                now_index = up.get(want.interface, index if led_by == want.interface else 0)
                self._led[destination] = want.interface, now_index
        self._dirty.update(failed)
        unsure = step.doubtful.difference(route.destination for route in step.puts)
        self._doubtful.update(failed, (destination for destination in unsure if destination in self._there))


def _leave_what_is_replaced(step: Step) -> None:
    """A put replaces the first route of its metric; a deletion after it could only hit the new one."""
    if not step.deletes:
        return
    metrics = {route.destination: shown_metric(route) for route in step.puts}
    kept = []
    for one in step.deletes:
        if metrics.get(one.destination, -1) == one.metric:
            del metrics[one.destination]
        else:
            kept.append(one)
    step.deletes = kept


def as_written(want: WantedRoute, up: Mapping[str, int]) -> KernelRoute:
    index = up[want.interface] if want.interface else 0
    return KernelRoute(
        want.destination, index, want.gateway, want.protocol, shown_metric(want), want.source, want.is_onlink
    )


def fits(want: WantedRoute, one: KernelRoute, up: Mapping[str, int]) -> bool:
    return one == as_written(want, up)


def shown_metric(want: WantedRoute) -> int:
    """IPv6 makes 1024 of a metric that is not said."""
    return 0 if ":" in want.destination and want.metric == IPV6_DEFAULT_METRIC else want.metric
