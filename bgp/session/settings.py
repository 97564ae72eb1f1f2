"""What a session needs to know of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from bgp.config import PeerConfig, SpeakerConfig
from bgp.families import FAMILIES, Family

LARGE_HOLD_TIME_S = 240.0  # RFC 4271 §8.2.2: while the peer's OPEN is awaited


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """`send_hold_time_s` None: the larger of 480 s and twice the negotiated hold time (RFC 9687 §4.1)."""

    local_asn: int
    router_id: bytes
    peer_asn: int
    is_passive: bool = False
    is_dynamic: bool = False  # made for an incoming connection out of a range: never dials, ends with its session
    hold_time_s: int = 90
    keepalive_s: float | None = None
    min_hold_time_s: int = 3
    connect_retry_s: float = 10.0
    idle_hold_s: float = 1.0
    delay_open_s: float = 0.0
    send_hold_time_s: float | None = None
    families: tuple[Family, ...] = FAMILIES
    graceful_restart: bool = True
    restart_time_s: int = 120
    extended_next_hop: bool = True
    extended_messages: bool = True
    four_octet_asn: bool = True
    route_refresh: bool = True
    shutdown: str | None = None

    @property
    def is_ebgp(self) -> bool:
        return self.local_asn != self.peer_asn

    def needs_reset(self, new: SessionSettings) -> bool:
        """Whether a running session must end for `new` to hold: everything that our OPEN says or that checked theirs."""
        return _of_the_session(self) != _of_the_session(new)


def _of_the_session(settings: SessionSettings) -> tuple[object, ...]:
    return (
        settings.local_asn,
        settings.router_id,
        settings.peer_asn,
        settings.hold_time_s,
        settings.keepalive_s,
        settings.min_hold_time_s,
        settings.families,
        settings.graceful_restart,
        settings.restart_time_s,
        settings.extended_next_hop,
        settings.extended_messages,
        settings.four_octet_asn,
        settings.route_refresh,
    )


def settings_of(speaker: SpeakerConfig, peer: PeerConfig) -> SessionSettings:
    is_dynamic = peer.range is not None
    return SessionSettings(
        local_asn=speaker.asn if peer.local_asn is None else peer.local_asn,
        router_id=speaker.router_id.packed,
        peer_asn=peer.asn,
        is_passive=peer.passive or is_dynamic,
        is_dynamic=is_dynamic,
        hold_time_s=peer.hold_time_s,
        keepalive_s=peer.keepalive_s,
        min_hold_time_s=peer.min_hold_time_s,
        connect_retry_s=peer.connect_retry_s,
        idle_hold_s=peer.idle_hold_s,
        families=peer.families,
        graceful_restart=peer.graceful_restart,
        restart_time_s=peer.restart_time_s,
        extended_next_hop=peer.extended_next_hop,
        extended_messages=peer.extended_messages,
        four_octet_asn=peer.four_octet_asn,
        route_refresh=peer.route_refresh,
        shutdown=peer.shutdown,
    )
