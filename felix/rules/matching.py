"""From a compiled policy rule to the packet-filter rules that find its packets. Pure.

Where a dialect has alternatives (nftables), a rule each way suffices. Where it has none (iptables), lists are worked through
beforehand: each leaves its outcome in a scratch bit of the mark, and the last rule asks for the bit. Calico's encoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

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
ICMP_OF: dict[IPVersion, int] = {4: 1, 6: 58}
SMALL = 4  # alternatives up to so many become rules of their own: a set without a name costs the kernel more
MAX_WAYS = 16


@dataclass(frozen=True, slots=True)
class Finder:
    """`before` are rules that only prepare; a packet is found if then all criteria of one of the `ways` hold."""

    before: tuple[Rule, ...] = ()
    ways: tuple[tuple[Criterion, ...], ...] = ((),)

    def in_one_way(self, marks: Marks) -> Finder:
        """For an action that does not end the chain: a packet that is found two ways gets it once."""
        if len(self.ways) == 1:
            return self
        found = marks.scratch0
        before = (*self.before, Rule((), clear(found)), *(Rule(way, put(found)) for way in self.ways))
        return Finder(before, ((is_set(found),),))


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
    asks_for_type = rule.icmp is not None or rule.not_icmp is not None
    if asks_for_type and rule.protocol not in (None, ICMP_OF[version]):
        return None  # the type's protocol is the IP version's: one rule cannot ask for both of two
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
    number = ICMP_OF[version] if asks_for_type else rule.protocol
    protocol = [] if number is None else [Protocol(number)]
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
    return _alternatives(parts) if has_alternatives else _blocks(parts, marks)


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
    elif has_alternatives and len(nets) > SMALL:
        parts.always.append(NetAnyOf(side, tuple(nets)))
    elif nets:
        parts.choices.append([(Net(side, one),) for one in nets])
    parts.always += [InSet(side, one) for one in entity.ip_sets]
    parts.always += [InPortSet(side, one) for one in entity.services]
    groups = _groups(entity.ports, has_alternatives)
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
        if len(nets) > SMALL:
            parts.always.append(NetAnyOf(side, tuple(nets), negated=True))
        else:
            parts.always += [Net(side, one, negated=True) for one in nets]
    elif len(nets) == 1 and not entity.nets:
        parts.always.append(Net(side, nets[0], negated=True))
    else:
        parts.none_of += [(Net(side, one),) for one in nets]
    parts.always += [InSet(side, one, negated=True) for one in entity.not_ip_sets]
    groups = _groups(entity.not_ports, has_alternatives)
    if len(groups) == 1 or has_alternatives:
        parts.always += [Ports(side, group, negated=True) for group in groups]
    else:
        parts.none_of += [(*protocol, Ports(side, group)) for group in groups]
    parts.always += [InPortSet(side, one, negated=True) for one in entity.not_named_ports]


def _groups(ports: tuple[PortRange, ...], has_alternatives: bool) -> list[tuple[PortRange, ...]]:
    """Of ports that one criterion can hold; few ports stand alone."""
    if not has_alternatives:
        return list(port_groups(ports))
    return [(one,) for one in ports] if len(ports) <= SMALL else [ports]


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


def _alternatives(parts: Parts) -> Finder:
    """Every combination of choices, unless they are too many: then the longest lists become sets."""
    while prod(len(one) for one in parts.choices) > MAX_WAYS and (longest := _longest(parts.choices)) is not None:
        parts.choices.remove(longest)
        parts.always.append(_as_one(longest))
    ways = []
    for chosen in itertools.product(*parts.choices):
        more = [one for way in chosen for one in way if one not in parts.always]
        ways.append((*parts.always, *more))
    return Finder((), tuple(ways))


def _longest(choices: list[list[tuple[Criterion, ...]]]) -> list[tuple[Criterion, ...]] | None:
    """Of those that one criterion can say."""
    plain = [one for one in choices if all(isinstance(way[-1], Net) for way in one)]
    return max(plain, key=len, default=None)


def _as_one(choice: list[tuple[Criterion, ...]]) -> Criterion:
    nets = [way[-1] for way in choice]
    return NetAnyOf(nets[0].side, tuple(one.cidr for one in nets if isinstance(one, Net)))  # type: ignore[union-attr]


def _blocks(parts: Parts, marks: Marks) -> Finder:
    if not parts.choices and not parts.none_of:
        return Finder((), (tuple(parts.always),))
    holds, this = marks.scratch0, marks.scratch1
    first, *others = parts.choices or [[]]
    before = [Rule((), SetMark(0 if first else holds, holds | this))]
    before += [Rule(way, put(holds)) for way in first]
    for block in others:
        before.append(Rule((), clear(this)))
        before += [Rule(way, put(this)) for way in block]
        before.append(Rule((is_clear(this),), clear(holds)))
    before += [Rule(way, clear(holds)) for way in parts.none_of]
    return Finder(tuple(before), ((*parts.always, is_set(holds)),))
