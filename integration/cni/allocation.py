"""Calico's IPAM for the plugins: what they ask, in IPAM's terms, and what it refuses, in CNI's."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from integration.cni.errors import GENERIC, TRY_AGAIN_LATER, CNIError
from integration.cni.identity import Identity
from integration.cni.pods import Wishes
from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError
from integration.ipam.queue import AddressQueue
from integration.ipam.store import DatastoreBlocks
from ipam.allocator import Allocator
from ipam.assigning import Request
from ipam.errors import IpamError, NotAssigned


class IpamAllocator:
    """An integration.cni.addresses.Allocator."""

    def __init__(self, datastore: Datastore) -> None:
        self._store = DatastoreBlocks(datastore)
        self._ipam = Allocator.over(self._store, time.time_ns)
        self._queue = AddressQueue(self._ipam)

    async def assign(self, identity: Identity, wishes: Wishes) -> tuple[str, ...]:
        async with _in_cni_terms():
            try:
                return await self._assign(identity, wishes)
            except BaseException:
                # Half of what was wished is nothing.
                await self._release(identity.handle)
                raise

    async def _assign(self, identity: Identity, wishes: Wishes) -> tuple[str, ...]:
        attributes = identity.attributes | {"timestamp": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime())}
        if wishes.addresses:
            found = [
                await self._ipam.assign_address(
                    ipaddress.ip_address(one), identity.node, identity.handle, attributes, "Workload"
                )
                for one in wishes.addresses
            ]
            return tuple(f"{one.ip}/{one.ip.max_prefixlen}" for one in found)
        requests = [
            Request(
                identity.node, version, 1, identity.handle, attributes, pools=await self._cidrs(wishes, version),
                namespace_labels=tuple(sorted(wishes.namespace_labels.items())),
            )
            for version in wishes.families
        ]  # fmt: skip
        assignments = await asyncio.gather(*(self._queue.assign(request) for request in requests))
        return tuple(str(address) for assignment in assignments for address in assignment.whole())

    async def _cidrs(self, wishes: Wishes, version: int) -> tuple[str, ...]:
        """Pools by name or CIDR, as CIDRs."""
        named = wishes.pools(version)
        if not any("/" not in one for one in named):
            return named
        by_name = {pool.metadata.name: pool.spec.cidr for pool in (await self._store.pools()).found}
        return tuple(by_name.get(one, one) for one in named)

    async def release(self, handle: str) -> bool:
        async with _in_cni_terms():
            return await self._release(handle)

    async def _release(self, handle: str) -> bool:
        try:
            await self._queue.release_handle(handle)
        except NotAssigned:
            return False
        return True

    async def addresses_of(self, handle: str) -> frozenset[str]:
        async with _in_cni_terms():
            try:
                return frozenset(map(str, await self._ipam.handle_addresses(handle)))
            except NotAssigned:
                return frozenset()

    async def handles_of(self, node: str, prefix: str) -> frozenset[str]:
        async with _in_cni_terms():
            listed = await self._store.list("IPAMBlock")
            return frozenset(
                handle
                for stored in listed.found
                for attribute in stored.value.get("attributes") or []
                if (handle := attribute.get("handle_id") or "").startswith(prefix)
                and (attribute.get("secondary") or {}).get("node") == node
            )


@asynccontextmanager
async def _in_cni_terms() -> AsyncIterator[None]:
    try:
        yield
    except IpamError as error:
        raise CNIError(GENERIC, f"IPAM: {error}") from error
    except DatastoreError as error:
        raise CNIError(TRY_AGAIN_LATER, f"the datastore: {error}") from error
