"""From the calculation's messages to one packet filter's chains, sets and maps. Pure; only what a message touches is built.

Only `apply` is a coroutine: it awaits the packet filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from felix.claims import Claims
from felix.desired import (
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    HostRemove,
    HostUpdate,
    IPSetDelta,
    IPSetRemove,
    IPSetUpdate,
    IPVersion,
    Message,
    Policy,
    PolicyId,
    PolicyRemove,
    PolicyUpdate,
    PoolRemove,
    PoolUpdate,
    Profile,
    ProfileRemove,
    ProfileUpdate,
    ServiceCIDRsUpdate,
    VTEPRemove,
    VTEPUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from felix.figures import Reading
from felix.filter_rules import Chain, Hook, HookRules, Table
from felix.ports import Failure, PacketFilter
from felix.rules import ipvs, static
from felix.rules.address_sets import AddressSets, whole
from felix.rules.dispatch import workload_dispatch
from felix.rules.endpoints import decides_about_flows, workload_chains
from felix.rules.host_rules import HostRules
from felix.rules.ipvs import EndpointMarks
from felix.rules.marks import marks_of
from felix.rules.nat import nat_chains
from felix.rules.policies import Dialect, OwnedChain, policy_chains, profile_chains
from felix.rules.sections import Section, Sections, SharedChains
from felix.rules.settings import RuleSettings


class RuleProgrammer:
    """One IP version's rules: a Programmer, and an InterfaceListener for host endpoints."""

    def __init__(self, packet_filter: PacketFilter, settings: RuleSettings) -> None:
        self.filter = packet_filter
        self.sets = AddressSets(packet_filter, settings.external_nodes)
        self._sections = Sections(packet_filter)
        self._ip_sets: set[str] = set()  # that policies ask for
        self.policies: dict[PolicyId, Policy] = {}
        self.profiles: dict[str, Profile] = {}
        self.workloads: dict[WorkloadId, WorkloadEndpoint] = {}
        self._services = ServiceCIDRsUpdate()
        self._groups = SharedChains(self._sections)  # of policies
        self.hosts = HostRules(self._sections, self._groups, settings.interface_prefixes, settings.interface_exclude)
        self._dirty_policies: set[PolicyId] = set()
        self._grouped_by: dict[PolicyId, str] = {}  # the selectors by which endpoints' policies were grouped
        self._regrouped: set[PolicyId] = set()  # that have another one now
        self._dirty_profiles: set[str] = set()
        self._dirty_interfaces: set[str] = set()  # of workloads
        self._stale: set[str] = set()  # parts that are built anew as a whole
        self._claims = Claims()
        self._has_ipvs = False  # kube-proxy uses it
        self._asked: set[str] = set()  # interfaces of workloads that known connections must ask
        self._marks_dscp = False
        self._hooked: dict[tuple[Table, Hook], HookRules] = {}
        self._owned: dict[Section, dict[Table, list[OwnedChain]]] = {}
        self.reconfigure(settings)

    def reconfigure(self, settings: RuleSettings) -> None:
        """Everything is built anew; the packet filter writes what differs."""
        self.settings = settings
        marks = marks_of(settings.mark_mask, has_wireguard=bool(settings.wireguard_port or settings.wireguard_port_v6))
        self._endpoint_marks = EndpointMarks(marks)
        self.dialect = Dialect(
            self.filter.version,
            self.filter.has_alternatives,
            self.filter.has_verdict_maps,
            settings,
            marks,
            has_ipvs=self._has_ipvs and bool(marks.endpoint),
        )
        self.hosts.interfaces.prefixes = settings.interface_prefixes
        self.hosts.interfaces.excluded = settings.interface_exclude
        self.sets.set_this_host(self.hosts.interfaces.addresses)
        self.sets.set_external(settings.external_nodes)
        self._dirty_policies |= self.policies.keys()
        self._dirty_profiles |= self.profiles.keys()
        self._dirty_interfaces |= self._claims.owners.keys()
        self._stale |= {"static", "hosts", "dispatch", "nat", "raw", "mangle"}

    # --- what is told ------------------------------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        taker = TAKERS.get(type(message))
        if taker is not None:
            taker(self, message)

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        if name == ipvs.DEVICE and (state != "gone") != self._has_ipvs:
            self._has_ipvs = state != "gone"
            self.reconfigure(self.settings)
        if self.hosts.interfaces.change(name, state, addresses):
            self.sets.set_this_host(self.hosts.interfaces.addresses)
            self._stale.add("hosts")

    def _take_policy(self, message: PolicyUpdate) -> None:
        policy = message.policy
        self.policies[policy.id] = policy
        self._dirty_policies.add(policy.id)
        if self._grouped_by.get(policy.id, policy.selector) != policy.selector:
            self._regrouped.add(policy.id)

    def _take_policy_gone(self, message: PolicyRemove) -> None:
        self.policies.pop(message.id, None)
        self._dirty_policies.add(message.id)
        if self._grouped_by.pop(message.id, None) is not None:
            self._regrouped.add(message.id)

    def _take_profile(self, message: ProfileUpdate) -> None:
        self.profiles[message.profile.name] = message.profile
        self._dirty_profiles.add(message.profile.name)

    def _take_profile_gone(self, message: ProfileRemove) -> None:
        self.profiles.pop(message.name, None)
        self._dirty_profiles.add(message.name)

    def _take_workload(self, message: WorkloadUpdate) -> None:
        endpoint = message.endpoint
        self._workload_changed(self.workloads.get(endpoint.id))
        self.workloads[endpoint.id] = endpoint
        self._workload_changed(endpoint)
        self._ownership_changed(self._claims.claim(endpoint.id, endpoint.interface))

    def _take_workload_gone(self, message: WorkloadRemove) -> None:
        self._workload_changed(self.workloads.pop(message.id, None))
        self._ownership_changed(self._claims.forget(message.id))

    def _workload_changed(self, endpoint: WorkloadEndpoint | None) -> None:
        """Before and after: it may have moved to another interface."""
        if endpoint is not None:
            self._dirty_interfaces.add(endpoint.interface)
            self._stale |= _parts_with(endpoint)

    def _ownership_changed(self, workloads: set[WorkloadId]) -> None:
        """Their interfaces are dirty already: one of them is whose claim changed, and the others had or get the same."""
        if workloads:
            self._stale.add("dispatch")
        for id in workloads:
            self._stale |= _parts_with(self.workloads.get(id))

    def _take_host(self, message: HostEndpointUpdate) -> None:
        self.hosts.endpoints[message.endpoint.name] = message.endpoint
        self._stale |= {"hosts", "mangle"}

    def _take_host_gone(self, message: HostEndpointRemove) -> None:
        self.hosts.endpoints.pop(message.name, None)
        self._stale |= {"hosts", "mangle"}

    def _take_services(self, message: ServiceCIDRsUpdate) -> None:
        self._services = message
        self._stale.add("static")

    def _take_pool(self, message: PoolUpdate | PoolRemove) -> None:
        self.sets.take_pool(message)
        self._stale.add("nat")

    def _take_node(self, message: HostUpdate | HostRemove | VTEPUpdate | VTEPRemove) -> None:
        self.sets.take_node(message)

    def _take_set(self, message: IPSetUpdate) -> None:
        self._ip_sets.add(message.id)
        self.filter.set_ip_set(message.id, message.type, message.members)

    def _take_delta(self, message: IPSetDelta) -> None:
        self.filter.change_ip_set(message.id, message.added, message.removed)

    def _take_set_gone(self, message: IPSetRemove) -> None:
        self._ip_sets.discard(message.id)
        self.filter.remove_ip_set(message.id)

    # --- what follows ------------------------------------------------------------------------------------------------

    async def apply(self, now: float) -> list[Failure]:
        self.complete()
        return await self.filter.apply()

    def complete(self) -> None:
        """Hand over everything that has changed."""
        if self._regrouped:
            self._regroup()
        if "static" in self._stale:
            self._build_static()
        if "hosts" in self._stale:
            self._build_hosts()
        for policy in self._dirty_policies:
            self._build_policy(policy)
        for profile in self._dirty_profiles:
            self._build_profile(profile)
        for interface in self._dirty_interfaces:
            self._build_workload(interface)
        if "dispatch" in self._stale:
            self._build_dispatch()
        if self._stale & {"dispatch", "hosts"}:
            self._build_ipvs()
        if "nat" in self._stale:
            self._build_nat()
        if "raw" in self._stale:
            self._build_raw()
        if "mangle" in self._stale:
            self._build_mangle()
        self._build_hooks()
        self.sets.complete()
        for dirty in (self._dirty_policies, self._dirty_profiles, self._dirty_interfaces, self._stale):
            dirty.clear()

    def _build_static(self) -> None:
        self._sections.put(
            ("static",),
            {"filter": static.filter_chains(self.dialect, self._services)},
        )

    def _build_hooks(self) -> None:
        is_short, settings = self.dialect.is_short, self.settings
        must_ask = settings.filter_allow != "ACCEPT" or settings.leaves_routes or bool(self._asked)
        hooks = static.hooks(
            self.dialect,
            asks_flows=not is_short or must_ask,
            needs_mangle=not is_short or bool(self.hosts.endpoints) or self._marks_dscp,
        )
        for at, rules in hooks.items():
            if self._hooked.get(at) != rules:
                self.filter.set_hook(*at, rules)
        self._hooked = hooks

    def _build_hosts(self) -> None:
        for owner in self.hosts.build(self.dialect, self._selector_of):
            if isinstance(owner, str):
                self._dirty_profiles.add(owner)
            else:
                self._dirty_policies.add(owner)

    def _build_mangle(self) -> None:
        dscp: dict[str, int] = {}
        endpoints: list[WorkloadEndpoint | HostEndpoint] = [*self.hosts.endpoints.values()]
        endpoints += [self.workloads[id] for id in self._claims.owners.values()]
        for one in endpoints:
            if one.qos is not None and one.qos.dscp is not None:
                dscp.update(dict.fromkeys(_nets_of(one, self.filter.version), one.qos.dscp))
        self._marks_dscp = bool(dscp)
        self.sets.set_dscp_sources(dscp)
        self._sections.put(("mangle",), {"mangle": static.mangle_chains(self.dialect.within("mangle"), dscp)})

    def _build_ipvs(self) -> None:
        chains: list[Chain] = []
        maps: dict[str, dict[str, str]] = {}
        if self.dialect.has_ipvs:
            chains, maps = ipvs.chains(
                sorted(self._claims.owners), sorted(self.hosts.on), self._endpoint_marks, self.dialect
            )
        self._sections.put(("ipvs",), {"filter": chains})
        for name, targets in maps.items():
            self.filter.set_map("filter", name, targets)

    def _build_nat(self) -> None:
        nats = [
            pair
            for id in self._claims.owners.values()
            for pair in self.workloads[id].nats
            if (":" in pair[0]) == (self.filter.version == 6)
        ]
        chains = nat_chains(
            self.dialect, has_masqueraded_pools=self.sets.has_masqueraded_pools, nats=nats, tunnels=self._tunnels()
        )
        self._sections.put(("nat",), {"nat": chains})

    def _tunnels(self) -> list[str]:
        settings = self.settings
        if self.filter.version == 4:
            devices = [("tunl0", settings.has_ipip), ("vxlan.calico", settings.has_vxlan)]
            devices.append((settings.wireguard_device, bool(settings.wireguard_port)))
        else:
            devices = [("vxlan-v6.calico", settings.has_vxlan_v6)]
            devices.append((settings.wireguard_device_v6, bool(settings.wireguard_port_v6)))
        return [device for device, is_there in devices if is_there]

    def _build_raw(self) -> None:
        spoofers = [
            (interface, cidr)
            for interface, id in self._claims.owners.items()
            for cidr in self.workloads[id].allowed_source_prefixes
            if self.settings.allows_spoofing
        ]
        self._sections.put(("raw",), {"raw": static.raw_chains(self.dialect.within("raw"), sorted(spoofers))})

    def _build_policy(self, id: PolicyId) -> None:
        policy = self.policies.get(id)
        tables = [] if policy is None else self.tables_of(policy)
        self._put_owned(
            ("policy", *id), {table: policy_chains(policy, self.dialect.within(table)) for table in tables if policy}
        )

    def _build_profile(self, name: str) -> None:
        profile = self.profiles.get(name)
        tables = [] if profile is None else self.tables_of(profile)
        self._put_owned(
            ("profile", name),
            {table: profile_chains(profile, self.dialect.within(table)) for table in tables if profile},
        )

    def _put_owned(self, section: Section, chains: dict[Table, list[OwnedChain]]) -> None:
        self._sections.put(section, {table: [one.chain for one in some] for table, some in chains.items()})
        if chains:
            self._owned[section] = chains
        else:
            self._owned.pop(section, None)

    def owned_chains(self) -> Iterator[tuple[Table, OwnedChain]]:
        """Whose the chains of policies and profiles are, and which of their rules count which of the owner's."""
        for chains in self._owned.values():
            for table, some in chains.items():
                for one in some:
                    yield table, one

    def figures(self) -> Iterator[Reading]:
        version = {"ip_version": str(self.filter.version)}
        yield "felix_ipsets_calico", len(self._ip_sets), version
        for table in get_args(Table):
            labels = {**version, "table": table}
            yield "felix_iptables_chains", self._sections.chains[table], labels
            yield "felix_iptables_rules", self._sections.rules[table], labels

    def tables_of(self, owner: Policy | Profile) -> list[Table]:
        """Where its chains stand."""
        tables: list[Table] = ["filter"]
        if isinstance(owner, Policy):
            tables = ["raw"] if owner.is_untracked else ["mangle"] if owner.is_pre_dnat else ["filter"]
        name = owner.id if isinstance(owner, Policy) else owner.name
        return [*tables, "mangle"] if name in self.hosts.needed_in_mangle and "mangle" not in tables else tables

    def _build_workload(self, interface: str) -> None:
        """By interface, as the chains are named: where two workloads swap theirs, neither takes away the other's."""
        owner = self._claims.owners.get(interface)
        self._asked.discard(interface)
        if owner is None:
            self._groups.drop(("workload", interface))
            return
        endpoint = self.workloads[owner]
        if decides_about_flows(endpoint):
            self._asked.add(interface)
        built = workload_chains(endpoint, self.dialect, self._selector_of)
        self._groups.put(("workload", interface), built.chains, built.groups)

    def _selector_of(self, id: PolicyId) -> str:
        policy = self.policies.get(id)
        selector = self._grouped_by[id] = policy.selector if policy is not None else ""
        return selector

    def _regroup(self) -> None:
        """Endpoints under these policies: neighbours of one selector share a chain."""
        self._dirty_interfaces |= {
            one.interface
            for one in self.workloads.values()
            if any(not self._regrouped.isdisjoint(some) for tier in one.tiers for some in (tier.ingress, tier.egress))
        }
        self._stale.add("hosts")
        self._regrouped.clear()

    def _build_dispatch(self) -> None:
        chains, maps = workload_dispatch(self._claims.owners, self.dialect)
        self._sections.put(("dispatch",), {"filter": chains})
        for name, targets in maps.items():
            self.filter.set_map("filter", name, targets)


def _parts_with(endpoint: WorkloadEndpoint | None) -> set[str]:
    """The parts that tell of it beside its own chains."""
    if endpoint is None:
        return set()
    has = {
        "nat": endpoint.nats,
        "raw": endpoint.allowed_source_prefixes,
        "mangle": endpoint.qos is not None and endpoint.qos.dscp is not None,
    }
    return {part for part, it_has in has.items() if it_has}


def _nets_of(endpoint: WorkloadEndpoint | HostEndpoint, version: IPVersion) -> list[str]:
    nets = endpoint.expected_ips if isinstance(endpoint, HostEndpoint) else endpoint.ipv4_nets + endpoint.ipv6_nets
    return [whole(one) for one in nets if (":" in one) == (version == 6)]


TAKERS: dict[type[Any], Callable[[RuleProgrammer, Any], None]] = {
    PolicyUpdate: RuleProgrammer._take_policy,
    PolicyRemove: RuleProgrammer._take_policy_gone,
    ProfileUpdate: RuleProgrammer._take_profile,
    ProfileRemove: RuleProgrammer._take_profile_gone,
    WorkloadUpdate: RuleProgrammer._take_workload,
    WorkloadRemove: RuleProgrammer._take_workload_gone,
    HostEndpointUpdate: RuleProgrammer._take_host,
    HostEndpointRemove: RuleProgrammer._take_host_gone,
    ServiceCIDRsUpdate: RuleProgrammer._take_services,
    PoolUpdate: RuleProgrammer._take_pool,
    PoolRemove: RuleProgrammer._take_pool,
    HostUpdate: RuleProgrammer._take_node,
    HostRemove: RuleProgrammer._take_node,
    VTEPUpdate: RuleProgrammer._take_node,
    VTEPRemove: RuleProgrammer._take_node,
    IPSetUpdate: RuleProgrammer._take_set,
    IPSetDelta: RuleProgrammer._take_delta,
    IPSetRemove: RuleProgrammer._take_set_gone,
}
