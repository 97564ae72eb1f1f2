"""Small desired states to ask questions about."""

from __future__ import annotations

import ipaddress

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
from felix.explain.explain import Explanation, explain
from felix.explain.flow import ExplainSettings, Flow, Surroundings
from felix.explain.state import DesiredState

ALLOW_ALL = Profile("allow", (PolicyRule("allow"),), (PolicyRule("allow"),))
HOST = Surroundings({"lo": frozenset({"127.0.0.1"}), "eth0": frozenset({"192.0.2.1", "2001:db8::1"})})


def state_of(*messages: Message) -> DesiredState:
    state = DesiredState()
    state.fold_all([*messages, InSync()])
    return state


def workload(name: str, address: str, *tiers: TierPolicies, profiles: tuple[str, ...] = ("allow",)) -> WorkloadUpdate:
    id = WorkloadId("k8s", f"default/{name}", "eth0")
    is_v6 = ":" in address
    return WorkloadUpdate(
        WorkloadEndpoint(
            id,
            f"cali{name}",
            profiles=profiles,
            tiers=tiers,
            ipv4_nets=() if is_v6 else (f"{address}/32",),
            ipv6_nets=(f"{address}/128",) if is_v6 else (),
        )
    )


def host_endpoint(name: str = "eth0", interface: str = "eth0", **lists: tuple[TierPolicies, ...]) -> HostEndpointUpdate:
    return HostEndpointUpdate(HostEndpoint(name, interface, **lists))  # type: ignore[arg-type]


def policy_id(name: str) -> PolicyId:
    return PolicyId("StagedGlobalNetworkPolicy" if name.startswith("staged") else "GlobalNetworkPolicy", "", name)


def policy(
    name: str, *inbound: PolicyRule, outbound: tuple[PolicyRule, ...] = (), tier: str = "default"
) -> PolicyUpdate:
    return PolicyUpdate(Policy(policy_id(name), tier, inbound, outbound))


def ingress(*names: str, tier: str = "default", default_action: str = "Deny") -> TierPolicies:
    return TierPolicies(tier, default_action, tuple(map(policy_id, names)))  # type: ignore[arg-type]


def egress(*names: str, tier: str = "default") -> TierPolicies:
    return TierPolicies(tier, "Deny", (), tuple(map(policy_id, names)))


def to_ports(*ports: int) -> Entity:
    return Entity(ports=tuple(PortRange(port, port) for port in ports))


def ask(state: DesiredState, source: str, destination: str, port: int | None = 80, **more: object) -> Explanation:
    settings = more.pop("settings", ExplainSettings())
    flow = Flow(ipaddress.ip_address(source), ipaddress.ip_address(destination), destination_port=port, **more)  # type: ignore[arg-type]
    return explain(state, flow, settings, HOST)  # type: ignore[arg-type]


__all__ = ["ALLOW_ALL", "HOST", "IPSetUpdate", "ProfileUpdate", "ask", "egress", "host_endpoint", "ingress", "policy", "policy_id", "state_of", "to_ports", "workload"]  # fmt: skip
