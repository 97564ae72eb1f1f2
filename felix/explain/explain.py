"""A packet's way through this node, and what each place on it says: the same answer that the rules in the kernel give.

The order is the kernel's: untracked policies (raw), pre-DNAT ones (mangle), then what the packet is: for this host, from
this host, or forwarded. Source: the chains of Calico.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from felix.desired import HostEndpoint, TierPolicies, WorkloadEndpoint
from felix.explain.decide import Decision, Direction, Judge, Outcome
from felix.explain.flow import ICMPV6, IPIP, UDP, ExplainSettings, Flow, Surroundings, is_in, protocol_name
from felix.explain.state import ANY_INTERFACE, DesiredState

Verdict = Literal["allow", "deny"]
Way = Literal["to this host", "from this host", "forwarded"]
# What a workload may always ask its host for in IPv6: multicast listeners, router and neighbour discovery.
ALLOWED_ICMPV6 = frozenset({130, 131, 132, 133, 135, 136})


@dataclass(frozen=True, slots=True)
class Stage:
    """One place on the way. `outcome` `none`: it lets the packet on to the next; `decision` is empty if no policy was asked."""

    place: str  # `egress policy of workload default/a`
    interface: str
    direction: Direction
    outcome: Outcome
    reason: str
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`verdict` for a flow, why, and every stage up to what decided. `notes` are things a person should know besides."""

    flow: Flow
    way: Way
    verdict: Verdict
    reason: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """A stage whose `allow` ends the whole way; a denial always does."""

    stage: Stage


Step: TypeAlias = Stage | End


def explain(
    state: DesiredState,
    flow: Flow,
    settings: ExplainSettings = ExplainSettings(),  # noqa: B008 (frozen)
    surroundings: Surroundings = Surroundings(),  # noqa: B008
) -> Explanation:
    """What this node does with the packet, and why. Raises ValueError if source and destination differ in IP version."""
    if flow.source.version != flow.destination.version:
        raise ValueError(f"{flow.source} and {flow.destination} are of different IP versions")
    walk = _Walk(state, flow, settings, surroundings)
    stages = []
    for step in walk.steps():
        stage = step.stage if isinstance(step, End) else step
        stages.append(stage)
        if stage.outcome == "deny":
            return Explanation(walk.flow, walk.way, "deny", stage.reason, tuple(stages), tuple(walk.notes))
        if isinstance(step, End):
            break
    deciding = [stage for stage in stages if stage.outcome == "allow"]
    reason = "; ".join(dict.fromkeys(stage.reason for stage in deciding)) or "nothing here polices it"
    return Explanation(walk.flow, walk.way, "allow", reason, tuple(stages), tuple(walk.notes))


class _Walk:
    def __init__(self, state: DesiredState, flow: Flow, settings: ExplainSettings, around: Surroundings) -> None:
        self.state, self.settings, self.around = state, settings, around
        self.notes: list[str] = []
        self.flow = self._located(flow)
        self.way: Way = self._way()

    # --- where it comes from and goes to

    def _located(self, flow: Flow) -> Flow:
        """The same with both interfaces as far as they are known."""
        is_from_here = not flow.arrives_by and self.around.is_ours(flow.source)
        is_to_here = not flow.leaves_by and self.around.is_ours(flow.destination)
        arrives_by, leaves_by = flow.arrives_by, flow.leaves_by
        if is_from_here and is_to_here:
            return replace(flow, leaves_by="lo")
        if not is_from_here and not arrives_by:
            sender = self.state.workload_at(flow.source)
            arrives_by = sender.interface if sender else self.around.interface_towards(flow.source) or "?"
        if not is_to_here and not leaves_by:
            receiver = self.state.workload_at(flow.destination)
            leaves_by = receiver.interface if receiver else self.around.interface_towards(flow.destination) or "?"
        return replace(flow, arrives_by=arrives_by, leaves_by=leaves_by)

    def _way(self) -> Way:
        if not self.flow.arrives_by:
            return "from this host"
        return "forwarded" if self.flow.leaves_by else "to this host"

    def _host_endpoint(self, interface: str) -> HostEndpoint | None:
        return self.state.host_endpoint_on(interface, self.around.interfaces.get(interface, frozenset()))

    # --- the way

    def steps(self) -> Iterator[Step]:
        if self.way == "from this host":
            yield from self._from_host()
            if self.flow.leaves_by == "lo":  # comes back as a packet for this host
                self.flow = replace(self.flow, arrives_by="lo", leaves_by="")
                yield from self._arrival()
                self.flow = replace(self.flow, arrives_by="", leaves_by="lo")
            return
        yield from self._arrival()

    def _arrival(self) -> Iterator[Step]:
        flow = self.flow
        is_from_workload = self.settings.is_workload(flow.arrives_by)
        accepted = False
        if is_from_workload:
            yield from self._spoofing()
        else:
            for step in self._untracked("in", flow.arrives_by):
                accepted |= step.outcome == "allow" and step.decision is not None
                yield step
        if not accepted and self.flow.conntrack not in ("established", "related"):
            for step in self._pre_dnat(flow.arrives_by):
                accepted |= step.outcome == "allow" and step.decision is not None
                yield step
        if flow.leaves_by:
            yield from self._forwarded(accepted)
        elif is_from_workload:
            yield from self._workload_to_host()
        elif not accepted:
            yield from self._host_normal("in", flow.arrives_by)

    def _from_host(self) -> Iterator[Step]:
        flow = self.flow
        accepted = False
        for step in self._untracked("out", flow.leaves_by):
            accepted |= step.outcome == "allow" and step.decision is not None
            yield step
        if self.settings.is_workload(flow.leaves_by):
            reason = "what the host itself sends to its own workloads is never policed"
            endpoint = self.state.workload_on(flow.leaves_by)
            if endpoint is None or not endpoint.is_up:
                why = (
                    "no workload is known there"
                    if endpoint is None
                    else f"{endpoint.id.workload} is administratively down"
                )
                self.notes.append(f"{why}: its answers are denied")
            yield Stage("from this host", flow.leaves_by, "out", "allow", reason)
        elif not accepted:
            yield from self._host_normal("out", flow.leaves_by)

    def _forwarded(self, accepted: bool) -> Iterator[Step]:
        flow = self.flow
        if not accepted:
            yield from self._forward("in", flow.arrives_by)
        if self.settings.is_workload(flow.arrives_by):
            yield from self._workload("out", flow.arrives_by)
        if self.settings.is_workload(flow.leaves_by):
            yield from self._workload("in", flow.leaves_by)
        yield from self._forward("out", flow.leaves_by)
        services = self.state.services
        cidrs = (*services.cluster_ips, *services.external_ips, *services.load_balancer_ips)
        if self.settings.stops_service_loops and is_in(flow.destination, cidrs):
            reason = f"{flow.destination} is a service's address, and no service has translated it"
            yield Stage("services' addresses", flow.leaves_by, "out", "deny", reason)

    # --- its places

    def _spoofing(self) -> Iterator[Stage]:
        interface, source = self.flow.arrives_by, self.flow.source
        endpoint = self.state.workload_on(interface)
        if endpoint is None:
            return  # the dispatch denies it
        nets = endpoint.ipv4_nets if source.version == 4 else endpoint.ipv6_nets
        own = f"{source}/{source.max_prefixlen}" in nets
        allowed = self.settings.honours_source_prefixes and is_in(source, endpoint.allowed_source_prefixes)
        is_link_local = source.version == 6 and source.is_link_local
        if not own and not allowed and not is_link_local:
            owner = self.state.workload_at(source)
            whose = f" (it is {owner.id.workload}'s)" if owner else ""
            reason = f"{source} is not an address of {endpoint.id.workload}{whose}: reverse path check"
            yield Stage("source address check", interface, "out", "deny", reason)
        elif not own and allowed:
            reason = f"{source} is among the allowed source prefixes"
            yield Stage("source address check", interface, "out", "none", reason)

    def _untracked(self, direction: Direction, interface: str) -> Iterator[Stage]:
        endpoint = self._host_endpoint(interface)
        if endpoint is None or not endpoint.untracked_tiers:
            return
        if endpoint.interface == ANY_INTERFACE:
            self.notes.append(f"untracked policies of {endpoint.name} have no effect: it is for all interfaces")
            return
        place = f"untracked {_WORD[direction]} policy of host endpoint {endpoint.name}"
        if self._is_failsafe(direction) or self._answers_failsafe(direction):
            yield Stage(place, interface, direction, "none", "a failsafe port")
            return
        stage = self._ask(place, interface, direction, endpoint.untracked_tiers, None, ends_deny=False)
        if stage.outcome == "allow":
            self.flow = replace(self.flow, conntrack="untracked")  # NOTRACK: it belongs to no connection any more
            self.notes.append("allowed untracked: its answers belong to no connection, and need a policy of their own")
        yield stage

    def _pre_dnat(self, interface: str) -> Iterator[Stage]:
        endpoint = self._host_endpoint(interface)
        if endpoint is None or not endpoint.pre_dnat_tiers:
            return
        place = f"pre-DNAT policy of host endpoint {endpoint.name}"
        if isinstance(tracked := self._by_conntrack(place, interface, "in"), Stage):
            yield tracked
        elif self._is_failsafe("in"):
            yield Stage(place, interface, "in", "none", "a failsafe port")
        else:
            yield self._ask(place, interface, "in", endpoint.pre_dnat_tiers, None, ends_deny=False)

    def _host_normal(self, direction: Direction, interface: str) -> Iterator[Step]:
        endpoint = self._host_endpoint(interface)
        if endpoint is None:
            side = "towards" if direction == "out" else "from"
            yield Stage(f"{side} interface {interface}", interface, direction, "none", "no host endpoint: not policed")
            return
        place = f"{_WORD[direction]} policy of host endpoint {endpoint.name}"
        if (tracked := self._by_conntrack(place, interface, direction)) is not None:
            yield tracked
        elif self._is_failsafe(direction):
            yield Stage(place, interface, direction, "allow", f"failsafe port {self.flow.destination_port}")
        else:
            yield self._ask(place, interface, direction, endpoint.tiers, endpoint.profiles)

    def _forward(self, direction: Direction, interface: str) -> Iterator[Step]:
        endpoint = self._host_endpoint(interface)
        if endpoint is None:
            return
        place = f"apply-on-forward {_WORD[direction]} policy of host endpoint {endpoint.name}"
        if (tracked := self._by_conntrack(place, interface, direction)) is not None:
            yield tracked
        elif not endpoint.forward_tiers:
            yield Stage(place, interface, direction, "none", "none applies on forward: forwarded packets are allowed")
        else:
            yield self._ask(place, interface, direction, endpoint.forward_tiers, None)

    def _workload(self, direction: Direction, interface: str) -> Iterator[Step]:
        endpoint = self.state.workload_on(interface)
        if endpoint is None:
            yield Stage(
                f"interface {interface}", interface, direction, "deny", "no workload is known on this interface"
            )
            return
        place = f"{_WORD[direction]} policy of workload {endpoint.id.workload}"
        if not endpoint.is_up:
            yield Stage(place, interface, direction, "deny", f"{endpoint.id.workload} is administratively down")
        elif (tracked := self._by_conntrack(place, interface, direction)) is not None:
            yield tracked
        elif direction == "out" and (tunnel := self._tunnel_of_a_workload()):
            yield Stage(place, interface, direction, "deny", tunnel)
        else:
            if self._has_connection_limit(endpoint, direction):
                self.notes.append(f"{endpoint.id.workload} has a limit of connections {_WORD[direction]}")
            yield self._ask(place, interface, direction, endpoint.tiers, endpoint.profiles)

    def _workload_to_host(self) -> Iterator[Step]:
        flow, action = self.flow, self.settings.endpoint_to_host
        if flow.protocol == ICMPV6 and flow.version == 6 and flow.icmp and flow.icmp[0] in ALLOWED_ICMPV6:
            yield End(Stage("to this host", flow.arrives_by, "in", "allow", "ICMPv6 that every link needs"))
            return
        yield from self._workload("out", flow.arrives_by)
        outcome: Outcome = "deny" if action in ("DROP", "REJECT") else "allow"
        reason = f"DefaultEndpointToHostAction is {action}"
        yield End(Stage("from a workload to this host", flow.arrives_by, "in", outcome, reason))

    # --- questions

    def _ask(
        self,
        place: str,
        interface: str,
        direction: Direction,
        tiers: Sequence[TierPolicies],
        profiles: Sequence[str] | None,
        *,
        ends_deny: bool = True,
    ) -> Stage:
        flow = self.flow if ends_deny else self.flow.as_sent()
        decision = Judge(self.state, direction).decide(flow, tiers, profiles, ends_deny=ends_deny)
        outcome: Outcome = "none" if decision.outcome == "pass" else decision.outcome
        return Stage(place, interface, direction, outcome, decision.reason, decision)

    def _by_conntrack(self, place: str, interface: str, direction: Direction) -> Step | None:
        """A packet of a known connection is accepted by the first endpoint that it meets, and asks no other."""
        if self.flow.conntrack in ("established", "related"):
            return End(Stage(place, interface, direction, "allow", "belongs to a connection that is known"))
        if self.flow.conntrack == "invalid" and self.settings.drops_invalid:
            return Stage(
                place, interface, direction, "deny", "belongs to no connection and starts none (conntrack: INVALID)"
            )
        return None

    def _is_failsafe(self, direction: Direction) -> bool:
        ports = self.settings.failsafe_in if direction == "in" else self.settings.failsafe_out
        other = self.flow.source if direction == "in" else self.flow.destination
        port = self.flow.as_sent().destination_port
        return any((one.protocol, one.port) == (self.flow.protocol, port) and one.covers(other) for one in ports)

    def _answers_failsafe(self, direction: Direction) -> bool:
        """Untracked policies do not know answers: the other direction's failsafe ports as source ports are let through."""
        ports = self.settings.failsafe_out if direction == "in" else self.settings.failsafe_in
        other = self.flow.source if direction == "in" else self.flow.destination
        found = (self.flow.protocol, self.flow.source_port)
        return any((one.protocol, one.port) == found and one.covers(other) for one in ports)

    def _tunnel_of_a_workload(self) -> str:
        flow, settings = self.flow, self.settings
        if flow.protocol == IPIP and not settings.allows_ipip_from_workloads:
            return "IPIP from a workload is never allowed"
        if flow.protocol == UDP and flow.destination_port == settings.vxlan_port:
            return "" if settings.allows_vxlan_from_workloads else "VXLAN from a workload is never allowed"
        return ""

    @staticmethod
    def _has_connection_limit(endpoint: WorkloadEndpoint, direction: Direction) -> bool:
        if endpoint.qos is None:
            return False
        return bool(endpoint.qos.ingress_max_connections if direction == "in" else endpoint.qos.egress_max_connections)


_WORD: dict[Direction, str] = {"in": "ingress", "out": "egress"}


def flow_text(flow: Flow) -> str:
    """`tcp 10.0.0.1 → 10.0.0.2 port 80`."""
    what = protocol_name(flow.protocol)
    if flow.icmp:
        what += f" type {flow.icmp[0]} code {flow.icmp[1]}"
    port = "" if flow.destination_port is None else f" port {flow.destination_port}"
    return f"{what} {flow.source} → {flow.destination}{port}"
