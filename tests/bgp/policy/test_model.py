"""The compiled policy against a model that reads rule after rule with the standard library's networks."""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.config import Policy, PolicyRule, PrefixMatch, RouteSetting
from bgp.families import IPV4, IPV6, Family, IPNetwork, nlri_of
from bgp.policy import compile_policy
from tests.bgp.policy.routes import Route

# Small alphabets, so that conditions meet routes often.
_FIRST_OCTETS = (0x00, 0x0A, 0x20, 0x80, 0xFF)


@st.composite
def networks(draw: st.DrawFn, version: int | None = None) -> IPNetwork:
    kind = draw(st.sampled_from((4, 6))) if version is None else version
    bits = 32 if kind == 4 else 128
    length = draw(
        st.sampled_from((0, 1, 7, 8, 9, 15, 16, 24, 31, 32) if kind == 4 else (0, 7, 8, 16, 33, 64, 127, 128))
    )
    value = draw(st.sampled_from(_FIRST_OCTETS)) << (bits - 8) | draw(st.integers(0, 3)) << (bits - 16)
    value |= draw(st.sampled_from((0, 1, (1 << (bits - 16)) - 1)))
    return ipaddress.ip_network((value.to_bytes(bits // 8, "big"), length), strict=False)


@st.composite
def matches(draw: st.DrawFn) -> PrefixMatch:
    network = draw(networks())
    shortest = draw(st.integers(0, network.max_prefixlen))
    longest = draw(st.integers(shortest, network.max_prefixlen))
    if draw(st.booleans()):
        shortest, longest = network.prefixlen, network.max_prefixlen
    return PrefixMatch(network=network, minimum_bits=shortest, maximum_bits=longest, negate=draw(st.booleans()))


_COMMUNITIES = [bytes([number]) * size for size in (4, 8, 12) for number in (0, 1)]
_SOURCES = ("ebgp", "ibgp", "kernel", "originate")
_SETTINGS = (RouteSetting(), RouteSetting(local_pref=1), RouteSetting(med=2))


def few(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


def seldom(strategy: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.one_of(st.just(()), st.just(()), strategy)


rules = st.builds(
    PolicyRule,
    prefixes=st.one_of(st.just(()), few(matches(), 3)),
    as_path_prefix=seldom(few(st.sampled_from((1, 2)))),
    communities=seldom(few(st.sampled_from(_COMMUNITIES))),
    sources=seldom(few(st.sampled_from(_SOURCES))),
    next_hops=seldom(few(networks())),
    interfaces=seldom(few(st.sampled_from(("cali*", "eth?", "*", "eth0")))),
    local_pref=st.sampled_from((None, None, None, 0, 100)),
    local_pref_above=st.sampled_from((None, None, None, 0, 99)),
    peer_type=st.sampled_from((None, None, "ebgp", "ibgp")),
    action=st.sampled_from(("accept", "reject")),
    setting=st.sampled_from(_SETTINGS),
)
policies = st.builds(Policy, rules=few(rules, 6), default=st.sampled_from(("accept", "reject")))
routes = st.builds(
    Route,
    as_path=few(st.sampled_from((1, 2)), 3),
    communities=few(st.sampled_from(_COMMUNITIES[:2])).map(b"".join),
    extended_communities=few(st.sampled_from(_COMMUNITIES[2:4])).map(b"".join),
    large_communities=few(st.sampled_from(_COMMUNITIES[4:])).map(b"".join),
    local_pref=st.sampled_from((None, 0, 100)),
    next_hop=st.one_of(
        st.just(b""),
        networks().map(lambda network: network.broadcast_address.packed),
        st.tuples(networks(6), networks(6)).map(
            lambda pair: pair[0].network_address.packed + pair[1].network_address.packed
        ),
    ),
    source=st.sampled_from(_SOURCES),
    interface=st.sampled_from(("", "cali1", "eth0", "eth10")),
)


def _inside(inner: Any, outer: Any) -> bool:
    return bool(inner.version == outer.version and inner.subnet_of(outer))


def _holds(rule: PolicyRule, route: Route, prefix: IPNetwork, *, is_ebgp: bool) -> bool:
    def hit(match: PrefixMatch) -> bool:
        return _inside(prefix, match.network) and match.minimum_bits <= prefix.prefixlen <= match.maximum_bits

    wanted = [match for match in rule.prefixes if not match.negate]
    if wanted and not any(map(hit, wanted)):
        return False
    if any(hit(match) for match in rule.prefixes if match.negate):
        return False
    if route.as_path[: len(rule.as_path_prefix)] != rule.as_path_prefix:
        return False
    carried = [
        data[at : at + size]
        for size, data in ((4, route.communities), (8, route.extended_communities), (12, route.large_communities))
        for at in range(0, len(data), size)
    ]
    if rule.communities and not set(rule.communities) & set(carried):
        return False
    if rule.sources and route.source not in rule.sources:
        return False
    halves = [route.next_hop[:16], route.next_hop[16:]] if len(route.next_hop) == 32 else [route.next_hop]
    hops = [ipaddress.ip_network(half) for half in halves if half]
    if rule.next_hops and not any(_inside(hop, network) for hop in hops for network in rule.next_hops):
        return False
    if rule.interfaces and not any(fnmatch.fnmatchcase(route.interface, glob) for glob in rule.interfaces):
        return False
    if rule.local_pref is not None and rule.local_pref != route.local_pref:
        return False
    if rule.local_pref_above is not None and not (route.local_pref or 0) > rule.local_pref_above:
        return False
    return rule.peer_type is None or (rule.peer_type == "ebgp") == is_ebgp


def _model(policy: Policy, route: Route, prefix: IPNetwork, *, is_ebgp: bool) -> tuple[int | None, RouteSetting | None]:
    for number, rule in enumerate(policy.rules):
        if _holds(rule, route, prefix, is_ebgp=is_ebgp):
            return number, rule.setting if rule.action == "accept" else None
    return None, RouteSetting() if policy.default == "accept" else None


def _family(prefix: IPNetwork) -> Family:
    return IPV4 if prefix.version == 4 else IPV6


@settings(max_examples=400, deadline=None)
@given(policies, routes, st.lists(networks(), min_size=1, max_size=8), st.booleans())
def test_compiled_policy_says_what_reading_the_rules_in_order_says(
    policy: Policy, route: Route, prefixes: list[IPNetwork], is_ebgp: bool
) -> None:
    compiled = compile_policy(policy, direction="import", is_ebgp=is_ebgp)
    for prefix in prefixes:
        number, expected = _model(policy, route, prefix, is_ebgp=is_ebgp)
        verdict = compiled.judge(route, nlri_of(prefix), _family(prefix))
        assert verdict == expected
        assert not compiled.accepts_all or expected == RouteSetting()
        assert not compiled.rejects_all or expected is None
        assert compiled.needs_prefix or compiled.judge(route, None, _family(prefix)) == expected
        decider = "the default" if number is None else f"rule {number + 1}"
        action = "rejected" if expected is None else "accepted"
        assert compiled.explain(route, nlri_of(prefix), _family(prefix)).startswith(f"{action} by {decider}")

    for family in (IPV4, IPV6):
        run = [nlri_of(prefix) for prefix in prefixes if _family(prefix) is family]
        groups = compiled.judge_all(route, family, run)
        assert len({verdict for verdict, _ in groups}) == len(groups)
        assert sorted(nlri for _, group in groups for nlri in group) == sorted(run)
        for verdict, group in groups:
            assert group == [nlri for nlri in run if compiled.judge(route, nlri, family) == verdict]
