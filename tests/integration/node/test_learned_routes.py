from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

from bgp.config import KernelConfig, LearnRule
from bgp.families import IPV4, Family, Nlri, parse_address, parse_prefix
from bgp.ports import LearnedRoute
from felix.kernel.links import Link
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RTN_BLACKHOLE, RTN_UNREACHABLE, Hop, Via
from felix.kernel.state import KernelState
from integration.node.learned_routes import LearnedRoutes

NET = parse_prefix("10.1.0.1/32")[1]
WORKLOAD = Via(AF_INET, protocol=3, hops=(Hop(b"", 2),))
BLOCK = Via(AF_INET, protocol=80, type=RTN_BLACKHOLE)


def node(*rules: LearnRule, **config: Any) -> tuple[KernelState, LearnedRoutes]:
    """eth0 is 1, cali1 is 2."""
    config |= {"learn": rules} if rules else {}
    settings = KernelConfig(**config)
    state = KernelState((254, *(rule.table for rule in settings.learn)))
    state.links = {1: Link(1, "eth0", True, True), 2: Link(2, "cali1", True, True)}
    return state, LearnedRoutes(settings, state)


def announced(learned: LearnedRoutes, family: Family = IPV4) -> dict[Nlri, LearnedRoute]:
    return dict(learned.take_changes().get(family, ([], []))[0])


def put(state: KernelState, learned: LearnedRoutes, prefix: Nlri, via: Via) -> None:
    state.tables[via.family, via.table].put(prefix, via, 0)
    learned.touch(prefix, via)


@pytest.mark.parametrize(
    ("via", "is_learned", "why"),
    [
        (WORKLOAD, True, "a workload as Felix writes it"),
        (Via(AF_INET, protocol=80, hops=(Hop(b"", 2),)), True, "a workload with Felix's own number"),
        (BLOCK, True, "a block"),
        (Via(AF_INET, protocol=3, hops=(Hop(b"", 1),)), False, "an administrator's route over eth0"),
        (Via(AF_INET, protocol=2, hops=(Hop(b"", 2),)), False, "a connected subnet"),
        (Via(AF_INET, protocol=12, hops=(Hop(b"", 2),)), False, "our own"),
        (Via(AF_INET, protocol=80, type=RTN_UNREACHABLE), False, "neither unicast nor blackhole"),
    ],
)
def test_by_default_what_felix_writes_is_learned(via: Via, is_learned: bool, why: str) -> None:
    state, learned = node()
    put(state, learned, NET, via)
    assert bool(announced(learned)) is is_learned


def test_our_own_routes_are_never_learned_even_if_a_rule_takes_all() -> None:
    state, learned = node(LearnRule())
    put(state, learned, NET, Via(AF_INET, protocol=12, hops=(Hop(b"", 2),)))
    assert announced(learned) == {}


def test_what_was_learned_says_where_it_comes_from() -> None:
    state, learned = node(LearnRule())
    put(state, learned, NET, Via(AF_INET, protocol=4, metric=7, hops=(Hop(parse_address("10.9.0.2"), 1),)))
    assert announced(learned) == {NET: LearnedRoute(parse_address("10.9.0.2"), "eth0", 4, 7)}


def test_what_was_learned_says_if_its_rule_puts_it_behind_peers() -> None:
    state, learned = node(LearnRule(interface="eth*", behind_peers=True), LearnRule())
    put(state, learned, NET, Via(AF_INET, protocol=80, metric=9, hops=(Hop(b"", 1),)))
    assert announced(learned)[NET].behind_peers
    put(state, learned, NET, Via(AF_INET, protocol=80, hops=(Hop(b"", 2),)))
    assert not announced(learned)[NET].behind_peers


def test_the_first_rule_that_fits_decides() -> None:
    inside = ipaddress.ip_network("10.1.0.0/24")
    state, learned = node(LearnRule(network=inside, action="reject"), LearnRule(protocol=3))
    outside = parse_prefix("10.2.0.1/32")[1]
    put(state, learned, NET, WORKLOAD)
    put(state, learned, outside, WORKLOAD)
    assert set(announced(learned)) == {outside}


def test_only_differences_are_told() -> None:
    state, learned = node()
    put(state, learned, NET, WORKLOAD)
    assert announced(learned)
    put(state, learned, NET, WORKLOAD)
    assert learned.take_changes() == {}
    state.tables[AF_INET, 254].take(NET, WORKLOAD)
    learned.touch(NET, WORKLOAD)
    assert learned.take_changes() == {IPV4: ([], [NET])}
    assert learned.take_changes() == {}


def test_of_two_metrics_the_kernels_choice_is_told_and_the_other_when_it_goes() -> None:
    state, learned = node(LearnRule(protocol=3))
    elevated, normal = (Via(AF_INET, protocol=3, metric=metric, hops=(Hop(b"", 2),)) for metric in (512, 1024))
    put(state, learned, NET, normal)
    put(state, learned, NET, elevated)
    assert announced(learned)[NET].metric == 512
    state.tables[AF_INET, 254].take(NET, elevated)
    learned.touch(NET, elevated)
    assert announced(learned)[NET].metric == 1024


def test_a_link_that_goes_down_takes_its_routes_with_it() -> None:
    state, learned = node()
    put(state, learned, NET, WORKLOAD)
    announced(learned)
    state.links[2] = Link(2, "cali1", False, False)
    learned.links_changed(frozenset([2]))
    assert learned.take_changes() == {IPV4: ([], [NET])}


def test_a_renamed_link_is_judged_by_its_new_name() -> None:
    state, learned = node()
    state.links[2] = Link(2, "veth9", True, True)
    put(state, learned, NET, WORKLOAD)
    assert announced(learned) == {}
    state.links[2] = Link(2, "cali9", True, True)
    learned.links_changed(frozenset([2]))
    assert announced(learned)[NET].interface == "cali9"


def test_other_tables_are_learned_from_if_a_rule_names_them() -> None:
    state, learned = node(LearnRule(table=100))
    put(state, learned, NET, Via(AF_INET, table=254, hops=(Hop(b"", 2),)))
    assert announced(learned) == {}
    put(state, learned, NET, Via(AF_INET, table=100, hops=(Hop(b"", 2),)))
    assert set(announced(learned)) == {NET}


@pytest.mark.parametrize("text", ["127.0.0.0/8", "169.254.1.1/32", "224.0.0.0/4", "fe80::/64", "ff00::/8", "::1/128"])
def test_what_means_something_else_on_every_node_is_not_learned(text: str) -> None:
    state, learned = node(LearnRule())
    family, prefix = parse_prefix(text)
    put(state, learned, prefix, Via(AF_INET if family is IPV4 else AF_INET6, hops=(Hop(b"", 1),)))
    assert learned.take_changes() == {}


def test_the_default_route_may_be_learned() -> None:
    state, learned = node(LearnRule())
    prefix = parse_prefix("0.0.0.0/0")[1]
    put(state, learned, prefix, Via(AF_INET, protocol=4, hops=(Hop(b"\x0a\x09\0\2", 1),)))
    assert set(announced(learned)) == {prefix}


def test_after_reading_anew_what_is_gone_is_withdrawn() -> None:
    state, learned = node()
    put(state, learned, NET, WORKLOAD)
    announced(learned)
    fresh = KernelState((254,))
    fresh.links = state.links
    other = parse_prefix("10.1.0.2/32")[1]
    fresh.tables[AF_INET, 254].load(other, WORKLOAD)
    state.adopt(fresh)

    async def step() -> None: ...

    asyncio.run(learned.look_again(step))
    ((told, withdrawn),) = learned.take_changes().values()
    assert [prefix for prefix, _ in told] == [other]
    assert withdrawn == [NET]
