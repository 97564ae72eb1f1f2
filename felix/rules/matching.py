"""From a compiled policy rule to the packet-filter rules that find its packets. Pure.

Where a dialect has alternatives (nftables), one rule suffices but for ports that are numbers or names. Where it has none
(iptables), lists are worked through beforehand: each leaves its outcome in a scratch bit of the mark, and the last rule
asks for the bit. Calico's encoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from felix.desired import ANYTHING, Entity, IPVersion, PolicyRule, PortRange
from felix.filter_rules import (
    ICMP,
    Criterion,
    InPortSet,
    InSet,
    Net,
    NetAnyOf,
    Ports,
    Protocol,
    Rule,
    SetMark,
    Side,
)
from felix.rules.marks import Marks, clear, is_clear, is_set, put

MAX_SLOTS = 15  # of iptables' multiport; a range takes two
EVERYTHING = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Finder:
    """`before` are rules that only prepare; a packet is found if all of `criteria` hold then."""

    before: tuple[Rule, ...] = ()
    criteria: tuple[Criterion, ...] = ()


@dataclass(slots=True)
class Parts:
    """`always` must hold; of each list of `choices` one; of `none_of` nothing."""

    always: list[Criterion] = field(default_factory=list)
    choices: list[list[tuple[Criterion, ...]]] = field(default_factory=list)
    none_of: list[tuple[Criterion, ...]] = field(default_factory=list)


def find(rule: PolicyRule, version: IPVersion, marks: Marks, *, has_alternatives: bool) -> Finder | None:
    """None: no packet of this IP version can be meant."""
    if rule.ip_version not in (None, version):
        return None
    source, destination = rule.source, rule.destination
    nets = []
    for given, negated in (
        (source.nets, False), (source.not_nets, True), (destination.nets, False), (destination.not_nets, True),
    ):  # fmt: skip
        ours = _of_version(given, version, negated=negated) if given else ()
        if ours is None:
            return None
        nets.append(ours)
    parts = Parts()
    protocol = [] if rule.protocol is None else [Protocol(rule.protocol)]
    parts.always += protocol
    if source is not ANYTHING:
        _add_positive(parts, "source", source, nets[0], protocol, has_alternatives)
    if destination is not ANYTHING:
        _add_positive(parts, "destination", destination, nets[2], protocol, has_alternatives)
    if rule.icmp is not None:
        parts.always.append(ICMP(*rule.icmp))
    if rule.not_protocol is not None:
        parts.always.append(Protocol(rule.not_protocol, negated=True))
    if source is not ANYTHING:
        _add_negative(parts, "source", source, nets[1], protocol, has_alternatives)
    if destination is not ANYTHING:
        _add_negative(parts, "destination", destination, nets[3], protocol, has_alternatives)
    if rule.not_icmp is not None:
        parts.always.append(ICMP(*rule.not_icmp, negated=True))
    return _alternatives(parts, marks) if has_alternatives else _blocks(parts, marks)


def _of_version(nets: tuple[str, ...], version: IPVersion, *, negated: bool) -> tuple[str, ...] | None:
    """Those of one IP version; None if the rule is not for it: all were of the other one, or everything is excluded.

    Excluded networks make a rule one for their version too, as in Calico: `allow from not 10.0.0.0/8` opens no IPv6.
    """
    ours = tuple(one for one in nets if (":" in one) == (version == 6))
    if negated and any(one in EVERYTHING for one in ours):
        return None
    return ours or None


def _add_positive(
    parts: Parts, side: Side, entity: Entity, nets: Sequence[str], protocol: list[Protocol], has_alternatives: bool
) -> None:
    if len(nets) == 1 and (has_alternatives or not entity.not_nets):
        parts.always.append(Net(side, nets[0]))
    elif has_alternatives and nets:
        parts.always.append(NetAnyOf(side, tuple(nets)))
    elif nets:
        parts.choices.append([(Net(side, one),) for one in nets])
    parts.always += [InSet(side, one) for one in entity.ip_sets]
    parts.always += [InPortSet(side, one) for one in entity.services]
    groups = [entity.ports] if has_alternatives and entity.ports else list(port_groups(entity.ports))
    ways: list[tuple[Criterion, ...]] = [(*protocol, Ports(side, group)) for group in groups]
    ways += [(InPortSet(side, one),) for one in entity.named_ports]
    if len(ways) == 1:
        parts.always.append(ways[0][-1])  # the protocol is among them
    elif ways:
        parts.choices.append(ways)


def _add_negative(
    parts: Parts, side: Side, entity: Entity, nets: Sequence[str], protocol: list[Protocol], has_alternatives: bool
) -> None:
    if has_alternatives:
        if nets:
            parts.always.append(NetAnyOf(side, tuple(nets), negated=True))
    elif len(nets) == 1 and not entity.nets:
        parts.always.append(Net(side, nets[0], negated=True))
    else:
        parts.none_of += [(Net(side, one),) for one in nets]
    parts.always += [InSet(side, one, negated=True) for one in entity.not_ip_sets]
    groups = [entity.not_ports] if has_alternatives and entity.not_ports else list(port_groups(entity.not_ports))
    if len(groups) == 1:
        parts.always.append(Ports(side, groups[0], negated=True))
    else:
        parts.none_of += [(*protocol, Ports(side, group)) for group in groups]
    parts.always += [InPortSet(side, one, negated=True) for one in entity.not_named_ports]


def port_groups(ranges: Iterable[PortRange]) -> Iterator[tuple[PortRange, ...]]:
    """Cut so that each fits into one rule of iptables."""
    group: list[PortRange] = []
    slots = 0
    for one in ranges:
        needed = 1 if one.first == one.last else 2
        if slots + needed > MAX_SLOTS:
            yield tuple(group)
            group, slots = [], 0
        group.append(one)
        slots += needed
    if group:
        yield tuple(group)


def _alternatives(parts: Parts, marks: Marks) -> Finder:
    ways = []
    for chosen in itertools.product(*parts.choices):
        more = [one for way in chosen for one in way if one not in parts.always]
        ways.append((*parts.always, *more))
    if len(ways) == 1:
        return Finder((), ways[0])
    # A packet that is found both ways is to be counted, and logged, once.
    found = marks.scratch0
    return Finder((Rule((), clear(found)), *(Rule(way, put(found)) for way in ways)), (is_set(found),))


def _blocks(parts: Parts, marks: Marks) -> Finder:
    if not parts.choices and not parts.none_of:
        return Finder((), tuple(parts.always))
    holds, this = marks.scratch0, marks.scratch1
    first, *others = parts.choices or [[]]
    before = [Rule((), SetMark(0 if first else holds, holds | this))]
    before += [Rule(way, put(holds)) for way in first]
    for block in others:
        before.append(Rule((), clear(this)))
        before += [Rule(way, put(this)) for way in block]
        before.append(Rule((is_clear(this),), clear(holds)))
    before += [Rule(way, clear(holds)) for way in parts.none_of]
    return Finder(tuple(before), (*parts.always, is_set(holds)))
