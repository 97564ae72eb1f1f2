"""Forgetting tracked connections of an address that has moved away: an old entry would send packets where it was.

By ctnetlink (linux/netfilter/nfnetlink_conntrack.h). The program `conntrack` reads the whole table for each address and
direction; here one reading serves all addresses that are waiting.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterator

from felix.kernel.netlink import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    Frame,
    NetlinkFormatError,
    attribute,
    attributes,
    message,
)
from felix.kernel.sockets import RequestSocket

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 1 << 8
GET, DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_HEADER_OCTETS = 4  # family, version, resource
_NESTED = 0x8000
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18
_TUPLE_IP = 1
_ENOENT = 2
BATCH = 500


def open_netfilter() -> socket.socket:
    """In this process's network namespace. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)


def dump_connections(sequence: int, family: int) -> bytes:
    return message(GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, struct.pack("=BBH", family, 0, 0))


def addresses_of(data: bytes, start: int, end: int) -> Iterator[bytes]:
    """Of a tuple (CTA_TUPLE_ORIG or _REPLY): source and destination. Raises NetlinkFormatError."""
    for kind, first, last in attributes(data, start, end):
        if kind == _TUPLE_IP:
            for _, first_octet, after in attributes(data, first, last):
                yield data[first_octet:after]


def deletion(data: bytes, start: int, end: int, addresses: Collection[bytes]) -> bytes | None:
    """From a connection as the kernel tells it, the body that deletes it if one of `addresses` takes part in it.

    With its id: another connection may have taken its place. Raises NetlinkFormatError.
    """
    kept, is_meant = b"", False
    for kind, first, last in attributes(data, start + _HEADER_OCTETS, end):
        if kind in (_TUPLE_ORIGINAL, _TUPLE_REPLY):
            is_meant = is_meant or any(one in addresses for one in addresses_of(data, first, last))
        if kind in (_TUPLE_ORIGINAL, _ID, _ZONE):
            kept += attribute(kind | (_NESTED if kind == _TUPLE_ORIGINAL else 0), data[first:last])
    return data[start : start + _HEADER_OCTETS] + kept if is_meant else None


class Connections:
    """`told` is an event's name and what belongs to it. Made in the namespace that it is for."""

    def __init__(self, told: Callable[..., None]) -> None:
        """Raises OSError."""
        self._told = told
        self._socket = RequestSocket(open_netfilter)
        self._turn = asyncio.Lock()
        self._waiting: set[str] = set()

    def close(self) -> None:
        self._socket.close()

    async def forget(self, address: str) -> None:
        """Both directions. A failure is told, and nothing else comes of it."""
        self._waiting.add(address)
        async with self._turn:
            if address not in self._waiting:
                return  # whoever had the turn has done it
            some, self._waiting = self._waiting, set()
            try:
                for family, octets in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
                    packed = {socket.inet_pton(family, one) for one in some if (":" in one) == (octets == 16)}
                    if packed:
                        await self._forget(family, packed)
            except (OSError, NetlinkFormatError) as error:
                self._told(
                    "connections_not_forgotten", level="warning", addresses=sorted(some), error=str(error),
                    effect="packets of old connections may go where an address was",
                )  # fmt: skip

    async def _forget(self, family: int, addresses: set[bytes]) -> None:
        is_there = re.compile(b"|".join(re.escape(one) for one in addresses), re.DOTALL).search
        bodies: list[bytes] = []
        for data, answers in self._socket.dump(lambda sequence: dump_connections(sequence, family)):
            if is_there(data):
                likely = [frame for frame in answers if is_there(data, frame[4], frame[5])]
                bodies += self._deletions(data, likely, addresses)
            await asyncio.sleep(0)
        for at in range(0, len(bodies), BATCH):
            some = bodies[at : at + BATCH]
            first = self._socket.sequences(len(some))
            requests = [message(DELETE, NLM_F_REQUEST, number, body) for number, body in enumerate(some, start=first)]
            errors = [one for one in self._socket.write(requests, first).values() if one.code != _ENOENT]
            if errors:
                raise OSError(errors[0].code, f"{len(errors)} connections: {errors[0].text}")
            await asyncio.sleep(0)

    @staticmethod
    def _deletions(data: bytes, answers: list[Frame], addresses: set[bytes]) -> Iterator[bytes]:
        for _, _, _, _, start, end in answers:
            body = deletion(data, start, end, addresses)
            if body is not None:
                yield body
