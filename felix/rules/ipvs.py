"""kube-proxy with IPVS: what it forwards passes INPUT and OUTPUT, where the interface that it came by is asked no more. Pure.

INPUT notes in the mark which endpoint a packet came from; OUTPUT does by the mark what FORWARD does by the interface.
Calico's chains, and its hash; with an answer for the host endpoint of all interfaces, which Calico leaves out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from felix.desired import PortRange
from felix.filter_rules import (
    Chain,
    GoTo,
    GoToByInterface,
    InInterface,
    InSet,
    Jump,
    Mark,
    OutInterface,
    Ports,
    Protocol,
    Return,
    Rule,
    SetMark,
)
from felix.rules import names
from felix.rules.dispatch import tree
from felix.rules.endpoints import FLOWS
from felix.rules.marks import Marks, clear, is_set
from felix.rules.matching import port_groups
from felix.rules.policies import Dialect
from felix.rules.static import TCP, THIS_HOST, UDP, allow_filter

DEVICE = "kube-ipvs0"  # kube-proxy makes it when it uses IPVS


def fnv1(name: str) -> int:
    """FNV-1, 32 bits."""
    found = 2166136261
    for octet in name.encode():
        found = (found * 16777619 & 0xFFFFFFFF) ^ octet
    return found


class EndpointMarks:
    """Interface → bits of the mark; stays as it is as long as the interface is there."""

    def __init__(self, marks: Marks) -> None:
        self._bits = [1 << place for place in range(32) if marks.endpoint >> place & 1]
        self._names: dict[int, str] = {1: ""}  # the lowest bit: no endpoint of ours
        self._places: dict[str, int] = {}

    def keep(self, interfaces: Iterable[str]) -> dict[str, int]:
        """Those that found a place. One that found none gets no mark, and so is taken for a packet to this host."""
        wanted = sorted(set(interfaces))
        for gone in self._places.keys() - set(wanted):
            del self._names[self._places.pop(gone)]
        for name in wanted:
            self._find(name)
        return {name: self._spread(self._places[name]) for name in wanted if name in self._places}

    def _find(self, name: str) -> None:
        slots = (1 << len(self._bits)) - 1  # without 0, which is no mark
        if name in self._places or len(self._names) >= slots:
            return
        place = fnv1(name) % slots + 1
        while place in self._names:
            place = place % slots + 1
        self._names[place] = name
        self._places[name] = place

    def _spread(self, place: int) -> int:
        return sum(bit for at, bit in enumerate(self._bits) if place >> at & 1)


def chains(
    workloads: Sequence[str], hosts: Sequence[str], endpoint_marks: EndpointMarks, dialect: Dialect
) -> tuple[list[Chain], dict[str, dict[str, str]]]:
    """Chains, and verdict maps by name. `hosts` may have ANY_INTERFACE among them."""
    marks = dialect.marks
    named = [one for one in hosts if one != names.ANY_INTERFACE]
    given = endpoint_marks.keep((*workloads, *named))
    sources = {one: names.endpoint_chain("cali-fw-", one) for one in workloads}
    sources |= {one: names.endpoint_chain("cali-fhfw-", one) for one in named}
    found = [
        Chain(names.endpoint_chain("cali-sm-", one), (Rule((), SetMark(bits, marks.endpoint)),))
        for one, bits in given.items()
    ]
    to_set = {one: names.endpoint_chain("cali-sm-", one) for one in given}
    maps: dict[str, dict[str, str]] = {}
    end = list(_unknown(dialect))
    if dialect.has_verdict_maps:
        maps[names.SET_ENDPOINT_MARK] = to_set
        found.append(Chain(names.SET_ENDPOINT_MARK, (Rule((), GoToByInterface(names.SET_ENDPOINT_MARK, "in")), *end)))
    else:
        found += tree(names.SET_ENDPOINT_MARK, "in", to_set, end)
    by_mark = [Rule((Mark(bits, marks.endpoint),), GoTo(sources[one])) for one, bits in given.items()]
    found += [
        Chain(names.FROM_ENDPOINT_MARK, (*by_mark, Rule((), dialect.deny, ("Unknown interface",)))),
        Chain(names.FORWARD_CHECK, tuple(_forward_check(dialect))),
        Chain(names.FORWARD_ENDPOINT_MARK, tuple(_forward(dialect, is_everywhere=len(named) < len(hosts)))),
    ]
    return found, maps


def _unknown(dialect: Dialect) -> Iterator[Rule]:
    for prefix in dialect.settings.interface_prefixes:
        yield Rule((InInterface(f"{prefix}+"),), dialect.deny, ("Unknown endpoint",))
    yield Rule((), SetMark(dialect.marks.no_endpoint, dialect.marks.endpoint), ("Non-Cali endpoint mark",))


def _forward_check(dialect: Dialect) -> Iterator[Rule]:
    """Is it for a service? Then it goes on to a pod, wherever that is."""
    yield Rule((FLOWS,), Return())
    ranges: tuple[PortRange, ...] = dialect.settings.node_ports
    for group in [ranges] if dialect.has_alternatives and ranges else port_groups(ranges):
        for protocol in (TCP, UDP):
            yield Rule(
                (Protocol(protocol), Ports("destination", group), InSet("destination", THIS_HOST)),
                GoTo(names.SET_ENDPOINT_MARK), ("To kubernetes NodePort service",),
            )  # fmt: skip
    yield Rule(
        (InSet("destination", THIS_HOST, negated=True),), Jump(names.SET_ENDPOINT_MARK), ("To kubernetes service",)
    )


def _forward(dialect: Dialect, *, is_everywhere: bool) -> Iterator[Rule]:
    marks = dialect.marks
    others = Mark(marks.no_endpoint, marks.endpoint)
    yield Rule((Mark(marks.no_endpoint, marks.endpoint, negated=True),), Jump(names.FROM_ENDPOINT_MARK))
    if is_everywhere:
        yield Rule((others,), Jump(names.endpoint_chain("cali-fhfw-", names.ANY_INTERFACE)))
    for prefix in dialect.settings.interface_prefixes:
        yield Rule((OutInterface(f"{prefix}+"),), Jump(names.TO_WORKLOAD_DISPATCH))
    yield Rule((), Jump(names.TO_HOST_FORWARD))
    yield Rule((), clear(marks.endpoint))
    yield Rule((is_set(marks.accept),), allow_filter(dialect), ("Policy explicitly accepted packet.",))
