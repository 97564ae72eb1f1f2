"""IPAM behind one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from integration.resources.fields import Address, Network
from ipam import assigning, holding, releasing, settings
from ipam.assigning import Assignment, Request
from ipam.block import Attribute, Interface
from ipam.errors import NotAssigned
from ipam.pools import Wish
from ipam.ports import BlockStore, Clock, Missing
from ipam.releasing import Release, Released, blocks_of
from ipam.scene import Access, open_tools
from ipam.settings import Settings


@dataclass(frozen=True, slots=True)
class Allocator:
    """Addresses out of pools, as Calico gives them out.

    allocator = Allocator.over(store, time.time_ns)
    [address] = (await allocator.assign(Request("node1", handle="net.c1"))).whole()
    await allocator.release_handle("net.c1")

    Any number may work over one store, in any number of processes. Raises IpamError and the store's own errors. Within
    a process, requests that wait at the same time are best handed over together (`assign_all`, `release_handles`):
    `integration.ipam.queue` does that.
    """

    access: Access

    @classmethod
    def over(cls, store: BlockStore, clock: Clock) -> Allocator:
        return cls(Access(store, clock))

    async def assign(self, request: Request) -> Assignment:
        """Never raises: see Assignment.whole."""
        return (await self.assign_all([request]))[0]

    async def assign_all(self, requests: Sequence[Request]) -> list[Assignment]:
        return await assigning.assign_all(self.access, requests)

    async def assign_address(
        self,
        address: Address,
        host: str,
        handle: str | None = None,
        attributes: Mapping[str, str] | None = None,
        use: str = "",
        max_for_handle: int = 0,
    ) -> Interface:
        """This one; see `assigning.assign_address`."""
        return await assigning.assign_address(self.access, address, host, handle, attributes, use, max_for_handle)

    async def release(self, releases: Iterable[Release]) -> Released:
        """Never raises for single addresses: see Released.whole."""
        return await releasing.release_addresses(self.access, releases)

    async def release_handle(self, handle: str) -> None:
        """Raises NotAssigned if there is no such handle."""
        for error in (await self.release_handles([handle])).values():
            raise error

    async def release_handles(self, handles: Iterable[str]) -> dict[str, Exception]:
        return await releasing.release_handles(self.access, handles)

    async def handle_addresses(self, handle: str) -> list[Address]:
        """Raises NotAssigned."""
        return await releasing.handle_addresses(self.access, handle)

    async def attribute(self, address: Address) -> Attribute:
        """`handle_id` and `secondary` of an address. Raises NotAssigned, also if it cools down; BrokenBlock."""
        tools = await open_tools(self.access)
        cidrs = await blocks_of(tools, [Release(address)])
        for cidr in cidrs:
            try:
                block = (await tools.blocks.get(cidr)).block
            except Missing:
                continue
            found = block.attribute(block.ordinal(address))
            if found is not None and not found.get("releasedAt"):
                return found
        raise NotAssigned(f"{address} is not assigned")

    async def claim_affinity(self, network: Network, host: str) -> tuple[list[str], list[str]]:
        """Blocks claimed, blocks that others hold. Raises NoPool."""
        return await holding.claim_affinity(self.access, network, host)

    async def release_affinity(self, network: Network, host: str, *, must_be_empty: bool = False) -> None:
        """Raises NotEmpty."""
        await holding.release_affinity(self.access, network, host, must_be_empty=must_be_empty)

    async def release_host(self, host: str, *, must_be_empty: bool = False, virtual: bool = False) -> None:
        await holding.release_host(self.access, host, must_be_empty=must_be_empty, virtual=virtual)

    async def release_pool(self, network: Network) -> None:
        await holding.release_pool(self.access, network)

    async def remove_host(self, host: str) -> None:
        await holding.remove_host(self.access, host)

    async def ensure_block(self, host: str, wish: Wish, max_blocks: int = 0) -> str:
        """Raises BlockLimit, NoFreeBlock, NoPool, NoNode."""
        return await holding.ensure_block(self.access, host, wish, max_blocks)

    async def settings(self) -> Settings:
        return await settings.load_settings(self.access.store)

    async def configure(self, new: Settings) -> bool:
        """Whether anything changed. Raises BadSettings."""
        return await settings.save_settings(self.access.store, new)
