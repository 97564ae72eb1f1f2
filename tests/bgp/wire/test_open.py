"""OPEN: golden vectors both ways, an independent codec, and the answers of RFC 4271 §6.2."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import bgp as scapy_bgp

from bgp.wire.errors import NotificationError
from bgp.wire.framing import HEADER_OCTETS
from bgp.wire.open import (
    AS_TRANS,
    Capabilities,
    GracefulRestart,
    OpenMessage,
    check_open,
    encode_open,
    multiprotocol_data,
    parse_open,
    refused_capabilities,
    split_capabilities,
)
from tests.vectors import read_vectors

VECTORS = read_vectors("open.txt")
ROUTER_1, ROUTER_2 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
OURS = OpenMessage(
    my_as=AS_TRANS,
    hold_time_s=90,
    router_id=ROUTER_1,
    capabilities=Capabilities(
        families=((1, 1), (2, 1)),
        route_refresh=True,
        extended_next_hop=frozenset({(1, 1, 2)}),
        extended_message=True,
        graceful_restart=GracefulRestart(True, True, 120, ((1, 1, True), (2, 1, False))),
        four_octet_asn=4200000001,
    ),
)


def parse(message: bytes) -> OpenMessage:
    return parse_open(message[HEADER_OCTETS:])


def plain(message: OpenMessage) -> dict[str, Any]:
    """Everything but the texts for people."""
    said = message.capabilities
    return {
        "open": (message.my_as, message.hold_time_s, message.router_id),
        "families": said.families,
        "refresh": said.route_refresh,
        "next_hop": said.extended_next_hop,
        "long": said.extended_message,
        "restart": said.graceful_restart,
        "asn": said.four_octet_asn,
    }


def opened(my_as: int = 65002, hold_time_s: int = 90, router_id: bytes = ROUTER_2, **said: Any) -> dict[str, Any]:
    return plain(
        OpenMessage(my_as=my_as, hold_time_s=hold_time_s, router_id=router_id, capabilities=Capabilities(**said))
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bare", opened(65001, 180, ROUTER_1)),
        ("ours", plain(OURS)),
        ("one parameter", opened(hold_time_s=120, families=((1, 1),), route_refresh=True, four_octet_asn=65002)),
        ("extended parameters", opened(four_octet_asn=65002, extended_message=True)),
        ("extended parameters, short", opened(extended_message=True)),
        ("duplicates", opened(families=((1, 1),), route_refresh=True, extended_message=True)),
        ("strangers", opened(families=((25, 70),))),
    ],
)
def test_golden_vector_decodes(name: str, expected: dict[str, Any]) -> None:
    assert plain(parse(VECTORS[name])) == expected


def test_every_vector_is_tested() -> None:
    assert set(VECTORS) == {
        "bare", "ours", "one parameter", "extended parameters", "extended parameters, short", "duplicates", "strangers"
    }  # fmt: skip


def test_our_open_encodes_to_the_golden_vector() -> None:
    assert encode_open(OURS) == VECTORS["ours"]


def test_a_host_name_cannot_write_into_a_log() -> None:
    assert not [text for text in parse(VECTORS["strangers"]).capabilities.display if not text.isprintable()]


# --- independent codec -----------------------------------------------------------------------------------------------


def test_scapy_reads_our_open() -> None:
    packet = scapy_bgp.BGPHeader(encode_open(OURS))
    assert (packet.my_as, packet.hold_time, packet.bgp_id) == (AS_TRANS, 90, "10.0.0.1")
    capabilities = [parameter.param_value for parameter in packet.opt_params]
    assert [(item.code, item.length) for item in capabilities] == [
        (1, 4),
        (1, 4),
        (2, 0),
        (5, 6),
        (6, 0),
        (64, 10),
        (65, 4),
    ]
    assert [(item.afi, item.safi) for item in capabilities[:2]] == [(1, 1), (2, 1)]
    assert (capabilities[5].restart_flags, capabilities[5].restart_time) == (0xC, 120)
    assert capabilities[6].asn == 4200000001


def test_we_read_scapys_open() -> None:
    packet = scapy_bgp.BGPHeader(type=1) / scapy_bgp.BGPOpen(
        my_as=65002,
        hold_time=30,
        bgp_id="10.0.0.2",
        opt_params=[
            scapy_bgp.BGPOptParam(param_value=scapy_bgp.BGPCapMultiprotocol(afi=2, safi=1)),
            scapy_bgp.BGPOptParam(param_value=scapy_bgp.BGPCapFourBytesASN(asn=65002)),
            scapy_bgp.BGPOptParam(param_value=scapy_bgp.BGPCapGeneric(code=2)),
        ],
    )
    assert plain(parse(bytes(packet))) == opened(
        hold_time_s=30, families=((2, 1),), four_octet_asn=65002, route_refresh=True
    )


# --- malformed -------------------------------------------------------------------------------------------------------

FIXED = "04 fdea 005a 0a000002"


@pytest.mark.parametrize(
    ("body", "code", "data", "why"),
    [
        ("03 fdea 005a 0a000002 00", (2, 1), "0004", "version 3; the data is the largest we support"),
        ("05 fdea 005a 0a000002 00", (2, 1), "0004", "version 5"),
        ("00 fdea 005a 0a000002 00", (2, 1), "0004", "version 0"),
        ("04 fdea 005a 0a0000", (1, 2), "001b", "nine octets"),
        ("", (1, 2), "0013", "nothing"),
        (f"{FIXED} 01", (2, 0), "", "one octet of parameters, none there"),
        (f"{FIXED} 00 00", (2, 0), "", "an octet behind the parameters"),
        (f"{FIXED} 01 02", (2, 0), "", "a parameter ends inside its header"),
        (f"{FIXED} 03 02 02 01", (2, 0), "", "a parameter runs past the others"),
        (f"{FIXED} 04 02 02 01 04", (2, 0), "", "a capability runs past its parameter"),
        (f"{FIXED} 03 02 01 01", (2, 0), "", "a capability ends inside its header"),
        (f"{FIXED} 04 01 02 0000", (2, 4), "01020000", "authentication, long deprecated"),
        (f"{FIXED} 02 63 00", (2, 4), "6300", "a parameter nobody knows"),
        (f"{FIXED} ff", (2, 0), "", "extended parameters without a type"),
        (f"{FIXED} ff ff", (2, 0), "", "extended parameters without a length"),
        (f"{FIXED} ff ff 00", (2, 0), "", "extended parameters with half a length"),
        (f"{FIXED} ff ff 0001", (2, 0), "", "extended parameters shorter than they say"),
        (f"{FIXED} ff ff 0003 02 0001", (2, 0), "", "an extended parameter runs past the others"),
        (f"{FIXED} 05 02 03 01 01 00", (2, 0), "", "multiprotocol with one octet"),
        (f"{FIXED} 09 02 07 01 05 0001000100", (2, 0), "", "multiprotocol with five octets"),
        (f"{FIXED} 06 02 04 41 02 fdea", (2, 0), "", "4-octet AS with two octets"),
        (f"{FIXED} 10 02 0e 01 04 00010001 41 06 0000fdea0000", (2, 0), "", "4-octet AS with six octets"),
        (f"{FIXED} 0e 02 0c 41 04 0000fdea 41 04 0000fdeb", (2, 0), "", "two different AS numbers"),
    ],
)
def test_a_malformed_open_is_answered_as_the_rfc_says(body: str, code: tuple[int, int], data: str, why: str) -> None:
    with pytest.raises(NotificationError) as caught:
        parse_open(bytes.fromhex(body))
    assert ((caught.value.code, caught.value.subcode), caught.value.data.hex()) == (code, data), why


@pytest.mark.parametrize(
    ("capability", "why"),
    [
        ("40 01 80", "graceful restart with half a header"),
        ("40 05 0078 0001 01", "graceful restart with half a family"),
        ("05 03 000100", "extended next hop with half an entry"),
        ("49 05 ff41424344", "a host name longer than its capability"),
        ("49 04 03 ff fe fd", "a host name that is not UTF-8"),
        ("45 03 000101", "ADD-PATH with half an entry"),
        ("4b 00", "an empty software version"),
    ],
)
def test_a_malformed_capability_that_we_can_do_without_is_ignored(capability: str, why: str) -> None:
    value = bytes.fromhex(capability)
    body = bytes.fromhex(FIXED) + bytes([len(value) + 4, 2, len(value) + 2, 2, 0]) + value
    said = parse_open(body).capabilities
    assert said.route_refresh, why
    assert len(said.problems) == 1, why
    assert (said.graceful_restart, said.extended_next_hop) == (None, frozenset()), why


def test_the_last_of_two_graceful_restart_capabilities_counts() -> None:
    value = bytes.fromhex("40 06 8078 0001 01 80  40 06 0005 0002 01 00")
    body = bytes.fromhex(FIXED) + bytes([len(value) + 2, 2, len(value)]) + value
    assert parse_open(body).capabilities.graceful_restart == GracefulRestart(False, False, 5, ((2, 1, False),))


# --- acceptable? -----------------------------------------------------------------------------------------------------


def answer(message: OpenMessage, peer_asn: int = 65002, local_asn: int = 65001, least: int = 3) -> str:
    try:
        check_open(message, peer_asn=peer_asn, local_asn=local_asn, router_id=ROUTER_1, min_hold_time_s=least)
    except NotificationError as error:
        return f"{error.code}/{error.subcode}"
    return "accepted"


def peer(my_as: int = 65002, hold: int = 90, router_id: bytes = ROUTER_2, asn: int | None = None) -> OpenMessage:
    return OpenMessage(
        my_as=my_as, hold_time_s=hold, router_id=router_id, capabilities=Capabilities(four_octet_asn=asn)
    )


@pytest.mark.parametrize(
    ("message", "expected", "why"),
    [
        (peer(), "accepted", "a 2-octet speaker"),
        (peer(asn=65002), "accepted", "the same number twice"),
        (peer(AS_TRANS, asn=65002), "accepted", "AS_TRANS where the number would have fitted"),
        (peer(65003), "2/2", "another AS"),
        (peer(65002, asn=65003), "2/2", "the capability decides (RFC 6793 §4.1)"),
        (peer(AS_TRANS), "2/2", "AS_TRANS is nobody's number"),
        (peer(0), "2/2", "AS 0 (RFC 7607)"),
        (peer(65002, asn=0), "2/2", "AS 0 in the capability (RFC 7607)"),
        (peer(0, asn=65002), "2/2", "AS 0 in My AS"),
        (peer(router_id=bytes(4)), "2/3", "identifier 0"),
        (peer(router_id=ROUTER_1), "accepted", "our identifier on an external peer (RFC 6286 §2.2)"),
        (peer(router_id=b"\xe0\0\0\1"), "accepted", "a multicast address is an identifier like any (RFC 6286)"),
        (peer(router_id=b"\xff\xff\xff\xff"), "accepted", "so is the broadcast address"),
        (peer(hold=0), "accepted", "no keepalives"),
        (peer(hold=1), "2/6", "1 s"),
        (peer(hold=2), "2/6", "2 s"),
        (peer(hold=3), "accepted", "3 s"),
        (peer(hold=65535), "accepted", "65535 s"),
    ],
)
def test_who_is_accepted(message: OpenMessage, expected: str, why: str) -> None:
    assert answer(message) == expected, why


def test_an_internal_peer_with_our_identifier_is_refused() -> None:
    assert answer(peer(65001, router_id=ROUTER_1), peer_asn=65001) == "2/3"
    assert answer(peer(65001), peer_asn=65001) == "accepted"


def test_a_hold_time_under_the_configured_least_is_refused_but_not_zero() -> None:
    assert [answer(peer(hold=hold), least=20) for hold in (0, 19, 20)] == ["accepted", "2/6", "accepted"]


def test_an_old_speaker_behind_as_trans_is_taken_at_its_configured_word() -> None:
    assert answer(peer(AS_TRANS), peer_asn=4200000001) == "accepted"
    assert answer(peer(AS_TRANS, asn=4200000002), peer_asn=4200000001) == "2/2"


# --- refused capabilities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected", "why"),
    [
        ("0600", {6}, "one that we sent"),
        ("0600 4104fa56ea01", {6, 65}, "two of them"),
        ("0104 00010001", {1}, "one of the families"),
        ("0104 00190046", set(), "a family that the peer wants and we lack"),
        ("4600", set(), "one that the peer wants and we lack"),
        ("", {1, 2, 5, 6, 64, 65}, "no data: all of them"),
        ("06", set(), "nothing that adds up"),
    ],
)
def test_what_the_next_open_leaves_out(data: str, expected: set[int], why: str) -> None:
    assert refused_capabilities(bytes.fromhex(data), VECTORS["ours"][HEADER_OCTETS:]) == expected, why


def test_missing_families_are_named_as_capabilities() -> None:
    assert multiprotocol_data(((1, 1), (2, 1))).hex() == "010400010001" + "010400020001"


# --- properties ------------------------------------------------------------------------------------------------------

u8, u16, u32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
capabilities = st.builds(
    Capabilities,
    families=st.none() | st.lists(st.tuples(u16, u8), min_size=1, max_size=80, unique=True).map(tuple),
    route_refresh=st.booleans(),
    extended_next_hop=st.frozensets(st.tuples(u16, u8, u16), max_size=4),
    extended_message=st.booleans(),
    graceful_restart=st.none()
    | st.builds(
        GracefulRestart,
        st.booleans(),
        st.booleans(),
        st.integers(0, 4095),
        st.lists(st.tuples(u16, u8, st.booleans()), max_size=4, unique_by=lambda f: f[:2]).map(tuple),
    ),
    four_octet_asn=st.none() | u32,
)


@given(
    st.builds(
        OpenMessage, my_as=u16, hold_time_s=u16, router_id=st.binary(min_size=4, max_size=4), capabilities=capabilities
    )
)
def test_what_is_encoded_decodes_to_itself(message: OpenMessage) -> None:
    """Including more capabilities than fit the old length octet (RFC 9072)."""
    assert plain(parse(encode_open(message))) == plain(message)


@given(st.binary(max_size=80), st.booleans())
def test_any_octets_give_an_open_or_a_notification_error(octets: bytes, has_good_start: bool) -> None:
    body = bytes.fromhex(FIXED) + bytes([len(octets)]) + octets if has_good_start else octets
    code = 0
    try:
        parse_open(body)
    except NotificationError as error:
        code = error.code
    assert code in (0, 1, 2)


@given(st.lists(st.tuples(u8, st.binary(max_size=20)), max_size=10))
def test_any_capabilities_give_an_open_or_a_notification_error(items: list[tuple[int, bytes]]) -> None:
    value = b"".join(bytes([code, len(data)]) + data for code, data in items)[:253]
    body = bytes.fromhex(FIXED) + bytes([len(value) + 2, 2, len(value)]) + value
    error: NotificationError | None = None
    try:
        message = parse_open(body)
    except NotificationError as refused:
        error = refused
    if error is not None:
        assert (error.code, error.subcode) == (2, 0)
        return
    assert split_capabilities(body) == items[: len(split_capabilities(body))]
    assert all(text.isprintable() for text in (*message.capabilities.display, *message.capabilities.problems))
