"""Blocks as a whole: hosts that claim and lose them, pools that are emptied, hosts that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from integration.resources.fields import Network
from integration.resources.keys import Key, cidr_of
from ipam.errors import BrokenBlock, ClaimConflict, IpamError, NoPool, NotEmpty, NotHeld, StaleAffinity
from ipam.pools import Pool, Wish, read_pools
from ipam.ports import Changed, Missing
from ipam.scene import Access, network_or_none, open_tools, set_scene
from ipam.search import claim, find_or_claim

MAX_CLAIMED = 65_536  # blocks in one call: a wide IPv6 range has more than there is room for


async def claim_affinity(access: Access, network: Network, host: str) -> tuple[list[str], list[str]]:
    """Every block in the network for the host: those claimed, and those that others hold.

    Raises NoPool if it is in no enabled pool, or smaller than a block, or too large to claim.
    """
    pool = pool_around(read_pools((await access.store.pools()).found), network)
    tools = await open_tools(access)
    claimed: list[str] = []
    failed: list[str] = []
    for block in blocks_in(network, pool):
        try:
            await claim(tools, f"host:{host}", block)
            claimed.append(block)
        except (ClaimConflict, StaleAffinity):
            failed.append(block)
    return claimed, failed


def pool_around(pools: Iterable[Pool], network: Network) -> Pool:
    """Raises NoPool."""
    for pool in pools:
        if pool.is_enabled and pool.version == network.version and network.subnet_of(pool.cidr):  # type: ignore[arg-type]
            if network.prefixlen > pool.block_size:
                raise NoPool(f"{network} is smaller than a block of pool {pool.name} (/{pool.block_size})")
            return pool
    raise NoPool(f"{network} is not in an enabled pool")


def blocks_in(network: Network, pool: Pool) -> Iterable[str]:
    """Raises NoPool if there are too many."""
    if 1 << (pool.block_size - network.prefixlen) > MAX_CLAIMED:
        raise NoPool(f"{network} has more than {MAX_CLAIMED} blocks of /{pool.block_size}")
    return map(str, network.subnets(new_prefix=pool.block_size))


async def release_affinity(access: Access, network: Network, host: str, *, must_be_empty: bool = False) -> None:
    """The host's blocks in the network. Others' and unknown ones are passed over; raises NotEmpty at the end."""
    await release_held(access, f"host:{host}", lambda block: contains(network, block), must_be_empty=must_be_empty)


async def release_host(access: Access, host: str, *, must_be_empty: bool = False, virtual: bool = False) -> None:
    """All blocks of the host, of both families. What fails stops no other; raises the last error."""
    holder = f"{'virtual' if virtual else 'host'}:{host}"
    await release_held(access, holder, lambda _: True, must_be_empty=must_be_empty)


async def release_pool(access: Access, network: Network) -> None:
    """All affinities of blocks in the pool, empty or not; for a pool that is about to be deleted. Disable it first.

    What fails stops no other; raises the last error.
    """
    await release_held(access, "", lambda block: contains(network, block), must_be_empty=False)


async def release_held(
    access: Access, holder: str, is_wanted: Callable[[Network], bool], *, must_be_empty: bool
) -> None:
    """`holder` "": anybody's. Raises the last error."""
    tools = await open_tools(access)
    last: Exception | None = None
    for affinity in (await access.store.list("BlockAffinity", holder)).found:
        block = network_or_none(cidr_of(affinity.key))
        if block is None or not is_wanted(block):
            continue
        try:
            await tools.affinities.release(affinity.key.namespace, str(block), must_be_empty=must_be_empty)
        except (ClaimConflict, NotHeld):
            pass
        except (NotEmpty, BrokenBlock, IpamError) as error:
            last = error
    if last is not None:
        raise last


def contains(network: Network, block: Network) -> bool:
    return network.version == block.version and block.subnet_of(network)  # type: ignore[arg-type]


async def remove_host(access: Access, host: str) -> None:
    """A host that is gone: its blocks are nobody's, its mark is removed. Addresses stay with their handles."""
    last: IpamError | None = None
    try:
        await release_host(access, host)
    except IpamError as error:
        last = error
    try:
        mark = await access.store.get(Key("IPAMHost", host))
        await access.store.delete(mark.key, mark.revision)
    except (Missing, Changed):
        pass
    if last is not None:
        raise last


async def ensure_block(access: Access, host: str, wish: Wish, max_blocks: int = 0) -> str:
    """The CIDR of a block that the host holds, claimed if it has none, with nothing assigned.

    Raises BlockLimit, NoFreeBlock, and what `set_scene` raises.
    """
    scene = await set_scene(access, host, wish, max_blocks)
    return (await find_or_claim(scene, min_free=0)).cidr
