"""Our routes: what should be in the kernel, what is, and the requests that make them the same. No I/O, no clock.

`plan` gives the next batch, `settle` takes the kernel's answers. A route of another program is never written over: see
felix/DESIGN.md for what may be done to whom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bgp.config import KernelConfig
from bgp.families import IPV4, IPV6, Address, Family, Nlri, address_text, family_of, prefix_text
from bgp.ports import EventSink, FibRoute
from felix.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, KernelError
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RTN_BLACKHOLE, RTN_UNICAST, Hop, RouteEncoder, Via

ADD, REPLACE = NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE | NLM_F_REPLACE
NUMBER_OF = {IPV4: AF_INET, IPV6: AF_INET6}
_EEXIST, _ESRCH = 17, 3
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_FORGIVE_S = 60.0  # a route that stood so long is no longer fought over
_TEMPLATE_BOUND = 1 << 16

ForeignAt = Callable[[int, Nlri, int], Via | None]  # family, prefix, metric → another program's route there


@dataclass(slots=True)
class Waiting:
    """A route that is not in the kernel, why, and when it is tried again (monotonic seconds)."""

    text: str
    retry_at: float
    delay_s: float


@dataclass(slots=True)
class Counters:
    writes: int = 0
    deletes: int = 0
    adopted: int = 0
    batches: int = 0
    errors: int = 0
    conflicts: int = 0
    put_back: int = 0


@dataclass(slots=True)
class FamilyRoutes:
    """One family. `stale`: of our protocol in the kernel, by prefix and metric, and not known to be wanted."""

    family: Family
    desired: dict[Nlri, FibRoute] = field(default_factory=dict)
    programmed: dict[Nlri, RouteEncoder] = field(default_factory=dict)
    stale: dict[tuple[Nlri, int], Via] = field(default_factory=dict)
    waiting: dict[Nlri, Waiting] = field(default_factory=dict)
    conflicts: dict[Nlri, Via] = field(default_factory=dict)
    dirty: dict[Nlri, None] = field(default_factory=dict)
    lost_at: dict[Nlri, tuple[float, float]] = field(default_factory=dict)  # when last taken from us, next delay


# One request of a batch: where it belongs, its prefix, what it writes (None: it deletes), what stood there before.
Request = tuple[FamilyRoutes, Nlri, RouteEncoder | None, RouteEncoder | None]


@dataclass(slots=True)
class Batch:
    messages: list[bytes] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


class RouteWriter:
    def __init__(self, config: KernelConfig, foreign_at: ForeignAt, events: EventSink) -> None:
        self._config = config
        self._foreign_at = foreign_at
        self._events = events
        self.families = {AF_INET: FamilyRoutes(IPV4), AF_INET6: FamilyRoutes(IPV6)}
        self.counters = Counters()
        self.has_converged = False
        self.needs_resync = False
        self.next_retry_at: float | None = None  # no route that waits is due earlier
        self._usable: frozenset[Address] = frozenset()
        self._templates: dict[tuple[int, FibRoute], RouteEncoder] = {}
        self._templates_by_id: dict[int, tuple[FibRoute, RouteEncoder]] = {}
        self._encoders: dict[Via, RouteEncoder] = {}
        self._fits: dict[tuple[int, int], tuple[Via, Via, bool]] = {}
        self._preferred = {NUMBER_OF[family_of(a.packed)]: a.packed for a in config.preferred_source}
        self._queue: deque[tuple[FamilyRoutes, Iterator[Nlri]]] = deque()
        self._queued = 0

    # What is wanted.

    def want(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        routes = self.families[NUMBER_OF[family]]
        if None not in changes.values():
            routes.desired.update(changes)  # type: ignore[arg-type]
        else:
            for prefix, route in changes.items():
                if route is None:
                    routes.desired.pop(prefix, None)
                else:
                    routes.desired[prefix] = route
        routes.dirty.update(dict.fromkeys(changes))

    def converged(self) -> None:
        self.has_converged = True

    def want_nothing(self) -> None:
        """All of ours go, those of an earlier run too."""
        for routes in self.families.values():
            routes.dirty.update(dict.fromkeys(routes.desired))
            routes.desired.clear()
        self.has_converged = True

    # What happened around us.

    def addresses_changed(self, usable: frozenset[Address]) -> None:
        """A preferred source is only asked for while it is an address of this node."""
        before, self._usable = self._usable, usable
        if not before ^ usable:
            return
        for number, routes in self.families.items():
            by_config = self._preferred.get(number, b"")
            if by_config and (by_config in before) != (by_config in usable):
                routes.dirty.update(dict.fromkeys(routes.desired))
            else:
                routes.dirty.update(
                    (prefix, None)
                    for prefix, route in routes.desired.items()
                    if route.preferred_source in before ^ usable
                )
        self._templates.clear()
        self._templates_by_id.clear()

    def retry_all(self) -> None:
        """Links or addresses changed, so what failed may work now."""
        for routes in self.families.values():
            routes.dirty.update(dict.fromkeys(routes.waiting))

    def retry_due(self, now: float) -> None:
        self.next_retry_at = None
        for routes in self.families.values():
            for prefix, waiting in routes.waiting.items():
                if waiting.retry_at <= now:
                    routes.dirty[prefix] = None
                else:
                    self._retry_no_later_than(waiting.retry_at)

    def _retry_no_later_than(self, at: float) -> None:
        if self.next_retry_at is None or at < self.next_retry_at:
            self.next_retry_at = at

    def seen(self, prefix: Nlri, via: Via, now: float) -> None:
        """Somebody else wrote a route of our protocol number into our table."""
        routes = self.families[via.family]
        ours = routes.programmed.get(prefix)
        if ours is not None and ours.via.metric == via.metric:
            if self._is_fit(ours.via, via):
                return
            del routes.programmed[prefix]
            routes.stale[prefix, via.metric] = via
            self._put_back(routes, prefix, now, "altered by another program")
        else:
            routes.stale[prefix, via.metric] = via
            if prefix in routes.desired:
                routes.dirty[prefix] = None

    def lost(self, prefix: Nlri, family: int, metric: int, now: float, why: str) -> None:
        """Somebody else deleted a route of ours or put another in its place."""
        routes = self.families[family]
        routes.stale.pop((prefix, metric), None)
        ours = routes.programmed.get(prefix)
        if ours is not None and ours.via.metric == metric:
            del routes.programmed[prefix]
            self._put_back(routes, prefix, now, why)

    def foreign_went(self, prefix: Nlri, family: int) -> None:
        routes = self.families[family]
        if routes.conflicts.pop(prefix, None) is not None:
            routes.dirty[prefix] = None

    def resynced(self, family: int, found: Mapping[tuple[Nlri, int], Via], now: float) -> None:
        """All routes of our protocol in our table were read: whatever we believed gives way to it."""
        routes = self.families[family]
        remaining = dict(found)
        for prefix, encoder in list(routes.programmed.items()):
            via = remaining.get((prefix, encoder.via.metric))
            if via is not None and self._is_fit(encoder.via, via):
                del remaining[prefix, encoder.via.metric]
                continue
            del routes.programmed[prefix]
            routes.dirty[prefix] = None
        routes.stale = remaining
        for prefix, _ in remaining:
            if prefix in routes.desired:
                routes.dirty[prefix] = None
        routes.dirty.update(dict.fromkeys(routes.conflicts))

    def _put_back(self, routes: FamilyRoutes, prefix: Nlri, now: float, why: str) -> None:
        """At once the first time; against somebody who keeps at it with growing pauses."""
        if prefix not in routes.desired:
            return
        self.counters.put_back += 1
        last_at, delay_s = routes.lost_at.get(prefix, (0.0, 0.0))
        if now - last_at > _FORGIVE_S or not delay_s:
            delay_s = 0.0
            routes.dirty[prefix] = None
        else:
            routes.waiting[prefix] = Waiting(why, now + delay_s, delay_s)
            self._retry_no_later_than(now + delay_s)
        if len(routes.lost_at) > _TEMPLATE_BOUND:
            routes.lost_at.clear()
        routes.lost_at[prefix] = (now, min(_LAST_RETRY_S, max(_FIRST_RETRY_S, 2 * delay_s)))

    # What to write.

    @property
    def has_work(self) -> bool:
        return bool(self._queued) or any(
            routes.dirty or (self.has_converged and routes.stale) for routes in self.families.values()
        )

    @property
    def pending(self) -> int:
        """Routes that wait for their turn, not counting those that failed."""
        return self._queued + sum(len(routes.dirty) for routes in self.families.values())

    def plan(self, limit: int, first_sequence: int) -> Batch:
        """At most about `limit` requests, numbered from `first_sequence`, that bring the kernel closer to what is wanted.

        They count as done until `settle` says otherwise.
        """
        for routes in self.families.values():
            if routes.dirty:
                self._queue.append((routes, iter(routes.dirty)))
                self._queued += len(routes.dirty)
                routes.dirty = {}
        batch = Batch()
        while self._queue and len(batch.messages) < limit:
            routes, prefixes = self._queue[0]
            for prefix in prefixes:
                self._queued -= 1
                self._plan_prefix(routes, prefix, batch, first_sequence)
                if len(batch.messages) >= limit:
                    break
            else:
                self._queue.popleft()
        if self.has_converged and not self._queue:
            self._plan_stale(batch, limit, first_sequence)
        return batch

    def _plan_prefix(self, routes: FamilyRoutes, prefix: Nlri, batch: Batch, first_sequence: int) -> None:
        wanted = routes.desired.get(prefix)
        there = routes.programmed.get(prefix)
        if wanted is None:
            self._plan_removal(routes, prefix, there, batch, first_sequence)
            return
        known = self._templates_by_id.get(id(wanted))
        template = known[1] if known is not None else self._template(routes, wanted)
        if template is there:
            routes.waiting.pop(prefix, None)
            return
        metric = template.via.metric
        if self._is_taken(routes, prefix, template.via):
            return
        how = ADD
        if there is not None and there.via.metric == metric:
            how = REPLACE
        elif routes.stale and (left := routes.stale.pop((prefix, metric), None)) is not None:
            if self._is_fit(template.via, left):
                self.counters.adopted += 1
                routes.waiting.pop(prefix, None)
                routes.programmed[prefix] = template
                if there is not None:
                    self._delete(routes, prefix, there, batch, first_sequence)
                return
            how = REPLACE
        batch.messages.append(template.put(prefix, how, first_sequence + len(batch.messages)))
        batch.requests.append((routes, prefix, template, there))
        routes.programmed[prefix] = template
        self.counters.writes += 1
        if there is not None and there.via.metric != metric:  # only after the new one stands: no gap
            self._delete(routes, prefix, there, batch, first_sequence)

    def _plan_removal(
        self, routes: FamilyRoutes, prefix: Nlri, there: RouteEncoder | None, batch: Batch, first_sequence: int
    ) -> None:
        routes.waiting.pop(prefix, None)
        routes.conflicts.pop(prefix, None)
        routes.lost_at.pop(prefix, None)
        if there is not None:
            del routes.programmed[prefix]
            self._delete(routes, prefix, there, batch, first_sequence)
        elif routes.stale:
            left = routes.stale.pop((prefix, self._metric(routes, 0)), None)
            if left is not None:
                self._delete(routes, prefix, self._encoder(left), batch, first_sequence)

    def _plan_stale(self, batch: Batch, limit: int, first_sequence: int) -> None:
        for routes in self.families.values():
            while routes.stale and len(batch.messages) < limit:
                (prefix, metric), via = routes.stale.popitem()
                ours = routes.programmed.get(prefix)
                if ours is None or ours.via.metric != metric:
                    self._delete(routes, prefix, self._encoder(via), batch, first_sequence)

    def _delete(
        self, routes: FamilyRoutes, prefix: Nlri, encoder: RouteEncoder, batch: Batch, first_sequence: int
    ) -> None:
        batch.messages.append(encoder.delete(prefix, first_sequence + len(batch.messages)))
        batch.requests.append((routes, prefix, None, encoder))
        self.counters.deletes += 1

    def _is_taken(self, routes: FamilyRoutes, prefix: Nlri, via: Via) -> bool:
        """Whether another program's route stands at this prefix and metric; NLM_F_REPLACE would not ask whose it is."""
        foreign = self._foreign_at(via.family, prefix, via.metric)
        if foreign is None:
            if routes.conflicts:
                routes.conflicts.pop(prefix, None)
            return False
        routes.waiting.pop(prefix, None)
        if routes.conflicts.get(prefix) != foreign:
            routes.conflicts[prefix] = foreign
            self.counters.conflicts += 1
            self._events.event(
                "fib_conflict",
                prefix=prefix_text(routes.family, prefix),
                metric=via.metric,
                table=via.table,
                protocol=foreign.protocol,
            )
        return True

    def settle(self, batch: Batch, errors: Mapping[int, KernelError], now: float) -> None:
        """Take the kernel's answers: which requests of the batch failed, and why."""
        self.counters.batches += 1
        for place, error in errors.items():
            routes, prefix, template, before = batch.requests[place]
            if template is None:
                self._deletion_failed(routes, prefix, before, error)
            else:
                self._write_failed(batch.requests[place], template, error, now)
        if any(routes.waiting for routes in self.families.values()):
            for place, (routes, prefix, template, _) in enumerate(batch.requests):
                if template is not None and place not in errors:
                    routes.waiting.pop(prefix, None)

    def _deletion_failed(
        self, routes: FamilyRoutes, prefix: Nlri, before: RouteEncoder | None, error: KernelError
    ) -> None:
        if error.code == _ESRCH:  # it was gone already, as an IPv4 route is with its link
            return
        self.counters.errors += 1
        self.needs_resync = True
        self._tell_error(routes, prefix, before, error)

    def _write_failed(self, request: Request, template: RouteEncoder, error: KernelError, now: float) -> None:
        routes, prefix, _, before = request
        self.counters.errors += 1
        if routes.programmed.get(prefix) is template:
            del routes.programmed[prefix]
        if error.code == _EEXIST:
            self.needs_resync = True  # something stands there that nobody told us of
        elif before is not None and before.via.metric == template.via.metric:
            # The kernel kept what stood there, but that is no longer where packets may go.
            routes.stale[prefix, before.via.metric] = before.via
        delay_s = min(_LAST_RETRY_S, 2 * routes.waiting[prefix].delay_s if prefix in routes.waiting else _FIRST_RETRY_S)
        is_news = prefix not in routes.waiting or routes.waiting[prefix].text != str(error)
        routes.waiting[prefix] = Waiting(str(error), now + delay_s, delay_s)
        self._retry_no_later_than(now + delay_s)
        if is_news:
            self._tell_error(routes, prefix, template, error)

    def _tell_error(self, routes: FamilyRoutes, prefix: Nlri, encoder: RouteEncoder | None, error: KernelError) -> None:
        self._events.event(
            "fib_error",
            prefix=prefix_text(routes.family, prefix),
            error=str(error),
            next_hops=[_hop_text(hop) for hop in encoder.via.hops] if encoder is not None else [],
        )

    # Translation.

    def _metric(self, routes: FamilyRoutes, metric: int) -> int:
        """The kernel turns an IPv6 metric of 0 into 1024 (IP6_RT_PRIO_USER)."""
        return metric or self._config.metric or (1024 if routes.family is IPV6 else 0)

    def _template(self, routes: FamilyRoutes, route: FibRoute) -> RouteEncoder:
        number = NUMBER_OF[routes.family]
        template = self._templates.get((number, route))
        if template is None:
            template = self._templates[number, route] = self._encoder(self._via(routes, number, route))
        self._templates_by_id[id(route)] = (route, template)
        if len(self._templates_by_id) > _TEMPLATE_BOUND:
            self._templates_by_id.clear()
            self._templates.clear()
        return template

    def _via(self, routes: FamilyRoutes, number: int, route: FibRoute) -> Via:
        source = route.preferred_source or self._preferred.get(number, b"")
        if source not in self._usable or len(source) != routes.family.address_octets:
            source = b""
        hops = {Hop(hop.address, hop.ifindex, 1, hop.on_link) for hop in route.next_hops}
        return Via(
            family=number,
            table=self._config.table,
            protocol=self._config.route_protocol,
            type=RTN_UNICAST if hops else RTN_BLACKHOLE,
            metric=self._metric(routes, route.metric),
            prefsrc=source,
            hops=tuple(sorted(hops)),
        )

    def _encoder(self, via: Via) -> RouteEncoder:
        """One encoder per Via, so that `is` tells whether a route changes."""
        encoder = self._encoders.get(via)
        if encoder is None:
            if len(self._encoders) > _TEMPLATE_BOUND:
                self._encoders.clear()
            encoder = self._encoders[via] = RouteEncoder(via)
        return encoder

    def _is_fit(self, wanted: Via, there: Via) -> bool:
        key = (id(wanted), id(there))
        known = self._fits.get(key)
        if known is None:
            if len(self._fits) > _TEMPLATE_BOUND:
                self._fits.clear()
            known = self._fits[key] = (wanted, there, does_fit(wanted, there))  # held, so that the ids stay theirs
        return known[2]

    def interfaces_in_use(self) -> frozenset[int]:
        return frozenset(hop.ifindex for encoder in self._encoders.values() for hop in encoder.via.hops)

    # For people.

    def explain(self, family: Family, prefix: Nlri) -> dict[str, object]:
        routes = self.families[NUMBER_OF[family]]
        wanted, there = routes.desired.get(prefix), routes.programmed.get(prefix)
        template = self._template(routes, wanted) if wanted is not None else None
        return {
            "desired": _via_view(template.via) if template is not None else None,
            "programmed": _via_view(there.via) if there is not None else None,
            "state": self._state_of(routes, prefix, template, there),
        }

    def _state_of(
        self, routes: FamilyRoutes, prefix: Nlri, template: RouteEncoder | None, there: RouteEncoder | None
    ) -> str:
        if (foreign := routes.conflicts.get(prefix)) is not None:
            return f"foreign route there (protocol {foreign.protocol})"
        if (waiting := routes.waiting.get(prefix)) is not None:
            return waiting.text
        if template is not None:
            return "programmed" if template is there else "pending"
        if any(key[0] == prefix for key in routes.stale):
            return "left by an earlier run"
        return "pending removal" if there is not None else "not wanted"


def does_fit(wanted: Via, there: Via) -> bool:
    """Whether a route in the kernel is what we would write; where the kernel chose the interface, any will do."""
    if (wanted.type, wanted.prefsrc, wanted.metric) != (there.type, there.prefsrc, there.metric):
        return False
    if len(wanted.hops) != len(there.hops):
        return False
    return all(
        (one.gateway, one.weight, one.onlink) == (other.gateway, other.weight, other.onlink)
        and one.ifindex in (0, other.ifindex)
        for one, other in zip(sorted(wanted.hops), sorted(there.hops), strict=True)
    )


def _hop_text(hop: Hop) -> str:
    gateway = address_text(hop.gateway) if hop.gateway else "on-link"
    return gateway + (f" dev {hop.ifindex}" if hop.ifindex else "") + (" onlink" if hop.onlink else "")


def _via_view(via: Via) -> dict[str, object]:
    return {
        "type": "blackhole" if via.type == RTN_BLACKHOLE else "unicast",
        "next_hops": [_hop_text(hop) for hop in via.hops],
        "metric": via.metric,
        "table": via.table,
        "protocol": via.protocol,
        "preferred_source": address_text(via.prefsrc) if via.prefsrc else None,
    }
