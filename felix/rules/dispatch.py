"""From an interface to its endpoint's chain. Pure.

Where the dialect has verdict maps that is one lookup, whatever their number; else a tree over the names' letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from felix.filter_rules import Chain, Criterion, GoTo, GoToByInterface, InInterface, OutInterface, Return, Rule
from felix.rules import names
from felix.rules.policies import Dialect

Way = Literal["in", "out"]


def interface(way: Way, name: str) -> Criterion:
    return InInterface(name) if way == "in" else OutInterface(name)


def common_start(first: str, last: str) -> str:
    """What all of a sorted list begin with, from its ends."""
    length = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return first[:length]


def tree(
    root: str, way: Way, targets: Mapping[str, str], end: Sequence[Rule], first: Sequence[Rule] = ()
) -> list[Chain]:
    """Chains that go from `root` to the interface's target; `end` rules stand where none fits, `first` ones at the top."""
    ordered = sorted(targets)
    prefix = common_start(ordered[0], ordered[-1]) if len(ordered) > 1 else ""
    bins: dict[str, list[str]] = {}
    for name in ordered:
        bins.setdefault(name[len(prefix) : len(prefix) + 1], []).append(name)
    rules = [*first]
    children = []
    for letter, members in bins.items():
        if len(members) == 1:
            rules.append(Rule((interface(way, members[0]),), GoTo(targets[members[0]])))
            continue
        child = f"{root}-{letter}"
        rules.append(Rule((interface(way, f"{prefix}{letter}+"),), GoTo(child)))
        leaves = [Rule((interface(way, name),), GoTo(targets[name])) for name in members]
        children.append(Chain(child, (*leaves, *end)))
    return [*children, Chain(root, (*rules, *end))]


def workload_dispatch(interfaces: Iterable[str], dialect: Dialect) -> tuple[list[Chain], dict[str, dict[str, str]]]:
    """Chains, and verdict maps by name. An interface that nobody knows gets nothing through."""
    end = [Rule((), dialect.deny, ("Unknown interface",))]
    chains: list[Chain] = []
    maps: dict[str, dict[str, str]] = {}
    ways: list[tuple[str, Way, str]] = [
        (names.FROM_WORKLOAD_DISPATCH, "in", "cali-fw-"),
        (names.TO_WORKLOAD_DISPATCH, "out", "cali-tw-"),
    ]
    known = list(interfaces)
    for root, way, prefix in ways:
        targets = {name: names.endpoint_chain(prefix, name) for name in known}
        if dialect.has_verdict_maps:
            maps[root] = targets
            chains.append(Chain(root, (Rule((), GoToByInterface(root, way)), *end)))
        else:
            chains += tree(root, way, targets, end)
    return chains, maps


def host_dispatch(
    root: str,
    way: Way,
    prefix: str,
    interfaces: Iterable[str],
    dialect: Dialect,
    *,
    skips_workloads: bool = False,
    spared: Iterable[str] = (),
) -> list[Chain]:
    """`interfaces` may have ANY_INTERFACE among them: where neither one of the others nor a `spared` one is meant."""
    targets = {name: names.endpoint_chain(prefix, name) for name in interfaces}
    everywhere = targets.pop(names.ANY_INTERFACE, None)
    end: list[Rule] = []
    if everywhere is not None:
        others = sorted(set(spared) - {*targets, names.ANY_INTERFACE})
        end += [Rule((interface(way, one),), Return(), ("It has a host endpoint of its own",)) for one in others]
        if skips_workloads:
            end += [
                Rule((interface(way, f"{one}+"),), Return(), ("Skip egress WHEP policy for traffic to local workload",))
                for one in dialect.settings.interface_prefixes
            ]
        end.append(Rule((), GoTo(everywhere)))
    return tree(root, way, targets, end)
