"""The addresses of a node's tunnels as they come to stand in its Node, over a local store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.api import Entry, Listing, Value
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DoesNotExist, Unavailable, UpdateConflict
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.syncer import Update
from integration.ipam.store import open_allocator
from integration.node.tunnel_addresses import TunnelAddresses
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool
from integration.resources.models.nodes import Node
from ipam.errors import NotAssigned
from tests.integration.node.waiting import Log, until

NODE = Key("Node", "n1")
PUBLIC_KEY = "jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY="


class Scene:
    def __init__(self, datastore: LocalDatastore) -> None:
        self.datastore, self.client, self.log = datastore, ResourceClient(datastore), Log()
        self.tunnels = TunnelAddresses(self.client, "n1", self.log)

    async def pool(self, name: str, cidr: str, **spec: Any) -> None:
        await self.client.apply(IPPool.from_json({"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}))

    async def node(self, status: Value | None = None, **spec: Any) -> None:
        await self.client.apply(Node.from_json({"metadata": {"name": "n1"}, "spec": spec, "status": status or {}}))

    async def spec(self) -> Value:
        spec: Value = (await self.datastore.get(NODE)).value.get("spec") or {}
        return spec

    async def held(self, handle: str) -> list[str]:
        try:
            return list(map(str, await open_allocator(self.datastore).handle_addresses(handle)))
        except NotAssigned:
            return []


Story = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    async def main(story: Story, kind: type[LocalDatastore]) -> None:
        datastore = kind(tmp_path / "store.db")
        try:
            await story(Scene(datastore))
        finally:
            await datastore.close()

    def run(story: Story, kind: type[LocalDatastore] = LocalDatastore) -> None:
        asyncio.run(main(story, kind))

    return run


def test_each_encapsulation_that_a_pool_asks_for_gets_an_address_once(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.node(bgp={"ipv4Address": "192.0.2.1/24"})
        await scene.pool("ipip", "10.1.0.0/24", ipipMode="CrossSubnet")
        await scene.pool("vxlan", "10.2.0.0/24", vxlanMode="Always")
        await scene.pool("six", "fd00:1::/112", vxlanMode="Always")
        assert await scene.tunnels.settle()
        spec = await scene.spec()
        assert spec["bgp"]["ipv4Address"] == "192.0.2.1/24"
        assert [spec["bgp"]["ipv4IPIPTunnelAddr"]] == await scene.held("ipip-tunnel-addr-n1")
        assert [spec["ipv4VXLANTunnelAddr"]] == await scene.held("vxlan-tunnel-addr-n1")
        assert [spec["ipv6VXLANTunnelAddr"]] == await scene.held("vxlan-v6-tunnel-addr-n1")
        assert spec["ipv4VXLANTunnelAddr"].startswith("10.2.0.")
        assert "wireguard" not in spec, "Felix has published no key"
        before = await scene.datastore.get(NODE)
        assert await scene.tunnels.settle()
        assert (await scene.datastore.get(NODE)).revision == before.revision, "nothing is written twice"
        assert [event["tunnel"] for event in scene.log.named("tunnel_address_assigned")] == [
            "ipip",
            "vxlan",
            "vxlan-v6",
        ]

    play(story)


def test_an_address_goes_when_no_pool_asks_for_it_and_leaves_nothing_behind(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.node()
        await scene.pool("p", "10.1.0.0/24", ipipMode="Always")
        assert await scene.tunnels.settle()
        assert (await scene.spec())["bgp"]["ipv4IPIPTunnelAddr"].startswith("10.1.0.")
        await scene.pool("p", "10.1.0.0/24", vxlanMode="Always")
        assert await scene.tunnels.settle()
        spec = await scene.spec()
        assert "bgp" not in spec, "the node took no part in BGP before"
        assert spec["ipv4VXLANTunnelAddr"].startswith("10.1.0.")
        assert await scene.held("ipip-tunnel-addr-n1") == []
        await scene.pool("p", "10.1.0.0/24")
        assert await scene.tunnels.settle()
        assert await scene.spec() == {}
        assert await scene.held("vxlan-tunnel-addr-n1") == []
        assert len(scene.log.named("tunnel_address_released")) == 2

    play(story)


def test_wireguard_has_an_address_while_felix_has_a_key(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.pool("p", "10.1.0.0/24")
        await scene.node({"wireguardPublicKey": PUBLIC_KEY})
        assert await scene.tunnels.settle()
        spec = await scene.spec()
        assert [spec["wireguard"]["interfaceIPv4Address"]] == await scene.held("wireguard-tunnel-addr-n1")
        await scene.node(**spec)
        assert await scene.tunnels.settle()
        assert "wireguard" not in await scene.spec()
        assert await scene.held("wireguard-tunnel-addr-n1") == []

    play(story)


def test_an_address_that_somebody_else_holds_is_replaced_in_the_node(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.pool("p", "10.1.0.0/24", vxlanMode="Always")
        await scene.node(ipv4VXLANTunnelAddr="10.1.0.9")
        await open_allocator(scene.datastore).assign_address(ip_address("10.1.0.9"), "n1", "net.pod")
        assert await scene.tunnels.settle()
        found = (await scene.spec())["ipv4VXLANTunnelAddr"]
        assert found != "10.1.0.9"
        assert [found] == await scene.held("vxlan-tunnel-addr-n1")
        assert await scene.held("net.pod") == ["10.1.0.9"]

    play(story)


def test_a_pool_that_cannot_be_read_takes_no_address_away(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.pool("p", "10.1.0.0/24", vxlanMode="Always")
        await scene.node()
        assert await scene.tunnels.settle()
        before = await scene.spec()
        await scene.datastore.apply(Key("IPPool", "p"), {"metadata": {"name": "p"}, "spec": "nonsense"})
        assert not await scene.tunnels.settle()
        assert await scene.spec() == before
        assert await scene.held("vxlan-tunnel-addr-n1") == [before["ipv4VXLANTunnelAddr"]]
        assert "cannot be read" in scene.log.named("tunnel_address_failed")[0]["error"]

    play(story)


def test_a_node_that_is_not_there_is_left_to_whoever_makes_it(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.pool("p", "10.1.0.0/24", vxlanMode="Always")
        assert await scene.tunnels.settle()
        with pytest.raises(DoesNotExist):
            await scene.datastore.get(NODE)
        assert scene.log.events == []

    play(story)


class Troubled(LocalDatastore):
    """Away for some reads of pools, and one writer is quicker than we."""

    outages, races = 2, 1

    async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
        if kind == "IPPool" and self.outages:
            self.outages -= 1
            raise Unavailable("no answer")
        return await super().list(kind, namespace=namespace, name_prefix=name_prefix)

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        if key == NODE and self.races:
            self.races -= 1
            raise UpdateConflict(key)
        return await super().update(key, value, revision=revision)


def test_outages_and_conflicts_are_outlived_and_told_once(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        datastore = scene.datastore
        assert isinstance(datastore, Troubled)
        datastore.outages = datastore.races = 0
        await scene.pool("p", "10.1.0.0/24", vxlanMode="Always")
        await scene.node()
        datastore.outages, datastore.races = 7, 1  # five kinds of tunnel: one whole round and a bit
        running = asyncio.create_task(scene.tunnels.run())
        try:
            await until(lambda: scene.log.named("tunnel_address_assigned"), "assigned")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert len(scene.log.named("tunnel_address_failed")) == 5
        assert (await scene.spec())["ipv4VXLANTunnelAddr"].startswith("10.1.0.")
        assert datastore.races == 0

    play(story, Troubled)


def test_only_pools_and_our_own_node_wake_it(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.node()
        running = asyncio.create_task(scene.tunnels.run())
        try:
            await asyncio.sleep(0)
            await scene.pool("p", "10.1.0.0/24", vxlanMode="Always")
            scene.tunnels.updates([Update(Key("Node", "other"), {}), Update(Key("BGPPeer", "n1"), {})])
            assert not scene.tunnels._is_due.is_set()
            scene.tunnels.updates([Update(Key("IPPool", "p"), {})])
            await until(lambda: scene.log.named("tunnel_address_assigned"), "assigned")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    play(story)
