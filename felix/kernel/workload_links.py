"""What Felix puts on workloads' interfaces beside routes: addresses and permanent neighbours that carry its protocol number."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from felix.kernel.devices import IFA_PROTOCOL, add_link_address, delete_address
from felix.kernel.links import RTM_NEWADDR, address_text, decode_address, dump_addresses
from felix.kernel.neighbours import (
    NDA_PROTOCOL,
    RTM_NEWNEIGH,
    delete_neighbour,
    dump_neighbours,
    put_neighbour,
    read_neighbour,
)
from felix.kernel.netlink import attributes
from felix.kernel.sockets import RequestSocket, steadily
from felix.sync.devices import Neighbour
from felix.sync.routes import FELIX_PROTOCOL

_ADDRESS_OCTETS, _NEIGHBOUR_OCTETS = 8, 12  # the headers before the attributes
_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """Of ours, on the link of this index; without length, it is the only one in its subnet."""

    index: int
    address: str

    def __str__(self) -> str:
        return f"address {self.address}"


@dataclass(frozen=True, slots=True)
class LinkNeighbour:
    index: int
    address: str
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address} at {self.mac}"


Item: TypeAlias = LinkAddress | LinkNeighbour


Maker: TypeAlias = Callable[[int, Item], bytes]


class KernelWorkloadLinks:
    """In the network namespace in which it was made."""

    def __init__(self) -> None:
        self._socket = RequestSocket()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> set[Item]:
        """What carries our protocol number, on any link. Raises OSError.

        A kernel older than 5.18 (4.20 for neighbours) does not keep the number: there what a former process left stays.
        """
        return steadily(lambda: {*self._addresses(), *self._neighbours()})

    def _addresses(self) -> Iterator[Item]:
        for data, answers in self._socket.dump(dump_addresses):
            for kind, _, _, _, start, end in answers:
                decoded = decode_address(data, start, end) if kind == RTM_NEWADDR else None
                if (
                    decoded is not None
                    and _protocol(data, start + _ADDRESS_OCTETS, end, IFA_PROTOCOL) == FELIX_PROTOCOL
                ):
                    yield LinkAddress(decoded[0].ifindex, address_text(decoded[0].address))

    def _neighbours(self) -> Iterator[Item]:
        for data, answers in self._socket.dump(lambda sequence: dump_neighbours(sequence, socket.AF_INET)):
            for kind, _, _, _, start, end in answers:
                read = read_neighbour(data, start, end) if kind == RTM_NEWNEIGH else None
                if read is None or not isinstance(read[1], Neighbour):
                    continue
                if _protocol(data, start + _NEIGHBOUR_OCTETS, end, NDA_PROTOCOL) == FELIX_PROTOCOL:
                    yield LinkNeighbour(read[0], *read[1])

    def write(self, puts: Iterable[Item], deletes: Iterable[Item]) -> dict[Item, str]:
        """A put takes the place of what is there for the address; a link that is gone takes everything along.

        What was refused, and why. Raises OSError.
        """
        refused: dict[Item, str] = {}
        new = list(puts)
        replaced = {(type(one), one.index, one.address) for one in new}
        gone = [one for one in deletes if (type(one), one.index, one.address) not in replaced]
        steps: tuple[tuple[Maker, list[Item]], ...] = ((_delete, gone), (_put, new))
        for makers, items in steps:
            first = self._socket.sequences(len(items))
            messages = [makers(sequence, one) for sequence, one in enumerate(items, start=first)]
            for at, error in self._socket.write(messages, first).items():
                one = items[at]
                if error.code == errno.EEXIST or (makers is _delete and error.code in _GONE):
                    continue
                refused[one] = str(error)
        return refused


def _put(sequence: int, one: Item) -> bytes:
    if isinstance(one, LinkAddress):
        return add_link_address(sequence, one.index, one.address, FELIX_PROTOCOL)
    return put_neighbour(sequence, one.index, Neighbour(one.address, one.mac), FELIX_PROTOCOL)


def _delete(sequence: int, one: Item) -> bytes:
    if isinstance(one, LinkAddress):
        return delete_address(sequence, one.index, one.address)
    return delete_neighbour(sequence, one.index, Neighbour(one.address, one.mac))


def _protocol(data: bytes, start: int, end: int, kind: int) -> int:
    for found, first, last in attributes(data, start, end):
        if found == kind and last > first:
            return data[first]
    return 0
