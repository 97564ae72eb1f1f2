"""What this node's kernel holds, as far as routing goes: links, addresses, other programs' routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from felix.kernel.links import InterfaceAddress, Link
from felix.kernel.rtnetlink import AF_INET, AF_INET6, Via
from felix.kernel.tables import RouteTable

FAMILIES = (AF_INET, AF_INET6)


class KernelState:
    """Filled by dumps, kept up by notifications; knows nothing of our own routes."""

    def __init__(self, tables: Iterable[int]) -> None:
        self.table_numbers = tuple(sorted(set(tables)))
        self.links: dict[int, Link] = {}
        self.addresses: dict[InterfaceAddress, bool] = {}  # → whether it is usable yet; set_address changes it
        self.own_addresses: frozenset[bytes] = frozenset()  # packed, usable or not
        self.tables = {(family, table): RouteTable(family) for table in self.table_numbers for family in FAMILIES}

    def set_address(self, address: InterfaceAddress, is_usable: bool | None) -> bool:
        """None takes it away. False if that changes nothing."""
        if self.addresses.get(address) == is_usable:
            return False
        if is_usable is None:
            del self.addresses[address]
        else:
            self.addresses[address] = is_usable
        self.own_addresses = frozenset(known.address for known in self.addresses)
        return True

    def forget_addresses(self) -> None:
        self.addresses = {}
        self.own_addresses = frozenset()

    def adopt(self, other: KernelState) -> None:
        """Become what was read anew; whoever holds this object sees it."""
        self.links, self.tables, self.table_numbers = other.links, other.tables, other.table_numbers
        self.addresses, self.own_addresses = other.addresses, other.own_addresses

    def usable_addresses(self) -> frozenset[bytes]:
        return frozenset(address.address for address, is_usable in self.addresses.items() if is_usable)

    def interface_name(self, ifindex: int) -> str:
        link = self.links.get(ifindex)
        return link.name if link is not None else ""

    def interface_index(self, name: str) -> int:
        """0 if there is none of that name."""
        return next((index for index, link in self.links.items() if link.name == name), 0)

    def leads_out(self, via: Via) -> bool:
        """At least one of its interfaces is up, so that the kernel keeps the route and uses it."""
        return not via.hops or any((link := self.links.get(hop.ifindex)) and link.is_up for hop in via.hops)

    def is_running(self, ifindex: int) -> bool:
        link = self.links.get(ifindex)
        return link is not None and link.is_running
