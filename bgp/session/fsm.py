"""The finite state machine of RFC 4271 §8.2.2 as a literal table, with RFC 9687's event.

Rows are states, one line an event, in the order of the RFC. An entry names what is done (`actions.py`) and
the states that may follow, the usual one first. `tests/bgp/session/test_fsm.py` walks all of it.

Readings where the RFC leaves room:
* An FSM belongs to one connection attempt at a time, so a second connection has an FSM of its own and events 14, 16
  and 17 in OpenSent or later are only tracked (§8.2.1); the Peer compares the two when an OPEN arrives (§6.8). An OPEN
  on a connection that already had one is therefore an unexpected message, 5/2 or 5/3 (RFC 6608).
* A NOTIFICATION is never answered with a NOTIFICATION (§6.4), also not in OpenSent, where event 25 falls under 'any
  other event'; nor is anything sent before our OPEN (SendNOTIFICATIONwithoutOPEN is off) except where a connection is
  rejected on arrival.
* Events 30 and 31 are ours: RFC 2918 came without any. They are to ROUTE-REFRESH what 27 and 28 are to UPDATE.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class State(Enum):
    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"


class Event(IntEnum):
    """Numbered as in RFC 4271 §8.1, 29 as in RFC 9687 §4.2."""

    MANUAL_START = 1
    MANUAL_STOP = 2
    AUTOMATIC_START = 3
    MANUAL_START_PASSIVE = 4
    AUTOMATIC_START_PASSIVE = 5
    AUTOMATIC_START_DAMPED = 6
    AUTOMATIC_START_DAMPED_PASSIVE = 7
    AUTOMATIC_STOP = 8
    CONNECT_RETRY_TIMER_EXPIRES = 9
    HOLD_TIMER_EXPIRES = 10
    KEEPALIVE_TIMER_EXPIRES = 11
    DELAY_OPEN_TIMER_EXPIRES = 12
    IDLE_HOLD_TIMER_EXPIRES = 13
    TCP_CONNECTION_VALID = 14
    TCP_CR_INVALID = 15
    TCP_CR_ACKED = 16
    TCP_CONNECTION_CONFIRMED = 17
    TCP_CONNECTION_FAILS = 18
    OPEN = 19
    OPEN_WITH_DELAY_OPEN_TIMER = 20
    HEADER_ERROR = 21
    OPEN_ERROR = 22
    OPEN_COLLISION_DUMP = 23
    NOTIFICATION_VERSION_ERROR = 24
    NOTIFICATION = 25
    KEEPALIVE = 26
    UPDATE = 27
    UPDATE_ERROR = 28
    SEND_HOLD_TIMER_EXPIRES = 29
    ROUTE_REFRESH = 30
    ROUTE_REFRESH_ERROR = 31


class Action(Enum):
    """The function of `actions.py` that does it."""

    IGNORE = "ignore"
    DIAL = "dial"  # ConnectRetryTimer, and a connection to the peer
    LISTEN = "listen"  # ConnectRetryTimer, and wait for the peer's connection
    REDIAL = "redial"
    OPEN_OR_DELAY = "open_or_delay"  # the connection stands: OPEN now, or after DelayOpenTime
    SEND_OPEN = "send_open"
    ATTEMPT_FAILED = "attempt_failed"
    CONNECTION_LOST_BEFORE_OPEN = "connection_lost_before_open"
    CONNECTION_LOST_IN_OPEN_SENT = "connection_lost_in_open_sent"
    ACCEPT_OPEN = "accept_open"
    ACCEPT_EARLY_OPEN = "accept_early_open"  # theirs came while ours was delayed
    ESTABLISH = "establish"
    SEND_KEEPALIVE = "send_keepalive"
    TAKE_KEEPALIVE = "take_keepalive"
    TAKE_UPDATE = "take_update"  # done inline by Session.receive_data, where most of the time goes
    TAKE_REFRESH = "take_refresh"
    STOP = "stop_by_hand"  # resets ConnectRetryCounter; Cease if our OPEN went out
    DROP = "drop"  # close without a NOTIFICATION
    DROP_UNCOUNTED = "drop_uncounted"  # the same, no failure of the peer (event 24)
    NOTIFY = "notify"  # close with the NOTIFICATION that the event carries
    UNEXPECTED = "unexpected"  # NOTIFICATION 5/subcode of the state (RFC 6608)


@dataclass(frozen=True, slots=True)
class Transition:
    action: Action
    to: tuple[State, ...]


_I, _C, _A = State.IDLE, State.CONNECT, State.ACTIVE
_S, _F, _E = State.OPEN_SENT, State.OPEN_CONFIRM, State.ESTABLISHED


def _t(action: Action, *to: State) -> Transition:
    return Transition(action, to)


_IDLE = [
    _t(Action.DIAL, _C),  # 1
    _t(Action.IGNORE, _I),  # 2
    _t(Action.DIAL, _C),  # 3
    _t(Action.LISTEN, _A),  # 4
    _t(Action.LISTEN, _A),  # 5
    _t(Action.DIAL, _C),  # 6: the Peer lets IdleHoldTimer run before it says so
    _t(Action.LISTEN, _A),  # 7
    _t(Action.IGNORE, _I),  # 8
    _t(Action.IGNORE, _I),  # 9
    _t(Action.IGNORE, _I),  # 10
    _t(Action.IGNORE, _I),  # 11
    _t(Action.IGNORE, _I),  # 12
    _t(Action.IGNORE, _I),  # 13: answered by the Peer with 6 or 7
    _t(Action.IGNORE, _I),  # 14
    _t(Action.IGNORE, _I),  # 15
    _t(Action.IGNORE, _I),  # 16
    _t(Action.IGNORE, _I),  # 17
    _t(Action.IGNORE, _I),  # 18
    _t(Action.IGNORE, _I),  # 19
    _t(Action.IGNORE, _I),  # 20
    _t(Action.IGNORE, _I),  # 21
    _t(Action.IGNORE, _I),  # 22
    _t(Action.IGNORE, _I),  # 23
    _t(Action.IGNORE, _I),  # 24
    _t(Action.IGNORE, _I),  # 25
    _t(Action.IGNORE, _I),  # 26
    _t(Action.IGNORE, _I),  # 27
    _t(Action.IGNORE, _I),  # 28
    _t(Action.IGNORE, _I),  # 29
    _t(Action.IGNORE, _I),  # 30
    _t(Action.IGNORE, _I),  # 31
]

_CONNECT = [
    _t(Action.IGNORE, _C),  # 1
    _t(Action.STOP, _I),  # 2
    _t(Action.IGNORE, _C),  # 3
    _t(Action.IGNORE, _C),  # 4
    _t(Action.IGNORE, _C),  # 5
    _t(Action.IGNORE, _C),  # 6
    _t(Action.IGNORE, _C),  # 7
    _t(Action.DROP, _I),  # 8
    _t(Action.REDIAL, _C),  # 9
    _t(Action.DROP, _I),  # 10
    _t(Action.DROP, _I),  # 11
    _t(Action.SEND_OPEN, _S),  # 12
    _t(Action.DROP, _I),  # 13
    _t(Action.IGNORE, _C),  # 14
    _t(Action.IGNORE, _C),  # 15
    _t(Action.OPEN_OR_DELAY, _S, _C),  # 16
    _t(Action.OPEN_OR_DELAY, _S, _C),  # 17
    _t(Action.ATTEMPT_FAILED, _I, _A),  # 18: Active if DelayOpenTimer runs
    _t(Action.DROP, _I),  # 19
    _t(Action.ACCEPT_EARLY_OPEN, _F),  # 20
    _t(Action.DROP, _I),  # 21
    _t(Action.DROP, _I),  # 22
    _t(Action.DROP, _I),  # 23
    _t(Action.DROP_UNCOUNTED, _I),  # 24
    _t(Action.DROP, _I),  # 25
    _t(Action.DROP, _I),  # 26
    _t(Action.DROP, _I),  # 27
    _t(Action.DROP, _I),  # 28
    _t(Action.DROP, _I),  # 29
    _t(Action.DROP, _I),  # 30
    _t(Action.DROP, _I),  # 31
]

_ACTIVE = [
    _t(Action.IGNORE, _A),  # 1
    _t(Action.STOP, _I),  # 2
    _t(Action.IGNORE, _A),  # 3
    _t(Action.IGNORE, _A),  # 4
    _t(Action.IGNORE, _A),  # 5
    _t(Action.IGNORE, _A),  # 6
    _t(Action.IGNORE, _A),  # 7
    _t(Action.DROP, _I),  # 8
    _t(Action.REDIAL, _C),  # 9
    _t(Action.DROP, _I),  # 10
    _t(Action.DROP, _I),  # 11
    _t(Action.SEND_OPEN, _S),  # 12
    _t(Action.DROP, _I),  # 13
    _t(Action.IGNORE, _A),  # 14
    _t(Action.IGNORE, _A),  # 15
    _t(Action.OPEN_OR_DELAY, _S, _A),  # 16
    _t(Action.OPEN_OR_DELAY, _S, _A),  # 17
    _t(Action.CONNECTION_LOST_BEFORE_OPEN, _I),  # 18
    _t(Action.DROP, _I),  # 19
    _t(Action.ACCEPT_EARLY_OPEN, _F),  # 20
    _t(Action.DROP, _I),  # 21
    _t(Action.DROP, _I),  # 22
    _t(Action.DROP, _I),  # 23
    _t(Action.DROP_UNCOUNTED, _I),  # 24
    _t(Action.DROP, _I),  # 25
    _t(Action.DROP, _I),  # 26
    _t(Action.DROP, _I),  # 27
    _t(Action.DROP, _I),  # 28
    _t(Action.DROP, _I),  # 29
    _t(Action.DROP, _I),  # 30
    _t(Action.DROP, _I),  # 31
]

_OPEN_SENT = [
    _t(Action.IGNORE, _S),  # 1
    _t(Action.STOP, _I),  # 2
    _t(Action.IGNORE, _S),  # 3
    _t(Action.IGNORE, _S),  # 4
    _t(Action.IGNORE, _S),  # 5
    _t(Action.IGNORE, _S),  # 6
    _t(Action.IGNORE, _S),  # 7
    _t(Action.NOTIFY, _I),  # 8
    _t(Action.UNEXPECTED, _I),  # 9
    _t(Action.NOTIFY, _I),  # 10
    _t(Action.UNEXPECTED, _I),  # 11
    _t(Action.UNEXPECTED, _I),  # 12
    _t(Action.UNEXPECTED, _I),  # 13
    _t(Action.IGNORE, _S),  # 14
    _t(Action.IGNORE, _S),  # 15
    _t(Action.IGNORE, _S),  # 16
    _t(Action.IGNORE, _S),  # 17
    _t(Action.CONNECTION_LOST_IN_OPEN_SENT, _A, _I),  # 18: Idle if it was the peer's connection
    _t(Action.ACCEPT_OPEN, _F),  # 19: one that is unacceptable is 22, one that loses a collision 23
    _t(Action.UNEXPECTED, _I),  # 20
    _t(Action.NOTIFY, _I),  # 21
    _t(Action.NOTIFY, _I),  # 22
    _t(Action.NOTIFY, _I),  # 23
    _t(Action.DROP_UNCOUNTED, _I),  # 24
    _t(Action.DROP, _I),  # 25
    _t(Action.UNEXPECTED, _I),  # 26
    _t(Action.UNEXPECTED, _I),  # 27
    _t(Action.UNEXPECTED, _I),  # 28
    _t(Action.UNEXPECTED, _I),  # 29
    _t(Action.UNEXPECTED, _I),  # 30
    _t(Action.UNEXPECTED, _I),  # 31
]

_OPEN_CONFIRM = [
    _t(Action.IGNORE, _F),  # 1
    _t(Action.STOP, _I),  # 2
    _t(Action.IGNORE, _F),  # 3
    _t(Action.IGNORE, _F),  # 4
    _t(Action.IGNORE, _F),  # 5
    _t(Action.IGNORE, _F),  # 6
    _t(Action.IGNORE, _F),  # 7
    _t(Action.NOTIFY, _I),  # 8
    _t(Action.UNEXPECTED, _I),  # 9
    _t(Action.NOTIFY, _I),  # 10
    _t(Action.SEND_KEEPALIVE, _F),  # 11
    _t(Action.UNEXPECTED, _I),  # 12
    _t(Action.UNEXPECTED, _I),  # 13
    _t(Action.IGNORE, _F),  # 14
    _t(Action.IGNORE, _F),  # 15
    _t(Action.IGNORE, _F),  # 16
    _t(Action.IGNORE, _F),  # 17
    _t(Action.DROP, _I),  # 18
    _t(Action.UNEXPECTED, _I),  # 19
    _t(Action.UNEXPECTED, _I),  # 20
    _t(Action.NOTIFY, _I),  # 21
    _t(Action.NOTIFY, _I),  # 22
    _t(Action.NOTIFY, _I),  # 23
    _t(Action.DROP_UNCOUNTED, _I),  # 24
    _t(Action.DROP, _I),  # 25
    _t(Action.ESTABLISH, _E),  # 26
    _t(Action.UNEXPECTED, _I),  # 27
    _t(Action.UNEXPECTED, _I),  # 28
    _t(Action.UNEXPECTED, _I),  # 29
    _t(Action.UNEXPECTED, _I),  # 30
    _t(Action.UNEXPECTED, _I),  # 31
]

_ESTABLISHED = [
    _t(Action.IGNORE, _E),  # 1
    _t(Action.STOP, _I),  # 2
    _t(Action.IGNORE, _E),  # 3
    _t(Action.IGNORE, _E),  # 4
    _t(Action.IGNORE, _E),  # 5
    _t(Action.IGNORE, _E),  # 6
    _t(Action.IGNORE, _E),  # 7
    _t(Action.NOTIFY, _I),  # 8
    _t(Action.UNEXPECTED, _I),  # 9
    _t(Action.NOTIFY, _I),  # 10
    _t(Action.SEND_KEEPALIVE, _E),  # 11
    _t(Action.UNEXPECTED, _I),  # 12
    _t(Action.UNEXPECTED, _I),  # 13
    _t(Action.IGNORE, _E),  # 14
    _t(Action.IGNORE, _E),  # 15
    _t(Action.IGNORE, _E),  # 16
    _t(Action.IGNORE, _E),  # 17
    _t(Action.DROP, _I),  # 18
    _t(Action.UNEXPECTED, _I),  # 19
    _t(Action.UNEXPECTED, _I),  # 20
    _t(Action.NOTIFY, _I),  # 21
    _t(Action.UNEXPECTED, _I),  # 22
    _t(Action.NOTIFY, _I),  # 23
    _t(Action.DROP, _I),  # 24
    _t(Action.DROP, _I),  # 25
    _t(Action.TAKE_KEEPALIVE, _E),  # 26
    _t(Action.TAKE_UPDATE, _E, _I),  # 27
    _t(Action.NOTIFY, _I),  # 28
    _t(Action.NOTIFY, _I),  # 29
    _t(Action.TAKE_REFRESH, _E, _I),  # 30
    _t(Action.NOTIFY, _I),  # 31
]

TRANSITIONS: dict[tuple[State, Event], Transition] = {
    (state, event): row
    for state, rows in (
        (State.IDLE, _IDLE),
        (State.CONNECT, _CONNECT),
        (State.ACTIVE, _ACTIVE),
        (State.OPEN_SENT, _OPEN_SENT),
        (State.OPEN_CONFIRM, _OPEN_CONFIRM),
        (State.ESTABLISHED, _ESTABLISHED),
    )
    for event, row in zip(Event, rows, strict=True)
}
