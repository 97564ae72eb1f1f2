"""What two OPENs mean together, and what our own says."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest

from bgp.config import PeerConfig, SpeakerConfig
from bgp.families import IPV4, IPV6
from bgp.session.negotiation import ALL_CAPABILITIES, Negotiated, negotiate, our_open
from bgp.session.settings import SessionSettings, settings_of
from bgp.wire.errors import NotificationError
from bgp.wire.open import EXTENDED_NEXT_HOP, GRACEFUL_RESTART, MULTIPROTOCOL, Capabilities, GracefulRestart, OpenMessage
from tests.bgp.session.world import LEFT, RIGHT


def opening(settings: SessionSettings, omitted: frozenset[int] = frozenset(), **overrides: Any) -> OpenMessage:
    message = our_open(settings, restarting=False, forwarding_preserved=True, omitted=omitted)
    return dataclasses.replace(message, capabilities=dataclasses.replace(message.capabilities, **overrides))


def agreed(left: dict[str, Any] | None = None, right: dict[str, Any] | None = None, **peer: Any) -> Negotiated:
    """`left` and `right` change settings; the rest changes what the peer's capabilities say."""
    ours = dataclasses.replace(LEFT, **left or {})
    theirs = dataclasses.replace(RIGHT, **right or {})
    return negotiate(ours, opening(ours), opening(theirs, **peer))


def test_two_of_us_agree_on_everything() -> None:
    result = agreed()
    assert (result.local_asn, result.peer_asn, result.is_ebgp) == (65001, 65002, True)
    assert result.peer_router_id == RIGHT.router_id
    assert (result.hold_time_s, result.keepalive_s) == (90, 30.0)
    assert result.families == (IPV4, IPV6)
    assert (result.max_send_octets, result.max_receive_octets) == (65535, 65535)
    assert result.extended_next_hop == {IPV4}
    assert result.peer_restart is not None
    assert result.peer_restart.families == result.peer_restart.forwarding == {IPV4, IPV6}
    assert result.mismatches == ()


@pytest.mark.parametrize(
    ("ours", "theirs", "configured", "hold", "keepalive"),
    [
        (90, 30, None, 30, 10.0),
        (30, 90, None, 30, 10.0),
        (0, 90, None, 0, 0.0),
        (90, 0, None, 0, 0.0),
        (90, 90, 5.0, 90, 5.0),
        (90, 9, 20.0, 9, 3.0),
        (3, 3, None, 3, 1.0),
    ],
)
def test_the_smaller_hold_time_holds(
    ours: int, theirs: int, configured: float | None, hold: int, keepalive: float
) -> None:
    result = agreed({"hold_time_s": ours, "keepalive_s": configured}, {"hold_time_s": theirs})
    assert (result.hold_time_s, result.keepalive_s) == (hold, keepalive)


def test_families_are_those_of_both_in_our_order() -> None:
    assert agreed({"families": (IPV6, IPV4)}).families == (IPV6, IPV4)
    assert agreed(right={"families": (IPV6,)}).families == (IPV6,)
    assert agreed(families=((25, 70), (2, 1))).families == (IPV6,)


def test_a_peer_without_multiprotocol_means_ipv4() -> None:
    result = agreed(families=None)
    assert result.families == (IPV4,)
    assert "family ipv6: only this side offers it" in result.mismatches


@pytest.mark.parametrize("families", [((1, 1),), None, ()])
def test_no_common_family_is_refused_with_what_we_miss(families: Any) -> None:
    with pytest.raises(NotificationError) as caught:
        agreed({"families": (IPV6,)}, families=families)
    assert (caught.value.code, caught.value.subcode) == (2, 7)
    assert caught.value.data.hex() == "010400020001"


def test_without_capabilities_ipv6_is_not_smuggled_in_and_ipv4_not_forced() -> None:
    bare = opening(LEFT, ALL_CAPABILITIES)
    assert bare.capabilities == Capabilities()
    assert negotiate(LEFT, bare, opening(RIGHT)).families == (IPV4,)
    only_ipv6 = dataclasses.replace(LEFT, families=(IPV6,))
    with pytest.raises(NotificationError, match="2/7"):
        negotiate(only_ipv6, opening(only_ipv6, frozenset({MULTIPROTOCOL})), opening(RIGHT))


def test_long_messages_are_a_matter_of_each_direction() -> None:
    """RFC 8654 §4: who offers takes them; who was offered sends them, if it knows how."""
    deaf = agreed(right={"extended_messages": False})
    assert (deaf.max_send_octets, deaf.max_receive_octets) == (4096, 65535)
    mute = agreed({"extended_messages": False})
    assert (mute.max_send_octets, mute.max_receive_octets) == (4096, 4096)


def test_four_octet_numbers_need_both() -> None:
    assert agreed().four_octet_asn
    assert not agreed(right={"four_octet_asn": False}).four_octet_asn
    assert not agreed({"four_octet_asn": False}).four_octet_asn


def test_a_large_as_number_is_hidden_behind_as_trans() -> None:
    message = opening(dataclasses.replace(LEFT, local_asn=4200000001))
    assert (message.my_as, message.capabilities.four_octet_asn) == (23456, 4200000001)


def test_a_next_hop_of_the_other_family_needs_both_and_the_family() -> None:
    assert agreed(extended_next_hop=frozenset()).extended_next_hop == frozenset()
    assert agreed({"extended_next_hop": False}).extended_next_hop == frozenset()
    assert agreed(right={"families": (IPV6,)}).extended_next_hop == frozenset()
    assert agreed(extended_next_hop=frozenset({(1, 128, 2), (1, 2, 2)})).extended_next_hop == frozenset()


def test_graceful_restart_needs_both() -> None:
    assert agreed({"graceful_restart": False}).peer_restart is None
    assert agreed(right={"graceful_restart": False}).peer_restart is None


def test_what_the_peer_says_of_its_restart() -> None:
    said = GracefulRestart(True, False, 77, ((1, 1, False), (2, 1, True), (25, 70, True)))
    restart = agreed(graceful_restart=said).peer_restart
    assert restart is not None
    assert (restart.restarting, restart.notification, restart.time_s) == (True, False, 77)
    assert (restart.families, restart.forwarding) == (frozenset({IPV4, IPV6}), frozenset({IPV6}))


def test_a_peer_that_only_speaks_of_end_of_rib_keeps_no_family() -> None:
    restart = agreed(graceful_restart=GracefulRestart(False, True, 0, ())).peer_restart
    assert restart is not None
    assert restart.families == frozenset()


@pytest.mark.parametrize(
    ("restarting", "preserved", "forwarding"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_forwarding_is_lost_only_by_a_restart_that_lost_it(restarting: bool, preserved: bool, forwarding: bool) -> None:
    message = our_open(LEFT, restarting=restarting, forwarding_preserved=preserved, omitted=frozenset())
    said = message.capabilities.graceful_restart
    assert said == GracefulRestart(restarting, True, 120, ((1, 1, forwarding), (2, 1, forwarding)))


def test_a_restart_time_is_cut_to_its_twelve_bits() -> None:
    message = opening(dataclasses.replace(LEFT, restart_time_s=99999))
    assert message.capabilities.graceful_restart is not None
    assert message.capabilities.graceful_restart.time_s == 4095


@pytest.mark.parametrize("code", sorted(ALL_CAPABILITIES))
def test_each_capability_can_be_left_out(code: int) -> None:
    from bgp.wire.open import encode_open, split_capabilities

    codes = {item for item, _ in split_capabilities(encode_open(opening(LEFT, frozenset({code})))[19:])}
    assert codes == ALL_CAPABILITIES - {code}


def test_settings_switch_capabilities_off() -> None:
    quiet = dataclasses.replace(
        LEFT,
        graceful_restart=False,
        extended_next_hop=False,
        extended_messages=False,
        four_octet_asn=False,
        route_refresh=False,
    )
    assert opening(quiet).capabilities == Capabilities(families=((1, 1), (2, 1)))


def test_differences_are_told_to_a_person() -> None:
    result = agreed({"route_refresh": False}, {"graceful_restart": False}, families=((1, 1),))
    assert result.mismatches == (
        "route refresh: only the peer offers it",
        "graceful restart: only this side offers it",
        "family ipv6: only this side offers it",
    )


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_come_from_the_configuration() -> None:
    speaker = SpeakerConfig(asn=64512, router_id=ipaddress.ip_address("10.0.0.1"), listen=())
    address = ipaddress.ip_address("192.0.2.1")
    plain = settings_of(speaker, PeerConfig(name="tor", address=address, asn=65000, families=(IPV6,), hold_time_s=9))
    assert (plain.local_asn, plain.peer_asn, plain.router_id, plain.is_ebgp) == (64512, 65000, b"\x0a\0\0\1", True)
    assert (plain.families, plain.hold_time_s, plain.is_passive, plain.is_dynamic) == ((IPV6,), 9, False, False)
    other_as = settings_of(speaker, PeerConfig(name="tor", address=address, asn=64512, local_asn=65010))
    assert (other_as.local_asn, other_as.is_ebgp) == (65010, True)
    network = ipaddress.ip_network("127.1.0.0/16")
    dynamic = settings_of(speaker, PeerConfig(name="nodes", range=network, asn=64512))
    assert (dynamic.is_passive, dynamic.is_dynamic, dynamic.is_ebgp) == (True, True, False)


@pytest.mark.parametrize(
    ("change", "needs_reset"),
    [
        ({"hold_time_s": 30}, True),
        ({"families": (IPV4,)}, True),
        ({"peer_asn": 65003}, True),
        ({"router_id": b"\1\2\3\4"}, True),
        ({"graceful_restart": False}, True),
        ({"connect_retry_s": 1.0}, False),
        ({"idle_hold_s": 5.0}, False),
        ({"shutdown": "text"}, False),
    ],
)
def test_only_what_the_open_says_needs_a_reset(change: dict[str, Any], needs_reset: bool) -> None:
    assert LEFT.needs_reset(dataclasses.replace(LEFT, **change)) is needs_reset


def test_every_capability_of_ours_has_a_code() -> None:
    assert {MULTIPROTOCOL, EXTENDED_NEXT_HOP, GRACEFUL_RESTART} < ALL_CAPABILITIES
