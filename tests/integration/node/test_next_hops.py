from __future__ import annotations

import pytest

from bgp.families import IPV4, parse_address, parse_prefix
from bgp.ports import NextHop, Resolution, through
from felix.kernel.links import InterfaceAddress, Link
from felix.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    Hop,
    Via,
)
from felix.kernel.state import KernelState
from integration.node.next_hops import UNREACHABLE, NextHops

ROUTER = parse_address("10.9.0.2")
FAR = parse_address("192.0.2.1")


class Node:
    """eth0 is 1 with 10.9.0.0/24, eth1 is 2 with 10.8.0.0/24."""

    def __init__(self, *, default_route_resolves: bool = True) -> None:
        self.state = KernelState((254, 100))
        self.state.links = {number: Link(number, f"eth{number - 1}", True, True) for number in (1, 2)}
        self.hops = NextHops(self.state, (100, 254), default_route_resolves)
        self.route("10.9.0.0/24", Hop(b"", 1))
        self.route("10.8.0.0/24", Hop(b"", 2))
        self.route("fd09::/64", Hop(b"", 1))

    def route(self, text: str, *hops: Hop, metric: int = 0, kind: int = 1, table: int = 254) -> None:
        family, prefix = parse_prefix(text)
        number = AF_INET if family is IPV4 else AF_INET6
        self.state.tables[number, table].load(prefix, Via(number, table, type=kind, metric=metric, hops=hops))

    def link(self, number: int, *, running: bool) -> None:
        self.state.links[number] = Link(number, f"eth{number - 1}", True, running)


def test_on_a_connected_subnet_the_next_hop_is_its_own_gateway() -> None:
    assert Node().hops.resolve(ROUTER) == Resolution(True, 0, (NextHop(ROUTER, 1),), "eth0")


def test_through_a_device_that_leads_to_any_the_next_hop_needs_no_subnet() -> None:
    node = Node()
    node.state.links[3] = Link(3, "tunl0", True, True)
    asked = through(FAR, "tunl0")
    assert node.hops.track(asked) == Resolution(True, 0, (NextHop(FAR, 3, on_link=True),), "tunl0")
    node.state.links[3] = Link(3, "tunl0", True, False)
    assert node.hops.take_changes() == {asked: UNREACHABLE}
    assert node.hops.resolve(through(FAR, "a-name-of-15-ch")) == UNREACHABLE


def test_behind_a_router_the_gateway_is_the_router_and_its_metric_the_cost() -> None:
    node = Node()
    node.route("192.0.2.0/24", Hop(ROUTER, 1), metric=20)
    assert node.hops.resolve(FAR) == Resolution(True, 20, (NextHop(ROUTER, 1),), "eth0")


def test_several_gateways_are_all_given() -> None:
    node = Node()
    other = parse_address("10.8.0.2")
    node.route("192.0.2.0/24", Hop(ROUTER, 1), Hop(other, 2))
    assert node.hops.resolve(FAR).hops == (NextHop(ROUTER, 1), NextHop(other, 2))
    node.link(2, running=False)
    assert node.hops.resolve(FAR).hops == (NextHop(ROUTER, 1),)


def test_the_lower_metric_counts_and_the_next_one_if_its_link_is_down() -> None:
    node = Node()
    node.route("192.0.2.0/24", Hop(parse_address("10.8.0.2"), 2), metric=10)
    node.route("192.0.2.0/24", Hop(ROUTER, 1), metric=20)
    assert node.hops.resolve(FAR).interface == "eth1"
    node.link(2, running=False)
    assert node.hops.resolve(FAR).interface == "eth0"


@pytest.mark.parametrize("kind", [RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW])
def test_a_route_that_leads_nowhere_resolves_nothing(kind: int) -> None:
    node = Node()
    node.route("0.0.0.0/0", Hop(ROUTER, 1))
    node.route("192.0.2.0/24", kind=kind)
    assert node.hops.resolve(FAR) == UNREACHABLE


def test_the_default_route_counts_unless_told_otherwise() -> None:
    for resolves in (True, False):
        node = Node(default_route_resolves=resolves)
        node.route("0.0.0.0/0", Hop(ROUTER, 1))
        assert node.hops.resolve(FAR).reachable is resolves


def test_the_table_that_is_written_is_asked_before_main() -> None:
    node = Node()
    node.route("10.9.0.0/24", Hop(b"", 2), table=100)
    assert node.hops.resolve(ROUTER).interface == "eth1"


def test_without_a_route_or_a_running_link_nothing_is_reachable() -> None:
    node = Node()
    assert node.hops.resolve(FAR) == UNREACHABLE
    node.link(1, running=False)
    assert node.hops.resolve(ROUTER) == UNREACHABLE


def test_our_own_address_is_no_way_out() -> None:
    node = Node()
    node.state.set_address(InterfaceAddress(1, ROUTER, 24), True)
    assert node.hops.resolve(ROUTER) == UNREACHABLE


def test_of_a_pair_the_link_local_address_is_used_where_the_global_one_is_connected() -> None:
    node = Node()
    pair = parse_address("fd09::2") + parse_address("fe80::2")
    assert node.hops.resolve(pair) == Resolution(True, 0, (NextHop(parse_address("fe80::2"), 1),), "eth0")


def test_of_a_pair_behind_a_router_the_link_local_address_means_nothing() -> None:
    node = Node()
    node.route("fd50::/64", Hop(parse_address("fd09::9"), 1))
    pair = parse_address("fd50::2") + parse_address("fe80::2")
    assert node.hops.resolve(pair).hops == (NextHop(parse_address("fd09::9"), 1),)


def test_a_link_local_address_needs_to_be_told_its_link() -> None:
    node = Node()
    neighbour = parse_address("fe80::2")
    assert node.hops.resolve(neighbour) == UNREACHABLE
    there = neighbour + b"eth1"
    assert node.hops.resolve(there) == Resolution(True, 0, (NextHop(neighbour, 2),), "eth1")
    assert node.hops.resolve(neighbour + b"eth0").interface == "eth0"
    assert node.hops.resolve(neighbour + b"gone") == UNREACHABLE
    node.link(2, running=False)
    assert node.hops.resolve(there) == UNREACHABLE


@pytest.mark.parametrize("address", [b"", b"\1\2\3", bytes(24)])
def test_what_is_no_address_is_unreachable(address: bytes) -> None:
    assert Node().hops.resolve(address) == UNREACHABLE


def test_only_changed_answers_are_told_and_only_while_tracked() -> None:
    node = Node()
    assert node.hops.track(ROUTER).reachable
    assert not node.hops.track(FAR).reachable
    assert node.hops.take_changes() == {}
    node.route("192.0.2.0/24", Hop(ROUTER, 1))
    assert list(node.hops.take_changes()) == [FAR]
    assert node.hops.take_changes() == {}
    node.hops.forget(FAR)
    node.link(1, running=False)
    assert list(node.hops.take_changes()) == [ROUTER]
