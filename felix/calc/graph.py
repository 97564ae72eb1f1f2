"""The calculation: resources in, in any order, what this node needs out (Calico's calculation graph).

`update` reads a resource and notes it; `flush` works off what was noted and says what is different now. Both depend on
nothing but what the resources say: from any state to any state the sum of what was said is the same.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from felix.calc import configuration, endpoints, migrations, nodes, policies, pools, services
from felix.calc.active import ActivePolicies
from felix.calc.addresses import Net
from felix.calc.configuration import LocalPeer
from felix.calc.ip_sets import IPSets
from felix.calc.local import CalculationSettings, host_endpoint, workload_endpoint
from felix.calc.outbox import Told, in_order
from felix.calc.policies import DEFAULT_ALLOW, OWN_TIERS
from felix.calc.reading import UNREADABLE, checked_name
from felix.calc.routes import Routes
from felix.calc.selectors import OF_NAMESPACE, OF_SERVICE_ACCOUNT
from felix.desired import (
    VTEP,
    ConfigUpdate,
    EncapsulationUpdate,
    Host,
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    HostRemove,
    HostUpdate,
    InSync,
    Message,
    NamespaceRemove,
    NamespaceUpdate,
    PolicyId,
    Pool,
    PoolRemove,
    PoolUpdate,
    ServiceAccountRemove,
    ServiceAccountUpdate,
    VTEPRemove,
    VTEPUpdate,
    WireguardPeer,
    WireguardRemove,
    WireguardUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from integration.resources.keys import Key

POLICY_KINDS = (
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
)
DEFAULT_ALLOW_RULES = {"spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}}
Reader = Callable[[Key, Mapping[str, Any]], Any]
Step = Callable[[Key, Any, Any], None]


@dataclass(frozen=True, slots=True)
class Statistics:
    """For Calico's metrics `felix_active_local_…` and `felix_cluster_num_…`."""

    active_local_endpoints: int
    active_local_policies: int
    active_local_selectors: int
    cluster_num_hosts: int
    cluster_num_host_endpoints: int
    cluster_num_workload_endpoints: int
    cluster_num_policies: int
    cluster_num_profiles: int
    cluster_num_tiers: int


class CalculationGraph:
    """Not for several threads at once. Kinds that say nothing to Felix are ignored."""

    def __init__(self, node: str, settings: CalculationSettings | None = None) -> None:
        self._node = node
        self._settings = settings or CalculationSettings()
        self._unreadable: dict[Key, str] = {}
        self._bad_rules: dict[Key, str] = {}
        self.problems: Mapping[Key, str] = ChainMap(self._unreadable, self._bad_rules)
        """Resources that are invalid, and so treated as absent, each with the reason. A policy's rules are looked at
        only where this node needs them."""
        self._pending: dict[Key, Any] = {}  # None: gone
        self._is_in_sync = self._has_told_sync = False
        self._ip_sets = IPSets()
        self._active = ActivePolicies(self._ip_sets, self._rules_checked)
        self._routes = Routes(node)
        self._local: dict[str, endpoints.Workload | endpoints.HostRecord] = {}
        self._pools_at: dict[Net, dict[str, pools.PoolRecord]] = {}
        self._dirty_pools: set[Net] = set()
        self._out: list[Message] = []
        self._workloads: Told[WorkloadId, WorkloadEndpoint] = Told(WorkloadUpdate, WorkloadRemove)
        self._host_endpoints: Told[str, HostEndpoint] = Told(HostEndpointUpdate, HostEndpointRemove)
        self._ids: dict[str, WorkloadId] = {}  # item → what it was told as
        self._hosts: Told[str, Host] = Told(HostUpdate, HostRemove)
        self._vteps: Told[str, VTEP] = Told(VTEPUpdate, VTEPRemove)
        self._wireguard: Told[str, WireguardPeer] = Told(WireguardUpdate, WireguardRemove)
        self._told_pools: Told[str, Pool] = Told(PoolUpdate, PoolRemove)
        self._told_namespaces: Told[str, NamespaceUpdate] = Told(lambda said: said, NamespaceRemove)
        self._told_accounts: Told[tuple[str, str], ServiceAccountUpdate] = Told(
            lambda said: said, lambda key: ServiceAccountRemove(*key)
        )
        self._told_config: ConfigUpdate | None = None
        self._told_encapsulation: EncapsulationUpdate | None = None
        self._told_bgp = configuration.BgpConfiguration()
        # Kinds in the order in which a flush takes them: what labels and addresses there are, before who asks for them.
        self._kinds: dict[str, tuple[Reader, Step]] = {
            "Profile": (policies.read_profile, self._set_profile),
            "Tier": (policies.read_tier, lambda key, _, new: self._active.set_tier(key.name, new)),
            "WorkloadEndpoint": (self._read_workload, self._set_workload),
            "HostEndpoint": (endpoints.read_host_endpoint, self._set_host_endpoint),
            "GlobalNetworkSet": (endpoints.read_network_set, self._set_network_set),
            "NetworkSet": (endpoints.read_network_set, self._set_network_set),
            "EndpointSlice": (services.read_slice, self._set_slice),
            **dict.fromkeys(POLICY_KINDS, (policies.read_policy, self._set_policy)),
            "Node": (nodes.read_node, self._set_node),
            "IPPool": (pools.read_pool, self._set_pool),
            "IPAMBlock": (pools.read_block, self._set_block),
            "FelixConfiguration": (configuration.read_layer, nothing),
            "ClusterInformation": (configuration.cluster_parameters, nothing),
            "BGPConfiguration": (configuration.read_bgp_configuration, nothing),
            "BGPPeer": (configuration.read_local_peer, self._workloads_concerned),
            "LiveMigration": (migrations.read_migration, self._workloads_concerned),
        }
        self._current: dict[str, dict[Key, Any]] = {kind: {} for kind in self._kinds}
        self._add_default_allow()

    # --- in ---------------------------------------------------------------------------------------------------------

    def update(self, key: Key, value: Mapping[str, Any] | None) -> None:
        """What lies at the key now, as JSON object; None: nothing. Never raises because of what is in the resource."""
        known = self._kinds.get(key.kind)
        if known is None:
            return
        record = None
        self._unreadable.pop(key, None)
        if value is not None:
            try:
                check_names(key)
                record = known[0](key, value)
            except UNREADABLE as error:
                self._unreadable[key] = str(error) or f"cannot be read: {error!r}"
        self._pending[key] = record
        if record is None and key == Key("Profile", DEFAULT_ALLOW):
            self._add_default_allow()

    def in_sync(self) -> None:
        """Everything of the datastore has been given once."""
        self._is_in_sync = True

    def reconfigure(self, settings: CalculationSettings) -> None:
        if settings == self._settings:
            return
        self._move_routes(step_out=True)
        self._settings = settings
        self._move_routes(step_out=False)
        self._workloads_concerned(None, None, None)

    def _add_default_allow(self) -> None:
        """Calico's clients show this profile, and never store it."""
        key = Key("Profile", DEFAULT_ALLOW)
        self._pending[key] = policies.read_profile(key, DEFAULT_ALLOW_RULES)

    def _read_workload(self, key: Key, value: Mapping[str, Any]) -> endpoints.Workload | None:
        return endpoints.read_workload(key, value, self._node)

    def _rules_checked(self, id: PolicyId, reason: str | None) -> None:
        key = Key(id.kind, id.name, id.namespace)
        if reason is None:
            self._bad_rules.pop(key, None)
        else:
            self._bad_rules[key] = reason

    # --- out --------------------------------------------------------------------------------------------------------

    def flush(self) -> list[Message]:
        """What is different now, in an order that is safe at every step. Nothing before `in_sync`."""
        if not self._is_in_sync:
            return []
        self._work_off()
        self._active.flush(self._out)
        self._say_local_endpoints()
        self._ip_sets.flush(self._out)
        self._routes.flush(self._out)
        self._say_pools()
        self._say_configuration()
        if not self._has_told_sync:
            self._has_told_sync = True
            self._out.append(InSync())
        found, self._out = in_order(self._out), []
        return found

    def _work_off(self) -> None:
        by_kind: dict[str, list[tuple[Key, Any]]] = {}
        for key, record in self._pending.items():
            by_kind.setdefault(key.kind, []).append((key, record))
        self._pending.clear()
        for kind, (_, step) in self._kinds.items():
            current = self._current[kind]
            # Sorted, so that what is said does not depend on what came first.
            for key, new in sorted(by_kind.get(kind, ()), key=lambda entry: (entry[0].namespace, entry[0].name)):
                old = current.get(key)
                if old == new:
                    continue
                if new is None:
                    del current[key]
                else:
                    current[key] = new
                step(key, old, new)

    # --- policies, endpoints, IP sets -------------------------------------------------------------------------------

    def _set_profile(self, key: Key, _: object, new: policies.ProfileRecord | None) -> None:
        labels = new.labels if new else {}
        self._ip_sets.set_profile(key.name, labels)
        self._active.set_profile(key.name, new)
        kind, _dot, name = key.name.partition(".")
        if kind == "kns" and name:
            told = NamespaceUpdate(name, stripped(labels, OF_NAMESPACE)) if new else None
            self._told_namespaces.say(self._out, name, told)
        elif kind == "ksa" and "." in name:
            space, _dot, account = name.partition(".")
            said = ServiceAccountUpdate(space, account, stripped(labels, OF_SERVICE_ACCOUNT)) if new else None
            self._told_accounts.say(self._out, (space, account), said)

    def _set_policy(self, key: Key, _: object, new: policies.PolicyRecord | None) -> None:
        self._active.set_policy(PolicyId(key.kind, key.namespace, key.name), new)

    def _set_workload(self, key: Key, old: endpoints.Workload | None, new: endpoints.Workload | None) -> None:
        item = f"w/{key.namespace}/{key.name}"
        self._ip_sets.set_item(item, new.addressed if new else None)
        record = new or old
        is_local = bool(record and record.details)
        if is_local:
            self._set_local(item, new)
        if is_local or self._settings.route_source == "WorkloadIPs":
            self._routes.set_workload(
                record.node if record else "", old.addressed.nets if old else (), new.addressed.nets if new else ()
            )

    def _set_local(self, item: str, new: endpoints.Workload | endpoints.HostRecord | None) -> None:
        if new is None:
            self._local.pop(item, None)
        else:
            self._local[item] = new
        self._active.set_endpoint(item, new.addressed if new else None)

    def _set_host_endpoint(self, key: Key, old: endpoints.HostRecord | None, new: endpoints.HostRecord | None) -> None:
        item = f"h/{key.name}"
        self._ip_sets.set_item(item, new.addressed if new else None)
        is_ours, was_ours = (bool(record and record.node == self._node) for record in (new, old))
        if is_ours or was_ours:
            self._set_local(item, new if is_ours else None)

    def _set_network_set(self, key: Key, _: object, new: endpoints.Addressed | None) -> None:
        self._ip_sets.set_item(f"n/{key.namespace}/{key.name}", new)

    def _set_slice(self, key: Key, _: object, new: services.Slice | None) -> None:
        self._ip_sets.set_slice(f"{key.namespace}/{key.name}", new)

    def _workloads_concerned(self, _key: object, _old: object, _new: object) -> None:
        """Something that is asked of every local workload has changed."""
        self._active.dirty_endpoints |= {item for item in self._local if item.startswith("w/")}

    def _say_local_endpoints(self) -> None:
        dirty, self._active.dirty_endpoints = self._active.dirty_endpoints, set()
        peers = self._local_peers()
        moves = list(self._current["LiveMigration"].values())
        for item in sorted(dirty):
            record = self._local.get(item)
            if record is None:
                if item.startswith("h/"):
                    self._host_endpoints.say(self._out, item[2:], None)
                elif item in self._ids:
                    self._workloads.say(self._out, self._ids.pop(item), None)
            elif isinstance(record, endpoints.HostRecord):
                self._host_endpoints.say(self._out, record.name, host_endpoint(record, self._active.tiers(item)))
            else:
                labels, tiers = self._active.labels(item), self._active.tiers(item)
                self._ids[item] = record.id
                found = workload_endpoint(record, tiers, labels, self._settings, peers, moves)
                self._workloads.say(self._out, record.id, found)
        self._active.endpoints_said()

    def _local_peers(self) -> list[tuple[str, LocalPeer]]:
        node = self._our_node()
        labels = node.labels if node else {}
        found = self._current["BGPPeer"].items()
        return sorted((key.name, peer) for key, peer in found if peer.is_for(self._node, labels))

    # --- nodes, pools, routes ---------------------------------------------------------------------------------------

    def _our_node(self) -> nodes.NodeRecord | None:
        found: nodes.NodeRecord | None = self._current["Node"].get(Key("Node", self._node))
        return found

    def _set_node(self, key: Key, old: nodes.NodeRecord | None, new: nodes.NodeRecord | None) -> None:
        self._hosts.say(self._out, key.name, nodes.host_of(new) if new else None)
        self._vteps.say(self._out, key.name, nodes.vtep_of(new) if new else None)
        self._wireguard.say(self._out, key.name, new.wireguard if new else None)
        self._routes.set_node(key.name, new)
        if key.name == self._node and self._current["BGPPeer"]:
            self._workloads_concerned(key, old, new)

    def _set_pool(self, key: Key, old: pools.PoolRecord | None, new: pools.PoolRecord | None) -> None:
        """Where two pools have one CIDR, the first by name counts."""
        for record in (old, new):
            if record is None:
                continue
            named = self._pools_at.setdefault(record.net, {})
            if record is new:
                named[key.name] = record
            elif new is None or new.net != record.net:
                named.pop(key.name, None)
            winner = named[min(named)] if named else None
            if not named:
                del self._pools_at[record.net]
            self._dirty_pools.add(record.net)  # said once a flush, for several may have had it on the way
            self._routes.set_pool(record.net, winner)

    def _say_pools(self) -> None:
        for net in sorted(self._dirty_pools):
            named = self._pools_at.get(net)
            self._told_pools.say(self._out, str(net), named[min(named)].pool if named else None)
        self._dirty_pools.clear()

    def _set_block(self, _: Key, old: pools.Block | None, new: pools.Block | None) -> None:
        if self._settings.route_source == "CalicoIPAM":
            self._routes.set_block(old, new)

    def _move_routes(self, *, step_out: bool) -> None:
        """Take all out of the routes, or put it in, that the source of routes decides about."""
        if self._settings.route_source == "CalicoIPAM":
            for block in self._current["IPAMBlock"].values():
                self._routes.set_block(block if step_out else None, None if step_out else block)
        for record in self._current["WorkloadEndpoint"].values():
            if record.details or self._settings.route_source == "WorkloadIPs":
                nets = record.addressed.nets
                self._routes.set_workload(record.node, nets if step_out else (), () if step_out else nets)

    # --- configuration ----------------------------------------------------------------------------------------------

    def _say_configuration(self) -> None:
        node = self._our_node()
        layers = {key.name: layer for key, layer in self._current["FelixConfiguration"].items()}
        cluster = self._current["ClusterInformation"].get(Key("ClusterInformation", "default"), {})
        config = configuration.config_update(
            self._node, layers, cluster, node.labels if node else None, nodes.parameters_of_node(node)
        )
        if config != self._told_config:
            self._told_config = config
            self._out.append(config)
        unsaid = configuration.BgpConfiguration()
        bgp = self._current["BGPConfiguration"].get(Key("BGPConfiguration", "default"), unsaid)
        self._out += [new for new, told in zip(bgp, self._told_bgp, strict=True) if new != told]
        self._told_bgp = bgp
        records = self._current["IPPool"].values()
        encapsulation = EncapsulationUpdate(
            any(record.type == "ipip" for record in records),
            any(record.type == "vxlan" and record.net.version == 4 for record in records),
            any(record.type == "vxlan" and record.net.version == 6 for record in records),
        )
        if encapsulation != self._told_encapsulation:
            self._told_encapsulation = encapsulation
            self._out.append(encapsulation)

    def statistics(self) -> Statistics:
        count = {kind: len(found) for kind, found in self._current.items()}
        return Statistics(
            len(self._local),
            len(self._active.policies.values),
            len(self._ip_sets),
            count["Node"],
            count["HostEndpoint"],
            count["WorkloadEndpoint"],
            sum(count[kind] for kind in POLICY_KINDS),
            count["Profile"],
            len({*OWN_TIERS, *(key.name for key in self._current["Tier"])}),
        )


def check_names(key: Key) -> None:
    if key.kind == "IPAMBlock":
        return  # a CIDR, and what it says of itself counts
    checked_name(key.name, "metadata.name")
    if key.namespace:
        checked_name(key.namespace, "metadata.namespace")


def nothing(_key: Key, _old: object, _new: object) -> None:
    """It is looked at as it stands at each flush."""


def stripped(labels: Mapping[str, str], prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((label.removeprefix(prefix), value) for label, value in labels.items() if label.startswith(prefix))
    )
