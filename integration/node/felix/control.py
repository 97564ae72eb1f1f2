"""The control API of a running Felix: what `catbird policy` asks, as HTTP over a Unix socket.

GET  /v1/status             what it has, what fails, what is wrong in the datastore
POST /v1/policy/explain     felix.explain.questions: one question, one answer
GET  /v1/policy/stats       packets by policy and rule
GET  /healthz  /readyz
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from felix.explain.flow import ExplainSettings, Surroundings
from felix.explain.questions import QuestionError, answer
from felix.explain.state import DesiredState
from felix.explain.stats import RuleOf, statistics_view
from felix.health import Health, Verdict
from integration.node.http_server import Answer, HttpError, Request, Response, json_response

Counted = Iterable[tuple[RuleOf, int, int]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the API tells of."""

    state: DesiredState
    health: Health
    settings: Callable[[], ExplainSettings]
    surroundings: Callable[[], Surroundings]
    status: Callable[[], dict[str, Any]]
    counted: Callable[[], Awaitable[Counted]]


class FelixApi:
    """The application behind Felix' control socket."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def __call__(self, request: Request) -> Answer:
        asked = self._asked
        match request.path:
            case ("v1", "status"):
                _only(request, "GET")
                return json_response(asked.status())
            case ("v1", "policy", "explain"):
                _only(request, "POST")
                try:
                    return json_response(
                        answer(asked.state, asked.settings(), asked.surroundings(), request.json_object())
                    )
                except QuestionError as error:
                    raise HttpError(400, error.text, error.hint) from None
            case ("v1", "policy", "stats"):
                _only(request, "GET")
                return json_response(statistics_view(asked.state, await asked.counted()))
            case ("healthz",):
                return _verdict(asked.health.liveness())
            case ("readyz",):
                return _verdict(asked.health.readiness())
        raise HttpError(
            404, f"there is no /{'/'.join(request.path)} here",
            "GET /v1/status, /v1/policy/stats, /healthz, /readyz; POST /v1/policy/explain",
        )  # fmt: skip


def _verdict(verdict: Verdict) -> Response:
    return Response(200 if verdict.is_ok else 503, verdict.text.encode(), "text/plain; charset=utf-8")


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise HttpError(405, f"{request.method} is not for this; use {method}", headers={"Allow": method})
