"""What a rule does with a packet, as nf_tables' expressions. Pure. Jumps are nft_rules.py's, which knows chains' names."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Mapping
from typing import Any

from felix.desired import IPVersion, PortRange
from felix.filter_rules import (
    DNAT,
    SNAT,
    Accept,
    Drop,
    LimitConnections,
    LimitPacketRate,
    Log,
    Masquerade,
    NFLog,
    NoTrack,
    Reject,
    Return,
    SetDSCP,
    SetMark,
)
from felix.kernel.netlink import attribute
from felix.kernel.nft_elements import text
from felix.kernel.nft_expressions import (
    EQUAL,
    META_MARK,
    META_PROTOCOL,
    NETWORK,
    Unencodable,
    be32,
    compare,
    expression,
    host_u32,
    immediate,
    limit,
    masked,
    meta,
    payload,
    verdict,
)
from felix.rules.nft_text import FULL, comment_text, prefix_text

TCP = 6
PORT_UNREACHABLE = {4: 3, 6: 4}
LEVEL_NOTICE = 5
FAMILIES = {4: 2, 6: 10}
SOURCE_NAT, DESTINATION_NAT = 0, 1
MAP_ADDRESSES, PORTS_GIVEN, FULLY_RANDOM = 1, 2, 16
ADDRESS_REGISTER, FIRST_PORT_REGISTER, LAST_PORT_REGISTER = 1, 2, 3
OVER = 1  # a limit of connections: what is more than it
CSUM_INET, CSUM_AT = 1, 10
MAX_DSCP = 63


def set_mark(_: IPVersion, one: SetMark) -> bytes:
    kept = host_u32(FULL & ~one.mask)
    return meta(META_MARK) + masked(kept, host_u32(one.value)) + expression("meta", be32(2, META_MARK) + be32(3, 1))


def nflog(_: IPVersion, one: NFLog) -> bytes:
    said = attribute(1, struct.pack("!H", one.group)) + text(2, prefix_text(one.prefix))
    return limit(one.rate, one.burst) + expression("log", said)


def log(_: IPVersion, one: Log) -> bytes:
    return limit(one.rate, one.burst) + expression("log", text(2, comment_text(one.prefix)) + be32(5, LEVEL_NOTICE))


def reject(version: IPVersion, one: Reject) -> bytes:
    kind, code = (1, 0) if one.how == "tcp-reset" else (0, PORT_UNREACHABLE[version])
    return expression("reject", be32(1, kind) + attribute(2, bytes((code,))))


def packet_rate(version: IPVersion, one: LimitPacketRate) -> bytes:
    return limit(f"{one.per_second}/second", one.burst) + set_mark(version, SetMark(one.mark, one.mark))


def connections(version: IPVersion, one: LimitConnections) -> bytes:
    over = expression("connlimit", be32(1, one.most) + be32(2, OVER))
    return meta(META_PROTOCOL) + compare(EQUAL, bytes((TCP,))) + over + reject(version, Reject("tcp-reset"))


def dscp(version: IPVersion, one: SetDSCP) -> bytes:
    """The first 16 bits of the header are read, altered and written: an IPv4 header's checksum goes by 16 bits."""
    if not 0 <= one.value <= MAX_DSCP:
        raise Unencodable(f"a DSCP of {one.value}")
    kept, value = (0xFF03, one.value << 2) if version == 4 else (0xF03F, one.value << 6)
    altered = payload(NETWORK, 0, 2) + masked(struct.pack("!H", kept), struct.pack("!H", value))
    said = be32(5, 1) + be32(2, NETWORK) + be32(3, 0) + be32(4, 2)
    checksum = be32(6, CSUM_INET) + be32(7, CSUM_AT) if version == 4 else be32(6, 0) + be32(7, 0)
    return altered + expression("payload", said + checksum + be32(8, 0))


# --- translations ----------------------------------------------------------------------------------------------------


def _ports(ports: PortRange | None) -> bytes:
    if ports is None:
        return b""
    found = immediate(FIRST_PORT_REGISTER, struct.pack("!H", ports.first))
    if ports.last != ports.first:
        found += immediate(LAST_PORT_REGISTER, struct.pack("!H", ports.last))
    return found


def _port_registers(ports: PortRange | None, minimum: int, maximum: int) -> bytes:
    if ports is None:
        return b""
    found = be32(minimum, FIRST_PORT_REGISTER)
    return found + be32(maximum, LAST_PORT_REGISTER) if ports.last != ports.first else found


def masquerade(_: IPVersion, one: Masquerade) -> bytes:
    flags = (FULLY_RANDOM if one.is_fully_random else 0) | (PORTS_GIVEN if one.ports else 0)
    said = (be32(1, flags) if flags else b"") + _port_registers(one.ports, 2, 3)
    return _ports(one.ports) + expression("masq", said)


def translate(version: IPVersion, kind: int, address: str, ports: PortRange | None, flags: int) -> bytes:
    target = ipaddress.ip_address(address)
    if target.version != version:
        raise Unencodable(f"{address} is no IPv{version} address")
    flags |= MAP_ADDRESSES | (PORTS_GIVEN if ports else 0)
    said = be32(1, kind) + be32(2, FAMILIES[version]) + be32(3, ADDRESS_REGISTER)
    said += _port_registers(ports, 5, 6) + be32(7, flags)
    return _address(target) + _ports(ports) + expression("nat", said)


def _address(target: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return immediate(ADDRESS_REGISTER, target.packed)


def snat(version: IPVersion, one: SNAT) -> bytes:
    return translate(version, SOURCE_NAT, one.address, one.ports, FULLY_RANDOM if one.is_fully_random else 0)


def dnat(version: IPVersion, one: DNAT) -> bytes:
    ports = PortRange(one.port, one.port) if one.port else None
    return translate(version, DESTINATION_NAT, one.address, ports, 0)


ACTIONS: Mapping[type, Callable[[IPVersion, Any], bytes]] = {
    Accept: lambda _, _one: verdict("accept"),
    Drop: lambda _, _one: verdict("drop"),
    Return: lambda _, _one: verdict("return"),
    Reject: reject,
    SetMark: set_mark,
    NFLog: nflog,
    Log: log,
    NoTrack: lambda _, _one: expression("notrack", b""),
    LimitPacketRate: packet_rate,
    LimitConnections: connections,
    Masquerade: masquerade,
    SNAT: snat,
    DNAT: dnat,
    SetDSCP: dscp,
}
