"""Local workloads that a BGPPeer with localWorkloadSelector lets peer with their node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

from bgp.families import IPAddress
from integration.bgpconfig.facts import NodeFacts
from integration.bgpconfig.peers import PeerFacts
from integration.bgpconfig.snapshot import Snapshot
from integration.resources.keys import Key
from integration.resources.models.endpoints import WorkloadEndpoint
from integration.resources.models.kubernetes import Namespace, ServiceAccount
from integration.resources.models.policy import Profile


def peering_workloads(
    me: NodeFacts, peers: Iterable[PeerFacts], snapshot: Snapshot
) -> Iterator[tuple[PeerFacts, Key, tuple[IPAddress, ...]]]:
    """Each workload of this node that may peer, with the first BGPPeer (by name) that selects it and its addresses."""
    choosing = sorted(
        (peer for peer in peers if peer.workloads is not None and peer.selects(me)), key=lambda peer: peer.key.name
    )
    if not choosing:
        return
    for key, workload in sorted(snapshot.of(WorkloadEndpoint).items()):
        if workload.spec.node != me.name:
            continue
        labels = labels_of(workload, key, snapshot)
        peer = next((peer for peer in choosing if peer.workloads is not None and peer.workloads.matches(labels)), None)
        if peer is not None:
            yield peer, key, first_addresses(workload.spec.ip_networks)


def first_addresses(networks: Iterable[str]) -> tuple[IPAddress, ...]:
    found: dict[int, IPAddress] = {}
    for text in networks:
        try:
            address = ip_network(text, strict=False).network_address
        except ValueError:
            continue
        found.setdefault(address.version, address)
    return tuple(found.values())


def labels_of(workload: WorkloadEndpoint, key: Key, snapshot: Snapshot) -> Mapping[str, str]:
    """Its own, over what its profiles give it."""
    inherited: dict[str, str] = {}
    for name in workload.spec.profiles:
        inherited.update(profile_labels(name, snapshot))
    return inherited | workload.metadata.labels


def profile_labels(name: str, snapshot: Snapshot) -> Mapping[str, str]:
    """Those of the Profile, or of the Namespace or ServiceAccount that stands for it where Kubernetes is the datastore."""
    profile = snapshot.get(Profile, Key("Profile", name))
    if profile is not None:
        return profile.spec.labels_to_apply
    kind, _, rest = name.partition(".")
    if kind == "kns" and (namespace := snapshot.get(Namespace, Key("Namespace", rest))) is not None:
        return prefixed("pcns.", namespace.metadata.labels, rest)
    if kind == "ksa":
        where, _, account_name = rest.partition(".")
        account = snapshot.get(ServiceAccount, Key("ServiceAccount", account_name, where))
        if account is not None:
            return prefixed("pcsa.", account.metadata.labels, account_name)
    return {}


def prefixed(prefix: str, labels: Mapping[str, str], name: str) -> dict[str, str]:
    return {f"{prefix}{label}": value for label, value in labels.items()} | {f"{prefix}projectcalico.org/name": name}
