"""Netlink messages for a pod's interface: a veth pair across two namespaces, its state, addresses. Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from felix.kernel.links import RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK
from felix.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    attribute,
    attributes,
    message,
)

_LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_NET_NS_FD, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 28, 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFF_UP = 1
_IFA_F_NODAD = 0x02
SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class LinkState:
    """What the kernel says about a link."""

    index: int
    name: str
    is_up: bool
    mtu: int
    mac: str


def octets_of(mac: str) -> bytes:
    """Raises ValueError."""
    octets = bytes.fromhex(mac.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(f"{mac!r} is no MAC address")
    return octets


def _named(name: str, mtu: int, mac: str, queues: int) -> bytes:
    said = attribute(_IFLA_IFNAME, name.encode() + b"\0") + attribute(_IFLA_MTU, struct.pack("=I", mtu))
    if mac:
        said += attribute(_IFLA_ADDRESS, octets_of(mac))
    if queues > 1:
        said += attribute(_IFLA_NUM_TX_QUEUES, struct.pack("=I", queues))
        said += attribute(_IFLA_NUM_RX_QUEUES, struct.pack("=I", queues))
    return said


def create_veth(
    sequence: int,
    *,
    host: str,
    host_mac: str,
    container: str,
    container_mac: str,
    namespace: int,
    mtu: int,
    queues: int,
) -> bytes:
    """Both ends at once, the container's in the open namespace. A MAC that is empty is drawn by the kernel.

    One message: nothing can come between, neither another's ADD nor a udev rule that renames.
    """
    peer = _LINK.pack(0, 0, 0, 0, 0, 0) + _named(container, mtu, container_mac, queues)
    peer += attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
    info = attribute(_IFLA_INFO_KIND, b"veth") + attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    body = _LINK.pack(0, 0, 0, 0, 0, 0) + _named(host, mtu, host_mac, queues) + attribute(_IFLA_LINKINFO, info)
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sequence, body)


def set_up(sequence: int, index: int) -> bytes:
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, _LINK.pack(0, 0, 0, index, _IFF_UP, _IFF_UP))


def delete_link(sequence: int, name: str) -> bytes:
    body = _LINK.pack(0, 0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return message(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def get_link(sequence: int, name: str) -> bytes:
    body = _LINK.pack(0, 0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def read_link(data: bytes, start: int, end: int) -> LinkState:
    """The body of RTM_NEWLINK. Raises NetlinkFormatError."""
    _, _, _, index, flags, _ = _LINK.unpack_from(data, start)
    name, mtu, mac = "", 0, ""
    for kind, first, last in attributes(data, start + _LINK.size, end):
        if kind == _IFLA_IFNAME:
            name = data[first:last].rstrip(b"\0").decode("utf-8", "replace")
        elif kind == _IFLA_MTU:
            (mtu,) = struct.unpack_from("=I", data, first)
        elif kind == _IFLA_ADDRESS:
            mac = data[first:last].hex(":")
    return LinkState(index, name, bool(flags & _IFF_UP), mtu, mac)


def add_address(sequence: int, index: int, address: str) -> bytes:
    """A single address, /32 or /128; an IPv6 one without duplicate address detection: IPAM has made sure."""
    parsed = ipaddress.ip_interface(address)
    flags = _IFA_F_NODAD if parsed.version == 6 else 0
    family = 10 if parsed.version == 6 else 2
    body = _ADDRESS.pack(family, parsed.network.prefixlen, flags, 0, index)
    body += attribute(_IFA_LOCAL, parsed.packed) + attribute(_IFA_ADDRESS, parsed.packed)
    if flags:
        body += attribute(_IFA_FLAGS, struct.pack("=I", flags))
    return message(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, sequence, body)


def dump_addresses_of(sequence: int, family: int, index: int) -> bytes:
    """Of one link, where the kernel checks strictly; of all links otherwise."""
    return message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence, _ADDRESS.pack(family, 0, 0, 0, index))
