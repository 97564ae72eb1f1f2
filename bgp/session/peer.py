"""A configured other side: at most two sessions, which of them wins, and when to try again.

RFC 4271 §6.8 with RFC 6286 (collisions), §8.1 (DampPeerOscillations), RFC 4724 and RFC 8538 (are the routes of a lost
session kept), RFC 4486 and RFC 9003 (how an administrator's decision is told to the peer).
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass

from bgp.families import Address, Family
from bgp.session.fsm import Event, State
from bgp.session.negotiation import ALL_CAPABILITIES, Negotiated, our_open
from bgp.session.outputs import Output, PeerDown, PeerUp, Told
from bgp.session.session import Ended, MakeParser, Session
from bgp.session.settings import SessionSettings
from bgp.wire.framing import HEADER_OCTETS, MAX_OCTETS, MESSAGE_NAMES
from bgp.wire.notification import (
    ADMIN_RESET,
    ADMIN_SHUTDOWN,
    BFD_DOWN,
    CEASE,
    COLLISION,
    CONFIGURATION_CHANGE,
    CONNECTION_REJECTED,
    OPEN_ERROR,
    PEER_DECONFIGURED,
    PREFIX_LIMIT,
    Notification,
    prefix_limit_data,
    shutdown_communication,
)
from bgp.wire.open import encode_open, refused_capabilities

_MAX_IDLE_HOLD_S = 60.0
_DECAY_S = 60.0  # Established for so long takes one doubling back
_PATIENCE_S = 5.0  # an OPEN normally comes at once; a connection that has waited longer than this wins no collision
_QUIET_S = 10.0  # between two reports of malformed messages, or of rejected connections
_KEPT_MALFORMED = 8
_STATE_ORDER = list(State)
# RFC 8538 §5: with these the peer is to drop our routes at once, graceful restart or not.
_HARD_SUBCODES = frozenset({PREFIX_LIMIT, ADMIN_SHUTDOWN, PEER_DECONFIGURED, ADMIN_RESET, BFD_DOWN})
# A Cease that says nothing against either side, so that it does not lengthen the pause.
_HARMLESS_SUBCODES = frozenset({ADMIN_RESET, CONFIGURATION_CHANGE, COLLISION})


@dataclass(frozen=True, slots=True)
class Malformed:
    """`message` is cut to 4096 octets; `octets` is how long it was. `answer`: what we did about it."""

    at: float
    message: bytes
    octets: int
    text: str
    answer: str


class Peer:
    """See the module. Every method may leave outputs; take them after each call. `now` is monotonic seconds.

    `is_restarting`: our Restart bit, set while the speaker itself has restarted and until it has sent its End-of-RIB
    here. `forwarding_preserved`: the kernel kept our routes meanwhile.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        name: str,
        rng: random.Random,
        now: float,
        make_parser: MakeParser,
        is_restarting: bool = False,
        forwarding_preserved: bool = True,
    ) -> None:
        self.settings = settings
        self.name = name
        self.is_restarting = is_restarting
        self.forwarding_preserved = forwarding_preserved
        self.messages_sent = dict.fromkeys(MESSAGE_NAMES.values(), 0)
        self.messages_received = dict.fromkeys(MESSAGE_NAMES.values(), 0)
        self.malformed_messages: deque[Malformed] = deque(maxlen=_KEPT_MALFORMED)
        self.malformed_count = 0
        self.flaps = 0
        self.last_error: tuple[str, float] | None = None
        # Why the last Established session ended: the next failed attempt to connect, a second later, must not hide it.
        self.last_down: tuple[str, float] | None = None
        self.state_since = now
        self.shutdown_reason: str | None = settings.shutdown
        self._rng = rng
        self._make_parser = make_parser
        self._sessions: list[Session] = []
        self._outputs: list[Output] = []
        self._is_started = False
        self._idle_until = math.inf
        self._failures = 0  # consecutive ones; the pause doubles with each
        self._omitted: frozenset[int] = frozenset()  # capabilities that the peer refused
        self._established_at: float | None = None
        self._shown_state = State.IDLE
        self._why = ""
        self._given_up: Session | None = None
        self._told_malformed_at = -math.inf
        self._told_rejection_at = -math.inf
        self._untold_malformed = 0

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The furthest of its sessions."""
        return max((session.state for session in self._sessions), key=_STATE_ORDER.index, default=State.IDLE)

    @property
    def established(self) -> Session | None:
        return next((session for session in self._sessions if session.state is State.ESTABLISHED), None)

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions)

    @property
    def negotiated(self) -> Negotiated | None:
        session = self.established
        return session.negotiated if session else None

    @property
    def is_finished(self) -> bool:
        """A dynamic peer that is gone and owes no pause: it may be forgotten."""
        return self.settings.is_dynamic and not self._sessions and self._idle_until == math.inf

    def uptime_s(self, now: float) -> float:
        """Since the session was established; 0.0 if there is none."""
        return 0.0 if self._established_at is None else now - self._established_at

    def timers(self) -> dict[str, float]:
        """Name → when it expires, of the furthest session and of the peer itself."""
        furthest = max(self._sessions, key=lambda session: _STATE_ORDER.index(session.state), default=None)
        deadlines = furthest.timers.deadlines() if furthest else {}
        if self._idle_until != math.inf:
            deadlines["idle_hold"] = self._idle_until
        return deadlines

    def take_outputs(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

    # --- the administrator ------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin; nothing happens while it is shut down. Starting twice is starting once."""
        if not self._is_started and self.shutdown_reason is None:
            self._is_started = True
            self._failures = 0
            if not self.settings.is_dynamic:
                self._begin(Event.MANUAL_START_PASSIVE if self.settings.is_passive else Event.MANUAL_START, now)
        self._note_state(now)

    def stop(
        self,
        now: float,
        code: int = CEASE,
        subcode: int = ADMIN_SHUTDOWN,
        data: bytes = b"",
        reason: str = "stopped",
        *,
        hard: bool | None = None,
        restart_after_s: float | None = None,
    ) -> None:
        """End every session with this NOTIFICATION.

        `hard`: the peer is to drop our routes although graceful restart was negotiated; None: as RFC 8538 §5 has it
        for the subcode. False when the process ends and is to be replaced. `restart_after_s` None: stay down.
        """
        was_started, self._is_started = self._is_started, False
        self._idle_until = math.inf
        if hard is None:
            hard = code == CEASE and subcode in _HARD_SUBCODES
        for session in self.sessions:
            # RFC 4271 §8.1.2: what the speaker decides for itself is an automatic stop.
            is_automatic = restart_after_s is not None or subcode == PREFIX_LIMIT
            notification = Notification(code, subcode, data)
            session.stop(now, notification, reason, is_automatic=is_automatic, is_hard=hard)
        if restart_after_s is not None and was_started:
            self._is_started = True
            self._idle_until = now + restart_after_s
        self._note_state(now)

    def shutdown(self, now: float, text: str = "") -> None:
        """Administratively down until `enable`; the peer is told why (RFC 9003)."""
        self.shutdown_reason = text
        self.stop(now, CEASE, ADMIN_SHUTDOWN, shutdown_communication(text), _told("administrative shutdown", text))

    def enable(self, now: float) -> None:
        self.shutdown_reason = None
        self._omitted = frozenset()
        self.start(now)

    def reset(self, now: float, text: str = "", *, subcode: int = ADMIN_RESET) -> None:
        """End the session and begin anew. CONFIGURATION_CHANGE for a new configuration."""
        if not self._is_started:
            return
        self._failures = 0
        self._omitted = frozenset()
        data = shutdown_communication(text) if subcode == ADMIN_RESET else b""
        what = "administrative reset" if subcode == ADMIN_RESET else "configuration changed"
        self.stop(now, CEASE, subcode, data, _told(what, text), restart_after_s=self.settings.idle_hold_s)

    def prefix_limit_exceeded(self, now: float, family: Family, limit: int, restart_after_s: float | None) -> None:
        """RFC 4486 §4. `restart_after_s` None: down until `enable`."""
        reason = f"more than {limit} {family.name} prefixes"
        self.stop(
            now,
            CEASE,
            PREFIX_LIMIT,
            prefix_limit_data(family.key, limit),
            reason,
            restart_after_s=restart_after_s,
        )
        if restart_after_s is None:
            self.shutdown_reason = reason

    def reconfigure(self, settings: SessionSettings) -> bool:
        """Take new settings. True: a running session does not fit them, and the caller must `reset` it.

        A change of `shutdown` takes effect by `shutdown` and `enable`; timers when they are next started.
        """
        old, self.settings = self.settings, settings
        for session in self._sessions:
            session.settings = settings
        is_waiting = self.established is None  # in Active, say, with or without a ConnectRetryTimer
        return old.needs_reset(settings) or (old.is_passive != settings.is_passive and is_waiting)

    # --- connections ------------------------------------------------------------------------------------------------

    def incoming(self, now: float, local_address: Address, remote_address: Address) -> Session:
        """The peer has connected. The session may be over at once, with an output that says so to the peer."""
        session = self._make_session(is_incoming=True)
        refusal = self._refusal()
        if refusal is not None:
            session.reject(now, refusal, str(refusal))
            return session
        others = self.sessions
        self._sessions.append(session)
        self._is_started = True
        session.start(Event.AUTOMATIC_START_PASSIVE, now)
        session.connection_made(now, local_address, remote_address)
        for other in others:
            if other.state is State.ESTABLISHED:
                # The new one is tracked until its OPEN says more (RFC 4271 §8.2.2); and if the peer has forgotten the
                # session that we believe in, this makes its TCP say so.
                other.probe(now)
            elif other.is_incoming:
                other.dump(now)  # who connects again has given up the first
        self._note_state(now)
        return session

    def _refusal(self) -> Notification | None:
        if self.shutdown_reason is not None:
            return Notification(CEASE, ADMIN_SHUTDOWN, shutdown_communication(self.shutdown_reason))
        if self._idle_until != math.inf or not (self._is_started or self.settings.is_dynamic):
            return Notification(CEASE, CONNECTION_REJECTED)  # RFC 4271 §8.2.2: Idle refuses connections
        return None

    def connection_made(self, session: Session, now: float, local_address: Address, remote_address: Address) -> None:
        """OpenConnection has succeeded."""
        session.connection_made(now, local_address, remote_address)
        self._note_state(now)

    def connection_failed(self, session: Session, now: float, reason: str) -> None:
        """OpenConnection has failed."""
        if session.is_connected or session.state is not State.CONNECT:
            return  # the news is older than the session's state
        self._note_loss(session, f"connect: {reason}", now)
        session.connection_failed(now, f"connect: {reason}")
        self._note_state(now)

    def connection_lost(self, session: Session, now: float, reason: str) -> None:
        if not session.is_connected:
            return
        self._note_loss(session, f"connection lost: {reason}", now)
        session.connection_lost(now, f"connection lost: {reason}")
        self._note_state(now)

    def _note_loss(self, session: Session, reason: str, now: float) -> None:
        """Also where the FSM lives on (OpenSent → Active), a person wants to know why there is no session."""
        if session in self._sessions and self.established is None:
            self._why = reason
            self.last_error = (reason, now)

    def receive_data(self, session: Session, data: bytes, now: float) -> None:
        session.receive_data(data, now)
        if self._shown_state is not State.ESTABLISHED or session.state is not State.ESTABLISHED:
            self._note_state(now)

    def send_refresh(self, family: Family, now: float) -> bool:
        """Ask for all routes of a family. False if that cannot be asked."""
        session = self.established
        return session is not None and session.send_refresh(family, now)

    # --- time -------------------------------------------------------------------------------------------------------

    def next_timer_at(self) -> float | None:
        deadlines = [at for session in self._sessions if (at := session.next_timer_at()) is not None]
        earliest = min(deadlines, default=math.inf)
        earliest = min(earliest, self._idle_until)
        return None if earliest == math.inf else earliest

    def handle_timer(self, now: float) -> None:
        for session in self.sessions:
            session.handle_timer(now)
        if self._idle_until <= now:
            self._idle_until = math.inf
            if self._is_started and not self.settings.is_dynamic and not self._sessions:
                passive = self.settings.is_passive
                self._begin(Event.AUTOMATIC_START_DAMPED_PASSIVE if passive else Event.AUTOMATIC_START_DAMPED, now)
        self._note_state(now)

    # --- what sessions report ---------------------------------------------------------------------------------------

    def open_received(self, session: Session, negotiated: Negotiated, now: float) -> bool:
        """RFC 4271 §6.8. Also connections in OpenSent are compared: the other one has told us the identifier."""
        for other in self.sessions:
            if other is session:
                continue
            if other.state in (State.CONNECT, State.ACTIVE):
                self._give_up(other, now)
            elif other.state is State.ESTABLISHED:
                if other.negotiated is None or other.negotiated.peer_restart is None:
                    session.dump(now)
                    return False
                other.supersede(now)  # RFC 4724 §5
            elif other.state is State.OPEN_SENT and now - other.open_sent_at > _PATIENCE_S:
                other.dump(now)
            else:
                loser = other if self._wins(session, other, negotiated) else session
                loser.dump(now)
                if loser is session:
                    return False
        return True

    def _wins(self, session: Session, other: Session, negotiated: Negotiated) -> bool:
        """The connection that the speaker with the higher identifier made; RFC 6286 §2.3: then the higher AS."""
        if session.is_incoming == other.is_incoming:
            return True
        ours = (self.settings.router_id, self.settings.local_asn)
        is_ours = ours > (negotiated.peer_router_id, negotiated.peer_asn)
        return session.is_incoming != is_ours

    def session_established(self, session: Session, negotiated: Negotiated, now: float) -> None:
        self._established_at = now
        self._why = f"router {'.'.join(map(str, negotiated.peer_router_id))}"
        self._outputs.append(PeerUp(session, negotiated))

    def session_ended(self, session: Session, ended: Ended, now: float) -> None:
        if session is self._given_up:
            return
        if session not in self._sessions:
            self._tell_rejection(ended.reason, now)
            return
        self._sessions.remove(session)
        was_established = ended.state is State.ESTABLISHED
        if was_established:
            self.flaps += 1
            self.last_down = (ended.reason, now)
            self._failures = max(0, self._failures - int(self.uptime_s(now) // _DECAY_S))
            self._established_at = None
            self._omitted = frozenset()  # it may be another software that comes back
            self._outputs.append(PeerDown(session, ended.reason, _is_retained(ended)))
        has_new_omissions = self._omit_refused(session, ended)
        if any(other.is_connected for other in self._sessions) and not was_established:
            return
        self._why = ended.reason
        self.last_error = (ended.reason, now)
        if self._is_started and not any(other.is_connected for other in self._sessions):
            self._plan_restart(ended, now, is_retry=has_new_omissions)

    def malformed(self, message: bytes, text: str, answer: str, now: float) -> None:
        self.malformed_count += 1
        self.malformed_messages.append(Malformed(now, message[:MAX_OCTETS], len(message), text, answer))
        if now - self._told_malformed_at < _QUIET_S:
            self._untold_malformed += 1
            return
        fields = {"peer": self.name, "text": text, "answer": answer, "more": self._untold_malformed}
        self._outputs.append(Told("malformed_message", fields))
        self._told_malformed_at, self._untold_malformed = now, 0

    def _tell_rejection(self, why: str, now: float) -> None:
        if now - self._told_rejection_at >= _QUIET_S:
            self._told_rejection_at = now
            self._outputs.append(Told("connection_rejected", {"peer": self.name, "why": why}))

    # --- trying again -----------------------------------------------------------------------------------------------

    def _make_session(self, *, is_incoming: bool) -> Session:
        opening = our_open(
            self.settings,
            restarting=self.is_restarting,
            forwarding_preserved=self.forwarding_preserved,
            omitted=self._omitted,
        )
        return Session(
            self.settings,
            owner=self,
            emit=self._outputs_append,
            rng=self._rng,
            make_parser=self._make_parser,
            opening=opening,
            sent=self.messages_sent,
            received=self.messages_received,
            is_incoming=is_incoming,
        )

    def _outputs_append(self, output: Output) -> None:
        if isinstance(output, Told):
            output = Told(output.name, {"peer": self.name} | output.fields)
        self._outputs.append(output)

    def _begin(self, event: Event, now: float, *, retry_s: float | None = None) -> None:
        session = self._make_session(is_incoming=False)
        self._sessions.append(session)
        session.start(event, now, retry_s=retry_s)

    def _plan_restart(self, ended: Ended, now: float, *, is_retry: bool) -> None:
        """The last connection is gone. When may the next begin, and is the peer let in meanwhile?

        `is_retry`: it was refused for a capability that the next OPEN will not have.
        """
        if ended.state in (State.CONNECT, State.ACTIVE) and ended.sent is None and ended.received is None:
            # Nobody there, which is not an oscillation: dial again after ConnectRetryTime.
            self._listen(now, self.settings.connect_retry_s)
            return
        told = ended.sent or ended.received
        harmless = told is not None and told.code == CEASE and told.subcode in _HARMLESS_SUBCODES
        if is_retry or harmless or not ended.is_counted:
            self._listen(now, self.settings.idle_hold_s)
            return
        pause_s = min(_MAX_IDLE_HOLD_S, self.settings.idle_hold_s * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        is_our_complaint = ended.sent is not None and ended.sent.code != CEASE
        if self._failures > 2 and (is_our_complaint or ended.state is State.ESTABLISHED):
            # Damped: not even let in.
            for waiting in self.sessions:
                self._give_up(waiting, now)
            self._idle_until = now + pause_s * self._rng.uniform(0.75, 1.0)
        else:
            self._listen(now, pause_s)

    def _listen(self, now: float, retry_s: float) -> None:
        """Wait for the peer, and dial after `retry_s`; unless a dial is under way already."""
        if self.settings.is_dynamic or any(session.state is State.CONNECT for session in self._sessions):
            return
        for waiting in self.sessions:
            self._give_up(waiting, now)
        self._begin(Event.AUTOMATIC_START_PASSIVE, now, retry_s=retry_s)

    def _give_up(self, session: Session, now: float) -> None:
        """Drop a session that has no connection; nobody need hear of it."""
        self._sessions.remove(session)
        self._given_up = session
        session.cancel(now)
        self._given_up = None

    def _omit_refused(self, session: Session, ended: Ended) -> bool:
        """RFC 5492 §3: a peer that does not take our capabilities gets an OPEN without them. True: that is new."""
        received = ended.received
        if received is None or received.code != OPEN_ERROR or ended.state is State.ESTABLISHED:
            return False
        if received.subcode == 4:
            refused = ALL_CAPABILITIES
        elif received.subcode == 7:
            refused = refused_capabilities(received.data, encode_open(session.opening)[HEADER_OCTETS:])
        else:
            return False
        is_new = not refused <= self._omitted
        self._omitted |= refused
        return is_new

    def _note_state(self, now: float) -> None:
        state = self.state
        if state is self._shown_state:
            return
        old, self._shown_state = self._shown_state, state
        self.state_since = now
        fields = {"peer": self.name, "old": old.value, "new": state.value, "why": self._why}
        self._why = ""
        self._outputs.append(Told("peer_state", fields))


def _is_retained(ended: Ended) -> bool:
    """Are the routes kept as stale? RFC 4724 §4.2; RFC 8538 §4 for sessions that ended with a NOTIFICATION."""
    restart = ended.negotiated.peer_restart if ended.negotiated else None
    if restart is None or not restart.families or ended.is_hard:
        return False
    notification = ended.sent or ended.received
    if notification is None:
        return True
    return restart.notification and not notification.is_hard_reset


def _told(what: str, text: str) -> str:
    return f"{what}: {text}" if text else what
