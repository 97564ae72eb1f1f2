from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.kernel import netlink
from felix.kernel.netlink import NetlinkFormatError
from felix.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_LINK,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_BLACKHOLE,
    RTN_UNICAST,
    Hop,
    RouteDecoder,
    RouteEncoder,
    Via,
)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def prefix(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    return bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def read_back(message: bytes) -> tuple[int, bytes, Via]:
    ((kind, _, _, _, start, end),) = netlink.frames(message)
    return kind, *RouteDecoder().decode(message, start, end)


def test_a_route_is_written_as_the_kernel_documents_it() -> None:
    via = Via(AF_INET, protocol=12, metric=32, hops=(Hop(packed("10.9.0.2"), 3),))
    expected = bytes.fromhex(
        "3c000000 1800 0105 07000000 00000000"  # 60 octets, RTM_NEWROUTE, REQUEST|CREATE|REPLACE, number 7
        "02 1a 00 00 fe 0c 00 01 00000000"  # IPv4, /26, main table, protocol 12, universe, unicast
        "0800 0100 14000100"  # RTA_DST 20.0.1.0
        "0800 0600 20000000"  # RTA_PRIORITY 32
        "0800 0500 0a090002"  # RTA_GATEWAY 10.9.0.2
        "0800 0400 03000000"  # RTA_OIF 3
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    assert RouteEncoder(via).put(prefix("20.0.1.0/26"), flags, 7) == expected


def test_a_deletion_names_protocol_metric_and_table_so_that_it_only_takes_ours() -> None:
    via = Via(AF_INET6, table=1000, protocol=12, metric=32, hops=(Hop(packed("fe80::1"), 3),))
    kind, what, told = read_back(RouteEncoder(via).delete(prefix("fd00:5::/64"), 9))
    assert (kind, what) == (RTM_DELROUTE, prefix("fd00:5::/64"))
    assert (told.protocol, told.metric, told.table) == (12, 32, 1000)


def test_an_ipv4_route_over_an_ipv6_router_names_the_routers_family() -> None:
    via = Via(AF_INET, hops=(Hop(packed("fe80::1"), 3),))
    message = RouteEncoder(via).put(prefix("10.1.0.0/26"), 0, 1)
    assert struct.pack("=HHH", 22, 18, AF_INET6) + packed("fe80::1") in message
    assert read_back(message)[2].hops == via.hops


def test_a_route_without_gateway_has_scope_link() -> None:
    via = Via(AF_INET, hops=(Hop(b"", 3),))
    assert read_back(RouteEncoder(via).put(prefix("10.1.0.1/32"), 0, 1))[2].scope == RT_SCOPE_LINK


addresses = {AF_INET: st.binary(min_size=4, max_size=4), AF_INET6: st.binary(min_size=16, max_size=16)}


@st.composite
def routes(draw: st.DrawFn) -> tuple[bytes, Via]:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    gateways = addresses[AF_INET] | addresses[AF_INET6] if family == AF_INET else addresses[AF_INET6]
    indexes = st.integers(1, 0x7FFFFFFF)
    hops = draw(
        st.just(())
        | st.tuples(st.builds(Hop, st.just(b"") | gateways, indexes, st.just(1), st.booleans()))
        | st.lists(st.builds(Hop, gateways, indexes, st.integers(1, 256), st.booleans()), min_size=2, max_size=8).map(
            tuple
        )
    )
    via = Via(
        family=family,
        table=draw(st.integers(1, 0xFFFFFFFF)),
        protocol=draw(st.integers(0, 255)),
        type=RTN_UNICAST if hops else RTN_BLACKHOLE,
        metric=draw(st.integers(0, 0xFFFFFFFF)),
        prefsrc=draw(st.just(b"") | addresses[family]),
        hops=hops,
    )
    bits = draw(st.integers(0, 32 if family == AF_INET else 128))
    network = ipaddress.ip_network((int.from_bytes(draw(addresses[family]), "big"), bits), strict=False)
    if family == AF_INET6:
        network = ipaddress.IPv6Network((int.from_bytes(draw(addresses[family]), "big"), bits), strict=False)
    return prefix(str(network)), via


@given(routes())
def test_what_is_written_reads_back_the_same(route: tuple[bytes, Via]) -> None:
    what, via = route
    kind, read, told = read_back(RouteEncoder(via).put(what, netlink.NLM_F_CREATE, 1))
    assert (kind, read) == (RTM_NEWROUTE, what)
    scope = RT_SCOPE_LINK if via.family == AF_INET and via.is_connected else 0
    assert (told.scope, told.hops, told.metric, told.prefsrc) == (scope, via.hops, via.metric, via.prefsrc)
    assert (told.family, told.table, told.protocol, told.type) == (via.family, via.table, via.protocol, via.type)


def _as_the_kernel_tells(what: bytes, table: int = 254, metric: int = 0) -> bytes:
    """The order of the kernel's own messages: table and destination before everything else."""
    body = struct.pack("=BBBBBBBBI", AF_INET, what[0], 0, 0, table & 0xFF, 12, 0, 1, 0)
    body += netlink.attribute(15, struct.pack("=I", table))
    body += netlink.attribute(1, what[1:].ljust(4, b"\0"))
    body += netlink.attribute(6, struct.pack("=I", metric)) + netlink.attribute(5, packed("10.9.0.2"))
    return body + netlink.attribute(4, struct.pack("=I", 3))


def test_routes_that_differ_in_their_prefix_only_share_one_via() -> None:
    decoder = RouteDecoder()
    bodies = [_as_the_kernel_tells(prefix(text)) for text in ("10.1.0.0/24", "10.1.0.0/26", "10.2.0.0/24")]
    told = [decoder.decode(body, 0, len(body)) for body in bodies]
    assert [what for what, _ in told] == [prefix("10.1.0.0/24"), prefix("10.1.0.0/26"), prefix("10.2.0.0/24")]
    assert told[0][1] is told[1][1] is told[2][1]
    other = _as_the_kernel_tells(prefix("10.1.0.0/24"), metric=5)
    assert decoder.decode(other, 0, len(other))[1].metric == 5


def test_ipv4_and_ipv6_default_routes_are_not_taken_for_each_other() -> None:
    decoder = RouteDecoder()
    for family in (AF_INET, AF_INET6, AF_INET):
        body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 3, 0, 6, 0)
        assert decoder.decode(body, 0, len(body))[1].family == family


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\2\x18", "shorter than a route's header"),
        (struct.pack("=BBBBBBBBI", 7, 0, 0, 0, 254, 3, 0, 1, 0), "a family that is no IP"),
        (struct.pack("=BBBBBBBBI", 2, 33, 0, 0, 254, 3, 0, 1, 0), "an IPv4 prefix of 33 bits"),
        (struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 0, 1, 0) + netlink.attribute(1, b"\1\2\3"), "half an address"),
        (struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + netlink.attribute(9, b"\1\2\3"), "half a next hop"),
        (struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + netlink.attribute(18, b"\1\2\3"), "half a gateway"),
    ],
)
def test_a_route_that_cannot_be_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(NetlinkFormatError):
        RouteDecoder().decode(body, 0, len(body))


@given(st.binary(max_size=160))
def test_any_bytes_are_a_route_or_refused(body: bytes) -> None:
    try:
        what, via = RouteDecoder().decode(body, 0, len(body))
    except NetlinkFormatError:
        return
    assert len(what) == 1 + (what[0] + 7) // 8
    assert all(len(hop.gateway) in (0, 4, 16) for hop in via.hops)


@given(st.data())
def test_a_mutated_route_is_a_route_or_refused(data: st.DataObject) -> None:
    body = bytearray(_as_the_kernel_tells(prefix("10.1.0.0/24")))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decoder = RouteDecoder()
    for candidate in (bytes(body), bytes(body)):  # the second one from the cache
        try:
            what, _ = decoder.decode(candidate, 0, len(candidate))
        except NetlinkFormatError:
            continue
        assert len(what) == 1 + (what[0] + 7) // 8
