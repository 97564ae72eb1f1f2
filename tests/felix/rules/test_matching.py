"""Both ways to look for a rule's packets, and a plain reading of what the rule says, find the same packets."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.desired import Action, Entity, IPVersion, Policy, PolicyRule, PortRange
from felix.filter_rules import Chain, HookRules, Jump, Log, Mark, NFLog, Rule, Ruleset
from felix.rules.marks import marks_of
from felix.rules.matching import MAX_SLOTS, find, port_groups
from felix.rules.policies import Dialect, policy_chains, verdict_chains
from felix.rules.settings import RuleSettings
from tests.felix.rules.packet import Packet, Walk
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.rules.world import global_id

MARKS = marks_of(0xFFFF0000)
ADDRESSES = {
    4: ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1"),
    6: ("fd00::1", "fd00::2", "fd00:1::1", "2001:db8::1"),
}
NETS = ("10.0.0.0/24", "10.0.0.1/32", "10.0.0.0/31", "192.0.2.0/24", "0.0.0.0/0", "fd00::/64", "fd00::1/128", "::/0")
SETS: dict[str, Any] = {
    "s:a": ("net", {"10.0.0.0/31", "fd00::1/128"}),
    "s:b": ("net", {"10.0.0.2/32", "192.0.2.0/24", "2001:db8::/32"}),
    "n:web": ("ip,port", {"10.0.0.1,tcp:80", "192.0.2.1,udp:81", "fd00::1,tcp:80"}),
    "n:dns": ("ip,port", {"10.0.0.2,udp:80", "10.0.1.1,tcp:81", "fd00::2,tcp:81"}),
}
PORTS = (79, 80, 81, 443)


def some(choices: tuple[Any, ...], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(choices), max_size=most, unique=True).map(tuple)


ranges = st.one_of(
    st.lists(
        st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(sorted).map(lambda pair: PortRange(*pair)),
        max_size=3,
    ).map(tuple),
    st.just(tuple(PortRange(port, port + 1) for port in range(40, 84, 3))),  # more slots than one match has
)


@st.composite
def entities(draw: st.DrawFn, has_ports: bool) -> Entity:
    return Entity(
        nets=draw(some(NETS)),
        not_nets=draw(some(NETS, 2)),
        ip_sets=draw(some(("s:a", "s:b"), 1)),
        not_ip_sets=draw(some(("s:a", "s:b"), 1)),
        ports=draw(ranges) if has_ports else (),
        not_ports=draw(ranges) if has_ports else (),
        named_ports=draw(some(("n:web", "n:dns"), 2)),
        not_named_ports=draw(some(("n:web", "n:dns"), 1)),
        services=draw(some(("n:web",), 1)),
    )


@st.composite
def rules(draw: st.DrawFn) -> PolicyRule:
    protocol = draw(st.sampled_from([None, 6, 17]))
    return PolicyRule(
        "allow",
        ip_version=draw(st.sampled_from([None, None, 4, 6])),
        protocol=protocol,
        not_protocol=draw(st.sampled_from([None, 6])) if protocol is None else None,
        source=draw(entities(protocol is not None)),
        destination=draw(st.one_of(st.just(Entity()), entities(protocol is not None))),
    )


@st.composite
def packets(draw: st.DrawFn, version: IPVersion) -> Packet:
    ports = st.sampled_from(PORTS)
    source, destination = (draw(st.sampled_from(ADDRESSES[version])) for _ in range(2))
    return Packet(source, destination, draw(st.sampled_from([6, 17])), draw(ports), draw(ports), None, "eth0", "eth1")


def reads(rule: PolicyRule, packet: Packet, version: IPVersion) -> bool:
    """What the rule says, in so many words."""
    if rule.ip_version not in (None, version) or rule.protocol not in (None, packet.protocol):
        return False
    if rule.not_protocol == packet.protocol:
        return False
    return all(
        reads_entity(entity, address, port, packet.protocol, version)
        for entity, address, port in (
            (rule.source, packet.source, packet.source_port),
            (rule.destination, packet.destination, packet.destination_port),
        )
    )


def reads_entity(entity: Entity, address: str, port: int, protocol: int, version: IPVersion) -> bool:
    def in_net(net: str) -> bool:
        return ipaddress.ip_address(address) in ipaddress.ip_network(net)

    def in_ports(given: tuple[PortRange, ...]) -> bool:
        return any(first <= port <= last for first, last in given)

    def in_set(id: str) -> bool:
        kind, members = SETS[id]
        return (
            any(map(in_net, members))
            if kind == "net"
            else f"{address},{'tcp' if protocol == 6 else 'udp'}:{port}" in members
        )

    # Networks of the other version alone make the rule one of the other version: Calico's meaning, negated or not.
    for nets in (entity.nets, entity.not_nets):
        if nets and all((":" in net) != (version == 6) for net in nets):
            return False
    if any(in_net(net) for net in entity.not_nets) or (entity.nets and not any(map(in_net, entity.nets))):
        return False
    if (entity.ports or entity.named_ports) and not (in_ports(entity.ports) or any(map(in_set, entity.named_ports))):
        return False
    if in_ports(entity.not_ports) or any(map(in_set, (*entity.not_ip_sets, *entity.not_named_ports))):
        return False
    return all(map(in_set, (*entity.ip_sets, *entity.services)))


def verdict(rule: PolicyRule, packet: Packet, version: IPVersion, *, has_alternatives: bool) -> bool:
    dialect = Dialect(version, has_alternatives, has_alternatives, RuleSettings(), MARKS)
    walk(policy_chains(Policy(global_id("x"), "default", (rule,)), dialect)[0].chain, packet, dialect)
    return bool(packet.mark & MARKS.accept)


def walk(chain: Chain, packet: Packet, dialect: Dialect) -> None:
    filter_ = RecordingFilter(dialect.version, is_like_nftables=dialect.has_alternatives)
    filter_.set_chains("filter", [chain, *verdict_chains(dialect)])
    filter_.set_hook("filter", "FORWARD", HookRules((Rule((), Jump(chain.name)),)))
    packet.mark = MARKS.scratch0 | MARKS.scratch1  # what others left there must not matter
    Walk(Ruleset(dialect.version, filter_.chains, filter_.hooks), SETS, frozenset()).verdict(packet)


@settings(max_examples=400, deadline=None)
@given(st.data(), rules(), st.sampled_from([4, 6]))
def test_both_encodings_find_what_the_rule_says(data: st.DataObject, rule: PolicyRule, version: IPVersion) -> None:
    for packet in data.draw(st.lists(packets(version), min_size=4, max_size=4)):
        found = {
            has_alternatives: verdict(rule, packet, version, has_alternatives=has_alternatives)
            for has_alternatives in (True, False)
        }
        assert found == dict.fromkeys((True, False), reads(rule, packet, version)), (rule, packet)


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted), max_size=60))
def test_port_groups_fit_into_one_match_each_and_lose_nothing(pairs: list[list[int]]) -> None:
    given_ = [PortRange(*pair) for pair in pairs]
    groups = list(port_groups(given_))
    assert [one for group in groups for one in group] == given_
    for group in groups:
        assert group
        assert sum(1 if first == last else 2 for first, last in group) <= MAX_SLOTS


@pytest.mark.parametrize("action", ["allow", "deny", "pass", "log"])
@pytest.mark.parametrize("has_alternatives", [True, False])
def test_a_packet_found_two_ways_counts_and_is_told_once(action: Action, has_alternatives: bool) -> None:
    entity = Entity(nets=("10.0.0.0/24", "10.0.0.1/32"), ports=(PortRange(80, 80),), named_ports=("n:web",))
    dialect = Dialect(4, has_alternatives, has_alternatives, RuleSettings(denied_group=2), MARKS)
    policy = Policy(global_id("x"), "default", (PolicyRule(action, protocol=6, destination=entity),))
    ingress = policy_chains(policy, dialect)[0]
    packet = Packet("192.0.2.9", "10.0.0.1", 6, 40000, 80, None, "eth0", "eth1")
    walk(ingress.chain, packet, dialect)
    counting = [rule for rule, index in zip(ingress.chain.rules, ingress.counts, strict=True) if index == 0]
    assert sum(any(rule is met for met in packet.met) for rule in counting) == 1
    assert sum(isinstance(met.action, Log | NFLog) for met in packet.met) == (action in ("deny", "log"))


def test_excluding_everything_or_only_the_other_version_leaves_no_rule() -> None:
    def found(entity: Entity, version: IPVersion) -> object:
        return find(PolicyRule("allow", source=entity), version, MARKS, has_alternatives=True)

    assert found(Entity(not_nets=("10.0.0.0/8", "0.0.0.0/0")), 4) is None
    assert found(Entity(nets=("10.0.0.0/8",)), 6) is None
    assert found(Entity(not_nets=("10.0.0.0/8",)), 6) is None
    assert found(Entity(not_nets=("10.0.0.0/8",)), 4) is not None


def test_the_blocks_ask_for_the_last_bit_alone() -> None:
    """Three lists: the first writes the outcome, each later one its own bit, and what misses it takes the outcome away."""
    rule = PolicyRule(
        "allow",
        source=Entity(nets=("10.0.0.0/8", "192.0.2.0/24")),
        destination=Entity(nets=("10.1.0.0/16", "10.2.0.0/16"), not_nets=("10.1.1.0/24",)),
    )
    found = find(rule, 4, MARKS, has_alternatives=False)
    assert found is not None
    assert found.ways == ((Mark(MARKS.scratch0, MARKS.scratch0),),)
    assert len(found.before) == 1 + 2 + 1 + 2 + 1 + 1
