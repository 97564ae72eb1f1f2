"""Routes as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from integration.cli.columns import Cell, Column, Row, fields_of, lines_of, visible

Paint = Callable[[str, str], str]
View = Mapping[str, Any]

COLUMNS = (
    Column(" "),
    Column("PREFIX"),
    Column("NEXT HOP"),
    Column("PEER"),
    Column("LPREF", is_number=True),
    Column("MED", is_number=True),
    Column("AS PATH"),
)
LEGEND = "> best   = multipath   * candidate   ! next hop unreachable   - rejected by policy   s stale"
MARKS = {"best": ">", "multipath": "=", "candidate": "*", "rejected": "-", "unreachable": "!"}
STYLES = {"best": "green", "multipath": "green", "rejected": "dim", "unreachable": "red"}
ORIGINS = {"igp": "i", "egp": "e", "incomplete": "?"}


def routes_table(routes: Iterable[View], paint: Paint) -> Iterator[str]:
    """One line a path; the prefix stands on the first line of its destination."""
    yield LEGEND
    yield from lines_of(COLUMNS, _rows(routes), paint)


def _rows(routes: Iterable[View]) -> Iterator[Row]:
    for route in routes:
        for index, path in enumerate(route["paths"]):
            yield (
                mark(path),
                route["prefix"] if index == 0 else "",
                next_hop(path),
                path["peer"] or path["source"],
                _number(path.get("local_pref")),
                _number(path.get("med")),
                as_path(path),
            )


def mark(path: View) -> Cell:
    return Cell(MARKS.get(path["state"], "?") + ("s" if path.get("stale") else ""), STYLES.get(path["state"], ""))


def next_hop(path: View) -> str:
    """`192.0.2.1 eth0`; a blackhole or a directly connected route has no address."""
    return " ".join(str(path[key]) for key in ("next_hop", "interface") if path.get(key)) or "-"


def as_path(path: View) -> str:
    origin = str(path.get("origin") or "")
    return f"{path.get('as_path') or ''} {ORIGINS.get(origin.lower(), origin)}".strip()


def _number(value: Any) -> str:
    return "" if value is None else str(value)


def why(routes: Iterable[View], paint: Paint) -> Iterator[str]:
    """Each destination with all its paths, best first, and for each the step of the decision process it lost at."""
    for route in routes:
        paths = route["paths"]
        yield f"{paint(visible(route['prefix']), 'bold')}  {len(paths)} path{'' if len(paths) == 1 else 's'}"
        best = route.get("best")
        order = sorted(range(len(paths)), key=lambda index: (index != best, _rank(paths[index]), index))
        for place, index in enumerate(order, 1):
            path = paths[index]
            head = f"  {place}. {mark(path).text} {path['peer'] or path['source']} ({path['source']})"
            yield paint(visible(head), STYLES.get(path["state"], ""))
            reason = visible(path.get("reason") or "")
            yield f"       {'best' if index == best else path['state']}{f': {reason}' if reason else ''}"
            yield from (f"       {line}" for line in fields_of(_attributes(path), lambda text, _style: text))
        if route.get("fib"):
            yield f"  kernel: {visible(fib_text(route['fib']))}"
        yield ""


def _rank(path: View) -> int:
    order = tuple(MARKS)
    return order.index(path["state"]) if path["state"] in order else len(order)


def _attributes(path: View) -> Iterator[tuple[str, str]]:
    yield "next hop", next_hop(path)
    yield "AS path", as_path(path)
    yield "local pref", _number(path.get("local_pref"))
    yield "MED", _number(path.get("med"))
    yield "communities", " ".join(path.get("communities") or ())
    yield "large communities", " ".join(path.get("large_communities") or ())
    yield "extended communities", " ".join(path.get("extended_communities") or ())
    yield "router id", path.get("router_id") or ""
    yield "originator id", path.get("originator_id") or ""
    yield "cluster list", " ".join(path.get("cluster_list") or ())
    yield "unknown attributes", ", ".join(map(str, path.get("unknown_attributes") or ()))
    yield "stale", "yes, kept from an ended session (RFC 4724)" if path.get("stale") else ""


def fib_text(fib: View) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {_plain(value)}" for key, value in fib.items() if value not in (None, "", [])
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + fib_text(value) + ")"
    return " ".join(map(_plain, value)) if isinstance(value, list) else str(value)
