"""ROUTE-REFRESH (RFC 2918, RFC 7313)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import bgp as scapy_bgp

from bgp.families import IPV4, IPV6, Family
from bgp.wire.errors import NotificationError
from bgp.wire.framing import ROUTE_REFRESH, message
from bgp.wire.refresh import BEGIN, REQUEST, RouteRefresh, encode_refresh, parse_refresh
from tests.vectors import read_vectors

VECTORS = read_vectors("refresh.txt")


@pytest.mark.parametrize(
    ("name", "expected", "family"),
    [
        ("ipv4", RouteRefresh(1, 1, REQUEST), IPV4),
        ("ipv6", RouteRefresh(2, 1, REQUEST), IPV6),
        ("begin", RouteRefresh(1, 1, BEGIN), IPV4),
        ("unknown subtype", RouteRefresh(1, 1, 99), IPV4),
        ("unknown family", RouteRefresh(0x4004, 71, REQUEST), None),
    ],
)
def test_golden_vector_decodes(name: str, expected: RouteRefresh, family: Family | None) -> None:
    refresh = parse_refresh(VECTORS[name])
    assert refresh == expected
    assert refresh.family is family


@pytest.mark.parametrize("family", [IPV4, IPV6])
def test_our_request_encodes_to_the_golden_vector_and_scapy_reads_it(family: Family) -> None:
    encoded = encode_refresh(family)
    assert encoded == VECTORS[family.name]
    packet = scapy_bgp.BGPHeader(encoded)
    assert (packet.afi, packet.subtype, packet.safi) == (family.afi, 0, family.safi)


def test_a_wrong_length_is_answered_with_the_whole_message() -> None:
    with pytest.raises(NotificationError) as caught:
        parse_refresh(VECTORS["too long"])
    assert (caught.value.code, caught.value.subcode, caught.value.data) == (7, 1, VECTORS["too long"])


@given(st.binary(max_size=20))
def test_any_octets_give_a_refresh_or_7_1(body: bytes) -> None:
    if len(body) != 4:
        with pytest.raises(NotificationError, match=r"^7/1 "):
            parse_refresh(message(ROUTE_REFRESH, body))
        return
    refresh = parse_refresh(message(ROUTE_REFRESH, body))
    assert refresh.afi.to_bytes(2, "big") + bytes([refresh.subtype, refresh.safi]) == body
