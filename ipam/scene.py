"""What an assignment depends on, read once for all requests of the same kind that wait together."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.resources.fields import Network, parse_network
from integration.resources.keys import cidr_of
from ipam.affinities import Affinities
from ipam.block import HostReservation
from ipam.blocks import Blocks, Memory
from ipam.errors import BrokenBlock, ClaimConflict, NoNode, NotEmpty, NotHeld, TooManyConflicts
from ipam.handles import Handles
from ipam.pools import Pool, Wish, choose_pools, pool_of, read_pools
from ipam.ports import BlockStore, Clock
from ipam.reserved import Reserved, reserved_by
from ipam.settings import Settings, load_settings

LOAD_BALANCER = "LoadBalancer"
LOAD_BALANCER_HOST = "load-balancer"


@dataclass(frozen=True, slots=True)
class Access:
    """The store, the time, and what this process wrote last."""

    store: BlockStore
    clock: Clock
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True)
class Tools:
    """The store with the cluster's settings: what every operation works with."""

    store: BlockStore
    clock: Clock
    settings: Settings
    blocks: Blocks
    affinities: Affinities
    handles: Handles


async def open_tools(access: Access) -> Tools:
    return tools_with(await load_settings(access.store), access)


def tools_with(settings: Settings, access: Access) -> Tools:
    store, clock = access.store, access.clock
    blocks = Blocks(store, clock, settings.cooldown_s, access.memory)
    return Tools(store, clock, settings, blocks, Affinities(store, blocks, clock), Handles(store))


@dataclass(slots=True)
class Scene:
    """`pools` in the order in which to try them; `affine` the CIDRs of the host's own blocks in them, in any state."""

    tools: Tools
    holder: str
    pools: Sequence[Pool]
    reserved: Reserved
    affine: list[str]
    confirmed: frozenset[str]
    block_limit: int
    owned: int
    reservation: HostReservation | None = None
    looked_at: set[str] = field(default_factory=set)

    @property
    def host(self) -> str:
        return self.holder.partition(":")[2]


def holder_of(host: str, use: str) -> str:
    return f"virtual:{LOAD_BALANCER_HOST}" if use == LOAD_BALANCER else f"host:{host}"


async def set_scene(
    access: Access,
    host: str,
    wish: Wish,
    max_blocks: int = 0,
    reservation: HostReservation | None = None,
) -> Scene:
    """Raises NoNode, NoPool, NoQualifiedPool, UnknownPool, and what the store raises."""
    holder, store = holder_of(host, wish.use), access.store
    settings, resources, reservations, labels, listed = await all_of(
        store,
        [
            load_settings(store),
            store.pools(),
            store.reservations(),
            labels_of(store, host, wish.use),
            store.list("BlockAffinity", holder),
        ],
    )
    if labels is None:
        raise NoNode(f"there is no Node {host}: it must be made before it gets addresses")
    pools = read_pools(resources.found)
    chosen = choose_pools(pools, wish, host, labels)
    tools = tools_with(settings, access)
    affine, confirmed = [], []
    for affinity in listed.found:
        cidr = cidr_of(affinity.key)
        network = network_or_none(cidr)
        if network is None or network.version != wish.version:
            continue
        if any(network.subnet_of(pool.cidr) for pool in chosen):  # type: ignore[arg-type]
            affine.append(cidr)
            if affinity.value.get("state") in (None, "", "confirmed"):
                confirmed.append(cidr)
        else:
            await release_if_lost(tools, holder, network, pools, labels)
    return Scene(
        tools=tools,
        holder=holder,
        pools=chosen,
        reserved=reserved_by(reservations),
        affine=affine,
        confirmed=frozenset(confirmed),
        block_limit=settings.block_limit(max_blocks),
        owned=len(affine),
        reservation=reservation,
    )


async def release_if_lost(
    tools: Tools, holder: str, block: Network, pools: Sequence[Pool], labels: Mapping[str, str]
) -> None:
    """Give up an empty block of a pool that selects this node no more; a pool that is disabled keeps its blocks."""
    pool = pool_of(pools, block.network_address)
    if pool is None or not pool.is_enabled or pool.selects_node(labels) or holder.startswith("virtual:"):
        return
    try:
        await tools.affinities.release(holder, str(block), must_be_empty=True)
    except (ClaimConflict, NotEmpty, NotHeld, BrokenBlock, TooManyConflicts):
        pass


async def labels_of(store: BlockStore, host: str, use: str) -> Mapping[str, str] | None:
    """Load balancers are on no node: they have no labels."""
    return {} if use == LOAD_BALANCER else await store.node_labels(host)


async def all_of(store: BlockStore, jobs: Sequence[Coroutine[Any, Any, Any]]) -> Sequence[Any]:
    """The results of all; raises the first error."""
    results = await store.together(jobs)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def network_or_none(cidr: str) -> Network | None:
    try:
        return parse_network(cidr, bare=False, masked=True)
    except ValueError:
        return None
