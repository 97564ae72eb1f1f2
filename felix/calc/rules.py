"""Rules of policies and profiles, with selectors, named ports and services turned into IP sets (Calico's rule scanner)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from felix.calc.addresses import read_net
from felix.calc.reading import Invalid, Json, entries, labels, part, parts, required, text, texts, whole
from felix.calc.selectors import EVERYTHING, entity_selector, read_selector, without
from felix.desired import (
    ANYTHING,
    Action,
    Entity,
    HTTPMatch,
    IPSetType,
    IPVersion,
    Origin,
    PolicyRule,
    PortRange,
)
from integration.resources.names import unique_id
from integration.resources.selector import Selector

ACTIONS: Mapping[str, Action] = {"allow": "allow", "deny": "deny", "pass": "pass", "log": "log", "next-tier": "pass"}
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "udplite": 136}
WITH_PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
ICMP_VERSIONS: Mapping[int | None, IPVersion] = {1: 4, 58: 6}
NAMED_PORT = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
RANGE = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")


class IPSetDefinition(NamedTuple):
    """What makes an address, or address and port, a member of a set."""

    id: str
    type: IPSetType
    selector: Selector | None = None
    port: tuple[str, str] | None = None  # protocol (`any`: whichever) and name
    service: str = ""  # NAMESPACE/NAME


Definitions = dict[str, IPSetDefinition]


def compile_rules(spec: Json, direction: str, namespace: str, sets: Definitions) -> tuple[PolicyRule, ...]:
    """`direction` is `ingress` or `egress`; what the rules need is added to `sets`. Raises Invalid."""
    return tuple(compile_rule(rule, path, namespace, sets) for rule, path in parts(spec, direction, "spec."))


def compile_rule(rule: Json, path: str, namespace: str, sets: Definitions) -> PolicyRule:
    action = ACTIONS.get(required(rule, "action", path).lower())
    if action is None:
        raise Invalid(f"{path}action", rule["action"], "is not one of the known values", "Allow, Deny, Log, Pass")
    protocol, not_protocol = read_protocol(rule, "protocol", path), read_protocol(rule, "notProtocol", path)
    source, source_origin = compile_entity(rule, "source", path, protocol, namespace, sets)
    destination, destination_origin = compile_entity(rule, "destination", path, protocol, namespace, sets)
    icmp, not_icmp = read_icmp(rule, "icmp", path, protocol), read_icmp(rule, "notICMP", path, protocol)
    return PolicyRule(
        action,
        # ICMP types mean something in one version only.
        read_version(rule, path) or (ICMP_VERSIONS.get(protocol) if icmp or not_icmp else None),
        protocol,
        not_protocol,
        source,
        destination,
        icmp,
        not_icmp,
        read_http(rule, path),
        source_origin,
        destination_origin,
        read_annotations(rule, path),
    )


def read_version(rule: Json, path: str) -> IPVersion | None:
    found = rule.get("ipVersion")
    if found is None:
        return None
    if isinstance(found, int) and found in (4, 6):
        return 4 if found == 4 else 6
    raise Invalid(f"{path}ipVersion", found, "is not a version of IP", "4, 6")


def read_protocol(rule: Json, name: str, path: str) -> int | None:
    """A number; names in any case."""
    found = rule.get(name)
    if found is None or found == "":
        return None
    if isinstance(found, str):
        number = PROTOCOLS.get(found.lower())
        if number is None and found.isascii() and found.isdigit() and len(found) < 4:
            number = int(found)
    else:
        number = found if isinstance(found, int) and not isinstance(found, bool) else None
    if number is None or not 1 <= number <= 255:
        raise Invalid(f"{path}{name}", found, "is not a protocol", "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or 1 to 255")
    return number


def read_icmp(rule: Json, name: str, path: str, protocol: int | None) -> tuple[int, int | None] | None:
    fields = part(rule, name, path)
    kind, code = whole(fields, "type", f"{path}{name}.", 0, 255), whole(fields, "code", f"{path}{name}.", 0, 255)
    if kind is None:
        if code is not None:
            raise Invalid(f"{path}{name}.type", None, "is required when code is set")
        return None
    if protocol not in ICMP_VERSIONS:
        raise Invalid(f"{path}{name}", dict(fields), "needs protocol to be ICMP or ICMPv6")
    return kind, code


def read_http(rule: Json, path: str) -> HTTPMatch | None:
    if rule.get("http") is None:
        return None
    http = part(rule, "http", path)
    found = []
    for each, place in parts(http, "paths", f"{path}http."):
        exact, prefix = text(each, "exact", place), text(each, "prefix", place)
        if bool(exact) == bool(prefix):
            raise Invalid(place[:-1], dict(each), "says both or neither", "exactly one of exact and prefix")
        found.append(("exact", exact) if exact else ("prefix", prefix))
    return HTTPMatch(tuple(texts(http, "methods", f"{path}http.")), tuple(found))  # type: ignore[arg-type]


def read_annotations(rule: Json, path: str) -> tuple[tuple[str, str], ...]:
    if rule.get("metadata") is None:
        return ()
    return tuple(sorted(labels(part(rule, "metadata", path), "annotations", f"{path}metadata.").items()))


def compile_entity(
    rule: Json, side: str, path: str, protocol: int | None, namespace: str, sets: Definitions
) -> tuple[Entity, Origin | None]:
    if not rule.get(side):
        return ANYTHING, None
    entity = part(rule, side, path)
    path = f"{path}{side}."
    selector, excluded, origin = read_selectors(entity, path, namespace)
    ports, named = read_ports(entity, "ports", path, protocol)
    not_ports, not_named = read_ports(entity, "notPorts", path, protocol)
    # Named ports are looked for among the endpoints that the selector allows, which makes the selector's own set
    # superfluous unless the rule has other ports too. A negated one may be narrowed likewise: the rest cannot match.
    named_sets = named_port_sets(named, selector, protocol)
    not_named_sets = named_port_sets(not_named, selector, protocol)
    address_sets = [selector_set(selector)] if selector and (ports or not named) else []
    not_address_sets = [selector_set(excluded)] if excluded else []
    service = read_service(entity, path, namespace)
    services: list[IPSetDefinition] = []
    if service and side == "source":  # whoever speaks for a service does so from any port
        address_sets.append(IPSetDefinition(unique_id("svcnoport", service), "net", service=service))
    elif service:
        services.append(IPSetDefinition(unique_id("svc", service), "ip,port", service=service))
    for group in (address_sets, not_address_sets, named_sets, not_named_sets, services):
        sets.update((each.id, each) for each in group)
    compiled = Entity(
        read_nets(entity, "nets", path),
        read_nets(entity, "notNets", path),
        ids(address_sets),
        ids(not_address_sets),
        ports,
        not_ports,
        ids(named_sets),
        ids(not_named_sets),
        ids(services),
    )
    if service:
        origin = replace(origin or Origin(), service=service)
    return compiled, origin


def ids(definitions: list[IPSetDefinition]) -> tuple[str, ...]:
    return tuple(each.id for each in definitions)


def read_selectors(entity: Json, path: str, namespace: str) -> tuple[Selector | None, Selector | None, Origin | None]:
    """Who is meant, who is not, and what was written. Where somebody is meant, who is not is taken out of them."""
    selector, not_selector = text(entity, "selector", path), text(entity, "notSelector", path)
    namespaces = text(entity, "namespaceSelector", path)
    accounts = part(entity, "serviceAccounts", path)
    names = tuple(texts(accounts, "names", f"{path}serviceAccounts."))
    account_selector = text(accounts, "selector", f"{path}serviceAccounts.")
    if not (selector or not_selector or namespaces or names or account_selector):
        return None, None, None
    meant = entity_selector(namespace, selector, not_selector, namespaces, names, account_selector, path)
    excluded = read_selector(not_selector, f"{path}notSelector") if not_selector else None
    if meant and excluded:
        meant, excluded = without(meant, excluded), None
    return meant, excluded, Origin(selector, not_selector, namespaces, names, account_selector)


def selector_set(selector: Selector) -> IPSetDefinition:
    return IPSetDefinition(selector.uid, "net", selector)


def named_port_sets(names: list[str], selector: Selector | None, protocol: int | None) -> list[IPSetDefinition]:
    if not names:
        return []
    selector = selector or EVERYTHING
    word = WITH_PORTS.get(protocol, "any") if protocol else "any"
    return [
        IPSetDefinition(unique_id("n", f"{selector.uid},{word},{name}"), "ip,port", selector, (word, name))
        for name in dict.fromkeys(names)
    ]


def read_service(entity: Json, path: str, namespace: str) -> str:
    if entity.get("services") is None:
        return ""
    match = part(entity, "services", path)
    name = required(match, "name", f"{path}services.")
    space = text(match, "namespace", f"{path}services.") or namespace
    if not space:
        raise Invalid(f"{path}services.namespace", None, "is required: the policy has no namespace of its own")
    return f"{space}/{name}"


def read_nets(entity: Json, name: str, path: str) -> tuple[str, ...]:
    # One that cannot be read may not just be left out: a rule with no net left would match all of them.
    return tuple(str(read_net(value, f"{path}{name}[{at}]")) for at, value in enumerate(entries(entity, name, path)))


def read_ports(entity: Json, name: str, path: str, protocol: int | None) -> tuple[tuple[PortRange, ...], list[str]]:
    """Ranges, and names."""
    ranges, names = [], []
    for index, value in enumerate(entries(entity, name, path)):
        found = read_port(value, f"{path}{name}[{index}]")
        if isinstance(found, str):
            names.append(found)
        else:
            ranges.append(found)
    if (ranges and protocol not in WITH_PORTS) or (names and protocol is not None and protocol not in WITH_PORTS):
        raise Invalid(f"{path}{name}", entity[name], "needs a protocol that has ports", "protocol TCP, UDP or SCTP")
    return tuple(ranges), names


def read_port(value: Any, field: str) -> PortRange | str:
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str) and (found := RANGE.fullmatch(value)):
        first, last = int(found[1]), int(found[2] or found[1])
    elif isinstance(value, str) and NAMED_PORT.fullmatch(value):
        return value
    else:
        raise Invalid(field, value, "is neither a port, a range nor a port's name")
    if not 0 <= first <= last <= 65535:
        raise Invalid(field, value, "is not a range of ports", "1 to 65535, the first not above the last")
    return PortRange(first, last)


def read_types(spec: Json, path: str) -> tuple[bool, bool]:
    """Is it for ingress, for egress. Nothing said is both, at this late stage (who writes a policy says)."""
    found = [each.lower() for each in texts(spec, "types", path)]
    for index, each in enumerate(found):
        if each not in ("ingress", "egress"):
            raise Invalid(
                f"{path}types[{index}]", spec["types"][index], "is not one of the known values", "Ingress, Egress"
            )
    return (not found or "ingress" in found, not found or "egress" in found)
