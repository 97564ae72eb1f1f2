"""Addresses as numbers: ranges, and which of them are never assigned automatically (IPReservation)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from integration.resources.fields import Network, parse_network
from integration.resources.models.ipam import IPReservation

Range = tuple[int, int]
"""First and last address of a range, both in it."""


def range_of(network: Network) -> Range:
    return int(network.network_address), int(network.broadcast_address)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses, in order and without overlaps."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


class Reserved:
    """A set of addresses of both families, made from networks."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        each = list(networks)
        self._ranges = {
            version: merged(range_of(network) for network in each if network.version == version) for version in (4, 6)
        }
        self._firsts = {version: [first for first, _ in ranges] for version, ranges in self._ranges.items()}

    def holds(self, version: int, address: int) -> bool:
        at = bisect_right(self._firsts[version], address) - 1
        return at >= 0 and address <= self._ranges[version][at][1]

    def touches(self, network: Network) -> bool:
        first, last = range_of(network)
        at = bisect_right(self._firsts[network.version], last) - 1
        return at >= 0 and self._ranges[network.version][at][1] >= first

    def covers(self, network: Network) -> bool:
        first, last = range_of(network)
        at = bisect_right(self._firsts[network.version], first) - 1
        return at >= 0 and last <= self._ranges[network.version][at][1]

    def within(self, network: Network) -> list[Range]:
        """Its part of the network."""
        first, last = range_of(network)
        return [
            (max(start, first), min(end, last))
            for start, end in self._ranges[network.version]
            if start <= last and end >= first
        ]


def reserved_by(reservations: Iterable[IPReservation]) -> Reserved:
    """A CIDR that is none reserves nothing: validation refuses it where it is written."""
    networks: list[Network] = []
    for reservation in reservations:
        for text in reservation.spec.reserved_cidrs:
            try:
                networks.append(parse_network(text))
            except ValueError:
                continue
    return Reserved(networks)
