"""Giving addresses back. Calico: ReleaseIPs and ReleaseByHandle (libcalico-go/lib/ipam/ipam.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from integration.resources.fields import Address
from ipam.block import block_cidr, handle_of
from ipam.blocks import Held
from ipam.errors import (
    BadHandle,
    BadSequence,
    BrokenBlock,
    ClaimConflict,
    NotAssigned,
    NotEmpty,
    NotHeld,
    TooManyConflicts,
)
from ipam.handles import counts_of, handle_key
from ipam.pools import pool_of, read_pools
from ipam.ports import Changed, Missing, Stored
from ipam.retrying import TRIES, until_unchallenged
from ipam.scene import Access, Tools, open_tools
from ipam.search import networks_in


@dataclass(frozen=True, slots=True)
class Release:
    """An address to give back; with a handle or a sequence number only if they are still what was seen."""

    address: Address
    handle: str | None = None
    sequence_number: int | None = None


@dataclass(slots=True)
class Released:
    """`unallocated`: nobody held them, or they were cooling down already. `failed`: why the others stay assigned."""

    released: list[Address] = field(default_factory=list)
    unallocated: list[Address] = field(default_factory=list)
    failed: dict[Address, Exception] = field(default_factory=dict)

    def whole(self) -> list[Address]:
        """The unallocated ones. Raises the first failure, whatever was released."""
        for error in self.failed.values():
            raise error
        return self.unallocated


async def release_addresses(access: Access, releases: Iterable[Release]) -> Released:
    """Block by block: within a block all or none (Calico), and one block's trouble stops no other."""
    tools, store = await open_tools(access), access.store
    wanted = list({release.address: release for release in releases}.values())
    by_block = await blocks_of(tools, wanted)
    outcome = Released()
    known = {release.address for each in by_block.values() for release in each}
    outcome.unallocated += [release.address for release in wanted if release.address not in known]
    jobs = [release_in_block(tools, cidr, each) for cidr, each in by_block.items()]
    for result, each in zip(await store.together(jobs), by_block.values(), strict=True):
        if isinstance(result, Exception):
            outcome.failed |= {release.address: result for release in each}
        else:
            outcome.released += result.released
            outcome.unallocated += result.unallocated
    return outcome


async def blocks_of(tools: Tools, releases: Sequence[Release]) -> dict[str, list[Release]]:
    """Block CIDR → what is in it; addresses in no block are left out."""
    pools = read_pools((await tools.store.pools()).found)
    found: dict[str, list[Release]] = {}
    unplaced: list[Release] = []
    for release in releases:
        pool = pool_of(pools, release.address)
        if pool is None:
            unplaced.append(release)
        else:
            found.setdefault(str(block_cidr(release.address, pool.block_size)), []).append(release)
    if unplaced:
        networks = [network for network, _ in networks_in(await tools.store.list("IPAMBlock"))]
        for release in unplaced:
            at = next((each for each in networks if release.address in each), None)
            if at is not None:
                found.setdefault(str(at), []).append(release)
    return found


async def release_in_block(tools: Tools, cidr: str, releases: Sequence[Release]) -> Released:
    """Raises BadHandle, BadSequence, BrokenBlock, TooManyConflicts."""

    async def attempt() -> Released:
        try:
            held = await tools.blocks.get(cidr)
        except Missing:
            return Released(unallocated=[release.address for release in releases])
        outcome = Released()
        ordinals = []
        for release in releases:
            ordinal = held.block.ordinal(release.address)
            if held.block.attribute(ordinal) is None or held.block.is_cooling(ordinal):
                outcome.unallocated.append(release.address)
                continue
            refuse_other(held, ordinal, release)
            ordinals.append(ordinal)
            outcome.released.append(release.address)
        if ordinals:
            given_back = held.block.release(ordinals, tools.clock())
            await store_released(tools, held)
            # The addresses are free: a handle that cannot be counted down says too much, and `check` sees it.
            await tools.store.together(
                [tools.handles.count_down(handle, cidr, count) for handle, count in given_back.items()]
            )
        return outcome

    return await until_unchallenged(f"block {cidr}", attempt)


def refuse_other(held: Held, ordinal: int, release: Release) -> None:
    """Raises BadSequence, BadHandle."""
    number = held.block.sequence_of(ordinal)
    if release.sequence_number not in (None, number):
        raise BadSequence(
            f"{release.address} was assigned anew since it was looked at ({release.sequence_number} ≠ {number})"
        )
    attribute = held.block.attribute(ordinal) or {}
    if release.handle is not None and (handle := handle_of(attribute)) != release.handle:
        raise BadHandle(f"{release.address} is held by handle {handle}, not by {release.handle}")


async def store_released(tools: Tools, held: Held) -> None:
    """Write the block, or remove it if it is nobody's and empty. Raises Changed."""
    held.block.collect(tools.clock(), tools.settings.cooldown_s)
    is_empty = held.block.is_empty()
    if is_empty and held.block.affinity is None:
        await tools.blocks.delete(held)
        return
    await tools.blocks.write(held)
    tools.blocks.memory.put(held)
    if is_empty:
        await release_if_lost(tools, held)


async def release_if_lost(tools: Tools, held: Held) -> None:
    """Give up an empty block whose pool no longer selects the node that holds it."""
    host = held.block.holder_host
    if host is None or held.block.affinity is None:
        return
    pool = pool_of(read_pools((await tools.store.pools()).found), held.block.cidr.network_address)
    labels = await tools.store.node_labels(host) if pool is not None else None
    if pool is None or labels is None or pool.selects_node(labels):
        return
    tools.blocks.memory.take(held.key)
    try:
        await tools.affinities.release(held.block.affinity, held.cidr, must_be_empty=True)
    except (NotHeld, NotEmpty, ClaimConflict, BrokenBlock, TooManyConflicts):
        pass


async def release_handles(access: Access, handles: Iterable[str]) -> dict[str, Exception]:
    """All addresses of these handles; what went wrong, by handle: NotAssigned if there is no such handle.

    Each block is written once for all of them, and each handle once. A handle is read, then its blocks are written, also
    those that have none of its addresses, then it is removed if it is still as it was read. So whoever was about to write
    one of the blocks for it fails and counts down again, and what a crash left counted is forgotten.
    """
    tools = await open_tools(access)
    names = list(dict.fromkeys(handles))
    found, failed = await read_handles(tools, names)
    failed |= {name: NotAssigned(f"nothing is known of handle {name}") for name in names if name not in found | failed}
    for _ in range(TRIES):
        if not found:
            return failed
        failed_now, again = await release_once(tools, found)
        failed |= failed_now
        found, unread = await read_handles(tools, again)
        failed |= unread
    return failed | {name: TooManyConflicts(f"handle {name}") for name in found}


async def read_handles(tools: Tools, names: Sequence[str]) -> tuple[dict[str, Stored], dict[str, Exception]]:
    """Those that are there, and those that cannot be read."""
    results = await tools.store.together([tools.store.get(handle_key(name)) for name in names])
    pairs = list(zip(names, results, strict=True))
    found = {name: result for name, result in pairs if isinstance(result, Stored)}
    errors = {
        name: result for name, result in pairs if isinstance(result, Exception) and not isinstance(result, Missing)
    }
    return found, errors


async def release_once(tools: Tools, handles: Mapping[str, Stored]) -> tuple[dict[str, Exception], list[str]]:
    """What went wrong by handle, and the handles that somebody else wrote meanwhile: those have to be looked at again."""
    by_block: dict[str, list[str]] = {}
    for name, stored in handles.items():
        for cidr in counts_of(stored.value):
            by_block.setdefault(cidr, []).append(name)
    jobs = [release_handles_in_block(tools, cidr, names) for cidr, names in by_block.items()]
    failed: dict[str, Exception] = {}
    done: dict[str, list[str]] = {name: [] for name in handles}
    for (cidr, names), result in zip(by_block.items(), await tools.store.together(jobs), strict=True):
        for name in names:
            if isinstance(result, Exception):
                failed[name] = result
            else:
                done[name].append(cidr)
    settled = await tools.store.together([settle(tools, handles[name], cidrs) for name, cidrs in done.items()])
    again = []
    for name, outcome in zip(done, settled, strict=True):
        if isinstance(outcome, Exception):
            failed[name] = outcome
        elif not outcome and name not in failed:
            again.append(name)
    return failed, again


async def settle(tools: Tools, handle: Stored, blocks: Iterable[str]) -> bool:
    """Take the blocks out of the handle. False: somebody else has written it, and it counts them still."""
    try:
        await tools.handles.forget(handle, blocks)
    except Missing:
        pass
    except Changed:
        return False
    return True


async def release_handles_in_block(tools: Tools, cidr: str, names: Sequence[str]) -> None:
    """The block is written in any case, unless it is gone."""

    async def attempt() -> None:
        try:
            held = tools.blocks.remembered(cidr) or await tools.blocks.get(cidr)
        except Missing:
            return
        ordinals = [ordinal for name in names for ordinal in held.block.ordinals_of(name)]
        held.block.release(ordinals, tools.clock(), by_handle=True)
        await store_released(tools, held)

    await until_unchallenged(f"block {cidr}", attempt)


async def handle_addresses(access: Access, handle: str) -> list[Address]:
    """Raises NotAssigned if there is no such handle, BrokenBlock."""
    tools, store = await open_tools(access), access.store
    try:
        stored = await store.get(handle_key(handle))
    except Missing:
        raise NotAssigned(f"nothing is known of handle {handle}") from None
    found: list[Address] = []
    for cidr in sorted(counts_of(stored.value)):
        try:
            held = await tools.blocks.get(cidr)
        except Missing:
            continue
        found += [held.block.address(ordinal) for ordinal in held.block.ordinals_of(handle)]
    return found
