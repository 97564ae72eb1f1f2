"""Many requests in one process: they are served together, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from integration.datastore.local.driver import LocalDatastore
from integration.ipam.queue import AddressQueue
from integration.ipam.store import open_allocator
from ipam.assigning import Request
from ipam.errors import NoNode, NotAssigned
from tests.integration.ipam.opened import copied, prepare
from tests.ipam.scenes import check, held


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[LocalDatastore, AddressQueue]]:
    datastore = LocalDatastore(path / "store.db")
    try:
        await prepare(datastore)
        queue = AddressQueue(open_allocator(datastore))
        yield datastore, queue
        await queue.close()
    finally:
        await datastore.close()


def test_a_hundred_at_once_get_addresses_and_give_them_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as (datastore, queue):
            names = [f"h{number}" for number in range(100)]
            results = await asyncio.gather(*(queue.assign(Request("a", handle=name)) for name in names))
            assert len({str(each) for result in results for each in result.whole()}) == 100
            block = (await datastore.list("IPAMBlock")).entries[0]
            written = block.value["sequenceNumber"] - min(block.value["sequenceNumberForAllocation"].values())
            assert written <= 3, "the block was written for each address"
            check(await copied(datastore))
            await asyncio.gather(*(queue.release_handle(name) for name in names))
            memory = await copied(datastore)
            assert held(memory) == {}
            check(memory)

    asyncio.run(work())


def test_who_is_cancelled_keeps_no_address(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as (datastore, queue):
            tasks = [asyncio.create_task(queue.assign(Request("a", handle=f"h{number}"))) for number in range(10)]
            await asyncio.sleep(0)  # all are in the queue, and the work has begun
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await queue.close()
            memory = await copied(datastore)
            assert sorted(str(name) for name in held(memory).values()) == ["h1", "h3", "h5", "h7", "h9"]
            check(memory)

    asyncio.run(work())


def test_errors_reach_whom_they_concern(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as (_, queue):
            good, bad = await asyncio.gather(queue.assign(Request("a", handle="h")), queue.assign(Request("nobody")))
            assert len(good.whole()) == 1
            with pytest.raises(NoNode):
                bad.whole()
            results = await asyncio.gather(
                *(queue.release_handle(name) for name in ("h", "h", "x")), return_exceptions=True
            )
            assert [type(result) for result in results] == [type(None), NotAssigned, NotAssigned]

    asyncio.run(work())


def test_a_store_that_closes_ends_the_waiting(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as (datastore, queue):
            await datastore.close()
            result = await queue.assign(Request("a"))
            assert "closed" in str(result.error)
            with pytest.raises(Exception, match="closed"):
                await queue.release_handle("h")

    asyncio.run(work())
