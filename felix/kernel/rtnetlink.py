"""Routes as rtnetlink speaks of them (linux/rtnetlink.h): encoding in bulk, decoding in bulk. Pure.

A route is a prefix and a `Via`. The prefix is bytes: the length octet followed by as few address octets as hold that
many bits. Thousands of routes share one `Via`, which is why both directions are cheap: the encoder puts a prefix into
a prepared message, the decoder looks the rest of a message up before it takes it apart.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

from felix.kernel.netlink import (
    HEADER_OCTETS,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkFormatError,
    attribute,
    attributes,
    message,
    u32,
)

AF_INET, AF_INET6 = 2, 10
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW = 1, 6, 7, 8, 9
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC, RTPROT_BIRD, RTPROT_FELIX = 2, 3, 4, 12, 80

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 9, 15, 18
_RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, bits of dst and src, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, weight - 1, interface index
_OCTETS = {AF_INET: 4, AF_INET6: 16}
_DST_HEADER = {family: struct.pack("=HH", 4 + octets, _RTA_DST) for family, octets in _OCTETS.items()}
_EXPECTED_HEADERS = {family: struct.pack("=HH", 8, _RTA_TABLE) + dst for family, dst in _DST_HEADER.items()}
_CACHE_BOUND = 4096  # bodies differ without end where a route has an expiry time (router advertisements)

Prefix = bytes


@dataclass(frozen=True, slots=True, order=True)
class Hop:
    """One way out. `gateway` is packed, of either family, or empty (on the link); `ifindex` 0 = the kernel finds it.

    `weight` is 1 to 256. `onlink`: take the gateway to be on the link although no subnet covers it.
    """

    gateway: bytes = b""
    ifindex: int = 0
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Via:
    """All of a route but its prefix: whose it is and where it leads.

    `family` is 2 or 10. No hops for the types that lead nowhere (blackhole, unreachable, prohibit, throw). `is_plain`
    is False for what depends on more than the destination (TOS, source) and for cached copies.
    """

    family: int
    table: int = RT_TABLE_MAIN
    protocol: int = RTPROT_BOOT
    type: int = RTN_UNICAST
    scope: int = RT_SCOPE_UNIVERSE
    metric: int = 0
    prefsrc: bytes = b""
    hops: tuple[Hop, ...] = ()
    is_plain: bool = True

    @property
    def is_connected(self) -> bool:
        return bool(self.hops) and not any(hop.gateway for hop in self.hops)


class RouteEncoder:
    """Writes routes that share one Via. About 1 µs a message."""

    __slots__ = ("_delete_head", "_head", "_length", "_pad", "_parts", "_tail", "via")

    def __init__(self, via: Via) -> None:
        self.via = via
        octets = _OCTETS[via.family]
        table = via.table if via.table < 256 else 0
        flags = _RTNH_F_ONLINK if len(via.hops) == 1 and via.hops[0].onlink else 0
        after_bits = struct.Struct("=BBBBBBI")  # the route's header behind its prefix length
        self._head = after_bits.pack(0, 0, table, via.protocol, _scope(via), via.type, flags) + _DST_HEADER[via.family]
        # No type and no scope, but protocol and metric: whatever is deleted is ours.
        self._delete_head = after_bits.pack(0, 0, table, via.protocol, RT_SCOPE_NOWHERE, 0, 0) + _DST_HEADER[via.family]
        self._pad = bytes(octets)
        self._parts: dict[int, tuple[bytes, bytes, bytes]] = {}  # by flags and prefix length
        self._tail = _tail(via)
        self._length = HEADER_OCTETS + _ROUTE.size + 4 + octets + len(self._tail)

    def put(self, prefix: Prefix, flags: int, sequence: int) -> bytes:
        """RTM_NEWROUTE. `flags` are NLM_F_CREATE with NLM_F_EXCL (only if nothing is there) or NLM_F_REPLACE."""
        parts = self._parts.get(flags << 8 | prefix[0])
        if parts is None:
            parts = self._parts[flags << 8 | prefix[0]] = self._prepare(prefix[0], flags)
        before, between, after = parts
        return before + sequence.to_bytes(4, sys.byteorder) + between + prefix[1:] + after

    def _prepare(self, bits: int, flags: int) -> tuple[bytes, bytes, bytes]:
        """What comes before the sequence number, between it and the prefix, and after the prefix."""
        before = struct.pack("=IHH", self._length, RTM_NEWROUTE, flags | NLM_F_REQUEST)
        between = bytes(4) + bytes((self.via.family, bits)) + self._head
        return before, between, self._pad[(bits + 7) >> 3 :] + self._tail

    def delete(self, prefix: Prefix, sequence: int, *, is_exact: bool = False) -> bytes:
        """RTM_DELROUTE of the route of this protocol, metric and table: the one that leads there, or wherever it leads."""
        body = (
            bytes((self.via.family, prefix[0]))
            + self._delete_head
            + prefix[1:]
            + self._pad[len(prefix) - 1 :]
            + (self._tail if is_exact else _identity(self.via))
        )
        return message(RTM_DELROUTE, NLM_F_REQUEST, sequence, body)


def _identity(via: Via) -> bytes:
    """What a deletion needs beside the prefix and the protocol."""
    metric = attribute(_RTA_PRIORITY, struct.pack("=I", via.metric)) if via.metric else b""
    return metric + (attribute(_RTA_TABLE, struct.pack("=I", via.table)) if via.table > 255 else b"")


def _scope(via: Via) -> int:
    """A route without a gateway is of scope link, or the kernel would not let a gateway be found on it (IPv4)."""
    return RT_SCOPE_LINK if via.family == AF_INET and via.is_connected else RT_SCOPE_UNIVERSE


def _tail(via: Via) -> bytes:
    tail = _identity(via)
    if via.prefsrc:
        tail += attribute(_RTA_PREFSRC, via.prefsrc)
    if len(via.hops) == 1:
        hop = via.hops[0]
        tail += _gateway(via.family, hop.gateway)
        if hop.ifindex:
            tail += attribute(_RTA_OIF, struct.pack("=I", hop.ifindex))
    elif via.hops:
        tail += attribute(_RTA_MULTIPATH, b"".join(_next_hop(via.family, hop) for hop in via.hops))
    return tail


def _next_hop(family: int, hop: Hop) -> bytes:
    gateway = _gateway(family, hop.gateway)
    flags = _RTNH_F_ONLINK if hop.onlink else 0
    return _NEXT_HOP.pack(8 + len(gateway), flags, hop.weight - 1, hop.ifindex) + gateway


def _gateway(family: int, gateway: bytes) -> bytes:
    if not gateway:
        return b""
    if len(gateway) == _OCTETS[family]:
        return attribute(_RTA_GATEWAY, gateway)
    other = AF_INET6 if len(gateway) == 16 else AF_INET  # RFC 8950: IPv4 by way of an IPv6 router
    return attribute(_RTA_VIA, struct.pack("=H", other) + gateway)


def dump_routes(family: int, table: int, protocol: int, sequence: int) -> bytes:
    """A request for all routes of a table; `protocol` 0 = anybody's. Filtered by the kernel in strict mode only."""
    body = _ROUTE.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0) + attribute(_RTA_TABLE, struct.pack("=I", table))
    return message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


class RouteDecoder:
    """Takes route messages apart. Equal Vias are one object, so that a table of a million routes stays small."""

    def __init__(self) -> None:
        self._by_body: dict[int, dict[bytes, Via]] = {AF_INET: {}, AF_INET6: {}}
        self._interned: dict[Via, Via] = {}

    def decode(self, data: bytes, start: int, end: int) -> tuple[Prefix, Via]:
        """The body of RTM_NEWROUTE or RTM_DELROUTE. Raises NetlinkFormatError, nothing else.

        The kernel has cleared a prefix's trailing bits before it tells of it.
        """
        if end - start < _ROUTE.size or end > len(data):
            raise NetlinkFormatError("shorter than a route's header")
        family, bits = data[start], data[start + 1]
        octets = _OCTETS.get(family)
        if octets is None or bits > octets * 8:
            raise NetlinkFormatError(f"a prefix of {bits} bits in family {family}")
        # The kernel writes table and destination first. Then everything else repeats from route to route.
        cut = start + 24 + octets
        headers = data[start + 12 : start + 16] + data[start + 20 : start + 24]
        if bits and cut <= end and headers == _EXPECTED_HEADERS[family]:
            cache = self._by_body[family]
            body = data[start + 2 : start + 20] + data[cut:end]
            via = cache.get(body)
            if via is None:
                via = self._parse(data, start, end, octets)[1]
                if len(cache) >= _CACHE_BOUND:
                    cache.clear()
                cache[body] = via
            return data[start + 1 : start + 2] + data[start + 24 : start + 24 + ((bits + 7) >> 3)], via
        destination, via = self._parse(data, start, end, octets)
        return bytes((bits,)) + destination[: (bits + 7) >> 3], via

    def _parse(self, data: bytes, start: int, end: int, octets: int) -> tuple[bytes, Via]:
        family, _bits, src_bits, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(data, start)
        destination = bytes(octets)
        metric, ifindex = 0, 0
        prefsrc = gateway = b""
        hops: tuple[Hop, ...] = ()
        for attribute_kind, first, last in attributes(data, start + _ROUTE.size, end):
            if attribute_kind == _RTA_DST:
                destination = _address(data, first, last, octets)
            elif attribute_kind == _RTA_TABLE:
                table = u32(data, first, last)
            elif attribute_kind == _RTA_PRIORITY:
                metric = u32(data, first, last)
            elif attribute_kind == _RTA_OIF:
                ifindex = u32(data, first, last)
            elif attribute_kind == _RTA_PREFSRC:
                prefsrc = _address(data, first, last, octets)
            elif attribute_kind == _RTA_GATEWAY:
                gateway = _address(data, first, last, octets)
            elif attribute_kind == _RTA_VIA:
                gateway = _other_gateway(data, first, last)
            elif attribute_kind == _RTA_MULTIPATH:
                hops = _hops(data, first, last, octets)
        if kind in _LEADS_NOWHERE:
            hops = ()  # IPv6 names the loopback interface for them
        elif not hops:
            hops = (Hop(gateway, ifindex, 1, bool(flags & _RTNH_F_ONLINK)),)
        plain = not (tos or src_bits or flags & _RTM_F_CLONED)
        via = Via(family, table, protocol, kind, scope, metric, prefsrc, hops, plain)
        if len(self._interned) >= _CACHE_BOUND:
            self._interned.clear()
        return destination, self._interned.setdefault(via, via)


_LEADS_NOWHERE = frozenset((RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW))


def _address(data: bytes, start: int, end: int, octets: int) -> bytes:
    if end - start != octets:
        raise NetlinkFormatError(f"an address of {end - start} octets where {octets} are due")
    return data[start:end]


def _other_gateway(data: bytes, start: int, end: int) -> bytes:
    if end - start not in (6, 18):
        raise NetlinkFormatError(f"a gateway with its family in {end - start} octets")
    return data[start + 2 : end]


def _hops(data: bytes, start: int, end: int, octets: int) -> tuple[Hop, ...]:
    hops = []
    while start < end:
        if end - start < _NEXT_HOP.size:
            raise NetlinkFormatError("a next hop cut short")
        length, flags, weight, ifindex = _NEXT_HOP.unpack_from(data, start)
        if length < _NEXT_HOP.size or start + length > end:
            raise NetlinkFormatError(f"next hop length {length}, {end - start} are left")
        gateway = b""
        for kind, first, last in attributes(data, start + _NEXT_HOP.size, start + length):
            if kind == _RTA_GATEWAY:
                gateway = _address(data, first, last, octets)
            elif kind == _RTA_VIA:
                gateway = _other_gateway(data, first, last)
        hops.append(Hop(gateway, ifindex & 0xFFFFFFFF, weight + 1, bool(flags & _RTNH_F_ONLINK)))
        start += (length + 3) & ~3
    return tuple(hops)
