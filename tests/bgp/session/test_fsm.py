"""RFC 4271 §8.2.2, the whole of it: every event in every state, with the next state and what is done.

The table below was written from the RFC, one line an event: number, next state, effects in their order, and the timers
that run afterwards. Effects: dial, open, keepalive, the code/subcode of a NOTIFICATION, close, abort, up, changes,
refresh, and ended (the attempt is over and counts as a failure: ConnectRetryCounter and DampPeerOscillations) or
stopped (over without being counted). The session dials, without DelayOpen, and has no connection in Active; the rows that differ with DelayOpen or for
the peer's connection follow as tests of their own.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from bgp.session.fsm import TRANSITIONS, Action, Event, State
from bgp.session.negotiation import Negotiated, our_open
from bgp.session.outputs import CloseConnection, OpenConnection, Output, RefreshReceived, RouteChanges, SendBytes
from bgp.session.session import Ended, Session
from bgp.session.settings import SessionSettings
from bgp.wire.framing import KEEPALIVE, NOTIFICATION, OPEN, ROUTE_REFRESH, UPDATE, message
from bgp.wire.notification import Notification
from tests.bgp.session.world import LEFT, LEFT_ADDRESS, RIGHT, RIGHT_ADDRESS, make_parser

TABLE = """
Idle
  1   Connect      dial             retry
  2   Idle         -                -
  3   Connect      dial             retry
  4   Active       -                retry
  5   Active       -                retry
  6   Connect      dial             retry
  7   Active       -                retry
  8   Idle         -                -
  9   Idle         -                -
  10  Idle         -                -
  11  Idle         -                -
  12  Idle         -                -
  13  Idle         -                -
  14  Idle         -                -
  15  Idle         -                -
  16  Idle         -                -
  17  Idle         -                -
  18  Idle         -                -
  19  Idle         -                -
  20  Idle         -                -
  21  Idle         -                -
  22  Idle         -                -
  23  Idle         -                -
  24  Idle         -                -
  25  Idle         -                -
  26  Idle         -                -
  27  Idle         -                -
  28  Idle         -                -
  29  Idle         -                -
  30  Idle         -                -
  31  Idle         -                -
Connect
  1   Connect      -                retry
  2   Idle         close,stopped    -
  3   Connect      -                retry
  4   Connect      -                retry
  5   Connect      -                retry
  6   Connect      -                retry
  7   Connect      -                retry
  8   Idle         close,ended      -
  9   Connect      abort,dial       retry
  10  Idle         close,ended      -
  11  Idle         close,ended      -
  12  OpenSent     open             hold=240
  13  Idle         close,ended      -
  14  Connect      -                retry
  15  Connect      -                retry
  16  OpenSent     open             hold=240
  17  OpenSent     open             hold=240
  18  Idle         close,ended      -
  19  Idle         close,ended      -
  20  OpenConfirm  open,keepalive   hold=90,keepalive
  21  Idle         close,ended      -
  22  Idle         close,ended      -
  23  Idle         close,ended      -
  24  Idle         close,stopped    -
  25  Idle         close,ended      -
  26  Idle         close,ended      -
  27  Idle         close,ended      -
  28  Idle         close,ended      -
  29  Idle         close,ended      -
  30  Idle         close,ended      -
  31  Idle         close,ended      -
Active
  1   Active       -                retry
  2   Idle         stopped          -
  3   Active       -                retry
  4   Active       -                retry
  5   Active       -                retry
  6   Active       -                retry
  7   Active       -                retry
  8   Idle         ended            -
  9   Connect      dial             retry
  10  Idle         ended            -
  11  Idle         ended            -
  12  OpenSent     open             hold=240
  13  Idle         ended            -
  14  Active       -                retry
  15  Active       -                retry
  16  OpenSent     open             hold=240
  17  OpenSent     open             hold=240
  18  Idle         ended            -
  19  Idle         ended            -
  20  OpenConfirm  open,keepalive   hold=90,keepalive
  21  Idle         ended            -
  22  Idle         ended            -
  23  Idle         ended            -
  24  Idle         stopped          -
  25  Idle         ended            -
  26  Idle         ended            -
  27  Idle         ended            -
  28  Idle         ended            -
  29  Idle         ended            -
  30  Idle         ended            -
  31  Idle         ended            -
OpenSent
  1   OpenSent     -                hold=240
  2   Idle         6/2,close,stopped  -
  3   OpenSent     -                hold=240
  4   OpenSent     -                hold=240
  5   OpenSent     -                hold=240
  6   OpenSent     -                hold=240
  7   OpenSent     -                hold=240
  8   Idle         6/1,close,ended  -
  9   Idle         5/1,close,ended  -
  10  Idle         4/0,close,ended  -
  11  Idle         5/1,close,ended  -
  12  Idle         5/1,close,ended  -
  13  Idle         5/1,close,ended  -
  14  OpenSent     -                hold=240
  15  OpenSent     -                hold=240
  16  OpenSent     -                hold=240
  17  OpenSent     -                hold=240
  18  Active       abort            retry
  19  OpenConfirm  keepalive        hold=90,keepalive
  20  Idle         5/1,close,ended  -
  21  Idle         1/1,close,ended  -
  22  Idle         2/2,close,ended  -
  23  Idle         6/7,close,stopped  -
  24  Idle         close,stopped    -
  25  Idle         close,ended      -
  26  Idle         5/1,close,ended  -
  27  Idle         5/1,close,ended  -
  28  Idle         5/1,close,ended  -
  29  Idle         5/1,close,ended  -
  30  Idle         5/1,close,ended  -
  31  Idle         5/1,close,ended  -
OpenConfirm
  1   OpenConfirm  -                hold=90,keepalive
  2   Idle         6/2,close,stopped  -
  3   OpenConfirm  -                hold=90,keepalive
  4   OpenConfirm  -                hold=90,keepalive
  5   OpenConfirm  -                hold=90,keepalive
  6   OpenConfirm  -                hold=90,keepalive
  7   OpenConfirm  -                hold=90,keepalive
  8   Idle         6/1,close,ended  -
  9   Idle         5/2,close,ended  -
  10  Idle         4/0,close,ended  -
  11  OpenConfirm  keepalive        hold=90,keepalive
  12  Idle         5/2,close,ended  -
  13  Idle         5/2,close,ended  -
  14  OpenConfirm  -                hold=90,keepalive
  15  OpenConfirm  -                hold=90,keepalive
  16  OpenConfirm  -                hold=90,keepalive
  17  OpenConfirm  -                hold=90,keepalive
  18  Idle         close,ended      -
  19  Idle         5/2,close,ended  -
  20  Idle         5/2,close,ended  -
  21  Idle         1/1,close,ended  -
  22  Idle         2/2,close,ended  -
  23  Idle         6/7,close,stopped  -
  24  Idle         close,stopped    -
  25  Idle         close,ended      -
  26  Established  up               hold=90,keepalive
  27  Idle         5/2,close,ended  -
  28  Idle         5/2,close,ended  -
  29  Idle         5/2,close,ended  -
  30  Idle         5/2,close,ended  -
  31  Idle         5/2,close,ended  -
Established
  1   Established  -                hold=90,keepalive
  2   Idle         6/2,close,stopped  -
  3   Established  -                hold=90,keepalive
  4   Established  -                hold=90,keepalive
  5   Established  -                hold=90,keepalive
  6   Established  -                hold=90,keepalive
  7   Established  -                hold=90,keepalive
  8   Idle         6/1,close,ended  -
  9   Idle         5/3,close,ended  -
  10  Idle         4/0,close,ended  -
  11  Established  keepalive        hold=90,keepalive
  12  Idle         5/3,close,ended  -
  13  Idle         5/3,close,ended  -
  14  Established  -                hold=90,keepalive
  15  Established  -                hold=90,keepalive
  16  Established  -                hold=90,keepalive
  17  Established  -                hold=90,keepalive
  18  Idle         close,ended      -
  19  Idle         5/3,close,ended  -
  20  Idle         5/3,close,ended  -
  21  Idle         1/1,close,ended  -
  22  Idle         5/3,close,ended  -
  23  Idle         6/7,close,stopped  -
  24  Idle         close,ended      -
  25  Idle         close,ended      -
  26  Established  -                hold=90,keepalive
  27  Established  changes          hold=90,keepalive
  28  Idle         3/1,close,ended  -
  29  Idle         abort,ended      -
  30  Established  refresh          hold=90,keepalive
  31  Idle         7/1,close,ended  -
"""

# What comes with an event when it happens for real.
NOTIFICATIONS = {
    Event.MANUAL_STOP: Notification(6, 2),
    Event.AUTOMATIC_STOP: Notification(6, 1),
    Event.HOLD_TIMER_EXPIRES: Notification(4, 0),
    Event.HEADER_ERROR: Notification(1, 1),
    Event.OPEN_ERROR: Notification(2, 2),
    Event.OPEN_COLLISION_DUMP: Notification(6, 7),
    Event.NOTIFICATION_VERSION_ERROR: Notification(2, 1, b"\0\4"),
    Event.NOTIFICATION: Notification(6, 4),
    Event.UPDATE_ERROR: Notification(3, 1),
    Event.SEND_HOLD_TIMER_EXPIRES: Notification(8, 0),
    Event.ROUTE_REFRESH_ERROR: Notification(7, 1),
}
MESSAGES = {
    Event.UPDATE: message(UPDATE, b"\0\0\0\0"),
    Event.ROUTE_REFRESH: message(ROUTE_REFRESH, b"\0\1\0\1"),
}
TIMER_NAMES = {"connect_retry": "retry", "delay_open": "delay"}
NOW = 1000.0


class Owner:
    """Writes down what a session does, in order."""

    def __init__(self) -> None:
        self.effects: list[str] = []

    def emit(self, output: Output) -> None:
        if isinstance(output, OpenConnection):
            self.effects.append("dial")
        elif isinstance(output, CloseConnection):
            self.effects.append("abort" if output.abort else "close")
        elif isinstance(output, RouteChanges):
            self.effects.append("changes")
        elif isinstance(output, RefreshReceived):
            self.effects.append("refresh")
        elif isinstance(output, SendBytes):
            names = {OPEN: "open", KEEPALIVE: "keepalive"}
            kind = output.data[18]
            self.effects.append(f"{output.data[19]}/{output.data[20]}" if kind == NOTIFICATION else names[kind])

    def open_received(self, session: Session, negotiated: Negotiated, now: float) -> bool:
        return True

    def session_established(self, session: Session, negotiated: Negotiated, now: float) -> None:
        self.effects.append("up")

    def session_ended(self, session: Session, ended: Ended, now: float) -> None:
        self.effects.append("ended" if ended.is_counted else "stopped")

    def malformed(self, message: bytes, text: str, answer: str, now: float) -> None:
        pass


def make_session(owner: Owner, *, settings: SessionSettings = LEFT, is_incoming: bool = False) -> Session:
    return Session(
        settings,
        owner=owner,
        emit=owner.emit,
        rng=random.Random(1),
        make_parser=make_parser,
        opening=our_open(settings, restarting=False, forwarding_preserved=True, omitted=frozenset()),
        sent=dict.fromkeys(("open", "update", "notification", "keepalive", "refresh"), 0),
        received=dict.fromkeys(("open", "update", "notification", "keepalive", "refresh"), 0),
        is_incoming=is_incoming,
    )


def negotiated(settings: SessionSettings = LEFT, peer: SessionSettings = RIGHT) -> Negotiated:
    from bgp.session.negotiation import negotiate

    def opening(of: SessionSettings) -> Any:
        return our_open(of, restarting=False, forwarding_preserved=True, omitted=frozenset())

    return negotiate(settings, opening(settings), opening(peer))


def fire(session: Session, event: Event, settings: SessionSettings = LEFT) -> None:
    is_open = event in (Event.OPEN, Event.OPEN_WITH_DELAY_OPEN_TIMER)
    session.fire(
        event,
        NOW,
        notification=NOTIFICATIONS.get(event),
        negotiated=negotiated(settings) if is_open else None,
        message=MESSAGES.get(event, b""),
        is_blocked=event is Event.SEND_HOLD_TIMER_EXPIRES and session.state is State.ESTABLISHED,
    )


def bring_to(state: State, owner: Owner, settings: SessionSettings = LEFT, *, is_incoming: bool = False) -> Session:
    """By the events that lead there."""
    session = make_session(owner, settings=settings, is_incoming=is_incoming)
    ways: dict[State, list[str | Event]] = {
        State.IDLE: [],
        State.CONNECT: ["start"],
        State.ACTIVE: ["listen"],
        State.OPEN_SENT: ["listen", "connect"],
        State.OPEN_CONFIRM: ["listen", "connect", Event.OPEN],
        State.ESTABLISHED: ["listen", "connect", Event.OPEN, Event.KEEPALIVE],
    }
    for step in ways[state]:
        if step == "start":
            session.start(Event.MANUAL_START, NOW)
        elif step == "listen":
            session.start(Event.MANUAL_START_PASSIVE, NOW)
        elif step == "connect":
            session.connection_made(NOW, LEFT_ADDRESS, RIGHT_ADDRESS)
        else:
            assert isinstance(step, Event)
            fire(session, step, settings)
    assert session.state is state
    owner.effects.clear()
    return session


def timers(session: Session) -> str:
    """The hold timer with its duration, the others by name: they are jittered."""
    shown = []
    for name, at in sorted(session.timers.deadlines().items()):
        shown.append(f"hold={at - NOW:g}" if name == "hold" else TIMER_NAMES.get(name, name))
    return ",".join(shown) or "-"


def rows() -> list[tuple[State, Event, State, str, str]]:
    parsed = []
    state = State.IDLE
    for line in TABLE.strip().splitlines():
        if not line.startswith(" "):
            state = State(line)
            continue
        number, to, effects, running = line.split()
        parsed.append((state, Event(int(number)), State(to), effects, running))
    return parsed


def test_the_table_of_this_test_has_every_pair_once() -> None:
    pairs = [(state, event) for state, event, *_ in rows()]
    assert len(pairs) == len(State) * len(Event) == 186
    assert set(pairs) == {(state, event) for state in State for event in Event} == set(TRANSITIONS)


@pytest.mark.parametrize(
    ("state", "event", "to", "effects", "running"),
    rows(),
    ids=[f"{state.value}-{event.value}-{event.name.lower()}" for state, event, *_ in rows()],
)
def test_every_event_in_every_state(state: State, event: Event, to: State, effects: str, running: str) -> None:
    owner = Owner()
    session = bring_to(state, owner)
    fire(session, event)
    assert session.state is to
    assert (",".join(owner.effects) or "-") == effects
    assert timers(session) == running
    assert to in TRANSITIONS[state, event].to


def test_every_action_is_used_and_exists() -> None:
    assert {transition.action for transition in TRANSITIONS.values()} == set(Action)


DELAYED = SessionSettings(local_asn=65001, peer_asn=65002, router_id=bytes([10, 0, 0, 1]), delay_open_s=10.0)


@pytest.mark.parametrize("state", [State.CONNECT, State.ACTIVE])
def test_delay_open_holds_our_open_back(state: State) -> None:
    owner = Owner()
    session = bring_to(state, owner, DELAYED)
    session.connection_made(NOW, LEFT_ADDRESS, RIGHT_ADDRESS)
    assert (session.state, owner.effects, timers(session)) == (state, [], "delay")
    session.handle_timer(NOW + 10)
    assert session.state is State.OPEN_SENT
    assert owner.effects == ["open"]


@pytest.mark.parametrize(
    ("state", "to", "running"), [(State.CONNECT, State.ACTIVE, "retry"), (State.ACTIVE, State.IDLE, "-")]
)
def test_a_connection_lost_while_open_is_delayed(state: State, to: State, running: str) -> None:
    owner = Owner()
    session = bring_to(state, owner, DELAYED)
    session.connection_made(NOW, LEFT_ADDRESS, RIGHT_ADDRESS)
    session.connection_lost(NOW, "reset")
    assert (session.state, timers(session)) == (to, running)


@pytest.mark.parametrize("state", [State.CONNECT, State.ACTIVE])
def test_an_open_that_comes_first_ends_the_delay(state: State) -> None:
    owner = Owner()
    session = bring_to(state, owner, DELAYED)
    session.connection_made(NOW, LEFT_ADDRESS, RIGHT_ADDRESS)
    fire(session, Event.OPEN_WITH_DELAY_OPEN_TIMER, DELAYED)
    assert session.state is State.OPEN_CONFIRM
    assert owner.effects == ["open", "keepalive"]


def test_the_peers_connection_lost_in_open_sent_leaves_nothing_to_wait_for() -> None:
    owner = Owner()
    session = bring_to(State.OPEN_SENT, owner, is_incoming=True)
    session.connection_lost(NOW, "reset")
    assert (session.state, owner.effects, timers(session)) == (State.IDLE, ["close", "ended"], "-")


def test_a_passive_peer_never_dials() -> None:
    owner = Owner()
    settings = SessionSettings(local_asn=1, peer_asn=2, router_id=b"\1\1\1\1", is_passive=True)
    session = make_session(owner, settings=settings)
    session.start(Event.MANUAL_START_PASSIVE, NOW)
    assert (session.state, timers(session)) == (State.ACTIVE, "-")


@pytest.mark.parametrize("state", list(State))
def test_events_that_only_real_peers_send_never_start_a_session(state: State) -> None:
    """Whatever the peer does, a session that has ended stays so."""
    owner = Owner()
    session = bring_to(state, owner)
    session.stop(NOW, Notification(6, 2), "stopped", is_automatic=False, is_hard=False)
    for event in list(Event)[8:]:
        fire(session, event)
    assert session.state is State.IDLE
    assert session.next_timer_at() is None
