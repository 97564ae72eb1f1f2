"""The local datastore for asyncio: one thread that writes, one that reads, and what watches wait for."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from integration.datastore.api import Entry, Event, Listing, Step, Value
from integration.datastore.errors import DatastoreError, Unavailable, Unsupported
from integration.datastore.local.file import Action, Outcome, StoreFile, Synchronous, Write
from integration.datastore.local.tail import Tail
from integration.datastore.stored_form import (
    DEFAULT_ALLOW,
    check_steps,
    default_allow_profile,
    encode,
    path_of,
    revision_number,
)
from integration.resources.keys import Key

MAX_BATCH = 200
EVENTS_AT_ONCE = 200
BOOKMARK_EVERY = 1_000
P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """A thread with a connection of its own, opened at its first work."""

    def __init__(self, file: StoreFile, name: str, lock_wait_s: float) -> None:
        self.file = file
        self.lock_wait_s = lock_wait_s
        self.connection: sqlite3.Connection | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def do(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(connection, …)` returns. Its wait for a lock or the disk keeps nobody else waiting."""
        done = partial(self.run, work, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, done)
        except RuntimeError as error:  # the executor was shut down
            raise Unavailable("the datastore was closed") from error

    def run(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.connection is None:
            self.connection = self.file.connect(self.lock_wait_s)
        return work(self.connection, *args, **kwargs)

    def close(self) -> None:
        self.thread.submit(self.disconnect)
        self.thread.shutdown(wait=True)

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class LocalDatastore:
    """`Datastore` in a file that any number of processes may have open. Revisions are counted over all objects.

    Writes that wait at the same time share one transaction, and one wait for the disk: see `StoreFile.synchronous`.
    """

    def __init__(self, path: Path, synchronous: Synchronous = "full", kept_changes: int = 10_000) -> None:
        self.file = StoreFile(path, synchronous, kept_changes)
        self.writer = Worker(self.file, "store-writer", lock_wait_s=0)
        self.reader = Worker(self.file, "store-reader", lock_wait_s=5)
        self.tail = Tail(self.file, self.changed_kinds, self.expire)
        self.waiting: list[tuple[Write, asyncio.Future[Outcome]]] = []
        self.flushing: asyncio.Task[None] | None = None
        self.is_closed = False

    async def get(self, key: Key, *, revision: str = "") -> Entry:
        path_of(key)
        if revision:
            raise Unsupported("the local datastore keeps no old values")
        if key == DEFAULT_ALLOW:
            return default_allow_profile()
        return await self.reader.do(self.file.get, key, time.time())

    async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
        listing = await self.reader.do(self.file.listing, kind, namespace, name_prefix, time.time())
        if kind == DEFAULT_ALLOW.kind and DEFAULT_ALLOW.name.startswith(name_prefix):
            others = [entry for entry in listing.entries if entry.key != DEFAULT_ALLOW]
            entries = sorted([*others, default_allow_profile()], key=lambda entry: entry.key.name)
            return Listing(entries, listing.revision, listing.unreadable)
        return listing

    async def create(self, key: Key, value: Value, *, ttl_s: float | None = None) -> Entry:
        expires_at = None if ttl_s is None else time.time() + ttl_s
        return await self.write("create", key, value, expires_at=expires_at)

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        return await self.write("update", key, value, revision_number(key, revision))

    async def apply(self, key: Key, value: Value) -> Entry:
        return await self.write("apply", key, value)

    async def delete(self, key: Key, *, revision: str = "") -> Entry:
        path_of(key)
        return await self.submit(Write("delete", key, b"", revision_number(key, revision) if revision else None))

    async def write(
        self, action: Action, key: Key, value: Value, revision: int | None = None, expires_at: float | None = None
    ) -> Entry:
        path_of(key)
        return await self.submit(Write(action, key, encode(key, value), revision, expires_at))

    async def transact(self, steps: Sequence[Step]) -> Sequence[Entry]:
        check_steps(steps)
        writes = [write_of(step) for step in steps]
        if self.is_closed:
            raise Unavailable("the datastore was closed")
        return await self.writer.do(self.file.write_all, writes, time.time())

    async def submit(self, write: Write) -> Entry:
        if self.is_closed:
            raise Unavailable("the datastore was closed")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting.append((write, future))
        if self.flushing is None or self.flushing.done():
            self.flushing = asyncio.create_task(self.flush())
        outcome = await future
        if isinstance(outcome, DatastoreError):
            raise outcome.with_traceback(None)  # the writes of one round may share it
        return outcome

    async def flush(self) -> None:
        """Write what waits; what comes meanwhile waits for the next round."""
        while self.waiting:
            # Who was cancelled meanwhile wants it no more.
            batch = [pair for pair in self.waiting[:MAX_BATCH] if not pair[1].cancelled()]
            del self.waiting[:MAX_BATCH]
            writes = [write for write, _ in batch]
            outcomes: Sequence[Outcome]
            try:
                outcomes = await self.writer.do(self.file.write, writes, time.time())
            except DatastoreError as error:
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    async def expire(self) -> None:
        await self.writer.do(self.file.write, [], time.time())

    async def changed_kinds(self, since: int) -> tuple[int, dict[str, int], float | None]:
        return await self.reader.do(self.file.changed_kinds, since)

    async def watch(self, kind: str, *, revision: str, namespace: str | None = None) -> AsyncGenerator[Event, None]:
        since = told = revision_number(Key(kind, ""), revision)
        has_looked = False
        async with self.tail.followed():
            while True:
                head = self.tail.head
                if not has_looked or self.tail.latest.get(kind, 0) > since:
                    events = await self.reader.do(self.file.changes, kind, namespace, since, EVENTS_AT_ONCE)
                    for event in events:
                        since = told = int(event.revision)
                        yield event
                    has_looked = len(events) < EVENTS_AT_ONCE
                    if not has_looked:
                        continue
                since = max(since, head)
                if since - told >= BOOKMARK_EVERY:
                    told = since
                    yield Event("bookmark", None, str(since))
                if self.tail.head == head:
                    await self.tail.changed()

    async def check(self) -> None:
        """Also whether it may be written."""
        await self.expire()

    async def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        await self.tail.stop()
        if self.flushing:
            await self.flushing
        for worker in (self.writer, self.reader):
            await asyncio.to_thread(worker.close)


def write_of(step: Step) -> Write:
    """Raises Invalid."""
    path_of(step.key)
    if step.value is None:
        revision = None if step.revision is None else revision_number(step.key, step.revision)
        return Write("delete", step.key, b"", revision)
    stored = encode(step.key, step.value)
    if step.revision is None:
        return Write("apply", step.key, stored)
    if step.revision == "":
        return Write("create", step.key, stored)
    return Write("update", step.key, stored, revision_number(step.key, step.revision))
