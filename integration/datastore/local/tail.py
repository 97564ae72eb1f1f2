"""Notices what any process wrote to the file, and wakes the watches it concerns.

SQLite tells in 5 µs whether another connection has written (`PRAGMA data_version`), so we ask a hundred times a second:
it costs 0.4 to 3 % of a core by the machine, needs no help from the writers and sees all of them, and a watch is 5 ms late on average.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from integration.datastore.errors import DatastoreError, Unavailable
from integration.datastore.local.file import StoreFile

POLL_S = 0.01
LOOK_S = 1.0  # is it still our file, has anything expired?


class Tail:
    """`head` is the latest revision it knows of, `latest[kind]` the latest that changed the kind, as far as it knows.

    A task follows the file as long as anybody is inside `followed`.
    """

    def __init__(
        self,
        file: StoreFile,
        changed_kinds: Callable[[int], Awaitable[tuple[int, dict[str, int], float | None]]],
        expire: Callable[[], Awaitable[None]],
    ) -> None:
        self.file = file
        self.changed_kinds = changed_kinds
        self.expire = expire
        self.head = 0
        self.latest: dict[str, int] = {}
        self.failure: DatastoreError | None = None
        self.next_expiry: float | None = None
        self.waiting: set[asyncio.Future[None]] = set()
        self.task: asyncio.Task[None] | None = None
        self.followers = 0
        self.starting = asyncio.Lock()
        self.is_stopped = False

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        self.followers += 1
        try:
            async with self.starting:
                if self.task is None or self.task.done():
                    await self.start()
            yield
        finally:
            self.followers -= 1

    async def start(self) -> None:
        if self.is_stopped:
            raise Unavailable("the datastore was closed")
        self.failure = None
        connection = await asyncio.to_thread(self.file.connect, 0)
        try:
            await self.read()
        except BaseException:
            connection.close()
            raise
        self.task = asyncio.create_task(self.follow(connection))

    def data_version(self, connection: sqlite3.Connection) -> int:
        """-1 if the file is locked for a moment: that is no change."""
        try:
            version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                return -1
            raise
        return version

    async def follow(self, connection: sqlite3.Connection) -> None:
        seen = 0  # unlike any version: what happened since `start` read is read again
        look_at = time.monotonic() + LOOK_S
        try:
            while self.followers:
                with self.file.explained():
                    version = self.data_version(connection)
                    if time.monotonic() >= look_at:
                        look_at += LOOK_S
                        self.file.check_identity()
                if version not in (seen, -1):
                    await self.read()
                    seen = version
                if self.next_expiry is not None and time.time() >= self.next_expiry:
                    await self.expire()
                    await self.read()
                await asyncio.sleep(POLL_S)
        except DatastoreError as error:
            self.failure = error
            self.wake()
        finally:
            connection.close()

    async def read(self) -> None:
        head, latest, self.next_expiry = await self.changed_kinds(self.head)
        self.latest.update(latest)
        if head != self.head:
            self.head = head
            self.wake()

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()

    async def changed(self) -> None:
        """Returns once `head` has moved; raises what ended the watching of the file."""
        if self.failure:
            raise self.failure
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.add(future)
        try:
            await future
        finally:
            self.waiting.discard(future)
        if self.failure:
            raise self.failure

    async def stop(self) -> None:
        self.is_stopped = True
        self.failure = Unavailable("the datastore was closed")
        self.wake()
        if self.task:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
