"""Socket options of BGP sessions: TCP-MD5 (RFC 2385), TTL security (RFC 5082), multihop, and who shares an interface."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

from bgp.config import PeerConfig
from bgp.families import IPV4, IPV6, Address, Family, IPAddress, IPNetwork

TCP_MD5SIG, TCP_MD5SIG_EXT = 14, 32  # linux/tcp.h; Python has no names for them
IP_MINTTL, IPV6_MINHOPCOUNT = 21, 73
IP_FREEBIND = 15
_SIOCGIFADDR = 0x8915
_MD5_FLAG_PREFIX = 1


def set_md5(sock: socket.socket, peer: IPAddress | IPNetwork, password: str | None) -> None:
    """Set, change or (None) remove the key for a peer or a range. On a running connection it changes live.

    Raises OSError; a missing key to remove is no error.
    """
    key = b"" if password is None else password.encode()
    if isinstance(peer, ipaddress.IPv4Network | ipaddress.IPv6Network):
        address, bits, option = peer.network_address, peer.prefixlen, TCP_MD5SIG_EXT
    else:
        address, bits, option = peer, 0, TCP_MD5SIG
    if sock.family == socket.AF_INET6 and address.version == 4:
        address = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
        bits = bits + 96 if bits else 0
    if address.version == 4:
        where = struct.pack("HH4s", socket.AF_INET, 0, address.packed)
    else:
        where = struct.pack("HHI16sI", socket.AF_INET6, 0, 0, address.packed, 0)
    flags = _MD5_FLAG_PREFIX if option == TCP_MD5SIG_EXT else 0
    value = where.ljust(128, b"\0") + struct.pack("BBHI", flags, bits, len(key), 0) + key.ljust(80, b"\0")
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except FileNotFoundError:
        if password is not None:
            raise


def set_ttl(sock: socket.socket, config: PeerConfig, *, is_ebgp: bool) -> None:
    """RFC 5082: send 255 and take nothing that came further than `ttl_security` hops. Else eBGP is one hop by default."""
    is_v4 = sock.family == socket.AF_INET
    level = socket.IPPROTO_IP if is_v4 else socket.IPPROTO_IPV6
    ttl_option = socket.IP_TTL if is_v4 else socket.IPV6_UNICAST_HOPS
    if config.ttl_security is not None:
        sock.setsockopt(level, ttl_option, 255)
        sock.setsockopt(level, IP_MINTTL if is_v4 else IPV6_MINHOPCOUNT, 256 - config.ttl_security)
    elif config.multihop is not None:
        sock.setsockopt(level, ttl_option, config.multihop)
    elif is_ebgp:
        sock.setsockopt(level, ttl_option, 1)


def addresses_beside(local: Address) -> dict[Family, Address]:
    """`local` itself and one address of the other family on the interface that has it; global before link-local."""
    found = {IPV4 if len(local) == 4 else IPV6: local}
    v6 = _ipv6_addresses()
    v4 = _ipv4_addresses()
    if len(local) == 4:
        for name in (name for name, address in v4 if address == local):
            candidates = sorted(item for item in v6 if item[0] == name)
            if candidates:
                found[IPV6] = candidates[0][2]
                break
    else:
        for name in (name for name, _, address in v6 if address == local):
            candidates_v4 = [address for other, address in v4 if other == name]
            if candidates_v4:
                found[IPV4] = candidates_v4[0]
                break
    return found


def _ipv6_addresses() -> list[tuple[str, bool, Address]]:
    """(interface, is not global, address); /proc/net is this process's namespace."""
    try:
        with open("/proc/net/if_inet6") as lines:
            rows = [line.split() for line in lines]
    except OSError:
        return []
    return [(row[5], row[3] != "00", bytes.fromhex(row[0])) for row in rows]


def _ipv4_addresses() -> list[tuple[str, Address]]:
    """(interface, its first address)."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found.append((name, answer[20:24]))
    return found
