"""Rules, chains, sets and maps as nf_tables' netlink messages. Pure; numbers from linux/netfilter/nf_tables.h.

The library nft reads the whole table anew before it adds a rule to it, and puts everything into one transaction, in
which the kernel's work grows with the square of the sets that have no name. `nft list` shows what these messages make
as it shows its own, which is how they are tested.

Each rule carries in its user data, which nft passes over, a digest of what it was made of: a later process knows by it
which rules it need not write.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from felix.desired import IPSetType, IPVersion, PortRange
from felix.filter_rules import (
    ICMP,
    AddressType,
    Chain,
    Conntrack,
    DNATted,
    GoTo,
    GoToByInterface,
    Hook,
    InInterface,
    InPortSet,
    InSet,
    Jump,
    Mark,
    Net,
    NetAnyOf,
    OutInterface,
    Ports,
    Protocol,
    ReversePathFails,
    Rule,
    Table,
)
from felix.kernel.netlink import attribute, attributes
from felix.kernel.nfnetlink import (
    DELETE_CHAIN,
    DELETE_ELEMENTS,
    DELETE_RULE,
    DELETE_SET,
    DELETE_TABLE,
    MARK_OCTETS,
    NEW_CHAIN,
    NEW_ELEMENTS,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
    RULE_MARK,
    Hooked,
    Message,
    SetKind,
)
from felix.kernel.nft_actions import ACTIONS
from felix.kernel.nft_elements import NAME_OCTETS, data, nested, net_elements, text
from felix.kernel.nft_expressions import (
    ADDRESS_AT,
    ANONYMOUS,
    AT_LEAST,
    AT_MOST,
    CONCATENATION,
    CONSTANT,
    COUNTER,
    CT_STATE,
    CT_STATES,
    CT_STATUS,
    DST_NAT,
    EQUAL,
    FIB_ADDRESS_TYPE,
    FIB_DESTINATION,
    FIB_IIF,
    FIB_MARK,
    FIB_OIF,
    FIB_OUT,
    FIB_SOURCE,
    INTERVAL,
    META_IIFNAME,
    META_MARK,
    META_OIFNAME,
    META_PROTOCOL,
    NETWORK,
    OCTETS,
    REGISTER,
    RTN_LOCAL,
    TRANSPORT,
    TYPE_ADDRESS,
    TYPE_PORT,
    TYPE_PROTOCOL,
    UNEQUAL,
    Unencodable,
    be32,
    compare,
    expression,
    host_u32,
    lookup,
    masked,
    meta,
    payload,
    verdict,
)
from felix.nft_names import BASE_CHAINS, chain_name, map_name, set_name
from felix.rules.matching import ICMP_OF
from felix.rules.nft_text import FULL, comment_text, merged, widest

MOST_KNOWN = 10_000
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
ACCEPT = 1
MAP, TYPE_INTERFACE, DATA_VERDICT = 8, 41, 0xFFFFFF00
KEY_IN_HOST_ORDER = b"\0\4" + struct.pack("=I", 1)
VERDICT_MAP = SetKind(MAP, TYPE_INTERFACE)


def hooked(table: Table, hook: Hook) -> Hooked:
    """How a base chain must stand in the kernel."""
    kind, name, priority = BASE_CHAINS[table, hook]
    return Hooked(kind, HOOKS[name], priority, ACCEPT)


def set_kind(version: IPVersion, type: IPSetType) -> SetKind:
    if type == "net":
        return SetKind(INTERVAL, TYPE_ADDRESS[version])
    # Types of a concatenation stand side by side in 6 bits each.
    return SetKind(CONCATENATION, TYPE_ADDRESS[version] << 12 | TYPE_PROTOCOL << 6 | TYPE_PORT)


@dataclass(slots=True)
class RuleEncoder:
    """Chains of one IP version's table. Sets without a name are numbered through; they live with their rule."""

    version: IPVersion
    table: str
    table_flags: int = 0
    messages: list[Message] = field(default_factory=list)
    mark: bytes = b""  # the digests of the rules last encoded, as `NftSocket.marks` says them
    _sets: int = 0
    _digests: list[bytes] = field(default_factory=list)
    _of_rule: list[tuple[bytes, bytes]] = field(default_factory=list)  # lookups of sets without a name; and unnumbered
    _known: dict[object, bytes] = field(default_factory=dict)  # criteria and actions that thousands of rules share

    # --- table and chains --------------------------------------------------------------------------------------------

    def new_table(self) -> Message:
        """One that is there and at rest (`dormant`) wakes up."""
        return NEW_TABLE, text(1, self.table) + be32(2, self.table_flags)

    def delete_table(self) -> Message:
        return DELETE_TABLE, text(1, self.table)

    def base_chain(self, table: Table, hook: Hook) -> Message:
        """Of one that is there the policy is set."""
        kind, number, priority, policy = hooked(table, hook)
        at = be32(1, number) + attribute(2, struct.pack("!i", priority))
        said = text(1, self.table) + text(3, chain_name(table, hook)) + nested(4, at)
        return NEW_CHAIN, said + be32(5, policy) + text(7, kind)

    def new_chain(self, name: str) -> Message:
        return NEW_CHAIN, text(1, self.table) + text(3, name)

    def flush_chain(self, name: str) -> Message:
        return DELETE_RULE, text(1, self.table) + text(2, name)

    def delete_chain(self, name: str) -> Message:
        return DELETE_CHAIN, text(1, self.table) + text(3, name)

    # --- rules -------------------------------------------------------------------------------------------------------

    def rules(self, table: Table, chain: Chain, name: str = "") -> list[Message]:
        """The rules, and before each the sets that it needs. `name`: in the kernel, if not the chain's. Raises Unencodable."""
        self.messages, self._digests, self.mark = [], [], b""
        name = name or chain_name(table, chain.name)
        for at, rule in enumerate(chain.rules):
            try:
                self.messages.append(self._rule(table, name, rule))
            except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
                raise Unencodable(f"rule {at}: {error}") from error
        self.mark = b"".join(self._digests)
        found, self.messages = self.messages, []
        return found

    def _rule(self, table: Table, chain: str, rule: Rule) -> Message:
        self._of_rule.clear()
        before = len(self.messages)
        has_protocol = any(isinstance(one, Protocol) for one in rule.criteria)
        parts = []
        for one in rule.criteria:
            if isinstance(one, ICMP) and not has_protocol:
                parts.append(meta(META_PROTOCOL) + compare(EQUAL, bytes((ICMP_OF[self.version],))))
            parts.append(self._known.get(one) or self._criterion(one))
        parts.append(COUNTER)
        if rule.action is not None:
            parts.append(self._action(table, rule.action))
        words = b"".join(parts)
        user_data = b""
        if rule.comments:
            comment = comment_text("; ".join(rule.comments)).encode() + b"\0"
            user_data = bytes((0, len(comment))) + comment
        digest = self._digest(words + user_data, before)
        self._digests.append(digest)
        user_data += bytes((RULE_MARK, len(digest))) + digest
        return NEW_RULE, text(1, self.table) + text(2, chain) + nested(4, words) + attribute(7, user_data)

    def _digest(self, words: bytes, before: int) -> bytes:
        """The same whatever numbers the sets without a name have got."""
        for numbered, unnumbered in self._of_rule:
            words = words.replace(numbered, unnumbered)
        parts = [words]
        for kind, said in self.messages[before:]:
            if kind == NEW_ELEMENTS:
                parts += [said[a:b] for number, a, b in attributes(said, 0, len(said)) if number == 3]
        return hashlib.blake2b(b"".join(parts), digest_size=MARK_OCTETS).digest()

    def _action(self, table: Table, action: Any) -> bytes:
        if isinstance(action, Jump | GoTo):
            return verdict("jump" if isinstance(action, Jump) else "goto", chain_name(table, action.chain))
        if isinstance(action, GoToByInterface):
            key = META_IIFNAME if action.direction == "in" else META_OIFNAME
            return meta(key) + lookup(map_name(table, action.map), into_verdict=True)
        known = self._known.get(action)
        if known is None:
            known = self._remember(action, _of(ACTIONS, action)(self.version, action))
        return known

    def _criterion(self, one: Any) -> bytes:
        before = len(self.messages)
        found = _of(CRITERIA, one)(self, one)
        # A set without a name lives with one rule alone.
        return found if len(self.messages) > before else self._remember(one, found)

    def _remember(self, one: object, said: bytes) -> bytes:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[one] = said
        return said

    # --- sets --------------------------------------------------------------------------------------------------------

    def new_set(self, name: str, type: IPSetType) -> Message:
        octets = OCTETS[self.version]
        flags, key_type = set_kind(self.version, type)
        said = be32(3, flags) + be32(4, key_type)
        if type == "net":
            said += be32(5, octets)
        else:
            lengths = b"".join(nested(1, be32(1, length)) for length in (octets, 1, 2))
            said += be32(5, octets + 8) + nested(9, nested(2, lengths))
        self._sets += 1
        return NEW_SET, text(1, self.table) + text(2, name) + said + be32(10, self._sets)

    def new_map(self, name: str) -> Message:
        self._sets += 1
        said = be32(3, MAP) + be32(4, TYPE_INTERFACE) + be32(5, NAME_OCTETS) + be32(6, DATA_VERDICT)
        said += attribute(13, KEY_IN_HOST_ORDER)  # or nft shows no names
        return NEW_SET, text(1, self.table) + text(2, name) + said + be32(10, self._sets)

    def elements(self, what: Literal["add", "delete"], name: str, elements: Sequence[bytes]) -> Message:
        """Of a set or map; at most MAX_ELEMENTS."""
        kind = NEW_ELEMENTS if what == "add" else DELETE_ELEMENTS
        return kind, text(1, self.table) + text(2, name) + nested(3, b"".join(elements))

    def delete_set(self, name: str) -> Message:
        return DELETE_SET, text(1, self.table) + text(2, name)

    def nameless_set(self, key_type: int, key_octets: int, elements: Iterable[bytes], *, negated: bool) -> bytes:
        """Declares it before the rule; the lookup of it."""
        self._sets += 1
        id, name = self._sets, "__set%d"
        flags = ANONYMOUS | CONSTANT | INTERVAL
        head = text(1, self.table) + text(2, name)
        self.messages.append((NEW_SET, head + be32(3, flags) + be32(4, key_type) + be32(5, key_octets) + be32(10, id)))
        self.messages.append((NEW_ELEMENTS, head + be32(4, id) + nested(3, b"".join(elements))))
        found = lookup(name, negated=negated, id=id)
        self._of_rule.append((found, lookup(name, negated=negated)))
        return found

    # --- criteria ----------------------------------------------------------------------------------------------------

    def address(self, side: str) -> bytes:
        return payload(NETWORK, ADDRESS_AT[self.version, side], OCTETS[self.version])

    def net(self, one: Net) -> bytes:
        return self._net(one.side, one.cidr, negated=one.negated)

    def _net(self, side: str, cidr: str, *, negated: bool) -> bytes:
        network = ipaddress.ip_network(cidr, strict=False)
        if network.version != self.version:
            raise Unencodable(f"{cidr} is no IPv{self.version} network")
        said = self.address(side)
        if network.prefixlen < network.max_prefixlen:
            said += masked(network.netmask.packed, bytes(OCTETS[self.version]))
        return said + compare(UNEQUAL if negated else EQUAL, network.network_address.packed)

    def net_any_of(self, one: NetAnyOf) -> bytes:
        nets = widest(one.cidrs)
        if not nets or any((":" in net) != (self.version == 6) for net in nets):
            raise Unencodable(f"no IPv{self.version} networks: {', '.join(one.cidrs)}")
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
        if not ranges or any(first > last for first, last in ranges):
            raise Unencodable(f"no ports: {one.ranges}")
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


def port_elements(one: PortRange) -> list[bytes]:
    found = [nested(1, data(1, struct.pack("!H", one.first)))]
    if one.last < 0xFFFF:
        found.append(nested(1, data(1, struct.pack("!H", one.last + 1)) + be32(3, 1)))
    return found


def _of(table: Mapping[type, Callable[[Any, Any], bytes]], one: Any) -> Callable[[Any, Any], bytes]:
    found = table.get(type(one))
    if found is None:
        raise Unencodable(f"nftables has no {type(one).__name__}")
    return found


def mark(_: RuleEncoder, one: Mark) -> bytes:
    mask = b"" if one.mask == FULL else masked(host_u32(one.mask), bytes(4))
    return meta(META_MARK) + mask + compare(UNEQUAL if one.negated else EQUAL, host_u32(one.value))


def interface(key: int) -> Callable[[RuleEncoder, Any], bytes]:
    def encode(_: RuleEncoder, one: InInterface | OutInterface) -> bytes:
        if one.name == "+" and not one.negated:
            return b""
        name = os.fsencode(one.name)
        value = name.removesuffix(b"+")
        if not value or len(value) >= NAME_OCTETS:
            raise Unencodable(f"no interface can be called {one.name!r}")
        if value == name:
            value = name.ljust(NAME_OCTETS, b"\0")
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
