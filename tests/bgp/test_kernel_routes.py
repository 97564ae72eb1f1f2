"""What the kernel's own routes are to the table, and which best routes go into the kernel with which metric."""

from __future__ import annotations

import pytest

from bgp.families import IPV4, Address, Nlri, parse_prefix
from bgp.ports import LearnedRoute, NextHop, Resolution, split_through, through
from tests.bgp.test_speaker import Kernel
from tests.bgp.world import Node, World, config_of, originate, peer

BASE = 2**31 - 1
PRIORITIES = f"[kernel]\npriority_base = {BASE}\nmetric = 1024\n"


def prefix(text: str) -> Nlri:
    return parse_prefix(text)[1]


BLOCK = prefix("10.1.0.0/26")


@pytest.fixture
def world() -> World:
    return World()


def internal_pair(world: World, kernel: Kernel, text: str = PRIORITIES, left: str = "") -> tuple[Node, Node]:
    a = world.node("10.0.0.1", PRIORITIES + left + peer(2), fib=Kernel(), next_hops=Kernel())
    b = world.node("10.0.0.2", text + peer(1), fib=kernel, next_hops=kernel)
    return a, b


@pytest.mark.parametrize(
    ("learned", "metric"),
    [
        (LearnedRoute(interface="cali1", protocol=3, metric=512), 512),
        (LearnedRoute(interface="cali1", protocol=3, metric=0), 1024),
        (LearnedRoute(interface="eth0", protocol=2, metric=256), 1024),  # connected: its metric is the kernel's own
    ],
)
def test_a_kernel_route_keeps_its_metric_across_an_internal_session(
    world: World, learned: LearnedRoute, metric: int
) -> None:
    kernel = Kernel()
    a, b = internal_pair(world, kernel)
    world.start()
    a.speaker.fib_changed(IPV4, [(BLOCK, learned)], [])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["local_pref"] == BASE - metric
    assert kernel.routes[IPV4, BLOCK].metric == metric


def test_a_route_without_local_pref_of_that_kind_gets_the_worst_metric(world: World) -> None:
    """BIRD does the same with what comes from outside: LOCAL_PREF 100 is metric 2147483547."""
    kernel = Kernel()
    internal_pair(world, kernel, left=originate("10.1.0.0/26", local_pref=100))
    world.start()
    assert kernel.routes[IPV4, BLOCK].metric == BASE - 100


def test_another_normal_metric_is_told_at_once(world: World) -> None:
    kernel = Kernel()
    a, b = internal_pair(world, kernel)
    world.start()
    a.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="cali1"))], [])
    world.settle()
    a.speaker.reconfigure(config_of("10.0.0.1", PRIORITIES.replace("1024", "2000") + peer(2)), world.now)
    world.settle()
    assert b.routes()["10.1.0.0/26"]["local_pref"] == BASE - 2000
    assert b.state("p1") == "Established"


def test_a_peers_route_wins_over_one_that_is_learned_behind_peers_and_is_written(world: World) -> None:
    kernel = Kernel()
    a, b = internal_pair(world, kernel)
    world.start()
    felix = LearnedRoute(interface="vxlan.calico", protocol=80, metric=1, behind_peers=True)
    a.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="cali1"))], [])
    world.settle()
    b.speaker.fib_changed(IPV4, [(BLOCK, felix)], [])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["peer"] == "p1"
    assert (IPV4, BLOCK) in kernel.routes
    a.speaker.fib_changed(IPV4, [], [BLOCK])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["source"] == "kernel"
    assert kernel.routes == {}


def test_a_workload_that_migrates_is_followed_before_its_old_route_is_gone(world: World) -> None:
    kernel = Kernel()
    a, b = internal_pair(world, kernel)
    world.start()
    b.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="cali2", metric=1024))], [])
    world.settle()
    a.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="cali1", metric=512))], [])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["peer"] == "p1"
    assert kernel.routes[IPV4, BLOCK].metric == 512


def test_of_two_that_have_the_same_route_each_keeps_its_own(world: World) -> None:
    a, b = internal_pair(world, Kernel())
    world.start()
    for node in (a, b):
        node.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="eth1", protocol=4))], [])
    world.settle()
    assert [node.routes()["10.1.0.0/26"]["source"] for node in (a, b)] == ["kernel", "kernel"]


def test_a_connected_subnet_wins_whatever_a_peer_says(world: World) -> None:
    a, b = internal_pair(world, Kernel())
    world.start()
    a.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="cali1", metric=1))], [])
    b.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="eth1", protocol=2))], [])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["source"] == "kernel"
    # The interface goes, and somebody writes the route himself: now it is one like others.
    b.speaker.fib_changed(IPV4, [(BLOCK, LearnedRoute(interface="eth1", protocol=4))], [])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["peer"] == "p1"


def test_only_what_the_kernels_policy_accepts_is_written(world: World) -> None:
    kernel = Kernel()
    rules = '{ prefix = { prefix = "10.2.0.0/16", ge = 16 }, action = "reject" }'
    text = f'[kernel]\npolicy = {{ default = "accept", rules = [{rules}] }}\n'
    _, b = internal_pair(world, kernel, text, originate("10.1.0.0/26", "10.2.0.0/26"))
    world.start()
    assert set(b.routes()) == {"10.1.0.0/26", "10.2.0.0/26"}
    assert set(kernel.routes) == {(IPV4, BLOCK)}
    b.speaker.reconfigure(config_of("10.0.0.2", "[kernel]\n" + peer(1)), world.now)
    world.settle()
    assert set(kernel.routes) == {(IPV4, BLOCK), (IPV4, prefix("10.2.0.0/26"))}
    b.speaker.reconfigure(config_of("10.0.0.2", text + peer(1)), world.now)
    world.settle()
    assert set(kernel.routes) == {(IPV4, BLOCK)}


class Tunnelled(Kernel):
    """tunl0 is interface 9, and may be down."""

    is_up = True

    def track(self, address: Address) -> Resolution:
        if (found := split_through(address)) is None:
            return super().track(address)
        assert found[1] == "tunl0"
        return Resolution(self.is_up, 0, (NextHop(found[0], 9, on_link=True),) if self.is_up else (), "tunl0")


def test_routes_of_a_tunnels_network_go_to_their_next_hop_through_it(world: World) -> None:
    kernel = Tunnelled()
    rule = '[[kernel.tunnels]]\nprefix = "10.1.0.0/16"\ninterface = "tunl0"\n'
    _, b = internal_pair(world, kernel, "[kernel]\n" + rule, originate("10.1.0.0/26", "10.2.0.0/26"))
    world.start()
    first, other = bytes([10, 0, 0, 1]), (IPV4, prefix("10.2.0.0/26"))
    assert kernel.routes[IPV4, BLOCK].next_hops == (NextHop(first, 9, on_link=True),)
    assert kernel.routes[other].next_hops == (NextHop(first, 2),)
    kernel.is_up = False
    b.speaker.next_hops_changed({through(first, "tunl0"): kernel.track(through(first, "tunl0"))})
    world.settle()
    assert set(kernel.routes) == {other}
    direct = rule + 'direct = "10.0.0.0/24"\n'
    b.speaker.reconfigure(config_of("10.0.0.2", "[kernel]\n" + direct + peer(1)), world.now)
    world.settle()
    assert kernel.routes[IPV4, BLOCK].next_hops == (NextHop(first, 2),)
