"""Cutting messages out of the stream, and the answers to a bad header (RFC 4271 §6.1, RFC 8654)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.wire import exabgp_codec
from bgp.wire.framing import (
    EXTENDED_MAX_OCTETS,
    HEADER_OCTETS,
    KEEPALIVE,
    KEEPALIVE_MESSAGE,
    MARKER,
    MAX_OCTETS,
    NOTIFICATION,
    OPEN,
    ROUTE_REFRESH,
    UPDATE,
    cut,
    message,
)


def header(length: int, kind: int) -> bytes:
    return MARKER + length.to_bytes(2, "big") + bytes([kind])


def test_whole_messages_are_bounded_and_the_rest_is_left() -> None:
    update = message(UPDATE, b"\0\0\0\0")
    stream = KEEPALIVE_MESSAGE + update + update + KEEPALIVE_MESSAGE[:-1]
    assert cut(stream, 0, MAX_OCTETS) == ([0, 19, 42, 65], None)


def test_cutting_starts_where_it_is_told_and_stops_after_the_limit() -> None:
    stream = KEEPALIVE_MESSAGE * 4
    assert cut(stream, 19, MAX_OCTETS, 2) == ([19, 38, 57], None)


def test_half_a_header_is_not_judged_yet() -> None:
    assert cut(b"\0" * 18, 0, MAX_OCTETS) == ([0], None)


def test_messages_before_a_bad_header_are_still_found() -> None:
    bounds, error = cut(KEEPALIVE_MESSAGE + b"\0" * 19 + KEEPALIVE_MESSAGE, 0, MAX_OCTETS)
    assert bounds == [0, 19]
    assert error is not None
    assert (error.code, error.subcode) == (1, 1)


@pytest.mark.parametrize(
    ("octets", "code", "data", "why"),
    [
        (b"\xff" * 15 + b"\xfe" + b"\x00\x13\x04", (1, 1), b"", "one bit of the marker"),
        (b"\x7f" + b"\xff" * 15 + b"\x00\x13\x04", (1, 1), b"", "the first bit of the marker"),
        (header(18, KEEPALIVE), (1, 2), b"\x00\x12", "shorter than a header"),
        (header(0, UPDATE), (1, 2), b"\x00\x00", "length 0"),
        (header(4097, UPDATE), (1, 2), b"\x10\x01", "too long without RFC 8654"),
        (header(65535, 0), (1, 2), b"\xff\xff", "the length is judged before the type"),
        (header(28, OPEN), (1, 2), b"\x00\x1c", "OPEN has at least 29"),
        (header(22, UPDATE), (1, 2), b"\x00\x16", "UPDATE has at least 23"),
        (header(20, NOTIFICATION), (1, 2), b"\x00\x14", "NOTIFICATION has at least 21"),
        (header(20, KEEPALIVE), (1, 2), b"\x00\x14", "KEEPALIVE has 19"),
        (header(19, 0), (1, 3), b"\x00", "type 0"),
        (header(19, 6), (1, 3), b"\x06", "ExaBGP's private type"),
        (header(19, 255), (1, 3), b"\xff", "type 255"),
    ],
)
def test_a_bad_header_is_answered_as_the_rfc_says(octets: bytes, code: tuple[int, int], data: bytes, why: str) -> None:
    bounds, error = cut(octets, 0, MAX_OCTETS)
    assert bounds == [0], why
    assert error is not None, why
    assert ((error.code, error.subcode), error.data) == (code, data), why


@pytest.mark.parametrize("kind", [UPDATE, NOTIFICATION, ROUTE_REFRESH])
def test_long_messages_pass_once_offered(kind: int) -> None:
    long = message(kind, b"\0" * (EXTENDED_MAX_OCTETS - HEADER_OCTETS))
    assert cut(long, 0, EXTENDED_MAX_OCTETS) == ([0, EXTENDED_MAX_OCTETS], None)
    assert cut(long, 0, MAX_OCTETS)[1] is not None


@pytest.mark.parametrize("kind", [OPEN, KEEPALIVE])
def test_open_and_keepalive_are_never_long(kind: int) -> None:
    _, error = cut(header(4097, kind), 0, EXTENDED_MAX_OCTETS)
    assert error is not None
    assert (error.code, error.subcode, error.data) == (1, 2, b"\x10\x01")


def test_a_short_route_refresh_is_left_to_its_own_error() -> None:
    assert cut(header(19, ROUTE_REFRESH), 0, MAX_OCTETS) == ([0, 19], None)


def test_our_keepalive_is_the_librarys() -> None:
    assert exabgp_codec.encode_keepalive() == KEEPALIVE_MESSAGE


messages = st.builds(
    message, st.sampled_from([UPDATE, NOTIFICATION, ROUTE_REFRESH]), st.binary(min_size=10, max_size=60)
) | st.just(KEEPALIVE_MESSAGE)


@given(st.lists(messages, max_size=8), st.data())
def test_a_stream_is_cut_the_same_however_it_arrives(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    at = data.draw(st.integers(0, len(stream)))
    first, error = cut(stream[:at], 0, MAX_OCTETS)
    assert error is None
    rest, error = cut(stream, first[-1], MAX_OCTETS)
    assert error is None
    bounds = first + rest[1:]
    assert [stream[a:b] for a, b in pairwise(bounds)] == parts


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_give_bounds_or_an_error_of_the_header(octets: bytes, is_marked: bool) -> None:
    stream = MARKER + octets if is_marked else octets
    bounds, error = cut(stream, 0, MAX_OCTETS)
    assert bounds == sorted(set(bounds))
    assert bounds[-1] <= len(stream)
    assert error is None or (error.code == 1 and error.subcode in (1, 2, 3))
