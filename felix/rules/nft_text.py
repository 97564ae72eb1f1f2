"""Rules, chains, sets and maps as nft reads them. Pure; checked against nft 1.0.6."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from felix.desired import IPSetType, IPVersion, PortRange
from felix.filter_rules import (
    DNAT,
    ICMP,
    SNAT,
    Accept,
    AddressType,
    Chain,
    Conntrack,
    DNATted,
    Drop,
    GoTo,
    GoToByInterface,
    Hook,
    InInterface,
    InPortSet,
    InSet,
    Jump,
    LimitConnections,
    LimitPacketRate,
    Log,
    Mark,
    Masquerade,
    Net,
    NetAnyOf,
    NFLog,
    NoTrack,
    OutInterface,
    Ports,
    Protocol,
    Reject,
    Return,
    ReversePathFails,
    Rule,
    SetDSCP,
    SetMark,
    Table,
)
from felix.nft_names import BASE_CHAINS, FAMILIES, TABLE_NAME, chain_name, map_name, set_name

MAX_COMMENT_OCTETS = 120  # nft takes 128
_COMMENT = re.compile(r"[^\w @%+=:,./\-]", re.ASCII)
FULL = 0xFFFFFFFF


class NftText:
    """Statements for the table of one IP version."""

    def __init__(self, version: IPVersion) -> None:
        self.version: IPVersion = version
        self.family = FAMILIES[version]
        self.table = f"{self.family} {TABLE_NAME}"

    # --- objects -----------------------------------------------------------------------------------------------------

    def base_chain(self, table: Table, hook: Hook) -> str:
        kind, name, priority = BASE_CHAINS[table, hook]
        return (
            f"add chain {self.table} {chain_name(table, hook)} "
            f"{{ type {kind} hook {name} priority {priority}; policy accept; }}"
        )

    def add_chain(self, name: str) -> str:
        return f"add chain {self.table} {name}"

    def flush_chain(self, name: str) -> str:
        return f"flush chain {self.table} {name}"

    def add_set(self, name: str, type: IPSetType) -> str:
        address = "ipv4_addr" if self.version == 4 else "ipv6_addr"
        if type == "net":
            return f"add set {self.table} {name} {{ type {address}; flags interval; }}"
        return f"add set {self.table} {name} {{ type {address} . inet_proto . inet_service; }}"

    def add_map(self, name: str) -> str:
        return f"add map {self.table} {name} {{ type ifname : verdict; }}"

    def chain_rules(self, table: Table, chain: Chain) -> list[str]:
        """The rules' texts. Raises ValueError for what nft cannot express."""
        return [self.rule(table, rule) for rule in chain.rules]

    def add_rules(self, name: str, rules: Iterable[str]) -> list[str]:
        return [f"add rule {self.table} {name} {rule}" for rule in rules]

    # --- rules -------------------------------------------------------------------------------------------------------

    def rule(self, table: Table, rule: Rule) -> str:
        """Raises ValueError."""
        parts = [_of(CRITERIA, one)(self, one) for one in rule.criteria]
        parts.append("counter")
        if rule.action is not None:
            parts.append(self._action(table, rule.action))
        if rule.comments:
            parts.append(f'comment "{comment_text("; ".join(rule.comments))}"')
        return " ".join(parts)

    def _action(self, table: Table, action: Any) -> str:
        if isinstance(action, Jump | GoTo):
            return f"{'jump' if isinstance(action, Jump) else 'goto'} {chain_name(table, action.chain)}"
        if isinstance(action, GoToByInterface):
            return f"{'iifname' if action.direction == 'in' else 'oifname'} vmap @{map_name(table, action.map)}"
        return _of(ACTIONS, action)(self, action)

    def net(self, criterion: Net) -> str:
        return f"{self.address(criterion.side)} {_not(criterion)}{criterion.cidr}"

    def net_any_of(self, criterion: NetAnyOf) -> str:
        return f"{self.address(criterion.side)} {_not(criterion)}{{ {', '.join(widest(criterion.cidrs))} }}"

    def in_set(self, criterion: InSet) -> str:
        return f"{self.address(criterion.side)} {_not(criterion)}@{set_name(self.version, criterion.id)}"

    def in_port_set(self, criterion: InPortSet) -> str:
        key = f"{self.address(criterion.side)} . meta l4proto . th {port_word(criterion.side)}"
        return f"{key} {_not(criterion)}@{set_name(self.version, criterion.id)}"

    def icmp(self, criterion: ICMP) -> str:
        word = "icmp" if self.version == 4 else "icmpv6"
        if criterion.code is None:
            return f"{word} type {_not(criterion)}{criterion.type}"
        return f"{word} type . {word} code {_not(criterion)}{{ {criterion.type} . {criterion.code} }}"

    def address(self, side: str) -> str:
        return f"{self.family} {'saddr' if side == 'source' else 'daddr'}"

    def set_dscp(self, action: SetDSCP) -> str:
        return f"{self.family} dscp set {action.value}"


def _not(criterion: Any) -> str:
    return "!= " if criterion.negated else ""


def _of(table: Mapping[type, Callable[[NftText, Any], str]], one: Any) -> Callable[[NftText, Any], str]:
    found = table.get(type(one))
    if found is None:
        raise ValueError(f"nftables has no {type(one).__name__}")
    return found


def port_word(side: str) -> str:
    return "sport" if side == "source" else "dport"


def mark_text(_: NftText, one: Mark) -> str:
    if one.mask == FULL:
        return f"meta mark {'!=' if one.negated else '=='} {one.value:#x}"
    return f"meta mark & {one.mask:#x} {'!=' if one.negated else '=='} {one.value:#x}"


def interface_text(word: str, name: str, negated: bool) -> str:
    """`cali+` is `cali*`, and a star that is meant is escaped."""
    if name == "+":
        return ""
    quoted = name[:-1].replace("*", "\\*") + "*" if name.endswith("+") else name.replace("*", "\\*")
    if '"' in quoted:
        raise ValueError(f"an interface cannot be called {name!r} in nft")
    return f'{word} {"!= " if negated else ""}"{quoted}"'


def ports_text(_: NftText, one: Ports) -> str:
    ranges = [f"{a}-{b}" if a != b else str(a) for a, b in merged(one.ranges)]
    listed = ranges[0] if len(ranges) == 1 else f"{{ {', '.join(ranges)} }}"
    return f"th {port_word(one.side)} {_not(one)}{listed}"


def conntrack_text(_: NftText, one: Conntrack) -> str:
    states = ",".join(sorted(state.lower() for state in one.states))
    return f"ct state {'!= ' if one.negated else ''}{states}"


def address_type_text(_: NftText, one: AddressType) -> str:
    key = "saddr" if one.side == "source" else "daddr"
    return f"fib {key}{' . oif' if one.of_out_interface else ''} type {_not(one)}local"


CRITERIA: Mapping[type, Callable[[NftText, Any], str]] = {
    Mark: mark_text,
    InInterface: lambda _, one: interface_text("iifname", one.name, one.negated),
    OutInterface: lambda _, one: interface_text("oifname", one.name, one.negated),
    Protocol: lambda _, one: f"meta l4proto {_not(one)}{one.number}",
    Net: NftText.net,
    NetAnyOf: NftText.net_any_of,
    InSet: NftText.in_set,
    InPortSet: NftText.in_port_set,
    Ports: ports_text,
    ICMP: NftText.icmp,
    Conntrack: conntrack_text,
    DNATted: lambda _, one: "ct status & dnat == 0" if one.negated else "ct status dnat",
    AddressType: address_type_text,
    ReversePathFails: lambda _, _one: "fib saddr . mark . iif oif 0",
}


def rate_text(rate: str, burst: int) -> str:
    return f"limit rate {rate} burst {burst} packets " if rate else ""


def set_mark_text(_: NftText, one: SetMark) -> str:
    if one.mask == FULL:
        return f"meta mark set {one.value:#x}"
    kept = FULL & ~one.mask
    return f"meta mark set meta mark & {kept:#x}" + (f" | {one.value:#x}" if one.value else "")


def packet_rate_text(text: NftText, one: LimitPacketRate) -> str:
    return f"limit rate {one.per_second}/second burst {one.burst} packets {set_mark_text(text, SetMark(one.mark, one.mark))}"


def target_text(address: str, ports: PortRange | None, version: IPVersion) -> str:
    if ports is None:
        return address
    shown = f"[{address}]" if version == 6 and address else address
    return f"{shown}:{ports.first}" if ports.first == ports.last else f"{shown}:{ports.first}-{ports.last}"


def masquerade_text(text: NftText, one: Masquerade) -> str:
    to = f" to {target_text('', one.ports, text.version)}" if one.ports else ""
    return f"masquerade{to}{' fully-random' if one.is_fully_random else ''}"


def snat_text(text: NftText, one: SNAT) -> str:
    random = " fully-random" if one.is_fully_random else ""
    return f"snat to {target_text(one.address, one.ports, text.version)}{random}"


def dnat_text(text: NftText, one: DNAT) -> str:
    ports = PortRange(one.port, one.port) if one.port else None
    return f"dnat to {target_text(one.address, ports, text.version)}"


ACTIONS: Mapping[type, Callable[[NftText, Any], str]] = {
    Accept: lambda _, _one: "accept",
    Drop: lambda _, _one: "drop",
    Return: lambda _, _one: "return",
    Reject: lambda _, one: "reject with tcp reset" if one.how == "tcp-reset" else "reject",
    SetMark: set_mark_text,
    Log: lambda _, one: f'{rate_text(one.rate, one.burst)}log prefix "{comment_text(one.prefix)}" level notice',
    NFLog: lambda _, one: f'{rate_text(one.rate, one.burst)}log prefix "{prefix_text(one.prefix)}" group {one.group}',
    NoTrack: lambda _, _one: "notrack",
    Masquerade: masquerade_text,
    SNAT: snat_text,
    DNAT: dnat_text,
    LimitPacketRate: packet_rate_text,
    LimitConnections: lambda _, one: f"meta l4proto tcp ct count over {one.most} reject with tcp reset",
    SetDSCP: NftText.set_dscp,
}


def comment_text(text: str) -> str:
    return _COMMENT.sub("_", text).encode()[:MAX_COMMENT_OCTETS].decode("utf-8", "ignore")


def prefix_text(text: str) -> str:
    """`|` divides the parts of a denied packet's prefix, so it stays."""
    return "|".join(comment_text(part) for part in text.split("|"))[:MAX_COMMENT_OCTETS]


def widest(cidrs: Iterable[str]) -> list[str]:
    """Those that lie in no other, sorted: nft takes no overlapping intervals."""
    networks = sorted(
        {ipaddress.ip_network(one, strict=False) for one in cidrs}, key=lambda n: (n.network_address, n.prefixlen)
    )
    found: list[Any] = []
    for network in networks:
        if not found or not network.subnet_of(found[-1]):
            found.append(network)
    return [str(one) for one in found]


def merged(ranges: Iterable[PortRange]) -> list[tuple[int, int]]:
    """Without overlaps and neighbours, sorted."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
