"""One pool made into several with the same addresses: `catbird ipam split`.

Blocks and their addresses stay as they are: each lies in one of the new pools.
"""

from __future__ import annotations

import copy
import uuid
from ipaddress import ip_network

from integration.datastore.api import MAX_STEPS, Datastore, Entry, Step, Value
from integration.datastore.client import now_text, read
from integration.datastore.errors import Unreadable, Unsupported
from integration.resources.fields import Network, parse_network
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool
from integration.resources.validation.pools import block_size_of

MAX_PARTS = 4_096
LONGEST_NAME = 253


class SplitError(Exception):
    """Why the pool cannot be split so; the text says what to do."""


async def split(datastore: Datastore, parts: int, *, name: str = "", cidr: str = "") -> list[str]:
    """The names of the new pools. The datastore must be locked. Raises SplitError, DatastoreError.

    In one transaction where the datastore has them. Otherwise the old pool is disabled first and removed last, so that
    whatever ends this in the middle leaves no address without a pool.
    """
    old = await find_pool(datastore, name, cidr)
    pool = read(IPPool, old)
    networks = parts_of(parse_network(pool.spec.cidr), block_size_of(pool.spec), parts)
    steps = [
        Step(
            Key("IPPool", part_name(old.key.name, number)),
            part(old.value, part_name(old.key.name, number), network),
            "",
        )
        for number, network in enumerate(networks)
    ]
    if len(steps) < MAX_STEPS:
        try:
            await datastore.transact([*steps, Step(old.key, None, old.revision)])
            return [step.key.name for step in steps]
        except Unsupported:
            pass
    disabled: Value = copy.deepcopy(old.value)
    disabled["spec"]["disabled"] = True
    held = await datastore.update(old.key, disabled, revision=old.revision)
    for step in steps:
        assert step.value is not None
        await datastore.create(step.key, step.value)
    await datastore.delete(old.key, revision=held.revision)
    return [step.key.name for step in steps]


async def find_pool(datastore: Datastore, name: str, cidr: str) -> Entry:
    if name:
        return await datastore.get(Key("IPPool", name))
    wanted = parse_network(cidr)
    for entry in (await datastore.list("IPPool")).entries:
        try:
            if parse_network(read(IPPool, entry).spec.cidr) == wanted:
                return entry
        except (Unreadable, ValueError):
            continue
    raise SplitError(f"no pool has the CIDR {cidr}")


def parts_of(network: Network, block_size: int, parts: int) -> list[Network]:
    """Raises SplitError."""
    if parts < 2 or parts & (parts - 1) or parts > MAX_PARTS:
        raise SplitError(f"a pool is split into a power of two of pools, 2 to {MAX_PARTS}, not {parts}")
    prefix = network.prefixlen + parts.bit_length() - 1
    if prefix > block_size:
        most = 1 << max(0, block_size - network.prefixlen)
        raise SplitError(f"{network} has {most} blocks of /{block_size} and cannot be split into {parts} pools")
    return [ip_network(str(one)) for one in network.subnets(new_prefix=prefix)]


def part_name(name: str, number: int) -> str:
    made = f"split-{name}-{number}"
    return made if len(made) <= LONGEST_NAME else f"split-{name[: 245 - len('split-')]}-{number}"


def part(value: Value, name: str, network: Network) -> Value:
    made = copy.deepcopy(value)
    metadata = {key: each for key, each in made["metadata"].items() if key in ("labels", "annotations")}
    made["metadata"] = {**metadata, "name": name, "uid": str(uuid.uuid4()), "creationTimestamp": now_text()}
    made.pop("status", None)
    made["spec"]["cidr"] = str(network)
    return made
