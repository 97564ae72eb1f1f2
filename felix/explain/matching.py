"""Does a rule match a packet; and if not, why not, in a person's words."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from felix.desired import ANYTHING, Entity, Origin, PolicyRule, PortRange
from felix.explain.flow import ICMP, ICMPV6, WITH_PORTS, Flow, protocol_name
from felix.explain.state import Address, IPSet

Sets = Mapping[str, IPSet]


def why_not(rule: PolicyRule, flow: Flow, sets: Sets) -> str:
    """Empty if the rule matches; otherwise the first thing that does not fit, in the order in which the rule is rendered."""
    return next(_misfits(rule, flow, sets), "")


def _misfits(rule: PolicyRule, flow: Flow, sets: Sets) -> Iterator[str]:
    if rule.ip_version is not None and rule.ip_version != flow.version:
        yield f"is for IPv{rule.ip_version} only"
    name = protocol_name(flow.protocol)
    if rule.protocol is not None and rule.protocol != flow.protocol:
        yield f"is for {protocol_name(rule.protocol)}, this is {name}"
    if rule.not_protocol is not None and rule.not_protocol == flow.protocol:
        yield f"is for all but {name}"
    yield from _side("source", rule.source, rule.source_origin, flow.source, flow.source_port, flow, sets)
    yield from _side("destination", rule.destination, rule.destination_origin, flow.destination, flow.destination_port, flow, sets)  # fmt: skip
    yield from _icmp_misfits(rule, flow)


def _icmp_misfits(rule: PolicyRule, flow: Flow) -> Iterator[str]:
    if rule.icmp is None and rule.not_icmp is None:
        return
    if flow.protocol != (ICMP if flow.version == 4 else ICMPV6) or flow.icmp is None:
        yield f"asks for an ICMP type, this is {protocol_name(flow.protocol)}"
        return
    if rule.icmp is not None and not _is_icmp(rule.icmp, flow.icmp):
        yield f"is for ICMP {_icmp_text(rule.icmp)}, this is {_icmp_text(flow.icmp)}"
    if rule.not_icmp is not None and _is_icmp(rule.not_icmp, flow.icmp):
        yield f"is for ICMP other than {_icmp_text(rule.not_icmp)}"


def _is_icmp(wanted: tuple[int, int | None], found: tuple[int, int]) -> bool:
    return wanted[0] == found[0] and wanted[1] in (None, found[1])


def _icmp_text(icmp: tuple[int, int | None]) -> str:
    return f"type {icmp[0]}" + ("" if icmp[1] is None else f" code {icmp[1]}")


def _side(
    side: str, entity: Entity, origin: Origin | None, address: Address, port: int | None, flow: Flow, sets: Sets
) -> Iterator[str]:
    if entity is ANYTHING:
        return
    yield from _net_misfits(side, entity, address)
    yield from _set_misfits(side, entity, origin, address, sets)
    protocol = protocol_name(flow.protocol)

    def is_listed(ids: tuple[str, ...]) -> bool:
        return port is not None and any(id in sets and sets[id].has_port(address, protocol, port) for id in ids)

    shown = "an ephemeral port" if port is None else f"port {port}"
    has_ports = flow.protocol in WITH_PORTS
    if (entity.ports or entity.named_ports) and not (
        (has_ports and _in_ranges(port, entity.ports)) or is_listed(entity.named_ports)
    ):
        yield (
            f"{side} {shown} is none of {ports_text(entity.ports, len(entity.named_ports))}"
            if has_ports
            else f"{protocol} has no ports"
        )
    for id in entity.services:
        if not is_listed((id,)):
            service = f"service {origin.service}" if origin and origin.service else "the service"
            yield f"{side} {address} {shown} is no endpoint of {service}"
    # A negated port match of the packet filter looks into the ports too: without them it cannot match.
    if entity.not_ports and (not has_ports or _in_ranges(port, entity.not_ports)):
        yield f"{side} {shown} is one of {ports_text(entity.not_ports)}, which are excluded"
    if is_listed(entity.not_named_ports):
        yield f"{side} {address} {shown} is a named port that is excluded"


def _net_misfits(side: str, entity: Entity, address: Address) -> Iterator[str]:
    """A list of networks of the other IP version alone makes the rule one for that version, negated or not (as Calico)."""
    for nets, is_negated in ((entity.nets, False), (entity.not_nets, True)):
        if not nets:
            continue
        fitting = [net for net in map(ipaddress.ip_network, nets) if net.version == address.version]
        if not fitting:
            yield f"{side}: {'not ' if is_negated else ''}{', '.join(nets)} is of the other IP version"
        elif is_negated and any(address in net for net in fitting):
            yield f"{side} {address} is in {', '.join(nets)}, which is excluded"
        elif not is_negated and not any(address in net for net in fitting):
            yield f"{side} {address} is not in {', '.join(nets)}"


def _set_misfits(side: str, entity: Entity, origin: Origin | None, address: Address, sets: Sets) -> Iterator[str]:
    for id in entity.ip_sets:
        if id not in sets or not sets[id].has_address(address):
            yield f"{side} {address} is not in {selected_text(origin) or id}"
    for id in entity.not_ip_sets:
        if id in sets and sets[id].has_address(address):
            excluded = f"selector {origin.not_selector}" if origin and origin.not_selector else id
            yield f"{side} {address} is in {excluded}, which is excluded"


def _in_ranges(port: int | None, ranges: tuple[PortRange, ...]) -> bool:
    return port is not None and any(one.first <= port <= one.last for one in ranges)


def ports_text(ranges: tuple[PortRange, ...], named: int = 0) -> str:
    shown = [str(one.first) if one.first == one.last else f"{one.first}-{one.last}" for one in ranges]
    return ", ".join(shown + ["the named ports"] * bool(named))


def selected_text(origin: Origin | None) -> str:
    """What selects an address, as it was written; empty if nothing was."""
    if origin is None:
        return ""
    parts = []
    if origin.selector:
        parts.append(f"selector {origin.selector}")
    if origin.namespace_selector:
        parts.append(f"namespaces {origin.namespace_selector}")
    if origin.service_account_names:
        parts.append(f"service accounts {', '.join(origin.service_account_names)}")
    if origin.service_account_selector:
        parts.append(f"service accounts {origin.service_account_selector}")
    if origin.service:
        parts.append(f"service {origin.service}")
    return " and ".join(parts)


def rule_text(rule: PolicyRule) -> str:
    """One line: `allow tcp from 10.0.0.0/8 to port 80`."""
    words: list[str] = [rule.action]
    if rule.ip_version is not None:
        words.append(f"IPv{rule.ip_version}")
    if rule.protocol is not None:
        words.append(protocol_name(rule.protocol))
    if rule.not_protocol is not None:
        words.append(f"not {protocol_name(rule.not_protocol)}")
    if rule.icmp is not None:
        words.append(_icmp_text(rule.icmp))
    if rule.not_icmp is not None:
        words.append(f"not {_icmp_text(rule.not_icmp)}")
    for word, entity, origin in (
        ("from", rule.source, rule.source_origin),
        ("to", rule.destination, rule.destination_origin),
    ):
        if shown := _entity_text(entity, origin):
            words += [word, shown]
    return " ".join(words)


def _entity_text(entity: Entity, origin: Origin | None) -> str:
    parts = []
    if entity.nets:
        parts.append(", ".join(entity.nets))
    if entity.not_nets:
        parts.append("not " + ", ".join(entity.not_nets))
    if entity.ip_sets or entity.services:
        parts.append(selected_text(origin) or ", ".join(entity.ip_sets + entity.services))
    if entity.not_ip_sets:
        parts.append(f"not selector {origin.not_selector}" if origin else "not " + ", ".join(entity.not_ip_sets))
    if entity.ports or entity.named_ports:
        parts.append(f"port {ports_text(entity.ports, len(entity.named_ports))}")
    if entity.not_ports or entity.not_named_ports:
        parts.append(f"not port {ports_text(entity.not_ports, len(entity.not_named_ports))}")
    return " ".join(parts)
