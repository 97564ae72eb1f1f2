"""From a compiled policy rule to the packet-filter rules that find its packets. Pure.

Where a dialect has alternatives (nftables), one rule suffices but for ports that are numbers or names. Where it has none
(iptables), lists are worked through beforehand: each leaves its outcome in a scratch bit of the mark, and the last rule
asks for the bit. Calico's encoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from felix.desired import Entity, IPVersion, PolicyRule, PortRange
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
    nets = [_of_version(one, version) for one in _lists(rule)]
    if any(one is None for one in nets):
        return None
    source_nets, source_not, destination_nets, destination_not = (one or () for one in nets)
    parts = Parts()
    protocol = [] if rule.protocol is None else [Protocol(rule.protocol)]
    parts.always += protocol
    for side, entity, positive in (
        ("source", rule.source, source_nets), ("destination", rule.destination, destination_nets),
    ):  # fmt: skip
        _add_positive(parts, side, entity, positive, protocol, has_alternatives)  # type: ignore[arg-type]
    if rule.icmp is not None:
        parts.always.append(ICMP(*rule.icmp))
    if rule.not_protocol is not None:
        parts.always.append(Protocol(rule.not_protocol, negated=True))
    for side, entity, negative in (
        ("source", rule.source, source_not), ("destination", rule.destination, destination_not),
    ):  # fmt: skip
        _add_negative(parts, side, entity, negative, protocol, has_alternatives)  # type: ignore[arg-type]
    if rule.not_icmp is not None:
        parts.always.append(ICMP(*rule.not_icmp, negated=True))
    return _alternatives(parts, marks) if has_alternatives else _blocks(parts, marks)


def _lists(rule: PolicyRule) -> Iterator[tuple[tuple[str, ...], bool]]:
    for entity in (rule.source, rule.destination):
        yield entity.nets, False
        yield entity.not_nets, True


def _of_version(given: tuple[tuple[str, ...], bool], version: IPVersion) -> tuple[str, ...] | None:
    """Those of one IP version; None if the rule is not for it: all were of the other one, or everything is excluded.

    Excluded networks make a rule one for their version too, as in Calico: `allow from not 10.0.0.0/8` opens no IPv6.
    """
    nets, negated = given
    ours = tuple(one for one in nets if (":" in one) == (version == 6))
    if negated and any(one in EVERYTHING for one in ours):
        return None
    return None if nets and not ours else ours


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
        parts.always += [one for one in ways[0] if one not in parts.always]
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
