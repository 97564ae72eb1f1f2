"""IPAM over the real datastores: the local file, etcd, and Kubernetes' API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.datastore.api import Datastore
from integration.datastore.client import ResourceClient
from integration.datastore.etcd.connection import EtcdSettings
from integration.datastore.etcd.driver import EtcdDatastore
from integration.datastore.kubernetes.driver import KubernetesDatastore
from integration.datastore.local.driver import LocalDatastore
from integration.ipam.splitting import split
from integration.ipam.store import DatastoreBlocks, open_allocator
from integration.resources.keys import Key, affinity_key, block_key, etcd_path
from integration.resources.models.ipam import IPPool
from ipam.assigning import Request
from ipam.errors import NoNode
from ipam.releasing import Release
from ipam.tunnels import assign_tunnel_address
from tests.integration.datastore.etcd_servers import Etcd, etcd
from tests.integration.datastore.kubernetes_servers import Cluster, running_cluster
from tests.integration.ipam.opened import copied, prepare
from tests.ipam.contract import keeps_the_contract
from tests.ipam.scenes import check, held

Opened = Callable[[], AbstractAsyncContextManager[Datastore]]


@asynccontextmanager
async def closing(datastore: Datastore) -> AsyncIterator[Datastore]:
    try:
        yield datastore
    finally:
        await datastore.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Etcd]:
    with etcd(tmp_path) as running:
        yield running


@pytest.fixture
def local(tmp_path: Path) -> Opened:
    return lambda: closing(LocalDatastore(tmp_path / "store.db"))


@pytest.fixture
def etcd_opened(server: Etcd) -> Opened:
    return lambda: closing(EtcdDatastore(EtcdSettings(endpoints=server.endpoints)))


@pytest.fixture(params=["v1", "v3"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster("fake", request.param) as found:
        yield found


@pytest.fixture
def kubernetes(cluster: Cluster) -> Opened:
    for node in "ab":
        cluster.make("/api/v1/nodes", {"metadata": {"name": node, "labels": {"rack": node}}})
    return lambda: closing(KubernetesDatastore(cluster.settings()))


async def life_of_a_cluster(opened: Opened, nodes: tuple[str, ...] = ("a", "b")) -> None:
    """Two nodes, each in a process of its own as far as IPAM can tell, that assign and release at once."""
    async with opened() as datastore:
        await keeps_the_contract(DatastoreBlocks(datastore))
        await prepare(datastore, nodes)
    async with opened() as one, opened() as two:
        first, second = open_allocator(one), open_allocator(two)
        jobs = [
            made.assign(Request(host, handle=f"net.{host}{number}", count=2, attributes={"node": host}))
            for number in range(12)
            for host, made in (("a", first), ("b", second))
        ]
        results = await asyncio.gather(*jobs)
        assert len({str(each) for result in results for each in result.whole()}) == 48
        check(await copied(one))
        assert await first.attribute(results[0].addresses[0].ip) == {"handle_id": "net.a0", "secondary": {"node": "a"}}
        failed = await asyncio.gather(
            first.release_handles([f"net.a{number}" for number in range(12)]),
            second.release_handles([f"net.b{number}" for number in range(0, 12, 2)]),
        )
        assert list(failed) == [{}, {}]
        memory = await copied(one)
        check(memory)
        assert len(held(memory)) == 12
        await first.remove_host("a")
        assert {key.namespace for key in (await copied(one)).keys("BlockAffinity")} == {"host:b"}
        with pytest.raises(NoNode):
            (await first.assign(Request("nobody"))).whole()


def test_the_local_file_keeps_addresses(local: Opened) -> None:
    asyncio.run(life_of_a_cluster(local))


@pytest.mark.interop
def test_etcd_keeps_addresses(etcd_opened: Opened) -> None:
    asyncio.run(life_of_a_cluster(etcd_opened))


def test_kubernetes_keeps_addresses(kubernetes: Opened) -> None:
    asyncio.run(life_of_a_cluster(kubernetes, nodes=()))


@pytest.mark.interop
def test_what_lies_in_etcd_is_calicos(etcd_opened: Opened, server: Etcd) -> None:
    async def work() -> None:
        async with etcd_opened() as datastore:
            await prepare(datastore)
            await open_allocator(datastore).assign_address(ip_address("10.0.0.17"), "a", "net.c", {"pod": "web-0"})

    asyncio.run(work())
    root = "/calico/ipam/v2"
    block = json.loads(server.ctl("get", "--print-value-only", f"{root}/assignment/ipv4/block/10.0.0.16-28"))
    assert block["allocations"] == [None, 0, *[None] * 14]
    assert block["unallocated"] == [0, *range(2, 16)]
    assert block["attributes"] == [{"handle_id": "net.c", "secondary": {"pod": "web-0"}}]
    assert (block["cidr"], block["affinity"], block["deleted"]) == ("10.0.0.16/28", "host:a", False)
    affinity = server.ctl("get", "--print-value-only", f"{root}/host/a/ipv4/block/10.0.0.16-28")
    assert json.loads(affinity) == {"state": "confirmed", "deleted": False}
    handle = json.loads(server.ctl("get", "--print-value-only", f"{root}/handle/net.c"))
    assert handle == {"block": {"10.0.0.16/28": 1}, "deleted": False}


@pytest.mark.interop
@pytest.mark.parametrize("rubbish", ["", "{", "[]", "null", '{"cidr": 7}'])
def test_rubbish_in_a_block_or_an_affinity_stops_nobody(etcd_opened: Opened, server: Etcd, rubbish: str) -> None:
    for key in (block_key("10.0.0.0/28"), affinity_key("host:a", "10.0.0.16/28")):
        server.ctl("put", etcd_path(key), rubbish)

    async def work() -> int:
        async with etcd_opened() as datastore:
            await prepare(datastore)
            result = await open_allocator(datastore).assign(Request("a", count=250, handle="h"))
            return len(result.addresses)

    assert asyncio.run(work()) == 240  # of 256 without a broken block of 16


def test_what_is_reserved_and_cannot_be_read_stops_assignments(local: Opened) -> None:
    async def work() -> Exception | None:
        async with local() as datastore:
            await prepare(datastore)
            bad = {"kind": "IPReservation", "metadata": {"name": "r"}, "spec": {"reservedCIDRs": 7}}
            await datastore.create(Key("IPReservation", "r"), bad)
            return (await open_allocator(datastore).assign(Request("a"))).error

    assert "IPReservation r cannot be read" in str(asyncio.run(work()))


def test_a_pool_is_split_where_there_are_no_transactions(kubernetes: Opened) -> None:
    async def work() -> None:
        async with kubernetes() as datastore:
            await prepare(datastore, ())
            [address] = (await open_allocator(datastore).assign(Request("a", handle="h"))).whole()
            assert await split(datastore, 2, cidr="10.0.0.0/24") == ["split-pool-0", "split-pool-1"]
            pools = (await datastore.list("IPPool")).entries
            assert [entry.value["spec"]["cidr"] for entry in pools] == ["10.0.0.0/25", "10.0.0.128/25"]
            assert not any(entry.value["spec"].get("disabled") for entry in pools)
            assert (await open_allocator(datastore).release([Release(address.ip)])).released == [address.ip]
            check(await copied(datastore))

    asyncio.run(work())


def test_a_tunnel_has_its_address_in_every_store(kubernetes: Opened) -> None:
    async def work() -> None:
        async with kubernetes() as datastore:
            spec = {"cidr": "10.0.0.0/24", "ipipMode": "Always"}
            await ResourceClient(datastore).create(IPPool.from_json({"metadata": {"name": "p"}, "spec": spec}))
            allocator = open_allocator(datastore)
            address = await assign_tunnel_address(allocator, "a", "ipip")
            assert address is not None
            assert await assign_tunnel_address(allocator, "a", "ipip", address) == address
            assert list(held(await copied(datastore)).values()) == ["ipip-tunnel-addr-a"]

    asyncio.run(work())
