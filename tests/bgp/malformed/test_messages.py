"""Malformed messages over a live session: header, OPEN, NOTIFICATION, ROUTE-REFRESH, and what comes at a wrong time.

A row is what is sent, the NOTIFICATION that the RFC wants (code, subcode, data in hexadecimal; None: the connection is
closed without one, IGNORED: nothing happens), and why. Every row is tried on an external and on an internal peer.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.bgp.malformed.live import (
    EXTERNAL_ASN,
    KEEPALIVE,
    MARKER,
    NOTIFICATION,
    OPEN,
    REFRESH,
    UPDATE,
    LiveSpeaker,
    Router,
    attribute,
    capability,
    fixed_open,
    message,
    open_body,
    parameters,
)

IGNORED = "ignored"
Answer = tuple[int, int, str] | None | str

pytestmark = pytest.mark.parametrize("is_ebgp", [True, False], ids=["ebgp", "ibgp"])


def head(length: int, kind: int) -> bytes:
    return MARKER + length.to_bytes(2, "big") + bytes([kind])


HEADERS: list[tuple[bytes, Answer, str]] = [
    (b"\0" * 19, (1, 1, ""), "a marker of zeros"),
    (b"\xff" * 15 + b"\xfe\x00\x13\x04", (1, 1, ""), "the last bit of the marker"),
    (b"\x00" + b"\xff" * 15 + b"\x00\x13\x04", (1, 1, ""), "the first octet of the marker"),
    (b"GET / HTTP/1.0\r\n\r\n" + b"\0" * 20, (1, 1, ""), "another protocol"),
    (head(0, KEEPALIVE), (1, 2, "0000"), "length 0"),
    (head(18, KEEPALIVE), (1, 2, "0012"), "less than a header"),
    (head(20, KEEPALIVE) + b"x", (1, 2, "0014"), "a KEEPALIVE with a body"),
    (head(4097, KEEPALIVE), (1, 2, "1001"), "a long KEEPALIVE"),
    (head(22, UPDATE), (1, 2, "0016"), "an UPDATE without its length fields"),
    (head(4097, OPEN), (1, 2, "1001"), "a long OPEN, never allowed (RFC 8654 §3)"),
    (head(28, OPEN), (1, 2, "001c"), "a short OPEN"),
    (head(20, NOTIFICATION), (1, 2, "0014"), "a NOTIFICATION without a subcode"),
    (head(19, 0), (1, 3, "00"), "type 0"),
    (head(19, 6), (1, 3, "06"), "type 6"),
    (head(19, 255), (1, 3, "ff"), "type 255"),
    (head(18, 255), (1, 2, "0012"), "the length is looked at first"),
]


@pytest.mark.parametrize(("octets", "expected", "why"), HEADERS, ids=[row[2] for row in HEADERS])
@pytest.mark.parametrize("is_established", [True, False], ids=["established", "opensent"])
def test_a_bad_header(
    live: LiveSpeaker, is_ebgp: bool, is_established: bool, octets: bytes, expected: Answer, why: str
) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        if is_established:
            router.establish()
        router.send(octets)
        assert router.answer() == expected, why


def test_a_bad_header_cut_into_single_octets(live: LiveSpeaker, is_ebgp: bool) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish()
        for octet in message(KEEPALIVE) + head(19, 9):
            router.send(bytes([octet]))
        assert router.answer() == (1, 3, "09")


# --- OPEN ------------------------------------------------------------------------------------------------------------


def opening(router: Router, **details: Any) -> bytes:
    return open_body(router.asn, router.router_id, **details)


def with_parameters(router: Router, octets: str) -> bytes:
    return fixed_open(router.asn, router.router_id) + bytes.fromhex(octets)


OPENS: list[tuple[Any, Answer, str]] = [
    (lambda r: opening(r, version=3), (2, 1, "0004"), "version 3"),
    (lambda r: opening(r, version=5), (2, 1, "0004"), "version 5"),
    (lambda r: opening(r, version=0), (2, 1, "0004"), "version 0"),
    (lambda r: open_body(65099, r.router_id), (2, 2, ""), "another AS"),
    (lambda r: opening(r, four_octet_asn=65099), (2, 2, ""), "another AS in the capability (RFC 6793)"),
    (lambda r: opening(r, my_as=0), (2, 2, ""), "AS 0 (RFC 7607)"),
    (lambda r: opening(r, four_octet_asn=0), (2, 2, ""), "AS 0 in the capability (RFC 7607)"),
    (lambda r: opening(r, my_as=23456, four_octet_asn=None), (2, 2, ""), "AS_TRANS without the capability"),
    (lambda r: open_body(r.asn, bytes(4)), (2, 3, ""), "identifier 0.0.0.0"),
    (lambda r: opening(r, hold_time_s=1), (2, 6, ""), "hold time 1"),
    (lambda r: opening(r, hold_time_s=2), (2, 6, ""), "hold time 2"),
    (lambda r: with_parameters(r, "04 01020000"), (2, 4, "01020000"), "authentication, long deprecated"),
    (lambda r: with_parameters(r, "02 7f00"), (2, 4, "7f00"), "an unknown parameter"),
    (lambda r: with_parameters(r, "01"), (2, 0, ""), "parameters that are not there"),
    (lambda r: with_parameters(r, "00 0202"), (2, 0, ""), "octets behind the parameters"),
    (lambda r: with_parameters(r, "01 02"), (2, 0, ""), "a parameter without its length"),
    (lambda r: with_parameters(r, "03 020902"), (2, 0, ""), "a parameter past the others"),
    (lambda r: with_parameters(r, "04 02020109"), (2, 0, ""), "a capability past its parameter"),
    (lambda r: with_parameters(r, "ff"), (2, 0, ""), "extended parameters, no length (RFC 9072)"),
    (lambda r: with_parameters(r, "ff ff 00ff"), (2, 0, ""), "extended parameters, none there (RFC 9072)"),
    (lambda r: with_parameters(r, "ff ff 0004 02 0009 00"), (2, 0, ""), "an extended parameter past the others"),
    (lambda r: with_parameters(r, "05 02030101 00"), (2, 0, ""), "a multiprotocol capability of one octet"),
    (lambda r: with_parameters(r, "05 0203 4101 00"), (2, 0, ""), "a 4-octet AS of one octet"),
    (lambda r: with_parameters(r, "08 0206 0104 00190046"), (2, 7, "010400010001010400020001"), "no common family"),
    (lambda r: opening(r) + b"\0", (2, 0, ""), "one octet too many"),
    (lambda r: opening(r)[:-1], (2, 0, ""), "one octet too few"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected", "why"), OPENS, ids=[row[2] for row in OPENS])
def test_a_bad_open(live: LiveSpeaker, is_ebgp: bool, build: Any, expected: Answer, why: str) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.send(message(OPEN, build(router)))
        assert router.answer() == expected, why


def test_our_own_identifier(live: LiveSpeaker, is_ebgp: bool) -> None:
    """RFC 6286 §2.2: an error between internal peers only."""
    with live.router(is_ebgp=is_ebgp) as router:
        router.router_id = bytes([10, 255, 0, 1])
        if is_ebgp:
            router.establish()
        else:
            router.send(message(OPEN, opening(router)))
            assert router.answer() == (2, 3, "")


GOOD_ENOUGH: list[tuple[bytes, str]] = [
    (capability(239, b"\1\2\3"), "an unknown capability (RFC 5492 §3)"),
    (capability(0), "the reserved capability"),
    (capability(2) * 30, "one capability thirty times (RFC 5492 §4)"),
    (capability(1, b"\0\1\0\1") * 5, "one family five times"),
    (capability(64, b"\x80"), "graceful restart with half a header"),
    (capability(64, b"\0\x78\0\1\1"), "graceful restart with half a family"),
    (capability(5, b"\0\1\0"), "extended next hop with half an entry"),
    (capability(69, b"\0\1\1\xff"), "ADD-PATH with an unknown mode"),
    (capability(73, b"\xff" + b"x" * 20), "a host name longer than its capability"),
    (capability(73, b"\x04\xff\xfe\x1b[\x00"), "a host name of rubbish"),
    (capability(128), "the route refresh of before RFC 2918"),
    (capability(70) + capability(6), "enhanced route refresh, extended messages"),
    (capability(9, b"\x07"), "an unknown role"),
]


@pytest.mark.parametrize(("more", "why"), GOOD_ENOUGH, ids=[row[1] for row in GOOD_ENOUGH])
def test_a_strange_open_that_is_no_reason_to_refuse(live: LiveSpeaker, is_ebgp: bool, more: bytes, why: str) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish(more=more)
        router.send(message(KEEPALIVE))
        assert live.peer(router) is not None, why


def test_capabilities_in_extended_parameters(live: LiveSpeaker, is_ebgp: bool) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        inner = capability(1, b"\0\1\0\1") + capability(65, router.asn.to_bytes(4, "big"))
        body = fixed_open(router.asn, router.router_id) + b"\xff\xff" + (len(inner) + 3).to_bytes(2, "big")
        router.send(message(OPEN, body + b"\x02" + len(inner).to_bytes(2, "big") + inner) + message(KEEPALIVE))
        assert router.receive(OPEN)
        assert router.receive(KEEPALIVE) == b""


def test_an_old_speaker_without_any_capability(live: LiveSpeaker, is_ebgp: bool) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.send(message(OPEN, fixed_open(router.asn, router.router_id) + parameters(b"")) + message(KEEPALIVE))
        assert router.receive(OPEN)
        assert router.receive(KEEPALIVE) == b""


# --- NOTIFICATION ----------------------------------------------------------------------------------------------------

NOTIFICATIONS: list[tuple[bytes, str]] = [
    (b"\x00\x00", "code 0"),
    (b"\xff\xff", "a code that nobody has"),
    (b"\x06\x00", "Cease without a subcode"),
    (b"\x06\x63", "Cease with an unknown subcode"),
    (b"\x06\x02\x05ab", "a communication shorter than it says (RFC 9003)"),
    (b"\x06\x02\x02abcdef", "a communication longer than it says"),
    (b"\x06\x04\x03\xff\xfe\x00", "a communication that is not UTF-8"),
    (b"\x06\x02\x07\x1b]0;x\x07\n", "a communication that would write into a terminal"),
    (b"\x06\x02\xff" + b"x" * 255, "a communication of 255 octets"),
    (b"\x06\x09", "a Hard Reset that carries nothing (RFC 8538)"),
    (b"\x06\x09" * 2000, "Hard Resets in one another"),
    (b"\x06\x01\x00\x01", "a prefix limit without its number"),
    (b"\x02\x07\x06", "refused capabilities that do not add up"),
    (b"\x02\x01\x00\x03", "a version that we do not have"),
    (b"\x03\x05" + b"x" * 4000, "a great deal of data"),
]


@pytest.mark.parametrize(("body", "why"), NOTIFICATIONS, ids=[row[1] for row in NOTIFICATIONS])
@pytest.mark.parametrize("is_established", [True, False], ids=["established", "opensent"])
def test_a_notification_is_never_answered(
    live: LiveSpeaker, is_ebgp: bool, is_established: bool, body: bytes, why: str
) -> None:
    """RFC 4271 §6.4."""
    with live.router(is_ebgp=is_ebgp) as router:
        if is_established:
            router.establish()
        router.send(message(NOTIFICATION, body))
        assert router.answer() is None, why
        told = [str(fields) for name, fields in live.events.told if name == "notification_received"]
        assert told[-1].isprintable()


# --- ROUTE-REFRESH ---------------------------------------------------------------------------------------------------


def returned(body: bytes) -> Answer:
    return 7, 1, message(REFRESH, body).hex()


REFRESHES: list[tuple[bytes, Answer, str]] = [
    (b"", returned(b""), "no body"),
    (b"\0", returned(b"\0"), "one octet"),
    (b"\0\1\0", returned(b"\0\1\0"), "three octets"),
    (b"\0\1\0\1\0", returned(b"\0\1\0\1\0"), "five octets"),
    (b"\0\1\1\1\0\0", returned(b"\0\1\1\1\0\0"), "BoRR of six octets"),
    (b"\0\1\0\1" + b"\0" * 60, returned(b"\0\1\0\1" + b"\0" * 60), "an outbound filter, which was not negotiated"),
    (b"\0\1\1\1", IGNORED, "BoRR, which was not negotiated"),
    (b"\0\1\2\1", IGNORED, "EoRR"),
    (b"\0\1\x63\1", IGNORED, "an unknown subtype (RFC 7313 §5)"),
    (b"\x00\x19\0\x46", IGNORED, "a family that was not negotiated"),
    (b"\xff\xff\0\xff", IGNORED, "a family that nobody has"),
    (b"\0\0\0\0", IGNORED, "family 0"),
]


@pytest.mark.parametrize(("body", "expected", "why"), REFRESHES, ids=[row[2] for row in REFRESHES])
def test_a_bad_route_refresh(live: LiveSpeaker, is_ebgp: bool, body: bytes, expected: Answer, why: str) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish()
        router.send(message(REFRESH, body))
        if expected == IGNORED:
            assert live.settle(router, base(router)), why
        else:
            assert router.answer() == expected, why


def test_thousands_of_refreshes_in_one_breath(live: LiveSpeaker, is_ebgp: bool) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish()
        router.send(message(REFRESH, b"\0\1\0\1") * 3000)
        assert live.settle(router, base(router))


def test_a_refresh_from_a_peer_that_did_not_offer_it(live: LiveSpeaker, is_ebgp: bool) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish(refresh=False)
        router.send(message(REFRESH, b"\0\1\0\1"))
        assert live.settle(router, base(router))


def base(router: Router) -> bytes:
    """Attributes of an ordinary route."""
    is_ebgp = router.asn == EXTERNAL_ASN
    path = b"\x02\x01" + EXTERNAL_ASN.to_bytes(4, "big")
    attributes = attribute(1, b"\0", 0x40) + attribute(2, path, 0x40) + attribute(3, bytes([192, 0, 2, 9]), 0x40)
    return attributes if is_ebgp else attributes + attribute(5, b"\0\0\0\x64", 0x40)


# --- at the wrong time -----------------------------------------------------------------------------------------------

EMPTY_UPDATE = message(UPDATE, b"\0\0\0\0")
TOO_EARLY: list[tuple[bytes, Answer, str]] = [
    (message(KEEPALIVE), (5, 1, ""), "KEEPALIVE"),
    (EMPTY_UPDATE, (5, 1, ""), "UPDATE"),
    (message(REFRESH, b"\0\1\0\1"), (5, 1, ""), "ROUTE-REFRESH"),
]


@pytest.mark.parametrize(("octets", "expected", "why"), TOO_EARLY, ids=[row[2] for row in TOO_EARLY])
def test_instead_of_the_open(live: LiveSpeaker, is_ebgp: bool, octets: bytes, expected: Answer, why: str) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.send(octets)
        assert router.answer() == expected, why


@pytest.mark.parametrize("kind", [OPEN, UPDATE, REFRESH])
def test_instead_of_the_first_keepalive(live: LiveSpeaker, is_ebgp: bool, kind: int) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        again = message(OPEN, opening(router))
        router.send(again + {OPEN: again, UPDATE: EMPTY_UPDATE, REFRESH: message(REFRESH, b"\0\1\0\1")}[kind])
        assert router.answer() == (5, 2, "")


def test_a_second_open(live: LiveSpeaker, is_ebgp: bool) -> None:
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish()
        router.send(message(OPEN, opening(router)))
        assert router.answer() == (5, 3, "")


def test_a_connection_closed_in_every_state(live: LiveSpeaker, is_ebgp: bool) -> None:
    for octets in (b"", b"\xff" * 10, "open", "established", "half an update"):
        router = live.router(is_ebgp=is_ebgp)
        if octets == "open":
            router.send(message(OPEN, opening(router)))
        elif isinstance(octets, str):
            router.establish()
            if octets == "half an update":
                router.send(message(UPDATE, b"\0" * 100)[:50])
        else:
            router.send(octets)
        router.sock.close()
