"""The control API of a running Felix: what `catbird policy` asks, as HTTP over a Unix socket.

GET  /v1/status             what it has, what fails, what is wrong in the datastore
POST /v1/policy/explain     felix.explain.questions: one question, one answer
POST /v1/policy/trace       the same question and `seconds`: a row for each packet of that flow, as the kernel tells it
GET  /v1/policy/stats       packets by policy and rule
GET  /healthz  /readyz
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from felix.explain.flow import ExplainSettings, Flow, Surroundings
from felix.explain.questions import QuestionError, answer, flow_asked_about
from felix.explain.state import DesiredState
from felix.explain.stats import RuleOf, statistics_view
from felix.health import Health, Verdict
from integration.node.http_server import Answer, HttpError, LiveStream, Request, Response, json_response

TRACE_S, LONGEST_TRACE_S = 10.0, 600.0
NOT_OF_TRACES = ("inInterface", "outInterface", "conntrack")

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
    trace: Callable[[Flow, float], LiveStream]


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
            case ("v1", "policy", "trace"):
                _only(request, "POST")
                return self._trace(request.json_object())
            case ("v1", "policy", "stats"):
                _only(request, "GET")
                return json_response(statistics_view(asked.state, await asked.counted()))
            case ("healthz",):
                return _verdict(asked.health.liveness())
            case ("readyz",):
                return _verdict(asked.health.readiness())
        raise HttpError(
            404, f"there is no /{'/'.join(request.path)} here",
            "GET /v1/status, /v1/policy/stats, /healthz, /readyz; POST /v1/policy/explain, /v1/policy/trace",
        )  # fmt: skip

    def _trace(self, question: dict[str, Any]) -> LiveStream:
        asked = self._asked
        seconds = question.pop("seconds", TRACE_S)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_TRACE_S:
            raise HttpError(400, f"seconds is a number up to {LONGEST_TRACE_S:.0f}, not {seconds!r}")
        if unfit := [name for name in NOT_OF_TRACES if question.get(name) not in (None, "")]:
            raise HttpError(400, f"a trace takes no {unfit[0]}", "it follows packets wherever they come from")
        try:
            flow = flow_asked_about(asked.state, asked.surroundings(), question)
        except QuestionError as error:
            raise HttpError(400, error.text, error.hint) from None
        except ValueError as error:
            raise HttpError(400, str(error)) from None
        return asked.trace(flow, seconds)


def no_trace(_flow: Flow, _seconds: float) -> LiveStream:
    """With another renderer."""
    raise HttpError(
        501,
        "a trace needs the nftables renderer",
        "nftablesMode: Enabled in FelixConfiguration; or explain without one",
    )


def _verdict(verdict: Verdict) -> Response:
    return Response(200 if verdict.is_ok else 503, verdict.text.encode(), "text/plain; charset=utf-8")


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise HttpError(405, f"{request.method} is not for this; use {method}", headers={"Allow": method})
