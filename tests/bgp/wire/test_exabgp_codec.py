"""The guards around ExaBGP: nothing escapes, nothing grows, nothing takes long, nothing is asked of the machine."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.wire import exabgp_codec
from bgp.wire.exabgp_codec import describe_attributes
from bgp.wire.open import Capabilities, OpenMessage, encode_open, parse_open


def attribute(flags: int, code: int, value: bytes) -> bytes:
    if len(value) > 255:
        return bytes([flags | 0x10, code]) + len(value).to_bytes(2, "big") + value
    return bytes([flags, code, len(value)]) + value


@pytest.mark.parametrize(
    ("flags", "code", "value", "expected"),
    [
        (0x40, 1, "00", ("origin", "igp")),
        (0x40, 2, "0202 0000fde8 0000fde9", ("as-path", "( 65000 65001 )")),
        (0x40, 3, "0a000001", ("next-hop", "10.0.0.1")),
        (0x80, 4, "00000064", ("med", "100")),
        (0x40, 5, "000000c8", ("local-preference", "200")),
        (0xC0, 8, "fde80001 ffffff01", ("community", "[ 65000:1 no-export ]")),
        (0x80, 9, "0a000009", ("originator-id", "10.0.0.9")),
        (0xC0, 32, "0000fde8 00000001 00000002", ("large-community", "65000:1:2")),
        (0xC0, 99, "abcd", ("attribute 99", "abcd")),
        (0xC0, 40, "deadbeef", ("bgp-prefix-sid", "deadbeef")),
        (0x80, 14, "000201", ("mp-reach-nlri", "000201")),
        (0x40, 1, "0000", ("origin", None)),
        (0xC0, 8, "ffff", ("community", "ffff")),
    ],
)
def test_an_attribute_reads_as_a_person_would_write_it(
    flags: int, code: int, value: str, expected: tuple[str, str | None]
) -> None:
    [(name, text)] = describe_attributes(attribute(flags, code, bytes.fromhex(value)))
    assert name == expected[0]
    assert expected[1] is None or text == expected[1]


def test_as_numbers_of_an_old_peer_have_two_octets() -> None:
    block = attribute(0x40, 2, bytes.fromhex("0201fde8"))
    assert describe_attributes(block, four_octet_asn=False) == [("as-path", "( 65000 )")]


def test_as4_path_does_not_replace_the_path() -> None:
    block = attribute(0x40, 2, bytes.fromhex("02010000fde9")) + attribute(0xC0, 17, bytes.fromhex("02010000fdf1"))
    assert describe_attributes(block) == [("as-path", "( 65001 )"), ("as4-path", "( 65009 )")]


def test_what_is_not_a_whole_attribute_is_shown_too() -> None:
    assert describe_attributes(attribute(0x40, 1, b"\0") + b"\x40\x02") == [("origin", "igp"), ("malformed", "4002")]
    assert describe_attributes(b"\x40\x01\x05\x00") == [("malformed", "40010500")]


def test_sixteen_thousand_communities_do_not_stop_the_speaker() -> None:
    for code, size in ((8, 4), (16, 8), (32, 12)):
        value = bytes(range(240)) * 267
        value = value[: len(value) // size * size]
        began = perf_counter()
        [(_, text)] = describe_attributes(attribute(0xC0, code, value))
        assert perf_counter() - began < 5, "quadratic: half a minute unguarded"
        assert len(text) > 1000


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40)), max_size=6), st.booleans())
def test_any_attributes_can_be_described(items: list[tuple[int, int, bytes]], four_octet_asn: bool) -> None:
    block = b"".join(attribute(flags & ~0x10, code, value) for flags, code, value in items)
    described = describe_attributes(block, four_octet_asn=four_octet_asn)
    assert len(described) == len(items)
    assert all(name.isprintable() and text.isprintable() for name, text in described)


@given(st.binary(max_size=120))
def test_any_octets_can_be_described(block: bytes) -> None:
    assert all(text.isprintable() for _, text in describe_attributes(block))


def test_as_numbers_do_not_pile_up() -> None:
    from exabgp.bgp.message.open.asn import ASN
    from exabgp.bgp.message.open.capability import ASN4
    from exabgp.protocol.resource import Resource

    for asn in range(1000, 1100):
        describe_attributes(attribute(0x40, 2, b"\x02\x01" + asn.to_bytes(4, "big")))
        capabilities = Capabilities(four_octet_asn=asn)
        message = OpenMessage(my_as=asn, hold_time_s=0, router_id=b"\1\1\1\1", capabilities=capabilities)
        parse_open(encode_open(message)[19:])
    assert not Resource.cache.get(ASN)
    assert not Resource.cache.get(ASN4)


def run(script: str) -> str:
    """In a process of its own, where ExaBGP has not been imported yet."""
    return subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_exabgp_is_imported_when_first_needed_and_not_before() -> None:
    assert (
        run(
            "import sys, bgp.session.peer, bgp.wire.open\n"
            "before = any(name.startswith('exabgp') for name in sys.modules)\n"
            "from bgp.wire.notification import encode_notification as encode\n"
            "encode(6, 2)\n"
            "print(before, any(name.startswith('exabgp') for name in sys.modules))"
        )
        == "False True"
    )


def test_the_import_asks_no_resolver_and_reads_no_settings() -> None:
    assert (
        run(
            "import os, socket\n"
            "os.environ['EXABGP_ENVFILE'] = '/nonexistent/settings'\n"
            "def fail(*_): raise AssertionError('asked')\n"
            "socket.getfqdn = socket.gethostname = socket.getaddrinfo = fail\n"
            "from bgp.wire.notification import encode_notification as encode\n"
            "print(encode(6, 2).hex()[-4:], os.environ['EXABGP_ENVFILE'])"
        )
        == "0602 /dev/null"
    )


def test_a_decoder_that_fails_is_a_notification_error_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    library = exabgp_codec._library()

    def fail(*_: object) -> None:
        raise RecursionError("deep inside")

    monkeypatch.setattr(library.capability, "unpack", fail)
    said = exabgp_codec.decode_capabilities.__wrapped__(((2, b""), (6, b"")))  # what fails must not be kept
    assert said.problems == ("capability 2 is malformed: deep inside", "capability 6 is malformed: deep inside")
