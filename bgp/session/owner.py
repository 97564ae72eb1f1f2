"""What a session tells its owner, and what it takes from outside: the parser of UPDATEs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bgp.session.fsm import State
from bgp.session.negotiation import Negotiated
from bgp.wire.notification import Notification

if TYPE_CHECKING:
    from bgp.session.session import Session

OnMalformed = Callable[[bytes, str, str], None]


class UpdateParserProtocol(Protocol):
    def parse(self, data: bytes, start: int, end: int, changes: list[Any]) -> None:
        """Append what the UPDATE body data[start:end] says. Raises NotificationError and nothing else."""


# What was negotiated, and whom to tell of faults that are not worth a reset: (UPDATE body, verdict, text).
MakeParser = Callable[[Negotiated, OnMalformed], UpdateParserProtocol]


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a session is over. At most one of `sent` and `received` is set; neither: the connection failed.

    `is_counted` False: nothing to hold against the peer. `is_hard`: we ended it for good, its routes must go.
    """

    reason: str
    state: State
    sent: Notification | None = None
    received: Notification | None = None
    is_counted: bool = True
    is_hard: bool = False
    negotiated: Negotiated | None = None


class SessionOwner(Protocol):
    def open_received(self, session: Session, negotiated: Negotiated, now: float) -> bool:
        """An acceptable OPEN: may the session go on (RFC 4271 §6.8)? It has been ended if not."""

    def session_established(self, session: Session, negotiated: Negotiated, now: float) -> None: ...

    def session_ended(self, session: Session, ended: Ended, now: float) -> None: ...

    def malformed(self, message: bytes, text: str, answer: str, now: float) -> None: ...
