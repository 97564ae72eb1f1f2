"""What `catbird policy` asks of a running Felix, over its control socket.

POST /v1/policy/explain   a question (felix.explain.questions) as JSON object; its answer
GET  /v1/policy/stats     packets and octets by policy and rule (felix.explain.stats)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from felix.explain.flow import ExplainSettings, Surroundings
from felix.explain.questions import QuestionError, answer
from felix.explain.state import DesiredState
from felix.explain.stats import Counted, statistics_view
from integration.node.http_server import Answer, HttpError, Request, json_response


@dataclass(frozen=True, slots=True)
class PolicyApi:
    """`state` is folded by whoever passes messages on; the rest is asked anew for each request."""

    state: DesiredState
    settings: Callable[[], ExplainSettings]
    surroundings: Callable[[], Surroundings]
    counts: Callable[[], Awaitable[Counted]]  # reads the packet filter's counters

    async def __call__(self, request: Request) -> Answer:
        """Raises HttpError."""
        match request.path, request.method:
            case ("v1", "policy", "explain"), "POST":
                return self._explain(request)
            case ("v1", "policy", "stats"), "GET" | "HEAD":
                return json_response(statistics_view(self.state, await self.counts()))
            case ("v1", "policy", "explain" | "stats" as what), method:
                allowed = "POST" if what == "explain" else "GET"
                raise HttpError(405, f"{method} is not for this; use {allowed}", headers={"Allow": allowed})
        raise HttpError(
            404, f"there is no /{'/'.join(request.path)} here", "POST /v1/policy/explain, GET /v1/policy/stats"
        )

    def _explain(self, request: Request) -> Answer:
        try:
            return json_response(answer(self.state, self.settings(), self.surroundings(), request.json_object()))
        except QuestionError as error:
            raise HttpError(400, error.text, error.hint) from None
