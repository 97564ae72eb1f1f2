"""What a ruleset does with a packet: the kernel's walk through hooks, tables and chains, without a kernel.

Raises KeyError where a rule names a chain or set that is not there: in a kernel it could not have been written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from felix.desired import IPSetType, PortRange
from felix.filter_rules import (
    ICMP,
    Accept,
    AddressType,
    Chain,
    Conntrack,
    Criterion,
    DNATted,
    Drop,
    GoTo,
    GoToByInterface,
    Hook,
    HookRules,
    InInterface,
    InPortSet,
    InSet,
    Jump,
    Mark,
    Net,
    NetAnyOf,
    NoTrack,
    OutInterface,
    Ports,
    Protocol,
    Reject,
    Return,
    ReversePathFails,
    Rule,
    Ruleset,
    SetMark,
    Side,
    Table,
)

Verdict = Literal["accept", "drop"]
Sets = Mapping[str, tuple[IPSetType, set[str]]]
NAMES = {6: "tcp", 17: "udp", 132: "sctp"}
WITH_PORTS = frozenset({6, 17, 132, 136})


@dataclass
class Packet:
    """`mark` and `conntrack` change on the way. `before_dnat`: destination and port that raw and mangle PREROUTING see."""

    source: str
    destination: str
    protocol: int
    source_port: int = 40000
    destination_port: int = 0
    icmp: tuple[int, int] | None = None
    in_interface: str = ""
    out_interface: str = ""
    conntrack: str = "NEW"
    mark: int = 0
    is_reverse_path_wrong: bool = False
    before_dnat: tuple[str, int] | None = None
    is_translated: bool = False
    path: list[str] = field(default_factory=list)  # chains that were entered, rules that decided
    met: list[Rule] = field(default_factory=list)  # whose counters it is in


@dataclass
class Walk:
    """`locals`: this host's addresses."""

    ruleset: Ruleset
    sets: Sets
    locals: frozenset[str]

    def verdict(self, packet: Packet) -> Verdict:
        """Through all hooks on its way."""
        for table, hook in self._way(packet):
            translated = packet.before_dnat is not None and (table in ("filter", "nat") or hook == "POSTROUTING")
            if translated and not packet.is_translated:
                packet.is_translated = True
            if self._hook(table, hook, packet) == "drop":
                return "drop"
        return "accept"

    def _way(self, packet: Packet) -> Sequence[tuple[Table, Hook]]:
        if not packet.in_interface:
            return [("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"), ("mangle", "POSTROUTING")]
        arrival: list[tuple[Table, Hook]] = [("raw", "PREROUTING"), ("mangle", "PREROUTING")]
        if packet.out_interface:
            return [*arrival, ("filter", "FORWARD"), ("mangle", "POSTROUTING")]
        return [*arrival, ("filter", "INPUT")]

    def _hook(self, table: Table, hook: Hook, packet: Packet) -> Verdict | None:
        rules = self.ruleset.hooks.get((table, hook), HookRules())
        packet.path.append(f"{table} {hook}")
        return self._rules(table, (*rules.inserted, *rules.appended), packet)

    def _chain(self, table: Table, name: str, packet: Packet) -> Verdict | None:
        packet.path.append(name)
        chain: Chain = self.ruleset.chains[table][name]
        return self._rules(table, chain.rules, packet)

    def _rules(self, table: Table, rules: Sequence[Rule], packet: Packet) -> Verdict | None:
        """None: back to the caller, or at the end of a hook on with the next."""
        for position, rule in enumerate(rules):
            if not all(self._matches(one, packet) for one in rule.criteria):
                continue
            packet.met.append(rule)
            match rule.action:
                case Accept():
                    packet.path.append(f"accept by {position}")
                    return "accept"
                case Drop() | Reject():
                    packet.path.append(f"drop by {position} {' '.join(rule.comments)}")
                    return "drop"
                case Return():
                    return None
                case Jump(name):
                    if (verdict := self._chain(table, name, packet)) is not None:
                        return verdict
                case GoTo(name):
                    return self._chain(table, name, packet)
                case GoToByInterface(name, direction):
                    targets = self.ruleset.maps[table][name]
                    interface = packet.in_interface if direction == "in" else packet.out_interface
                    if interface in targets:
                        return self._chain(table, targets[interface], packet)
                case SetMark(value, mask):
                    packet.mark = packet.mark & ~mask | value
                case NoTrack():
                    packet.conntrack = "UNTRACKED"
                case _:
                    pass  # counted, logged, limited: no verdict for a single packet
        return None

    # --- criteria

    def _matches(self, criterion: Criterion, packet: Packet) -> bool:
        negated = getattr(criterion, "negated", False)
        return _MATCHERS[type(criterion)](self, criterion, packet) is not negated

    def address(self, packet: Packet, side: Side) -> str:
        if side == "source":
            return packet.source
        return packet.destination if packet.before_dnat is None or packet.is_translated else packet.before_dnat[0]

    def port(self, packet: Packet, side: Side) -> int:
        if side == "source":
            return packet.source_port
        return packet.destination_port if packet.before_dnat is None or packet.is_translated else packet.before_dnat[1]

    def in_set(self, one: InSet, packet: Packet) -> bool:
        type, members = self.sets[one.id]
        assert type == "net", one
        address = ipaddress.ip_address(self.address(packet, one.side))
        return any(_contains(member, address) for member in members)

    def in_port_set(self, one: InPortSet, packet: Packet) -> bool:
        type, members = self.sets[one.id]
        assert type == "ip,port", one
        name = NAMES.get(packet.protocol, "")
        return f"{self.address(packet, one.side)},{name}:{self.port(packet, one.side)}" in members

    def ports(self, one: Ports, packet: Packet) -> bool:
        return packet.protocol in WITH_PORTS and _in_ranges(self.port(packet, one.side), one.ranges)

    def icmp(self, one: ICMP, packet: Packet) -> bool:
        """A dialect's ICMP match asks for the protocol itself, negated or not: others never match."""
        if packet.icmp is None:
            return one.negated
        return packet.icmp[0] == one.type and one.code in (None, packet.icmp[1])

    def is_local(self, one: AddressType, packet: Packet) -> bool:
        return self.address(packet, one.side) in self.locals


def _contains(net: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    network = ipaddress.ip_network(net)
    return network.version == address.version and address in network


def _in_ranges(port: int, ranges: tuple[PortRange, ...]) -> bool:
    return any(one.first <= port <= one.last for one in ranges)


def _is_called(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _in_net(walk: Walk, side: Side, cidrs: Sequence[str], packet: Packet) -> bool:
    address = ipaddress.ip_address(walk.address(packet, side))
    return any(_contains(cidr, address) for cidr in cidrs)


_MATCHERS: dict[type, Callable[..., bool]] = {
    Mark: lambda _walk, one, packet: packet.mark & one.mask == one.value,
    InInterface: lambda _walk, one, packet: _is_called(packet.in_interface, one.name),
    OutInterface: lambda _walk, one, packet: _is_called(packet.out_interface, one.name),
    Protocol: lambda _walk, one, packet: packet.protocol == one.number,
    Net: lambda walk, one, packet: _in_net(walk, one.side, (one.cidr,), packet),
    NetAnyOf: lambda walk, one, packet: _in_net(walk, one.side, one.cidrs, packet),
    InSet: Walk.in_set,
    InPortSet: Walk.in_port_set,
    Ports: Walk.ports,
    ICMP: Walk.icmp,
    Conntrack: lambda _walk, one, packet: packet.conntrack in one.states,
    DNATted: lambda _walk, _one, packet: packet.is_translated,
    AddressType: Walk.is_local,
    ReversePathFails: lambda _walk, _one, packet: packet.is_reverse_path_wrong,
}
