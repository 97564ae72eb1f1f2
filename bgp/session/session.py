"""One FSM run on one connection. Bytes, times and connection events in; outputs out. No socket, no clock.

The table in `fsm.py` says what happens, `actions.py` does it. Everything that concerns more than one
connection (collisions, back-off, what a lost session means for its routes) is the owner's, `Peer`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import islice
from typing import Any

from bgp.families import Address, Family
from bgp.session.actions import ACTIONS, Occurrence
from bgp.session.fsm import TRANSITIONS, Event, State
from bgp.session.negotiation import Negotiated, negotiate
from bgp.session.outputs import CloseConnection, OpenConnection, Output, RefreshReceived, RouteChanges, SendBytes, Told
from bgp.session.owner import Ended, MakeParser, OnMalformed, SessionOwner, UpdateParserProtocol
from bgp.session.settings import LARGE_HOLD_TIME_S, SessionSettings
from bgp.session.timers import Timers
from bgp.wire import framing
from bgp.wire.errors import NotificationError
from bgp.wire.framing import HEADER_OCTETS, KEEPALIVE_MESSAGE, MAX_OCTETS, MESSAGE_NAMES
from bgp.wire.notification import (
    CEASE,
    COLLISION,
    HOLD_TIMER_EXPIRED,
    OUT_OF_RESOURCES,
    SEND_HOLD_TIMER_EXPIRED,
    Notification,
    encode_notification,
    hard_reset,
    parse_notification,
)
from bgp.wire.open import OpenMessage, parse_open
from bgp.wire.refresh import encode_refresh

__all__ = ["Ended", "MakeParser", "OnMalformed", "Session", "SessionOwner", "UpdateParserProtocol"]

_LEAST_SEND_HOLD_S = 480.0  # RFC 9687 §4.1
_LEAST_KEEPALIVE_S = 1.0  # RFC 4271 §4.4
_LEAST_REFRESH_S = 1.0  # a request costs its sender 23 octets and us a table
_MESSAGE_EVENTS = {
    framing.OPEN: Event.OPEN,
    framing.UPDATE: Event.UPDATE,
    framing.NOTIFICATION: Event.NOTIFICATION,
    framing.KEEPALIVE: Event.KEEPALIVE,
    framing.ROUTE_REFRESH: Event.ROUTE_REFRESH,
}
_ERROR_EVENTS = {1: Event.HEADER_ERROR, 2: Event.OPEN_ERROR, 7: Event.ROUTE_REFRESH_ERROR}  # by NOTIFICATION code


class Session:
    """See the module. `opening` is the OPEN that we send; `sent` and `received` count messages by type, for the peer."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        owner: SessionOwner,
        emit: Callable[[Output], None],
        rng: random.Random,
        make_parser: MakeParser,
        opening: OpenMessage,
        sent: dict[str, int],
        received: dict[str, int],
        is_incoming: bool = False,
    ) -> None:
        self.settings = settings
        self.state = State.IDLE
        self.is_incoming = is_incoming
        self.opening = opening
        self.negotiated: Negotiated | None = None
        self.parser: UpdateParserProtocol | None = None
        self.local_address: Address = b""
        self.remote_address: Address = b""
        self.is_connected = False
        self.open_sent_at = math.inf
        self.timers = Timers(rng)
        self.retry_s = settings.connect_retry_s
        self.owner = owner
        self.emit = emit
        self.make_parser = make_parser
        self._sent = sent
        self._received = received
        self._is_held = False  # somebody outside has a socket or a dial for it
        self._rest = b""
        self._refreshed_at: dict[Family, float] = {}
        self._refresh_owed: set[Family] = set()
        self._now = 0.0
        self.max_receive_octets = MAX_OCTETS
        self._update_sent_at = self._keepalive_since = -math.inf

    # --- what happens to it -----------------------------------------------------------------------------------------

    def start(self, event: Event, now: float, *, retry_s: float | None = None) -> None:
        """`event`: one of the six starts. `retry_s`: pause before dialling from Active, ConnectRetryTime if None."""
        self.retry_s = self.settings.connect_retry_s if retry_s is None else retry_s
        self.fire(event, now)

    def connection_made(self, now: float, local_address: Address, remote_address: Address) -> None:
        self.local_address, self.remote_address = local_address, remote_address
        self.is_connected = self._is_held = True
        self._rest = b""
        self.fire(Event.TCP_CONNECTION_CONFIRMED if self.is_incoming else Event.TCP_CR_ACKED, now)

    def connection_failed(self, now: float, reason: str) -> None:
        self.is_connected = False
        self.fire(Event.TCP_CONNECTION_FAILS, now, reason)

    def connection_lost(self, now: float, reason: str) -> None:
        self.is_connected = False
        self.fire(Event.TCP_CONNECTION_FAILS, now, reason)

    def supersede(self, now: float) -> None:
        """The peer has opened a new connection, so this one is as good as lost (RFC 4724 §5)."""
        self.fire(Event.TCP_CONNECTION_FAILS, now, "the peer opened a new connection")

    def stop(self, now: float, notification: Notification, reason: str, *, is_automatic: bool, is_hard: bool) -> None:
        event = Event.AUTOMATIC_STOP if is_automatic else Event.MANUAL_STOP
        restart = self.negotiated.peer_restart if self.negotiated else None
        if is_hard and self.state is State.ESTABLISHED and restart is not None and restart.notification:
            # With the N bit a plain Cease would have the peer keep our routes (RFC 8538 §3).
            notification = Notification(*hard_reset(notification.code, notification.subcode, notification.data))
        self.fire(event, now, reason, notification=notification, is_hard=is_hard)

    def reject(self, now: float, notification: Notification, reason: str) -> None:
        """Refuse a connection on arrival: say why, as a courtesy, and close."""
        self.send_notification(notification, is_told=False)
        self.emit(CloseConnection(self))
        self.owner.session_ended(self, Ended(reason, State.IDLE, sent=notification, is_counted=False), now)

    def dump(self, now: float) -> None:
        """Lose a collision (RFC 4271 §6.8)."""
        self.fire(Event.OPEN_COLLISION_DUMP, now, "connection collision", notification=Notification(CEASE, COLLISION))

    def cancel(self, now: float) -> None:
        """Give up an attempt that has no connection yet; the other one got there first."""
        self.fire(Event.AUTOMATIC_STOP, now, "the other connection was first")

    # --- receiving --------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the peer. Never raises because of what the peer sent."""
        if not self.is_connected or self.state is State.IDLE:
            return
        self._now = now
        buffer = self._rest + data if self._rest else data
        at = 0
        while self.state is not State.ESTABLISHED:
            bounds, error = framing.cut(buffer, at, self.max_receive_octets, 1)
            if error is not None:
                self._header_error(buffer, at, error)
                return
            if len(bounds) == 1:
                self._rest = buffer[at:]
                return
            self._take_early(buffer[at : bounds[1]])
            if not self.is_connected:
                return
            at = bounds[1]
        self._take_established(buffer, at)

    def _take_early(self, message: bytes) -> None:
        """A message outside Established: only OPEN, KEEPALIVE and NOTIFICATION have a meaning there."""
        self._count(message[18])
        try:
            self._take(message)
        except NotificationError as error:
            self._protocol_error(message, error)
        except Exception as error:  # a defect of ours must cost this session only
            self._defect(message, error)

    def _take_established(self, buffer: bytes, at: int) -> None:
        """All whole messages from `at`; the loop runs once an UPDATE."""
        assert self.parser is not None
        parse = self.parser.parse
        bounds, header_error = framing.cut(buffer, at, self.max_receive_octets)
        changes: list[Any] = []
        failure: Exception | None = None
        updates = 0
        end = at
        try:
            for end in islice(bounds, 1, None):
                if buffer[at + 18] == framing.UPDATE:
                    updates += 1
                    parse(buffer, at + HEADER_OCTETS, end, changes)
                else:
                    if buffer[at + 18] in (framing.NOTIFICATION, framing.OPEN) and changes:
                        self.emit(RouteChanges(self, changes))
                        changes = []
                    self._count(buffer[at + 18])
                    self._take(buffer[at:end])
                    if self.state is not State.ESTABLISHED:
                        break
                at = end
        except Exception as error:
            failure = error
        self._received["update"] += updates
        if changes:
            self.emit(RouteChanges(self, changes))
        if isinstance(failure, NotificationError):
            self._protocol_error(buffer[at:end], failure)
        elif failure is not None:
            self._defect(buffer[at:end], failure)
        elif self.state is not State.ESTABLISHED:
            return
        elif header_error is not None:
            self._header_error(buffer, at, header_error)
        else:
            if updates:
                self.restart_hold(self._now)
            self._rest = buffer[at:]

    def _take(self, message: bytes) -> None:
        """Any message but an UPDATE in Established. Raises NotificationError."""
        kind = message[18]
        event = _MESSAGE_EVENTS[kind]
        if kind == framing.NOTIFICATION:
            notification = parse_notification(message[HEADER_OCTETS:])
            self.tell(notification, "received")
            if (notification.code, notification.subcode) == (2, 1):
                event = Event.NOTIFICATION_VERSION_ERROR
            self.fire(event, self._now, f"received {notification}", notification=notification)
        elif kind == framing.OPEN and self.state in (State.OPEN_SENT, State.CONNECT, State.ACTIVE):
            self._take_open(message)
        else:
            self.fire(event, self._now, message=message)

    def _take_open(self, message: bytes) -> None:
        negotiated = negotiate(self.settings, self.opening, parse_open(message[HEADER_OCTETS:]))
        if not self.owner.open_received(self, negotiated, self._now):
            return
        is_early = self.state is not State.OPEN_SENT and self.timers.is_running("delay_open")
        event = Event.OPEN_WITH_DELAY_OPEN_TIMER if is_early else Event.OPEN
        self.fire(event, self._now, negotiated=negotiated)

    def _header_error(self, buffer: bytes, at: int, error: NotificationError) -> None:
        self._protocol_error(buffer[at : at + MAX_OCTETS], error)

    def _protocol_error(self, message: bytes, error: NotificationError) -> None:
        self.owner.malformed(message, str(error), "session reset", self._now)
        self.fire(
            _ERROR_EVENTS.get(error.code, Event.UPDATE_ERROR),
            self._now,
            str(error),
            notification=Notification(error.code, error.subcode, error.data),
        )

    def _defect(self, message: bytes, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        self.emit(Told("defect", {"error": text, "message": message[:MAX_OCTETS].hex()}))
        self.owner.malformed(message, text, "session reset", self._now)
        notification = Notification(CEASE, OUT_OF_RESOURCES)
        self.fire(Event.AUTOMATIC_STOP, self._now, f"internal error, {text}", notification=notification)

    def fault(self, body: bytes, verdict: str, text: str) -> None:
        """The parser met what RFC 7606 heals."""
        self.owner.malformed(framing.message(framing.UPDATE, body), text, verdict, self._now)

    def refresh(self, family: Family, now: float) -> None:
        """The peer wants a family again: at once, or a second after the last time, once for all that it asked since."""
        due = self._refreshed_at.get(family, -math.inf) + _LEAST_REFRESH_S
        if now >= due:
            self._refreshed_at[family] = now
            self.emit(RefreshReceived(self, family))
            return
        self._refresh_owed.add(family)
        if not self.timers.is_running("refresh"):
            self.timers.start("refresh", due, 0.0)

    def _refresh_owed_families(self, now: float) -> None:
        owed, self._refresh_owed = self._refresh_owed, set()
        for family in owed:
            self.refresh(family, now)

    # --- sending ----------------------------------------------------------------------------------------------------

    def update_sent(self, count: int, now: float) -> None:
        """The speaker wrote UPDATEs into the connection: they count, and stand for a KEEPALIVE (RFC 4271 §8.2.2).

        The timer is not touched here, once a member and flush: it looks at this when it expires.
        """
        self._sent["update"] += count
        self._update_sent_at = now

    def send_refresh(self, family: Family, now: float) -> bool:
        """Ask for all routes of a family. False: not Established, or the peer has no route refresh."""
        negotiated = self.negotiated
        if self.state is not State.ESTABLISHED or negotiated is None or not negotiated.route_refresh:
            return False
        if family not in negotiated.families:
            return False
        self.send(framing.ROUTE_REFRESH, encode_refresh(family))
        return True

    def probe(self, now: float) -> None:
        """Send a KEEPALIVE now: if the peer has rebooted, its TCP answers with a reset."""
        if self.state is State.ESTABLISHED:
            self.send_keepalive(now)

    def send_blocked(self, now: float) -> None:
        """TCP takes no more although something waits (RFC 9687). Call bytes_flushed first after a partial write."""
        if self.state is State.ESTABLISHED and not self.timers.is_running("send_hold"):
            self.restart_send_hold(now)

    def bytes_flushed(self, now: float) -> None:
        """TCP took something, so the peer is reading."""
        self.timers.stop("send_hold")

    def send(self, kind: int, message: bytes) -> None:
        self._sent[MESSAGE_NAMES[kind]] += 1
        self.emit(SendBytes(self, message))

    def send_notification(self, notification: Notification, *, is_told: bool = True) -> None:
        if is_told:
            self.tell(notification, "sent")
        message = encode_notification(notification.code, notification.subcode, notification.data)
        self.send(framing.NOTIFICATION, message)

    def send_keepalive(self, now: float) -> None:
        self.send(framing.KEEPALIVE, KEEPALIVE_MESSAGE)
        self.restart_keepalive(now)

    # --- timers -----------------------------------------------------------------------------------------------------

    def next_timer_at(self) -> float | None:
        return self.timers.next_at()

    def handle_timer(self, now: float) -> None:
        while (name := self.timers.pop_due(now)) is not None:
            self._expired(name, now)

    def _expired(self, name: str, now: float) -> None:
        if name == "refresh":
            self._refresh_owed_families(now)
        elif name == "hold":
            # In OpenSent it is the large one, for the OPEN.
            waited = self.negotiated.hold_time_s if self.negotiated else LARGE_HOLD_TIME_S
            self.fire(
                Event.HOLD_TIMER_EXPIRES,
                now,
                f"hold timer expired, nothing received for {waited:g} s",
                notification=Notification(HOLD_TIMER_EXPIRED, 0),
            )
        elif name == "send_hold":
            self.fire(
                Event.SEND_HOLD_TIMER_EXPIRES,
                now,
                "send hold timer expired, the peer does not read",
                notification=Notification(SEND_HOLD_TIMER_EXPIRED, 0),
                is_blocked=True,
            )
        elif name == "keepalive" and self._update_sent_at > self._keepalive_since:
            self.restart_keepalive(self._update_sent_at)
        else:
            event = {
                "connect_retry": Event.CONNECT_RETRY_TIMER_EXPIRES,
                "keepalive": Event.KEEPALIVE_TIMER_EXPIRES,
                "delay_open": Event.DELAY_OPEN_TIMER_EXPIRES,
            }[name]
            self.fire(event, now, f"{name} timer expired")

    def restart_hold(self, now: float) -> None:
        hold_time_s = self.negotiated.hold_time_s if self.negotiated else 0
        if hold_time_s:
            self.timers.start("hold", now, hold_time_s)
        else:
            self.timers.stop("hold")

    def restart_keepalive(self, now: float) -> None:
        keepalive_s = self.negotiated.keepalive_s if self.negotiated else 0.0
        if keepalive_s:
            self._keepalive_since = now
            self.timers.start_jittered("keepalive", now, keepalive_s, at_least_s=_LEAST_KEEPALIVE_S)

    def restart_send_hold(self, now: float) -> None:
        hold_time_s = self.negotiated.hold_time_s if self.negotiated else 0
        send_hold_s = self.settings.send_hold_time_s
        if send_hold_s is None:
            send_hold_s = max(_LEAST_SEND_HOLD_S, 2.0 * hold_time_s)
        if hold_time_s and send_hold_s:  # RFC 9687 §4.3: hold time 0 stops it too
            self.timers.start("send_hold", now, send_hold_s)

    def restart_connect_retry(self, now: float) -> None:
        # A passive peer has nothing to retry: RFC 4271 would have it dial when this expires in Active.
        if not self.settings.is_passive and not self.is_incoming:
            self.timers.start_jittered("connect_retry", now, self.settings.connect_retry_s)

    # --- the machine ------------------------------------------------------------------------------------------------

    def fire(
        self,
        event: Event,
        now: float,
        why: str = "",
        *,
        notification: Notification | None = None,
        negotiated: Negotiated | None = None,
        message: bytes = b"",
        is_hard: bool = False,
        is_blocked: bool = False,
    ) -> None:
        """Look the event up in the table and do what it says. The keyword arguments are what comes with some events."""
        was = self.state
        transition = TRANSITIONS[was, event]
        self.state = transition.to[0]
        ACTIONS[transition.action](
            self, Occurrence(event, was, now, why, notification, negotiated, message, is_hard, is_blocked)
        )

    def end(
        self,
        happened: Occurrence,
        *,
        sent: Notification | None = None,
        received: Notification | None = None,
        is_counted: bool = True,
        reason: str = "",
    ) -> None:
        self.disconnect(abort=happened.is_blocked)
        self.timers.stop_all()
        self.owner.session_ended(
            self,
            Ended(
                reason=reason or happened.why or happened.event.name,
                state=happened.was,
                sent=sent,
                received=received,
                is_counted=is_counted,
                is_hard=happened.is_hard,
                negotiated=self.negotiated,
            ),
            happened.now,
        )

    def dial(self) -> None:
        self._is_held = True
        self.emit(OpenConnection(self))

    def disconnect(self, *, abort: bool) -> None:
        """Once for each dial and connection, also when the other side has closed already: it may then be forgotten."""
        self.is_connected = False
        self._rest = b""
        if self._is_held:
            self._is_held = False
            self.emit(CloseConnection(self, abort))

    def _count(self, kind: int) -> None:
        self._received[MESSAGE_NAMES[kind]] += 1

    def tell(self, notification: Notification, direction: str) -> None:
        self.emit(
            Told(
                f"notification_{direction}",
                {"code": notification.code, "subcode": notification.subcode, "text": str(notification)},
            )
        )
