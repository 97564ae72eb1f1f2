"""The one small world in which every scenario plays: who is there, with which addresses, and the resources behind it.

out ── eth0 ┐                  ┌ a, b   namespace default
            ├ node1 (`host`) ──┤
lan ── eth1 ┘                  └ c, d   namespace other
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from integration.resources.keys import Key
from integration.resources.names import WorkloadEndpointName

NODE = "node1"
GATEWAY_V4, GATEWAY_V6, MAC = "169.254.1.1", "fe80::ecee:eeff:feee:eeee", "ee:ee:ee:ee:ee:ee"
POOL_V4, POOL_V6 = "10.65.0.0/24", "fd00:65::/112"


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who can send and receive. `host_side` is the interface of node1 that leads there."""

    name: str
    host_side: str
    ipv4: str
    ipv6: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    service_account: str = ""

    def address(self, version: int) -> str:
        return self.ipv4 if version == 4 else self.ipv6

    @property
    def is_workload(self) -> bool:
        return bool(self.namespace)


def _pod(name: str, number: int, namespace: str, service_account: str, **labels: str) -> Party:
    address = f"10.65.0.{number}", f"fd00:65::{number:x}"
    return Party(name, f"cali{name}", *address, namespace, tuple(sorted(labels.items())), service_account)


PARTIES = {
    party.name: party
    for party in (
        _pod("a", 1, "default", "client", role="client", app="a"),
        _pod("b", 2, "default", "server", role="server", app="b"),
        _pod("c", 3, "other", "client", role="client", app="c"),
        _pod("d", 4, "other", "server", role="server", app="d"),
        Party("out", "eth0", "192.0.2.10", "2001:db8:2::10"),
        Party("lan", "eth1", "198.51.100.10", "2001:db8:3::10"),
    )
}
WORKLOADS = tuple(party for party in PARTIES.values() if party.is_workload)
NEIGHBOURS = tuple(party for party in PARTIES.values() if not party.is_workload)
HOST_INTERFACES = {"eth0": ("192.0.2.1", "2001:db8:2::1"), "eth1": ("198.51.100.1", "2001:db8:3::1")}


def host_address(towards: str, version: int) -> str:
    """The address of node1 that the party `towards` speaks to."""
    return HOST_INTERFACES["eth1" if towards == "lan" else "eth0"][version == 6]


Resources = dict[Key, dict[str, Any]]


def resource(kind: str, name: str, spec: Mapping[str, Any], namespace: str = "", **metadata: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name} | ({"namespace": namespace} if namespace else {}) | metadata
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": found, "spec": dict(spec)}


def key_of(value: Mapping[str, Any]) -> Key:
    return Key(value["kind"], value["metadata"]["name"], value["metadata"].get("namespace", ""))


def base_resources() -> Resources:
    """A cluster in which nothing is forbidden: the namespaces' profiles allow everything."""
    return {key_of(one): one for one in [*_cluster(), *_profiles(), *(endpoint_of(party) for party in WORKLOADS)]}


def _cluster() -> Iterable[dict[str, Any]]:
    yield resource("Node", NODE, {"bgp": {"ipv4Address": "192.0.2.1/24", "ipv6Address": "2001:db8:2::1/64"}})
    yield resource("IPPool", "v4", {"cidr": POOL_V4, "natOutgoing": False, "ipipMode": "Never", "vxlanMode": "Never"})
    yield resource("IPPool", "v6", {"cidr": POOL_V6, "natOutgoing": False, "ipipMode": "Never", "vxlanMode": "Never"})
    yield resource("Tier", "default", {"order": 1_000_000, "defaultAction": "Deny"})


def _profiles() -> Iterable[dict[str, Any]]:
    allow = [{"action": "Allow"}]
    for namespace, team in (("default", "red"), ("other", "blue")):
        labels = {"pcns.projectcalico.org/name": namespace, "pcns.team": team}
        spec = {"ingress": allow, "egress": allow, "labelsToApply": labels}
        yield resource("Profile", f"kns.{namespace}", spec)
        for account in ("client", "server"):
            labels = {"pcsa.projectcalico.org/name": account, "pcsa.kind": account}
            yield resource("Profile", f"ksa.{namespace}.{account}", {"labelsToApply": labels})


def endpoint_of(party: Party) -> dict[str, Any]:
    name = WorkloadEndpointName(NODE, "k8s", pod=party.name, endpoint="eth0").name
    labels = dict(party.labels) | {
        "projectcalico.org/namespace": party.namespace,
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": party.service_account,
    }
    spec = {
        "orchestrator": "k8s",
        "node": NODE,
        "pod": party.name,
        "endpoint": "eth0",
        "serviceAccountName": party.service_account,
        "interfaceName": party.host_side,
        "ipNetworks": [f"{party.ipv4}/32", f"{party.ipv6}/128"],
        "profiles": [f"kns.{party.namespace}", f"ksa.{party.namespace}.{party.service_account}"],
    }
    return resource("WorkloadEndpoint", name, spec, party.namespace, labels=labels)


def with_changes(base: Resources, changed: Iterable[Mapping[str, Any]], patches: Mapping[str, Any]) -> Resources:
    """`changed` are whole resources, new ones or in place of others; `patches` are fields of workloads' specs and labels."""
    found = copy.deepcopy(base)
    for value in changed:
        found[key_of(value)] = copy.deepcopy(dict(value))
    for name, patch in patches.items():
        endpoint = found[key_of(endpoint_of(PARTIES[name]))]
        endpoint["metadata"]["labels"] |= patch.get("labels", {})
        endpoint["spec"] |= {field: value for field, value in patch.items() if field != "labels"}
    return found
