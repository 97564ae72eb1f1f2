"""IPAM's BlockStore over any datastore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from integration.datastore.api import Datastore, Entry
from integration.datastore.errors import AlreadyExists, DoesNotExist, Unreadable, UpdateConflict
from integration.resources.base import Resource, ResourceError
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool, IPReservation
from ipam.ports import Changed, Exists, Listed, Missing, Pools, Stored, Value

Result = TypeVar("Result")
Model = TypeVar("Model", bound=Resource)


class DatastoreStore:
    """Raises what `ipam.ports` says, and DatastoreError for the rest."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    async def get(self, key: Key) -> Stored:
        async with _translated():
            return _stored(await self._datastore.get(key))

    async def list(self, kind: str, holder: str = "") -> Listed:
        async with _translated():
            listing = await self._datastore.list(kind, namespace=holder or None)
        return Listed(
            [_stored(entry) for entry in listing.entries], [(error.key, error.reason) for error in listing.unreadable]
        )

    async def create(self, key: Key, value: Value) -> Stored:
        async with _translated():
            return _stored(await self._datastore.create(key, value))

    async def update(self, key: Key, value: Value, revision: str) -> Stored:
        async with _translated():
            return _stored(await self._datastore.update(key, value, revision=revision))

    async def delete(self, key: Key, revision: str) -> None:
        async with _translated():
            await self._datastore.delete(key, revision=revision)

    async def pools(self) -> Pools:
        found, unreadable = await self._read("IPPool", IPPool.from_json)
        return Pools(found, unreadable)

    async def reservations(self) -> Sequence[IPReservation]:
        return (await self._read("IPReservation", IPReservation.from_json))[0]

    async def _read(
        self, kind: str, read: Callable[[Mapping[str, Any]], Model]
    ) -> tuple[Sequence[Model], Sequence[tuple[str, str]]]:
        listing = await self._datastore.list(kind)
        found, unreadable = [], [(error.key.name, error.reason) for error in listing.unreadable]
        for entry in listing.entries:
            try:
                found.append(read(entry.value))
            except ResourceError as error:
                unreadable.append((entry.key.name, str(error)))
        return found, unreadable

    async def node_labels(self, node: str) -> Mapping[str, str] | None:
        try:
            entry = await self._datastore.get(Key("Node", node))
        except DoesNotExist:
            return None
        return (entry.value.get("metadata") or {}).get("labels") or {}

    async def together(self, jobs: Sequence[Coroutine[Any, Any, Result]]) -> Sequence[Result | Exception]:
        results = await asyncio.gather(*jobs, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
        return results  # type: ignore[return-value]


def _stored(entry: Entry) -> Stored:
    return Stored(entry.key, entry.value, entry.revision)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except DoesNotExist as error:
        raise Missing(str(error)) from None
    except AlreadyExists as error:
        raise Exists(str(error)) from None
    except UpdateConflict as error:
        raise Changed(str(error)) from None
    except Unreadable as error:
        raise Missing(str(error)) from None
