"""Datastores to allocate from, and what lies in them as a store in memory, where it can be checked."""

from __future__ import annotations

import json
from collections.abc import Sequence

from integration.datastore.api import Datastore
from integration.datastore.client import ResourceClient
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool
from tests.ipam.store import MemoryStore

KINDS = ("IPAMBlock", "BlockAffinity", "IPAMHandle")


async def prepare(datastore: Datastore, nodes: Sequence[str] = ("a", "b"), **pools: str) -> None:
    """Nodes, and pools `name=cidr`."""
    for name, cidr in (pools or {"pool": "10.0.0.0/24"}).items():
        spec = {"cidr": cidr, "blockSize": 28 if ":" not in cidr else 124}
        await ResourceClient(datastore).create(IPPool.from_json({"metadata": {"name": name}, "spec": spec}))
    for node in nodes:
        value = {"kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": node}, "spec": {}}
        await datastore.create(Key("Node", node), value)


async def copied(datastore: Datastore) -> MemoryStore:
    memory = MemoryStore()
    for kind in KINDS:
        for entry in (await datastore.list(kind)).entries:
            memory.revision += 1
            memory.objects[entry.key] = (json.dumps(entry.value), memory.revision)
    return memory
