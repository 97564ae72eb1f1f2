"""BGPConfiguration, BGPPeer, BGPFilter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from integration.resources.base import Problem
from integration.resources.fields import parse_address, parse_address_and_port, parse_community
from integration.resources.models.bgp import (
    BGPConfiguration,
    BGPConfigurationSpec,
    BGPPeerSpec,
    FilterOperation,
    FilterRule,
    FilterRuleV4,
    FilterRuleV6,
    PrefixLengthV4,
    PrefixLengthV6,
)

ONLY_IN_DEFAULT = {
    "node_to_node_mesh_enabled": "nodeToNodeMeshEnabled",
    "as_number": "asNumber",
    "service_cluster_ips": "serviceClusterIPs",
    "service_external_ips": "serviceExternalIPs",
    "service_load_balancer_ips": "serviceLoadBalancerIPs",
    "node_mesh_password": "nodeMeshPassword",
    "node_mesh_max_restart_time": "nodeMeshMaxRestartTime",
}


def check_configuration(configuration: BGPConfiguration, path: str) -> Iterator[Problem]:
    if configuration.metadata.name == "default":
        return
    for attribute, name in ONLY_IN_DEFAULT.items():
        value = getattr(configuration.spec, attribute)
        if value not in (None, []):
            yield Problem(f"spec.{name}", None, "can only be set on the BGPConfiguration named default")


def check_configuration_spec(spec: BGPConfigurationSpec, path: str) -> Iterator[Problem]:
    if spec.node_to_node_mesh_enabled is False:
        for name, value in (
            ("nodeMeshPassword", spec.node_mesh_password),
            ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time),
        ):
            if value:
                yield Problem(f"{path}.{name}", None, "cannot be set when nodeToNodeMeshEnabled is false")
    if spec.communities and not spec.prefix_advertisements:
        yield Problem(f"{path}.communities", None, "name values that nothing uses", "with prefixAdvertisements")
    known = {community.name for community in spec.communities}
    for index, advertisement in enumerate(spec.prefix_advertisements):
        for at, community in enumerate(advertisement.communities):
            if community not in known and not is_community(community):
                place = f"{path}.prefixAdvertisements[{index}].communities[{at}]"
                allowed = "a name in spec.communities, aa:nn or aa:nn:mm"
                yield Problem(place, community, "is neither a community nor the name of one", allowed)
    for index, interface in enumerate(spec.ignored_interfaces):
        if interface == "*":
            yield Problem(f"{path}.ignoredInterfaces[{index}]", "*", "would ignore every interface")


def is_community(text: str) -> bool:
    try:
        parse_community(text)
    except ValueError:
        return False
    return True


def check_peer(spec: BGPPeerSpec, path: str) -> Iterator[Problem]:
    def conflict(field: str, value: Any, reason: str) -> Problem:
        return Problem(f"{path}.{field}", value, reason)

    if spec.node and spec.node_selector:
        yield conflict("node", spec.node, "cannot be set together with nodeSelector")
    if spec.peer_ip and spec.peer_selector:
        yield conflict("peerIP", spec.peer_ip, "cannot be set together with peerSelector")
    if spec.peer_selector and spec.as_number:
        reason = "must be empty when peerSelector is set: the AS number is that of the selected nodes"
        yield conflict("asNumber", spec.as_number, reason)
    if spec.local_workload_selector:
        if spec.peer_ip:
            yield conflict("peerIP", spec.peer_ip, "must be empty when localWorkloadSelector is set")
        if spec.peer_selector:
            yield conflict("peerSelector", spec.peer_selector, "must be empty when localWorkloadSelector is set")
        if not spec.as_number:
            yield conflict("asNumber", spec.as_number, "is required when localWorkloadSelector is set")
    if spec.reachable_by and not spec.peer_ip:
        yield conflict("reachableBy", spec.reachable_by, "must be empty when peerIP is empty")
    elif spec.reachable_by:
        version = parse_address_and_port(spec.peer_ip)[0].version
        if parse_address(spec.reachable_by).version != version:
            reason, allowed = "is not of peerIP's family", f"an IPv{version} address"
            yield Problem(f"{path}.reachableBy", spec.reachable_by, reason, allowed)
    if spec.keep_original_next_hop and spec.next_hop_mode:
        reason = "cannot be set together with nextHopMode, which replaces it"
        yield conflict("keepOriginalNextHop", True, reason)


def check_filter_rule(rule: FilterRule, path: str) -> Iterator[Problem]:
    assert isinstance(rule, FilterRuleV4 | FilterRuleV6)
    if rule.cidr and not rule.match_operator:
        yield Problem(f"{path}.matchOperator", None, "is required when cidr is set", "Equal, NotEqual, In, NotIn")
    if rule.match_operator and not rule.cidr:
        yield Problem(f"{path}.cidr", None, "is required when matchOperator is set")
    if rule.prefix_length and not rule.cidr:
        yield Problem(f"{path}.cidr", None, "is required when prefixLength is set")
    if rule.operations and rule.action != "Accept":
        yield Problem(f"{path}.operations", None, f"have no meaning with action {rule.action}", "with action Accept")


def check_prefix_length(length: PrefixLengthV4 | PrefixLengthV6, path: str) -> Iterator[Problem]:
    if length.min is not None and length.max is not None and length.min > length.max:
        yield Problem(f"{path}.min", length.min, f"is above max, which is {length.max}")


def check_operation(operation: FilterOperation, path: str) -> Iterator[Problem]:
    given = (operation.add_community, operation.prepend_as_path, operation.set_priority)
    if (count := sum(part is not None for part in given)) != 1:
        allowed = "exactly one of addCommunity, prependASPath, setPriority"
        yield Problem(path, None, f"has {count} operations", allowed)


CHECKS: dict[type, Callable[[Any, str], Iterator[Problem]]] = {
    BGPConfiguration: check_configuration,
    BGPConfigurationSpec: check_configuration_spec,
    BGPPeerSpec: check_peer,
    FilterRule: check_filter_rule,
    PrefixLengthV4: check_prefix_length,
    PrefixLengthV6: check_prefix_length,
    FilterOperation: check_operation,
}
