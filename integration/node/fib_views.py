"""The FIB adapter for people: one prefix explained, and the numbers for metrics."""

from __future__ import annotations

from typing import Any

from bgp.families import Family, Nlri
from felix.kernel.rtnetlink import RouteEncoder
from felix.kernel.state import KernelState
from integration.node.learned_routes import FAMILY_OF, LearnedRoutes
from integration.node.route_books import FamilyRoutes
from integration.node.route_templates import NUMBER_OF, via_view
from integration.node.route_writer import RouteWriter


def explain(
    family: Family, prefix: Nlri, writer: RouteWriter, learned: LearnedRoutes, state: KernelState
) -> dict[str, Any]:
    """What should be, what is, why not; what the speaker was told of this prefix; what others have there."""
    number = NUMBER_OF[family]
    routes = writer.families[number]
    wanted, there = routes.desired.get(prefix), routes.programmed.get(prefix)
    template = writer.templates.of(family, wanted) if wanted is not None else None
    told = learned.told[number].get(prefix)
    return {
        "desired": via_view(template.via) if template is not None else None,
        "programmed": via_view(there.via) if there is not None else None,
        "state": _state_of(routes, prefix, template, there),
        "learned": {"interface": told.interface, "protocol": told.protocol, "metric": told.metric} if told else None,
        "others": [
            {"protocol": via.protocol, "table": table, "metric": via.metric}
            for table in state.table_numbers
            for via in state.tables[number, table].get(prefix)
        ],
    }


def _state_of(routes: FamilyRoutes, prefix: Nlri, template: RouteEncoder | None, there: RouteEncoder | None) -> str:
    if (foreign := routes.conflicts.get(prefix)) is not None:
        return f"foreign route there (protocol {foreign.protocol})"
    if (waiting := routes.waiting.get(prefix)) is not None:
        return waiting.text
    if template is not None:
        return "programmed" if template is there else "pending"
    if any(key[0] == prefix for key in routes.stale):
        return "left by an earlier run"
    return "pending removal" if there is not None else "not wanted"


def counters(writer: RouteWriter, learned: LearnedRoutes, state: KernelState) -> dict[str, Any]:
    """Numbers since the start; `routes`, `pending`, `stale`, `learned` and `foreign` are of this moment."""
    counts = writer.counters
    by_family = {FAMILY_OF[number].name: routes for number, routes in writer.families.items()}
    return {
        "writes": counts.writes,
        "deletes": counts.deletes,
        "adopted": counts.adopted,
        "batches": counts.batches,
        "errors": counts.errors,
        "conflicts": counts.conflicts,
        "put_back": counts.put_back,
        "routes": {name: len(routes.programmed) for name, routes in by_family.items()},
        "pending": writer.pending + sum(len(r.waiting) + len(r.conflicts) for r in by_family.values()),
        "stale": {name: len(routes.stale) for name, routes in by_family.items()},
        "learned": {FAMILY_OF[number].name: len(told) for number, told in learned.told.items()},
        "foreign": sum(len(table) for table in state.tables.values()),
    }
