from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.kernel import netlink
from felix.kernel.netlink import KernelError, NetlinkFormatError


def _error(code: int, flags: int = 0, echoed: bytes = bytes(16), attributes: bytes = b"") -> bytes:
    return netlink.message(netlink.NLMSG_ERROR, flags, 7, struct.pack("=i", code) + echoed + attributes)


def _decode(data: bytes) -> KernelError | None:
    ((_, flags, _, _, start, end),) = netlink.frames(data)
    return netlink.decode_error(data, flags, start, end)


def test_an_acknowledgement_is_no_error() -> None:
    assert _decode(_error(0)) is None


def test_an_error_without_text_says_what_its_number_means() -> None:
    error = _decode(_error(-errno.ENETUNREACH))
    assert error == KernelError(errno.ENETUNREACH, "Network is unreachable")
    assert str(error) == "ENETUNREACH: Network is unreachable"


def test_the_kernels_own_words_come_before_the_general_ones() -> None:
    words = netlink.attribute(1, b"Nexthop has invalid gateway\0")
    error = _decode(_error(-errno.ENETUNREACH, netlink.NLM_F_CAPPED | netlink.NLM_F_ACK_TLVS, attributes=words))
    assert str(error) == "ENETUNREACH: Nexthop has invalid gateway"


def test_the_words_are_found_behind_a_request_that_came_back_whole() -> None:
    request = netlink.message(24, 0, 7, b"abcdefgh")
    error = _decode(_error(-22, netlink.NLM_F_ACK_TLVS, request, netlink.attribute(1, b"Bad\0")))
    assert error is not None
    assert error.text == "Bad"


def test_an_acknowledgement_can_be_asked_for_later() -> None:
    request = netlink.message(24, netlink.NLM_F_REQUEST, 7, b"abcd")
    asked = netlink.with_ack(request)
    ((kind, flags, sequence, _, start, end),) = netlink.frames(asked)
    assert (kind, flags, sequence, asked[start:end]) == (24, 5, 7, b"abcd")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (netlink.HEADER.pack(8, 24, 0, 0, 0), "shorter than its own header"),
        (netlink.HEADER.pack(64, 24, 0, 0, 0), "longer than the datagram"),
        (netlink.message(24, 0, 0, b"") + b"\1\2\3", "something after the last message"),
    ],
)
def test_a_message_whose_length_cannot_be_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(NetlinkFormatError):
        list(netlink.frames(data))


@given(st.binary(max_size=128))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    try:
        for _, flags, _, _, start, end in netlink.frames(data):
            assert 16 <= start <= end <= len(data)
            netlink.decode_error(data, flags, start, end)
    except NetlinkFormatError:
        pass


@given(st.binary(max_size=64))
def test_any_bytes_are_attributes_or_refused(data: bytes) -> None:
    try:
        for _, start, end in netlink.attributes(data, 0, len(data)):
            assert 4 <= start <= end <= len(data)
    except NetlinkFormatError:
        pass
