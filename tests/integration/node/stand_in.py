"""A speaker that the control API can be asked about, without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bgp.families import Family
from integration.node.control import ControlApi, Direction, ReloadRefused, Surroundings, Which
from integration.node.http_server import Answer, Request, Response


def peer_view(name: str, **changes: Any) -> dict[str, Any]:
    """One item of Speaker.peers_view, Established unless said otherwise."""
    return {
        "name": name,
        "address": "192.0.2.1",
        "asn": 65000,
        "local_asn": 64512,
        "type": "ebgp",
        "dynamic": False,
        "description": "",
        "state": "Established",
        "since_s": 3725.0,
        "router_id": "192.0.2.1",
        "hold_time_s": 90,
        "keepalive_s": 30,
        "families": ["ipv4", "ipv6"],
        "prefixes": {
            "ipv4": {"received": 10, "accepted": 8, "rejected": 2, "sent": 5, "stale": 0},
            "ipv6": {"received": 1, "accepted": 1, "rejected": 0, "sent": 2, "stale": 0},
        },
        "flaps": 0,
        "last_error": None,
        "last_error_s_ago": None,
        "last_down": None,
        "last_down_s_ago": None,
        "messages": {"sent": {"open": 1, "update": 3}, "received": {"open": 1, "update": 4}},
        "malformed": 0,
        "dropped_attributes": 0,
        "shutdown": None,
        "next_retry_s": None,
    } | changes


def path_view(peer: str, state: str, **changes: Any) -> dict[str, Any]:
    return {
        "peer": peer,
        "source": "ebgp",
        "state": state,
        "stale": False,
        "reason": "",
        "next_hop": "192.0.2.1",
        "interface": "eth0",
        "as_path": "65000 65001",
        "origin": "igp",
        "med": None,
        "local_pref": 100,
        "communities": [],
        "large_communities": [],
        "extended_communities": [],
        "originator_id": None,
        "cluster_list": [],
        "unknown_attributes": [],
        "router_id": "192.0.2.1",
    } | changes


def route_view(prefix: str, *paths: dict[str, Any]) -> dict[str, Any]:
    return {"prefix": prefix, "family": "ipv4", "best": 0 if paths else None, "paths": list(paths), "fib": None}


class StandIn:
    """Answers as the engine would and remembers what it was told."""

    def __init__(self, *names: str, routes: int = 0) -> None:
        self.names = names or ("tor1",)
        self.route_count = routes
        self.told: list[tuple[str, ...]] = []
        self.asked: dict[str, Any] = {}
        self.made = 0

    def summary(self, now: float) -> dict[str, Any]:
        return {
            "asn": 64512,
            "router_id": "10.0.0.1",
            "uptime_s": 7200.0,
            "peers": len(self.names),
            "established": len(self.names),
            "routes": {"ipv4": self.route_count, "ipv6": 0},
            "converged": True,
        }

    def peers_view(self, now: float) -> list[dict[str, Any]]:
        return [peer_view(name) for name in self.names]

    def peer_view(self, name: str, now: float) -> dict[str, Any] | None:
        return peer_view(name) if name in self.names else None

    def routes_view(
        self, *, prefix: str | None, family: Family | None, peer: str | None, which: Which, longest: bool
    ) -> Iterator[dict[str, Any] | None]:
        self.asked = {"prefix": prefix, "family": family, "peer": peer, "which": which, "longest": longest}
        for index in range(self.route_count):
            self.made += 1
            yield route_view(f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}/32", path_view("tor1", "best"))

    def _tell(self, name: str, *what: str) -> None:
        if name not in self.names:
            raise KeyError(f"no peer {name}; known: {', '.join(self.names)}")
        self.told.append((name, *what))

    def reset_peer(self, name: str, now: float) -> None:
        self._tell(name, "reset")

    def refresh_peer(self, name: str, direction: Direction, now: float) -> None:
        self._tell(name, "refresh", direction)

    def shutdown_peer(self, name: str, reason: str, now: float) -> None:
        self._tell(name, "shutdown", reason)

    def enable_peer(self, name: str, now: float) -> None:
        self._tell(name, "enable")


async def nothing_to_monitor(_request: Request) -> Answer:
    return Response(200, b"ok\n")


async def refuse_to_reload() -> str:
    raise ReloadRefused("speaker.toml:3: asn: not a number")


def api_over(speaker: StandIn) -> ControlApi:
    around = Surroundings(
        status=lambda: speaker.summary(0.0),
        config=lambda: {"file": "/etc/catbird/speaker.toml", "loaded_at": "now", "refused": None, "running": {}},
        reload=refuse_to_reload,
        explain_fib=lambda prefix: {"state": "programmed"},
        monitor=nothing_to_monitor,
        told=lambda name, **fields: None,
    )
    return ControlApi(speaker, around, lambda: 1000.0)
