"""A graph with a dataplane behind it, and short ways to write resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from felix import desired as d
from felix.calc.graph import CalculationGraph
from felix.calc.local import CalculationSettings
from felix.desired import Message
from integration.resources.keys import Key
from tests.felix.calc.dataplane import Dataplane

Json = dict[str, Any]
Entry = tuple[Key, Json]
NODE = "n1"


class Cluster:
    """In sync from the beginning."""

    def __init__(self, *entries: Entry, settings: CalculationSettings | None = None) -> None:
        self.graph = CalculationGraph(NODE, settings)
        self.dataplane = Dataplane()
        self.graph.in_sync()
        self.add(*entries)

    def add(self, *entries: tuple[Key, Json | None]) -> list[Message]:
        for key, value in entries:
            self.graph.update(key, value)
        said = self.graph.flush()
        self.dataplane.take(said)
        return said

    def remove(self, *keys: Key) -> list[Message]:
        return self.add(*((key, None) for key in keys))

    def workload(self, pod: str, namespace: str = "a") -> d.WorkloadEndpoint:
        found: d.WorkloadEndpoint = self.dataplane.of("workload")[
            d.WorkloadId("k8s", f"{namespace}/{pod}", "eth0")
        ].endpoint
        return found

    def host_endpoint(self, name: str) -> d.HostEndpoint:
        found: d.HostEndpoint = self.dataplane.of("hep")[name].endpoint
        return found

    def policy(self, kind: str, name: str, namespace: str = "") -> d.Policy:
        found: d.Policy = self.dataplane.of("policy")[d.PolicyId(kind, namespace, name)].policy
        return found

    def rule(self, name: str = "p", namespace: str = "a") -> d.PolicyRule:
        """The only ingress rule of a NetworkPolicy."""
        (rule,) = self.policy("NetworkPolicy", name, namespace).inbound
        return rule

    def members(self, id: str) -> set[str]:
        return set(self.dataplane.sets[id][1])

    def route(self, destination: str) -> d.Route:
        found: d.Route = self.dataplane.of("route")[destination].route
        return found


def pod(
    name: str,
    addresses: Sequence[str] = ("10.0.0.1/32",),
    labels: dict[str, str] | None = None,
    *,
    namespace: str = "a",
    node: str = NODE,
    **spec: Any,
) -> Entry:
    fields = {"ipNetworks": list(addresses), "interfaceName": f"cali{name}", "profiles": [f"kns.{namespace}"], **spec}
    return Key("WorkloadEndpoint", f"{node}-k8s-{name}-eth0", namespace), {
        "metadata": {"labels": labels or {}},
        "spec": fields,
    }


def namespace(name: str = "a", **labels: str) -> Entry:
    allow = [{"action": "Allow"}]
    given = {f"pcns.{label}": value for label, value in labels.items()} | {"pcns.projectcalico.org/name": name}
    return Key("Profile", f"kns.{name}"), {"spec": {"labelsToApply": given, "ingress": allow, "egress": allow}}


def policy(name: str = "p", *ingress: Json, namespace: str = "a", kind: str = "NetworkPolicy", **spec: Any) -> Entry:
    return Key(kind, name, namespace), {"spec": {"types": ["Ingress"], "ingress": list(ingress), **spec}}


def global_policy(name: str, *ingress: Json, **spec: Any) -> Entry:
    return policy(name, *ingress, namespace="", kind="GlobalNetworkPolicy", **spec)


def allow(source: Json | None = None, destination: Json | None = None, **fields: Any) -> Json:
    return {"action": "Allow", "source": source or {}, "destination": destination or {}, **fields}


def node(name: str, address: str, **spec: Any) -> Entry:
    bgp = {"ipv4Address": address, **spec.pop("bgp", {})}
    return Key("Node", name), {"spec": {"bgp": bgp, **spec}}


def pool(name: str, cidr: str, **spec: Any) -> Entry:
    return Key("IPPool", name), {"spec": {"cidr": cidr, **spec}}


def block(cidr: str, affinity: str | None, *users: str | None) -> Entry:
    """Its first addresses are used by these nodes."""
    value = {
        "cidr": cidr,
        "affinity": affinity,
        "allocations": [None if user is None else at for at, user in enumerate(users)],
        "attributes": [{"handle_id": "h", "secondary": {"node": user} if user else {}} for user in users],
    }
    return Key("IPAMBlock", cidr.replace("/", "-")), value


def host_endpoint(name: str, node: str = NODE, labels: dict[str, str] | None = None, **spec: Any) -> Entry:
    return Key("HostEndpoint", name), {"metadata": {"labels": labels or {}}, "spec": {"node": node, **spec}}
