"""A BlockStore in memory: compare-and-swap as the real ones do it, and a place where every step can be disturbed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool, IPReservation
from ipam.ports import Changed, Exists, Listed, Missing, Pools, Result, Stored, Value

T = TypeVar("T")
START_NS = 1_800_000_000_123_456_789


class Pause:
    """Where another task may run: `run_interleaved` gets it, `run` goes on at once."""

    def __await__(self) -> Generator[None, None, None]:
        yield None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing but this store."""
    while True:
        try:
            work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result


@dataclass
class Clock:
    """Nanoseconds; moved by hand, and by one with each look."""

    now_ns: int = START_NS

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


@dataclass
class MemoryStore:
    """`before_write(what, key)` runs before each write, and may write itself or raise."""

    objects: dict[Key, tuple[str, int]] = field(default_factory=dict)
    revision: int = 0
    ip_pools: dict[str, IPPool] = field(default_factory=dict)
    ip_reservations: list[IPReservation] = field(default_factory=list)
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    writes: list[tuple[str, Key]] = field(default_factory=list)
    reads: int = 0
    before_write: Callable[[str, Key], None] | None = None

    # The port

    async def get(self, key: Key) -> Stored:
        await Pause()
        self.reads += 1
        return self.stored(key)

    async def list(self, kind: str, holder: str = "") -> Listed:
        await Pause()
        self.reads += 1
        return Listed([
            self.stored(key) for key in sorted(self.objects) if key.kind == kind and holder in ("", key.namespace)
        ])  # fmt: skip

    async def create(self, key: Key, value: Value) -> Stored:
        await self.writing("create", key)
        if key in self.objects:
            raise Exists
        return self.put(key, value)

    async def update(self, key: Key, value: Value, revision: str) -> Stored:
        await self.writing("update", key)
        self.compare(key, revision)
        return self.put(key, value)

    async def delete(self, key: Key, revision: str) -> None:
        await self.writing("delete", key)
        self.compare(key, revision)
        del self.objects[key]

    async def pools(self) -> Pools:
        await Pause()
        return Pools([self.ip_pools[name] for name in sorted(self.ip_pools)])

    async def reservations(self) -> Sequence[IPReservation]:
        await Pause()
        return list(self.ip_reservations)

    async def node_labels(self, node: str) -> Mapping[str, str] | None:
        await Pause()
        return self.nodes.get(node)

    async def together(self, jobs: Sequence[Coroutine[Any, Any, Result]]) -> Sequence[Result | Exception]:
        results: list[Result | Exception] = []
        for job in jobs:
            try:
                results.append(await job)
            except Exception as error:
                results.append(error)
        return results

    # For tests

    async def writing(self, what: str, key: Key) -> None:
        await Pause()
        if self.before_write is not None:
            self.before_write(what, key)
        self.writes.append((what, key))

    def compare(self, key: Key, revision: str) -> None:
        if key not in self.objects:
            raise Missing
        if str(self.objects[key][1]) != revision:
            raise Changed

    def put(self, key: Key, value: Value) -> Stored:
        self.revision += 1
        self.objects[key] = (json.dumps(value), self.revision)
        return self.stored(key)

    def stored(self, key: Key) -> Stored:
        if key not in self.objects:
            raise Missing
        text, revision = self.objects[key]
        return Stored(key, json.loads(text), str(revision))

    def touch(self, key: Key) -> None:
        """As if somebody else had written the same again."""
        text, _ = self.objects[key]
        self.revision += 1
        self.objects[key] = (text, self.revision)

    def value(self, key: Key) -> Value:
        return copy.deepcopy(self.stored(key).value)

    def keys(self, kind: str) -> Sequence[Key]:
        return sorted(key for key in self.objects if key.kind == kind)

    def add_pool(self, cidr: str, name: str = "", **spec: Any) -> None:
        name = name or f"pool-{len(self.ip_pools)}"
        self.ip_pools[name] = IPPool.from_json({"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}})

    def reserve(self, *cidrs: str) -> None:
        self.ip_reservations.append(
            IPReservation.from_json({"metadata": {"name": "r"}, "spec": {"reservedCIDRs": list(cidrs)}})
        )
