"""A node's configuration as text: one line a peer with what wants it, then routes and problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integration.cli.columns import Column, lines_of


def config_lines(view: Mapping[str, Any]) -> Iterator[str]:
    """`view` is NodeConfig.to_json()."""
    listen = view["listen"]
    addresses = ", ".join(listen["addresses"]) or "nothing"
    cluster = f", route reflector of cluster {view['cluster_id']}" if view["cluster_id"] else ""
    yield f"node {view['node']}: AS {view['asn']}, router ID {view['router_id']}, listens on {addresses} port {listen['port']}{cluster}"
    yield ""
    if view["peers"]:
        titles = ("PEER", "ADDRESS", "AS", "OPTIONS", "FILTERS", "FROM")
        rows = (
            (
                peer["name"],
                _with_port(peer),
                str(peer["remote_asn"] or ""),
                ", ".join(_options(peer, view["asn"])) or "-",
                ", ".join(peer["filters"]) or "-",
                ", ".join(peer["from"]),
            )
            for peer in view["peers"]
        )
        yield from lines_of([Column(title) for title in titles], rows, lambda text, style: text)
    else:
        yield "no peers"
    yield from _section("originates", map(_originated, view["originate"]))
    yield from _section("static routes", (f"{one['prefix']} via {one['next_hop']}" for one in view["static_routes"]))
    yield from _section("problems", map(problem_text, view["problems"]))


def problem_text(problem: Mapping[str, str]) -> str:
    return ": ".join(part for part in (problem["resource"], problem["field"], problem["reason"]) if part)


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield f"{title}:"
        yield from (f"  {line}" for line in found)


def _with_port(peer: Mapping[str, Any]) -> str:
    if peer["port"] == 179:
        return str(peer["address"])
    address = f"[{peer['address']}]" if ":" in peer["address"] else peer["address"]
    return f"{address}:{peer['port']}"


def _options(peer: Mapping[str, Any], asn: int) -> Iterator[str]:
    """What is not as with every other peer."""
    if peer.get("held_down"):
        yield f"held down: {peer['held_down']}"
    if peer["local_asn"] != asn:
        yield f"local AS {peer['local_asn']}"
    if peer["passive"]:
        yield "passive"
    if peer["password"]:
        yield "password"
    if peer["source"]:
        yield f"source {peer['source']}"
    if peer["client"]:
        yield f"client of cluster {peer['cluster_id']}" if peer["cluster_id"] else "client"
    if peer["next_hop"] != "auto":
        yield f"next hop {peer['next_hop']}"
    if peer["ttl_security"]:
        yield f"TTL security {peer['ttl_security']}"
    if peer["allow_own_asn"]:
        yield f"own AS up to {peer['allow_own_asn']} times"


def _originated(route: Mapping[str, Any]) -> str:
    return f"{route['prefix']}{'  blackhole' if route.get('blackhole') else ''}"
