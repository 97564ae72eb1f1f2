"""A dataplane that remembers what it was told, and refuses what would be unsafe at the moment it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from felix import desired as d
from felix.desired import Entity, Message, PolicyRule, TierPolicies

KEYS: dict[type, Any] = {
    d.ProfileUpdate: lambda m: ("profile", m.profile.name), d.ProfileRemove: lambda m: ("profile", m.name),
    d.PolicyUpdate: lambda m: ("policy", m.policy.id), d.PolicyRemove: lambda m: ("policy", m.id),
    d.WorkloadUpdate: lambda m: ("workload", m.endpoint.id), d.WorkloadRemove: lambda m: ("workload", m.id),
    d.HostEndpointUpdate: lambda m: ("hep", m.endpoint.name), d.HostEndpointRemove: lambda m: ("hep", m.name),
    d.HostUpdate: lambda m: ("host", m.host.name), d.HostRemove: lambda m: ("host", m.name),
    d.PoolUpdate: lambda m: ("pool", m.pool.cidr), d.PoolRemove: lambda m: ("pool", m.cidr),
    d.VTEPUpdate: lambda m: ("vtep", m.vtep.node), d.VTEPRemove: lambda m: ("vtep", m.node),
    d.RouteUpdate: lambda m: ("route", m.route.destination), d.RouteRemove: lambda m: ("route", m.destination),
    d.WireguardUpdate: lambda m: ("wireguard", m.peer.node), d.WireguardRemove: lambda m: ("wireguard", m.node),
    d.NamespaceUpdate: lambda m: ("namespace", m.name), d.NamespaceRemove: lambda m: ("namespace", m.name),
    d.ServiceAccountUpdate: lambda m: ("account", m.namespace, m.name),
    d.ServiceAccountRemove: lambda m: ("account", m.namespace, m.name),
    d.ConfigUpdate: lambda m: ("config",), d.EncapsulationUpdate: lambda m: ("encapsulation",),
    d.ServiceCIDRsUpdate: lambda m: ("cidrs",), d.WorkloadPeeringUpdate: lambda m: ("peering",), d.InSync: lambda m: ("in-sync",),
}  # fmt: skip


class Dataplane:
    """`things`: what was told last of each; `sets`: id → (type, members)."""

    def __init__(self) -> None:
        self.things: dict[tuple[Any, ...], Message] = {
            ("cidrs",): d.ServiceCIDRsUpdate(),
            ("peering",): d.WorkloadPeeringUpdate(),
        }
        self.sets: dict[str, tuple[d.IPSetType, frozenset[str]]] = {}

    def take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            match message:
                case d.IPSetUpdate(id, kind, members):
                    assert id not in self.sets, f"{message} again, whole"
                    self.sets[id] = (kind, members)
                case d.IPSetDelta(id, added, removed):
                    kind, members = self.sets[id]
                    assert added or removed
                    assert not added & members
                    assert removed <= members
                    self.sets[id] = (kind, (members | added) - removed)
                case d.IPSetRemove(id):
                    assert id not in self.sets_in_use(), f"{message} is in use"
                    del self.sets[id]
                case _:
                    self.change(message)

    def change(self, message: Message) -> None:
        key = KEYS[type(message)](message)
        if type(message).__name__.endswith("Remove"):
            assert key in self.things, f"{message} was not there"
            if key[0] in ("policy", "profile"):
                assert key not in self.rules_in_use(), f"{message} is in use"
            del self.things[key]
            return
        assert self.things.get(key) != message, f"{message} says nothing new"
        assert key != ("in-sync",) or key not in self.things
        self.things[key] = message
        match message:
            case d.PolicyUpdate(rules) | d.ProfileUpdate(rules):
                self.check_sets((*rules.inbound, *rules.outbound))
            case d.WorkloadUpdate(endpoint) | d.HostEndpointUpdate(endpoint):
                for used in rules_of(endpoint):
                    assert used in self.things, f"{message} names {used}, which was not told"

    def check_sets(self, rules: tuple[PolicyRule, ...]) -> None:
        for name, kind in sets_of(rules):
            assert self.sets[name][0] == kind

    def rules_in_use(self) -> set[tuple[Any, ...]]:
        return {
            used
            for message in self.things.values()
            if isinstance(message, d.WorkloadUpdate | d.HostEndpointUpdate)
            for used in rules_of(message.endpoint)
        }

    def sets_in_use(self) -> set[str]:
        found: set[str] = set()
        for message in self.things.values():
            if isinstance(message, d.PolicyUpdate):
                found |= {name for name, _ in sets_of((*message.policy.inbound, *message.policy.outbound))}
            elif isinstance(message, d.ProfileUpdate):
                found |= {name for name, _ in sets_of((*message.profile.inbound, *message.profile.outbound))}
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataplane) and (self.things, self.sets) == (other.things, other.sets)

    __hash__ = None  # type: ignore[assignment]

    def of(self, kind: str) -> dict[Any, Any]:
        """Key without the kind → message."""
        return {key[1] if len(key) == 2 else key[1:]: found for key, found in self.things.items() if key[0] == kind}


def rules_of(endpoint: d.WorkloadEndpoint | d.HostEndpoint) -> Iterable[tuple[Any, ...]]:
    yield from (("profile", name) for name in endpoint.profiles)
    for field in fields(endpoint):
        if field.name.endswith("tiers"):
            tiers: tuple[TierPolicies, ...] = getattr(endpoint, field.name)
            yield from (("policy", id) for tier in tiers for id in (*tier.ingress, *tier.egress))


def sets_of(rules: tuple[PolicyRule, ...]) -> Iterable[tuple[str, str]]:
    """Id and type of what is named."""
    for rule in rules:
        for entity in (rule.source, rule.destination):
            yield from ((id, "net") for id in (*entity.ip_sets, *entity.not_ip_sets))
            yield from ((id, "ip,port") for id in named(entity))


def named(entity: Entity) -> tuple[str, ...]:
    return (*entity.named_ports, *entity.not_named_ports, *entity.services)
