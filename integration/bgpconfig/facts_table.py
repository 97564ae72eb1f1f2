"""Facts of all resources, kept up to date, and what a change of them makes stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from bgp.families import IPAddress
from integration.bgpconfig.facts import (
    Cluster,
    NodeFacts,
    NodeSettings,
    read_cluster,
    read_node,
    read_node_settings,
)
from integration.bgpconfig.nodeconfig import Environment
from integration.bgpconfig.peers import PeerFacts, read_peer
from integration.bgpconfig.pools import Pool, read_pool
from integration.bgpconfig.problems import Notes, Problem
from integration.bgpconfig.snapshot import Snapshot
from integration.resources.base import Resource
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPConfiguration, BGPFilter, BGPPeer
from integration.resources.models.ipam import IPPool
from integration.resources.models.kubernetes import EndpointSlice
from integration.resources.models.nodes import Node
from integration.resources.validate import validate

DEFAULT = Key("BGPConfiguration", "default")


@dataclass(slots=True)
class Stale:
    """What has to be worked out again. `all_peers`: something that every peer depends on has changed."""

    all_peers: bool = False
    nodes: set[str] = field(default_factory=set)
    addresses: set[IPAddress] = field(default_factory=set)  # which nodes own them is another than before
    peers: set[str] = field(default_factory=set)
    filters: set[str] = field(default_factory=set)
    secrets: bool = False
    policies: bool = False
    routes: bool = False
    kernel: bool = False
    workloads: bool = False
    services: set[Key] = field(default_factory=set)
    all_services: bool = False


class FactsTable:
    def __init__(self, node: str, snapshot: Snapshot, environment: Environment) -> None:
        self.node = node
        self.snapshot = snapshot
        self.environment = environment
        self.cluster = self.with_environment(Cluster())
        self.nodes: dict[str, NodeFacts] = {}
        self.owners: dict[IPAddress, dict[str, NodeFacts]] = {}
        self.settings: dict[str, NodeSettings] = {}
        self.peers: dict[str, PeerFacts] = {}
        self.pools: dict[Key, Pool] = {}
        self.slices: dict[Key, dict[Key, EndpointSlice]] = {}  # by service
        self.service_of: dict[Key, Key] = {}  # by slice
        self.problems: dict[Key, tuple[Problem, ...]] = {}
        self.readers: dict[str, Callable[[Key, Notes, Stale], None]] = {
            "Node": self.node_changed,
            "BGPConfiguration": self.configuration_changed,
            "BGPPeer": self.peer_changed,
            "BGPFilter": self.filter_changed,
            "IPPool": self.pool_changed,
            "BlockAffinity": self.affinity_changed,
            "Service": lambda key, _notes, stale: stale.services.add(key),
            "EndpointSlice": self.slice_changed,
            "Secret": self.secret_changed,
        }

    @property
    def me(self) -> NodeFacts:
        return self.nodes.get(self.node) or NodeFacts(name=self.node)

    def read(self, key: Key, stale: Stale) -> None:
        """The resource is another, or gone."""
        notes = Notes()
        self.readers.get(key.kind, self.workload_changed)(key, notes, stale)
        found = [Problem(key, one.field, one.reason) for one in self.snapshot.unreadable.get(key, ())]
        problems = (*found, *notes)
        if problems:
            self.problems[key] = problems
        else:
            self.problems.pop(key, None)

    # --- one kind after the other -----------------------------------------------------------------------------------

    def node_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        resource = self.snapshot.get(Node, key)
        before = self.nodes.get(key.name)
        after = None if resource is None else read_node(key, resource, notes)
        if key.name == self.node:
            stale.all_services = True  # what Kubernetes calls us may be another
        if before == after:
            return
        for address in () if before is None else before.addresses:
            self.owners[address].pop(key.name)
        if after is None:
            self.nodes.pop(key.name)
        else:
            self.nodes[key.name] = after
            for address in after.addresses:
                self.owners.setdefault(address, {})[key.name] = after
        facts = [one for one in (before, after) if one is not None]
        stale.addresses.update(address for one in facts for address in one.addresses)
        stale.nodes.add(key.name)
        if key.name == self.node:
            stale.all_peers = stale.policies = stale.routes = stale.kernel = stale.all_services = True
        elif any(self.me.has_wireguard) and any(any(one.has_wireguard) for one in facts):
            stale.kernel = True

    def configuration_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        resource = self.snapshot.get(BGPConfiguration, key)
        if key == DEFAULT:
            cluster = self.with_environment(Cluster() if resource is None else read_cluster(key, resource, notes))
            if cluster != self.cluster:
                self.cluster = cluster
                stale.all_peers = stale.policies = stale.routes = stale.kernel = stale.all_services = True
        elif key.name.startswith("node."):
            name = key.name.removeprefix("node.")
            before = self.settings.pop(name, None)
            if resource is not None:
                self.settings[name] = read_node_settings(key, resource, notes)
            after = self.settings.get(name)
            if before == after:
                pass
            elif name == self.node:
                stale.all_peers = stale.policies = stale.routes = True
            elif (before and before.port) != (after and after.port):
                stale.nodes.add(name)
                stale.addresses.update(self.nodes[name].addresses if name in self.nodes else ())
        elif resource is not None:
            notes.note(key, "metadata.name", "is neither default nor node.NAME; the resource is passed over")
            return
        self.validated(key, resource, notes)

    def with_environment(self, cluster: Cluster) -> Cluster:
        if not self.environment.cluster_ips:
            return cluster
        return replace(cluster, cluster_ips=(ip_network(self.environment.cluster_ips, strict=False),))

    def peer_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        resource = self.snapshot.get(BGPPeer, key)
        after = None if resource is None else read_peer(key, resource, notes)
        before = self.peers.pop(key.name, None)
        if after is not None:
            self.peers[key.name] = after
        if before != after:
            stale.peers.add(key.name)
            stale.workloads |= any(one is not None and one.workloads is not None for one in (before, after))
        self.validated(key, resource, notes)

    def filter_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        stale.filters.add(key.name)
        self.validated(key, self.snapshot.get(BGPFilter, key), notes)

    def pool_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        resource = self.snapshot.get(IPPool, key)
        before = self.pools.pop(key, None)
        after = None if resource is None else read_pool(key, resource, notes)
        if after is not None:
            self.pools[key] = after
        if before != after:
            stale.policies = stale.routes = stale.kernel = True
        self.validated(key, resource, notes)

    def affinity_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        if key.namespace == f"host:{self.node}":
            stale.policies = stale.routes = True

    def slice_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        resource = self.snapshot.get(EndpointSlice, key)
        before = self.service_of.pop(key, None)
        if before is not None:
            self.slices[before].pop(key)
            stale.services.add(before)
        if resource is not None and resource.service:
            service = Key("Service", resource.service, key.namespace)
            self.service_of[key] = service
            self.slices.setdefault(service, {})[key] = resource
            stale.services.add(service)

    def secret_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        stale.secrets |= key.namespace == self.environment.secret_namespace

    def workload_changed(self, key: Key, notes: Notes, stale: Stale) -> None:
        """Workloads, and what they inherit labels from."""
        stale.workloads = True

    def validated(self, key: Key, resource: Resource | None, notes: Notes) -> None:
        """Note also what Calico would not have let in, if it was not noted with what follows from it."""
        if resource is None:
            return
        noted = {one.field for one in notes}
        for problem in validate(resource):
            if not any(problem.field.startswith(one) or one.startswith(problem.field) for one in noted):
                value = "" if problem.value is None else f"{problem.value!r} "
                allowed = f"; allowed: {problem.allowed}" if problem.allowed else ""
                notes.note(key, problem.field, f"{value}{problem.reason}{allowed}")

    def pools_in_order(self) -> list[Pool]:
        return sorted(self.pools.values(), key=lambda pool: (str(pool.network), pool.name))
