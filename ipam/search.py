"""Finding a block with free addresses for a host: its own, else a new one, else one that lies empty at another host."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from integration.resources.fields import Network
from integration.resources.keys import cidr_of
from ipam.block import affinity_of, read_block
from ipam.blocks import Held
from ipam.errors import (
    BadSequence,
    BlockLimit,
    BrokenBlock,
    ClaimConflict,
    NoFreeBlock,
    NotEmpty,
    NotHeld,
    StaleAffinity,
    TooManyConflicts,
)
from ipam.moments import SECOND_NS, ns_of
from ipam.pools import Pool
from ipam.ports import Changed, Listed, Missing
from ipam.retrying import TRIES, until_unchallenged
from ipam.scene import Scene, Tools, network_or_none

EMPTY_FOR_S = 60  # how long a block must have been claimed before another host may take it empty (Calico)
LOST = (NotEmpty, NotHeld, BadSequence, ClaimConflict, BrokenBlock, TooManyConflicts)


def fnv1_32(text: str) -> int:
    """Fowler, Noll and Vo's first hash, of 32 bits."""
    value = 0x811C9DC5
    for octet in text.encode():
        value = (value * 0x01000193 & 0xFFFFFFFF) ^ octet
    return value


def walk(pool: Pool, host: str, now_ns: int) -> Iterator[int]:
    """The numbers of all blocks from a place that depends on the host, so that hosts rarely want the same one.

    With blocks of one address each start is another: there is nothing to keep together.
    """
    seed = now_ns if pool.block_size == pool.cidr.max_prefixlen else fnv1_32(host)
    start = random.Random(seed).randrange(pool.block_count)
    yield from range(start, pool.block_count)
    yield from range(start)


async def find_or_claim(scene: Scene, min_free: int = 1) -> Held:
    """A confirmed block of the host's with at least `min_free` addresses to assign; each is returned once a scene.

    Raises BlockLimit, NoFreeBlock, TooManyConflicts.
    """
    for cidr in list(scene.affine):
        held = remembered(scene, cidr)
        if held is not None and held.block.free_count(scene.reserved) >= max(1, min_free):
            scene.affine.remove(cidr)
            scene.looked_at.add(cidr)
            return held
    while scene.affine:
        cidr = scene.affine.pop(0)
        scene.looked_at.add(cidr)
        held = await own_block(scene, cidr)
        if held is not None and held.block.free_count(scene.reserved) >= min_free:
            return held
    if scene.owned >= scene.block_limit:
        raise BlockLimit(f"{scene.host} holds {scene.owned} blocks and may hold {scene.block_limit}")
    if not scene.tools.settings.auto_allocate_blocks:
        raise NoFreeBlock("no block has free addresses, and hosts may not claim new ones (autoAllocateBlocks)")
    return await claim_new(scene, min_free)


def remembered(scene: Scene, cidr: str) -> Held | None:
    """A block as this process wrote it last, if the host still holds it for all that is known."""
    if cidr not in scene.confirmed:
        return None
    held = scene.tools.blocks.remembered(cidr)
    return held if held is not None and held.block.affinity == scene.holder else None


async def own_block(scene: Scene, cidr: str) -> Held | None:
    """None: it has gone, it cannot be used, or it is another's."""
    affinities = scene.tools.affinities

    async def attempt() -> Held | None:
        try:
            affinity = await affinities.get(scene.holder, cidr)
        except Missing:
            return None
        return await affinities.block_of(affinity, scene.reservation)

    try:
        return await until_unchallenged(f"block {cidr}", attempt)
    except (StaleAffinity, ClaimConflict):
        scene.owned -= 1
    except (BrokenBlock, TooManyConflicts):
        pass
    return None


async def claim_new(scene: Scene, min_free: int) -> Held:
    for _ in range(TRIES):
        cidr = await find_usable(scene)
        try:
            held = await claim(scene.tools, scene.holder, cidr, scene)
        except (StaleAffinity, ClaimConflict):
            continue  # another host was faster: look for one more
        scene.looked_at.add(cidr)
        scene.owned += 1
        if held.block.free_count(scene.reserved) >= min_free:
            return held
    raise TooManyConflicts("failed to find or claim a block")


async def claim(tools: Tools, holder: str, cidr: str, scene: Scene | None = None) -> Held:
    """Raises StaleAffinity, ClaimConflict, TooManyConflicts."""
    affinities, reservation = tools.affinities, scene.reservation if scene else None

    async def attempt() -> Held:
        try:
            return await affinities.block_of(await affinities.pending(holder, cidr), reservation)
        except BrokenBlock as error:
            raise ClaimConflict(str(error)) from None

    return await until_unchallenged(f"block {cidr}", attempt)


@dataclass(frozen=True, slots=True)
class Present:
    """What lies in a pool: its blocks by number, and the ranges of numbers that blocks of other sizes overlap."""

    blocks: Mapping[int, Mapping[str, Any]]
    others: list[tuple[int, int]]

    def is_barred(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.others)


def present_in(pool: Pool, found: Iterable[tuple[Network, Mapping[str, Any] | None]]) -> Present:
    """A value of None is a block that cannot be read: it counts as one of another size."""
    base, shift = int(pool.cidr.network_address), pool.cidr.max_prefixlen - pool.block_size
    blocks: dict[int, Mapping[str, Any]] = {}
    others: list[tuple[int, int]] = []
    for network, value in found:
        if network.version != pool.version or not network.overlaps(pool.cidr):
            continue
        first = (int(network.network_address) - base) >> shift
        if network.prefixlen == pool.block_size and value is not None:
            blocks[first] = value
        else:
            others.append((first, (int(network.broadcast_address) - base) >> shift))
    return Present(blocks, others)


def networks_in(listed: Listed) -> list[tuple[Network, Mapping[str, Any] | None]]:
    pairs: list[tuple[str, Mapping[str, Any] | None]] = [(cidr_of(one.key), one.value) for one in listed.found]
    pairs += [(cidr_of(key), None) for key, _ in listed.unreadable]
    return [(network, value) for cidr, value in pairs if (network := network_or_none(cidr)) is not None]


async def find_usable(scene: Scene) -> str:
    """The CIDR of a block to claim. Raises NoFreeBlock."""
    found = networks_in(await scene.tools.store.list("IPAMBlock"))
    now = scene.tools.clock()
    idle: list[tuple[str, Mapping[str, Any]]] = []
    for pool in scene.pools:
        present = present_in(pool, found)
        for number in walk(pool, scene.host, now):
            value = present.blocks.get(number)
            if value is None:
                if not present.is_barred(number) and is_usable(scene, pool.block(number)):
                    return str(pool.block(number))
            elif value.get("unallocated"):
                network = pool.block(number)
                if affinity_of(value) == scene.holder:
                    if is_usable(scene, network):
                        return str(network)  # claimed, but the affinity was lost
                elif is_idle(value, str(network), now) and is_usable(scene, network):
                    idle.append((str(network), value))
    for cidr, value in idle:
        if await taken_over(scene.tools, cidr, value):
            return cidr
    raise NoFreeBlock("every block of the pools is held by another host, or full")


def is_usable(scene: Scene, network: Network) -> bool:
    return not scene.reserved.covers(network) and str(network) not in scene.looked_at


def is_idle(value: Mapping[str, Any], cidr: str, now_ns: int) -> bool:
    """Held, empty, and for long enough that its host is not just about to use it."""
    claimed_at = value.get("affinity_claim_time")
    try:
        if claimed_at and now_ns - ns_of(claimed_at) < EMPTY_FOR_S * SECOND_NS:
            return False
        return read_block(value, cidr).is_empty()
    except (BrokenBlock, ValueError, TypeError):
        return False


async def taken_over(tools: Tools, cidr: str, value: Mapping[str, Any]) -> bool:
    """Whether whoever held the empty block that was seen has lost it."""
    holder, number = affinity_of(value), value.get("sequenceNumber")
    sequence_number = number if type(number) is int else None
    if holder is not None:
        try:
            await tools.affinities.release(holder, cidr, must_be_empty=True, sequence_number=sequence_number)
            return True
        except NotHeld:
            pass  # nobody knows that he holds it: what crashed between two writes left it so
        except LOST:
            return False
    try:
        held = await tools.blocks.get(cidr)
        if held.block.affinity != holder or held.block.sequence_number != sequence_number or not held.block.is_empty():
            return False
        await tools.blocks.delete(held)
    except (Missing, Changed, BrokenBlock):
        return False
    return True
