"""The kernel as the speaker sees it: `Fib` and `NextHopTracker` on netlink, in asyncio.

    adapter = FibAdapter(config, listener, events)
    await adapter.start()      # links, addresses and routes are known, and told to the listener
    adapter.apply(IPV4, {nlri: FibRoute((NextHop(gateway, ifindex),))})
    adapter.converged()
    await adapter.close()

What it decides is in route_writer, learned_routes and next_hops; here are the sockets and the moments.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bgp.config import KernelConfig
from bgp.families import Address, Family, Nlri
from bgp.ports import EventSink, FibListener, FibRoute, Resolution
from felix.kernel.netlink import NetlinkFormatError
from felix.kernel.rtnetlink import AF_INET, RT_TABLE_MAIN, RouteDecoder, RouteEncoder, Via
from felix.kernel.sockets import MonitorSocket, RequestSocket, SocketFactory, open_netlink
from felix.kernel.state import KernelState
from integration.node import fib_views
from integration.node.debt import ALLOWED_DEBT_S, SHARE, Debt
from integration.node.event_limit import LimitedEvents
from integration.node.fib_snapshot import Pace, read_kernel
from integration.node.follower import Follower
from integration.node.learned_routes import LearnedRoutes
from integration.node.next_hops import NextHops
from integration.node.route_writer import RouteWriter

_BATCH = 1000  # requests per system call, some milliseconds
_READ_LIMIT = 500  # notifications per turn
_REST = 2.0  # after a full turn of notifications the monitor rests so many times as long as that turn took
_SETTLE_S = 0.005  # changes are answered together: a failing link brings many
_FIRST_RESYNC_S = 0.02
_AUDIT_S = 300.0  # the kernel drops routes silently in the cases known here; this finds the others


class FibAdapter:
    """One network namespace's FIB. All methods belong to the event loop that `start` ran in."""

    def __init__(
        self,
        config: KernelConfig,
        listener: FibListener,
        events: EventSink,
        *,
        netlink: SocketFactory = open_netlink,
        monitor_buffer_octets: int = 32 << 20,
        audit_s: float = _AUDIT_S,
        default_route_resolves: bool = True,
    ) -> None:
        """`netlink` makes the sockets, for tests in the namespace they like. Nothing is opened before `start`."""
        self._config = config
        self._listener = listener
        self._events = LimitedEvents(events)
        self._netlink = netlink
        self._monitor_buffer_octets = monitor_buffer_octets
        self._audit_s = audit_s
        self._decoder = RouteDecoder()
        self._state = KernelState(_tables_of(config))
        self._learned = LearnedRoutes(config, self._state)
        self._next_hops = NextHops(self._state, _resolved_in(config), default_route_resolves)
        self._writer = RouteWriter(config, self._state, self._events)
        self._follower = Follower(config, self._state, self._decoder, self._learned, self._writer)
        self._requests: RequestSocket | None = None
        self._monitor: MonitorSocket | None = None
        self._timers: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._resync_task: asyncio.Task[None] | None = None
        self._resync_debt = Debt()
        self._told_again_at = 0.0  # nor telling
        self._told_addresses: frozenset[Address] | None = None
        self._is_ready = False  # the kernel is known; False again while it is read anew
        self._is_frozen = False
        self._is_closing = False
        self.resyncs = 0
        self.notifications = 0

    async def start(self) -> None:
        """Read the kernel and tell the listener: its addresses, then all that may be originated.

        Routes that an earlier run left stay as they are until `apply` claims them or `converged` gives them up.
        Raises OSError (PermissionError if routes cannot be written but should).
        """
        self._requests = RequestSocket(self._netlink)
        try:
            if self._config.program:
                self._check_permission(self._requests)
            self._monitor = self._open_monitor()
            await self._read()
        except BaseException:
            self._close_sockets()
            raise
        self._listen()
        self._after(self._audit_s, self._audit)

    async def close(self, remove: bool | None = None) -> None:
        """Stop. `remove` (by default what the configuration does not let persist): take our routes out of the kernel."""
        if self._requests is None:
            return
        self.freeze()
        self._is_closing = True
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._resync_task is not None:
            self._resync_task.cancel()
            await asyncio.gather(self._resync_task, return_exceptions=True)
        try:
            if (not self._config.persist if remove is None else remove) and self._config.program:
                self._writer.want_nothing()
                await self._write_all()
        finally:
            self._close_sockets()

    async def reconfigure(self, config: KernelConfig) -> None:
        """Another configuration from now on. Routes change their metric, protocol or table without a gap.

        What an earlier run left and nobody has claimed by now goes if protocol or table change. Turning `program` off
        removes our routes; after turning it on the speaker must say again what it wants.
        """
        if self._requests is None:
            return
        of_the_engine = ("persist", "policy", "priority_base", "tunnels")  # or of the end; nothing is otherwise here
        if config == replace(self._config, **{name: getattr(config, name) for name in of_the_engine}):
            self._config = config
            return
        if self._resync_task is not None:
            await asyncio.gather(self._resync_task, return_exceptions=True)
        if self._is_ready:
            self._pause()
        self._close_monitor()
        before, self._config = self._config, config
        self._learned.set_rules(config)
        self._next_hops.set_tables(_resolved_in(config))
        self._follower.set_config(config)
        if before.program and not config.program:
            self._writer.want_nothing()
        self._writer.reconfigure(config)
        try:
            await self._rewrite(before)
            self._monitor = self._open_monitor()
            await self._read()
        except OSError as error:
            self._events.event("fib_resync_failed", error=error.strerror or str(error))
            self._want_resync()
        self._listen()

    async def _rewrite(self, before: KernelConfig) -> None:
        """With the old protocol set apart, or our own routes would be taken for another program's now."""
        state = KernelState((before.table, *_tables_of(self._config)))
        snapshot = await read_kernel(self._netlink, self._decoder, state, before.route_protocol, before.table)
        self._state.adopt(snapshot.state)
        if before.program:
            await self._write_all()

    def freeze(self) -> None:
        """Take no more wishes: while the speaker takes its peers down, what they taught must stay in the kernel."""
        self._is_frozen = True

    # Fib

    def apply(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        """Make these prefixes be so; None = no route of ours. Returns at once, writes in batches. Never raises."""
        if not self._is_frozen:
            self._writer.want(family, changes)
            self._after(0, self._flush)

    def converged(self) -> None:
        """What an earlier run left and nobody asked for may go now."""
        if not self._is_frozen:
            self._writer.converged()
            self._after(0, self._flush)

    @property
    def has_work(self) -> bool:
        """Something that should be in the kernel has not been asked for yet."""
        return not self._is_ready or (self._config.program and self._writer.has_work)

    @property
    def left(self) -> int:
        """Routes that have still to be written or removed, those that failed not counted."""
        return self._writer.left

    # NextHopTracker

    def track(self, address: Address) -> Resolution:
        """Answer now and keep watching until `forget`; asking again changes nothing."""
        return self._next_hops.track(address)

    def forget(self, address: Address) -> None:
        self._next_hops.forget(address)

    # For people

    def explain(self, family: Family, nlri: Nlri) -> dict[str, Any]:
        """One prefix: what should be, what is, why not; what others have there; what the speaker was told of it."""
        return fib_views.explain(family, nlri, self._writer, self._learned, self._state)

    @property
    def counters(self) -> dict[str, Any]:
        """Numbers since the start; `routes`, `pending`, `stale`, `learned` and `foreign` are of this moment."""
        own = {"resyncs": self.resyncs, "notifications": self.notifications}
        return own | fib_views.counters(self._writer, self._learned, self._state)

    # Writing

    def _check_permission(self, requests: RequestSocket) -> None:
        """Ask for the deletion of a route that cannot be: only whoever may write is told that it does not exist."""
        nothing = RouteEncoder(Via(AF_INET, self._config.table, self._config.route_protocol, metric=0xFFFFFFFE))
        first = requests.sequences(1)
        errors = requests.write([nothing.delete(b"\x20\xff\xff\xff\xff", first)], first)
        if errors and errors[0].code == errno.EPERM:
            raise PermissionError(errno.EPERM, errors[0].text)

    def _flush(self) -> None:
        """One batch; the rest in the next turns, so that sockets and timers get theirs."""
        if not self._is_ready or not self._config.program:
            return  # _read ends with a flush
        self._drain_monitor()  # somebody may just have put a route where we are about to
        self._write_batch()
        if self._writer.needs_resync:
            self._writer.needs_resync = False
            self._want_resync()
        if self._writer.has_work:
            self._after(0, self._flush)
        self._plan_retry()

    def _plan_retry(self) -> None:
        retry_at = self._writer.next_retry_at
        if retry_at is not None:
            self._after(max(0.05, retry_at - time.monotonic()), self._retry)

    def _write_batch(self) -> bool:
        """False if the kernel did not take it."""
        assert self._requests is not None
        first = self._requests.sequences(2 * _BATCH)  # a change of metric takes two requests
        batch = self._writer.plan(_BATCH, first)
        try:
            errors = self._requests.write(batch.messages, first)
        except OSError as error:
            # What became of this batch is not known: read what is there.
            self._events.event("fib_error", prefix=f"{len(batch.messages)} requests", error=str(error), next_hops=[])
            self._want_resync()
            return False
        if batch.messages:
            self._writer.settle(batch, errors, time.monotonic())
        return True

    async def _write_all(self) -> None:
        pace = Pace()
        while self._writer.has_work and self._write_batch():
            await pace.step()

    def _retry(self) -> None:
        self._writer.retry_due(time.monotonic())
        self._flush()

    # Reading

    def _open_monitor(self) -> MonitorSocket:
        assert self._requests is not None
        return MonitorSocket(
            self._requests.port_id, self._state.table_numbers, self._netlink, self._monitor_buffer_octets
        )

    def _listen(self) -> None:
        if self._monitor is not None and self._is_ready:
            asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._on_notifications)

    def _on_notifications(self) -> None:
        began_at = time.monotonic()
        if self._drain_monitor() >= _READ_LIMIT and self._monitor is not None and self._is_ready:
            # Somebody else's flood. What the buffer cannot hold meanwhile is made good by reading everything anew.
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._after(_REST * (time.monotonic() - began_at), self._listen)

    def _drain_monitor(self) -> int:
        """Take in what the monitor holds, up to a limit; returns how much that was."""
        if self._monitor is None:
            return 0
        try:
            told = self._monitor.read(_READ_LIMIT)
        except OSError as error:
            self._events.event("fib_notifications_lost", error=error.strerror or str(error))
            self._close_monitor()
            self._want_resync()
            return 0
        self.notifications += len(told)
        now = time.monotonic()
        for data, frame in told:
            try:
                self._follower.take(data, frame, now)
            except NetlinkFormatError as error:
                self._events.event("fib_notification_refused", error=str(error))
        if told:
            self._after(max(_SETTLE_S, self._told_again_at - now), self._tell)
            if self._writer.has_work and self._config.program:
                # Not at once: a link that fails tells of its routes first, and they need not be tried again.
                self._after(_SETTLE_S, self._flush)
        self._plan_retry()
        if self._follower.is_in_doubt:
            self._want_resync()
        return len(told)

    # Reading everything anew

    def _want_resync(self) -> None:
        if self._resync_task is None:
            self._after(max(_FIRST_RESYNC_S, self._resync_debt.pause_s(time.monotonic())), self._resync)

    def _audit(self) -> None:
        self._want_resync()
        self._after(self._audit_s, self._audit)

    def _pause(self) -> None:
        """Until the next _read is through. What the monitor has to tell waits: each change says what is so now."""
        self._is_ready = False
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())

    def _resync(self) -> None:
        self._pause()
        self._resync_task = asyncio.get_running_loop().create_task(self._resynchronise(), name="fib resync")

    async def _resynchronise(self) -> None:
        try:
            if self._monitor is None:
                self._monitor = self._open_monitor()
            began_at = time.monotonic()
            await self._read()
            self.resyncs += 1
            self._resync_debt.add(time.monotonic() - began_at, time.monotonic())
        except OSError as error:
            self._events.event("fib_resync_failed", error=error.strerror or str(error))
            self._resync_debt.add(ALLOWED_DEBT_S, time.monotonic())
        finally:
            self._resync_task = None
        if self._is_ready:
            self._listen()
        else:
            self._want_resync()

    async def _read(self) -> None:
        """Read the kernel, take it over, tell what is different. Raises OSError, and is not ready then."""
        config = self._config
        snapshot = await read_kernel(
            self._netlink, self._decoder, KernelState(_tables_of(config)), config.route_protocol, config.table
        )
        self._state.adopt(snapshot.state)
        pace = Pace()
        await self._learned.look_again(pace.step)
        # What was told while we read is in what we read, or comes out so: no reason to read again.
        while self._drain_monitor() >= _READ_LIMIT:
            await pace.step()
        self._follower.is_in_doubt = not snapshot.is_certain
        if config.program:
            for family, ours in snapshot.ours.items():
                await self._writer.resynced(family, ours, pace.step)
            self._writer.retry_all()
        self._follower.all_moved()
        self._is_ready = True
        if self._follower.is_in_doubt:
            self._want_resync()
        self._tell()
        self._flush()

    # Telling

    def _tell(self) -> None:
        """Addresses first, then next hops, then routes: each is understood by what came before."""
        if not self._is_ready:
            return  # _read ends with it
        began_at = time.monotonic()
        usable = self._state.usable_addresses()
        if usable != self._told_addresses:
            self._told_addresses = usable
            self._writer.addresses_changed(usable)
            self._after(0, self._flush)
            self._listener.local_addresses_changed(usable)
        self._learned.links_changed(self._follower.take_changed_links())
        if self._follower.take_routes_moved():
            changed = self._next_hops.take_changes()
            if changed:
                self._listener.next_hops_changed(changed)
        for family, (announced, withdrawn) in self._learned.take_changes().items():
            self._listener.fib_changed(family, announced, withdrawn)
        now = time.monotonic()
        self._told_again_at = now + SHARE * (now - began_at)

    # Moments

    def _after(self, delay_s: float, what: Callable[[], None]) -> None:
        """Call it once after the delay; if it is due earlier already, leave it so."""
        if self._requests is None or self._is_closing:
            return
        at = time.monotonic() + delay_s
        name = what.__name__
        known = self._timers.get(name)
        if known is not None:
            if known[0] <= at:
                return
            known[1].cancel()
        loop = asyncio.get_running_loop()
        self._timers[name] = (at, loop.call_later(delay_s, self._fire, name, what))

    def _fire(self, name: str, what: Callable[[], None]) -> None:
        self._timers.pop(name, None)
        what()

    def _close_monitor(self) -> None:
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None

    def _close_sockets(self) -> None:
        self._close_monitor()
        if self._requests is not None:
            self._requests.close()
            self._requests = None


def _resolved_in(config: KernelConfig) -> tuple[int, ...]:
    """The tables in which next hops are looked up: the one that is written first, as in a VRF, then main."""
    return tuple(dict.fromkeys((config.table, RT_TABLE_MAIN)))


def _tables_of(config: KernelConfig) -> tuple[int, ...]:
    return (RT_TABLE_MAIN, config.table, *(rule.table for rule in config.learn))
