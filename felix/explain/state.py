"""Messages folded into what is so now: the whole of what one node's rules follow from.

For explanations, and for whoever asks after a policy, an endpoint or a set without programming anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from felix.desired import (
    ConfigUpdate,
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    InSync,
    IPSetDelta,
    IPSetRemove,
    IPSetType,
    IPSetUpdate,
    Message,
    Policy,
    PolicyId,
    PolicyRemove,
    PolicyUpdate,
    Profile,
    ProfileRemove,
    ProfileUpdate,
    ServiceCIDRsUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
ANY_INTERFACE = "*"


@dataclass(slots=True)
class IPSet:
    """`members` is the message's own frozenset until the first delta: a set that never changes is in memory once."""

    type: IPSetType
    members: set[str] | frozenset[str]

    def change(self, added: frozenset[str], removed: frozenset[str]) -> None:
        if isinstance(self.members, frozenset):
            self.members = set(self.members)
        self.members |= added
        self.members -= removed

    def has_address(self, address: Address) -> bool:
        """Of a `net` set: is the address, or a network around it, a member?"""
        bits, number = address.max_prefixlen, int(address)
        for length in range(bits, -1, -1):
            first = number >> (bits - length) << (bits - length)
            if f"{type(address)(first)}/{length}" in self.members:
                return True
        return False

    def has_port(self, address: Address, protocol: str, port: int) -> bool:
        """Of an `ip,port` set; `protocol` as `tcp`."""
        return f"{address},{protocol}:{port}" in self.members


@dataclass(slots=True)
class DesiredState:
    """`fold` every message in the order of the calculation. Messages that explanations do not need are passed over."""

    policies: dict[PolicyId, Policy] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    ip_sets: dict[str, IPSet] = field(default_factory=dict)
    workloads: dict[WorkloadId, WorkloadEndpoint] = field(default_factory=dict)
    host_endpoints: dict[str, HostEndpoint] = field(default_factory=dict)
    services: ServiceCIDRsUpdate = field(default_factory=ServiceCIDRsUpdate)
    config: ConfigUpdate = field(default_factory=ConfigUpdate)
    is_in_sync: bool = False

    def fold_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.fold(message)

    def fold(self, message: Message) -> None:
        match message:
            case ConfigUpdate():
                self.config = message
            case ServiceCIDRsUpdate():
                self.services = message
            case IPSetUpdate(id, type, members):
                self.ip_sets[id] = IPSet(type, members)
            case IPSetDelta(id, added, removed):
                if id in self.ip_sets:
                    self.ip_sets[id].change(added, removed)
            case IPSetRemove(id):
                self.ip_sets.pop(id, None)
            case PolicyUpdate(policy):
                self.policies[policy.id] = policy
            case PolicyRemove(id):
                self.policies.pop(id, None)
            case ProfileUpdate(profile):
                self.profiles[profile.name] = profile
            case ProfileRemove(name):
                self.profiles.pop(name, None)
            case WorkloadUpdate(endpoint):
                self.workloads[endpoint.id] = endpoint
            case WorkloadRemove(id):
                self.workloads.pop(id, None)
            case HostEndpointUpdate(endpoint):
                self.host_endpoints[endpoint.name] = endpoint
            case HostEndpointRemove(name):
                self.host_endpoints.pop(name, None)
            case InSync():
                self.is_in_sync = True

    def workload_on(self, interface: str) -> WorkloadEndpoint | None:
        """Whose rules stand on the interface: where several claim it, the lowest id's (as Calico)."""
        claims = [id for id, endpoint in self.workloads.items() if endpoint.interface == interface]
        return self.workloads[min(claims)] if claims else None

    def workload_at(self, address: Address) -> WorkloadEndpoint | None:
        """The local workload that has the address; of several the lowest id's."""
        text = f"{address}/{address.max_prefixlen}"
        having = [id for id, one in self.workloads.items() if text in one.ipv4_nets or text in one.ipv6_nets]
        return self.workloads[min(having)] if having else None

    def workload_called(self, name: str) -> WorkloadEndpoint | None:
        """By `NAMESPACE/POD`."""
        named = [id for id in self.workloads if id.workload == name]
        return self.workloads[min(named)] if named else None

    def host_endpoint_on(self, interface: str, addresses: frozenset[str]) -> HostEndpoint | None:
        """The lowest name of those for this interface or one of its addresses; otherwise the lowest of those for `*`."""
        named = [
            name
            for name, one in self.host_endpoints.items()
            if one.interface == interface or (not one.interface and addresses.intersection(one.expected_ips))
        ]
        everywhere = [name for name, one in self.host_endpoints.items() if one.interface == ANY_INTERFACE]
        found = min(named or everywhere, default=None)
        return None if found is None else self.host_endpoints[found]
