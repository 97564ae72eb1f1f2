"""`catbird delete` of what IPAM has something for, over a local store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from integration.cli import deleting
from integration.datastore.api import Datastore
from integration.datastore.client import ResourceClient
from integration.datastore.errors import Unsupported
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.settings import load_settings, open_datastore
from integration.ipam.store import open_allocator
from integration.resources.keys import Key
from ipam.tunnels import assign_tunnel_address
from tests.integration.cli.commands import Commands, document


def work(catbird: Commands, what: Callable[[Datastore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        datastore = open_datastore(load_settings(catbird.store, environment={}))
        try:
            return await what(datastore)
        finally:
            await datastore.close()

    return asyncio.run(run())


def names_of(catbird: Commands, kind: str) -> list[str]:
    async def names(datastore: Datastore) -> list[str]:
        return sorted(entry.key.name for entry in (await datastore.list(kind)).entries)

    found: list[str] = work(catbird, names)
    return found


def endpoint(node: str, pod: str, address: str) -> dict[str, Any]:
    return {
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": f"{node}-k8s-{pod}-eth0", "namespace": "web"},
        "spec": {"node": node, "orchestrator": "k8s", "pod": pod, "endpoint": "eth0", "ipNetworks": [f"{address}/32"]},
    }  # fmt: skip


@pytest.fixture
def cluster(catbird: Commands) -> Commands:
    """Two nodes with a pod each, `a` with a tunnel, out of one pool; a second pool with a block of `b`."""
    catbird.applied(
        document("IPPool", "pool", {"cidr": "10.65.0.0/24", "vxlanMode": "Always"})
        + document("IPPool", "other", {"cidr": "10.66.0.0/24"})
        + document("Node", "a", {})
        + document("Node", "b", {})
    )

    async def fill(datastore: Datastore) -> None:
        allocator = open_allocator(datastore)
        await allocator.claim_affinity(ip_network("10.65.0.0/26"), "a")
        await allocator.claim_affinity(ip_network("10.65.0.64/26"), "b")
        await allocator.claim_affinity(ip_network("10.66.0.0/26"), "b")
        for node, address in (("a", "10.65.0.1"), ("b", "10.65.0.65")):
            secondary = {"node": node, "pod": "p", "namespace": "web"}
            await allocator.assign_address(ip_address(address), node, f"net.{node}", secondary)
            value = endpoint(node, "p", address)
            await datastore.create(Key("WorkloadEndpoint", value["metadata"]["name"], "web"), value)
        await assign_tunnel_address(allocator, "a", "vxlan")
        await datastore.create(Key("IPAMHost", "a"), {})

    work(catbird, fill)
    return catbird


def test_a_deleted_pool_leaves_no_block_to_a_node_and_addresses_in_use_alone(cluster: Commands) -> None:
    done = cluster("delete", "ippool", "pool")
    assert (done.code, done.out) == (0, "Successfully deleted 1 'IPPool' resource(s)\n")
    assert names_of(cluster, "IPPool") == ["other"]
    assert names_of(cluster, "BlockAffinity") == ["10.66.0.0-26"], "the other pool's stays"
    assert work(cluster, lambda store: open_allocator(store).handle_addresses("net.a")) == [ip_address("10.65.0.1")]


def test_a_pool_is_not_even_disabled_with_a_revision_that_is_old(cluster: Commands) -> None:
    pool = document("IPPool", "pool", {"cidr": "10.65.0.0/24"}, resourceVersion="1")
    cluster("patch", "ippool", "pool", "-p", '{"spec": {"natOutgoing": true}}')
    done = cluster("delete", "-f", "-", stdin=pool)
    assert done.code == 1
    assert "was changed by somebody else" in done.err
    spec = cluster("get", "ippool", "pool", "-o", "json").json["spec"]
    assert not spec.get("disabled")
    assert len(names_of(cluster, "BlockAffinity")) == 3


def test_a_pool_with_its_present_revision_is_deleted(cluster: Commands) -> None:
    done = cluster("delete", "-f", "-", stdin=cluster("get", "ippool", "pool", "-o", "yaml").out)
    assert done.code == 0, done.err
    assert names_of(cluster, "IPPool") == ["other"]


def test_a_pool_that_cannot_be_read_can_be_deleted(cluster: Commands) -> None:
    work(cluster, lambda store: store.apply(Key("IPPool", "pool"), {"metadata": {"name": "pool"}, "spec": "nonsense"}))
    assert cluster("delete", "ippool", "pool").code == 0
    assert names_of(cluster, "IPPool") == ["other"]


def test_a_deleted_node_leaves_nothing_in_ipam(cluster: Commands) -> None:
    assert names_of(cluster, "IPAMHost") == ["a"]
    done = cluster("delete", "node", "a")
    assert (done.code, done.out) == (0, "Successfully deleted 1 'Node' resource(s)\n")
    assert names_of(cluster, "Node") == ["b"]
    assert names_of(cluster, "WorkloadEndpoint") == ["b-k8s-p-eth0"]
    assert names_of(cluster, "IPAMHandle") == ["net.b"]
    assert names_of(cluster, "IPAMHost") == []
    assert names_of(cluster, "BlockAffinity") == ["10.65.0.64-26", "10.66.0.0-26"]


def test_an_address_that_another_node_has_by_now_stays_its_own(cluster: Commands) -> None:
    value = endpoint("a", "moved", "10.65.0.65")
    work(cluster, lambda store: store.create(Key("WorkloadEndpoint", value["metadata"]["name"], "web"), value))
    assert cluster("delete", "node", "a").code == 0
    assert work(cluster, lambda store: open_allocator(store).handle_addresses("net.b")) == [ip_address("10.65.0.65")]


def test_a_node_that_is_not_there_is_told_and_takes_nothing_along(cluster: Commands) -> None:
    done = cluster("delete", "node", "c", "b")
    assert (done.code, done.out) == (1, "Partial success: deleted 1 out of 2 'Node' resources\n")
    assert "Node c does not exist" in done.err
    assert names_of(cluster, "Node") == ["a"]


def test_a_block_that_cannot_be_read_keeps_the_node_and_says_so(cluster: Commands) -> None:
    work(
        cluster, lambda store: store.apply(Key("IPAMBlock", "10.65.0.0-26"), {"cidr": "10.65.0.0/26", "unallocated": 7})
    )
    done = cluster("delete", "node", "a")
    assert done.code == 1
    assert "Node a stays" in done.err
    assert "catbird ipam check" in done.err
    assert "a" in names_of(cluster, "Node")


def test_where_kubernetes_makes_the_nodes_nothing_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        datastore = LocalDatastore(tmp_path / "store.db")
        monkeypatch.setattr(deleting, "KUBERNETES", LocalDatastore.__module__)
        key = Key("WorkloadEndpoint", "a-k8s-p-eth0", "web")
        await datastore.create(key, endpoint("a", "p", "10.65.0.1"))
        await datastore.create(Key("Node", "a"), {"metadata": {"name": "a"}})
        with pytest.raises(Unsupported):
            await deleting.delete(ResourceClient(datastore), Key("Node", "a"))
        assert (await datastore.get(key)).value["spec"]["node"] == "a"
        await datastore.close()

    asyncio.run(story())
