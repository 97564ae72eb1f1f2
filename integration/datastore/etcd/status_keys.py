"""Bare keys in etcd. Each put with a life time has a lease of its own, as Calico's have."""

from __future__ import annotations

import math
from contextlib import suppress

from integration.datastore.errors import DatastoreError
from integration.datastore.etcd.connection import Connection
from integration.datastore.etcd.messages import MESSAGES

PAGE = 2_000


class EtcdStatusKeys:
    """`StatusKeys` over the datastore's connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, path: str, text: str, *, ttl_s: float | None = None) -> None:
        lease = 0
        if ttl_s is not None:
            grant = MESSAGES["LeaseGrantRequest"](TTL=max(1, math.ceil(ttl_s)))
            lease = (await self._connection.call("Lease/LeaseGrant", grant, may_repeat=True)).ID
        request = MESSAGES["PutRequest"](key=path.encode(), value=text.encode(), lease=lease)
        try:
            await self._connection.call("KV/Put", request, may_repeat=True)
        except DatastoreError:
            with suppress(DatastoreError):  # it ends by itself
                if lease:
                    revoke = MESSAGES["LeaseRevokeRequest"](ID=lease)
                    await self._connection.call("Lease/LeaseRevoke", revoke, may_repeat=False)
            raise

    async def delete(self, path: str) -> None:
        await self._connection.call(
            "KV/DeleteRange", MESSAGES["DeleteRangeRequest"](key=path.encode()), may_repeat=True
        )

    async def list(self, prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        start = prefix.encode()
        end = start[:-1] + bytes((start[-1] + 1,))
        while True:
            request = MESSAGES["RangeRequest"](key=start, range_end=end, limit=PAGE)
            answer = await self._connection.call("KV/Range", request, may_repeat=True)
            for stored in answer.kvs:
                with suppress(UnicodeDecodeError):
                    found[stored.key.decode()] = stored.value.decode()
            if not answer.more:
                return found
            start = answer.kvs[-1].key + b"\0"
