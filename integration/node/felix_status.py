"""Felix' own status and its endpoints' in the datastore, where that has a place for them (etcd). OpenStack reads it.

Source: Calico's status reporting: keys, fields, intervals. A datastore that is away costs nothing but the report: what is
due is written when it is back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping

from bgp.ports import EventSink
from felix.config import FelixConfig
from felix.desired import WorkloadId
from felix.endpoint_status import EndpointId, Status
from integration.datastore.errors import DatastoreError
from integration.datastore.status_keys import StatusKeys, escaped
from integration.node.complaints import Complaints
from integration.node.node_status import rfc3339

WRITE_TIMEOUT_S = 2.0
RESYNC_S = 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
IDLE_S = 5.0  # between two looks whether a report is wanted at all


def region_text(region: str) -> str:
    return f"region-{escaped(region)}" if region else "no-region"


def felix_path(region: str, hostname: str) -> str:
    return f"/calico/felix/v2/{region_text(region)}/host/{escaped(hostname)}"


def endpoint_path(region: str, hostname: str, id: EndpointId) -> str:
    if isinstance(id, WorkloadId):
        orchestrator, workload, endpoint = map(escaped, id)
        return f"{felix_path(region, hostname)}/workload/{orchestrator}/{workload}/endpoint/{endpoint}"
    return f"/calico/felix/v1/host/{escaped(hostname)}/endpoint/{escaped(id.name)}"


async def in_time(work: Awaitable[None]) -> str:
    """Do it within WRITE_TIMEOUT_S. Why it failed, or nothing."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await work
    except TimeoutError:
        return f"no answer within {WRITE_TIMEOUT_S:g} s"
    except DatastoreError as error:
        return str(error)
    return ""


class ProcessStatusReporter:
    """That Felix lives: `status` vanishes when it is not renewed, `last_reported_status` stays.

    `run()` until cancelled; ReportingIntervalSecs 0 means no report. `config` is asked each time.
    """

    def __init__(
        self,
        keys: StatusKeys,
        config: Callable[[], FelixConfig],
        log: EventSink,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._config, self._clock, self._monotonic = keys, config, clock, monotonic
        self._complaints = Complaints(log, "felix_status")
        self._began_at = monotonic()
        self._is_first = True

    async def run(self) -> None:
        while True:
            interval_s = self._config().reporting_interval_s
            if interval_s > 0:
                await self.report()
            await asyncio.sleep(interval_s or IDLE_S)

    async def report(self) -> None:
        """Once, now. What fails is due again with the next interval."""
        config = self._config()
        status = {
            "time": rfc3339(self._clock()),
            "uptime": round(self._monotonic() - self._began_at, 3),
            "first_update": self._is_first,
        }
        text, path = json.dumps(status, separators=(",", ":")), felix_path(config.openstack_region, config.hostname)
        error = await in_time(self._keys.put(f"{path}/status", text, ttl_s=config.reporting_ttl_s or None))
        if not error:
            error = await in_time(self._keys.put(f"{path}/last_reported_status", text))
        if not error:
            self._is_first = False
        self._complaints.tell(error)


class EndpointStatusReporter:
    """Statuses of endpoints, one write each EndpointReportingDelaySecs, while EndpointReportingEnabled. `run()` until cancelled.

    What lies there of a former process is compared and cleaned once everything is known, and every RESYNC_S.
    """

    def __init__(self, keys: StatusKeys, config: Callable[[], FelixConfig], log: EventSink) -> None:
        self._keys, self._config = keys, config
        self._complaints = Complaints(log, "endpoint_status")
        self._wanted: dict[str, str] = {}
        self._dirty: dict[str, None] = {}  # paths, the oldest first
        self._is_in_sync = False
        self._resync_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    def told(self, changes: Mapping[EndpointId, Status | None]) -> None:
        """As EndpointStates says them."""
        config = self._config()
        for id, status in changes.items():
            path = endpoint_path(config.openstack_region, config.hostname, id)
            if status is None:
                self._wanted.pop(path, None)
            else:
                self._wanted[path] = json.dumps({"status": status}, separators=(",", ":"))
            self._dirty[path] = None

    def in_sync(self) -> None:
        """Every endpoint has been told: what else lies there is stale."""
        self._is_in_sync = True

    async def run(self) -> None:
        while True:
            config = self._config()
            if not config.endpoint_reporting_enabled:
                self._resync_at = 0.0
                await asyncio.sleep(min(IDLE_S, max(0.05, config.endpoint_reporting_delay_s)))
                continue
            error = await self.step(asyncio.get_running_loop().time())
            self._complaints.tell(error)
            await asyncio.sleep(max(config.endpoint_reporting_delay_s, self._pause_s if error else 0.01))
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2) if error else FIRST_PAUSE_S

    async def step(self, now: float) -> str:
        """One write, or one comparison. Why it failed, or nothing."""
        if self._is_in_sync and now >= self._resync_at:
            error = await in_time(self._compare())
            if not error:
                self._resync_at = now + RESYNC_S
            return error
        if not self._dirty:
            return ""
        path = next(iter(self._dirty))
        del self._dirty[path]
        text = self._wanted.get(path)
        error = await in_time(self._keys.delete(path) if text is None else self._keys.put(path, text))
        if error:
            self._dirty[path] = None  # at the end: one key that is refused keeps no other waiting
        return error

    async def _compare(self) -> None:
        config = self._config()
        path = felix_path(config.openstack_region, config.hostname)
        stored = await self._keys.list(f"{path}/workload/")
        stored |= await self._keys.list(f"/calico/felix/v1/host/{escaped(config.hostname)}/endpoint/")
        self._dirty |= {path: None for path in {**stored, **self._wanted} if stored.get(path) != self._wanted.get(path)}
