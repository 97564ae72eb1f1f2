"""Felix' status and its endpoints' in a real etcd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from felix.config import FelixConfig
from felix.desired import WorkloadId
from felix.endpoint_status import HostEndpointId
from integration.datastore.etcd.connection import EtcdSettings
from integration.datastore.etcd.driver import EtcdDatastore
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.status_keys import StatusKeys, status_keys_of
from integration.node.felix_status import EndpointStatusReporter, ProcessStatusReporter, endpoint_path, felix_path
from tests.integration.datastore.etcd_servers import Etcd, etcd
from tests.integration.node.waiting import Log, until

POD = WorkloadId("k8s", "ns/pod", "eth0")
HOST = HostEndpointId("eth0/x%")
CONFIG = replace(
    FelixConfig(),
    hostname="node-1",
    endpoint_reporting_enabled=True,
    endpoint_reporting_delay_s=0.0,
    reporting_interval_s=0.05,
    reporting_ttl_s=1.0,
)
BASE = "/calico/felix/v2/no-region/host/node-1"
POD_PATH = f"{BASE}/workload/k8s/ns%2fpod/endpoint/eth0"
HOST_PATH = "/calico/felix/v1/host/node-1/endpoint/eth0%2fx%25"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture(autouse=True)
def empty(server: Etcd) -> None:
    server.ctl("del", "--prefix", "/calico/")


def with_keys(server: Etcd, scene: Callable[[StatusKeys], Awaitable[None]]) -> None:
    async def run() -> None:
        datastore = EtcdDatastore(EtcdSettings(endpoints=server.endpoints))
        keys = status_keys_of(datastore)
        assert keys is not None
        try:
            await scene(keys)
        finally:
            await datastore.close()

    asyncio.run(run())


def stored(server: Etcd) -> dict[str, str]:
    lines = server.ctl("get", "--prefix", "/calico/").splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def test_paths_are_calicos() -> None:
    assert felix_path("north", "a/b") == "/calico/felix/v2/region-north/host/a%2fb"
    assert endpoint_path("", "node-1", POD) == POD_PATH
    assert endpoint_path("north", "node-1", HOST) == HOST_PATH


def test_a_local_datastore_has_no_place_for_status(tmp_path: Path) -> None:
    assert status_keys_of(LocalDatastore(tmp_path / "store.db")) is None


def test_keys_are_put_listed_and_deleted(server: Etcd) -> None:
    async def scene(keys: StatusKeys) -> None:
        await keys.put("/calico/x/a", "1")
        await keys.put("/calico/x/a", "2")
        await keys.put("/calico/x/b", "3")
        await keys.put("/calico/y", "4")
        assert await keys.list("/calico/x/") == {"/calico/x/a": "2", "/calico/x/b": "3"}
        await keys.delete("/calico/x/a")
        await keys.delete("/calico/x/a")
        assert await keys.list("/calico/x/") == {"/calico/x/b": "3"}

    with_keys(server, scene)


def test_a_process_status_vanishes_when_it_is_not_renewed_and_the_last_one_stays(server: Etcd) -> None:
    async def scene(keys: StatusKeys) -> None:
        moment = 100.0
        reporter = ProcessStatusReporter(keys, lambda: CONFIG, Log(), lambda: 1_000_000_000, lambda: moment)
        await reporter.report()
        first = {"time": "2001-09-09T01:46:40Z", "uptime": 0.0, "first_update": True}
        assert json.loads(stored(server)[f"{BASE}/status"]) == first
        moment = 130.0
        await reporter.report()
        second = {"time": "2001-09-09T01:46:40Z", "uptime": 30.0, "first_update": False}
        assert json.loads(stored(server)[f"{BASE}/status"]) == second
        await until(lambda: f"{BASE}/status" not in stored(server), "the status vanishes")
        assert json.loads(stored(server)[f"{BASE}/last_reported_status"]) == second

    with_keys(server, scene)


def test_a_status_is_renewed_again_and_again(server: Etcd) -> None:
    async def scene(keys: StatusKeys) -> None:
        running = asyncio.create_task(ProcessStatusReporter(keys, lambda: CONFIG, Log()).run())
        await until(lambda: '"first_update":false' in stored(server).get(f"{BASE}/status", ""), "it is renewed")
        running.cancel()

    with_keys(server, scene)


def test_endpoint_statuses_come_change_and_go(server: Etcd) -> None:
    async def scene(keys: StatusKeys) -> None:
        reporter = EndpointStatusReporter(keys, lambda: CONFIG, Log())
        running = asyncio.create_task(reporter.run())
        reporter.told({POD: "up", HOST: "error"})
        wanted = {POD_PATH: '{"status":"up"}', HOST_PATH: '{"status":"error"}'}
        await until(lambda: stored(server) == wanted, "both are there")
        reporter.told({POD: "down", HOST: None})
        await until(lambda: stored(server) == {POD_PATH: '{"status":"down"}'}, "one has changed, one is gone")
        running.cancel()

    with_keys(server, scene)


def test_what_a_former_process_left_is_cleaned_once_everything_is_known(server: Etcd) -> None:
    server.ctl("put", f"{BASE}/workload/k8s/ns%2fgone/endpoint/eth0", "{}")
    server.ctl("put", "/calico/felix/v1/host/node-1/endpoint/gone", "{}")
    server.ctl("put", f"{BASE}9/workload/k8s/ns%2fother/endpoint/eth0", "of another node")
    server.ctl("put", POD_PATH, "altered")

    async def scene(keys: StatusKeys) -> None:
        reporter = EndpointStatusReporter(keys, lambda: CONFIG, Log())
        assert await reporter.step(0.0) == ""
        assert len(stored(server)) == 4
        reporter.told({POD: "up"})
        reporter.in_sync()
        for _ in range(4):
            assert await reporter.step(0.0) == ""
        other = f"{BASE}9/workload/k8s/ns%2fother/endpoint/eth0"
        assert stored(server) == {POD_PATH: '{"status":"up"}', other: "of another node"}

    with_keys(server, scene)


def test_nothing_is_written_unless_it_is_enabled_and_all_of_it_once_it_is(server: Etcd) -> None:
    config = replace(CONFIG, endpoint_reporting_enabled=False)

    async def scene(keys: StatusKeys) -> None:
        nonlocal config
        reporter = EndpointStatusReporter(keys, lambda: config, Log())
        reporter.told({POD: "up"})
        reporter.in_sync()
        running = asyncio.create_task(reporter.run())
        await asyncio.sleep(0.1)
        assert stored(server) == {}
        config = CONFIG
        await until(lambda: stored(server), "it is written")
        running.cancel()

    with_keys(server, scene)


def test_a_datastore_that_goes_away_is_told_once_and_gets_what_is_due_when_it_is_back(tmp_path: Path) -> None:
    log = Log()

    async def scene(server: Etcd) -> None:
        settings = EtcdSettings(endpoints=server.endpoints, request_s=0.3)
        datastore = EtcdDatastore(settings)
        keys = status_keys_of(datastore)
        assert keys is not None
        reporter = EndpointStatusReporter(keys, lambda: CONFIG, log)
        server.members[0].kill()
        running = asyncio.create_task(reporter.run())
        reporter.told({POD: "up", HOST: "up"})
        await until(lambda: log.events, "the failure is told")
        server.members[0].start()
        server.wait_ready()
        await until(lambda: len(stored(server)) == 2, "it is written")
        running.cancel()
        await datastore.close()

    with etcd(tmp_path) as server:
        asyncio.run(scene(server))
    assert log.named("endpoint_status_failed")
    assert len(log.named("endpoint_status_works_again")) == 1
