"""Processes that assign and release at random, and keep books of what they hold, while etcd's members die and come back.

An assignment that failed may have happened or not; it is given back by its handle, as a runtime does with DEL after a
failed ADD. `python -m tests.integration.ipam.storm SECONDS` prints the figures of one storm.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from integration.datastore.api import Datastore, Entry, Value
from integration.datastore.client import ResourceClient
from integration.datastore.errors import AlreadyExists, DatastoreError, UpdateConflict
from integration.datastore.settings import load_settings, open_datastore
from integration.ipam.queue import AddressQueue
from integration.ipam.store import open_allocator
from integration.ipam.survey import survey
from integration.resources.fields import parse_address
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool
from ipam.assigning import Request
from ipam.checking import Findings, find
from ipam.errors import IpamError, NotAssigned, TooManyConflicts
from ipam.releasing import Release
from tests.integration.datastore.etcd_servers import Etcd, etcd

PROCESSES, TASKS = 8, 4
MOST_HELD = (
    40,
    75,
)  # of processes in turn: two blocks and three, twenty together where there are sixteen, so they borrow
POOL = {"cidr": "10.0.0.0/23", "blockSize": 27}
REST_S = 60.0  # until everything doubtful must be known, once all members are back


class Counting:
    """A datastore that counts the writes that somebody else's made fail."""

    def __init__(self, datastore: Datastore, counts: Counter[str]) -> None:
        self.datastore = datastore
        self.counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.datastore, name)

    async def create(self, key: Key, value: Value, *, ttl_s: float | None = None) -> Entry:
        try:
            return await self.datastore.create(key, value, ttl_s=ttl_s)
        except AlreadyExists:
            self.counts["write_conflicts"] += 1
            raise

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        try:
            return await self.datastore.update(key, value, revision=revision)
        except UpdateConflict:
            self.counts["write_conflicts"] += 1
            raise


@dataclass
class Books:
    """What one process believes. `doubtful`: handles of which it cannot know. `lost`: what IPAM took from it unasked."""

    host: str
    held: dict[str, list[str]] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    partly: set[str] = field(default_factory=set)  # some address was given back by itself
    lost: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def failed(self, error: Exception) -> None:
        kind = "store_errors" if isinstance(error, DatastoreError) else "refusals"
        self.counts["too_many_conflicts" if isinstance(error, TooManyConflicts) else kind] += 1


class Node:
    """One process."""

    def __init__(self, url: str, host: str, seed: int) -> None:
        self.books = Books(host)
        self.random = random.Random(seed)
        self.most_held = MOST_HELD[seed % len(MOST_HELD)]
        self.datastore = open_datastore(load_settings(url, environment={}))
        self.allocator = open_allocator(Counting(self.datastore, self.books.counts))
        self.queue = AddressQueue(self.allocator)
        self.made = 0

    async def work(self, ends_at: float) -> None:
        while time.time() < ends_at:
            held = sum(map(len, self.books.held.values()))
            chance = self.random.random()
            if self.books.doubtful and chance < 0.15:
                await self.settle(self.books.doubtful.pop())
            elif self.books.held and (held > self.most_held or chance < 0.45):
                handle = self.random.choice(list(self.books.held))
                if chance < 0.08 and len(self.books.held[handle]) > 1:
                    await self.release_one(handle)
                else:
                    await self.release(handle)
            else:
                await self.assign()

    async def assign(self) -> None:
        self.made += 1
        handle, count = f"net.{self.books.host}.{self.made}", self.random.randint(1, 3)
        attributes = {"node": self.books.host, "pod": f"p{self.made}", "namespace": "default"}
        result = await self.queue.assign(Request(self.books.host, count=count, handle=handle, attributes=attributes))
        try:
            addresses = result.whole()
        except (IpamError, DatastoreError) as error:
            self.books.failed(error)
            self.books.doubtful.add(handle)
            return
        self.books.held[handle] = [str(each.ip) for each in addresses]
        self.books.counts["allocations"] += len(addresses)

    async def release(self, handle: str) -> None:
        addresses = self.books.held.pop(handle)
        self.books.partly.discard(handle)
        try:
            await self.queue.release_handle(handle)
        except NotAssigned:
            self.books.lost.append(handle)
        except (IpamError, DatastoreError) as error:
            self.books.failed(error)
            self.books.doubtful.add(handle)
        else:
            self.books.counts["releases"] += len(addresses)

    async def release_one(self, handle: str) -> None:
        address = self.books.held[handle].pop()
        self.books.partly.add(handle)
        try:
            outcome = await self.allocator.release([Release(parse_address(address), handle)])
            if outcome.whole():
                self.books.lost.append(f"{handle} {address}")
        except (IpamError, DatastoreError) as error:
            self.books.failed(error)
            if self.books.held.pop(handle, None) is not None:  # unless another task has given it all back
                self.books.doubtful.add(handle)
        else:
            self.books.counts["releases"] += 1

    async def settle(self, handle: str) -> None:
        try:
            await self.queue.release_handle(handle)
        except NotAssigned:
            pass
        except (IpamError, DatastoreError) as error:
            self.books.failed(error)
            self.books.doubtful.add(handle)

    async def rest(self, ends_at: float) -> None:
        """All members are there: whatever is doubtful is given back, and what was given back in part."""
        for handle in sorted(self.books.partly & self.books.held.keys()):
            await self.release(handle)
        while self.books.doubtful and time.time() < ends_at:
            for handle in sorted(self.books.doubtful):
                self.books.doubtful.discard(handle)
                await self.settle(handle)


async def run_node(url: str, host: str, seed: int, duration_s: float, is_calm: Any) -> Books:
    node = Node(url, host, seed)
    try:
        ends_at = time.time() + duration_s
        await asyncio.gather(*(node.work(ends_at) for _ in range(TASKS)))
        await asyncio.to_thread(is_calm.wait, REST_S)
        await node.rest(time.time() + REST_S)
        await node.queue.close()
    finally:
        await node.datastore.close()
    return node.books


def process(url: str, host: str, seed: int, duration_s: float, is_calm: Any, results: Any) -> None:
    results.put(asyncio.run(run_node(url, host, seed, duration_s, is_calm)))


def disturb(server: Etcd, chance: random.Random, ends_at: float) -> dict[str, int]:
    """Kill a member, at times the majority, and bring it back; until then."""
    counts = {"kills": 0, "majority_lost": 0}
    while time.time() < ends_at:
        victims = chance.sample(server.members, 2 if chance.random() < 0.2 else 1)
        if len(victims) == 1 and chance.random() < 0.5:
            victims = [server.leader()]
        for victim in victims:
            victim.kill()
            counts["kills"] += 1
        counts["majority_lost"] += len(victims) > 1
        time.sleep(chance.uniform(0.3, 1.2))
        for victim in victims:
            victim.start()
        server.wait_ready(victims)
        time.sleep(chance.uniform(0.3, 1.0))
    return counts


async def prepare(url: str, hosts: Sequence[str]) -> None:
    datastore = open_datastore(load_settings(url, environment={}))
    await ResourceClient(datastore).create(IPPool.from_json({"metadata": {"name": "pool"}, "spec": POOL}))
    for name in hosts:
        value = {"kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": {}}
        await datastore.create(Key("Node", name), value)
    await datastore.close()


async def examine(url: str, users: dict[str, list[str]]) -> Findings:
    """As `catbird ipam check` does, with the processes' books in place of WorkloadEndpoints."""
    datastore = open_datastore(load_settings(url, environment={}))
    try:
        evidence = (await survey(datastore)).evidence
    finally:
        await datastore.close()
    return find(replace(evidence, in_use={parse_address(address): who for address, who in users.items()}))


@dataclass
class Outcome:
    books: list[Books]
    findings: Findings
    users: dict[str, list[str]]  # address → handles of those that believe it to be theirs
    figures: dict[str, Any]

    @property
    def problems(self) -> list[str]:
        found = self.findings
        return [
            *(f"{address} has the owners {who}" for address, who in self.users.items() if len(who) > 1),
            *(f"{book.host} lost {what}" for book in self.books for what in book.lost),
            *(f"{book.host} does not know of {what}" for book in self.books for what in sorted(book.doubtful)),
            *(f"leaked: {one.address} of {one.handle}" for one in found.leaked),
            *(f"{address} is used and not allocated" for address in [*found.not_allocated, *found.outside_pools]),
            *(f"handle {one.key.name} holds nothing: {one.value}" for one in found.idle_handles),
            *(f"handle {name} is missing: {each}" for name, each in found.missing_handles.items()),
            *(f"block {cidr}: {why}" for cidr, why in found.bad_blocks.items()),
            *(f"handle {name} counts {each}" for name, each in found.miscounted.items()),
            *(f"block {cidr} has no affinity" for cidr in found.lost_blocks),
            *(f"affinity {one.key} has no block: {one.value}" for one in found.void_affinities),
            *(f"{what}: {why}" for what, why in found.unreadable),
            *(
                f"{one.address} is {one.handle}'s, not {self.users[str(one.address)]}'s"
                for each in found.allocations.values()
                for one in each
                if str(one.address) in self.users and self.users[str(one.address)] != [one.handle]
            ),
        ]


def storm(directory: Path, duration_s: float, seed: int = 1) -> Outcome:
    hosts = [f"n{number}" for number in range(PROCESSES)]
    context = multiprocessing.get_context("spawn")
    results, is_calm = context.Queue(), context.Event()
    with etcd(directory, 3) as server:
        url = "etcd:" + ",".join(server.endpoints)
        asyncio.run(prepare(url, hosts))
        running = [
            context.Process(target=process, args=(url, host, seed * 100 + number, duration_s, is_calm, results))
            for number, host in enumerate(hosts)
        ]
        for one in running:
            one.start()
        try:
            disturbed = disturb(server, random.Random(seed), time.time() + duration_s)
            is_calm.set()
            books: list[Books] = [results.get(timeout=2 * REST_S) for _ in running]
        finally:
            for one in running:
                one.join(5)
                one.kill()
        users: dict[str, list[str]] = {}
        for book in books:
            for handle, addresses in book.held.items():
                for address in addresses:
                    users.setdefault(address, []).append(handle)
        findings = asyncio.run(examine(url, users))
    counts = sum((book.counts for book in books), Counter[str]())
    outcome = Outcome(books, findings, users, {**disturbed, **counts, "held": len(users)})
    outcome.figures |= {
        "borrowed": sum(one.is_borrowed for each in findings.allocations.values() for one in each),
        "blocks": findings.block_count,
        "check_problems": findings.problems,
        "problems": len(outcome.problems),
    }
    return outcome


def main() -> None:
    duration_s = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as directory:
        outcome = storm(Path(directory), duration_s, seed)
    print(json.dumps(outcome.figures))
    for problem in outcome.problems:
        print(problem)


if __name__ == "__main__":
    main()
