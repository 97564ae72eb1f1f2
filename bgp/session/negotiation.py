"""Our OPEN, their OPEN, and what both together mean for the session."""

from __future__ import annotations

from dataclasses import dataclass

from bgp.families import BY_KEY, FAMILIES, IPV4, IPV6, Family
from bgp.session.settings import SessionSettings
from bgp.wire.errors import NotificationError
from bgp.wire.framing import EXTENDED_MAX_OCTETS, MAX_OCTETS
from bgp.wire.notification import OPEN_ERROR
from bgp.wire.open import (
    AS_TRANS,
    EXTENDED_MESSAGE,
    EXTENDED_NEXT_HOP,
    FOUR_OCTET_ASN,
    GRACEFUL_RESTART,
    MULTIPROTOCOL,
    REFRESH,
    Capabilities,
    GracefulRestart,
    OpenMessage,
    check_open,
    multiprotocol_data,
)

ALL_CAPABILITIES = frozenset(
    {MULTIPROTOCOL, REFRESH, EXTENDED_NEXT_HOP, EXTENDED_MESSAGE, GRACEFUL_RESTART, FOUR_OCTET_ASN}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRestart:
    """Graceful restart as both sides said it (RFC 4724, RFC 8538).

    `restarting`: the peer's Restart bit. `notification`: both sides set the N bit. `families`: those whose routes are
    kept while the peer is away for at most `time_s`; `forwarding`: those of them for which the peer says that it kept
    its forwarding state.
    """

    restarting: bool
    notification: bool
    time_s: int
    families: frozenset[Family]
    forwarding: frozenset[Family]


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What holds on one session. `hold_time_s` and `keepalive_s` 0: neither timer runs (RFC 4271 §4.2).

    `max_send_octets` and `max_receive_octets` differ if only one side said RFC 8654. `extended_next_hop`: families
    whose next hop may be of the other family (RFC 8950, both sides). The last two are texts for people.
    """

    peer_router_id: bytes
    peer_asn: int
    local_asn: int
    is_ebgp: bool
    hold_time_s: int
    keepalive_s: float
    families: tuple[Family, ...]
    four_octet_asn: bool
    route_refresh: bool
    max_send_octets: int
    max_receive_octets: int
    extended_next_hop: frozenset[Family]
    peer_restart: PeerRestart | None
    peer_capabilities: tuple[str, ...] = ()
    mismatches: tuple[str, ...] = ()


def our_open(
    settings: SessionSettings, *, restarting: bool, forwarding_preserved: bool, omitted: frozenset[int]
) -> OpenMessage:
    """`omitted`: capability codes that the peer refused (RFC 5492 §3). IPv4 unicast alone needs no capability."""
    families = tuple((family.afi, family.safi) for family in settings.families)
    restart = GracefulRestart(
        restarting=restarting,
        notification=True,
        time_s=min(settings.restart_time_s, 4095),
        # A process that did not restart has lost nothing; and a peer that sees the bit clear drops what it kept.
        families=tuple((*family, forwarding_preserved or not restarting) for family in families),
    )

    def offers(code: int, wanted: bool = True) -> bool:
        return wanted and code not in omitted

    return OpenMessage(
        my_as=settings.local_asn if settings.local_asn <= 0xFFFF else AS_TRANS,
        hold_time_s=settings.hold_time_s,
        router_id=settings.router_id,
        capabilities=Capabilities(
            families=families if offers(MULTIPROTOCOL) else None,
            route_refresh=offers(REFRESH, settings.route_refresh),
            extended_next_hop=_extended_next_hops(settings) if offers(EXTENDED_NEXT_HOP) else frozenset(),
            extended_message=offers(EXTENDED_MESSAGE, settings.extended_messages),
            graceful_restart=restart if offers(GRACEFUL_RESTART, settings.graceful_restart) else None,
            four_octet_asn=settings.local_asn if offers(FOUR_OCTET_ASN, settings.four_octet_asn) else None,
        ),
    )


def _extended_next_hops(settings: SessionSettings) -> frozenset[tuple[int, int, int]]:
    if not settings.extended_next_hop:
        return frozenset()
    # RFC 8950 is about IPv4 NLRI with an IPv6 next hop; IPv6 NLRI with an IPv4 one has no capability and no takers.
    return frozenset((IPV4.afi, IPV4.safi, IPV6.afi) for family in settings.families if family is IPV4)


def negotiate(settings: SessionSettings, sent: OpenMessage, received: OpenMessage) -> Negotiated:
    """Raises NotificationError 2/x if the peer's OPEN is not acceptable (RFC 4271 §6.2)."""
    check_open(
        received,
        peer_asn=settings.peer_asn,
        local_asn=settings.local_asn,
        router_id=settings.router_id,
        min_hold_time_s=settings.min_hold_time_s,
    )
    ours, theirs = sent.capabilities, received.capabilities
    # Without the capability IPv4 unicast is implied, but only if it is configured.
    offered = tuple(family for family in _families(ours) if family in settings.families)
    peers = _families(theirs)
    families = tuple(family for family in offered if family in peers)
    if not families:
        # Nothing could ever be exchanged: the one case where we cannot do without a capability (RFC 5492 §3).
        wanted = tuple((family.afi, family.safi) for family in settings.families)
        raise NotificationError(OPEN_ERROR, 7, multiprotocol_data(wanted), "no address family in common")
    hold_time_s = min(sent.hold_time_s, received.hold_time_s)
    both_extended = ours.extended_message and theirs.extended_message
    return Negotiated(
        peer_router_id=received.router_id,
        peer_asn=settings.peer_asn,
        local_asn=settings.local_asn,
        is_ebgp=settings.is_ebgp,
        hold_time_s=hold_time_s,
        keepalive_s=_keepalive_s(settings, hold_time_s),
        families=families,
        four_octet_asn=ours.four_octet_asn is not None and theirs.four_octet_asn is not None,
        route_refresh=theirs.route_refresh,
        max_send_octets=EXTENDED_MAX_OCTETS if both_extended else MAX_OCTETS,
        # RFC 8654 §4: who offered it must take long messages, whatever the other side offered.
        max_receive_octets=EXTENDED_MAX_OCTETS if ours.extended_message else MAX_OCTETS,
        extended_next_hop=_common_next_hops(ours, theirs, families),
        peer_restart=_peer_restart(ours, theirs, families),
        peer_capabilities=theirs.display,
        mismatches=(*_mismatches(offered, peers, ours, theirs), *theirs.problems),
    )


def _families(capabilities: Capabilities) -> tuple[Family, ...]:
    if capabilities.families is None:
        return (IPV4,)  # RFC 4760 §8 came later than IPv4 routes
    known = (BY_KEY.get(afi.to_bytes(2, "big") + bytes([safi])) for afi, safi in capabilities.families)
    return tuple(dict.fromkeys(family for family in known if family is not None))


def _keepalive_s(settings: SessionSettings, hold_time_s: int) -> float:
    third = hold_time_s / 3
    return third if settings.keepalive_s is None else min(settings.keepalive_s, third)


def _common_next_hops(ours: Capabilities, theirs: Capabilities, families: tuple[Family, ...]) -> frozenset[Family]:
    both = ours.extended_next_hop & theirs.extended_next_hop
    return frozenset(family for family in families if any((family.afi, family.safi) == item[:2] for item in both))


def _peer_restart(ours: Capabilities, theirs: Capabilities, families: tuple[Family, ...]) -> PeerRestart | None:
    own, peer = ours.graceful_restart, theirs.graceful_restart
    if own is None or peer is None:
        return None
    kept = {(afi, safi): forwarding for afi, safi, forwarding in peer.families}
    return PeerRestart(
        restarting=peer.restarting,
        notification=own.notification and peer.notification,
        time_s=peer.time_s,
        families=frozenset(family for family in families if (family.afi, family.safi) in kept),
        forwarding=frozenset(family for family in families if kept.get((family.afi, family.safi))),
    )


def _mismatches(
    offered: tuple[Family, ...], peers: tuple[Family, ...], ours: Capabilities, theirs: Capabilities
) -> tuple[str, ...]:
    pairs = (
        ("route refresh", ours.route_refresh, theirs.route_refresh),
        ("graceful restart", ours.graceful_restart is not None, theirs.graceful_restart is not None),
        ("4-octet AS numbers", ours.four_octet_asn is not None, theirs.four_octet_asn is not None),
        ("extended messages", ours.extended_message, theirs.extended_message),
        ("extended next hop", bool(ours.extended_next_hop), bool(theirs.extended_next_hop)),
        *((f"family {family.name}", family in offered, family in peers) for family in FAMILIES),
    )
    return tuple(
        f"{what}: only {'this side' if here else 'the peer'} offers it" for what, here, there in pairs if here != there
    )
