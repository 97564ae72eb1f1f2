"""Beside routes on workloads' interfaces: the node's address for those that peer with it, and who is there at which MAC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from felix.claims import LocalWorkloads
from felix.desired import (
    Message,
    WorkloadEndpoint,
    WorkloadPeeringUpdate,
)
from felix.kernel.workload_links import Item, KernelWorkloadLinks, LinkAddress, LinkNeighbour
from felix.ports import Failure
from felix.sync.devices import unicast_mac


@dataclass(frozen=True, slots=True)
class WorkloadLinkSettings:
    """`knows_neighbours`: IPv4 workloads' MACs are entered as permanent neighbours (OpenStack: guests need not answer ARP)."""

    knows_neighbours: bool = False
    has_ipv6: bool = True


class WorkloadLinks:
    """A Programmer and an InterfaceListener. Applied before routes.

    `routes_dropped` is told the index of a link of which an address was deleted: with the last one of IPv4 the kernel drops
    all IPv4 routes and neighbours of the link, in silence.
    """

    def __init__(
        self, settings: WorkloadLinkSettings, routes_dropped: Callable[[int], None] = lambda _index: None
    ) -> None:
        self._settings = settings
        self._routes_dropped = routes_dropped
        self._kernel = KernelWorkloadLinks()
        self._workloads = LocalWorkloads()
        self._peering = WorkloadPeeringUpdate()
        self._up: dict[str, int] = {}
        self._there: set[Item] = set()
        self._is_stale = self._must_read = True

    def close(self) -> None:
        self._kernel.close()

    def reconfigure(self, settings: WorkloadLinkSettings) -> None:
        self._is_stale = self._is_stale or settings != self._settings
        self._settings = settings

    def on_message(self, message: Message) -> None:
        is_ours = bool(self._workloads.on_message(message))
        if isinstance(message, WorkloadPeeringUpdate):
            self._peering, is_ours = message, True
        self._is_stale = self._is_stale or is_ours

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        if state == "up":
            self._up[name] = ifindex
        else:
            self._up.pop(name, None)
        if self._workloads.owner(name) is not None:
            # A link that goes down loses its neighbours, and its IPv6 addresses.
            self._is_stale = True
            self._must_read = self._must_read or any(one.index == ifindex for one in self._there)

    async def apply(self, now: float) -> list[Failure]:
        return (await self._make_it_so())[1] if self._is_stale else []

    async def check(self) -> list[str]:
        self._must_read = self._is_stale = True
        found, failures = await self._make_it_so()
        return [*found, *(f"{one.what}: {one.reason}" for one in failures)]

    async def _make_it_so(self) -> tuple[list[str], list[Failure]]:
        """What others had altered, and what the kernel refused."""
        before = self._there
        try:
            puts, refused = self._write()
            if self._must_read:
                refused = self._write()[1]
        except OSError as error:
            self._must_read = True
            return [], [Failure("workloads' links", error.strerror or str(error))]
        self._is_stale = bool(refused)
        names = {index: name for name, index in self._up.items()}
        failures = [
            Failure(f"interface {names.get(one.index, '?')} {one}", failure) for one, failure in refused.items()
        ]
        return sorted(f"{one} was missing" for one in puts & before), failures

    def _write(self) -> tuple[set[Item], dict[Item, str]]:
        """What had to be put, and what of it all was refused."""
        wanted = {one for interface, endpoint in self._workloads.owners() for one in self._wanted(interface, endpoint)}
        if self._must_read:
            self._there = self._kernel.read()
            self._must_read = False
        puts, deletes = wanted - self._there, self._there - wanted
        refused = self._kernel.write(puts, deletes)
        self._there = (wanted | deletes & refused.keys()) - (puts & refused.keys())
        for index in {one.index for one in deletes if isinstance(one, LinkAddress)}:
            self._routes_dropped(index)
            self._must_read = True
        return puts, refused

    def _wanted(self, interface: str, endpoint: WorkloadEndpoint) -> Iterator[Item]:
        index = self._up.get(interface)
        if index is None:
            return
        if endpoint.bgp_peer:
            peering = self._peering
            for address in (peering.ipv4, peering.ipv6 if self._settings.has_ipv6 else ""):
                if address:
                    yield LinkAddress(index, address)
        mac = unicast_mac(endpoint.mac) if self._settings.knows_neighbours else ""
        if mac and endpoint.is_up and endpoint.live_migration != "target":
            for net in endpoint.ipv4_nets:
                address, _, bits = net.partition("/")
                if bits in ("", "32"):
                    yield LinkNeighbour(index, address, mac)
