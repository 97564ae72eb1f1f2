"""Kubernetes' NetworkPolicies as Calico's (libcalico-go, lib/backend/k8s/conversion/conversion.go): their specs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from integration.resources.fields import parse_network

Object = dict[str, Any]
ORDER = 1000.0
POD_TERM = "projectcalico.org/orchestrator == 'k8s'"
LAST_PORT = 65535


def spec_of_network_policy(given: Mapping[str, Any]) -> Object:
    """A Calico NetworkPolicy's spec. Rules that make no sense are left out, and allow nothing."""
    types = [name for name in ("Ingress", "Egress") if name in (given.get("policyTypes") or [])]
    spec: Object = {
        "order": ORDER,
        "tier": "default",
        "selector": pod_selector(given.get("podSelector")),
        "types": types or ["Ingress"],
    }
    for field, direction, peers in (("ingress", "source", "from"), ("egress", "destination", "to")):
        if rules := list(all_rules(given.get(field) or [], direction, peers)):
            spec[field] = rules
    return spec


def all_rules(given: Iterable[Mapping[str, Any]], direction: str, peers: str) -> Iterable[Object]:
    for rule in given:
        try:
            yield from rules_of(rule.get(peers) or [], rule.get("ports") or [], direction)
        except ValueError:
            continue


def rules_of(peers: list[Object], ports: list[Object], direction: str) -> list[Object]:
    """One rule for each protocol and peer. Raises ValueError for a port or CIDR that is none."""
    found = []
    for protocol, numbers in ports_by_protocol(ports):
        for peer in peers or (None,):
            rule: Object = {"action": "Allow"}
            if protocol:
                rule["protocol"] = protocol
            entity = entity_of(peer)
            if entity:
                rule[direction] = entity
            if numbers:
                rule["destination"] = {**rule.get("destination", {}), "ports": numbers}
            found.append(rule)
    return found


def ports_by_protocol(ports: list[Object]) -> list[tuple[str, list[int | str]]]:
    """Sorted by protocol; no ports are all ports, no protocol is all protocols."""
    if not ports:
        return [("", [])]
    found: dict[str, list[tuple[int, int] | str] | None] = {}
    for port in ports:
        protocol = port.get("protocol") or "TCP"
        if port.get("port") is None:
            found[protocol] = None
            continue
        so_far = found.setdefault(protocol, [])
        if so_far is not None:
            so_far.append(port_of(port))
    return [(protocol, merged(found[protocol] or [])) for protocol in sorted(found)]


def port_of(port: Mapping[str, Any]) -> tuple[int, int] | str:
    first = port["port"]
    if isinstance(first, str) and not first.isdigit():
        return first
    last = port.get("endPort") or first
    low, high = int(first), int(last)
    if not 1 <= low <= high <= LAST_PORT:
        raise ValueError(f"{first}:{last} is no port range")
    return low, high


def merged(ports: list[tuple[int, int] | str]) -> list[int | str]:
    """Names first, then the fewest ranges that cover the numbers."""
    ranges: list[list[int]] = []
    for low, high in sorted(port for port in ports if not isinstance(port, str)):
        if ranges and low <= ranges[-1][1] + 1:
            ranges[-1][1] = max(ranges[-1][1], high)
        else:
            ranges.append([low, high])
    numbers: list[int | str] = [low if low == high else f"{low}:{high}" for low, high in ranges]
    return [port for port in ports if isinstance(port, str)] + numbers


def entity_of(peer: Object | None) -> Object:
    if peer is None:
        return {}
    if block := peer.get("ipBlock"):
        nets = {"nets": [net(block["cidr"])]}
        others = [net(text) for text in block.get("except") or []]
        return nets | ({"notNets": others} if others else {})
    # A namespace's pods, too, are meant to be pods: hence the orchestrator's term without a pod selector.
    entity = {"selector": pod_selector(peer.get("podSelector"))}
    spaces = peer.get("namespaceSelector")
    if spaces is not None:
        entity["namespaceSelector"] = " && ".join(terms(spaces)) or "all()"
    return entity


def net(text: str) -> str:
    return str(parse_network(text, bare=False))


def pod_selector(given: Mapping[str, Any] | None) -> str:
    return " && ".join((POD_TERM, *terms(given or {})))


def terms(given: Mapping[str, Any]) -> list[str]:
    found = [f"{label} == '{text}'" for label, text in sorted((given.get("matchLabels") or {}).items())]
    for each in given.get("matchExpressions") or []:
        label, values = each["key"], "', '".join(each.get("values") or [])
        match each["operator"]:
            case "In":
                found.append(f"{label} in {{ '{values}' }}")
            case "NotIn":
                found.append(f"{label} not in {{ '{values}' }}")
            case "Exists":
                found.append(f"has({label})")
            case "DoesNotExist":
                found.append(f"! has({label})")
    return found
