"""Runs of NLRI: canonical prefixes or an error that names the field."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.families import FAMILIES, IPV4, IPV6, Family, network_of, nlri_of, parse_prefix
from bgp.wire.errors import NotificationError
from bgp.wire.nlri import pack_runs, split_nlri

networks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda x: ipaddress.IPv4Network(x, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda x: ipaddress.IPv6Network(x, strict=False)),
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("21 0a00000000", "length 33 does not exist in IPv4"),
        ("1a 0a0001", "ends inside the prefix"),
        ("18 0a0001 ff", "a length without its address"),
    ],
)
def test_bad_nlri_is_an_invalid_network_field(data: str, why: str) -> None:
    with pytest.raises(NotificationError) as caught:
        split_nlri(bytes.fromhex(data), IPV4)
    assert (caught.value.code, caught.value.subcode) == (3, 10), why


def test_trailing_bits_that_a_peer_left_set_are_cleared() -> None:
    assert split_nlri(bytes.fromhex("11 0102ff"), IPV4) == [bytes.fromhex("11 010280")]


@given(st.lists(networks, max_size=40))
def test_what_is_packed_is_what_is_split(some: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
    for family in FAMILIES:
        mine = [nlri_of(network) for network in some if network.max_prefixlen == family.max_bits]
        assert split_nlri(b"".join(mine), family) == mine
        assert [network_of(family, nlri) for nlri in mine] == [n for n in some if n.max_prefixlen == family.max_bits]


@given(st.binary(max_size=64), st.sampled_from(FAMILIES))
def test_split_nlri_gives_canonical_prefixes_or_the_one_error(data: bytes, family: Family) -> None:
    try:
        found = split_nlri(data, family)
    except NotificationError:
        return
    assert sum(map(len, found)) == len(data)
    for nlri in found:
        assert parse_prefix(str(network_of(family, nlri))) == (family, nlri)


@given(st.lists(networks.filter(lambda n: n.version == 6), max_size=60), st.integers(17, 100))
def test_runs_hold_every_prefix_once_and_never_more_octets_than_there_is_room(
    some: list[ipaddress.IPv6Network], room: int
) -> None:
    nlris = [nlri_of(network) for network in some]
    runs = list(pack_runs(nlris, room))
    assert all(0 < len(run) <= room for run in runs)
    assert split_nlri(b"".join(runs), IPV6) == nlris
