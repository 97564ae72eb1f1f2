"""Links and addresses as rtnetlink speaks of them (linux/if_link.h, linux/if_addr.h). Pure."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from felix.kernel.netlink import NLM_F_DUMP, NLM_F_REQUEST, NetlinkFormatError, attribute, attributes, message

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22

_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_IFLA_IFNAME, _IFLA_EXT_MASK = 3, 29
_RTEXT_FILTER_SKIP_STATS = 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_DADFAILED, _IFA_F_TENTATIVE, _IFA_F_OPTIMISTIC = 0x08, 0x40, 0x04

_LINK = struct.Struct("=BBHiII")  # family, padding, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface index
_OCTETS = {2: 4, 10: 16}


def address_text(packed: bytes) -> str:
    """Canonical, as in `felix.desired`: the C library writes some IPv6 addresses with an IPv4 one at their end."""
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    text = socket.inet_ntop(socket.AF_INET6, packed)
    return str(ipaddress.IPv6Address(packed)) if "." in text else text


@dataclass(frozen=True, slots=True)
class Link:
    """`is_up`: somebody wants it up, and IPv4 routes stand on it. `is_running`: it has a carrier as well."""

    index: int
    name: str
    is_up: bool
    is_running: bool


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """`address` is this node's own, packed; `bits` the length of its subnet."""

    ifindex: int
    address: bytes
    bits: int


def decode_link(data: bytes, start: int, end: int) -> Link | None:
    """The body of RTM_NEWLINK or RTM_DELLINK; None if it speaks of a bridge port and not of a link.

    Raises NetlinkFormatError.
    """
    if end - start < _LINK.size:
        raise NetlinkFormatError("shorter than a link's header")
    family, _, _, index, flags, _ = _LINK.unpack_from(data, start)
    if family != 0:  # AF_BRIDGE: a port left its bridge, the link itself lives on
        return None
    name = ""
    for kind, first, last in attributes(data, start + _LINK.size, end):
        if kind == _IFLA_IFNAME:
            name = data[first:last].rstrip(b"\0").decode("utf-8", "replace")
    return Link(index, name, bool(flags & _IFF_UP), flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING)


def decode_address(data: bytes, start: int, end: int) -> tuple[InterfaceAddress, bool] | None:
    """The body of RTM_NEWADDR or RTM_DELADDR, and whether the address may be used; None for other families.

    An IPv6 address is not ours before duplicate address detection has passed (RFC 4862 §5.4). Raises NetlinkFormatError.
    """
    if end - start < _ADDRESS.size:
        raise NetlinkFormatError("shorter than an address's header")
    family, bits, flags, _, index = _ADDRESS.unpack_from(data, start)
    octets = _OCTETS.get(family)
    if octets is None:
        return None
    local = peer = b""
    for kind, first, last in attributes(data, start + _ADDRESS.size, end):
        if kind == _IFA_LOCAL:
            local = data[first:last]
        elif kind == _IFA_ADDRESS:
            peer = data[first:last]
        elif kind == _IFA_FLAGS and last - first == 4:
            (flags,) = struct.unpack_from("=I", data, first)
    address = local or peer  # on a point-to-point link IFA_ADDRESS is the other end
    if len(address) != octets:
        raise NetlinkFormatError(f"an address of {len(address)} octets in family {family}")
    is_usable = not flags & (_IFA_F_DADFAILED | _IFA_F_TENTATIVE) or bool(flags & _IFA_F_OPTIMISTIC)
    return InterfaceAddress(index, address, bits), is_usable


def dump_links(sequence: int) -> bytes:
    extent = attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, sequence, _LINK.pack(0, 0, 0, 0, 0, 0) + extent)


def dump_addresses(sequence: int) -> bytes:
    return message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence, _ADDRESS.pack(0, 0, 0, 0, 0))
