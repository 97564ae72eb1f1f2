"""What is done on an event: one function for each Action of the table in `fsm.py`, by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgp.session.fsm import Action, Event, State
from bgp.session.negotiation import Negotiated
from bgp.session.outputs import RouteChanges
from bgp.session.settings import LARGE_HOLD_TIME_S
from bgp.wire import framing
from bgp.wire.framing import HEADER_OCTETS, MAX_OCTETS
from bgp.wire.notification import CEASE, FSM_ERROR, Notification
from bgp.wire.open import encode_open
from bgp.wire.refresh import REQUEST, parse_refresh

if TYPE_CHECKING:
    from bgp.session.session import Session

_FSM_SUBCODES = {State.OPEN_SENT: 1, State.OPEN_CONFIRM: 2, State.ESTABLISHED: 3}  # RFC 6608


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event with what came with it."""

    event: Event
    was: State
    now: float
    why: str = ""
    notification: Notification | None = None
    negotiated: Negotiated | None = None
    message: bytes = b""
    is_hard: bool = False
    is_blocked: bool = False  # nothing more can be sent


def ignore(session: Session, _: Occurrence) -> None:
    pass


def dial(session: Session, happened: Occurrence) -> None:
    session.restart_connect_retry(happened.now)
    session.dial()


def listen(session: Session, happened: Occurrence) -> None:
    if not session.settings.is_passive and not session.is_incoming:
        session.timers.start_jittered("connect_retry", happened.now, session.retry_s)


def redial(session: Session, happened: Occurrence) -> None:
    session.timers.stop("delay_open")
    if happened.was is State.CONNECT:
        session.disconnect(abort=True)
    session.restart_connect_retry(happened.now)
    session.dial()


def open_or_delay(session: Session, happened: Occurrence) -> None:
    session.timers.stop("connect_retry")
    if session.settings.delay_open_s:
        session.state = happened.was
        session.timers.start_jittered("delay_open", happened.now, session.settings.delay_open_s)
    else:
        send_open(session, happened)


def send_open(session: Session, happened: Occurrence) -> None:
    session.timers.stop_all()
    session.open_sent_at = happened.now
    offered = session.opening.capabilities.extended_message
    session.max_receive_octets = framing.EXTENDED_MAX_OCTETS if offered else MAX_OCTETS
    session.send(framing.OPEN, encode_open(session.opening))
    session.timers.start("hold", happened.now, LARGE_HOLD_TIME_S)


def attempt_failed(session: Session, happened: Occurrence) -> None:
    if session.timers.is_running("delay_open"):
        session.state = State.ACTIVE
        session.timers.stop("delay_open")
        session.restart_connect_retry(happened.now)
    else:
        session.end(happened)


def connection_lost_before_open(session: Session, happened: Occurrence) -> None:
    session.end(happened)


def connection_lost_in_open_sent(session: Session, happened: Occurrence) -> None:
    """The FSM waits for another connection, the peer's or its own after ConnectRetryTime.

    One that began with the peer's connection has nothing to wait for: the next would have an FSM of its own.
    """
    if session.is_incoming:
        session.state = State.IDLE
        session.end(happened)
        return
    session.disconnect(abort=True)
    session.timers.stop_all()
    session.restart_connect_retry(happened.now)


def accept_early_open(session: Session, happened: Occurrence) -> None:
    send_open(session, happened)
    accept_open(session, happened)


def accept_open(session: Session, happened: Occurrence) -> None:
    assert happened.negotiated is not None
    session.negotiated = happened.negotiated
    session.timers.stop_all()
    session.send_keepalive(happened.now)
    session.restart_hold(happened.now)


def establish(session: Session, happened: Occurrence) -> None:
    assert session.negotiated is not None
    session.max_receive_octets = session.negotiated.max_receive_octets
    session.restart_hold(happened.now)
    session.parser = session.make_parser(session.negotiated, session.fault)
    session.owner.session_established(session, session.negotiated, happened.now)


def keepalive_due(session: Session, happened: Occurrence) -> None:
    session.send_keepalive(happened.now)


def take_keepalive(session: Session, happened: Occurrence) -> None:
    session.restart_hold(happened.now)


def take_update(session: Session, happened: Occurrence) -> None:
    """For an UPDATE that comes through the table; receive_data does the same for a whole read at once."""
    changes: list[Any] = []
    assert session.parser is not None
    session.parser.parse(happened.message, HEADER_OCTETS, len(happened.message), changes)
    if changes:
        session.emit(RouteChanges(session, changes))
    session.restart_hold(happened.now)


def take_refresh(session: Session, happened: Occurrence) -> None:
    """RFC 2918 §4: what was not negotiated is ignored, and so is a subtype nobody defined (RFC 7313 §5)."""
    refresh = parse_refresh(happened.message)
    session.restart_hold(happened.now)
    family = refresh.family
    if (
        refresh.subtype == REQUEST
        and family is not None
        and session.negotiated
        and family in session.negotiated.families
    ):
        session.refresh(family, happened.now)


def stop_by_hand(session: Session, happened: Occurrence) -> None:
    if happened.was in _FSM_SUBCODES:
        notify(session, happened)
    else:
        session.end(happened, is_counted=False)


def drop(session: Session, happened: Occurrence) -> None:
    received = happened.notification if happened.event is Event.NOTIFICATION else None
    session.end(happened, received=received)


def drop_uncounted(session: Session, happened: Occurrence) -> None:
    session.end(happened, received=happened.notification, is_counted=False)


def notify(session: Session, happened: Occurrence) -> None:
    notification = happened.notification or Notification(CEASE, 0)
    if not happened.is_blocked:
        session.send_notification(notification)
    uncounted = (Event.MANUAL_STOP, Event.OPEN_COLLISION_DUMP)
    session.end(happened, sent=notification, is_counted=happened.event not in uncounted)


def unexpected(session: Session, happened: Occurrence) -> None:
    subcode = _FSM_SUBCODES[happened.was]
    why = f"{happened.event.name} in {happened.was.value}"
    if happened.message:
        session.owner.malformed(happened.message, f"{FSM_ERROR}/{subcode} {why}", "session reset", happened.now)
    notification = Notification(FSM_ERROR, subcode)
    session.send_notification(notification)
    session.end(happened, sent=notification, reason=why)


ACTIONS: dict[Action, Callable[[Session, Occurrence], None]] = {
    Action.IGNORE: ignore,
    Action.DIAL: dial,
    Action.LISTEN: listen,
    Action.REDIAL: redial,
    Action.OPEN_OR_DELAY: open_or_delay,
    Action.SEND_OPEN: send_open,
    Action.ATTEMPT_FAILED: attempt_failed,
    Action.CONNECTION_LOST_BEFORE_OPEN: connection_lost_before_open,
    Action.CONNECTION_LOST_IN_OPEN_SENT: connection_lost_in_open_sent,
    Action.ACCEPT_OPEN: accept_open,
    Action.ACCEPT_EARLY_OPEN: accept_early_open,
    Action.ESTABLISH: establish,
    Action.SEND_KEEPALIVE: keepalive_due,
    Action.TAKE_KEEPALIVE: take_keepalive,
    Action.TAKE_UPDATE: take_update,
    Action.TAKE_REFRESH: take_refresh,
    Action.STOP: stop_by_hand,
    Action.DROP: drop,
    Action.DROP_UNCOUNTED: drop_uncounted,
    Action.NOTIFY: notify,
    Action.UNEXPECTED: unexpected,
}
