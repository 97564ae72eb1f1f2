"""Giving out addresses. Calico: AutoAssign and AssignIP (libcalico-go/lib/ipam/ipam.go).

Requests of the same kind that wait together are served together: what they depend on is read once, and each block is
written once for all of them. Each handle is counted up before the block is written, and down again if the block could
not be; when it is not known whether the block was written, the handle keeps its count: it may say more than the blocks,
never less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from integration.resources.fields import Address, parse_network
from ipam.block import HostReservation, Interface, block_cidr
from ipam.blocks import Held
from ipam.errors import (
    BlockLimit,
    BrokenBlock,
    ClaimConflict,
    IpamError,
    NoFreeBlock,
    NoPool,
    NoQualifiedPool,
    StaleAffinity,
)
from ipam.pools import Wish, pool_of, read_pools
from ipam.ports import Changed, Missing
from ipam.retrying import TRIES, until_unchallenged
from ipam.scene import Access, Scene, Tools, holder_of, open_tools, set_scene
from ipam.search import claim, find_or_claim, fnv1_32, networks_in


@dataclass(frozen=True, slots=True)
class Request:
    """Addresses wanted: `count` of family `version` for `host`.

    `use` is Workload, Tunnel or LoadBalancer; `pools` CIDRs, which selectors do not restrict; `max_blocks` 0: as the
    cluster says; `max_for_handle` 0: any number. `attributes` are stored with the address: node, pod, namespace, …
    """

    host: str
    version: int = 4
    count: int = 1
    handle: str | None = None
    attributes: Mapping[str, str] | None = None
    use: str = "Workload"
    pools: tuple[str, ...] = ()
    namespace_labels: tuple[tuple[str, str], ...] = ()
    max_blocks: int = 0
    max_for_handle: int = 0
    reservation: HostReservation | None = None

    @property
    def wish(self) -> Wish:
        spare = self.reservation.start + self.reservation.end if self.reservation else 0
        return Wish(self.version, self.use, self.pools, self.namespace_labels, spare)

    @property
    def kind(self) -> tuple[object, ...]:
        """Requests of one kind can be served together."""
        return (self.host, self.wish, self.max_blocks, self.reservation)


@dataclass(slots=True)
class Assignment:
    """`addresses` have the block's prefix length; `notes` say why there are fewer than wanted, `error` what went wrong."""

    request: Request
    addresses: list[Interface] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: Exception | None = None

    @property
    def missing(self) -> int:
        return 0 if self.error else self.request.count - len(self.addresses)

    def whole(self) -> list[Interface]:
        """The addresses. Raises what went wrong, or PartlyAssigned if there are fewer than wanted.

        In both cases `addresses` may hold some, which stay assigned until they are released, best by the handle.
        """
        if self.error is not None and not isinstance(self.error, BlockLimit):
            raise self.error
        if len(self.addresses) < self.request.count:
            raise PartlyAssigned(self)
        return self.addresses


class PartlyAssigned(IpamError):
    """Fewer addresses than wanted; those that there are stay assigned (Calico: PartialFulfillmentError)."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        request, notes = assignment.request, assignment.notes
        reserved = [f"HostReservedAttr: {request.reservation.handle}"] if request.reservation else []
        head = f"Assigned {len(assignment.addresses)} out of {request.count} requested IPv{request.version} addresses"
        super().__init__("; ".join([head, *notes, *reserved]))


async def assign_all(access: Access, requests: Sequence[Request]) -> list[Assignment]:
    """One Assignment for each request, in order; errors are in them. Raises nothing but what cannot be told apart by request."""
    assignments = [Assignment(request) for request in requests]
    kinds: dict[tuple[object, ...], list[Assignment]] = {}
    for assignment in assignments:
        kinds.setdefault(assignment.request.kind, []).append(assignment)
    for alike in kinds.values():
        try:
            await assign_alike(access, alike)
        except Exception as error:
            for assignment in alike:
                if len(assignment.addresses) < assignment.request.count:
                    assignment.error = assignment.error or error
    return assignments


async def assign_alike(access: Access, wanted: Sequence[Assignment]) -> None:
    first = wanted[0].request
    scene = await set_scene(access, first.host, first.wish, first.max_blocks, first.reservation)
    strict = scene.tools.settings.strict_affinity
    while still_missing(wanted):
        try:
            held = await find_or_claim(scene)
        except BlockLimit as error:
            for each in wanted:
                if each.missing:
                    each.error = each.error or error
                    each.notes.append(str(error))
            return
        except NoFreeBlock as error:
            note = "No more free affine blocks and strict affinity enabled" if strict else str(error)
            tell(wanted, note)
            break
        await assign_in(scene, held, wanted, is_own=True)
    if not strict and still_missing(wanted):
        await borrow(scene, wanted)


def still_missing(wanted: Iterable[Assignment]) -> bool:
    return any(each.missing > 0 for each in wanted)


def tell(wanted: Iterable[Assignment], note: str) -> None:
    for each in wanted:
        if each.missing > 0:
            each.notes.append(note)


async def borrow(scene: Scene, wanted: Sequence[Assignment]) -> None:
    """From blocks of other hosts, without their asking. Only blocks that exist have anything to give."""
    found = networks_in(await scene.tools.store.list("IPAMBlock"))
    for pool in scene.pools:
        blocks = [
            (network, value)
            for network, value in found
            if value and value.get("unallocated") and network.version == pool.version
            and network.prefixlen == pool.block_size and network.overlaps(pool.cidr)
        ]  # fmt: skip
        # Where the host would look first for blocks of its own, so that not all borrow from the same one.
        start = fnv1_32(scene.host) % max(1, len(blocks))
        for network, _ in blocks[start:] + blocks[:start]:
            if not still_missing(wanted):
                return
            if scene.reserved.covers(network):
                continue
            try:
                held = await scene.tools.blocks.get(str(network))
            except (Missing, BrokenBlock):
                continue
            await assign_in(scene, held, wanted, is_own=False)
    if still_missing(wanted):
        tell(wanted, f"No IPs available in pools: [{' '.join(str(pool.cidr) for pool in scene.pools)}]")


async def assign_in(scene: Scene, held: Held, wanted: Sequence[Assignment], *, is_own: bool) -> None:
    """As many as there are in the block; read again and again while others write it."""
    for _ in range(TRIES):
        if is_own and held.block.affinity != scene.holder and scene.tools.settings.strict_affinity:
            return
        try:
            await assign_once(scene, held, wanted)
            if is_own:
                scene.tools.blocks.memory.put(held)
            return
        except Changed:
            pass
        try:
            held = await scene.tools.blocks.get(held.cidr)
        except (Missing, BrokenBlock):
            return
    tell(wanted, f"block {held.cidr}: Max retries hit - excessive concurrent IPAM requests")


@dataclass(slots=True)
class Share:
    """Of one block for one request."""

    assignment: Assignment
    count: int
    ordinals: list[int] = field(default_factory=list)


async def assign_once(scene: Scene, held: Held, wanted: Sequence[Assignment]) -> None:
    """Raises Changed, with the handles as they were, or the store's own errors, with handles that count too many."""
    free = held.block.free_count(scene.reserved)
    shares: list[Share] = []
    for assignment in wanted:
        count = min(assignment.missing, free)
        if count > 0:
            shares.append(Share(assignment, count))
            free -= count
    shares = await counted_up(scene.tools, held, shares)
    if not shares:
        return
    for share in shares:
        request = share.assignment.request
        share.ordinals = held.block.assign_some(share.count, request.handle, request.attributes, scene.reserved)
    try:
        await scene.tools.blocks.write(held)
    except Changed:
        await count_down(scene.tools, held.cidr, shares)
        raise
    for share in shares:
        share.assignment.addresses += [held.block.interface(ordinal) for ordinal in share.ordinals]


async def counted_up(tools: Tools, held: Held, shares: Sequence[Share]) -> list[Share]:
    """Those whose handle could be counted up; of the others the assignment says why not."""
    by_handle: dict[str, list[Share]] = {}
    for share in shares:
        if share.assignment.request.handle is not None:
            by_handle.setdefault(share.assignment.request.handle, []).append(share)
    jobs = [
        tools.handles.count_up(
            handle, held.cidr, sum(share.count for share in each), each[0].assignment.request.max_for_handle
        )
        for handle, each in by_handle.items()
    ]
    results = await tools.store.together(jobs) if jobs else []
    for result, each in zip(results, by_handle.values(), strict=True):
        if isinstance(result, Exception):
            for share in each:
                share.assignment.error = result
    return [share for share in shares if share.assignment.error is None]


async def count_down(tools: Tools, cidr: str, shares: Iterable[Share]) -> None:
    counts: dict[str, int] = {}
    for share in shares:
        if share.assignment.request.handle is not None:
            counts[share.assignment.request.handle] = counts.get(share.assignment.request.handle, 0) + share.count
    if counts:
        # A handle that cannot be counted down says too much: that is allowed, and seen by `check`.
        await tools.store.together([tools.handles.count_down(handle, cidr, n) for handle, n in counts.items()])


async def assign_address(
    access: Access,
    address: Address,
    host: str,
    handle: str | None = None,
    attributes: Mapping[str, str] | None = None,
    use: str = "",
    max_for_handle: int = 0,
) -> Interface:
    """This address and no other, reserved or not; neither the limit of blocks nor autoAllocateBlocks matters (Calico).

    `use` "": the pool may be for any. Raises AddressTaken, NoPool (in no enabled pool), NoQualifiedPool, ClaimConflict
    (strict affinity, and the block is another's), BrokenBlock, TooManyForHandle, TooManyConflicts.
    """
    tools = await open_tools(access)
    pools = [pool for pool in read_pools((await access.store.pools()).found) if pool.is_enabled]
    pool = pool_of(pools, address)
    if pool is None:
        raise NoPool(f"{address} is not in a configured pool, or the pool is disabled")
    if use and use not in pool.uses:
        raise NoQualifiedPool(f"the pool {pool.name} of {address} is not for {use} (allowedUses)")
    cidr, holder = str(block_cidr(address, pool.block_size)), holder_of(host, use or "Workload")

    async def attempt() -> Interface:
        held = await block_for_address(tools, holder, cidr)
        if tools.settings.strict_affinity and held.block.affinity != holder:
            owner = held.block.affinity or "nobody"
            raise ClaimConflict(f"{address} is in block {cidr} of {owner}, and strict affinity is on")
        ordinal = held.block.ordinal(address)
        held.block.assign(ordinal, handle, attributes)
        if handle is not None:
            await tools.handles.count_up(handle, cidr, 1, max_for_handle)
        try:
            await tools.blocks.write(held)
        except Changed:
            if handle is not None:
                await tools.handles.count_down(handle, cidr, 1)
            raise
        return held.block.interface(ordinal)

    return await until_unchallenged(f"block {cidr}", attempt)


async def block_for_address(tools: Tools, holder: str, cidr: str) -> Held:
    """The block whoever holds it, claimed if it is not there. Raises Changed, ClaimConflict, BrokenBlock."""
    try:
        return await tools.blocks.get(cidr)
    except Missing:
        pass
    wanted = parse_network(cidr)
    for network, _ in networks_in(await tools.store.list("IPAMBlock")):
        if network != wanted and network.version == wanted.version and network.overlaps(wanted):
            raise ClaimConflict(f"block {cidr} overlaps with block {network}, of another size")
    try:
        return await claim(tools, holder, cidr)
    except (ClaimConflict, StaleAffinity):
        raise Changed from None  # somebody else has made it: read it
