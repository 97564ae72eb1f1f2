"""CalicoNodeStatus: what this node's speaker does, written into the resources that ask for it.

Source: node/pkg/status. Each resource whose spec.node is this node is reported when it is made or its spec changes, and
then every updatePeriodSeconds, if something is another than what was written last.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from bgp.ports import EventSink
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DatastoreError, DoesNotExist, Invalid, Unreadable, UpdateConflict
from integration.datastore.syncer import Status, Syncer, Update
from integration.resources.base import ResourceError
from integration.resources.keys import Key
from integration.resources.models.nodes import CalicoNodeStatus
from integration.version import VERSION

Object = dict[str, Any]
KIND = "CalicoNodeStatus"
PEER_TYPES = {"Mesh": "NodeMesh", "Node": "NodePeer", "Global": "GlobalPeer"}
STATES = {"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close"}
TRIES = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
MOST_ROUTES = 3_000  # of each family: with more, the resource is larger than etcd takes (1.5 MiB)
SAME_MOMENT_S = 2.0
ROUTES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Views:
    """What is told, as plain dicts made when asked (`bgp.views`); each may raise, or `summary` return None: not ready.

    `summary`: `router_id`, `uptime_s`, and if known `reconfigured_s_ago`. `peers`: `name` as bgpconfig names peers,
    `address`, `state`, `since_s`. `routes`: destinations with `prefix` and `paths` (`peer`, `source`, `state`,
    `next_hop`, `interface`); a None among them is a breath.
    """

    summary: Callable[[], Mapping[str, Any] | None]
    peers: Callable[[], Iterable[Mapping[str, Any]]]
    routes: Callable[[], Iterable[Mapping[str, Any] | None]]


@dataclass(slots=True)
class Moments:
    """Times of day of what the speaker tells in seconds ago. The same moment keeps its text, whatever the rounding."""

    clock: Callable[[], float] = time.time
    known: dict[tuple[str, ...], float] = field(default_factory=dict)

    def text(self, what: tuple[str, ...], ago_s: float) -> str:
        """RFC 3339, in UTC."""
        at = self.clock() - ago_s
        if abs(self.known.get(what, float("-inf")) - at) > SAME_MOMENT_S:
            self.known[what] = at
        return rfc3339(self.known[what])


def rfc3339(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


class NodeStatusReporter:
    """`run()` beside the speaker. The datastore may go away; what is due is written when it is back."""

    def __init__(
        self,
        client: ResourceClient,
        node: str,
        log: EventSink,
        views: Views,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client, self.node, self.log, self.views = client, node, log, views
        self.clock = clock
        self.moments = Moments(clock)
        self.specs: dict[str, Object] = {}  # of what is reported now
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.syncer = Syncer(client.datastore, [KIND], self)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self.syncer.run()
        finally:
            running = list(self.tasks.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    # --- Sink -------------------------------------------------------------------------------------------------------

    def updates(self, batch: list[Update]) -> None:
        for update in batch:
            spec = (update.value or {}).get("spec")
            if isinstance(spec, dict) and spec.get("node") == self.node:
                # Our own writing comes back as an update as well, with the same spec.
                if self.specs.get(update.key.name) != spec:
                    self.stop(update.key.name)
                    self.start(update.key.name, spec)
            else:
                self.stop(update.key.name)

    def status(self, status: Status) -> None: ...

    def datastore_lost(self, error: DatastoreError) -> None:
        self.log.event("node_status_waits", level="warning", error=str(error))

    def datastore_back(self, after_s: float) -> None: ...

    def kind_refused(self, kind: str, error: DatastoreError) -> None:
        """There is none that we could do without."""

    # --- one resource -----------------------------------------------------------------------------------------------

    def start(self, name: str, spec: Object) -> None:
        self.specs[name] = spec
        self.tasks[name] = asyncio.create_task(self.report(name, spec), name=f"report {name}")

    def stop(self, name: str) -> None:
        self.specs.pop(name, None)
        task = self.tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def report(self, name: str, spec: Object) -> None:
        period_s = spec.get("updatePeriodSeconds")
        if not isinstance(period_s, int) or not isinstance(spec.get("classes"), list):
            self.log.event("node_status_invalid", level="warning", resource=name, error="has no period or no classes")
            return
        while True:
            if not await self.write_once(name, spec):
                return
            if period_s <= 0:
                return
            await asyncio.sleep(period_s)

    async def write_once(self, name: str, spec: Object) -> bool:
        """Until it is written, or never can be; False: the resource is gone."""
        pause_s, conflicts, told = FIRST_PAUSE_S, 0, ""
        while True:
            try:
                await self.write(name, spec)
                return True
            except DoesNotExist:
                return False
            except UpdateConflict as error:
                conflicts += 1
                if conflicts < TRIES:
                    continue  # somebody wrote it meanwhile: once more from what it is now
                found: Exception = error
            except (Invalid, Unreadable, ResourceError) as error:
                self.log.event("node_status_failed", level="warning", resource=name, error=str(error))
                return True
            except Exception as error:  # the datastore's, or a view's: the speaker is not to suffer from it
                found = error
            text = str(found) if isinstance(found, DatastoreError) else f"{type(found).__name__}: {found}"
            if text != told:
                told = text
                self.log.event("node_status_failed", level="warning", resource=name, error=text)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    async def write(self, name: str, spec: Object) -> None:
        entry = await self.client.datastore.get(Key(KIND, name))
        if entry.value.get("spec") != spec:
            return  # the watch is about to say so
        status = await self.made(spec["classes"])
        before = entry.value.get("status") or {}
        if {**status, "lastUpdated": before.get("lastUpdated")} == before:
            return
        value = {**entry.value, "status": {**status, "lastUpdated": rfc3339(self.clock())}}
        # With the revision that was read: an UpdateConflict if somebody wrote since.
        await self.client.replace(CalicoNodeStatus.from_json(value))

    async def made(self, classes: Iterable[str]) -> Object:
        """The status but for lastUpdated, with the classes that are asked for."""
        status: Object = {}
        if "Agent" in classes:
            agent = agent_status(self.views.summary(), self.moments)
            status["agent"] = {"birdV4": agent, "birdV6": dict(agent)}  # one speaker has both families
        if "BGP" in classes:
            status["bgp"] = bgp_status(self.views.peers(), self.moments)
        if "Routes" in classes:
            status["routes"] = await self.routes()
        return status

    async def routes(self) -> Object:
        addresses = {str(peer["name"]): str(peer["address"]) for peer in self.views.peers()}
        found: dict[int, list[Object]] = {4: [], 6: []}
        is_cut = False
        for number, destination in enumerate(self.views.routes()):
            if destination is None or number % ROUTES_AT_ONCE == 0:
                await asyncio.sleep(0)
            if destination is None:
                continue
            rows = found[6 if ":" in destination["prefix"] else 4]
            for row in route_rows(destination, addresses):
                if len(rows) < MOST_ROUTES:
                    rows.append(row)
                else:
                    is_cut = True
        if is_cut:
            self.log.event("node_status_cut", level="warning", routes=MOST_ROUTES, reason="more do not fit a resource")
        return {"routesV4": found[4], "routesV6": found[6]}


def agent_status(summary: Mapping[str, Any] | None, moments: Moments) -> Object:
    if summary is None:
        return {"state": "NotReady"}
    status = {"state": "Ready", "version": f"catbird-{VERSION}", "routerID": str(summary.get("router_id") or "")}
    booted_s, changed_s = summary.get("uptime_s"), summary.get("reconfigured_s_ago")
    if booted_s is not None:
        status["lastBootTime"] = moments.text(("boot",), booted_s)
        changed_s = booted_s if changed_s is None else changed_s
    if changed_s is not None:
        status["lastReconfigurationTime"] = moments.text(("reconfigured",), changed_s)
    return status


def bgp_status(peers: Iterable[Mapping[str, Any]], moments: Moments) -> Object:
    """Peers that are local workloads are left out, as in Calico: the resource has no type for them."""
    rows: dict[int, list[Object]] = {4: [], 6: []}
    for peer in peers:
        kind = peer_type(str(peer["name"]))
        if kind is None or peer["state"] not in STATES:
            continue
        since = moments.text((str(peer["name"]), peer["state"]), peer["since_s"])
        row = {"peerIP": str(peer["address"]), "type": kind, "state": peer["state"], "since": since}
        rows[ip_address(row["peerIP"].partition("%")[0]).version].append(row)
    status: Object = {}
    for version, found in rows.items():
        established = sum(row["state"] == "Established" for row in found)
        status[f"numberEstablishedV{version}"] = established
        status[f"numberNotEstablishedV{version}"] = len(found) - established
        status[f"peersV{version}"] = sorted(
            found, key=lambda row: (ip_address(row["peerIP"].partition("%")[0]), row["type"])
        )
    return status


def peer_type(name: str) -> str | None:
    found = re.match(r"(Mesh|Node|Global)_", name)
    return PEER_TYPES[found[1]] if found else None


def route_rows(destination: Mapping[str, Any], addresses: Mapping[str, str]) -> Iterator[Object]:
    """One for each path that may be used or may come to be; `addresses` by peer."""
    for path in destination["paths"]:
        if path["state"] == "rejected":
            continue
        yield {
            "type": "FIB" if path["state"] in ("best", "multipath") else "RIB",
            "destination": destination["prefix"],
            "gateway": path.get("next_hop") or "N/A",
            "interface": path.get("interface") or ("blackhole" if path["source"] == "originate" else ""),
            "learnedFrom": learned_from(path, addresses),
        }


def learned_from(path: Mapping[str, Any], addresses: Mapping[str, str]) -> Object:
    if path["source"] in ("kernel", "originate"):
        return {"sourceType": "Kernel" if path["source"] == "kernel" else "Static"}
    name = str(path["peer"])
    # A local workload's, too, is a BGPPeer's: Calico fails the whole report over it.
    kind = "NodeMesh" if peer_type(name) == "NodeMesh" else "BGPPeer"
    return {"sourceType": kind, "peerIP": addresses.get(name, "")}
