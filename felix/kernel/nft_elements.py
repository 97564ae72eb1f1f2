"""Members of sets and entries of verdict maps as nf_tables' elements, and back. Pure; numbers from linux/netfilter/nf_tables.h.

A network is an interval: an element where it begins, and one flagged as its end behind it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from felix.desired import IPSetType
from felix.kernel.netlink import attribute, attributes

NESTED = 0x8000
INTERVAL_END = 1
GOTO = 0xFFFFFFFC  # -4
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_ENDS = struct.pack("!I", INTERVAL_END)
NAME_OCTETS = 16  # of an interface, the 0 behind it included

Key = bytes
"""An element's key with an octet in front: 1 if it ends an interval, else 0."""


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | NESTED, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def data(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def named(value: bytes) -> str:
    """A text attribute's value."""
    return value.rstrip(b"\0").decode(errors="replace")


# --- encoded ---------------------------------------------------------------------------------------------------------


def net_elements(cidr: str) -> list[bytes]:
    """Of a canonical network. The last address of all has no end. Raises ValueError."""
    address, _, length = cidr.partition("/")
    family, octets = (socket.AF_INET6, 16) if ":" in address else (socket.AF_INET, 4)
    try:
        first = socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{cidr!r} is no network") from None
    bits = 8 * octets
    beyond = int.from_bytes(first, "big") + (1 << bits - int(length or bits))
    found = [nested(1, data(1, first))]
    if beyond < 1 << bits:
        end = data(1, beyond.to_bytes(octets, "big")) + attribute(3, _ENDS)
        found.append(nested(1, end))
    return found


def port_element(member: str) -> bytes:
    """`10.0.0.1,tcp:80`."""
    address, _, rest = member.partition(",")
    protocol, _, port = rest.partition(":")
    key = (
        ipaddress.ip_address(address).packed + bytes((PROTOCOLS[protocol], 0, 0, 0)) + struct.pack("!HH", int(port), 0)
    )
    return nested(1, data(1, key))


def encode_member(type: IPSetType, member: str) -> list[bytes]:
    """Raises ValueError."""
    try:
        return net_elements(member) if type == "net" else [port_element(member)]
    except (KeyError, struct.error) as error:
        raise ValueError(f"{member!r} is no {type} member: {error}") from None


def interface_key(interface: str) -> bytes:
    return os.fsencode(interface).ljust(NAME_OCTETS, b"\0")


def interface_element(interface: str) -> bytes:
    return nested(1, data(1, interface_key(interface)))


def verdict_element(interface: str, chain: str) -> bytes:
    """interface → goto chain."""
    verdict = nested(2, nested(2, attribute(1, struct.pack("!I", GOTO)) + text(2, chain)))
    return nested(1, data(1, interface_key(interface)) + verdict)


def encode_key(key: Key) -> bytes:
    """An element by its key, to be deleted."""
    return nested(1, data(1, key[1:]) + (attribute(3, _ENDS) if key[0] else b""))


# --- decoded ---------------------------------------------------------------------------------------------------------


def decode_elements(received: bytes, start: int, end: int) -> Iterator[tuple[Key, str]]:
    """Keys, and the chains that a map's entries go to, of a message that tells elements."""
    for kind, first, last in attributes(received, start, end):
        if kind == 3:
            for _, one, two in attributes(received, first, last):
                yield _element(received, one, two)


def _element(received: bytes, start: int, end: int) -> tuple[Key, str]:
    key, flags, target = b"", 0, ""
    for kind, first, last in attributes(received, start, end):
        if kind == 1:
            key = _within(received, first, last, 1)
        elif kind == 2:
            target = _target(received, first, last)
        elif kind == 3:
            flags = int.from_bytes(received[first:last], "big")
    return bytes((flags & INTERVAL_END,)) + key, target


def _within(received: bytes, start: int, end: int, kind: int) -> bytes:
    return next((received[a:b] for number, a, b in attributes(received, start, end) if number == kind), b"")


def _target(received: bytes, start: int, end: int) -> str:
    """Empty for whatever is no `goto`."""
    verdict = _within(received, start, end, 2)
    said = {number: verdict[a:b] for number, a, b in attributes(verdict, 0, len(verdict))}
    return named(said.get(2, b"")) if said.get(1) == struct.pack("!I", GOTO) else ""


def member_keys(type: IPSetType, member: str) -> tuple[Key, ...]:
    """What `members_of` finds in the kernel for this member. Raises ValueError."""
    return tuple(_element(one, 4, len(one))[0] for one in encode_member(type, member))


def members_of(keys: Iterable[Key]) -> set[tuple[Key, ...]]:
    """Put together again: where an interval begins, and where it has ended if it does.

    Two intervals that begin alike are two members: 10.0.0.0/8 is not 10.0.0.0/16. nft writes an end in front of all
    intervals, which belongs to none and is left out.
    """
    found: set[tuple[Key, ...]] = set()
    begun: Key | None = None
    for key in sorted(keys, key=lambda one: (one[1:], not one[0])):
        if not key[0]:
            if begun is not None:
                found.add((begun,))
            begun = key
        elif begun is not None:
            found.add((begun, key))
            begun = None
    if begun is not None:
        found.add((begun,))
    return found


def interface_of(key: Key) -> str:
    return os.fsdecode(key[1:].rstrip(b"\0"))
