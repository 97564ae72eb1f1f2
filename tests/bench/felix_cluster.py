"""A cluster as Felix sees it, of any size: (Key, JSON object) of pods, policies, namespaces, nodes, pools and blocks.

Everything follows from the numbers, so two runs see the same cluster.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from integration.resources.keys import Key, block_key

Entry = tuple[Key, dict[str, Any]]
APPS, TIERS = 20, 4


@dataclass(frozen=True)
class FelixCluster:
    """`node-0` has `local` of the endpoints; `big` of them are in the namespace `ns-0`."""

    policies: int = 10_000
    rules: int = 5
    endpoints: int = 10_000
    local: int = 100
    namespaces: int = 200
    nodes: int = 100
    big: int = 1_000
    is_all_needed: bool = False  # every policy selects its whole namespace

    def entries(self) -> Iterator[Entry]:
        yield Key("IPPool", "pods"), {"spec": {"cidr": "10.0.0.0/8", "vxlanMode": "CrossSubnet", "natOutgoing": True}}
        for at in range(self.nodes):
            yield self.node(at)
        for at in range(self.namespaces):
            yield self.namespace(at)
        for at in range(self.policies):
            yield self.policy(at)
        yield from self.blocks()
        for at in range(self.endpoints):
            yield self.endpoint(at)

    def node(self, at: int) -> Entry:
        bgp = {"ipv4Address": f"172.16.{at // 250}.{at % 250 + 1}/24"}
        spec = {"bgp": bgp, "ipv4VXLANTunnelAddr": address(at * 1024)}
        return Key("Node", f"node-{at}"), {"metadata": {"labels": {"rack": f"r{at % 8}"}}, "spec": spec}

    def namespace(self, at: int, team: str = "") -> Entry:
        labels = {"pcns.projectcalico.org/name": f"ns-{at}", "pcns.team": team or f"team-{at % 10}"}
        allow = [{"action": "Allow"}]
        return Key("Profile", f"kns.ns-{at}"), {"spec": {"labelsToApply": labels, "ingress": allow, "egress": allow}}

    def policy(self, at: int) -> Entry:
        draw = random.Random(at)
        selector = "all()" if self.is_all_needed else f"app == 'app-{draw.randrange(APPS)}'"
        rules = [self.rule(draw, at * self.rules + rule) for rule in range(self.rules)]
        half = (self.rules + 1) // 2
        spec: dict[str, Any] = {
            "tier": "default",
            "order": float(at % 100),
            "selector": selector,
            "types": ["Ingress", "Egress"],
            "ingress": [{**rule, "source": entity} for rule, entity in rules[:half]],
            "egress": [{**rule, "destination": entity} for rule, entity in rules[half:]],
        }
        namespace = f"ns-{at % self.namespaces}"
        return Key("NetworkPolicy", f"policy-{at}", namespace), {"metadata": {"name": f"policy-{at}"}, "spec": spec}

    def rule(self, draw: random.Random, at: int) -> tuple[dict[str, Any], dict[str, Any]]:
        app, tier = f"app-{draw.randrange(APPS)}", f"tier-{draw.randrange(TIERS)}"
        rule: dict[str, Any] = {"action": "Allow", "protocol": "TCP"}
        match at % 5:
            case 0:
                return rule, {"selector": f"app == '{app}' && tier == '{tier}'"}
            case 1:
                return rule, {
                    "selector": f"app == '{app}'",
                    "namespaceSelector": f"team == 'team-{draw.randrange(10)}'",
                }
            case 2:
                return rule, {"nets": [f"10.{draw.randrange(256)}.0.0/16"], "notNets": ["10.1.2.0/24"]}
            case 3:
                return rule, {"selector": f"app in {{'{app}', 'app-0'}} && has(tier)", "ports": [80, "8000:8080"]}
            case _:
                return rule, {"selector": f"tier == '{tier}'", "ports": ["http"]}

    def namespace_of(self, at: int) -> str:
        return "ns-0" if at >= self.endpoints - self.big else f"ns-{random.Random(at).randrange(self.namespaces)}"

    def node_of(self, at: int) -> int:
        spread = max(1, self.endpoints // max(1, self.local))
        return 0 if at % spread == 0 else 1 + at % max(1, self.nodes - 1)

    def endpoint(self, at: int) -> Entry:
        draw, namespace, node = random.Random(-at), self.namespace_of(at), self.node_of(at)
        labels = {
            "app": f"app-{draw.randrange(APPS)}",
            "tier": f"tier-{draw.randrange(TIERS)}",
            "pod-template-hash": f"{draw.randrange(10**6):x}",
            "projectcalico.org/namespace": namespace,
            "projectcalico.org/orchestrator": "k8s",
        }
        spec = {
            "orchestrator": "k8s",
            "node": f"node-{node}",
            "pod": f"pod-{at}",
            "endpoint": "eth0",
            "ipNetworks": [self.address_of(at)],
            "interfaceName": f"cali{at:011x}",
            "profiles": [f"kns.{namespace}"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }
        key = Key("WorkloadEndpoint", f"node--{node}-k8s-pod--{at}-eth0", namespace)
        return key, {"metadata": {"name": key.name, "labels": labels}, "spec": spec}

    def address_of(self, at: int) -> str:
        """In a block of its node: 64 endpoints a block, 16 blocks a node, and the tunnel's address in the first."""
        return (
            f"{address(self.node_of(at) * 1024 + 1 + at % 1000)}/32"
            if self.endpoints <= 1000
            else f"{address(2**20 + at)}/32"
        )

    def blocks(self) -> Iterator[Entry]:
        for at in range(0, self.endpoints, 64):
            cidr = f"{address(2**20 + at)}/26"
            nodes = [f"node-{self.node_of(at + each)}" for each in range(64)]
            attributes = [{"handle_id": "h", "secondary": {"node": node}} for node in dict.fromkeys(nodes)]
            places = {each["secondary"]["node"]: index for index, each in enumerate(attributes)}  # type: ignore[index]
            value = {
                "cidr": cidr,
                "affinity": f"host:{nodes[1]}",
                "allocations": [places[node] for node in nodes],
                "attributes": attributes,
            }
            yield block_key(cidr), value


def address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
