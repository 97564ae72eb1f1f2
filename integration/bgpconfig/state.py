"""The configuration of one node, kept up to date: a change works out again what depends on it, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from bgp.config import OriginateConfig, Policy, PolicyRule, SpeakerConfig
from bgp.families import IPAddress, IPNetwork
from integration.bgpconfig.facts import BGP_PORT, Reader, router_id_of
from integration.bgpconfig.facts_table import FactsTable, Stale
from integration.bgpconfig.filters import DIRECTIONS, Direction, filter_rules
from integration.bgpconfig.nodeconfig import Environment, NodeConfig, StaticRoute
from integration.bgpconfig.peer_table import PeerTable
from integration.bgpconfig.peers import Records
from integration.bgpconfig.policies import export_policy, host, import_policy
from integration.bgpconfig.problems import Notes, Problem
from integration.bgpconfig.routes import export_inputs, kernel_config, originated, own_blocks
from integration.bgpconfig.services import networks_announced
from integration.bgpconfig.sessions import Passwords, Sessions
from integration.bgpconfig.snapshot import Snapshot, kubernetes_name
from integration.bgpconfig.workloads import peering_workloads
from integration.resources.base import Model
from integration.resources.fields import parse_address
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPFilter
from integration.resources.models.ipam import BlockAffinity
from integration.resources.models.kubernetes import Secret, Service
from integration.resources.models.nodes import Node

MULTIPATH = 16  # BIRD's merge paths
PoliciesKey = tuple[int, tuple[str, ...]]


class NodeState:
    """Give it resources as they come, in any order; ask it for `config()` when all of a batch are in."""

    def __init__(self, node: str, environment: Environment = Environment(), snapshot: Snapshot | None = None) -> None:  # noqa: B008
        self.node = node
        self.environment = environment
        self.snapshot = Snapshot() if snapshot is None else snapshot
        self.facts = FactsTable(node, self.snapshot, environment)
        self.table = PeerTable()
        self._touched: dict[Key, None] = {key: None for key, _ in self.snapshot.items()}
        self._touched |= dict.fromkeys(self.snapshot.unreadable)
        self._policies: dict[PoliciesKey, tuple[Policy, Policy]] = {}
        self._rules: dict[tuple[str, Direction, int], tuple[PolicyRule, ...]] = {}
        self._services: dict[Key, tuple[IPNetwork, ...]] = {}
        self._problems: dict[object, tuple[Problem, ...]] = {}
        self._originate: tuple[OriginateConfig, ...] = ()
        self._kernel = kernel_config(self.facts.me, self.facts.cluster, (), (), environment.workload_interfaces)
        self._config: NodeConfig | None = None

    def apply(self, key: Key, resource: Model | None) -> None:
        """The resource is now this; None: it is gone."""
        self.snapshot.apply(key, resource)
        self._touched[key] = None

    def apply_json(self, key: Key, value: Mapping[str, Any] | None) -> None:
        """The same with the stored JSON object, which need not be readable."""
        self.snapshot.apply_json(key, value)
        self._touched[key] = None

    def config(self) -> NodeConfig:
        """The configuration as of all that was applied; the same object if nothing changed it."""
        if self._touched or self._config is None:
            touched, self._touched = self._touched, {}
            stale = Stale(all_peers=self._config is None, policies=self._config is None)
            for key in touched:
                self.facts.read(key, stale)
            self._settle(stale)
            made = self._assembled()
            self._config = made if made != self._config else self._config
        assert self._config is not None
        return self._config

    # --- what is stale ----------------------------------------------------------------------------------------------

    def _settle(self, stale: Stale) -> None:
        facts = self.facts
        if stale.all_services:
            stale.services.update(key for key in self.snapshot.of(Service))
        for service in stale.services:
            self._read_service(service)
        if stale.services or stale.routes:
            self._originate_again()
        if stale.kernel:
            self._kernel = kernel_config(
                facts.me,
                facts.cluster,
                facts.pools_in_order(),
                facts.nodes.values(),
                self.environment.workload_interfaces,
            )
        if stale.policies or stale.filters:
            self._policies_again(stale)
        if stale.filters or stale.peers:
            self._look_for_filters()
        self._records_again(stale)
        passwords = Passwords(self.environment.secret_namespace, lambda key: self.snapshot.get(Secret, key))
        if stale.all_peers:
            self.table.remake_all()
        elif stale.secrets:
            self.table.remake_protected()
        self.table.settle(Sessions(facts.me, facts.cluster, passwords, self.policies))
        if stale.policies or stale.filters:
            self.table.use(self.policies)
        self._policies = {key: self._policies[key] for key in self.table.policies_in_use()}

    def _records_again(self, stale: Stale) -> None:
        facts, table = self.facts, self.table
        records = Records(facts.me, facts.cluster, facts.settings)
        peers = facts.peers.keys() | stale.peers if stale.all_peers else stale.peers
        nodes = facts.nodes.keys() | stale.nodes if stale.all_peers else stale.nodes
        for name in peers:
            peer = facts.peers.get(name)
            if peer is None or peer.workloads is not None:
                table.forget(name)
                continue
            table.put((name, "address", ""), records.with_address(peer, self._owners(peer.address)))
            reach = records.reach(peer)
            for other in facts.nodes.values() if any(reach) else ():
                table.put((name, "node", other.name), records.with_node(peer, other, reach))
            if not any(reach):
                table.forget(name, "node")
        reaches = [(peer, records.reach(peer)) for peer in facts.peers.values() if peer.key.name not in peers]
        for name in nodes:
            known = facts.nodes.get(name)
            table.put(("", "node", name), () if known is None else records.in_mesh(known))
            if known is None:
                for gone_for in facts.peers:
                    table.put((gone_for, "node", name), ())
                continue
            for peer, reach in reaches:
                table.put((peer.key.name, "node", name), records.with_node(peer, known, reach) if any(reach) else ())
        for peer in facts.peers.values():
            if peer.address in stale.addresses and peer.key.name not in peers and peer.workloads is None:
                table.put((peer.key.name, "address", ""), records.with_address(peer, self._owners(peer.address)))
        if stale.workloads or stale.all_peers:
            for name in facts.peers:
                table.forget(name, "workload")
            for peer, workload, addresses in peering_workloads(facts.me, facts.peers.values(), self.snapshot):
                made = (records.with_workload(peer, workload, address) for address in addresses)
                table.put((peer.key.name, "workload", str(workload)), made)

    def _owners(self, address: IPAddress | None) -> list[Any]:
        owners = self.facts.owners.get(address, {}) if address is not None else {}
        return [owners[name] for name in sorted(owners)]

    def _read_service(self, key: Key) -> None:
        service, notes = self.snapshot.get(Service, key), Notes()
        self._services.pop(key, None)
        if service is not None:
            slices = self.facts.slices.get(key, {}).values()
            me = kubernetes_name(self.snapshot.get(Node, Key("Node", self.node)), self.node)
            me = self.environment.kubernetes_node or me
            if found := networks_announced(key, service, slices, self.facts.cluster, me, notes):
                self._services[key] = found
        self._note(key, notes)

    def _originate_again(self) -> None:
        facts = self.facts
        services = [network for key in sorted(self._services) for network in self._services[key]]
        self._originate = originated(facts.me, facts.cluster, facts.pools_in_order(), self._blocks(), services)

    def _blocks(self) -> dict[IPNetwork, bool]:
        if self.environment.uses_pod_cidr:
            return dict.fromkeys(self.facts.me.pod_networks, True)
        holder = f"host:{self.node}"
        return own_blocks({key: one for key, one in self.snapshot.of(BlockAffinity).items() if key.namespace == holder})

    # --- policies ---------------------------------------------------------------------------------------------------

    def _policies_again(self, stale: Stale) -> None:
        """Make those anew that may come out otherwise; those that do not stay the same objects."""
        for name in stale.filters:
            self._read_filter(name)
        known = dict(self._policies)
        for key, before in known.items():
            if stale.policies or stale.filters.intersection(key[1]):
                del self._policies[key]
                after = self.policies(*key)
                kept = tuple(old if old == new else new for old, new in zip(before, after, strict=True))
                self._policies[key] = (kept[0], kept[1])

    def _read_filter(self, name: str) -> None:
        key, notes = Key("BGPFilter", name), Notes()
        resource = self.snapshot.get(BGPFilter, key)
        for direction in DIRECTIONS:
            for version in (4, 6):
                rules: tuple[PolicyRule, ...] = ()
                if resource is not None:
                    rules = filter_rules(key, resource, direction, version, notes)
                elif key in self.snapshot.unreadable:
                    rules = (PolicyRule(action="reject", label=f"BGPFilter {name}, which cannot be read"),)
                self._rules[name, direction, version] = rules
        self._note(key, notes)

    def _look_for_filters(self) -> None:
        """Note the BGPFilters that BGPPeers name and that are not there."""
        for peer in self.facts.peers.values():
            notes = Notes()
            for at, name in enumerate(peer.filters):
                key = Key("BGPFilter", name)
                if self.snapshot.get(BGPFilter, key) is None:
                    is_broken = key in self.snapshot.unreadable
                    what = "cannot be read; no route passes" if is_broken else "does not exist; it is passed over"
                    notes.note(peer.key, f"spec.filters[{at}]", f"{key} {what}")
            self._note(("filters", peer.key), notes)
        for place in [place for place in self._problems if isinstance(place, tuple)]:
            if place[1].name not in self.facts.peers:
                del self._problems[place]

    def policies(self, version: int, filters: tuple[str, ...]) -> tuple[Policy, Policy]:
        """Import and export policy of peers with these BGPFilters; one object for all of them."""
        key = (version, filters)
        if key not in self._policies:
            facts = self.facts
            label = f"ipv{version}" + "".join(f" {name}" for name in filters)
            inputs = export_inputs(
                version,
                facts.me,
                facts.cluster,
                facts.settings.get(self.node),
                facts.pools_in_order(),
                self._blocks(),
            )
            self._policies[key] = (
                import_policy(self._filtered("import", version, filters), f"import {label}"),
                export_policy(inputs, self._filtered("export", version, filters), f"export {label}"),
            )
        return self._policies[key]

    def _filtered(self, direction: Direction, version: int, filters: tuple[str, ...]) -> list[PolicyRule]:
        return [rule for name in filters for rule in self._rules.get((name, direction, version), ())]

    # --- all together -----------------------------------------------------------------------------------------------

    def _note(self, place: object, notes: Notes) -> None:
        self._problems.pop(place, None)
        if notes.found:
            self._problems[place] = tuple(notes.found)

    def _assembled(self) -> NodeConfig:
        facts, notes = self.facts, Notes()
        me, cluster, own = facts.me, facts.cluster, facts.settings.get(self.node)
        node_key = Key("Node", self.node)
        reader = Reader(node_key, notes)
        if self.node not in facts.nodes:
            reader.note("", "does not exist; this node has no addresses, and so no peers")
        elif not me.addresses:
            reader.note("spec.bgp", "has no address; this node has no peers")
        sessions = self.table.in_order()
        wildcards: tuple[IPAddress, ...] = tuple(
            ip_address("0.0.0.0" if a.version == 4 else "::") for a in me.addresses
        )
        reports = tuple(session.report for session in sessions)
        speaker = SpeakerConfig(
            asn=me.asn or cluster.asn,
            router_id=router_id_of(me, self.node, self.environment.router_id, reader),
            listen=me.addresses if cluster.binds_node_ip else wildcards,
            port=(own.port if own is not None else None) or cluster.port or BGP_PORT,
            control=self.environment.control,
            metrics=self.environment.metrics,
            multipath_ebgp=MULTIPATH,
            multipath_ibgp=MULTIPATH,
            cluster_id=reader.read(
                "spec.bgp.routeReflectorClusterID", me.cluster, parse_address, "the router ID is used"
            ),
            peers=tuple(report.config for report in reports),
            originate=self._originate,
            kernel=self._kernel,
        )
        statics = {
            StaticRoute(host(session.record.address), session.record.reachable_by)
            for session in sessions
            if session.record.reachable_by is not None
        }
        return NodeConfig(
            node=self.node,
            speaker=speaker,
            peers=reports,
            problems=self._all_problems(notes),
            static_routes=tuple(sorted(statics, key=str)),
            workload_addresses=cluster.workload_peering,
            log_level=(own.log_level if own is not None else "") or cluster.log_level,
        )

    def _all_problems(self, notes: Notes) -> tuple[Problem, ...]:
        found = {*notes, *self.table.problems(), *self.table.twice(self.facts.peers.values())}
        for problems in (*self._problems.values(), *self.facts.problems.values()):
            found.update(problems)
        return tuple(sorted(found))


def build(snapshot: Snapshot, node: str, environment: Environment = Environment()) -> NodeConfig:  # noqa: B008
    """The configuration of this node's speaker. Never raises because of what the resources say: see its `problems`."""
    return NodeState(node, environment, snapshot).config()
