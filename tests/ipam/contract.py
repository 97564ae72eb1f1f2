"""What `ipam.ports.BlockStore` promises, kept by the store in memory and by every datastore."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from integration.resources.keys import Key, affinity_key, block_key
from ipam.block import new_block
from ipam.handles import handle_key
from ipam.ports import BlockStore, Changed, Exists, Missing
from ipam.settings import KEY
from tests.ipam.store import START_NS


def a_block(cidr: str = "10.0.0.0/28") -> dict[str, Any]:
    return new_block(ip_network(cidr), "host:a", START_NS).to_json()


SAMPLES: list[tuple[Key, dict[str, Any], dict[str, Any]]] = [
    (block_key("10.0.0.0/28"), a_block(), {**a_block(), "sequenceNumber": START_NS + 9}),
    (block_key("fd00::/124"), a_block("fd00::/124"), {**a_block("fd00::/124"), "affinity": None}),
    (affinity_key("host:a", "10.0.0.0/28"), {"state": "pending", "deleted": False}, {"state": "confirmed", "deleted": False}),
    (affinity_key("virtual:load-balancer", "10.0.0.0/28"), {"state": "pending", "deleted": False},
     {"state": "pendingDeletion", "deleted": False}),
    (handle_key("k8s-pod-network.abc"), {"block": {"10.0.0.0/28": 1}, "deleted": False},
     {"block": {"10.0.0.0/28": 2, "fd00::/124": 1}, "deleted": False}),
    (KEY, {"strict_affinity": True, "auto_allocate_blocks": True}, {"strict_affinity": False, "auto_allocate_blocks": True}),
]  # fmt: skip


async def returned(value: int) -> int:
    if value < 0:
        raise Missing
    return value


async def keeps_the_contract(store: BlockStore) -> None:
    for key, first, second in SAMPLES:
        await one_object(store, key, first, second)
    await lists(store)
    one, two, three = await store.together([returned(1), returned(-1), returned(3)])
    assert (one, three) == (1, 3)
    assert isinstance(two, Missing)
    assert await store.together([]) == []
    assert await store.node_labels("nobody") is None


async def one_object(store: BlockStore, key: Key, first: dict[str, Any], second: dict[str, Any]) -> None:
    with pytest.raises(Missing):
        await store.get(key)
    made = await store.create(key, first)
    with pytest.raises(Exists):
        await store.create(key, second)
    read = await store.get(key)
    assert read.revision == made.revision
    assert relevant(read.value) == relevant(first)
    written = await store.update(key, {**read.value, **second}, read.revision)
    assert written.revision != read.revision
    assert relevant((await store.get(key)).value) == relevant(second)
    with pytest.raises(Changed):
        await store.update(key, first, read.revision)
    with pytest.raises(Changed):
        await store.delete(key, read.revision)
    await store.delete(key, written.revision)
    with pytest.raises(Missing):
        await store.delete(key, written.revision)
    with pytest.raises(Missing):
        await store.update(key, first, written.revision)


def relevant(value: dict[str, Any]) -> dict[str, Any]:
    """False and absent are the same."""
    return {name: part for name, part in value.items() if part is not False}


async def lists(store: BlockStore) -> None:
    keys = [affinity_key(f"host:{host}", f"10.0.0.{octet}/28") for host in ("a", "a.b", "b") for octet in (0, 16)]
    for key in keys:
        await store.create(key, {"state": "confirmed", "deleted": False})
    assert sorted(one.key for one in (await store.list("BlockAffinity")).found) == sorted(keys)
    assert sorted(one.key for one in (await store.list("BlockAffinity", "host:a")).found) == sorted(keys[:2])
    assert list((await store.list("IPAMBlock")).found) == []
    for key in keys:
        await store.delete(key, (await store.get(key)).revision)
