"""Everything about routing that the kernel knows, read in one go but in slices, so that the loop keeps turning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from bgp.families import Nlri
from felix.kernel.links import RTM_NEWADDR, RTM_NEWLINK, decode_address, decode_link, dump_addresses, dump_links
from felix.kernel.netlink import Frame, NetlinkFormatError
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RTM_NEWROUTE, RouteDecoder, Via, dump_routes
from felix.kernel.sockets import DumpInterrupted, RepliesLost, RequestSocket, SocketFactory
from felix.kernel.state import FAMILIES, KernelState
from felix.kernel.tables import RouteTable

SLICE_S = 0.004
_ATTEMPTS = 4

Ours = dict[tuple[Nlri, int], Via]  # prefix and metric


@dataclass(slots=True)
class Snapshot:
    """`ours`: routes of our protocol in our table. `is_certain`: no reading was disturbed to the last."""

    state: KernelState
    ours: dict[int, Ours] = field(default_factory=lambda: {AF_INET: {}, AF_INET6: {}})
    is_certain: bool = True


class Pace:
    """Lets the loop turn whenever a slice of time is used up."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def step(self) -> None:
        if time.monotonic() - self._since > SLICE_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()


async def read_kernel(
    netlink: SocketFactory, decoder: RouteDecoder, state: KernelState, own_protocol: int, own_table: int
) -> Snapshot:
    """Fill the empty `state`, keep our own routes apart. Raises OSError."""
    snapshot = Snapshot(state)
    reading = _Reading(RequestSocket(netlink), snapshot, decoder, own_protocol, own_table)
    try:
        await reading.links_and_addresses()
        for family in FAMILIES:
            for table in state.table_numbers:
                await reading.table(family, table)
    finally:
        reading.requests.close()
    return snapshot


class _Reading:
    def __init__(
        self, requests: RequestSocket, snapshot: Snapshot, decoder: RouteDecoder, own_protocol: int, own_table: int
    ) -> None:
        self.requests = requests
        self._snapshot = snapshot
        self._decoder = decoder
        self._own_protocol = own_protocol
        self._own_table = own_table
        self._pace = Pace()

    async def links_and_addresses(self) -> None:
        state = self._snapshot.state

        def clear() -> None:
            state.links.clear()

        async for data, (kind, _, _, _, start, end) in self._dump(dump_links, clear):
            link = decode_link(data, start, end) if kind == RTM_NEWLINK else None
            if link is not None:
                state.links[link.index] = link
        async for data, (kind, _, _, _, start, end) in self._dump(dump_addresses, state.forget_addresses):
            found = decode_address(data, start, end) if kind == RTM_NEWADDR else None
            if found is not None:
                state.set_address(*found)

    async def table(self, family: int, table: int) -> None:
        """Routes of our protocol elsewhere than in our table are neither ours nor anybody's: passed over."""
        tables, ours = self._snapshot.state.tables, self._snapshot.ours[family]
        decode, own_protocol, own_table = self._decoder.decode, self._own_protocol, self._own_table

        def clear() -> None:
            tables[family, table] = RouteTable(family)
            if table == own_table:
                ours.clear()

        async for data, (kind, _, _, _, start, end) in self._dump(
            lambda sequence: dump_routes(family, table, 0, sequence), clear
        ):
            if kind != RTM_NEWROUTE:
                continue
            try:
                prefix, via = decode(data, start, end)
            except NetlinkFormatError:
                continue  # a kind of route that we do not know cannot be ours, nor lead to anybody
            if via.table != table or via.family != family or not via.is_plain:
                continue
            if via.protocol != own_protocol:
                tables[family, table].load(prefix, via)
            elif table == own_table:
                ours[prefix, via.metric] = via

    async def _dump(
        self, request: Callable[[int], bytes], clear: Callable[[], None]
    ) -> AsyncIterator[tuple[bytes, Frame]]:
        """The messages of a dump; from the start again, after `clear`, if the table changed under the reading."""
        for attempt in range(1, _ATTEMPTS + 1):
            clear()
            try:
                for data, frames in self.requests.dump(request):
                    for frame in frames:
                        yield data, frame
                    await self._pace.step()
                return
            except (DumpInterrupted, RepliesLost) as why:
                if attempt == _ATTEMPTS:
                    if isinstance(why, RepliesLost):
                        raise
                    self._snapshot.is_certain = False  # the notifications since will mend most of it
