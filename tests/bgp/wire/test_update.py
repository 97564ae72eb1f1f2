"""UPDATE messages both ways, with scapy as a second opinion."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.families import FAMILIES, IPV4, IPV6, Family, nlri_of, parse_prefix
from bgp.wire.attributes import build
from bgp.wire.errors import NotificationError
from bgp.wire.update import (
    ANNOUNCE,
    END_OF_RIB,
    WITHDRAW,
    RouteChange,
    UpdateParser,
    announcements,
    end_of_rib,
    withdrawals,
)

BLOCK = bytes.fromhex("40010100 4002060201 0000fde9 400304c0000201")
V6_BLOCK = bytes.fromhex("40010100 4002060201 0000fde9")
V6_HOP = ipaddress.ip_address("2001:db8::1").packed


def parse(message: bytes, **options: Any) -> tuple[list[RouteChange], list[str]]:
    told: list[str] = []
    parser = UpdateParser(
        families=FAMILIES, is_ebgp=True, on_malformed=lambda _body, verdict, _text: told.append(verdict), **options
    )
    changes: list[RouteChange] = []
    parser.parse(message, 19, len(message), changes)
    return changes, told


def body(withdrawn: str, attributes: bytes, nlri: str) -> bytes:
    gone, tail = bytes.fromhex(withdrawn), bytes.fromhex(nlri)
    return bytes(19) + len(gone).to_bytes(2, "big") + gone + len(attributes).to_bytes(2, "big") + attributes + tail


def test_withdrawn_and_announced_prefixes_come_in_wire_order() -> None:
    changes, told = parse(body("1a0a000100", BLOCK, "1a0a000140"))
    assert [(kind, family) for kind, family, _, _ in changes] == [(WITHDRAW, IPV4), (ANNOUNCE, IPV4)]
    assert changes[1][2] == [parse_prefix("10.0.1.64/26")[1]]
    assert told == []


@pytest.mark.parametrize("family", FAMILIES)
def test_end_of_rib_is_recognised(family: Family) -> None:
    changes, _ = parse(end_of_rib(family))
    assert changes == [(END_OF_RIB, family, [], None)]


def test_equal_sets_are_one_object_over_messages_and_families() -> None:
    parser = UpdateParser(families=FAMILIES, is_ebgp=True)
    changes: list[RouteChange] = []
    messages = [
        *announcements(IPV4, BLOCK, b"", [parse_prefix("10.0.0.0/24")[1]], 4096),
        *announcements(IPV4, BLOCK, b"", [parse_prefix("10.0.1.0/24")[1]], 4096),
        *announcements(IPV6, V6_BLOCK, V6_HOP, [parse_prefix("fd00::/64")[1]], 4096),
        *announcements(IPV6, V6_BLOCK, V6_HOP, [parse_prefix("fd00:1::/64")[1]], 4096),
    ]
    for message in messages:
        parser.parse(message, 19, len(message), changes)
    sets = [attributes for _, _, _, attributes in changes]
    assert sets[0] is sets[1]
    assert sets[2] is sets[3]
    assert sets[2] is not None
    assert sets[2].next_hop == V6_HOP


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (bytes(19) + b"\0\5\0\0", "withdrawn routes run past the UPDATE"),
        (bytes(19) + b"\0\0\0\5", "path attributes run past the UPDATE"),
        (body("210a00000000", b"", ""), "withdrawn prefix of length 33"),
        (body("", BLOCK, "210a00000000"), "prefix of length 33"),
        (body("", bytes.fromhex("800e03000101"), ""), "MP_REACH_NLRI of three octets"),
        (body("", bytes.fromhex("800e06000201090000"), ""), "a next hop of nine octets for IPv6"),
        (body("", bytes.fromhex("800f020001"), ""), "MP_UNREACH_NLRI of two octets"),
        (
            body("", bytes.fromhex("40010107"), ""),
            "an error and no prefix that it could be contained to (RFC 7606 5.2)",
        ),
        (body("", bytes.fromhex("800f03000101") * 2, ""), "MP_UNREACH_NLRI twice"),
        (body("", bytes.fromhex("800f04000201 00 40010107"), ""), "an error beside MP_UNREACH_NLRI, nothing reachable"),
        (body("", bytes.fromhex("800f04000201 00 ff"), ""), "a stray octet behind MP_UNREACH_NLRI"),
    ],
)
def test_what_hides_the_prefixes_resets_the_session(message: bytes, why: str) -> None:
    with pytest.raises(NotificationError) as caught:
        parse(message)
    assert caught.value.code == 3, why


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        (b"", "no attributes at all"),
        (BLOCK[4:], "no ORIGIN"),
        (BLOCK[:-7], "no NEXT_HOP"),
        (BLOCK + bytes.fromhex("c0080300"), "the last attribute runs past the end"),
        (bytes.fromhex("40010100 400200 400304c0000201"), "an empty path from an external peer"),
        (bytes.fromhex("40010100 4002060201 0000fdea 400304c0000201"), "another AS in front than the peer's"),
    ],
)
def test_a_fault_beside_readable_prefixes_withdraws_these(attributes: bytes, why: str) -> None:
    changes, told = parse(body("", attributes, "180a0000"), first_asn=65001)
    assert changes == [(WITHDRAW, IPV4, [parse_prefix("10.0.0.0/24")[1]], None)], why
    assert told == ["treat-as-withdraw"]


def test_ipv6_with_a_fault_is_withdrawn_too() -> None:
    (message,) = announcements(
        IPV6, bytes.fromhex("40010107") + V6_BLOCK[4:], V6_HOP, [parse_prefix("fd00::/64")[1]], 4096
    )
    changes, told = parse(message)
    assert [(kind, family) for kind, family, _, _ in changes] == [(WITHDRAW, IPV6)]
    assert told == ["treat-as-withdraw"]


def test_wrong_flags_of_a_lone_withdrawal_still_withdraw() -> None:
    changes, _ = parse(body("", bytes.fromhex("c00f04000201 00"), ""))
    assert [(kind, family) for kind, family, _, _ in changes] == [(WITHDRAW, IPV6)]


def test_ipv4_over_an_ipv6_next_hop_needs_the_capability() -> None:
    (message,) = announcements(IPV4, V6_BLOCK, V6_HOP, [parse_prefix("10.0.0.0/24")[1]], 4096)
    changes, _ = parse(message, extended_next_hop=frozenset({IPV4}))
    assert changes[0][:2] == (ANNOUNCE, IPV4)
    with pytest.raises(NotificationError):
        parse(message)


@given(st.binary(max_size=120))
def test_any_body_gives_changes_or_the_one_error(data: bytes) -> None:
    for four in (True, False):
        with contextlib.suppress(NotificationError):
            parse(bytes(19) + data, four_octet_asn=four)


@given(st.data())
def test_a_mutated_update_gives_changes_or_the_one_error(data: st.DataObject) -> None:
    (good,) = announcements(IPV6, V6_BLOCK, V6_HOP, [parse_prefix("fd00::/64")[1]], 4096)
    message = bytearray(data.draw(st.sampled_from([good, body("", BLOCK, "180a0000")])))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(19, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotificationError):
        parse(bytes(message), first_asn=65001)


@pytest.mark.parametrize("family", FAMILIES)
def test_scapy_reads_what_we_write(family: Family) -> None:
    from scapy.contrib.bgp import BGPHeader, BGPUpdate

    networks = [ipaddress.ip_network("10.1.0.0/26" if family is IPV4 else "fd00:1::/64")]
    nlris = [nlri_of(network) for network in networks]
    made = build(next_hop=b"\xc0\0\2\1" if family is IPV4 else V6_HOP, med=5, communities=b"\xfd\xe8\0\1")
    (message,) = announcements(family, made.block, b"" if family is IPV4 else V6_HOP, nlris, 4096)
    seen = BGPHeader(message)
    assert seen.len == len(message)
    update = seen[BGPUpdate]
    codes = {item.type_code for item in update.path_attr}
    assert {1, 2, 4, 8} <= codes
    if family is IPV4:
        assert [item.prefix for item in update.nlri] == ["10.1.0.0/26"]
        assert 3 in codes
    else:
        reach = next(item.attribute for item in update.path_attr if item.type_code == 14)
        assert [item.prefix for item in reach.nlri] == ["fd00:1::/64"]
    for gone in withdrawals(family, nlris, 4096):
        assert BGPHeader(gone).type == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", [4096, 65535])
def test_long_runs_are_cut_into_messages_that_fit(family: Family, limit: int) -> None:
    text = "10.{}.{}.0/24" if family is IPV4 else "fd00:{:x}:{:x}::/64"
    nlris = [parse_prefix(text.format(n >> 8, n & 255))[1] for n in range(9000)]
    block, hop = (BLOCK, b"") if family is IPV4 else (V6_BLOCK, V6_HOP)
    for kind, messages in (
        (ANNOUNCE, list(announcements(family, block, hop, nlris, limit))),
        (WITHDRAW, list(withdrawals(family, nlris, limit))),
    ):
        found: list[bytes] = []
        for message in messages:
            assert len(message) == int.from_bytes(message[16:18], "big") <= limit
            changes, _ = parse(message)
            assert [change[0] for change in changes] == [kind]
            found += changes[0][2]
        assert found == nlris
