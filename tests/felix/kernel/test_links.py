from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.kernel import netlink
from felix.kernel.links import InterfaceAddress, Link, decode_address, decode_link
from felix.kernel.netlink import NetlinkFormatError

LINK = struct.Struct("=BBHiII")
ADDRESS = struct.Struct("=BBBBI")
UP, RUNNING = 0x1, 0x40


def _link(flags: int, family: int = 0) -> bytes:
    return LINK.pack(family, 0, 1, 7, flags, 0) + netlink.attribute(3, b"eth0\0")


@pytest.mark.parametrize(
    ("flags", "is_up", "is_running"),
    [(0, False, False), (UP, True, False), (UP | RUNNING, True, True), (RUNNING, False, False)],
)
def test_a_link_runs_only_if_it_is_up_and_has_a_carrier(flags: int, is_up: bool, is_running: bool) -> None:
    body = _link(flags)
    assert decode_link(body, 0, len(body)) == Link(7, "eth0", is_up, is_running)


def test_a_bridge_port_leaving_its_bridge_is_not_a_link_that_goes() -> None:
    body = _link(UP, family=7)
    assert decode_link(body, 0, len(body)) is None


def test_on_a_point_to_point_link_the_address_is_our_end() -> None:
    body = ADDRESS.pack(2, 32, 0, 0, 7) + netlink.attribute(1, b"\x0a\0\0\2") + netlink.attribute(2, b"\x0a\0\0\1")
    assert decode_address(body, 0, len(body)) == (InterfaceAddress(7, b"\x0a\0\0\1", 32), True)


@pytest.mark.parametrize(("flags", "is_usable"), [(0x80, True), (0x40, False), (0x48, False), (0x44, True)])
def test_an_address_counts_once_duplicate_detection_has_passed(flags: int, is_usable: bool) -> None:
    body = ADDRESS.pack(10, 64, flags & 0xFF, 0, 7) + netlink.attribute(1, bytes(16))
    body += netlink.attribute(8, struct.pack("=I", flags))
    found = decode_address(body, 0, len(body))
    assert found is not None
    assert found[1] is is_usable


@given(st.binary(max_size=96))
def test_any_bytes_are_a_link_an_address_or_refused(body: bytes) -> None:
    for decode in (decode_link, decode_address):
        try:
            decode(body, 0, len(body))
        except NetlinkFormatError:
            pass
