"""ROUTE-REFRESH messages (RFC 2918, RFC 7313)."""

from __future__ import annotations

from dataclasses import dataclass

from bgp.families import BY_KEY, Family
from bgp.wire.errors import NotificationError
from bgp.wire.framing import HEADER_OCTETS
from bgp.wire.notification import ROUTE_REFRESH_ERROR

REQUEST, BEGIN, END = 0, 1, 2  # RFC 7313 §3.2; BEGIN and END are not offered by us, and others are unknown: ignored
_OCTETS = HEADER_OCTETS + 4


@dataclass(frozen=True, slots=True)
class RouteRefresh:
    afi: int
    safi: int
    subtype: int = REQUEST

    @property
    def family(self) -> Family | None:
        """None: not one that this speaker knows."""
        return BY_KEY.get(self.afi.to_bytes(2, "big") + bytes([self.safi]))


def parse_refresh(message: bytes) -> RouteRefresh:
    """The whole message, header included. Raises NotificationError 7/1 with it if its length is wrong (RFC 7313 §5)."""
    if len(message) != _OCTETS:
        raise NotificationError(ROUTE_REFRESH_ERROR, 1, message, f"ROUTE-REFRESH of {len(message)} octets")
    body = message[HEADER_OCTETS:]
    return RouteRefresh(int.from_bytes(body[:2], "big"), body[3], body[2])


def encode_refresh(family: Family) -> bytes:
    """The whole message that asks for all routes of a family."""
    from bgp.wire import exabgp_codec

    return exabgp_codec.encode_refresh(family.afi, family.safi)
