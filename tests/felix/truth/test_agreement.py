"""Whatever policies there are: the explanation and the rules, in the shapes of both dialects, say the same."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from felix.desired import (
    Entity,
    HostEndpoint,
    HostEndpointUpdate,
    InSync,
    IPSetUpdate,
    Message,
    Policy,
    PolicyId,
    PolicyRule,
    PolicyUpdate,
    PortRange,
    Profile,
    ProfileUpdate,
    TierPolicies,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadUpdate,
)
from felix.explain.explain import explain
from felix.explain.flow import ExplainSettings, Failsafe, Flow, Surroundings
from felix.explain.state import DesiredState
from felix.explain.view import explanation_lines, explanation_view
from felix.rules import settings as rules
from felix.rules.ruleset import RuleProgrammer
from tests.felix.rules.packet import Packet, Walk
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.truth.world import HOST_INTERFACES, NEIGHBOURS, WORKLOADS

T = TypeVar("T")

SEEDS, WORLDS = 20, 15
PODS = {party.host_side: (party.ipv4, party.ipv6) for party in WORKLOADS[:2]}
HOST = {"lo": ("127.0.0.1", "::1"), **HOST_INTERFACES}
OUTSIDE = {party.host_side: (party.ipv4, party.ipv6) for party in NEIGHBOURS}
PORTS = (22, 53, 80, 81)
NETS = (
    "10.65.0.0/31", "10.65.0.2/32", "192.0.2.0/24", "198.51.100.10/32", "0.0.0.0/1", "fd00:65::/127", "2001:db8:2::/64",
    "fd00:65::2/128",
)  # fmt: skip
SETS: list[Message] = [
    IPSetUpdate("s:a", "net", frozenset({"10.65.0.1/32", "192.0.2.0/28", "fd00:65::1/128"})),
    IPSetUpdate("s:b", "net", frozenset({"10.65.0.0/24", "198.51.100.10/32", "2001:db8:2::/64"})),
    IPSetUpdate("s:none", "net", frozenset()),
    IPSetUpdate(
        "n:web", "ip,port", frozenset({"10.65.0.1,tcp:80", "10.65.0.2,udp:53", "fd00:65::2,tcp:80", "192.0.2.1,tcp:81"})
    ),
    IPSetUpdate("n:dns", "ip,port", frozenset({"10.65.0.2,tcp:81", "192.0.2.10,udp:53"})),
]
FAILSAFES = ((6, 22, ""), (17, 53, "192.0.2.0/24"))


class Chance:
    """Draws from a seed: the same world again for a failure."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.one = self.random.choice

    def some(self, choices: Sequence[T], most: int = 2) -> tuple[T, ...]:
        return tuple(self.random.sample(choices, self.random.randint(0, min(most, len(choices)))))

    def ranges(self) -> tuple[PortRange, ...]:
        if self.random.random() < 0.2:
            return tuple(PortRange(port, port) for port in range(40, 120, 4))  # more than fit in one match
        pairs = [sorted((self.one(PORTS), self.one(PORTS))) for _ in range(self.random.randint(0, 2))]
        return tuple(PortRange(first, last) for first, last in pairs)

    def entity(self, has_ports: bool) -> Entity:
        named = self.some(["n:web", "n:dns"])
        ports = self.ranges() if has_ports else ()
        match self.random.randrange(10):
            case 0 | 1 | 2:
                return Entity()
            case 3:
                return Entity(nets=self.some(NETS, 3))
            case 4:
                return Entity(not_nets=self.some(NETS, 3))
            case 5:
                return Entity(ip_sets=self.some(["s:a", "s:b"]))
            case 6:
                return Entity(ports=ports, named_ports=named)
            case 7:
                return Entity(not_ports=ports, not_named_ports=self.some(["n:web", "n:dns"], 1))
        return Entity(
            nets=self.some(NETS, 3),
            not_nets=self.some(NETS),
            ip_sets=self.some(["s:a", "s:b", "s:none"], 1),
            not_ip_sets=self.some(["s:a", "s:b", "s:none"], 1),
            ports=ports,
            not_ports=self.ranges() if has_ports else (),
            named_ports=named,
        )

    def rule(self) -> PolicyRule:
        protocol = self.one([None, None, 6, 6, 17, 1, 58])
        icmp, not_icmp = [self.one([None, (8, None), (13, 0), (128, None), (8, 1)]) for _ in range(2)]
        return PolicyRule(
            self.one(["allow", "allow", "deny", "pass", "log"]),
            ip_version=self.one([None, None, None, 4, 6]),
            protocol=protocol,
            not_protocol=self.one([None, None, 6, 17]) if protocol is None else None,
            source=self.entity(protocol in (6, 17)),
            destination=self.entity(protocol in (6, 17)),
            icmp=icmp if protocol in (1, 58) else None,
            not_icmp=not_icmp if protocol in (1, 58) else None,
        )

    def rules(self) -> tuple[PolicyRule, ...]:
        return tuple(self.rule() for _ in range(self.random.randint(0, 3)))

    def tiers(self, names: Sequence[str], defaults: dict[str, Any]) -> tuple[TierPolicies, ...]:
        found = []
        for tier, default in defaults.items():
            its = [id_of(name) for name in names if TIER_OF[name] == tier]
            ingress, egress = self.some(its, 3), self.some(its, 3)
            if ingress or egress:
                found.append(TierPolicies(tier, default, ingress, egress))
        return tuple(found)

    def world(self) -> list[Message]:
        """Two workloads, and host endpoints perhaps; policies by name, each in the tier and with the role of its name."""
        messages = list(SETS)
        for name in NAMES:
            selector = self.one(["all()", "has(x)"])
            roles: dict[str, Any] = {"p3": {"is_untracked": True}, "p4": {"is_pre_dnat": True}}
            policy = Policy(id_of(name), TIER_OF[name], self.rules(), self.rules(), selector, **roles.get(name, {}))
            messages.append(PolicyUpdate(policy))
        messages += [ProfileUpdate(Profile(name, self.rules(), self.rules())) for name in ("one", "two")]
        defaults = {tier: self.one(["Deny", "Deny", "Pass"]) for tier in ("first", "second")}
        for interface, (ipv4, ipv6) in PODS.items():
            endpoint = WorkloadEndpoint(
                WorkloadId("k8s", f"default/{interface}", "eth0"),
                interface,
                self.random.random() < 0.95,
                profiles=self.some(["one", "two"]),
                tiers=self.tiers(NORMAL, defaults),
                ipv4_nets=(f"{ipv4}/32",),
                ipv6_nets=(f"{ipv6}/128",),
            )
            messages.append(WorkloadUpdate(endpoint))
        for name, interface in (("h-eth0", "eth0"), ("h-any", "*")):
            if self.random.random() < 0.5:
                messages.append(HostEndpointUpdate(self.host_endpoint(name, interface, defaults)))
        return [*messages, InSync()]

    def host_endpoint(self, name: str, interface: str, defaults: dict[str, Any]) -> HostEndpoint:
        return HostEndpoint(
            name,
            interface,
            profiles=self.some(["one", "two"]),
            tiers=self.tiers(NORMAL, defaults),
            untracked_tiers=self.tiers(["p3"], defaults) if interface != "*" else (),
            pre_dnat_tiers=self.tiers(["p4"], defaults),
            forward_tiers=self.tiers(NORMAL, defaults),
        )

    def question(self, *, is_real: bool = False) -> tuple[Flow, Packet]:
        """`is_real`: one that can be sent, and starts a connection."""
        version = self.one([4, 4, 6])
        source, destination = self.random.sample(["calia", "calib", "host", "eth0", "eth1"], 2)
        protocol = self.one([6, 6, 17, 132, 1 if version == 4 else 58])
        has_ports = protocol in (6, 17, 132)
        kinds = ([8, 13] if version == 4 else [128]) if is_real else [8, 13, 128]
        icmp = None if has_ports else (self.one(kinds), self.one([0, 1]))
        ports = self.one(PORTS), self.one(PORTS)
        state = "new" if is_real else self.one(["new"] * 8 + ["established", "invalid"])

        def address(name: str, other: str) -> str:
            if name == "host":
                return HOST[other if other in HOST else "eth0"][version == 6]
            return (PODS | OUTSIDE)[name][version == 6]

        here, there = address(source, destination), address(destination, source)
        flow = Flow(
            ipaddress.ip_address(here),
            ipaddress.ip_address(there),
            protocol,
            ports[0] if has_ports else None,
            ports[1] if has_ports else None,
            icmp,
            conntrack=state,  # type: ignore[arg-type]
        )
        arrives_by, leaves_by = ("" if name == "host" else name for name in (source, destination))
        return flow, Packet(here, there, protocol, *ports, icmp, arrives_by, leaves_by, state.upper())


NAMES = [f"p{number}" for number in range(8)]
NORMAL = [name for name in NAMES if name not in ("p3", "p4")]
TIER_OF = {name: "first" if number % 2 else "second" for number, name in enumerate(NAMES)}


def id_of(name: str) -> PolicyId:
    return PolicyId("StagedGlobalNetworkPolicy" if name == "p5" else "GlobalNetworkPolicy", "", name)


SURROUNDINGS = Surroundings(
    {name: frozenset(its) for name, its in HOST.items()},
    lambda to: next((name for name, its in OUTSIDE.items() if str(to) in its), "eth0"),
)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_explanation_and_rules_agree(seed: int) -> None:
    chance = Chance(seed)
    for _ in range(WORLDS):
        world, to_host = chance.world(), chance.one(["DROP", "RETURN", "ACCEPT"])
        agree(world, [chance.question() for _ in range(40)], to_host)


def agree(world: Sequence[Message], asked: Sequence[tuple[Flow, Packet]], to_host: str) -> None:
    state = DesiredState()
    state.fold_all(world)
    failsafes = tuple(Failsafe(*one) for one in FAILSAFES)
    wanted = ExplainSettings(endpoint_to_host=to_host, failsafe_in=failsafes, failsafe_out=failsafes)
    walks = {(v, like): walk_of(world, v, to_host, is_like_nftables=like) for v in (4, 6) for like in (True, False)}
    for flow, packet in asked:
        explanation = explain(state, flow, wanted, SURROUNDINGS)
        for is_like_nftables in (True, False):
            packet.mark, packet.path, packet.conntrack = 0, [], flow.conntrack.upper()
            found = walks[flow.version, is_like_nftables].verdict(packet)
            lines = [
                f"like nftables: {is_like_nftables}",
                *explanation_lines(explanation_view(explanation)),
                " > ".join(packet.path),
            ]
            assert found == {"allow": "accept", "deny": "drop"}[explanation.verdict], "\n".join(lines)


def walk_of(world: Sequence[Message], version: Any, to_host: Any, *, is_like_nftables: bool) -> Walk:
    filter_ = RecordingFilter(version, is_like_nftables=is_like_nftables)
    failsafes = tuple(rules.Failsafe(*one) for one in FAILSAFES)
    settings_ = rules.RuleSettings(endpoint_to_host=to_host, failsafe_in=failsafes, failsafe_out=failsafes)
    programmer = RuleProgrammer(filter_, settings_)
    for number, (name, addresses) in enumerate(HOST.items(), 1):
        programmer.interface_changed(name, "up", frozenset(addresses), number)
    for message in world:
        programmer.on_message(message)
    programmer.complete()
    return Walk(filter_.ruleset, filter_.sets, frozenset(name for its in HOST.values() for name in its))
