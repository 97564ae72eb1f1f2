from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.policy.communities import WELL_KNOWN, community_text, parse_community


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("65000:1", "fde80001"),
        ("0:0", "00000000"),
        ("65535:65535", "ffffffff"),
        ("no-export", "ffffff01"),
        ("graceful-shutdown", "ffff0000"),
        ("blackhole", "ffff029a"),
        ("64512:1:2", "0000fc000000000100000002"),
        ("4294967295:0:4294967295", "ffffffff00000000ffffffff"),
        ("rt:65000:1", "0002fde800000001"),
        ("soo:65000:4294967295", "0003fde8ffffffff"),
        ("rt:192.0.2.1:7", "0102c00002010007"),
        ("rt:65536:7", "0202000100000007"),
        ("0x030b000000000000", "030b000000000000"),
    ],
)
def test_community_text_and_octets_are_two_spellings(text: str, octets: str) -> None:
    assert parse_community(text) == bytes.fromhex(octets)
    assert community_text(bytes.fromhex(octets)) == text


def test_well_known_names_are_read_in_any_case() -> None:
    assert parse_community("No-Export") == WELL_KNOWN["no-export"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("65000", "one number"),
        ("65536:1", "standard halves are 16 bits"),
        ("1:2:3:4", "four numbers"),
        ("1:2:4294967296", "33 bits"),
        ("-1:2", "negative"),
        ("+1:2", "signed"),
        ("1 :2", "blank"),
        ("1_0:2", "Python's underscore"),
        ("٣:1", "another script's digit"),
        ("9" * 5000 + ":1", "a number int() refuses"),
        ("rt:1", "a route target without a number"),
        ("rt:192.0.2.300:1", "not an address"),
        ("rt:65536:65536", "a four-octet AS leaves 16 bits"),
        ("xx:1:2", "unknown kind"),
        ("0x00", "too short"),
        ("0x" + "g" * 16, "not hexadecimal"),
        ("no-exprot", "unknown name"),
    ],
)
def test_what_is_no_community_is_refused_with_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parse_community(text)


@given(
    st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=8, max_size=8), st.binary(min_size=12, max_size=12))
)
def test_every_community_survives_being_written_and_read(octets: bytes) -> None:
    assert parse_community(community_text(octets)) == octets


@given(st.text(max_size=30))
def test_any_text_is_a_community_or_a_value_error(text: str) -> None:
    try:
        octets = parse_community(text)
    except ValueError:
        return
    assert len(octets) in (4, 8, 12)
