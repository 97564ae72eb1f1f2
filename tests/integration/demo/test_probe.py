"""The echo packets, byte by byte; scapy is the second opinion."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP

from integration.demo import probe


def test_an_icmp_request_has_a_right_checksum() -> None:
    packet = ICMP(probe._echo_request(4, 0x1234))
    sent, packet.chksum = packet.chksum, None
    assert ICMP(bytes(packet)).chksum == sent
    assert (packet.type, packet.seq) == (8, 0x1234)


def test_a_reply_is_taken_with_the_routers_it_passed() -> None:
    reply = struct.pack("!BBHHH", 0, 0, 0, probe.IDENTIFIER, 7) + probe.PAYLOAD
    assert probe._echo_reply(4, bytes(IP(ttl=62) / reply), []) == (7, 2)


@pytest.mark.parametrize(
    ("kind", "off_by", "payload", "why"),
    [
        (8, 0, probe.PAYLOAD, "a request, not a reply"),
        (0, 1, b"somebody else's ping", "not what we sent"),
        (0, 0, b"", "not what we sent"),
    ],
)
def test_other_packets_are_ignored(kind: int, off_by: int, payload: bytes, why: str) -> None:
    packet = IP(ttl=64) / (struct.pack("!BBHHH", kind, 0, 0, probe.IDENTIFIER ^ off_by, 1) + payload)
    assert probe._echo_reply(4, bytes(packet), []) is None, why


@given(st.binary(min_size=20, max_size=90), st.sampled_from([4, 6]))
def test_no_packet_breaks_the_prober(data: bytes, version: int) -> None:
    probe._echo_reply(version, data, [])
