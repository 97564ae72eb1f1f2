"""How full pools and blocks are. Calico: GetUtilization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from integration.resources.fields import Network
from ipam.block import Block
from ipam.errors import BrokenBlock
from ipam.pools import Pool, pool_of, read_pools
from ipam.reserved import Reserved, reserved_by
from ipam.scene import Access, open_tools


@dataclass(frozen=True, slots=True)
class BlockUsage:
    """`in_use` counts what cools down, too; `reserved` the free addresses that are never assigned automatically."""

    cidr: str
    affinity: str | None
    capacity: int
    in_use: int
    reserved: int

    @property
    def free(self) -> int:
        return self.capacity - self.in_use - self.reserved


@dataclass(slots=True)
class PoolUsage:
    """Over the whole pool, blocks or not. The one with the empty name has the blocks that are in no pool."""

    name: str
    cidr: str
    capacity: int = 0
    in_use: int = 0
    reserved: int = 0
    blocks: list[BlockUsage] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.capacity - self.in_use - self.reserved


@dataclass(frozen=True, slots=True)
class Usage:
    """`broken` are blocks that cannot be read: in no number here."""

    pools: Sequence[PoolUsage]
    broken: Sequence[BrokenBlock]


async def usage(access: Access, names: Iterable[str] = ()) -> Usage:
    """Of all pools with their blocks, ordered by name, or of those named (by name or CIDR). Blocks in no pool come last."""
    tools, store = await open_tools(access), access.store
    pools = read_pools((await store.pools()).found)
    reserved = reserved_by(await store.reservations())
    blocks, broken = await tools.blocks.all()
    wanted = set(names)
    chosen = [pool for pool in pools if not wanted or {pool.name, str(pool.cidr)} & wanted]
    return Usage(usage_of(chosen, pools, [held.block for held in blocks], reserved, with_orphans=not wanted), broken)


def usage_of(
    chosen: Iterable[Pool], pools: Sequence[Pool], blocks: Iterable[Block], reserved: Reserved, *, with_orphans: bool
) -> list[PoolUsage]:
    by_pool: dict[str, list[Block]] = {}
    orphans: list[Block] = []
    for block in sorted(blocks, key=lambda block: (block.version, block.cidr)):
        pool = pool_of(pools, block.cidr.network_address)
        if pool is None:
            orphans.append(block)
        else:
            by_pool.setdefault(pool.name, []).append(block)
    found = [pool_usage(pool, by_pool.get(pool.name, []), reserved) for pool in chosen]
    if with_orphans and orphans:
        found.append(PoolUsage("", "", blocks=[block_usage(block, reserved) for block in orphans]))
    return found


def pool_usage(pool: Pool, blocks: Iterable[Block], reserved: Reserved) -> PoolUsage:
    used = [block_usage(block, reserved) for block in blocks]
    outside = count_reserved(reserved, pool.cidr) - sum(count_reserved(reserved, block.cidr) for block in blocks)
    return PoolUsage(
        pool.name,
        str(pool.cidr),
        pool.cidr.num_addresses,
        sum(block.in_use for block in used),
        outside + sum(block.reserved for block in used),
        used,
    )


def block_usage(block: Block, reserved: Reserved) -> BlockUsage:
    free = len(block.unallocated)
    return BlockUsage(str(block.cidr), block.affinity, block.size, block.size - free, free - block.free_count(reserved))


def count_reserved(reserved: Reserved, network: Network) -> int:
    return sum(last - first + 1 for first, last in reserved.within(network))
