"""Stores to begin with, and what must hold in every one at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_network

from integration.resources.keys import affinity_key, block_key, cidr_of
from ipam.allocator import Allocator
from ipam.assigning import Request
from ipam.block import Block, handle_of, read_block
from ipam.handles import counts_of, handle_key
from ipam.settings import KEY
from tests.ipam.store import Clock, MemoryStore, run


def store_with(*cidrs: str, nodes: Sequence[str] = ("a", "b"), block_size: int | None = None) -> MemoryStore:
    store = MemoryStore()
    for cidr in cidrs or ("10.0.0.0/24",):
        store.add_pool(cidr, blockSize=block_size or (28 if ":" not in cidr else 124))
    store.nodes = {node: {"name": node} for node in nodes}
    return store


def allocator(store: MemoryStore, clock: Clock | None = None) -> Allocator:
    return Allocator.over(store, clock or Clock())


def configure(store: MemoryStore, **fields: object) -> None:
    store.put(KEY, {"auto_allocate_blocks": True, **fields})


def assign(made: Allocator, host: str = "a", count: int = 1, handle: str | None = "h", **more: object) -> list[str]:
    """Addresses as texts, without the prefix length."""
    assignment = run(made.assign(Request(host, count=count, handle=handle, attributes={"node": host}, **more)))  # type: ignore[arg-type]
    if assignment.error is not None:
        raise assignment.error
    return [str(each.ip) for each in assignment.addresses]


def block_of(store: MemoryStore, cidr: str) -> Block:
    return read_block(store.value(block_key(cidr)), cidr)


def blocks_of(store: MemoryStore) -> dict[str, Block]:
    return {cidr_of(key): block_of(store, cidr_of(key)) for key in store.keys("IPAMBlock")}


def state_of(store: MemoryStore, host: str, cidr: str) -> str:
    return str(store.value(affinity_key(f"host:{host}", cidr))["state"])


def held(store: MemoryStore) -> dict[str, str | None]:
    """Address → handle, of what is assigned and not cooling down."""
    found = {}
    for block in blocks_of(store).values():
        for ordinal in range(block.size):
            attribute = block.attribute(ordinal)
            if attribute is not None and not block.is_cooling(ordinal):
                found[str(block.address(ordinal))] = handle_of(attribute)
    return found


def check(store: MemoryStore, *, is_quiet: bool = True) -> None:
    """Blocks are whole and apart, handles count no less than blocks, and if nothing is under way or crashed no more."""
    actual: Counter[tuple[str, str]] = Counter()
    networks = []
    for key in store.keys("IPAMBlock"):
        value = store.value(key)
        free = [ordinal for ordinal, index in enumerate(value["allocations"]) if index is None]
        assert sorted(value["unallocated"]) == free, f"{key}: {value['unallocated']} are not the free ordinals {free}"
        used = {index for index in value["allocations"] if index is not None}
        assert used == set(range(len(value["attributes"])))
        networks.append(ip_network(cidr_of(key)))
        for index in value["allocations"]:
            if index is not None and (handle := value["attributes"][index].get("handle_id")):
                actual[handle, cidr_of(key)] += 1
    assert not any(one.overlaps(other) for one in networks for other in networks if one is not other)
    said = {
        (key.name, cidr): count
        for key in store.keys("IPAMHandle")
        for cidr, count in counts_of(store.value(key)).items()
    }
    for place, count in actual.items():
        assert said.get(place, 0) >= count, f"{place}: the handle says {said.get(place, 0)}, the block {count}"
    if is_quiet:
        assert said == dict(actual)
        for key in store.keys("IPAMHandle"):
            assert store.value(key)["block"], f"{key} holds nothing and is there"


def handle_counts(store: MemoryStore, handle: str) -> dict[str, int]:
    key = handle_key(handle)
    return counts_of(store.value(key)) if key in store.objects else {}
