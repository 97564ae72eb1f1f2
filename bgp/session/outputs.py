"""What a Peer asks of the world around it, in order. `Peer.take_outputs()` returns them; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgp.families import Family

if TYPE_CHECKING:
    from bgp.session.negotiation import Negotiated
    from bgp.session.session import Session


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """Dial the peer; answer with Peer.connection_made or Peer.connection_failed for this session."""

    session: Session


@dataclass(frozen=True, slots=True)
class SendBytes:
    session: Session
    data: bytes


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Send what is queued, then close. `abort`: nothing more can be sent, reset the connection."""

    session: Session
    abort: bool = False


@dataclass(frozen=True, slots=True)
class PeerUp:
    session: Session
    negotiated: Negotiated


@dataclass(frozen=True, slots=True)
class PeerDown:
    """An Established session ended. `retain`: keep its routes as stale, RFC 4724 §4.2 and RFC 8538 allow it."""

    session: Session
    reason: str
    retain: bool


@dataclass(frozen=True, slots=True)
class RouteChanges:
    """All that UPDATEs in one read carried, in wire order: tuples (kind, family, nlris, attributes) of bgp.wire.update."""

    session: Session
    changes: list[Any]


@dataclass(frozen=True, slots=True)
class RefreshReceived:
    """The peer asks for our routes of this family once more (RFC 2918)."""

    session: Session
    family: Family


@dataclass(frozen=True, slots=True)
class Told:
    """Something for a log: `name` and fields as EventSink.event takes them."""

    name: str
    fields: dict[str, Any]


Output = OpenConnection | SendBytes | CloseConnection | PeerUp | PeerDown | RouteChanges | RefreshReceived | Told
