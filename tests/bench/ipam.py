"""`python -m tests.bench.ipam`: addresses a second from one node, and from eight nodes at once.

The local file, and with `--etcd` a real server as well. Each run counts what failed and the writes for an address, and checks at the
end that no address was given twice and that handles say what blocks say.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from integration.datastore.api import Datastore, Entry, Value
from integration.datastore.client import ResourceClient
from integration.datastore.settings import load_settings, open_datastore
from integration.ipam.queue import AddressQueue
from integration.ipam.store import open_allocator
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool
from ipam.assigning import Request
from tests.integration.datastore.etcd_servers import etcd
from tests.integration.ipam.opened import copied
from tests.ipam.scenes import check, held

NODES, EACH = 8, 500
AT_ONCE = (1, 50)


class Counting:
    """A datastore that counts its writes."""

    def __init__(self, datastore: Datastore) -> None:
        self.datastore = datastore
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.datastore, name)

    async def create(self, key: Key, value: Value, *, ttl_s: float | None = None) -> Entry:
        self.writes += 1
        return await self.datastore.create(key, value, ttl_s=ttl_s)

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        self.writes += 1
        return await self.datastore.update(key, value, revision=revision)


async def prepare(url: str) -> None:
    datastore = open_datastore(load_settings(url, environment={}))
    pool = {"metadata": {"name": "pool"}, "spec": {"cidr": "10.0.0.0/16"}}
    await ResourceClient(datastore).create(IPPool.from_json(pool))
    for name in [f"n{number}" for number in range(NODES)] + [f"alone{at_once}" for at_once in AT_ONCE]:
        value = {"kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": {}}
        await datastore.create(Key("Node", name), value)
    await datastore.close()


async def node(url: str, host: str, count: int, at_once: int) -> dict[str, Any]:
    """What one node agent does: `count` requests, `at_once` of them under way, then all released."""
    counting = Counting(open_datastore(load_settings(url, environment={})))
    queue = AddressQueue(open_allocator(counting))
    await queue.assign(Request(host, handle=f"first.{host}"))
    counting.writes, failed, delays = 0, 0, []
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        nonlocal failed
        attributes = {"node": host, "pod": f"pod-{number}", "namespace": "default"}
        async with gate:
            began = time.perf_counter()
            result = await queue.assign(Request(host, handle=f"net.{host}.{number}", attributes=attributes))
            delays.append(time.perf_counter() - began)
        failed += len(result.addresses) != 1

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(count)))
    assigned_s, writes = time.perf_counter() - began, counting.writes
    began = time.perf_counter()
    names = [f"net.{host}.{number}" for number in range(0, count, 2)]
    await asyncio.gather(*(queue.release_handle(name) for name in names))
    released_s = time.perf_counter() - began
    await queue.close()
    await counting.datastore.close()
    return {
        "failed": failed,
        "addresses_per_s": round(count / assigned_s),
        "writes_per_address": round(writes / count, 2),
        "p50_ms": round(statistics.median(delays) * 1000, 2),
        "p99_ms": round(sorted(delays)[int(len(delays) * 0.99)] * 1000, 2),
        "releases_per_s": round(len(names) / released_s),
    }


def process(url: str, host: str, count: int, at_once: int, results: Any) -> None:
    results.put(asyncio.run(node(url, host, count, at_once)))


def nodes_at_once(url: str, nodes: int, count: int, at_once: int) -> dict[str, Any]:
    """Each node in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=process, args=(url, f"n{n}", count, at_once, results)) for n in range(nodes)]
    began = time.perf_counter()
    for each in processes:
        each.start()
    found = [results.get(timeout=300) for _ in processes]
    wall_s = time.perf_counter() - began
    for each in processes:
        each.join()
    return {
        "nodes": nodes,
        "at_once": at_once,
        "failed": sum(one["failed"] for one in found),
        "addresses_per_s_a_node": sorted(one["addresses_per_s"] for one in found),
        "writes_per_address": max(one["writes_per_address"] for one in found),
        "p99_ms": max(one["p99_ms"] for one in found),
        "wall_s_with_start": round(wall_s, 2),
    }


async def verify(url: str, expected: int) -> dict[str, Any]:
    datastore = open_datastore(load_settings(url, environment={}))
    memory = await copied(datastore)
    await datastore.close()
    check(memory)
    holders = Counter(held(memory).values())
    assert set(holders.values()) == {1}
    assert len(holders) == expected, f"{len(holders)} handles hold addresses, not {expected}"
    return {"held": len(holders), "blocks": len(memory.keys("IPAMBlock"))}


def measure(url: str) -> list[dict[str, Any]]:
    asyncio.run(prepare(url))
    rows = []
    for at_once in AT_ONCE:
        row = {"what": "one node", "at_once": at_once} | asyncio.run(node(url, f"alone{at_once}", EACH, at_once))
        rows.append(row)
    row = {"what": "all nodes"} | nodes_at_once(url, NODES, EACH, 20)
    # Each has kept its first address, and those with odd numbers.
    return [*rows, row | asyncio.run(verify(url, (NODES + len(AT_ONCE)) * (1 + EACH // 2)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--etcd", action="store_true", help="also a real etcd server on loopback")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"local": f"local:{directory}/store.db"}
        if options.etcd:
            urls["etcd"] = "etcd:" + ",".join(stack.enter_context(etcd(directory)).endpoints)
        for name, url in urls.items():
            for row in measure(url):
                print(json.dumps({"store": name} | row), flush=True)


if __name__ == "__main__":
    main()
