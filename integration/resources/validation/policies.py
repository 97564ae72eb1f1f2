"""Policies, their rules, tiers and profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from integration.resources.base import Problem, Resource
from integration.resources.fields import PORT_PROTOCOLS, parse_network, port_range, protocol_of
from integration.resources.models.policy import (
    DEFAULT_TIER,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    HTTPPath,
    ICMPFields,
    NetworkPolicy,
    NetworkPolicySpec,
    PolicyRule,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicySpec,
    StagedNetworkPolicy,
    Tier,
)
from integration.resources.selector import parse

TIER_LABEL = "projectcalico.org/tier"
# name → order, default action: Calico makes these tiers itself and lets nobody change them.
RESERVED_TIERS = {
    "default": (1_000_000, "Deny"),
    "kube-admin": (1_000, "Pass"),
    "kube-baseline": (10_000_000, "Pass"),
}
ICMP_FAMILIES: dict[Any, int] = {"ICMP": 4, 1: 4, "ICMPv6": 6, 58: 6}
GLOBAL_ELSEWHERE = "mentions global(), which is for the namespaceSelector of a rule's source or destination"
Policy = NetworkPolicySpec | GlobalNetworkPolicySpec


def check_policy(spec: Policy, path: str) -> Iterator[Problem]:
    for name, selector in (
        ("selector", spec.selector),
        ("serviceAccountSelector", spec.service_account_selector),
        ("namespaceSelector", getattr(spec, "namespace_selector", "")),
    ):
        if selector and parse(selector).mentions_global:
            yield Problem(f"{path}.{name}", selector, GLOBAL_ELSEWHERE)
    for index, rule in enumerate(spec.ingress):
        if rule.destination.services:
            yield misplaced_service(f"{path}.ingress[{index}].destination", "source")
    for index, rule in enumerate(spec.egress):
        if rule.source.services:
            yield misplaced_service(f"{path}.egress[{index}].source", "destination")
        if rule.http:
            yield Problem(f"{path}.egress[{index}].http", None, "is not possible in an egress rule", "in ingress rules")


def misplaced_service(place: str, right: str) -> Problem:
    return Problem(f"{place}.services", None, "is not possible here", f"in the rule's {right}")


def check_global_policy(spec: GlobalNetworkPolicySpec, path: str) -> Iterator[Problem]:
    yield from check_policy(spec, path)
    if spec.pre_dnat and spec.do_not_track:
        yield Problem(f"{path}.preDNAT", True, "cannot be set together with doNotTrack")
    if spec.pre_dnat and spec.egress:
        yield Problem(f"{path}.egress", None, "a policy with preDNAT has no egress rules")
    if spec.pre_dnat and "Egress" in spec.types:
        yield Problem(f"{path}.types", spec.types, "a policy with preDNAT cannot be for egress", "Ingress")
    if (spec.pre_dnat or spec.do_not_track) and not spec.apply_on_forward:
        name = "preDNAT" if spec.pre_dnat else "doNotTrack"
        yield Problem(f"{path}.applyOnForward", False, f"is required with {name}", "true")
    for direction, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        for index, rule in enumerate(rules):
            for side, entity in (("source", rule.source), ("destination", rule.destination)):
                if entity.services and not entity.services.namespace:
                    place = f"{path}.{direction}[{index}].{side}.services.namespace"
                    yield Problem(place, None, "is required: the policy has no namespace of its own")


def check_rule(rule: PolicyRule, path: str) -> Iterator[Problem]:
    if rule.ip_version not in (None, 4, 6):
        yield Problem(f"{path}.ipVersion", rule.ip_version, "is not a version of IP", "4, 6")
        return
    yield from check_ports(rule, path)
    yield from check_families(rule, path)
    if rule.icmp and protocol_of(rule.protocol) not in ICMP_FAMILIES:
        yield Problem(f"{path}.icmp", None, "needs protocol to be ICMP or ICMPv6")
    for name, protocol in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
        family = ICMP_FAMILIES.get(protocol_of(protocol))
        if family and rule.ip_version not in (None, family):
            yield Problem(f"{path}.ipVersion", rule.ip_version, f"contradicts {name} {protocol}", str(family))
    if rule.http:
        if protocol_of(rule.protocol) not in (None, "TCP", 6):
            yield Problem(f"{path}.protocol", rule.protocol, "cannot carry HTTP", "TCP, or none")
        if rule.action != "Allow":
            yield Problem(f"{path}.http", None, f"is not possible in a rule with action {rule.action}", "Allow")
    for name, ports in (("ports", rule.destination.ports), ("notPorts", rule.destination.not_ports)):
        if rule.destination.services and ports:
            yield Problem(f"{path}.destination.{name}", ports, "cannot be set together with services, which have ports")


def check_ports(rule: PolicyRule, path: str) -> Iterator[Problem]:
    """Ports by number need a protocol that has ports; a named port brings its own."""
    if protocol_of(rule.protocol) in PORT_PROTOCOLS:
        return
    for side, entity in (("source", rule.source), ("destination", rule.destination)):
        for name, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
            if ports and (rule.protocol is not None or any(port_range(port) for port in ports)):
                allowed = "with protocol TCP, UDP or SCTP"
                yield Problem(f"{path}.{side}.{name}", ports, "needs a protocol that has ports", allowed)


def check_families(rule: PolicyRule, path: str) -> Iterator[Problem]:
    """All networks of a rule are of one family, and of the rule's."""
    family = rule.ip_version
    for side, entity in (("source", rule.source), ("destination", rule.destination)):
        for name, nets in (("nets", entity.nets), ("notNets", entity.not_nets)):
            for index, text in enumerate(nets):
                network = parse_network(text)
                place = f"{path}.{side}.{name}[{index}]"
                if family is not None and network.version != family:
                    reason = "is not of the family of the rule's other networks or ipVersion"
                    yield Problem(place, text, reason, f"IPv{family}")
                    return
                family = network.version
                if name == "notNets" and network.prefixlen == 0:
                    yield Problem(place, text, "excludes every address: the rule would match nothing")


def check_entity(entity: EntityRule, path: str) -> Iterator[Problem]:
    for name, text in (("selector", entity.selector), ("notSelector", entity.not_selector)):
        if text and parse(text).mentions_global:
            yield Problem(f"{path}.{name}", text, GLOBAL_ELSEWHERE)
    namespaces = parse(entity.namespace_selector)
    if namespaces.mentions_global and not namespaces.is_global:
        yield Problem(
            f"{path}.namespaceSelector", entity.namespace_selector, "combines global() with others", "global()"
        )
    if not entity.services:
        return
    if not entity.services.name:
        yield Problem(f"{path}.services.name", None, "is required")
    for name, value in (
        ("namespaceSelector", entity.namespace_selector),
        ("selector", entity.selector),
        ("notSelector", entity.not_selector),
        ("serviceAccounts", entity.service_accounts),
        ("nets", entity.nets),
        ("notNets", entity.not_nets),
    ):
        if value:
            yield Problem(f"{path}.{name}", None, "cannot be set together with services")


def check_icmp(fields: ICMPFields, path: str) -> Iterator[Problem]:
    if fields.code is not None and fields.type is None:
        yield Problem(f"{path}.type", None, "is required when code is set", "0 to 254")


def check_path(http_path: HTTPPath, path: str) -> Iterator[Problem]:
    if bool(http_path.exact) == bool(http_path.prefix):
        yield Problem(path, None, "says both or neither", "exactly one of exact and prefix")
        return
    name, text = ("exact", http_path.exact) if http_path.exact else ("prefix", http_path.prefix)
    if not text.startswith("/") or any(sign in text for sign in "?# "):
        yield Problem(f"{path}.{name}", text, "is no path", "starts with /, without ?, # and blanks")


def check_tier(tier: Tier, path: str) -> Iterator[Problem]:
    if tier.metadata.name not in RESERVED_TIERS:
        return
    order, action = RESERVED_TIERS[tier.metadata.name]
    if tier.spec.order not in (None, order):
        yield Problem("spec.order", tier.spec.order, f"is fixed for the tier {tier.metadata.name}", str(order))
    if tier.spec.default_action not in ("", action):
        reason = f"is fixed for the tier {tier.metadata.name}"
        yield Problem("spec.defaultAction", tier.spec.default_action, reason, action)


def default_policy_types(spec: Policy | StagedKubernetesNetworkPolicySpec) -> None:
    """By the rules there are: egress alone is Egress, both are both, everything else Ingress."""
    if isinstance(spec, StagedKubernetesNetworkPolicySpec):
        # Kubernetes counts differently: ingress is always meant.
        spec.policy_types = spec.policy_types or (["Ingress", "Egress"] if spec.egress else ["Ingress"])
    elif not spec.types:
        both = [name for name, rules in (("Ingress", spec.ingress), ("Egress", spec.egress)) if rules]
        spec.types = both or ["Ingress"]


def label_with_tier(policy: Resource) -> None:
    """So that Kubernetes can list and guard policies by their tier."""
    tier = getattr(policy, "spec").tier or DEFAULT_TIER  # noqa: B009
    policy.metadata.labels = policy.metadata.labels | {TIER_LABEL: tier}


def default_tier(tier: Tier) -> None:
    if tier.metadata.name in RESERVED_TIERS:
        order, action = RESERVED_TIERS[tier.metadata.name]
        tier.spec.order = order if tier.spec.order is None else tier.spec.order
        tier.spec.default_action = tier.spec.default_action or action


CHECKS: dict[type, Callable[[Any, str], Iterator[Problem]]] = {
    NetworkPolicySpec: check_policy,
    GlobalNetworkPolicySpec: check_global_policy,
    PolicyRule: check_rule,
    EntityRule: check_entity,
    ICMPFields: check_icmp,
    HTTPPath: check_path,
    Tier: check_tier,
}
DEFAULTS: dict[type, Callable[[Any], None]] = {
    NetworkPolicySpec: default_policy_types,
    GlobalNetworkPolicySpec: default_policy_types,
    StagedKubernetesNetworkPolicySpec: default_policy_types,
    NetworkPolicy: label_with_tier,
    GlobalNetworkPolicy: label_with_tier,
    StagedNetworkPolicy: label_with_tier,
    StagedGlobalNetworkPolicy: label_with_tier,
    Tier: default_tier,
}
