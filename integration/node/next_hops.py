"""How to get to a BGP next hop by other programs' routes, and who must be told when that changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bgp.families import Address
from bgp.ports import NextHop, Resolution, split_through
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RTN_UNICAST, Via
from felix.kernel.state import KernelState
from felix.kernel.tables import Vias

UNREACHABLE = Resolution(reachable=False)


class NextHops:
    """Tracked addresses with the answer last given. A few hundred at most, so a change asks all of them anew."""

    def __init__(self, state: KernelState, tables: Sequence[int], default_route_resolves: bool = True) -> None:
        """`tables` in the order in which they are asked; the first that holds a route decides."""
        self._state = state
        self._tables = tables
        self._default_route_resolves = default_route_resolves
        self._answers: dict[Address, Resolution] = {}

    def set_tables(self, tables: Sequence[int]) -> None:
        self._tables = tables

    def track(self, address: Address) -> Resolution:
        """Answer and keep watching until `forget`; asking again changes nothing."""
        answer = self._answers[address] = self.resolve(address)
        return answer

    def forget(self, address: Address) -> None:
        self._answers.pop(address, None)

    def take_changes(self) -> dict[Address, Resolution]:
        changed = {}
        for address, before in self._answers.items():
            now = self.resolve(address)
            if now != before:
                changed[address] = now
        self._answers.update(changed)
        return changed

    def resolve(self, address: Address) -> Resolution:
        """4 or 16 octets, or 32: a global and a link-local address of one router (RFC 2545 §3).

        A link-local one alone is followed by its interface's name.
        """
        if (tunnelled := split_through(address)) is not None:
            return self._on_link(tunnelled[0], self._state.interface_index(tunnelled[1]), 0, needs_no_subnet=True)
        if len(address) == 32:
            return self._resolve_pair(address[:16], address[16:])
        if _is_link_local(address[:16]):
            return self._on_link(address[:16], self._state.interface_index(address[16:].decode()), metric=0)
        if len(address) not in (4, 16) or address in self._state.own_addresses:
            return UNREACHABLE
        for via in self._candidates(address):
            if via.type != RTN_UNICAST:
                return UNREACHABLE
            hops = tuple(self._hops(address, via))
            if hops:
                return Resolution(True, via.metric, hops, self._state.interface_name(hops[0].ifindex))
        return UNREACHABLE

    def _resolve_pair(self, address: Address, link_local: Address) -> Resolution:
        """The link-local address is good only where its owner is a neighbour, which is where the global one is."""
        answer = self.resolve(address)
        is_neighbour = answer.reachable and all(hop.address == address for hop in answer.hops)
        if not is_neighbour or not _is_link_local(link_local):
            return answer
        return self._on_link(link_local, answer.hops[0].ifindex, answer.metric)

    def _on_link(self, address: Address, ifindex: int, metric: int, *, needs_no_subnet: bool = False) -> Resolution:
        if not ifindex or not self._state.is_running(ifindex):
            return UNREACHABLE
        return Resolution(
            True, metric, (NextHop(address, ifindex, needs_no_subnet),), self._state.interface_name(ifindex)
        )

    def _candidates(self, address: Address) -> Vias:
        family = AF_INET if len(address) == 4 else AF_INET6
        for table in self._tables:
            found = self._state.tables[family, table].longest_match(
                address, at_least_bits=0 if self._default_route_resolves else 1
            )
            if found:
                return found
        return ()

    def _hops(self, address: Address, via: Via) -> Iterator[NextHop]:
        for hop in via.hops:
            if self._state.is_running(hop.ifindex):
                yield NextHop(hop.gateway or address, hop.ifindex, hop.onlink)


def _is_link_local(address: Address) -> bool:
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
