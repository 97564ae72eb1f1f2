"""Which interface has an address."""

from __future__ import annotations

from typing import Literal, NamedTuple

LOOPBACK = 1


class Holder(NamedTuple):
    ifindex: int
    name: str


class Holders:
    """Several interfaces may have one address (`lo` or kube-ipvs0 beside the real one): never `lo` while another has it,
    and else the one that came first."""

    def __init__(self) -> None:
        self._addresses: dict[Holder, frozenset[str]] = {}

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> bool:
        """Whether that changes who has what."""
        holder = Holder(ifindex, name)
        for other in [one for one in self._addresses if one.ifindex == ifindex and one.name != name]:
            del self._addresses[other]  # renamed
        if state == "gone":
            return bool(self._addresses.pop(holder, None))
        before = self._addresses.get(holder)
        self._addresses[holder] = addresses
        return before != addresses

    def of(self, address: str) -> Holder | None:
        found = [holder for holder, addresses in self._addresses.items() if address in addresses]
        return min(found, key=lambda one: (one.ifindex == LOOPBACK, one.ifindex), default=None)
