"""The speaker's configuration from a datastore's resources, kept up to date: what confd did, without files or reloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bgp.config import SpeakerConfig
from integration.bgpconfig import WATCHED, Environment, NodeConfig, NodeState, Problem
from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError
from integration.datastore.syncer import Status, Syncer, Update
from integration.logs import EventLog
from integration.node.control import ReloadRefused
from integration.node.following import follow
from integration.node.static_routes import StaticRoutes
from integration.resources.keys import Key

# Of the time that changes cost, one after the other, so much goes by between two: a storm is taken in few bites.
REST = 3.0
LONGEST_REST_S = 1.0
CAUSES_NAMED = 3
# Calico's roles give no secrets to a node: who wants passwords allows it. A peer that has one says that it is missing.
DISPENSABLE = ("Secret",)


class DatastoreSource:
    """A ConfigSource and the Sink of its Syncer. `run()` beside the daemon; `in_sync` before the first `load()`."""

    def __init__(
        self,
        datastore: Datastore,
        where: str,
        node: str,
        environment: Environment,
        log: EventLog,
        adapt: Callable[[SpeakerConfig], SpeakerConfig] = lambda config: config,
        writes_routes: bool = True,
    ) -> None:
        self.where = f"{where}, node {node}"
        self.node = node
        self.in_sync = asyncio.Event()
        self.problems: tuple[Problem, ...] = ()
        # Others who want to know what is told here, so that each Node is not followed twice; called after ourselves.
        self.listeners: list[Callable[[Sequence[Update]], None]] = []
        self._state = NodeState(node, environment)
        self._log = log
        self._adapt = adapt
        # Other namespaces' secrets are nobody's business, and RBAC says so.
        kinds = [("Secret", environment.secret_namespace) if kind == "Secret" else kind for kind in WATCHED]
        self._syncer = Syncer(datastore, kinds, self, dispensable=DISPENSABLE)
        self._has_changed = asyncio.Event()
        self._causes: dict[Key, None] = {}
        self._unreadable: dict[Key, Problem] = {}
        self._static_routes = StaticRoutes(log) if writes_routes else None
        self._lost = ""
        self._loaded_at = self._rested_at = 0.0
        self._is_applied = False
        self.config: NodeConfig | None = None

    async def run(self) -> None:
        """Until cancelled."""
        await follow(self._syncer, self._log)

    # --- Sink -------------------------------------------------------------------------------------------------------

    def updates(self, batch: list[Update]) -> None:
        for update in batch:
            if not self._concerns_us(update):
                continue
            self._state.apply_json(update.key, update.value)
            self._unreadable.pop(update.key, None)
            if update.error is not None:
                self._unreadable[update.key] = Problem(update.key, "", update.error.reason)
            self._causes[update.key] = None
        if self.in_sync.is_set() and self._causes:
            self._has_changed.set()
        for listen in self.listeners:
            listen(batch)

    def _concerns_us(self, update: Update) -> bool:
        """Pods of other nodes do not: only our own may peer with us, and a cluster has many."""
        if update.key.kind != "WorkloadEndpoint" or update.key in self._state.snapshot.by_kind[update.key.kind]:
            return True
        spec = (update.value or {}).get("spec")
        return isinstance(spec, dict) and spec.get("node") == self.node

    def kept(self, kind: str) -> list[Key]:
        """Of which resources the configuration is made."""
        return list(self._state.snapshot.by_kind[kind])

    def status(self, status: Status) -> None:
        self._log.event("datastore_status", status=status, datastore=self.where)
        if status == "in-sync":
            self.in_sync.set()
            self._causes.clear()

    def datastore_lost(self, error: DatastoreError) -> None:
        self._lost = str(error)
        self._log.event("datastore_lost", level="warning", error=self._lost, kept="the last configuration")

    def datastore_back(self, after_s: float) -> None:
        self._lost = ""
        self._log.event("datastore_back", after_s=round(after_s, 3))

    def kind_refused(self, kind: str, error: DatastoreError) -> None:
        self._log.event("kind_refused", level="warning", kind=kind, error=str(error), without="passwords of peers")

    # --- ConfigSource -----------------------------------------------------------------------------------------------

    @property
    def has_node(self) -> bool:
        return self._state.snapshot.by_kind["Node"].get(Key("Node", self.node)) is not None

    def load(self) -> SpeakerConfig:
        loop = asyncio.get_running_loop()
        self._loaded_at = loop.time()
        if not self.has_node:
            raise ReloadRefused(
                f"there is no Node {self.node} in the datastore (any more): the last configuration stays; create it again"
            )
        self._is_applied = False
        self.config = self._state.config()
        self._report(self.config)
        if self._static_routes is not None:
            self._static_routes.put(self.config.static_routes)
        return self._adapt(self.config.speaker)

    async def changed(self) -> str:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_changed.wait()
            # The daemon comes back here as soon as it has asked for the load: what that costs shows on the next turn.
            if (rest_s := self._rested_at - loop.time()) > 0:
                await asyncio.sleep(rest_s)
            self._has_changed.clear()
            causes, self._causes = list(self._causes), {}
            if causes and not self._is_as_before():
                more = f" and {len(causes) - CAUSES_NAMED} more" if len(causes) > CAUSES_NAMED else ""
                return ", ".join(map(str, causes[:CAUSES_NAMED])) + more

    def applied(self) -> None:
        """The daemon has taken the configuration over."""
        self._is_applied = True
        self._rest()

    def _rest(self) -> None:
        now = asyncio.get_running_loop().time()
        self._rested_at = now + min(LONGEST_REST_S, REST * (now - self._loaded_at))

    def _is_as_before(self) -> bool:
        """Nothing of what changed makes a difference here, and the daemon goes on undisturbed."""
        if not (self._is_applied and self.has_node):
            return False
        self._loaded_at = asyncio.get_running_loop().time()
        config = self._state.config()
        if config is not self.config or (*config.problems, *self._unreadable.values()) != self.problems:
            return False
        self._rest()
        return True

    def view(self) -> dict[str, Any]:
        peers = [] if self.config is None else [peer.to_json() for peer in self.config.peers]
        return {
            "node": self.node,
            "in_sync": self.in_sync.is_set(),
            "datastore_lost": self._lost or None,
            "problems": [str(problem) for problem in self.problems],
            "sources": {peer["name"]: peer["from"] for peer in peers},
        }

    def numbers(self) -> dict[str, float]:
        """For the metrics."""
        return {
            "resource_problems": len(self.problems),
            "datastore_in_sync": self.in_sync.is_set(),
            "datastore_reachable": not self._lost,
        }

    def _report(self, config: NodeConfig) -> None:
        """Each problem once when it appears, and once when it is gone."""
        problems = (*config.problems, *self._unreadable.values())
        if problems == self.problems:
            return
        before, self.problems = set(self.problems), problems
        for problem in problems:
            if problem not in before:
                self._log.event(
                    "resource_problem", level="warning", resource=str(problem.key), field=problem.field or None,
                    why=problem.reason,
                )  # fmt: skip
        for problem in sorted(before.difference(problems)):
            self._log.event("resource_problem_gone", resource=str(problem.key), field=problem.field or None)
