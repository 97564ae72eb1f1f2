"""A plan as text: first the resources, then node by node what would happen, and who would not notice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bgp.reconfigure import EFFECTS, Change
from integration.cli.plan import Moved, NodePlan, ResourcePlan, RoutesPlan

NAMED = 5  # of many peers or prefixes; `-o json` has all
ACTIONS = {
    "create": "would be created",
    "update": "would be changed",
    "delete": "would be deleted",
    "unchanged": "is so already",
    "refused": "would be refused",
}


def plan_lines(resources: Sequence[ResourcePlan], nodes: Iterable[NodePlan]) -> Iterator[str]:
    for resource in resources:
        why = f": {'; '.join(resource.why)}" if resource.why else ""
        yield f"{resource.key} {ACTIONS[resource.action]}{why}"
    quiet = []
    for node in nodes:
        if node.is_quiet:
            quiet.append(node.node)
            continue
        yield ""
        yield f"node {node.node}:"
        yield from (f"  {line}" for line in _node_lines(node))
    if quiet:
        yield ""
        yield f"nothing changes on {_counted(quiet, 'node')}"


def plan_json(resources: Sequence[ResourcePlan], nodes: Iterable[NodePlan]) -> Iterator[str]:
    """One object, a line for each resource and node."""
    yield '{"resources": ['
    yield from _items(one.to_json() for one in resources)
    yield '], "nodes": ['
    yield from _items(one.to_json() for one in nodes)
    yield "]}"


def _items(values: Iterable[Any]) -> Iterator[str]:
    comma = " "
    for value in values:
        yield comma + json.dumps(value, ensure_ascii=False)
        comma = ","


def _node_lines(plan: NodePlan) -> Iterator[str]:
    if plan.is_gone:
        yield "its Node would be gone: the speaker keeps the configuration it has"
        return
    for sign, moved in (("-", plan.peers_removed), ("+", plan.peers_added)):
        yield from (f"{sign} peer {_peer(peer)}" for peer in moved)
    if plan.resets:
        yield f"! {_counted(plan.resets, 'session')} would be reset"
    if plan.held_down:
        yield f"! {_counted(plan.held_down, 'session')} would go down and be held down"
    yield from _changes(plan.changes)
    for sign, prefixes in zip("+~-", _parts(plan.originate), strict=True):
        yield from (f"{sign} originates {prefix}" for prefix in prefixes)
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for each in plan.routes:
        alike.setdefault(_parts(each), []).append(each.peer)
    for delta, peers in alike.items():
        parts = [f"{sign} {_shortened(prefixes)}" for sign, prefixes in zip("+~-", delta, strict=True) if prefixes]
        yield f"{'  '.join(parts)}  announced to {_shortened(peers)}"
    yield from (f"? {problem}" for problem in plan.new_problems)
    yield from (f"solved: {problem}" for problem in plan.solved_problems)


def _parts(moved: Moved | RoutesPlan) -> tuple[tuple[str, ...], ...]:
    return moved.added, moved.changed, moved.removed


def _changes(changes: Iterable[Change]) -> Iterator[str]:
    """Peers with one change in common have one line."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for one in changes:
        key = (one.peer is None, one.field, one.old, one.new, one.effects)
        alike.setdefault(key, []).append(one.peer or "")
    for (is_speaker, field, old, new, effects), peers in alike.items():
        whose = "speaker" if is_speaker else _shortened(peers)
        yield f"~ {whose}: {field} {old} → {new}: {' and '.join(EFFECTS[effect] for effect in effects)}"


def _peer(peer: dict[str, Any]) -> str:
    return f"{peer['name']} ({peer['address']} port {peer['port']}, AS {peer['remote_asn']}), from {', '.join(peer['from'])}"


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({_shortened(names)})"


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
