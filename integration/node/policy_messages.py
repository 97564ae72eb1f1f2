"""What the calculation says, in the messages of the policy sync protocol. Pure.

Every function returns a whole ToDataplane in octets: many workloads are sent the same ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal

from felix.desired import (
    Entity,
    HTTPMatch,
    IPSetType,
    Origin,
    Policy,
    PolicyId,
    PolicyRule,
    PortRange,
    Profile,
    TierPolicies,
    WorkloadEndpoint,
    WorkloadId,
)
from integration.felixbackend import IP_AND_PORT, MAX_MEMBERS, MESSAGES, NET

Labels = Iterable[tuple[str, str]]
TYPES: dict[IPSetType, int] = {"net": NET, "ip,port": IP_AND_PORT}


def _whole(**payload: Any) -> bytes:
    octets: bytes = MESSAGES["ToDataplane"](**payload).SerializeToString()
    return octets


IN_SYNC = _whole(in_sync=MESSAGES["InSync"]())


def ip_set_update(id: str, type: IPSetType, members: Collection[str]) -> Iterator[bytes]:
    """The whole set: what does not fit the first message is added by others."""
    pieces = list(_pieces(list(members))) or [[]]
    yield _whole(ipset_update=MESSAGES["IPSetUpdate"](id=id, type=TYPES[type], members=pieces[0]))
    for piece in pieces[1:]:
        yield _whole(ipset_delta_update=MESSAGES["IPSetDeltaUpdate"](id=id, added_members=piece))


def ip_set_delta(id: str, added: Collection[str], removed: Collection[str]) -> Iterator[bytes]:
    if len(added) + len(removed) <= MAX_MEMBERS:
        delta = MESSAGES["IPSetDeltaUpdate"](id=id, added_members=added, removed_members=removed)
        yield _whole(ipset_delta_update=delta)
        return
    for piece in _pieces(list(added)):
        yield _whole(ipset_delta_update=MESSAGES["IPSetDeltaUpdate"](id=id, added_members=piece))
    for piece in _pieces(list(removed)):
        yield _whole(ipset_delta_update=MESSAGES["IPSetDeltaUpdate"](id=id, removed_members=piece))


def _pieces(members: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(members), MAX_MEMBERS):
        yield members[start : start + MAX_MEMBERS]


def ip_set_remove(id: str) -> bytes:
    return _whole(ipset_remove=MESSAGES["IPSetRemove"](id=id))


def policy_update(policy: Policy) -> bytes:
    made = MESSAGES["Policy"](
        namespace=policy.id.namespace,
        tier=policy.tier,
        inbound_rules=map(rule, policy.inbound),
        outbound_rules=map(rule, policy.outbound),
        untracked=policy.is_untracked,
        pre_dnat=policy.is_pre_dnat,
        original_selector=policy.selector,
    )
    return _whole(active_policy_update=MESSAGES["ActivePolicyUpdate"](id=policy_id(policy.id), policy=made))


def policy_remove(id: PolicyId) -> bytes:
    return _whole(active_policy_remove=MESSAGES["ActivePolicyRemove"](id=policy_id(id)))


def policy_id(id: PolicyId) -> Any:
    return MESSAGES["PolicyID"](kind=id.kind, namespace=id.namespace, name=id.name)


def profile_update(profile: Profile) -> bytes:
    made = MESSAGES["Profile"](inbound_rules=map(rule, profile.inbound), outbound_rules=map(rule, profile.outbound))
    id = MESSAGES["ProfileID"](name=profile.name)
    return _whole(active_profile_update=MESSAGES["ActiveProfileUpdate"](id=id, profile=made))


def profile_remove(name: str) -> bytes:
    return _whole(active_profile_remove=MESSAGES["ActiveProfileRemove"](id=MESSAGES["ProfileID"](name=name)))


def workload_update(endpoint: WorkloadEndpoint) -> bytes:
    made = MESSAGES["WorkloadEndpoint"](
        state="active" if endpoint.is_up else "inactive",
        name=endpoint.interface,
        mac=endpoint.mac,
        profile_ids=endpoint.profiles,
        ipv4_nets=endpoint.ipv4_nets,
        ipv6_nets=endpoint.ipv6_nets,
        tiers=map(_tier, endpoint.tiers),
        ipv4_nat=[MESSAGES["NatInfo"](int_ip=i, ext_ip=e) for i, e in endpoint.nats if ":" not in i],
        ipv6_nat=[MESSAGES["NatInfo"](int_ip=i, ext_ip=e) for i, e in endpoint.nats if ":" in i],
        allow_spoofed_source_prefixes=endpoint.allowed_source_prefixes,
        local_bgp_peer=MESSAGES["LocalBGPPeer"](bgp_peer_name=endpoint.bgp_peer) if endpoint.bgp_peer else None,
    )
    update = MESSAGES["WorkloadEndpointUpdate"](id=_workload_id(endpoint.id), endpoint=made)
    return _whole(workload_endpoint_update=update)


def workload_remove(id: WorkloadId) -> bytes:
    return _whole(workload_endpoint_remove=MESSAGES["WorkloadEndpointRemove"](id=_workload_id(id)))


def _workload_id(id: WorkloadId) -> Any:
    return MESSAGES["WorkloadEndpointID"](
        orchestrator_id=id.orchestrator, workload_id=id.workload, endpoint_id=id.endpoint
    )


def _tier(tier: TierPolicies) -> Any:
    return MESSAGES["TierInfo"](
        name=tier.name,
        default_action=tier.default_action,
        ingress_policies=map(policy_id, tier.ingress),
        egress_policies=map(policy_id, tier.egress),
    )


def service_account_update(namespace: str, name: str, labels: Labels) -> bytes:
    id = MESSAGES["ServiceAccountID"](namespace=namespace, name=name)
    return _whole(service_account_update=MESSAGES["ServiceAccountUpdate"](id=id, labels=dict(labels)))


def service_account_remove(namespace: str, name: str) -> bytes:
    id = MESSAGES["ServiceAccountID"](namespace=namespace, name=name)
    return _whole(service_account_remove=MESSAGES["ServiceAccountRemove"](id=id))


def namespace_update(name: str, labels: Labels) -> bytes:
    update = MESSAGES["NamespaceUpdate"](id=MESSAGES["NamespaceID"](name=name), labels=dict(labels))
    return _whole(namespace_update=update)


def namespace_remove(name: str) -> bytes:
    return _whole(namespace_remove=MESSAGES["NamespaceRemove"](id=MESSAGES["NamespaceID"](name=name)))


# --- rules ----------------------------------------------------------------------------------------------------------


def rule(one: PolicyRule) -> Any:
    made = MESSAGES["Rule"](action=one.action, ip_version=one.ip_version or 0)
    if one.protocol is not None:
        made.protocol.number = one.protocol
    if one.not_protocol is not None:
        made.not_protocol.number = one.not_protocol
    _set_entity(made, "src", one.source)
    _set_entity(made, "dst", one.destination)
    _set_icmp(made, "icmp", one.icmp)
    _set_icmp(made, "not_icmp", one.not_icmp)
    if one.http is not None:
        made.http_match.CopyFrom(_http(one.http))
    _set_origin(made, "src", one.source_origin)
    _set_origin(made, "dst", one.destination_origin)
    if one.annotations:
        made.metadata.annotations.update(dict(one.annotations))
    return made


def _set_entity(made: Any, side: Literal["src", "dst"], entity: Entity) -> None:
    getattr(made, f"{side}_net").extend(entity.nets)
    getattr(made, f"not_{side}_net").extend(entity.not_nets)
    getattr(made, f"{side}_ip_set_ids").extend(entity.ip_sets)
    getattr(made, f"not_{side}_ip_set_ids").extend(entity.not_ip_sets)
    getattr(made, f"{side}_ports").extend(map(_ports, entity.ports))
    getattr(made, f"not_{side}_ports").extend(map(_ports, entity.not_ports))
    getattr(made, f"{side}_named_port_ip_set_ids").extend(entity.named_ports)
    getattr(made, f"not_{side}_named_port_ip_set_ids").extend(entity.not_named_ports)
    if side == "dst":
        made.dst_ip_port_set_ids.extend(entity.services)
    else:
        # The protocol knows services as destinations only. Among the plain sets an address is in none of these: such a
        # rule matches nothing rather than anything.
        made.src_ip_set_ids.extend(entity.services)


def _ports(ports: PortRange) -> Any:
    return MESSAGES["PortRange"](first=ports.first, last=ports.last)


def _set_icmp(made: Any, field: Literal["icmp", "not_icmp"], icmp: tuple[int, int | None] | None) -> None:
    if icmp is None:
        return
    type, code = icmp
    if code is None:
        setattr(made, f"{field}_type", type)
    else:
        getattr(made, f"{field}_type_code").CopyFrom(MESSAGES["IcmpTypeAndCode"](type=type, code=code))


def _http(match: HTTPMatch) -> Any:
    paths = [MESSAGES["PathMatch"](**{kind: path}) for kind, path in match.paths]
    return MESSAGES["HTTPMatch"](methods=match.methods, paths=paths)


def _set_origin(made: Any, side: Literal["src", "dst"], origin: Origin | None) -> None:
    if origin is None:
        return
    setattr(made, f"original_{side}_selector", origin.selector)
    setattr(made, f"original_not_{side}_selector", origin.not_selector)
    setattr(made, f"original_{side}_namespace_selector", origin.namespace_selector)
    if origin.service:
        namespace, _, name = origin.service.partition("/")
        setattr(made, f"original_{side}_service", name)
        setattr(made, f"original_{side}_service_namespace", namespace)
    if origin.service_account_names or origin.service_account_selector:
        match = MESSAGES["ServiceAccountMatch"](
            names=origin.service_account_names, selector=origin.service_account_selector
        )
        getattr(made, f"{side}_service_account_match").CopyFrom(match)
