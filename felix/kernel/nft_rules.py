"""Rules, chains and sets as nf_tables' netlink messages. Pure; numbers from linux/netfilter/nf_tables.h.

The library nft reads the whole table anew before it adds a rule to it, and puts everything into one transaction, in
which the kernel's work grows with the square of the sets that have no name. `nft list` shows what these messages make
as it shows its own, which is how they are tested.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from felix.desired import IPSetType, IPVersion, PortRange
from felix.filter_rules import (
    ICMP,
    Accept,
    AddressType,
    Chain,
    Conntrack,
    DNATted,
    Drop,
    GoTo,
    GoToByInterface,
    InInterface,
    InPortSet,
    InSet,
    Jump,
    LimitPacketRate,
    Log,
    Mark,
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
    SetMark,
    Table,
)
from felix.kernel.netlink import attribute
from felix.kernel.nfnetlink import (
    DELETE_CHAIN,
    DELETE_RULE,
    DELETE_SET,
    NEW_CHAIN,
    NEW_ELEMENTS,
    NEW_RULE,
    NEW_SET,
    data,
    nested,
    net_elements,
    text,
)
from felix.rules.nft_text import FULL, chain_name, comment_text, map_name, merged, prefix_text, set_name, widest

Encoded = tuple[int, bytes]
"""Kind of message, and its body behind the family's header."""

VERDICT, REGISTER = 0, 1
EQUAL, UNEQUAL, AT_MOST, AT_LEAST = 0, 1, 3, 5
META_MARK, META_IIFNAME, META_OIFNAME, META_PROTOCOL = 3, 6, 7, 16
NETWORK, TRANSPORT = 1, 2
ADDRESS_AT = {(4, "source"): 12, (4, "destination"): 16, (6, "source"): 8, (6, "destination"): 24}
OCTETS = {4: 4, 6: 16}
CT_STATE, CT_STATUS = 0, 2
CT_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
DST_NAT = 32
FIB_OIF, FIB_ADDRESS_TYPE = 1, 3
FIB_SOURCE, FIB_DESTINATION, FIB_MARK, FIB_IIF, FIB_OUT = 1, 2, 4, 8, 16
RTN_LOCAL = 2
ANONYMOUS, CONSTANT, INTERVAL, CONCATENATION = 1, 2, 4, 0x80
TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT = {4: 7, 6: 8}, 12, 13
CODES = {"drop": 0, "accept": 1, "jump": 0xFFFFFFFD, "goto": 0xFFFFFFFC, "return": 0xFFFFFFFB}
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
ICMP_OF, PORT_UNREACHABLE = {4: 1, 6: 58}, {4: 3, 6: 4}
LEVEL_NOTICE = 5
MOST_KNOWN = 10_000


class Unencodable(ValueError):
    """Goes in text only."""


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!Q", value))


def expression(name: str, attributes: bytes) -> bytes:
    return nested(1, text(1, name) + nested(2, attributes))


def meta(key: int, register: int = REGISTER) -> bytes:
    return expression("meta", be32(1, register) + be32(2, key))


def payload(base: int, offset: int, octets: int, register: int = REGISTER) -> bytes:
    return expression("payload", be32(1, register) + be32(2, base) + be32(3, offset) + be32(4, octets))


def compare(operator: int, value: bytes) -> bytes:
    return expression("cmp", be32(1, REGISTER) + be32(2, operator) + data(3, value))


def masked(mask: bytes, xor: bytes) -> bytes:
    return expression(
        "bitwise", be32(1, REGISTER) + be32(2, REGISTER) + be32(3, len(mask)) + data(4, mask) + data(5, xor)
    )


def lookup(name: str, *, negated: bool = False, id: int = 0, into_verdict: bool = False) -> bytes:
    said = text(1, name) + be32(2, REGISTER)
    if into_verdict:
        said += be32(3, VERDICT)
    if id:
        said += be32(4, id)
    if negated:
        said += be32(5, 1)
    return expression("lookup", said)


def verdict(word: str, chain: str = "") -> bytes:
    said = be32(1, CODES[word]) + (text(2, chain) if chain else b"")
    return expression("immediate", be32(1, VERDICT) + nested(2, nested(2, said)))


def host_u32(value: int) -> bytes:
    return struct.pack("=I", value)


def limit(rate: str, burst: int) -> bytes:
    """`10/second`."""
    if not rate:
        return b""
    number, _, unit = rate.partition("/")
    if unit not in UNITS:
        raise Unencodable(f"a rate of {rate}")
    said = be64(1, int(number)) + be64(2, UNITS[unit]) + be32(3, burst) + be32(4, 0) + be32(5, 0)
    return expression("limit", said)


_COUNTER = expression("counter", be64(1, 0) + be64(2, 0))


@dataclass(slots=True)
class RuleEncoder:
    """Chains of one IP version's table. Sets without a name are numbered through; they live with their rule."""

    version: IPVersion
    table: str
    messages: list[Encoded] = field(default_factory=list)
    _sets: int = 0
    _known: dict[object, bytes] = field(default_factory=dict)  # criteria and actions that thousands of rules share

    # --- chains ------------------------------------------------------------------------------------------------------

    def new_chain(self, name: str) -> Encoded:
        return NEW_CHAIN, text(1, self.table) + text(3, name)

    def flush_chain(self, name: str) -> Encoded:
        return DELETE_RULE, text(1, self.table) + text(2, name)

    def delete_chain(self, name: str) -> Encoded:
        return DELETE_CHAIN, text(1, self.table) + text(3, name)

    def rules(self, table: Table, chain: Chain) -> list[Encoded]:
        """The rules, and before each the sets that it needs. Raises Unencodable."""
        self.messages = []
        name = chain_name(table, chain.name)
        for rule in chain.rules:
            self.messages.append(self._rule(table, name, rule))
        found, self.messages = self.messages, []
        return found

    def _rule(self, table: Table, chain: str, rule: Rule) -> Encoded:
        has_protocol = any(isinstance(one, Protocol) for one in rule.criteria)
        parts = []
        for one in rule.criteria:
            if isinstance(one, ICMP) and not has_protocol:
                parts.append(meta(META_PROTOCOL) + compare(EQUAL, bytes((ICMP_OF[self.version],))))
            parts.append(self._known.get(one) or self._encode(CRITERIA, one))
        parts.append(_COUNTER)
        if rule.action is not None:
            parts.append(self._action(table, rule.action))
        said = text(1, self.table) + text(2, chain) + nested(4, b"".join(parts))
        if rule.comments:
            comment = comment_text("; ".join(rule.comments)).encode() + b"\0"
            said += attribute(7, bytes((0, len(comment))) + comment)
        return NEW_RULE, said

    def _action(self, table: Table, action: Any) -> bytes:
        if isinstance(action, Jump | GoTo):
            return verdict("jump" if isinstance(action, Jump) else "goto", chain_name(table, action.chain))
        if isinstance(action, GoToByInterface):
            key = META_IIFNAME if action.direction == "in" else META_OIFNAME
            return meta(key) + lookup(map_name(table, action.map), into_verdict=True)
        return self._known.get(action) or self._encode(ACTIONS, action)

    def _encode(self, by: Mapping[type, Callable[[RuleEncoder, Any], bytes]], one: Any) -> bytes:
        before = len(self.messages)
        found = _of(by, one)(self, one)
        if len(self.messages) == before:  # without a set that lives with this rule alone
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[one] = found
        return found

    # --- sets --------------------------------------------------------------------------------------------------------

    def new_set(self, name: str, type: IPSetType) -> Encoded:
        octets = OCTETS[self.version]
        if type == "net":
            said = be32(3, INTERVAL) + be32(4, TYPE_ADDRESS[self.version]) + be32(5, octets)
        else:
            # Types of a concatenation stand side by side in 6 bits each.
            kind = TYPE_ADDRESS[self.version] << 12 | TYPE_PROTOCOL << 6 | TYPE_PORT
            lengths = b"".join(nested(1, be32(1, length)) for length in (octets, 1, 2))
            said = be32(3, CONCATENATION) + be32(4, kind) + be32(5, octets + 8) + nested(9, nested(2, lengths))
        self._sets += 1
        return NEW_SET, text(1, self.table) + text(2, name) + said + be32(10, self._sets)

    def delete_set(self, name: str) -> Encoded:
        return DELETE_SET, text(1, self.table) + text(2, name)

    def nameless_set(self, key_type: int, key_octets: int, elements: Iterable[bytes], *, negated: bool) -> bytes:
        """Declares it before the rule; the lookup of it."""
        self._sets += 1
        id, name = self._sets, "__set%d"
        flags = ANONYMOUS | CONSTANT | INTERVAL
        head = text(1, self.table) + text(2, name)
        self.messages.append((NEW_SET, head + be32(3, flags) + be32(4, key_type) + be32(5, key_octets) + be32(10, id)))
        self.messages.append((NEW_ELEMENTS, head + be32(4, id) + nested(3, b"".join(elements))))
        return lookup(name, negated=negated, id=id)

    # --- criteria ----------------------------------------------------------------------------------------------------

    def address(self, side: str, register: int = REGISTER) -> bytes:
        return payload(NETWORK, ADDRESS_AT[self.version, side], OCTETS[self.version], register)

    def net(self, one: Net) -> bytes:
        return self._net(one.side, one.cidr, negated=one.negated)

    def _net(self, side: str, cidr: str, *, negated: bool) -> bytes:
        network = ipaddress.ip_network(cidr, strict=False)
        said = self.address(side)
        if network.prefixlen < network.max_prefixlen:
            said += masked(network.netmask.packed, bytes(OCTETS[self.version]))
        return said + compare(UNEQUAL if negated else EQUAL, network.network_address.packed)

    def net_any_of(self, one: NetAnyOf) -> bytes:
        nets = widest(one.cidrs)
        if len(nets) == 1:
            return self._net(one.side, nets[0], negated=one.negated)
        elements = [element for net in nets for element in net_elements(net)]
        found = self.nameless_set(TYPE_ADDRESS[self.version], OCTETS[self.version], elements, negated=one.negated)
        return self.address(one.side) + found

    def in_set(self, one: InSet) -> bytes:
        return self.address(one.side) + lookup(set_name(self.version, one.id), negated=one.negated)

    def in_port_set(self, one: InPortSet) -> bytes:
        after = 9 if self.version == 4 else 2  # the register behind the address's
        behind = 10 if self.version == 4 else 13
        port = payload(TRANSPORT, 0 if one.side == "source" else 2, 2, behind)
        found = lookup(set_name(self.version, one.id), negated=one.negated)
        return self.address(one.side) + meta(META_PROTOCOL, after) + port + found

    def ports(self, one: Ports) -> bytes:
        said = payload(TRANSPORT, 0 if one.side == "source" else 2, 2)
        ranges = merged(one.ranges)
        if len(ranges) > 1:
            elements = [part for first, last in ranges for part in port_elements(PortRange(first, last))]
            return said + self.nameless_set(TYPE_PORT, 2, elements, negated=one.negated)
        first, last = ranges[0]
        if first == last:
            return said + compare(UNEQUAL if one.negated else EQUAL, struct.pack("!H", first))
        if one.negated:
            ends = data(3, struct.pack("!H", first)) + data(4, struct.pack("!H", last))
            return said + expression("range", be32(1, REGISTER) + be32(2, UNEQUAL) + ends)
        return said + compare(AT_LEAST, struct.pack("!H", first)) + compare(AT_MOST, struct.pack("!H", last))

    def icmp(self, one: ICMP) -> bytes:
        value = bytes((one.type,)) if one.code is None else bytes((one.type, one.code))
        return payload(TRANSPORT, 0, len(value)) + compare(UNEQUAL if one.negated else EQUAL, value)

    def reject(self, one: Reject) -> bytes:
        kind, code = (1, 0) if one.how == "tcp-reset" else (0, PORT_UNREACHABLE[self.version])
        return expression("reject", be32(1, kind) + attribute(2, bytes((code,))))


def port_elements(one: PortRange) -> list[bytes]:
    found = [nested(1, data(1, struct.pack("!H", one.first)))]
    if one.last < 0xFFFF:
        found.append(nested(1, data(1, struct.pack("!H", one.last + 1)) + be32(3, 1)))
    return found


def _of(table: Mapping[type, Callable[[RuleEncoder, Any], bytes]], one: Any) -> Callable[[RuleEncoder, Any], bytes]:
    found = table.get(type(one))
    if found is None:
        raise Unencodable(type(one).__name__)
    return found


def mark(_: RuleEncoder, one: Mark) -> bytes:
    mask = b"" if one.mask == FULL else masked(host_u32(one.mask), bytes(4))
    return meta(META_MARK) + mask + compare(UNEQUAL if one.negated else EQUAL, host_u32(one.value))


def interface(key: int) -> Callable[[RuleEncoder, Any], bytes]:
    def encode(_: RuleEncoder, one: InInterface | OutInterface) -> bytes:
        if one.name == "+":
            return b""
        name = one.name.encode()
        value = name[:-1] if name.endswith(b"+") else name.ljust(16, b"\0")
        return meta(key) + compare(UNEQUAL if one.negated else EQUAL, value)

    return encode


def has_bits(key: int, bits: int, *, negated: bool) -> bytes:
    """Any of some bits of what conntrack knows."""
    asked = expression("ct", be32(1, REGISTER) + be32(2, key))
    return asked + masked(host_u32(bits), bytes(4)) + compare(EQUAL if negated else UNEQUAL, bytes(4))


def address_type(_: RuleEncoder, one: AddressType) -> bytes:
    flags = (FIB_SOURCE if one.side == "source" else FIB_DESTINATION) | (FIB_OUT if one.of_out_interface else 0)
    asked = expression("fib", be32(1, REGISTER) + be32(2, FIB_ADDRESS_TYPE) + be32(3, flags))
    return asked + compare(UNEQUAL if one.negated else EQUAL, host_u32(RTN_LOCAL))


def reverse_path(_: RuleEncoder, _one: ReversePathFails) -> bytes:
    asked = expression("fib", be32(1, REGISTER) + be32(2, FIB_OIF) + be32(3, FIB_SOURCE | FIB_MARK | FIB_IIF))
    return asked + compare(EQUAL, bytes(4))


def conntrack(_: RuleEncoder, one: Conntrack) -> bytes:
    return has_bits(CT_STATE, sum(CT_STATES[state] for state in one.states), negated=one.negated)


CRITERIA: Mapping[type, Callable[[RuleEncoder, Any], bytes]] = {
    Mark: mark,
    InInterface: interface(META_IIFNAME),
    OutInterface: interface(META_OIFNAME),
    Protocol: lambda _, one: meta(META_PROTOCOL) + compare(UNEQUAL if one.negated else EQUAL, bytes((one.number,))),
    Net: RuleEncoder.net,
    NetAnyOf: RuleEncoder.net_any_of,
    InSet: RuleEncoder.in_set,
    InPortSet: RuleEncoder.in_port_set,
    Ports: RuleEncoder.ports,
    ICMP: RuleEncoder.icmp,
    Conntrack: conntrack,
    DNATted: lambda _, one: has_bits(CT_STATUS, DST_NAT, negated=one.negated),
    AddressType: address_type,
    ReversePathFails: reverse_path,
}


def set_mark(_: RuleEncoder, one: SetMark) -> bytes:
    kept = host_u32(FULL & ~one.mask)
    return meta(META_MARK) + masked(kept, host_u32(one.value)) + expression("meta", be32(2, META_MARK) + be32(3, 1))


def nflog(_: RuleEncoder, one: NFLog) -> bytes:
    said = attribute(1, struct.pack("!H", one.group)) + text(2, prefix_text(one.prefix))
    return limit(one.rate, one.burst) + expression("log", said)


def log(_: RuleEncoder, one: Log) -> bytes:
    return limit(one.rate, one.burst) + expression("log", text(2, comment_text(one.prefix)) + be32(5, LEVEL_NOTICE))


def packet_rate(encoder: RuleEncoder, one: LimitPacketRate) -> bytes:
    return limit(f"{one.per_second}/second", one.burst) + set_mark(encoder, SetMark(one.mark, one.mark))


ACTIONS: Mapping[type, Callable[[RuleEncoder, Any], bytes]] = {
    Accept: lambda _, _one: verdict("accept"),
    Drop: lambda _, _one: verdict("drop"),
    Return: lambda _, _one: verdict("return"),
    Reject: RuleEncoder.reject,
    SetMark: set_mark,
    NFLog: nflog,
    Log: log,
    NoTrack: lambda _, _one: expression("notrack", b""),
    LimitPacketRate: packet_rate,
}
