"""Many at once in one process, as a node agent has them: what waits together is done together.

Two tasks that assign from the same block at the same time would only make each other's writes fail. Here one round at a
time works: all requests that came during the last round share the reading, and each block is written once for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from ipam.allocator import Allocator
from ipam.assigning import Assignment, Request
from ipam.errors import NotAssigned
from ipam.releasing import Release

MAX_ROUND = 256


@dataclass(eq=False, slots=True)
class Waiting:
    request: Request
    done: asyncio.Future[Assignment]


@dataclass(eq=False, slots=True)
class Leaving:
    handle: str
    done: asyncio.Future[None]


@dataclass(eq=False)
class AddressQueue:
    """For one event loop.

    queue = AddressQueue(open_allocator(datastore))
    assignment = await queue.assign(Request("node1", handle="net.c1"))
    await queue.release_handle("net.c1")
    """

    allocator: Allocator
    waiting: list[Waiting] = field(default_factory=list)
    leaving: list[Leaving] = field(default_factory=list)
    working: asyncio.Task[None] | None = None

    async def assign(self, request: Request) -> Assignment:
        """Never raises: see Assignment.whole. A caller that is cancelled gets nothing, and keeps nothing."""
        waiting = Waiting(request, asyncio.get_running_loop().create_future())
        self.waiting.append(waiting)
        self._start()
        return await waiting.done

    async def release_handle(self, handle: str) -> None:
        """Raises NotAssigned if there is no such handle, and what the store raises."""
        leaving = Leaving(handle, asyncio.get_running_loop().create_future())
        self.leaving.append(leaving)
        self._start()
        await leaving.done

    async def close(self) -> None:
        """Ends when nothing is under way any more."""
        if self.working is not None:
            await self.working

    def _start(self) -> None:
        if self.working is None or self.working.done():
            self.working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self.waiting or self.leaving:
            # What leaves first makes room for what comes.
            await self._release()
            await self._assign()

    async def _assign(self) -> None:
        batch = [each for each in self.waiting[:MAX_ROUND] if not each.done.done()]
        del self.waiting[:MAX_ROUND]
        if not batch:
            return
        try:
            results = await self.allocator.assign_all([each.request for each in batch])
        except Exception as error:
            results = [Assignment(each.request, error=error) for each in batch]
        except BaseException:
            self._give_up(each.done for each in batch)
            raise
        unwanted: list[Release] = []
        for each, result in zip(batch, results, strict=True):
            if each.done.done():
                unwanted += [Release(address.ip, each.request.handle) for address in result.addresses]
            else:
                each.done.set_result(result)
        if unwanted:
            # Where that fails the handle is still there, by which whoever cleans up after the caller finds them.
            with contextlib.suppress(Exception):
                await self.allocator.release(unwanted)

    async def _release(self) -> None:
        batch = self.leaving[:MAX_ROUND]
        del self.leaving[:MAX_ROUND]
        if not batch:
            return
        try:
            failed = await self.allocator.release_handles(each.handle for each in batch)
        except Exception as error:
            failed = {each.handle: error for each in batch}
        except BaseException:
            self._give_up(each.done for each in batch)
            raise
        seen: set[str] = set()
        for each in batch:
            error_or_none = failed.get(each.handle)
            if each.handle in seen and error_or_none is None:
                error_or_none = NotAssigned(f"handle {each.handle} was released by another task")
            seen.add(each.handle)
            if each.done.done():
                continue
            if error_or_none is None:
                each.done.set_result(None)
            else:
                each.done.set_exception(error_or_none.with_traceback(None))

    def _give_up(self, futures: Iterable[asyncio.Future[Assignment] | asyncio.Future[None]]) -> None:
        """The work itself was cancelled: nobody is left waiting for ever."""
        waiting = [*futures, *(each.done for each in self.waiting), *(each.done for each in self.leaving)]
        self.waiting.clear()
        self.leaving.clear()
        for future in waiting:
            future.cancel()
