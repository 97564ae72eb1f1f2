"""OPEN messages: what a peer said of itself, and whether that is acceptable.

RFC 4271 §4.2 and §6.2, RFC 5492 (capabilities), RFC 9072 (more than 255 octets of them), RFC 6286 (identifier),
RFC 6793 (4-octet AS numbers), RFC 7607 (AS 0).
"""

from __future__ import annotations

from dataclasses import dataclass

from bgp.wire.errors import NotificationError
from bgp.wire.framing import HEADER_OCTETS
from bgp.wire.notification import OPEN_ERROR

VERSION = 4
AS_TRANS = 23456
MULTIPROTOCOL, REFRESH, EXTENDED_NEXT_HOP, EXTENDED_MESSAGE = 1, 2, 5, 6
GRACEFUL_RESTART, FOUR_OCTET_ASN, CISCO_REFRESH = 64, 65, 128

_CAPABILITIES_PARAMETER = 2
_EXTENDED_PARAMETERS = 255  # RFC 9072 §2


@dataclass(frozen=True, slots=True)
class GracefulRestart:
    """RFC 4724 §3. `families`: (AFI, SAFI, forwarding state was preserved). `notification`: the N bit (RFC 8538)."""

    restarting: bool
    notification: bool
    time_s: int
    families: tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Numbers as on the wire: (AFI, SAFI) and (AFI, SAFI, next hop AFI). Families that nobody knows are kept.

    `families` None: no multiprotocol capability at all. `display` and `problems` are short texts for people, safe to
    print; a capability with a problem counts as not sent.
    """

    families: tuple[tuple[int, int], ...] | None = None
    route_refresh: bool = False
    extended_next_hop: frozenset[tuple[int, int, int]] = frozenset()
    extended_message: bool = False
    graceful_restart: GracefulRestart | None = None
    four_octet_asn: int | None = None
    display: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMessage:
    """`my_as` is the 2-octet field: AS_TRANS if the number does not fit. `router_id` has 4 octets."""

    my_as: int
    hold_time_s: int
    router_id: bytes
    capabilities: Capabilities = Capabilities()

    @property
    def asn(self) -> int:
        """RFC 6793 §4.1: the capability, where there is one, is the AS number."""
        return self.my_as if self.capabilities.four_octet_asn is None else self.capabilities.four_octet_asn


def parse_open(body: bytes) -> OpenMessage:
    """The body after the header. Raises NotificationError 1/2 or 2/x (RFC 4271 §6.2)."""
    from bgp.wire import exabgp_codec

    if len(body) < 10:
        raise NotificationError(1, 2, (HEADER_OCTETS + len(body)).to_bytes(2, "big"), "OPEN under 29 octets")
    if body[0] != VERSION:
        # §6.2: the largest version that we support.
        raise NotificationError(OPEN_ERROR, 1, VERSION.to_bytes(2, "big"), f"version {body[0]}")
    return OpenMessage(
        my_as=int.from_bytes(body[1:3], "big"),
        hold_time_s=int.from_bytes(body[3:5], "big"),
        router_id=body[5:9],
        capabilities=exabgp_codec.decode_capabilities(tuple(split_capabilities(body))),
    )


def prepare() -> None:
    """Import what OPENs need, 60 ms, before anybody waits for an answer."""
    from bgp.wire import exabgp_codec

    exabgp_codec.prepare()


def encode_open(message: OpenMessage) -> bytes:
    """The whole message. Capabilities of more than 254 octets go into extended parameters (RFC 9072)."""
    from bgp.wire import exabgp_codec

    return exabgp_codec.encode_open(message)


def split_capabilities(body: bytes) -> list[tuple[int, bytes]]:
    """OPEN body → (code, value) of each capability, over all optional parameters, in wire order.

    Raises NotificationError 2/4 for a parameter that is not 'Capabilities', 2/0 for one that does not add up.
    """
    if body[9] and body[10:11] == bytes([_EXTENDED_PARAMETERS]):
        # RFC 9072 §2: the type octet decides, whatever the old length field says, as long as that is not zero.
        length_octets, at = 2, 13
        if len(body) < at:
            raise _malformed("extended optional parameters end inside their length")
        end = at + int.from_bytes(body[11:13], "big")
    else:
        length_octets, at = 1, 10
        end = at + body[9]
    if end != len(body):
        raise _malformed(f"optional parameters end at octet {end} of {len(body)}")
    capabilities: list[tuple[int, bytes]] = []
    while at < end:
        value_at = at + 1 + length_octets
        if value_at > end:
            raise _malformed("an optional parameter ends inside its header")
        next_at = value_at + int.from_bytes(body[at + 1 : value_at], "big")
        if next_at > end:
            raise _malformed("an optional parameter runs past the others")
        if body[at] != _CAPABILITIES_PARAMETER:
            raise NotificationError(OPEN_ERROR, 4, body[at:next_at], f"optional parameter {body[at]}")
        _split_parameter(body[value_at:next_at], capabilities)
        at = next_at
    return capabilities


def _split_parameter(value: bytes, capabilities: list[tuple[int, bytes]]) -> None:
    at = 0
    while at < len(value):
        if at + 2 > len(value) or at + 2 + value[at + 1] > len(value):
            raise _malformed("a capability runs past its optional parameter")
        next_at = at + 2 + value[at + 1]
        capabilities.append((value[at], value[at + 2 : next_at]))
        at = next_at


def refused_capabilities(data: bytes, our_body: bytes) -> frozenset[int]:
    """The codes of those capabilities of our OPEN that the data of a NOTIFICATION 2/7 lists (RFC 5492 §5).

    Without data it is all that we sent. A capability that we did not send is one that the peer misses: nothing to
    leave out. Never raises.
    """
    ours = split_capabilities(our_body)
    refused: list[tuple[int, bytes]] = []
    try:
        _split_parameter(data, refused)
    except NotificationError:
        pass  # what does not add up is left out
    return frozenset(code for code, value in ours if not data or (code, value) in refused)


def multiprotocol_data(families: tuple[tuple[int, int], ...]) -> bytes:
    """The capabilities that a peer lacks, as data of a NOTIFICATION 2/7 carries them."""
    return b"".join(bytes([MULTIPROTOCOL, 4]) + afi.to_bytes(2, "big") + bytes([0, safi]) for afi, safi in families)


def check_open(received: OpenMessage, *, peer_asn: int, local_asn: int, router_id: bytes, min_hold_time_s: int) -> None:
    """Is this the peer that we are configured for? Raises NotificationError 2/2, 2/3 or 2/6."""
    claimed = received.asn
    if received.my_as == 0 or claimed == 0:
        raise NotificationError(OPEN_ERROR, 2, b"", "AS 0 (RFC 7607)")
    speaks_for = claimed == peer_asn or (
        # An old speaker behind AS_TRANS cannot say who it is (RFC 6793 §4.2.1 leaves the mapping to configuration).
        received.capabilities.four_octet_asn is None and claimed == AS_TRANS and peer_asn > 0xFFFF
    )
    if not speaks_for:
        raise NotificationError(OPEN_ERROR, 2, b"", f"AS {claimed}, {peer_asn} is configured")
    if received.router_id == bytes(4):
        raise NotificationError(OPEN_ERROR, 3, b"", "BGP identifier 0.0.0.0")
    if received.router_id == router_id and peer_asn == local_asn:
        raise NotificationError(OPEN_ERROR, 3, b"", "BGP identifier is our own (RFC 6286 §2.2)")
    if received.hold_time_s in (1, 2) or 0 < received.hold_time_s < min_hold_time_s:
        raise NotificationError(OPEN_ERROR, 6, b"", f"hold time {received.hold_time_s} s")


def _malformed(text: str) -> NotificationError:
    return NotificationError(OPEN_ERROR, 0, b"", text)
