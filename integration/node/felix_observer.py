"""The dataplane's observer: what it does as figures, health, statuses of endpoints, and lines that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bgp.ports import EventSink
from felix.desired import Message, WorkloadEndpoint, WorkloadId, WorkloadRemove, WorkloadUpdate
from felix.endpoint_status import EndpointId, EndpointStates, Status
from felix.figures import Counter, FigureSink
from felix.health import Health
from felix.ports import Failure

MAIN_LOOP = "InternalDataplaneMainLoop"  # Calico's name, which HealthTimeoutOverrides of today have
# By the first word of what failed.
ERRORS: Mapping[str, Counter] = {
    **dict.fromkeys(("set", "ip", "member", "map", "entry"), "felix_ipset_errors"),
    **dict.fromkeys(("chain", "hook", "table"), "felix_iptables_restore_errors"),
}
MOST_NAMED = 5  # failures, or repairs, in one line


class FelixObserver:
    """Observer of `felix.dataplane.loop`. `statuses` is told of endpoints' changed statuses, after each apply.

    Give `on_message` every message before the dataplane takes it.
    """

    def __init__(
        self,
        figures: FigureSink,
        health: Health,
        log: EventSink,
        statuses: Callable[[Mapping[EndpointId, Status | None]], None],
        watchdog_s: float,
    ) -> None:
        """`watchdog_s`: DataplaneWatchdogTimeout, after which a loop that says nothing is dead."""
        self.states = EndpointStates()
        self._figures, self._health, self._log, self._statuses = figures, health, log, statuses
        self._has_applied = False
        self._unlimited: set[WorkloadId] = set()  # that ask for a limit of bandwidth
        self._failing: dict[str, str] = {}  # what → why, of the last apply
        health.register(MAIN_LOOP, timeout_s=watchdog_s)

    def on_message(self, message: Message) -> None:
        self.states.on_message(message)
        self._figures.count("felix_int_dataplane_messages", type=type(message).__name__)
        if isinstance(message, WorkloadUpdate):
            self._note_bandwidth(message.endpoint)
        elif isinstance(message, WorkloadRemove):
            self._unlimited.discard(message.id)

    def _note_bandwidth(self, endpoint: WorkloadEndpoint) -> None:
        qos = endpoint.qos
        wants = qos is not None and bool(qos.ingress_bandwidth or qos.egress_bandwidth)
        if wants and endpoint.id not in self._unlimited:
            self._log.event(
                "bandwidth_not_limited", level="warning", workload=endpoint.id.workload,
                why="Felix limits packets and connections, not bandwidth; the CNI plugin `bandwidth` does",
            )  # fmt: skip
        (self._unlimited.add if wants else self._unlimited.discard)(endpoint.id)

    def applied(self, took_s: float, messages: int, failures: Sequence[Failure]) -> None:
        self._has_applied = True
        self._figures.observe("felix_int_dataplane_apply_time_seconds", took_s)
        self._figures.observe("felix_int_dataplane_msg_batch_size", messages)
        if failures:
            self._figures.count("felix_int_dataplane_failures")
        for failure in failures:
            if (name := ERRORS.get(failure.what.partition(" ")[0])) is not None:
                self._figures.count(name)
        self._tell({failure.what: failure.reason for failure in failures})
        self.states.applied(failures, messages)
        self.tell_statuses()
        self.alive()

    def tell_statuses(self) -> None:
        """Also when an interface has changed, which needs no apply."""
        if changes := self.states.changes():
            self._statuses(changes)

    def _tell(self, failing: dict[str, str]) -> None:
        """Each failure once, and when all are over: an apply is tried again every few seconds."""
        news = {what: why for what, why in failing.items() if self._failing.get(what) != why}
        if news:
            named = [f"{what}: {why}" for what, why in list(news.items())[:MOST_NAMED]]
            self._log.event("dataplane_failed", failures=named, more=len(news) - len(named) or None)
        elif self._failing and not failing:
            self._log.event("dataplane_works_again")
        self._failing = failing

    def found(self, check: str, what: Sequence[str]) -> None:
        named = list(what[:MOST_NAMED])
        self._log.event(
            "dataplane_repaired", level="warning", check=check, found=named, more=len(what) - len(named) or None
        )

    def fault(self, part: str, error: Exception) -> None:
        self._log.event("defect", where=f"dataplane {part}", error=f"{type(error).__name__}: {error}")

    def alive(self) -> None:
        detail = "" if self._has_applied else "nothing applied yet"
        self._health.report(MAIN_LOOP, ready=self._has_applied, detail=detail)
