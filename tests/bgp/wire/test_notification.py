"""NOTIFICATION: what it says on the wire and to a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import bgp as scapy_bgp

from bgp.wire.errors import NotificationError
from bgp.wire.framing import HEADER_OCTETS, MAX_OCTETS
from bgp.wire.notification import (
    Notification,
    encode_notification,
    hard_reset,
    parse_notification,
    prefix_limit_data,
    printable,
    read_communication,
    shutdown_communication,
)
from tests.vectors import read_vectors

VECTORS = read_vectors("notification.txt")
READING = {
    "hold timer": "4/0 Hold Timer Expired",
    "version": "2/1 OPEN Message Error, Unsupported Version Number: 0004",
    "bad length": "1/2 Message Header Error, Bad Message Length: 0012",
    "shutdown": "6/2 Cease, Administrative Shutdown: TCK-10: ukzé",
    "shutdown without a text": "6/2 Cease, Administrative Shutdown",
    "shutdown, invalid UTF-8": r"6/2 Cease, Administrative Shutdown: A\xffB",
    "shutdown, too short": "6/2 Cease, Administrative Shutdown: AB (malformed: 9 octets announced, 2 there)",
    "reset with an escape sequence": r"6/4 Cease, Administrative Reset: \x1b[2J\x0a!",
    "prefix limit": "6/1 Cease, Maximum Number of Prefixes Reached: AFI 1 SAFI 1, limit 1000",
    "hard reset": "6/9 Cease, Hard Reset: 6/2 Cease, Administrative Shutdown: by",
    "unknown code": "42/7 Unknown Error 42, subcode 7: deadbe",
}


@pytest.mark.parametrize("name", VECTORS)
def test_golden_vector_reads_and_encodes(name: str) -> None:
    notification = parse_notification(VECTORS[name][HEADER_OCTETS:])
    assert str(notification) == READING[name]
    assert encode_notification(notification.code, notification.subcode, notification.data) == VECTORS[name]


@pytest.mark.parametrize("name", VECTORS)
def test_scapy_agrees(name: str) -> None:
    packet = scapy_bgp.BGPHeader(VECTORS[name])
    notification = parse_notification(VECTORS[name][HEADER_OCTETS:])
    assert (packet.error_code, packet.error_subcode, bytes(packet.data)) == (
        notification.code,
        notification.subcode,
        notification.data,
    )
    built = scapy_bgp.BGPHeader(type=3) / scapy_bgp.BGPNotification(
        error_code=notification.code, error_subcode=notification.subcode, data=notification.data
    )
    assert bytes(built) == VECTORS[name]


@pytest.mark.parametrize("body", [b"", b"\x06"])
def test_a_notification_without_a_code_is_a_bad_length(body: bytes) -> None:
    with pytest.raises(NotificationError) as caught:
        parse_notification(body)
    assert (caught.value.code, caught.value.subcode) == (1, 2)


def test_only_cease_9_is_a_hard_reset_and_it_carries_the_other() -> None:
    code, subcode, data = hard_reset(6, 2, shutdown_communication("by"))
    assert encode_notification(code, subcode, data) == VECTORS["hard reset"]
    assert Notification(code, subcode, data).is_hard_reset
    assert not Notification(6, 2).is_hard_reset
    assert not Notification(3, 9).is_hard_reset


def test_hard_resets_inside_one_another_still_read() -> None:
    nested = Notification(6, 9, bytes([6, 9] * 2000))
    assert len(str(nested)) > 0


def test_data_is_cut_so_that_the_message_fits() -> None:
    encoded = encode_notification(7, 1, b"x" * 60000)
    assert len(encoded) == MAX_OCTETS == int.from_bytes(encoded[16:18], "big")


def test_the_prefix_limit_data_is_family_and_bound() -> None:
    assert prefix_limit_data(b"\0\1\1", 1000).hex() == "000101000003e8"
    assert prefix_limit_data(b"\0\2\1", 1 << 40).hex() == "000201ffffffff"


@pytest.mark.parametrize(
    ("text", "octets", "why"),
    [
        ("", b"", "nothing to say, no length octet either"),
        ("by", b"\x02by", "plain"),
        ("é" * 127 + "x", b"\xff" + "é".encode() * 127 + b"x", "255 octets fit"),
        ("é" * 128, b"\xfe" + "é".encode() * 127, "cut in front of the character that does not fit"),
        ("x" + "€" * 85, b"\xfd" + b"x" + "€".encode() * 84, "the same with three octets"),
        ("\ud800", b"\x01?", "a lone surrogate has no encoding"),
    ],
)
def test_a_shutdown_communication_is_cut_between_characters(text: str, octets: bytes, why: str) -> None:
    assert shutdown_communication(text) == octets, why


@given(st.text(max_size=300))
def test_a_communication_fits_and_is_utf8(text: str) -> None:
    data = shutdown_communication(text)
    assert len(data) <= 256
    if data:
        assert data[0] == len(data) - 1
        sent = data[1:].decode()
        assert text.encode("utf-8", "replace").decode().startswith(sent)


@given(st.binary(max_size=300))
def test_any_communication_reads_as_printable_text(data: bytes) -> None:
    assert read_communication(data).isprintable()


@given(st.binary(max_size=100))
def test_any_octets_give_a_notification_or_an_error(body: bytes) -> None:
    try:
        notification = parse_notification(body)
    except NotificationError:
        assert len(body) < 2
        return
    assert str(notification).isprintable()
    assert encode_notification(notification.code, notification.subcode, notification.data)[HEADER_OCTETS:] == body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 字", "plain é 字"),
        ("a\nb\r\t\x00", r"a\x0ab\x0d\x09\x00"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202eevil", r"\u202eevil"),  # would turn the line round
        ("\x9b1m", r"\x9b1m"),  # the one-octet form of ESC [
        ("back\\slash", r"back\\slash"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_could_disturb_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
