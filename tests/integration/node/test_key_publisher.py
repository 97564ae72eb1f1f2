"""Our WireGuard keys in our Node's status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from integration.datastore.api import Datastore
from integration.datastore.settings import load_settings, open_datastore
from integration.node.felix.key_publisher import KeyPublisher
from integration.resources.keys import Key

NODE = Key("Node", "n1")
Body = Callable[[Datastore, KeyPublisher], Awaitable[None]]


class Log:
    def event(self, name: str, **fields: Any) -> None:
        pass


def with_publisher(folder: Path, body: Body) -> None:
    async def run() -> None:
        store = open_datastore(load_settings(f"local:{folder}/store.db"))
        publisher = KeyPublisher(store, "n1", Log())  # type: ignore[arg-type]
        task = asyncio.create_task(publisher.run())
        try:
            async with asyncio.timeout(20):
                await body(store, publisher)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()

    asyncio.run(run())


async def until_status(store: Datastore, wanted: dict[str, str]) -> dict[str, Any]:
    while True:
        value = (await store.get(NODE)).value
        if value.get("status", {}) == wanted:
            return value
        await asyncio.sleep(0.01)


def node(**status: str) -> dict[str, Any]:
    value: dict[str, Any] = {"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n1"}}
    return value | {"spec": {"bgp": {"ipv4Address": "172.16.0.1/24"}}} | ({"status": status} if status else {})


KEY, OTHER = "A" * 43 + "=", "B" * 42 + "A="


def test_a_key_is_written_replaced_and_taken_away_and_the_rest_stays(tmp_path: Path) -> None:
    async def body(store: Datastore, publisher: KeyPublisher) -> None:
        await store.apply(NODE, node())
        publisher.publish(4, KEY)
        value = await until_status(store, {"wireguardPublicKey": KEY})
        assert value["spec"]["bgp"]["ipv4Address"] == "172.16.0.1/24"
        publisher.publish(6, OTHER)
        await until_status(store, {"wireguardPublicKey": KEY, "wireguardPublicKeyV6": OTHER})
        publisher.publish(4, OTHER)
        await until_status(store, {"wireguardPublicKey": OTHER, "wireguardPublicKeyV6": OTHER})
        publisher.publish(4, "")
        await until_status(store, {"wireguardPublicKeyV6": OTHER})

    with_publisher(tmp_path, body)


def test_it_waits_for_the_node_to_come(tmp_path: Path) -> None:
    async def body(store: Datastore, publisher: KeyPublisher) -> None:
        publisher.publish(4, KEY)
        await asyncio.sleep(0)
        await store.apply(NODE, node())
        await until_status(store, {"wireguardPublicKey": KEY})

    with_publisher(tmp_path, body)


def test_what_is_so_already_is_not_written_again(tmp_path: Path) -> None:
    async def body(store: Datastore, publisher: KeyPublisher) -> None:
        await store.apply(NODE, node(wireguardPublicKey=KEY))
        before = (await store.get(NODE)).revision
        publisher.publish(4, KEY)
        publisher.publish(6, "")
        await asyncio.sleep(0)
        await publisher._write()
        assert (await store.get(NODE)).revision == before

    with_publisher(tmp_path, body)
