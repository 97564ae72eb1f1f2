"""Netlink messages that make, read, change and delete network devices and their addresses (linux/if_link.h, if_addr.h). Pure."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from felix.kernel.links import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    address_text,
)
from felix.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NetlinkFormatError,
    attribute,
    attributes,
    message,
    u32,
)
from felix.sync.devices import VxlanParameters

LINK = struct.Struct("=BBHiII")  # family, padding, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface index
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 1, 3, 4, 18
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 29, 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, IFA_PROTOCOL = 1, 2, 8, 11
IFF_UP = 1
_IFA_F_NODAD = 0x02
SCOPE_LINK = 253

_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_VXLAN_LOCAL6, _VXLAN_ZERO_CSUM6_RX, _VXLAN_COLLECT_METADATA = 17, 20, 25


@dataclass(frozen=True, slots=True)
class LinkState:
    """What the kernel says about a link. `vxlan` is None if it is none, or one that takes its tunnels from elsewhere."""

    index: int
    name: str
    is_up: bool
    mtu: int
    mac: str
    kind: str = ""
    vxlan: VxlanParameters | None = None


def octets_of(mac: str) -> bytes:
    """Raises ValueError."""
    octets = bytes.fromhex(mac.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(f"{mac!r} is no MAC address")
    return octets


def create_device(sequence: int, name: str, kind: str, mtu: int, mac: str = "", parameters: bytes = b"") -> bytes:
    """Down. `mtu` 0 and `mac` empty: the kernel chooses. `parameters` are the kind's own attributes."""
    info = attribute(IFLA_INFO_KIND, kind.encode())
    if parameters:
        info += attribute(IFLA_INFO_DATA, parameters)
    body = LINK.pack(0, 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    if mtu:
        body += attribute(IFLA_MTU, struct.pack("=I", mtu))
    if mac:
        body += attribute(IFLA_ADDRESS, octets_of(mac))
    body += attribute(IFLA_LINKINFO, info)
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sequence, body)


def vxlan_attributes(one: VxlanParameters) -> bytes:
    """No learning unless asked: the nodes are known. IPv6 packets without UDP checksum are taken, and never sent."""
    family = socket.AF_INET6 if ":" in one.local else socket.AF_INET
    said = attribute(_VXLAN_ID, struct.pack("=I", one.vni))
    said += attribute(_VXLAN_LINK, struct.pack("=I", one.parent))
    said += attribute(_VXLAN_PORT, struct.pack("!H", one.port))
    said += attribute(_VXLAN_LEARNING, bytes((one.learns,)))
    said += attribute(_VXLAN_LOCAL6 if ":" in one.local else _VXLAN_LOCAL, socket.inet_pton(family, one.local))
    if ":" in one.local:
        said += attribute(_VXLAN_ZERO_CSUM6_RX, b"\1")
    return said


def change_link(
    sequence: int, index: int, *, is_up: bool | None = None, mtu: int | None = None, mac: str | None = None
) -> bytes:
    """What is None stays as it is."""
    mask = 0 if is_up is None else IFF_UP
    body = LINK.pack(0, 0, 0, index, IFF_UP if is_up else 0, mask)
    if mtu is not None:
        body += attribute(IFLA_MTU, struct.pack("=I", mtu))
    if mac is not None:
        body += attribute(IFLA_ADDRESS, octets_of(mac))
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def set_up(sequence: int, index: int) -> bytes:
    return change_link(sequence, index, is_up=True)


def delete_link(sequence: int, name: str) -> bytes:
    body = LINK.pack(0, 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    return message(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def get_link(sequence: int, name: str) -> bytes:
    body = LINK.pack(0, 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    body += attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def read_link(data: bytes, start: int, end: int) -> LinkState:
    """The body of RTM_NEWLINK. Raises NetlinkFormatError."""
    if end - start < LINK.size:
        raise NetlinkFormatError("shorter than a link's header")
    _, _, _, index, flags, _ = LINK.unpack_from(data, start)
    name, mtu, mac, kind = "", 0, "", ""
    vxlan: VxlanParameters | None = None
    for what, first, last in attributes(data, start + LINK.size, end):
        if what == IFLA_IFNAME:
            name = _text(data, first, last)
        elif what == IFLA_MTU:
            mtu = u32(data, first, last)
        elif what == IFLA_ADDRESS:
            mac = data[first:last].hex(":")
        elif what == IFLA_LINKINFO:
            kind, vxlan = _read_kind(data, first, last)
    return LinkState(index, name, bool(flags & IFF_UP), mtu, mac, kind, vxlan)


def _text(data: bytes, start: int, end: int) -> str:
    return data[start:end].rstrip(b"\0").decode("utf-8", "replace")


def _read_kind(data: bytes, start: int, end: int) -> tuple[str, VxlanParameters | None]:
    kind, parameters = "", (0, 0)
    for what, first, last in attributes(data, start, end):
        if what == IFLA_INFO_KIND:
            kind = _text(data, first, last)
        elif what == IFLA_INFO_DATA:
            parameters = (first, last)
    return kind, read_vxlan(data, *parameters) if kind == "vxlan" else None


def read_vxlan(data: bytes, start: int, end: int) -> VxlanParameters | None:
    """The attributes of IFLA_INFO_DATA. Raises NetlinkFormatError."""
    vni = parent = port = 0
    local, learns = "", False
    for what, first, last in attributes(data, start, end):
        if what == _VXLAN_ID:
            vni = u32(data, first, last)
        elif what == _VXLAN_LINK:
            parent = u32(data, first, last)
        elif what == _VXLAN_PORT and last - first == 2:
            port = int.from_bytes(data[first:last], "big")
        elif what == _VXLAN_LEARNING and last > first:
            learns = data[first] != 0
        elif what in (_VXLAN_LOCAL, _VXLAN_LOCAL6) and last - first in (4, 16):
            local = address_text(data[first:last])
        elif what == _VXLAN_COLLECT_METADATA and last > first and data[first]:
            return None
    return VxlanParameters(vni, port, local, parent, learns)


def _address(
    kind: int, flags: int, sequence: int, index: int, address: str, scope: int = 0, more: bytes = b""
) -> bytes:
    parsed = ipaddress.ip_interface(address)
    no_detection = _IFA_F_NODAD if parsed.version == 6 else 0
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    body = _ADDRESS.pack(family, parsed.network.prefixlen, no_detection, scope, index)
    body += attribute(_IFA_LOCAL, parsed.packed)
    if kind == RTM_NEWADDR:  # without it a deletion finds an address that has another end, too
        body += attribute(_IFA_ADDRESS, parsed.packed)
    if no_detection:
        body += attribute(_IFA_FLAGS, struct.pack("=I", no_detection))
    body += more
    return message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, body)


def add_address(sequence: int, index: int, address: str) -> bytes:
    """With its length, else /32 or /128; an IPv6 one without duplicate address detection: IPAM has made sure."""
    return _address(RTM_NEWADDR, NLM_F_CREATE, sequence, index, address)


def add_link_address(sequence: int, index: int, address: str, protocol: int) -> bytes:
    """One that is nobody's source on other links (IPv4). `protocol` says whose it is, as a route's does (since Linux 5.18)."""
    more = attribute(IFA_PROTOCOL, bytes((protocol,)))
    scope = 0 if ":" in address else SCOPE_LINK
    return _address(RTM_NEWADDR, NLM_F_CREATE, sequence, index, address, scope, more)


def delete_address(sequence: int, index: int, address: str) -> bytes:
    return _address(RTM_DELADDR, 0, sequence, index, address)


def dump_addresses_of(sequence: int, family: int, index: int) -> bytes:
    """Of one link, where the kernel checks strictly; of all links otherwise."""
    return message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence, _ADDRESS.pack(family, 0, 0, 0, index))
