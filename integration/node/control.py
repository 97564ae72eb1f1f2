"""The control API: what `catbird show` and `catbird peer` ask of a running speaker, as HTTP over a Unix socket.

GET  /v1/status  /v1/peers  /v1/peers/NAME  /v1/config          one JSON value
GET  /v1/routes?prefix=&family=&peer=&which=&longest=           one JSON value a line (NDJSON)
GET  /v1/metrics  /healthz  /readyz                             as on the metrics port
POST /v1/peers/NAME/reset|refresh|shutdown|enable  /v1/reload   an optional JSON object; answers {"done": text}

An error is {"error": text, "hint": text} with a fitting status. Who may open the socket (mode 0600) may do all this.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from bgp.families import BY_NAME, Family
from integration.node.http_server import Answer, HttpError, Request, Stream, json_response

Which = Literal["best", "received", "sent", "all"]
Direction = Literal["in", "out", "both"]
WHICH = ("best", "received", "sent", "all")
DIRECTIONS = ("in", "out", "both")
MAX_REASON_OCTETS = 255  # RFC 9003
ROUTE_PARAMETERS = frozenset({"prefix", "family", "peer", "which", "longest"})


class ControlledSpeaker(Protocol):
    """The part of bgp.speaker.Speaker that people look at and touch."""

    def summary(self, now: float) -> dict[str, Any]: ...
    def peers_view(self, now: float) -> list[dict[str, Any]]: ...
    def peer_view(self, name: str, now: float) -> dict[str, Any] | None: ...
    def routes_view(
        self, *, prefix: str | None, family: Family | None, peer: str | None, which: Which, longest: bool
    ) -> Iterator[dict[str, Any] | None]: ...
    def reset_peer(self, name: str, now: float) -> None: ...
    def refresh_peer(self, name: str, direction: Direction, now: float) -> None: ...
    def shutdown_peer(self, name: str, reason: str, now: float) -> None: ...
    def enable_peer(self, name: str, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon adds to what the speaker knows."""

    status: Callable[[], dict[str, Any]]
    config: Callable[[], dict[str, Any]]
    reload: Callable[[], Awaitable[str]]  # raises ReloadRefused
    explain_fib: Callable[[str], Mapping[str, Any] | None]  # prefix text → the kernel's side of it
    monitor: Callable[[Request], Awaitable[Answer]]  # metrics, healthz, readyz
    told: Callable[..., None]  # EventSink.event


class ReloadRefused(Exception):
    """str() lists every problem of the file, one per line."""


class ControlApi:
    """The application behind the control socket."""

    def __init__(self, speaker: ControlledSpeaker, around: Surroundings, clock: Callable[[], float]) -> None:
        self._speaker = speaker
        self._around = around
        self._clock = clock

    async def __call__(self, request: Request) -> Answer:
        match request.path:
            case ("v1", "metrics"):
                return await self._around.monitor(Request(request.method, ("metrics",), request.query))
            case ("healthz",) | ("readyz",):
                return await self._around.monitor(request)
            case ("v1", "status"):
                return self._get(request, self._around.status)
            case ("v1", "config"):
                return self._get(request, self._around.config)
            case ("v1", "peers"):
                return self._get(request, lambda: self._speaker.peers_view(self._clock()))
            case ("v1", "peers", name):
                return self._get(request, lambda: self._peer(name))
            case ("v1", "routes"):
                _only(request, "GET")
                return Stream(self._routes(request.query))
            case ("v1", "peers", name, action):
                return self._act(request, name, action)
            case ("v1", "reload"):
                return await self._reload(request)
        raise HttpError(
            404,
            f"there is no /{'/'.join(request.path)} here",
            "GET /v1/status, /v1/peers, /v1/peers/NAME, /v1/routes, /v1/config, /v1/metrics; "
            "POST /v1/peers/NAME/reset, refresh, shutdown or enable, /v1/reload",
        )

    @staticmethod
    def _get(request: Request, make: Callable[[], object]) -> Answer:
        _only(request, "GET")
        return json_response(make())

    def _peer(self, name: str) -> dict[str, Any]:
        view = self._speaker.peer_view(name, self._clock())
        if view is None:
            raise self._unknown_peer(name)
        return view

    def _unknown_peer(self, name: str) -> HttpError:
        return unknown_peer(name, [str(peer["name"]) for peer in self._speaker.peers_view(self._clock())])

    def _routes(self, query: Mapping[str, str]) -> Iterator[Mapping[str, Any] | None]:
        if unknown := sorted(set(query) - ROUTE_PARAMETERS):
            raise HttpError(400, f"unknown parameter {unknown[0]!r}", f"known: {', '.join(sorted(ROUTE_PARAMETERS))}")
        prefix, longest = normal_prefix(query["prefix"]) if "prefix" in query else (None, False)
        longest = longest or query.get("longest") in ("1", "true", "yes")
        family = query.get("family")
        if family is not None and family not in BY_NAME:
            raise HttpError(400, f"unknown family {family!r}", f"known: {', '.join(BY_NAME)}")
        which = query.get("which", "all")
        if which not in WHICH:
            raise HttpError(400, f"unknown choice which={which!r}", f"known: {', '.join(WHICH)}")
        peer = query.get("peer")
        if peer is None and which in ("received", "sent"):
            raise HttpError(400, f"which={which} is about one peer: say which with peer=NAME")
        if peer is not None and self._speaker.peer_view(peer, self._clock()) is None:
            raise self._unknown_peer(peer)
        rows = self._speaker.routes_view(
            prefix=prefix,
            family=BY_NAME[family] if family else None,
            peer=peer,
            which=cast("Which", which),
            longest=longest,
        )
        return self._with_fib(rows) if prefix is not None else rows

    def _with_fib(self, rows: Iterable[dict[str, Any] | None]) -> Iterator[dict[str, Any] | None]:
        """The kernel's side, only where one prefix is asked for."""
        for row in rows:
            if row is not None and row.get("fib") is None:
                row["fib"] = self._around.explain_fib(row["prefix"])
            yield row

    def _act(self, request: Request, name: str, action: str) -> Answer:
        acts: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
            "reset": self._reset,
            "refresh": self._refresh,
            "shutdown": self._shutdown,
            "enable": self._enable,
        }
        if action not in acts:
            raise HttpError(404, f"a peer cannot be told to {action!r}", f"known: {', '.join(acts)}")
        _only(request, "POST")
        arguments = request.json_object()
        try:
            done = acts[action](name, arguments)
        except KeyError:
            raise self._unknown_peer(name) from None
        except ValueError as error:
            raise HttpError(400, str(error)) from None
        self._around.told("operator_command", peer=name, command=action, **_texts(arguments))
        return json_response({"done": done})

    def _reset(self, name: str, _arguments: Mapping[str, Any]) -> str:
        self._speaker.reset_peer(name, self._clock())
        return f"{name}: session reset, Cease/Administrative Reset sent"

    def _refresh(self, name: str, arguments: Mapping[str, Any]) -> str:
        direction = arguments.get("direction", "both")
        if direction not in DIRECTIONS:
            raise HttpError(400, f"unknown direction {direction!r}", f"known: {', '.join(DIRECTIONS)}")
        self._speaker.refresh_peer(name, direction, self._clock())
        said = {
            "in": "its routes asked for once more",
            "out": "our routes sent once more",
            "both": "routes asked for and sent once more",
        }
        return f"{name}: {said[direction]}"

    def _shutdown(self, name: str, arguments: Mapping[str, Any]) -> str:
        reason = arguments.get("reason", "")
        if not isinstance(reason, str):
            raise HttpError(400, "the reason is not a text")
        if len(reason.encode("utf-8", "replace")) > MAX_REASON_OCTETS:
            raise HttpError(400, f"the reason is longer than {MAX_REASON_OCTETS} octets of UTF-8 (RFC 9003)")
        self._speaker.shutdown_peer(name, reason, self._clock())
        return f"{name}: shut down until `catbird peer {name} enable`"

    def _enable(self, name: str, _arguments: Mapping[str, Any]) -> str:
        self._speaker.enable_peer(name, self._clock())
        return f"{name}: enabled"

    async def _reload(self, request: Request) -> Answer:
        _only(request, "POST")
        try:
            return json_response({"done": await self._around.reload()})
        except ReloadRefused as error:
            raise HttpError(400, f"what is there now is refused: {error}", "the running configuration stays") from None


def unknown_peer(name: str, known: list[str]) -> HttpError:
    listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return HttpError(404, f"no peer is called {name!r}", f"known: {listed}" if known else "there are no peers")


def normal_prefix(text: str) -> tuple[str, bool]:
    """A prefix or an address → the canonical prefix, and whether the longest match is meant. Raises HttpError 400."""
    try:
        if "/" not in text:
            address = ipaddress.ip_address(text)
            return f"{address}/{address.max_prefixlen}", True
        return str(ipaddress.ip_network(text)), False
    except ValueError as error:
        hint = ""
        if "host bits" in str(error):
            hint = f"did you mean {ipaddress.ip_network(text, strict=False)}?"
        raise HttpError(400, f"not a prefix or an address: {error}", hint) from None


def _only(request: Request, method: str) -> None:
    allowed = ("GET", "HEAD") if method == "GET" else (method,)
    if request.method not in allowed:
        raise HttpError(405, f"{request.method} is not for this; use {method}", headers={"Allow": ", ".join(allowed)})


def _texts(arguments: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(arguments[key]) for key in ("reason", "direction") if key in arguments}
