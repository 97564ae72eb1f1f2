"""`ipam.ports.BlockStore` over any datastore."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from integration.datastore.api import Datastore, Entry
from integration.datastore.client import read
from integration.datastore.errors import (
    AlreadyExists,
    DoesNotExist,
    Unreadable,
    Unsupported,
    UpdateConflict,
)
from integration.resources.keys import Key, cidr_of
from integration.resources.models.ipam import IPPool, IPReservation
from ipam.allocator import Allocator
from ipam.errors import BrokenBlock
from ipam.ports import Changed, Exists, Listed, Missing, Pools, Result, Stored, Value

AT_ONCE = 64  # requests under way; more only wait in the datastore's client


def open_allocator(datastore: Datastore) -> Allocator:
    return Allocator.over(DatastoreBlocks(datastore), time.time_ns)


class DatastoreBlocks:
    """Raises StoreConflict's kinds, BrokenBlock for a block that is no JSON, else DatastoreError as it is.

    An affinity that is no JSON counts as pending: nobody can mean anything by it, and it is written over.
    """

    def __init__(self, datastore: Datastore) -> None:
        self.datastore = datastore

    async def get(self, key: Key) -> Stored:
        async with translated():
            try:
                return stored(await self.datastore.get(key))
            except Unsupported:  # Kubernetes keeps no IPAMHost
                raise Missing from None
            except Unreadable as error:
                if key.kind == "IPAMBlock":
                    raise BrokenBlock(cidr_of(key), error.why) from None
                if key.kind == "BlockAffinity":
                    return Stored(key, {"state": "pending"}, error.revision)
                raise

    async def list(self, kind: str, holder: str = "") -> Listed:
        listing = await self.datastore.list(kind, namespace=holder or None)
        return Listed(
            [stored(entry) for entry in listing.entries], [(error.key, error.why) for error in listing.unreadable]
        )

    async def create(self, key: Key, value: Value) -> Stored:
        async with translated():
            return stored(await self.datastore.create(key, value))

    async def update(self, key: Key, value: Value, revision: str) -> Stored:
        async with translated():
            return stored(await self.datastore.update(key, value, revision=revision))

    async def delete(self, key: Key, revision: str) -> None:
        async with translated():
            await self.datastore.delete(key, revision=revision)

    async def pools(self) -> Pools:
        listing = await self.datastore.list("IPPool")
        found: builtins.list[IPPool] = []
        broken = [(error.key.name, error.why) for error in listing.unreadable]
        for entry in listing.entries:
            try:
                found.append(read(IPPool, entry))
            except Unreadable as error:
                broken.append((error.key.name, error.why))
        return Pools(found, broken)

    async def reservations(self) -> Sequence[IPReservation]:
        """Raises Unreadable: what is reserved must not be given out because somebody could not spell."""
        listing = await self.datastore.list("IPReservation")
        for error in listing.unreadable:
            raise error
        return [read(IPReservation, entry) for entry in listing.entries]

    async def node_labels(self, node: str) -> Mapping[str, str] | None:
        try:
            metadata = (await self.datastore.get(Key("Node", node))).value.get("metadata") or {}
        except DoesNotExist:
            return None
        labels = metadata.get("labels") or {}
        return {name: text for name, text in labels.items() if isinstance(text, str)}

    async def together(self, jobs: Sequence[Coroutine[Any, Any, Result]]) -> Sequence[Result | Exception]:
        results: builtins.list[Result | Exception] = []
        for start in range(0, len(jobs), AT_ONCE):
            for result in await asyncio.gather(*jobs[start : start + AT_ONCE], return_exceptions=True):
                if isinstance(result, BaseException) and not isinstance(result, Exception):
                    raise result
                results.append(result)
        return results


def stored(entry: Entry) -> Stored:
    return Stored(entry.key, entry.value, entry.revision)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    try:
        yield
    except DoesNotExist:
        raise Missing from None
    except AlreadyExists:
        raise Exists from None
    except UpdateConflict:
        raise Changed from None
