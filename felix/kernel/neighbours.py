"""Neighbours (ARP, NDP) and forwarding entries of a VXLAN device as rtnetlink speaks of them (linux/neighbour.h). Pure."""

from __future__ import annotations

import socket
import struct

from felix.kernel.devices import octets_of
from felix.kernel.links import address_text
from felix.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NetlinkFormatError,
    attribute,
    attributes,
    message,
)
from felix.sync.devices import FdbEntry, Neighbour

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
AF_BRIDGE = 7
NUD_PERMANENT = 0x80
_NTF_SELF = 0x02
_NDA_DST, _NDA_LLADDR = 1, 2
_NDA_IFINDEX, NDA_PROTOCOL = 8, 12

_NEIGHBOUR = struct.Struct("=BBHiHBB")  # family, padding, padding, interface index, state, flags, type


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _message(kind: int, flags: int, sequence: int, index: int, one: Neighbour | FdbEntry, more: bytes = b"") -> bytes:
    is_fdb = isinstance(one, FdbEntry)
    address = one.node if isinstance(one, FdbEntry) else one.address
    family = AF_BRIDGE if is_fdb else _family(address)
    body = _NEIGHBOUR.pack(family, 0, 0, index, NUD_PERMANENT, _NTF_SELF if is_fdb else 0, 0)
    if address:
        body += attribute(_NDA_DST, socket.inet_pton(_family(address), address))
    body += attribute(_NDA_LLADDR, octets_of(one.mac)) + more
    return message(kind, NLM_F_REQUEST | flags, sequence, body)


def put_neighbour(sequence: int, index: int, one: Neighbour | FdbEntry, protocol: int = 0) -> bytes:
    """Permanent; in the place of what is there for the same address (or, in the forwarding table, MAC).

    `protocol` says whose it is, as a route's does; not in a forwarding table.
    """
    more = attribute(NDA_PROTOCOL, bytes((protocol,))) if protocol else b""
    return _message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sequence, index, one, more)


def delete_neighbour(sequence: int, index: int, one: Neighbour | FdbEntry) -> bytes:
    return _message(RTM_DELNEIGH, 0, sequence, index, one)


def dump_neighbours(sequence: int, family: int, index: int = 0) -> bytes:
    """AF_INET, AF_INET6. Of one link, where the kernel checks strictly; of all links otherwise, and for index 0."""
    body = _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0)
    if index:
        body += attribute(_NDA_IFINDEX, struct.pack("=I", index))
    return message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


def dump_fdb(sequence: int, index: int) -> bytes:
    """As `dump_neighbours`, of the forwarding table."""
    body = _NEIGHBOUR.pack(AF_BRIDGE, 0, 0, index, 0, 0, 0)
    return message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


def read_neighbour(data: bytes, start: int, end: int) -> tuple[int, Neighbour | FdbEntry] | None:
    """The body of RTM_NEWNEIGH: interface index, and the entry; None for what is not permanent, or not complete.

    Raises NetlinkFormatError.
    """
    if end - start < _NEIGHBOUR.size:
        raise NetlinkFormatError("shorter than a neighbour's header")
    family, _, _, index, state, flags, _ = _NEIGHBOUR.unpack_from(data, start)
    address, mac = "", ""
    for kind, first, last in attributes(data, start + _NEIGHBOUR.size, end):
        if kind == _NDA_DST and last - first in (4, 16):
            address = address_text(data[first:last])
        elif kind == _NDA_LLADDR and last - first == 6:
            mac = data[first:last].hex(":")
    if not state & NUD_PERMANENT or not mac:
        return None
    if family == AF_BRIDGE:
        return (index, FdbEntry(mac, address)) if flags & _NTF_SELF else None
    return (index, Neighbour(address, mac)) if address else None
