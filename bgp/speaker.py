"""Speaker: one router's BGP engine behind one facade. Pure: data and `now` (monotonic seconds) in, calls on ports out.

Whoever calls it (bgp/io) brings bytes, connections and the time; what follows is collected until `flush`, which
encodes once per update group and hands the kernel its changes.
"""

from __future__ import annotations

import ipaddress
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from bgp import moved_hops, views
from bgp.agenda import Agenda
from bgp.config import PeerConfig, SpeakerConfig
from bgp.families import FAMILIES, Address, Family, Nlri
from bgp.kernel_routes import KernelRoutes
from bgp.neighbour import Neighbour
from bgp.originated import Originated
from bgp.ports import EventSink, Fib, FibRoute, LearnedRoute, NextHopTracker, Reflection, Resolution, Transport
from bgp.reconfigure import Change, differences, pair_peers
from bgp.rib.adj_rib_in import AdjRibIn
from bgp.rib.batch import Buffer
from bgp.rib.catch_up import Member, Piece
from bgp.rib.decision import equal_cost
from bgp.rib.hops import Hops
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import Path, Source, best_of
from bgp.rib.update_group import ExportRules, UpdateGroup, end_of_rib_piece
from bgp.session.negotiation import Negotiated
from bgp.session.outputs import (
    CloseConnection,
    OpenConnection,
    PeerDown,
    PeerUp,
    RefreshReceived,
    RouteChanges,
    SendBytes,
    Told,
)
from bgp.session.peer import Peer
from bgp.session.session import OnMalformed, Session
from bgp.session.settings import settings_of
from bgp.wire.notification import (
    ADMIN_SHUTDOWN,
    CEASE,
    CONFIGURATION_CHANGE,
    PEER_DECONFIGURED,
    shutdown_communication,
)
from bgp.wire.update import UpdateParser

_UNASKED_END_OF_RIB_S = 5.0  # a peer without graceful restart owes no End-of-RIB; so long we wait for one
_STALE_S = 180.0  # after a peer's return: routes that it has not repeated by then go (RFC 4724 §4.2)
_TABLES_WAITING = 8
_DYNAMIC_LIMIT = 20000
_GONE_KEPT = 64


class Speaker:
    """See the module. `transport` is set by bgp/io before `start`. Implements bgp.ports.FibListener."""

    transport: Transport

    def __init__(
        self,
        config: SpeakerConfig,
        *,
        fib: Fib | None,
        next_hops: NextHopTracker | None,
        events: EventSink,
        rng: random.Random,
        now: float,
        reflection_of: Callable[[SpeakerConfig], Reflection | None] = lambda _: None,
    ) -> None:
        self.config = config
        self._ranges = [peer for peer in config.peers if peer.range is not None]
        self._reflection_of = reflection_of
        self.reflection = reflection_of(config)
        self.started_at = now
        self._now = now
        self._fib = fib if config.kernel is not None and config.kernel.program else None
        self._events = events
        self._rng = rng
        multipath = config.multipath_ebgp > 1 or config.multipath_ibgp > 1
        self.ribs = {f: LocRib(f, tracks_fib=self._fib is not None, multipath=multipath) for f in FAMILIES}
        for rib in self.ribs.values():
            rib.always_compare_med = config.always_compare_med
        self.neighbours: dict[str, Neighbour] = {}
        self._by_address: dict[Address, list[Neighbour]] = {}  # more than one where link-local addresses repeat
        self.gone: dict[str, Neighbour] = {}  # dynamic ones that have left, the latest last
        self._by_session: dict[Session, Neighbour] = {}
        self.groups: dict[ExportRules, UpdateGroup] = {}
        self._hops = Hops(next_hops)
        self._kernel = KernelRoutes(config.kernel, self.ribs, self._hops, self.multipath)
        self._originated = Originated()
        self._may_send_end_of_rib = False
        self.is_converged = False
        self._is_convergence_due = False
        self._agenda = Agenda()
        self._departed: set[Source] = set()  # gone in this turn; their paths go all at once
        self._advancing: set[Neighbour] = set()  # members that lack something and can be sent more
        for peer in config.peers:
            if peer.range is None:
                self._add(peer, peer.name)
        self._originated.put(config.originate, self.ribs)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        self._now = now
        for neighbour in list(self.neighbours.values()):
            neighbour.peer.start(now)
            self._carry_out(neighbour)
        self._check_convergence()
        self.transport.flush_soon()

    def stop(self, now: float, reason: str) -> None:
        """Say Cease to all. Not a hard reset: a peer with RFC 8538 keeps our routes while we are replaced."""
        self._now = now
        for neighbour in list(self.neighbours.values()):
            data = shutdown_communication(reason)
            neighbour.peer.stop(now, CEASE, ADMIN_SHUTDOWN, data, reason, hard=False)
            self._carry_out(neighbour)

    def handle_timer(self, now: float) -> None:
        """Call at least every quarter of a second."""
        self._now = now
        for neighbour in self._agenda.due(now):
            if neighbour.is_gone:
                continue
            neighbour.peer.handle_timer(now)
            self._carry_out(neighbour)
            if neighbour.stale_until <= now:
                self._sweep(neighbour, FAMILIES, "restart time is over")
            if neighbour.awaited_until <= now:
                neighbour.awaited.clear()
                neighbour.awaited_until = math.inf
                self._check_convergence()
            if neighbour.peer.is_finished and neighbour.stale_until == math.inf:
                self._forget(neighbour)
        if not self.is_converged and now - self.started_at >= self.config.convergence_timeout_s:
            self._converged("timed out")
        if self._hops.are_many:
            used = moved_hops.hops_in_use(self.neighbours.values(), self.ribs)
            self._hops.forget_all_but(self._kernel.hops_in_use(used))

    # --- connections (called by bgp/io) -----------------------------------------------------------------------------

    def accept(self, local: Address, remote: Address, now: float, *, interface: str = "") -> Session | None:
        """Somebody has connected. None: nobody that we know; close the connection."""
        self._now = now
        neighbour = self._find(remote, interface) or self._make_dynamic(remote)
        if neighbour is None:
            return None
        session = neighbour.peer.incoming(now, local, remote)
        self._by_session[session] = neighbour
        return session

    def accepted(self, session: Session) -> None:
        """The connection of `accept` is known to the transport: what the session wants may be carried out."""
        self._carry_out(self._by_session[session])

    def connection_made(self, session: Session, local: Address, remote: Address, now: float) -> None:
        self._now = now
        neighbour = self._by_session.get(session)
        if neighbour is not None:
            neighbour.peer.connection_made(session, now, local, remote)
            self._carry_out(neighbour)

    def connection_failed(self, session: Session, reason: str, now: float) -> None:
        self._now = now
        neighbour = self._by_session.get(session)
        if neighbour is not None:
            neighbour.peer.connection_failed(session, now, reason)
            self._carry_out(neighbour)

    def connection_lost(self, session: Session, reason: str, now: float) -> None:
        self._now = now
        neighbour = self._by_session.pop(session, None)
        if neighbour is not None:
            neighbour.peer.connection_lost(session, now, reason)
            self._carry_out(neighbour)

    def receive_data(self, session: Session, data: bytes, now: float) -> None:
        self._now = now
        neighbour = self._by_session.get(session)
        if neighbour is not None:
            neighbour.peer.receive_data(session, data, now)
            self._carry_out(neighbour)

    def config_of(self, session: Session) -> PeerConfig | None:
        neighbour = self._by_session.get(session)
        return neighbour.config if neighbour is not None else None

    def is_ebgp(self, session: Session) -> bool:
        neighbour = self._by_session.get(session)
        return neighbour is not None and neighbour.is_ebgp

    def is_wanted(self, session: Session) -> bool:
        """Whether a connection for this session is still of use."""
        return session in self._by_session

    def drained(self, session: Session, now: float) -> None:
        """The transport has nothing more to send here: go on with a table transfer."""
        neighbour = self._by_session.get(session)
        if neighbour is not None and neighbour.member is not None:
            neighbour.member.is_blocked = False
            if neighbour.member.is_late:
                self._advancing.add(neighbour)
                self.transport.flush_soon()

    # --- outputs of the sessions ------------------------------------------------------------------------------------

    def _carry_out(self, neighbour: Neighbour) -> None:
        transport = self.transport
        for output in neighbour.peer.take_outputs():
            if isinstance(output, RouteChanges):
                if neighbour.adj_rib_in is not None:
                    neighbour.adj_rib_in.take(output.changes, lambda family: self._end_of_rib(neighbour, family))
                    if neighbour.config.max_prefixes:
                        self._check_limits(neighbour)
                    transport.flush_soon()
            elif isinstance(output, SendBytes):
                transport.send(output.session, [output.data])
            elif isinstance(output, OpenConnection):
                self._by_session[output.session] = neighbour
                transport.dial(output.session, neighbour.config)
            elif isinstance(output, CloseConnection):
                self._by_session.pop(output.session, None)
                transport.close(output.session, output.abort)
            elif isinstance(output, PeerUp):
                self._peer_up(neighbour, output.session, output.negotiated)
            elif isinstance(output, PeerDown):
                self._peer_down(neighbour, output)
            elif isinstance(output, RefreshReceived):
                self._send_table(neighbour, (output.family,), say_end=False)
            elif isinstance(output, Told):
                self._events.event(output.name, **output.fields)
        self._agenda.note(neighbour)

    def _peer_up(self, neighbour: Neighbour, session: Session, negotiated: Negotiated) -> None:
        source, config = neighbour.source, neighbour.config
        if source in self._departed:
            self._remove_departed()
        source.router_id = negotiated.peer_router_id
        source.address = session.remote_address
        addresses = self.transport.own_addresses(session)
        own_asns = tuple({self.config.asn, negotiated.local_asn})
        neighbour.adj_rib_in = AdjRibIn(
            source,
            neighbour.import_policy,
            self.ribs,
            own_asns=own_asns,
            allowed_own_asn=config.allowed_own_asn,
            router_id=self.config.router_id.packed,
            cluster_id=views.cluster_id(self),
            own_address=session.local_address,
            track=(lambda hop: self._hops.track(neighbour.scoped(hop))) if config.interface else self._hops.track,
        )
        self._hops.count_session(session.local_address, 1)
        restart = negotiated.peer_restart
        lost = [f for f in FAMILIES if restart is None or f not in restart.forwarding or f not in negotiated.families]
        self._sweep(neighbour, lost, "the peer has not kept them")
        neighbour.stale_until = math.inf if neighbour.stale_until == math.inf else self._now + _STALE_S
        neighbour.awaited = set(negotiated.families)
        neighbour.awaited_until = self._now + (
            _UNASKED_END_OF_RIB_S if restart is None else max(_STALE_S, restart.time_s)
        )
        neighbour.member = Member(source, self._sender(session))
        neighbour.warned.clear()
        self._join(neighbour, negotiated, addresses)
        neighbour.owes_end_of_rib = []
        self._send_table(neighbour, negotiated.families, say_end=True)
        self._check_convergence()

    def _sender(self, session: Session) -> Callable[[list[Buffer], int], int]:
        send = self.transport.send

        def tell(buffers: list[Buffer], count: int) -> int:
            session.update_sent(count, self._now)
            return send(session, buffers)

        return tell

    def _join(self, neighbour: Neighbour, negotiated: Negotiated, addresses: dict[Family, Address]) -> UpdateGroup:
        rules = ExportRules(
            is_ebgp=negotiated.is_ebgp,
            local_asn=negotiated.local_asn,
            families=negotiated.families,
            four_octet_asn=negotiated.four_octet_asn,
            max_octets=negotiated.max_send_octets,
            extended_next_hop=negotiated.extended_next_hop,
            next_hop=neighbour.config.next_hop,
            own_addresses=tuple(addresses.items()),
            policy=neighbour.export_policy,
            graceful_shutdown=neighbour.config.graceful_shutdown,
            default_local_pref=self.config.default_local_pref,
            to_client=neighbour.source.is_client,
            reflection=None if negotiated.is_ebgp else self.reflection,
        )
        group = self.groups.get(rules)
        if group is None:
            group = self.groups[rules] = UpdateGroup(rules, self._too_large)
        assert neighbour.member is not None
        group.join(neighbour.member)
        neighbour.group = group
        return group

    def _leave(self, neighbour: Neighbour) -> None:
        group, member, neighbour.group, neighbour.member = neighbour.group, neighbour.member, None, None
        self._advancing.discard(neighbour)
        if group is not None and member is not None:
            group.leave(member)
            if not group.members:
                self.groups.pop(group.rules, None)

    def _too_large(self, path: Path) -> None:
        self._events.event("route_too_large", peer=path.source.name, octets=len(path.attributes.block))

    def _peer_down(self, neighbour: Neighbour, down: PeerDown) -> None:
        self._leave(neighbour)
        self._hops.count_session(down.session.local_address, -1)
        parser = down.session.parser
        if isinstance(parser, UpdateParser):
            neighbour.dropped_attributes += parser.dropped_attributes
        neighbour.adj_rib_in = None
        source = neighbour.source
        negotiated = down.session.negotiated
        restart = negotiated.peer_restart if negotiated else None
        if down.retain and restart is not None:
            # RFC 4724 §4.2: what was stale already goes, and what the peer does not keep.
            self._sweep(neighbour, FAMILIES, "the peer went away again")
            source.epoch += 1
            self._sweep(neighbour, [f for f in FAMILIES if f not in restart.families], "")
            neighbour.stale_until = self._now + restart.time_s
            kept = {family.name: source.accepted[family] for family in restart.families}
            self._events.event("stale_routes_kept", peer=neighbour.name, routes=kept, for_s=restart.time_s)
        else:
            neighbour.stale_until = math.inf
            source.epoch += 1
            self._departed.add(source)
        for family in FAMILIES:
            source.rejected[family].clear()
        neighbour.awaited.clear()
        neighbour.awaited_until = math.inf
        self.transport.flush_soon()

    def _remove_departed(self) -> None:
        """One walk over the tables, however many left in this turn: a rack, or all peers at our own end."""
        departed, self._departed = self._departed, set()
        for family, rib in self.ribs.items():
            if any(source.accepted[family] for source in departed):
                rib.remove_where(lambda path: path.source in departed and path.epoch != path.source.epoch)

    # --- End-of-RIB, stale routes, convergence ----------------------------------------------------------------------

    def _end_of_rib(self, neighbour: Neighbour, family: Family) -> None:
        self._sweep(neighbour, (family,), "not repeated after the restart")
        neighbour.awaited.discard(family)
        if not neighbour.awaited:
            neighbour.stale_until = neighbour.awaited_until = math.inf
            self._check_convergence()

    def _sweep(self, neighbour: Neighbour, families: Iterable[Family], why: str) -> None:
        source = neighbour.source
        swept = 0
        for family in families:
            before = source.accepted[family]
            if before and source.epoch:
                self.ribs[family].remove_where(lambda path: path.source is source and path.epoch != source.epoch)
                swept += before - source.accepted[family]
        if neighbour.stale_until <= self._now:
            neighbour.stale_until = math.inf
        if swept:
            self._events.event("stale_routes_removed", peer=neighbour.name, routes=swept, why=why)
            self.transport.flush_soon()

    def _check_convergence(self) -> None:
        """At the next flush: a thousand peers may come up in one turn."""
        if not self.is_converged:
            self._is_convergence_due = True
            self.transport.flush_soon()

    def _look_for_convergence(self) -> None:
        """First our own End-of-RIB (a peer that restarts itself is not waited for, RFC 4724 §4.1), then the rest."""
        self._is_convergence_due = False
        if self.is_converged:
            return
        expected = [n for n in self.neighbours.values() if n.config.shutdown is None and not n.range_name]
        if not self._may_send_end_of_rib and all(self._has_told_us(n) for n in expected):
            self._release_end_of_rib()
        if all(n.peer.established is not None and not n.awaited for n in expected):
            self._converged("all peers have sent End-of-RIB" if expected else "no peers to wait for")

    def _has_told_us(self, neighbour: Neighbour) -> bool:
        negotiated = neighbour.peer.negotiated
        if negotiated is None:
            return False
        restart = negotiated.peer_restart
        return not neighbour.awaited or restart is None or restart.restarting

    def _release_end_of_rib(self) -> None:
        self._may_send_end_of_rib = True
        for neighbour in self.neighbours.values():
            neighbour.peer.is_restarting = False
            if neighbour.member is not None and neighbour.owes_end_of_rib:
                self._transfer(neighbour, [end_of_rib_piece(family) for family in neighbour.owes_end_of_rib])
                neighbour.owes_end_of_rib = []

    def _converged(self, why: str) -> None:
        self.is_converged = True
        if not self._may_send_end_of_rib:
            self._release_end_of_rib()
        self._events.event("converged", why=why, after_s=round(self._now - self.started_at, 3))
        self.flush(self._now)
        if self._fib is not None:
            self._fib.converged()

    # --- sending ----------------------------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Tell peers and kernel what has changed since the last flush."""
        self._now = now
        if self._departed:
            self._remove_departed()
        for family, rib in self.ribs.items():
            log = rib.take_log()
            if log:
                for group in list(self.groups.values()):
                    group.flush(family, log, rib)
            if rib.dirty and self._fib is not None:
                dirty, rib.dirty = rib.dirty, set()
                self._fib.apply(family, self._fib_routes(family, dirty))
        if self._is_convergence_due:
            self._look_for_convergence()
        if self._advancing:
            self._advance()

    def _advance(self) -> None:
        """Members that are late get a bounded part of what they lack each turn."""
        for neighbour in list(self._advancing):
            group, member = neighbour.group, neighbour.member
            if group is None or member is None or not group.advance(member, self.ribs):
                self._advancing.discard(neighbour)
        if self._advancing:
            self.transport.flush_soon()

    def _send_table(self, neighbour: Neighbour, families: Iterable[Family], *, say_end: bool) -> None:
        group, member = neighbour.group, neighbour.member
        if group is None or member is None:
            return
        if member.is_blocked and len(member.transfers) > _TABLES_WAITING:
            return  # it asks again and again, and reads nothing
        for family in families:
            self._transfer(neighbour, group.table(family, self.ribs[family], neighbour.source, is_first=say_end))
            if say_end and self._may_send_end_of_rib:
                self._transfer(neighbour, [end_of_rib_piece(family)])
            elif say_end:
                neighbour.owes_end_of_rib.append(family)

    def _transfer(self, neighbour: Neighbour, pieces: Iterable[Piece]) -> None:
        """Sent from the next flush on, before whatever changes from now on."""
        if neighbour.group is not None and neighbour.member is not None:
            neighbour.group.send_later(neighbour.member, iter(pieces))
            self._advancing.add(neighbour)
            self.transport.flush_soon()

    def _fib_routes(self, family: Family, nlris: Iterable[Nlri]) -> dict[Nlri, FibRoute | None]:
        routes = self._kernel.routes(family, nlris)
        for kind, nlri in self._originated.blackholes:
            if kind is family and nlri in routes and routes[nlri] is None:
                best = best_of(self.ribs[family].table.get(nlri))
                if best is not None and best.source is self._originated.source:
                    routes[nlri] = FibRoute(next_hops=())
        return routes

    def multipath(self, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return equal_cost(paths, self.config.multipath_ebgp, self.config.multipath_ibgp, self.config.always_compare_med)

    # --- next hops and the kernel (FibListener) ---------------------------------------------------------------------

    def next_hops_changed(self, changed: Mapping[Address, Resolution]) -> None:
        states = self._hops.known(changed)
        if not states:
            return
        # Each table must see the old answers before any sees the new: families may share a next hop (RFC 8950).
        prepared = [(rib, rib.using(states)) for rib in self.ribs.values()]
        moved = set()
        for state in states:
            before, state.resolution = state.resolution, changed[state.address]
            if before.interface != state.resolution.interface:
                moved.add(state.address)
        for rib, held in prepared:
            rib.decide_again(held)
        self._kernel.hops_changed(states)
        if moved:
            moved_hops.judge_again(self.neighbours.values(), self.ribs, moved)
        self.transport.flush_soon()

    def local_addresses_changed(self, addresses: frozenset[Address]) -> None:
        if self._hops.set_local(addresses):
            for neighbour in self.neighbours.values():
                if neighbour.adj_rib_in is not None:
                    neighbour.forget_imported()
                    neighbour.adj_rib_in.again()
            self.transport.flush_soon()

    def fib_changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None:
        self._kernel.changed(family, announced, withdrawn)
        self.transport.flush_soon()

    # --- configuration ----------------------------------------------------------------------------------------------

    def reconfigure(self, config: SpeakerConfig, now: float) -> list[Change]:
        """Apply what differs, touching only the peers concerned."""
        self._now = now
        old, changes = self.config, differences(self.config, config)
        pairs = pair_peers(old.peers, config.peers)
        self.config = config
        self._ranges = [peer for peer in config.peers if peer.range is not None]
        self.reflection, had = self._reflection_of(config), self.reflection
        named = self._by_configured_name()
        for removed in pairs.removed:
            for neighbour in named.get(removed.name, ()):
                neighbour.peer.stop(now, CEASE, PEER_DECONFIGURED, b"", "peer de-configured")
                self._carry_out(neighbour)
                self._forget(neighbour)
                self.gone.pop(neighbour.name, None)
        by_peer: dict[str | None, list[Change]] = {}
        for change in changes:
            by_peer.setdefault(change.peer, []).append(change)
        whole: set[str] = {effect for change in changes if change.peer is None for effect in change.effects}
        if self.reflection != had:
            whole.add("export")  # the first client, or the last
        # Whoever keeps thousands of peers up to date hands over the same objects for all but a few of them.
        concerns_all = bool(whole & {"import", "export", "reset"})
        kept = [
            (before, after, named.get(before.name, ()))
            for before, after in pairs.kept
            if concerns_all or before is not after
        ]
        # A name may pass from one peer to another: take all out before any goes in.
        for _, _, neighbours in kept:
            for neighbour in neighbours:
                self._place_of(neighbour).pop(neighbour.name, None)
        for _, after, neighbours in kept:
            for neighbour in neighbours:
                self._rename(neighbour, after)
        for _, after, neighbours in kept:
            mine = by_peer.get(after.name, [])
            effects: set[str] = {*whole, *(effect for change in mine for effect in change.effects)}
            for neighbour in neighbours:
                self._reconfigure_peer(neighbour, after, effects, {change.field for change in mine})
        self._originated.put(config.originate, self.ribs)
        self._kernel.reconfigure(config.kernel)
        for peer in pairs.added:
            if peer.range is None:
                neighbour = self._add(peer, peer.name)
                neighbour.peer.start(now)
                self._carry_out(neighbour)
        if "decision" in whole:
            for rib in self.ribs.values():
                rib.multipath = config.multipath_ebgp > 1 or config.multipath_ibgp > 1
                rib.always_compare_med = config.always_compare_med
                rib.decide_again(rib.competing())
                if rib.tracks_fib:
                    rib.dirty.update(rib.table)
        self._check_convergence()
        self.transport.flush_soon()
        return changes

    def _by_configured_name(self) -> dict[str, list[Neighbour]]:
        """The dynamic ones under the name of their range."""
        named: dict[str, list[Neighbour]] = {}
        for neighbour in (*self.neighbours.values(), *self.gone.values()):
            named.setdefault(neighbour.range_name or neighbour.name, []).append(neighbour)
        return named

    def _rename(self, neighbour: Neighbour, config: PeerConfig) -> None:
        if neighbour.range_name:
            neighbour.name = config.name + neighbour.name.removeprefix(neighbour.range_name)
            neighbour.range_name = config.name
        else:
            neighbour.name = config.name
        neighbour.source.name = neighbour.peer.name = neighbour.name
        self._place_of(neighbour)[neighbour.name] = neighbour

    def _place_of(self, neighbour: Neighbour) -> dict[str, Neighbour]:
        return self.gone if neighbour.is_gone else self.neighbours

    def _reconfigure_peer(self, neighbour: Neighbour, config: PeerConfig, effects: set[str], fields: set[str]) -> None:
        neighbour.configure(self.config, config)
        peer, now = neighbour.peer, self._now
        needs_reset = peer.reconfigure(settings_of(self.config, config))
        if "shutdown" in fields and config.shutdown is not None:
            peer.shutdown(now, config.shutdown)
        elif "shutdown" in fields:
            peer.enable(now)
        elif needs_reset or "reset" in effects:
            peer.reset(now, subcode=CONFIGURATION_CHANGE)
        else:
            if "import" in effects and neighbour.adj_rib_in is not None:
                self._import_again(neighbour, needs_refresh=bool(fields & {"unknown_attributes", "enforce_first_asn"}))
            if "export" in effects:
                self._export_again(neighbour)
            if neighbour.config.max_prefixes:
                neighbour.warned.clear()
                self._check_limits(neighbour)
        self._carry_out(neighbour)

    def _import_again(self, neighbour: Neighbour, *, needs_refresh: bool) -> None:
        adj_rib_in, session = neighbour.adj_rib_in, neighbour.peer.established
        if adj_rib_in is None or session is None:
            return
        parser = session.parser
        if isinstance(parser, UpdateParser):
            parser.forget()
            parser.passes = neighbour.passes
            parser.set_first_asn(self._first_asn(neighbour))
        adj_rib_in.policy = neighbour.import_policy
        adj_rib_in.allowed_own_asn = neighbour.config.allowed_own_asn
        adj_rib_in.cluster_id = views.cluster_id(self)
        adj_rib_in.again()
        if needs_refresh:
            for family in self.ribs:
                neighbour.peer.send_refresh(family, self._now)

    def _export_again(self, neighbour: Neighbour) -> None:
        session, before, member = neighbour.peer.established, neighbour.group, neighbour.member
        if session is None or session.negotiated is None or before is None or member is None:
            return
        self.flush(self._now)  # what is pending leaves by the old rules, which the comparison starts from
        missed = before.catch_up.missed(member)
        before.leave(member)
        group = self._join(neighbour, session.negotiated, self.transport.own_addresses(session))
        group.catch_up.put_back(member, missed)
        if group is not before:
            for family in session.negotiated.families:
                self._transfer(neighbour, group.difference(before, family, self.ribs[family], neighbour.source))
            if not before.members:
                self.groups.pop(before.rules, None)
        self._advancing.add(neighbour)
        self.transport.flush_soon()

    # --- peers ------------------------------------------------------------------------------------------------------

    def _add(self, config: PeerConfig, name: str, *, range_name: str = "", remote: Address = b"") -> Neighbour:
        neighbour = Neighbour(self.config, config, name, range_name=range_name)
        neighbour.source.address = remote or neighbour.source.address
        neighbour.key = neighbour.source.address
        self._by_address.setdefault(neighbour.key, []).append(neighbour)
        neighbour.peer = Peer(
            settings_of(self.config, config),
            name=name,
            rng=self._rng,
            now=self._now,
            make_parser=lambda negotiated, told: self._make_parser(neighbour, negotiated, told),
            is_restarting=not self._may_send_end_of_rib,
        )
        self.neighbours[name] = neighbour
        return neighbour

    def _make_parser(self, neighbour: Neighbour, negotiated: Negotiated, told: OnMalformed) -> UpdateParser:
        return UpdateParser(
            families=negotiated.families,
            is_ebgp=negotiated.is_ebgp,
            four_octet_asn=negotiated.four_octet_asn,
            extended_next_hop=negotiated.extended_next_hop,
            passes=neighbour.passes,
            first_asn=self._first_asn(neighbour),
            on_malformed=told,
        )

    def _first_asn(self, neighbour: Neighbour) -> int | None:
        return neighbour.config.asn if neighbour.is_ebgp and neighbour.config.enforce_first_asn else None

    def _find(self, remote: Address, interface: str) -> Neighbour | None:
        for neighbour in self._by_address.get(remote, ()):
            wanted = neighbour.config.interface
            if neighbour.range_name or not wanted or not interface or wanted == interface:
                return neighbour
        return None

    def _make_dynamic(self, remote: Address) -> Neighbour | None:
        address = ipaddress.ip_address(remote)
        ranges = [p for p in self._ranges if p.range is not None and address in p.range]
        if not ranges or len(self.neighbours) >= _DYNAMIC_LIMIT:
            return None
        config = max(ranges, key=lambda peer: peer.range.prefixlen if peer.range else 0)
        name = f"{config.name}-{address}"
        neighbour = self.gone.pop(name, None)
        if neighbour is None:
            neighbour = self._add(config, name, range_name=config.name, remote=remote)
        else:
            neighbour.is_gone = False
            neighbour.peer.is_restarting = not self._may_send_end_of_rib
            self.neighbours[name] = neighbour
            self._by_address.setdefault(neighbour.key, []).append(neighbour)
        neighbour.peer.start(self._now)
        return neighbour

    def _forget(self, neighbour: Neighbour) -> None:
        source = neighbour.source
        for rib in self.ribs.values():
            if source.accepted[rib.family]:
                rib.remove_where(lambda path: path.source is source)
        if self.neighbours.get(neighbour.name) is neighbour:
            del self.neighbours[neighbour.name]
            if neighbour.range_name:
                self._remember(neighbour)
        same = [other for other in self._by_address.pop(neighbour.key, ()) if other is not neighbour]
        if same:
            self._by_address[neighbour.key] = same
        for session in neighbour.peer.sessions:
            self._by_session.pop(session, None)
        self._check_convergence()
        self.transport.flush_soon()

    def _remember(self, neighbour: Neighbour) -> None:
        """Why it left, for who asks later; and all of it for the case that it comes back."""
        neighbour.is_gone = True
        neighbour.peer.stop(self._now)
        self.gone[neighbour.name] = neighbour
        if len(self.gone) > _GONE_KEPT:
            # Who comes from many addresses must not make us forget those that were shut down here or had a session.
            least = min(
                self.gone.values(), key=lambda n: (n.peer.shutdown_reason != n.config.shutdown, n.peer.flaps > 0)
            )
            del self.gone[least.name]

    def _check_limits(self, neighbour: Neighbour) -> None:
        for family, limit in neighbour.config.max_prefixes:
            count = neighbour.source.received(family)
            fields = {"peer": neighbour.name, "family": family.name, "prefixes": count, "maximum": limit.maximum}
            if count * 100 >= limit.maximum * limit.warn_percent and family not in neighbour.warned:
                neighbour.warned.add(family)
                self._events.event("prefix_limit_near", **fields)
            if count > limit.maximum and limit.action != "warn":
                self._events.event("prefix_limit_exceeded", action=limit.action, **fields)
                pause_s = limit.restart_s if limit.action == "restart" else None
                neighbour.peer.prefix_limit_exceeded(self._now, family, limit.maximum, pause_s)
                self._carry_out(neighbour)
                return

    # --- operators --------------------------------------------------------------------------------------------------

    def named(self, name: str) -> Neighbour:
        """Also one that is gone. Raises KeyError that names the peers there are."""
        neighbour = self.neighbours.get(name) or self.gone.get(name)
        if neighbour is None:
            raise KeyError(f"no peer {name!r}; there are: {', '.join(sorted(self.neighbours)) or 'none'}")
        return neighbour

    def _named(self, name: str, now: float) -> Neighbour:
        self._now = now
        return self.named(name)

    def reset_peer(self, name: str, now: float) -> None:
        """Raises KeyError, as the three below do. One that is gone can be shut down and enabled: it may come back."""
        neighbour = self._named(name, now)
        neighbour.peer.reset(now)
        self._carry_out(neighbour)

    def refresh_peer(self, name: str, direction: Literal["in", "out", "both"], now: float) -> None:
        """Inward without the capability: what was received is evaluated again."""
        neighbour = self._named(name, now)
        negotiated = neighbour.peer.negotiated
        if negotiated is None:
            return
        if direction in ("in", "both"):
            asked = [neighbour.peer.send_refresh(family, now) for family in negotiated.families]
            if not all(asked):
                self._import_again(neighbour, needs_refresh=False)
        if direction in ("out", "both"):
            self._send_table(neighbour, negotiated.families, say_end=False)
        self._carry_out(neighbour)

    def shutdown_peer(self, name: str, reason: str, now: float) -> None:
        neighbour = self._named(name, now)
        neighbour.peer.shutdown(now, reason)
        self._carry_out(neighbour)

    def enable_peer(self, name: str, now: float) -> None:
        neighbour = self._named(name, now)
        neighbour.peer.enable(now)
        self._carry_out(neighbour)

    def summary(self, now: float) -> dict[str, Any]:
        return views.summary(self, now)

    def peers_view(self, now: float) -> list[dict[str, Any]]:
        """Those that are gone come last, the latest first."""
        shown = (*self.neighbours.values(), *reversed(self.gone.values()))
        return [views.peer(self, neighbour, now) for neighbour in shown]

    def peer_view(self, name: str, now: float) -> dict[str, Any] | None:
        neighbour = self.neighbours.get(name) or self.gone.get(name)
        return None if neighbour is None else views.peer_in_detail(self, neighbour, now)

    def routes_view(
        self,
        *,
        prefix: str | None = None,
        family: Family | None = None,
        peer: str | None = None,
        which: Literal["best", "received", "sent", "all"] = "all",
        longest: bool = False,
    ) -> Iterator[dict[str, Any] | None]:
        """One dict a destination; None now and then where nothing matched, so that the caller can let others run."""
        if peer is not None:
            self.named(peer)
        return views.routes(self, prefix, family, peer, which, longest)
