"""The decision process: RFC 4271 §9.1.2 and §9.1.2.2, RFC 4456 §9. Steps are a table; each loser lost at one of them.

Every step takes the survivors and returns those that remain, so the outcome never depends on the order of arrival
(MED is compared within a neighbouring AS, which is no total order). Age is no criterion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bgp.rib.path import Path

Survivors = list[Path]


def _lowest(paths: Survivors, key: Callable[[Path], Any]) -> Survivors:
    keys = [key(path) for path in paths]
    least = min(keys)
    return [path for path, value in zip(paths, keys, strict=True) if value == least]


def _lowest_med(paths: Survivors) -> Survivors:
    """Only paths from the same neighbouring AS are compared; no MED counts as 0 (RFC 4271 §9.1.2.2 c)."""
    least: dict[int, int] = {}
    for path in paths:
        fields = path.attributes.fields
        med = fields.med or 0
        least[fields.neighbour_asn] = min(med, least.get(fields.neighbour_asn, med))
    return [path for path in paths if (path.attributes.fields.med or 0) == least[path.attributes.fields.neighbour_asn]]


def _bgp_identifier(path: Path) -> bytes:
    """ORIGINATOR_ID stands for the identifier (RFC 4456 §9)."""
    return path.attributes.fields.originator_id or path.source.router_id


def _preference_text(path: Path) -> str:
    return ("ours", "a peer's, or learned with a priority", "learned, behind peers")[path.rank[0]]


@dataclass(frozen=True, slots=True)
class Step:
    """`number` as in RFC 4271 §9.1.2.2 where it has one; `value` is what was compared, for people."""

    number: str
    text: str
    keep: Callable[[Survivors], Survivors]
    value: Callable[[Path], object]


STEPS: tuple[Step, ...] = (
    Step("1", "next hop is reachable", lambda p: _lowest(p, lambda x: not x.hop.reachable), lambda x: x.hop.reachable),
    Step("2", "originated here", lambda p: _lowest(p, lambda x: x.rank[0]), _preference_text),
    Step("3", "highest LOCAL_PREF", lambda p: _lowest(p, lambda x: x.rank[1]), lambda x: -x.rank[1]),
    Step("4a", "shortest AS path", lambda p: _lowest(p, lambda x: x.rank[2]), lambda x: x.rank[2]),
    Step("4b", "lowest origin", lambda p: _lowest(p, lambda x: x.rank[3]), lambda x: x.rank[3]),
    Step("4c", "lowest MED from the same neighbouring AS", _lowest_med, lambda x: x.attributes.fields.med or 0),
    Step("4d", "eBGP before iBGP", lambda p: _lowest(p, lambda x: x.source.kind == "ibgp"), lambda x: x.source.kind),
    Step(
        "4e",
        "lowest metric to the next hop",
        lambda p: _lowest(p, lambda x: x.hop.resolution.metric),
        lambda x: x.hop.resolution.metric,
    ),
    Step(
        "4f",
        "lowest BGP identifier",
        lambda p: _lowest(p, _bgp_identifier),
        lambda x: ".".join(map(str, _bgp_identifier(x))),
    ),
    Step(
        "4f'",
        "shortest CLUSTER_LIST (RFC 4456)",
        lambda p: _lowest(p, lambda x: len(x.attributes.fields.cluster_list)),
        lambda x: len(x.attributes.fields.cluster_list) // 4,
    ),
    Step(
        "4g",
        "lowest peer address",
        lambda p: _lowest(p, lambda x: (len(x.source.address), x.source.address)),
        lambda x: x.source.name,
    ),
    Step(
        "-", "name, for want of anything else", lambda p: _lowest(p, lambda x: x.source.name), lambda x: x.source.name
    ),
)
_COMPARE_ALL_MEDS = Step(
    "4c", "lowest MED", lambda p: _lowest(p, lambda x: x.attributes.fields.med or 0), STEPS[5].value
)
_ALWAYS = (*STEPS[:5], _COMPARE_ALL_MEDS, *STEPS[6:])


def _steps(always_compare_med: bool) -> tuple[Step, ...]:
    return _ALWAYS if always_compare_med else STEPS


def order(paths: tuple[Path, ...], always_compare_med: bool = False) -> tuple[Path, ...]:
    """The same paths, the best first. The rest keep their order."""
    if len(paths) == 2:
        first, second = paths
        if first.hop.resolution.reachable and second.hop.resolution.reachable:
            a, b = first.rank, second.rank
            if a != b:
                return paths if a < b else (second, first)
    candidates = [path for path in paths if path.hop.resolution.reachable] or list(paths)
    ranks = [path.rank for path in candidates]
    least = min(ranks)
    survivors = [path for path, rank in zip(candidates, ranks, strict=True) if rank == least]
    if len(survivors) > 1:
        for step in _steps(always_compare_med)[5:]:
            survivors = step.keep(survivors)
            if len(survivors) == 1:
                break
    best = survivors[0]
    if paths[0] is best:
        return paths
    return (best, *(path for path in paths if path is not best))


def equal_cost(
    paths: tuple[Path, ...], limit_ebgp: int, limit_ibgp: int, always_compare_med: bool = False
) -> tuple[Path, ...]:
    """The best and those that only the tie-breaks from 4f on put behind it: what may share the load."""
    best = paths[0]
    limit = limit_ibgp if best.source.kind == "ibgp" else limit_ebgp
    if limit < 2 or len(paths) < 2:
        return (best,)
    survivors = list(paths)
    for step in _steps(always_compare_med)[:8]:
        survivors = step.keep(survivors)
    others = [path for path in survivors if path is not best]
    others.sort(key=lambda path: (_bgp_identifier(path), path.source.address))
    return (best, *others[: limit - 1])


def explain(paths: tuple[Path, ...], always_compare_med: bool = False) -> dict[int, str]:
    """id(path) → why it won or lost, as the same steps decide it."""
    reasons: dict[int, str] = {}
    survivors = list(paths)
    decided = STEPS[0]
    for step in _steps(always_compare_med):
        kept = step.keep(survivors)
        if len(kept) < len(survivors):
            decided = step
            for path in survivors:
                if path not in kept:
                    reasons[id(path)] = (
                        f"lost at step {step.number}, {step.text}: {step.value(path)} against {step.value(kept[0])}"
                    )
        survivors = kept
        if len(survivors) == 1:
            break
    winner = survivors[0]
    if not winner.hop.reachable:
        reasons[id(winner)] = "not used: its next hop is not reachable (step 1)"
    elif len(paths) == 1:
        reasons[id(winner)] = "the only path"
    else:
        reasons[id(winner)] = f"best; decided at step {decided.number}, {decided.text}"
    return reasons
