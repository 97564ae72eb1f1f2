"""delete: a resource, and first what IPAM keeps because of it. Calico: the Delete of IPPools and Nodes in its client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from integration.datastore.api import Entry
from integration.datastore.client import TRIES, ResourceClient
from integration.datastore.cluster_rules import check_delete, network_of
from integration.datastore.errors import DatastoreError, DoesNotExist, Unreadable, Unsupported, UpdateConflict
from integration.ipam.store import open_allocator
from integration.resources.fields import Address, parse_address
from integration.resources.keys import Key
from ipam.allocator import Allocator
from ipam.block import handle_of
from ipam.errors import IpamError, NotAssigned
from ipam.ports import StoreConflict
from ipam.releasing import Release
from ipam.tunnels import TUNNELS

KUBERNETES = "integration.datastore.kubernetes"  # by its name: importing the driver to ask costs megabytes
DISABLED_S = 0.5  # Calico: until nodes that have read the pool as enabled are done with it


async def delete(client: ResourceClient, key: Key, revision: str = "") -> None:
    """`revision`, if any, must be the present one. Raises DatastoreError; then the resource is still there."""
    await check_delete(client.datastore, key)
    if key.kind == "Node" and type(client.datastore).__module__.startswith(KUBERNETES):
        raise Unsupported(
            f"{key} is deleted by Kubernetes", "kubectl delete node does it"
        )  # before anything is released
    if key.kind == "IPPool":
        revision = await empty_pool(client, key, revision)
    elif key.kind == "Node":
        await forget_node(client, key, revision)
    await client.remove(key, revision=revision)


async def empty_pool(client: ResourceClient, key: Key, revision: str) -> str:
    """Nobody allocates from it any more, and its blocks are nobody's; addresses in use stay with who has them.

    Returns the revision that the pool must have to be deleted, "" if any will do.
    """
    try:
        entry = await disabled(client, key, revision)
    except Unreadable:
        return revision  # where it lies, nobody can say: there is no more to do than to be rid of it
    network = network_of(entry.value)
    if network is not None:
        try:
            await open_allocator(client.datastore).release_pool(network)
        except (IpamError, StoreConflict) as error:
            raise DatastoreError(
                f"{key} is disabled now, but not all of its blocks could be released: {error}", "delete it again"
            ) from None
    return entry.revision if revision else ""


async def disabled(client: ResourceClient, key: Key, revision: str) -> Entry:
    for tries_left in reversed(range(TRIES)):
        entry = await client.datastore.get(key)
        if revision and entry.revision != revision:
            raise UpdateConflict(key, entry)
        spec = entry.value.get("spec")
        if not isinstance(spec, dict) or spec.get("disabled") is True:
            return entry
        try:
            value = {**entry.value, "spec": {**spec, "disabled": True}}
            entry = await client.datastore.update(key, value, revision=entry.revision)
        except UpdateConflict:
            if revision or not tries_left:
                raise
            continue
        await asyncio.sleep(DISABLED_S)
        return entry
    raise AssertionError("unreachable")


async def forget_node(client: ResourceClient, key: Key, revision: str) -> None:
    """Its workloads' addresses and endpoints, its tunnels' addresses, its blocks and its mark in IPAM.

    Each step may be done again: who was stopped in between deletes the Node once more.
    """
    try:
        entry = await client.datastore.get(key)
        if revision and entry.revision != revision:
            raise UpdateConflict(key, entry)
    except Unreadable:
        pass
    node, allocator = key.name, open_allocator(client.datastore)
    try:
        await remove_workloads(client, allocator, node)
        failed = await allocator.release_handles([tunnel.prefix + node for tunnel in TUNNELS.values()])
        for error in failed.values():
            if not isinstance(error, NotAssigned):
                raise error
        await allocator.remove_host(node)
    except (IpamError, StoreConflict) as error:
        raise DatastoreError(
            f"{key} stays, for not all of its addresses could be released: {error}",
            "delete it again; `catbird ipam check` shows what is wrong",
        ) from None


async def remove_workloads(client: ResourceClient, allocator: Allocator, node: str) -> None:
    listing = await client.datastore.list("WorkloadEndpoint")
    for entry in listing.entries:
        spec = entry.value.get("spec")
        if not isinstance(spec, dict) or spec.get("node") != node:
            continue
        for address in addresses_of(spec.get("ipNetworks")):
            await release_of_node(allocator, address, node)
        try:
            await client.datastore.delete(entry.key, revision=entry.revision)
        except DoesNotExist:
            pass


def addresses_of(networks: object) -> Iterator[Address]:
    """What is no address is passed over: it was never assigned."""
    for text in networks if isinstance(networks, list) else []:
        try:
            yield parse_address(str(text).partition("/")[0])
        except ValueError:
            pass


async def release_of_node(allocator: Allocator, address: Address, node: str) -> None:
    """Not if it is another node's by now (Calico releases it all the same)."""
    try:
        attribute = await allocator.attribute(address)
    except NotAssigned:
        return
    holder = (attribute.get("secondary") or {}).get("node")
    if holder in (None, "", node):
        (await allocator.release([Release(address, handle_of(attribute))])).whole()
