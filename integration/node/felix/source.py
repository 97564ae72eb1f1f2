"""From the datastore's changes to the calculation's messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from felix.desired import Message
from felix.figures import FigureSink
from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError
from integration.datastore.syncer import Status, Syncer, Update
from integration.logs import EventLog
from integration.node.following import follow
from integration.resources.keys import Key

WATCHED = (
    "ClusterInformation", "FelixConfiguration", "BGPConfiguration", "BGPPeer", "Node", "IPPool", "IPAMBlock",
    "Tier", "GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy", "StagedNetworkPolicy",
    "StagedKubernetesNetworkPolicy", "Profile", "GlobalNetworkSet", "NetworkSet", "WorkloadEndpoint", "HostEndpoint",
    "Service", "EndpointSlice", "LiveMigration",
)  # fmt: skip
STATES: dict[Status, int] = {"wait-for-datastore": 1, "resync": 2, "in-sync": 3}
CLUSTER = Key("ClusterInformation", "default")


class Calculation(Protocol):
    """felix.calc.CalculationGraph as its source sees it."""

    def update(self, key: Key, value: dict[str, Any] | None) -> None: ...
    def in_sync(self) -> None: ...
    def flush(self) -> list[Message]: ...


class FelixSource:
    """The Sink of a Syncer; `run()` until cancelled. `deliver` gets what each change means, from the event loop.

    While ClusterInformation says `datastoreReady: false` (an upgrade of the datastore) nothing is delivered: what is in
    the kernel stands, and what has changed meanwhile is told afterwards.
    """

    def __init__(
        self,
        datastore: Datastore,
        graph: Calculation,
        deliver: Callable[[list[Message]], None],
        log: EventLog,
        figures: FigureSink,
    ) -> None:
        self._graph = graph
        self._deliver = deliver
        self._log = log
        self._figures = figures
        self._syncer = Syncer(datastore, WATCHED, self)
        self._is_flush_due = False
        self._is_ready = True
        self.is_in_sync = False
        self.status_text: Status = "wait-for-datastore"
        self.lost = ""
        self.unreadable: dict[Key, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        await follow(self._syncer, self._log)

    def updates(self, batch: Iterable[Update]) -> None:
        for update in batch:
            self._graph.update(update.key, update.value)
            self._figures.count("felix_calc_graph_updates_processed", type=update.key.kind)
            self.unreadable.pop(update.key, None)
            if update.error is not None:
                self.unreadable[update.key] = update.error.reason
                self._log.event(
                    "resource_unreadable", level="warning", resource=str(update.key), why=update.error.reason
                )
            if update.key == CLUSTER:
                self._note_readiness(update.value or {})
        self.flush_soon()

    def status(self, status: Status) -> None:
        self.status_text = status
        self._figures.set("felix_resync_state", STATES[status])
        self._figures.count("felix_resyncs_started", int(status == "resync"))
        self._log.event("datastore_status", status=status)
        if status == "in-sync" and not self.is_in_sync:
            self.is_in_sync = True
            self._graph.in_sync()
            self.flush_soon()

    def datastore_lost(self, error: DatastoreError) -> None:
        self.lost = str(error)
        self._log.event("datastore_lost", level="warning", error=self.lost, kept="everything in the kernel")

    def datastore_back(self, after_s: float) -> None:
        self.lost = ""
        self._log.event("datastore_back", after_s=round(after_s, 3))

    def kind_refused(self, kind: str, error: DatastoreError) -> None:
        """There is none that we could do without."""

    def _note_readiness(self, value: dict[str, Any]) -> None:
        is_ready = value.get("spec", {}).get("datastoreReady", True) is not False
        if is_ready != self._is_ready:
            self._log.event("datastore_ready" if is_ready else "datastore_not_ready", level="warning")
        self._is_ready = is_ready

    def flush_soon(self) -> None:
        """Once a loop turn, so that what comes together is calculated together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._is_ready:
            return
        began = time.perf_counter()
        messages = self._graph.flush()
        self._figures.observe("felix_calc_graph_update_time_seconds", time.perf_counter() - began)
        if messages:
            self._figures.count("felix_calc_graph_output_events", len(messages))
            self._deliver(messages)
