"""Our routes: what should be in the kernel, what is, and the requests that make them the same. No I/O, no clock.

`plan` gives the next batch, `settle` takes the kernel's answers. A route of another program is never written over: see
felix/DESIGN.md for what may be done to whom.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count, islice, repeat

from bgp.config import KernelConfig
from bgp.families import IPV4, IPV6, Address, Family, Nlri, prefix_text
from bgp.ports import EventSink, FibRoute
from felix.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, KernelError
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RouteEncoder, Via
from felix.kernel.state import KernelState
from integration.node.route_books import Batch, Counters, FamilyRoutes, Request, Waiting
from integration.node.route_templates import NUMBER_OF, RouteTemplates, does_fit, hop_text, is_same_place

ADD, REPLACE = NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE | NLM_F_REPLACE
_EEXIST, _ESRCH = 17, 3
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_FORGIVE_S = 60.0  # a route that stood so long is no longer fought over
_LOST_BOUND = 1 << 16
_STEP = 1024


class RouteWriter:
    def __init__(self, config: KernelConfig, state: KernelState, events: EventSink) -> None:
        """`state`: where other programs' routes are seen."""
        self._config = config
        self._state = state
        self._events = events
        self.families = {AF_INET: FamilyRoutes(IPV4), AF_INET6: FamilyRoutes(IPV6)}
        self.counters = Counters()
        self.has_converged = False
        self.needs_resync = False
        self.next_retry_at: float | None = None  # no route that waits is due earlier
        self.templates = RouteTemplates(config)
        self._queue: deque[tuple[FamilyRoutes, Iterator[Nlri]]] = deque()
        self._queued = 0
        self._down_links: frozenset[int] = frozenset()
        self._nowhere: dict[int, bool] = {}

    # What is wanted.

    def want(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        routes = self.families[NUMBER_OF[family]]
        if all(changes.values()):
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
            # In the order of a set, which is none. From the lowest prefix up the kernel's trie looks, for each route,
            # through all the places that are empty already (update_suffix in net/ipv4/fib_trie.c).
            routes.dirty = dict.fromkeys({*routes.dirty, *routes.desired})
            routes.desired.clear()
        self.has_converged = True

    def reconfigure(self, config: KernelConfig) -> None:
        """Another metric, protocol, table or preferred source. Unclaimed routes of the old kind go (in the next plans)."""
        before, self._config = self._config, config
        self.templates = RouteTemplates(config, self.templates)
        for routes in self.families.values():
            routes.dirty.update(dict.fromkeys(routes.desired))
            if (before.route_protocol, before.table) != (config.route_protocol, config.table):
                routes.doomed.update(routes.stale)
                routes.stale = {}

    # What happened around us.

    def addresses_changed(self, usable: frozenset[Address]) -> None:
        """A preferred source is only asked for while it is an address of this node."""
        changed = self.templates.addresses_changed(usable)
        if not changed:
            return
        for number, routes in self.families.items():
            if self.templates.preferred.get(number) in changed:
                routes.dirty.update(dict.fromkeys(routes.desired))
            else:
                routes.dirty.update(
                    (p, None) for p, route in routes.desired.items() if route.preferred_source in changed
                )

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
        if at < math.inf and (self.next_retry_at is None or at < self.next_retry_at):
            self.next_retry_at = at

    def seen(self, prefix: Nlri, via: Via, now: float) -> None:
        """Somebody else wrote a route of our protocol number into our table."""
        routes = self.families[via.family]
        ours = routes.programmed.get(prefix)
        if ours is not None and ours.via.metric == via.metric:
            if does_fit(ours.via, via):
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

    async def resynced(
        self, family: int, found: Mapping[tuple[Nlri, int], Via], step: Callable[[], Awaitable[None]]
    ) -> None:
        """All routes of our protocol in our table were read: whatever we believed gives way to it.

        Nothing may be planned meanwhile. `step` is awaited now and then, so that others get their turn.
        """
        routes = self.families[family]
        remaining = dict(found)
        for number, (prefix, encoder) in enumerate(list(routes.programmed.items())):
            if not number % _STEP:
                await step()
            via = remaining.get((prefix, encoder.via.metric))
            if via is not None and does_fit(encoder.via, via):
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
        if len(routes.lost_at) > _LOST_BOUND:
            routes.lost_at.clear()
        routes.lost_at[prefix] = (now, min(_LAST_RETRY_S, max(_FIRST_RETRY_S, 2 * delay_s)))

    # What to write.

    @property
    def has_work(self) -> bool:
        return bool(self._queued) or any(
            routes.dirty or routes.doomed or (self.has_converged and routes.stale) for routes in self.families.values()
        )

    @property
    def pending(self) -> int:
        """Routes that wait for their turn, not counting those that failed."""
        return self._queued + sum(len(routes.dirty) for routes in self.families.values())

    @property
    def left(self) -> int:
        """`pending`, and what nobody wants and is still there."""
        families = self.families.values()
        return self.pending + sum(len(r.doomed) + (len(r.stale) if self.has_converged else 0) for r in families)

    def plan(self, limit: int, first_sequence: int) -> Batch:
        """At most `limit` routes (a change of metric takes two requests), numbered from `first_sequence`, that bring the kernel closer to what is wanted.

        They count as done until `settle` says otherwise.
        """
        for routes in self.families.values():
            if routes.dirty:
                self._queue.append((routes, iter(routes.dirty)))
                self._queued += len(routes.dirty)
                routes.dirty = {}
        self._down_links = frozenset(index for index, link in self._state.links.items() if not link.is_up)
        self._nowhere = {}
        batch = Batch()
        looked_at = 0  # most of them may need no request, but looking takes time as well
        while self._queue and looked_at < limit:
            routes, prefixes = self._queue[0]
            run = list(islice(prefixes, limit - looked_at))
            if run:
                looked_at += len(run)
                self._queued -= len(run)
                self._plan_run(routes, run, batch, first_sequence)
            else:
                self._queue.popleft()
        if not self._queue:
            for routes in self.families.values():
                self._plan_leftovers(routes, routes.doomed, batch, limit, first_sequence)
                if self.has_converged:
                    self._plan_leftovers(routes, routes.stale, batch, limit, first_sequence)
        return batch

    def _plan_run(self, routes: FamilyRoutes, run: list[Nlri], batch: Batch, first_sequence: int) -> None:
        """The usual case comes by the ten thousand and is taken as a whole: new routes where nothing was."""
        foreign = self._state.tables[NUMBER_OF[routes.family], self._config.table]
        is_usual = (
            not (self._down_links or routes.stale or routes.doomed or routes.conflicts)
            and routes.programmed.keys().isdisjoint(run)
            and foreign.has_none_of(run)
        )
        wanted = list(map(routes.desired.get, run)) if is_usual else []
        if not is_usual or not all(wanted):  # `None in wanted` would compare each of them
            for prefix in run:
                self._plan_prefix(routes, prefix, batch, first_sequence)
            return
        of, family = self.templates.of, routes.family
        chosen = [of(family, route) for route in wanted if route is not None]
        numbers = count(first_sequence + len(batch.messages))
        batch.messages += [
            template.put(prefix, ADD, number) for template, prefix, number in zip(chosen, run, numbers, strict=False)
        ]
        batch.requests += zip(repeat(routes), run, chosen, repeat(None), strict=False)
        routes.programmed.update(zip(run, chosen, strict=True))
        self.counters.writes += len(run)

    def _plan_prefix(self, routes: FamilyRoutes, prefix: Nlri, batch: Batch, first_sequence: int) -> None:
        wanted = routes.desired.get(prefix)
        there = routes.programmed.get(prefix)
        if wanted is None:
            self._plan_removal(routes, prefix, there, batch, first_sequence)
            return
        template = self.templates.of(routes.family, wanted)
        if template is there:
            routes.waiting.pop(prefix, None)
            return
        if self._down_links and self._leads_nowhere(template):
            # The kernel would refuse it and has dropped what stood there, or does so now; retry_all follows the link.
            routes.waiting[prefix] = Waiting("its interface is down", math.inf, _FIRST_RETRY_S)
            return
        if self._is_taken(routes, prefix, template.via):
            return
        how = ADD
        if there is not None and is_same_place(there.via, template.via):
            how = REPLACE
        elif (routes.stale or routes.doomed) and (left := routes.take_left(prefix, template.via)) is not None:
            if does_fit(template.via, left):
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
        if there is not None and not is_same_place(there.via, template.via):  # after the new one stands: no gap
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
            left = routes.stale.pop((prefix, self.templates.metric(routes.family, 0)), None)
            if left is not None:
                self._delete(routes, prefix, self.templates.encoder(left), batch, first_sequence)

    def _plan_leftovers(
        self, routes: FamilyRoutes, left: dict[tuple[Nlri, int], Via], batch: Batch, limit: int, first_sequence: int
    ) -> None:
        while left and len(batch.messages) < limit:
            (prefix, _), via = left.popitem()
            ours = routes.programmed.get(prefix)
            if ours is None or not is_same_place(ours.via, via):
                self._delete(routes, prefix, self.templates.encoder(via), batch, first_sequence)

    def _delete(
        self, routes: FamilyRoutes, prefix: Nlri, encoder: RouteEncoder, batch: Batch, first_sequence: int
    ) -> None:
        batch.messages.append(encoder.delete(prefix, first_sequence + len(batch.messages)))
        batch.requests.append((routes, prefix, None, encoder))
        self.counters.deletes += 1

    def _leads_nowhere(self, template: RouteEncoder) -> bool:
        """Asked once for each distinct route and batch."""
        answer = self._nowhere.get(id(template))
        if answer is None:
            hops = template.via.hops
            answer = bool(hops) and all(hop.ifindex in self._down_links for hop in hops)
            self._nowhere[id(template)] = answer
        return answer

    def _is_taken(self, routes: FamilyRoutes, prefix: Nlri, via: Via) -> bool:
        """Whether another program's route stands at this prefix and metric; NLM_F_REPLACE would not ask whose it is."""
        foreign = self._state.tables[via.family, via.table].at_metric(prefix, via.metric)
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
        elif before is not None and is_same_place(before.via, template.via):
            # The kernel kept what stood there, but that is no longer where packets may go.
            routes.doomed[prefix, before.via.metric] = before.via
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
            next_hops=[hop_text(hop) for hop in encoder.via.hops] if encoder is not None else [],
        )
