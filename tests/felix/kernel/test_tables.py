from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from felix.kernel.netlink import NLM_F_REPLACE
from felix.kernel.rtnetlink import AF_INET, AF_INET6, Hop, Via
from felix.kernel.tables import RouteTable


def prefix(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    return bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def via(ifindex: int, metric: int = 0, family: int = AF_INET) -> Via:
    return Via(family, metric=metric, hops=(Hop(b"", ifindex),))


NET = prefix("10.1.0.0/24")


def test_the_lowest_metric_comes_first() -> None:
    table = RouteTable(AF_INET)
    table.put(NET, via(1, metric=20), 0)
    table.put(NET, via(2, metric=10), 0)
    assert [route.metric for route in table.get(NET)] == [10, 20]
    assert table.at_metric(NET, 20) == via(1, metric=20)
    assert table.at_metric(NET, 30) is None


def test_a_replacement_takes_the_place_of_its_metric_only() -> None:
    table = RouteTable(AF_INET)
    table.put(NET, via(1, metric=20), 0)
    table.put(NET, via(2, metric=10), 0)
    assert table.put(NET, via(3, metric=20), NLM_F_REPLACE)
    assert table.get(NET) == (via(2, metric=10), via(3, metric=20))


def test_a_replacement_of_one_of_several_alike_is_not_clear() -> None:
    table = RouteTable(AF_INET)
    table.put(NET, via(1), 0)
    table.put(NET, via(2), 0)
    assert not table.put(NET, via(3), NLM_F_REPLACE)


def test_ipv6_tells_the_whole_set_of_next_hops() -> None:
    table = RouteTable(AF_INET6)
    net = prefix("fd00::/64")
    table.put(net, via(1, family=AF_INET6), 0)
    both = Via(AF_INET6, hops=(Hop(b"", 1), Hop(b"", 2)))
    assert table.put(net, both, 0)
    assert table.get(net) == (both,)
    assert table.take(net, via(1, family=AF_INET6))
    assert table.get(net) == (via(2, family=AF_INET6),)


def test_taking_what_is_not_there_is_said() -> None:
    table = RouteTable(AF_INET)
    assert not table.take(NET, via(1))
    table.put(NET, via(1), 0)
    assert not table.take(NET, via(2))
    assert table.take(NET, via(1))
    assert table.get(NET) == ()
    assert len(table) == 0


def test_prefixes_are_found_by_any_of_their_routes() -> None:
    table = RouteTable(AF_INET)
    table.put(NET, via(1), 0)
    table.put(prefix("10.2.0.0/24"), via(2), 0)
    table.put(prefix("10.2.0.0/24"), via(1, metric=5), 0)
    table.put(prefix("10.3.0.0/24"), via(3), 0)
    assert table.prefixes_where(lambda route: route.hops[0].ifindex == 1) == [NET, prefix("10.2.0.0/24")]


@given(
    st.lists(st.tuples(st.integers(0, 0xFF), st.integers(0, 32)), max_size=12),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 2),
)
def test_the_longest_match_is_what_a_search_of_all_finds(
    networks: list[tuple[int, int]], number: int, at_least_bits: int
) -> None:
    table = RouteTable(AF_INET)
    known = {ipaddress.IPv4Network((first << 24, bits), strict=False) for first, bits in networks}
    for index, network in enumerate(sorted(known)):
        table.load(prefix(str(network)), via(index + 1))
    address = ipaddress.IPv4Address(number)
    holding = [n for n in known if address in n and n.prefixlen >= at_least_bits]
    expected = table.get(prefix(str(max(holding, key=lambda n: n.prefixlen)))) if holding else ()
    assert table.longest_match(address.packed, at_least_bits) == expected
