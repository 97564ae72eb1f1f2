"""Packet-filter rules without a dialect: chains of rules, each some criteria and an action. nftables and iptables render them.

A criterion that a dialect cannot express is an error of whoever built the rule (ValueError when rendered), never silence.
Networks and ports of one criterion are alternatives; all criteria of a rule must hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from felix.desired import IPVersion, PortRange

Table = Literal["raw", "mangle", "nat", "filter"]
Hook = Literal["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]
Side = Literal["source", "destination"]
CtState = Literal["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"]


# --- criteria --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """`mark & mask == value`."""

    value: int
    mask: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InInterface:
    """Exact name, or a prefix if it ends with `+` (as iptables writes it; `+` alone is any)."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class OutInterface:
    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    number: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Net:
    """One network. (Several are the builder's business: iptables has no alternatives, nftables may take NetAnyOf.)"""

    side: Side
    cidr: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class NetAnyOf:
    """Any of several networks of one IP version; negated: none of them. Only for dialects with `has_alternatives`."""

    side: Side
    cidrs: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InSet:
    """The address is in the set `id` of networks."""

    side: Side
    id: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InPortSet:
    """Address and port of `side`, and the protocol, are in the `ip,port` set `id`."""

    side: Side
    id: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """Any of some ports (at most 15 slots in iptables, a range counts two; `felix.rules` splits). Needs a Protocol beside it."""

    side: Side
    ranges: tuple[PortRange, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class ICMP:
    """ICMP in IPv4, ICMPv6 in IPv6. `code` None: any."""

    type: int
    code: int | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Conntrack:
    states: frozenset[CtState]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class DNATted:
    """The connection's destination has been translated."""

    negated: bool = False


@dataclass(frozen=True, slots=True)
class AddressType:
    """The address is one of this host's (`LOCAL`); `of_out_interface`: of the interface that the packet leaves by."""

    side: Side
    type: Literal["LOCAL"] = "LOCAL"
    of_out_interface: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class ReversePathFails:
    """An answer to the source would not leave by the interface that the packet came by (strict, mark considered)."""


Criterion: TypeAlias = (
    Mark
    | InInterface
    | OutInterface
    | Protocol
    | Net
    | NetAnyOf
    | InSet
    | InPortSet
    | Ports
    | ICMP
    | Conntrack
    | DNATted
    | AddressType
    | ReversePathFails
)


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    pass


@dataclass(frozen=True, slots=True)
class Drop:
    pass


@dataclass(frozen=True, slots=True)
class Reject:
    """`how` empty: as the dialect does by default (ICMP port unreachable)."""

    how: Literal["", "tcp-reset"] = ""


@dataclass(frozen=True, slots=True)
class Return:
    pass


@dataclass(frozen=True, slots=True)
class Jump:
    chain: str


@dataclass(frozen=True, slots=True)
class GoTo:
    chain: str


@dataclass(frozen=True, slots=True)
class GoToByInterface:
    """Go to the chain that the verdict map `map` has for the packet's interface; if it has none, the next rule. nftables only."""

    map: str
    direction: Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class SetMark:
    """`mark = mark & ~mask | value`."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Log:
    """To the kernel's log. `rate` packets a minute at most, if given, as `N/unit` (`5/minute`, `10/second`)."""

    prefix: str
    rate: str = ""
    burst: int = 5


@dataclass(frozen=True, slots=True)
class NFLog:
    """To whoever listens on the netlink group; `prefix` at most 64 octets. `rate` as in Log; unlimited if empty."""

    group: int
    prefix: str
    rate: str = ""
    burst: int = 5


@dataclass(frozen=True, slots=True)
class NoTrack:
    pass


@dataclass(frozen=True, slots=True)
class Masquerade:
    ports: PortRange | None = None
    is_fully_random: bool = True


@dataclass(frozen=True, slots=True)
class SNAT:
    address: str
    ports: PortRange | None = None
    is_fully_random: bool = True


@dataclass(frozen=True, slots=True)
class DNAT:
    address: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class LimitPacketRate:
    """Match (and set `mark`) up to `per_second` packets: what it does with the rest is the next rule's business."""

    per_second: int
    burst: int
    mark: int


@dataclass(frozen=True, slots=True)
class LimitConnections:
    """Refuse (TCP reset, else drop) what would be more than `most` connections of this rule."""

    most: int


@dataclass(frozen=True, slots=True)
class SetDSCP:
    value: int


Action: TypeAlias = (
    Accept
    | Drop
    | Reject
    | Return
    | Jump
    | GoTo
    | GoToByInterface
    | SetMark
    | Log
    | NFLog
    | NoTrack
    | Masquerade
    | SNAT
    | DNAT
    | LimitPacketRate
    | LimitConnections
    | SetDSCP
)


# --- chains ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """`action` None: counted, nothing else. Comments are for people; both dialects show them."""

    criteria: tuple[Criterion, ...] = ()
    action: Action | None = None
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """`name` as Calico's in iptables (`cali-tw-cali1234`); nftables puts the table's name before it."""

    name: str
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class HookRules:
    """What stands in a chain of the kernel's own: first of all (`inserted`) and last of all (`appended`)."""

    inserted: tuple[Rule, ...] = ()
    appended: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything for one IP version; for tests and whole comparisons, the dataplane sends differences."""

    version: IPVersion
    chains: Mapping[Table, Mapping[str, Chain]] = field(default_factory=dict)
    hooks: Mapping[tuple[Table, Hook], HookRules] = field(default_factory=dict)
    maps: Mapping[Table, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)  # map → interface → chain
