"""Our WireGuard public keys into our Node's status: the other nodes take them from there."""

from __future__ import annotations

import asyncio
import copy

from felix.desired import IPVersion
from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError, DoesNotExist
from integration.logs import EventLog
from integration.resources.keys import Key

FIELDS: dict[IPVersion, str] = {4: "wireguardPublicKey", 6: "wireguardPublicKeyV6"}
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0


class KeyPublisher:
    """`publish` notes what is so now, `run()` writes it until cancelled. "" takes a key away."""

    def __init__(self, datastore: Datastore, node: str, log: EventLog) -> None:
        self._datastore, self._key, self._log = datastore, Key("Node", node), log
        self._wanted: dict[IPVersion, str] = {}
        self._is_wanted = asyncio.Event()

    def publish(self, version: IPVersion, public_key: str) -> None:
        self._wanted[version] = public_key
        self._is_wanted.set()

    async def run(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            try:
                await self._write()
                retry_s = FIRST_RETRY_S
            except DatastoreError as error:
                if not isinstance(error, DoesNotExist):
                    self._log.event("wireguard_key_not_published", level="warning", error=str(error), retry_s=retry_s)
                self._is_wanted.set()
                await asyncio.sleep(retry_s)
                retry_s = min(LONGEST_RETRY_S, 2 * retry_s)

    async def _write(self) -> None:
        """Raises DatastoreError; a Node that somebody else has just changed is a conflict, and is read again."""
        entry = await self._datastore.get(self._key)
        value = copy.deepcopy(entry.value)
        status = value.setdefault("status", {})
        for version, public_key in self._wanted.items():
            if public_key:
                status[FIELDS[version]] = public_key
            else:
                status.pop(FIELDS[version], None)
        if value != entry.value and (status or entry.value.get("status")):
            await self._datastore.update(self._key, value, revision=entry.revision)
            self._log.event(
                "wireguard_key_published", keys={str(version): key for version, key in self._wanted.items()}
            )
