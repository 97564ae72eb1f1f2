"""Socket options of BGP sessions: TCP-MD5 (RFC 2385), TTL security (RFC 5082), multihop, and who shares an interface."""

from __future__ import annotations

import ipaddress
import socket
import struct

from bgp.config import PeerConfig
from bgp.families import IPV4, IPV6, Address, Family, IPAddress, IPNetwork

TCP_MD5SIG, TCP_MD5SIG_EXT = 14, 32  # linux/tcp.h; Python has no names for them
IP_MINTTL, IPV6_MINHOPCOUNT = 21, 73
IP_FREEBIND = 15
_RTM_NEWADDR, _RTM_GETADDR, _REQUEST_DUMP = 20, 22, 0x301  # linux/rtnetlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
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
    interfaces = interface_addresses()
    exact = [index for index, address, _ in interfaces if address == local]
    # 127.0.0.2 is local without being anybody's address: its subnet says where.
    home = exact or [index for index, address, bits in interfaces if _is_inside(local, address, bits)]
    others = [a for index, a, _ in interfaces if home and index == home[0] and len(a) != len(local)]
    if others:
        other = min(others, key=lambda address: address[:2] == b"\xfe\x80")
        found[IPV4 if len(other) == 4 else IPV6] = other
    return found


def _is_inside(address: Address, network: Address, bits: int) -> bool:
    if len(address) != len(network):
        return False
    shift = 8 * len(address) - bits
    return int.from_bytes(address, "big") >> shift == int.from_bytes(network, "big") >> shift


def interface_addresses() -> list[tuple[int, Address, int]]:
    """(interface index, address, prefix length) of this network namespace; empty if the kernel does not say."""
    found: list[tuple[int, Address, int]] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.settimeout(1.0)
            netlink.send(struct.pack("=IHHIIBxxxI", 24, _RTM_GETADDR, _REQUEST_DUMP, 1, 0, 0, 0))
            while True:
                data = netlink.recv(1 << 16)
                at = 0
                while at + 16 <= len(data):
                    length, kind = struct.unpack_from("=IH", data, at)
                    if kind in (_NLMSG_ERROR, _NLMSG_DONE) or length < 16:
                        return found
                    if kind == _RTM_NEWADDR:
                        bits, index = data[at + 17], struct.unpack_from("=I", data, at + 20)[0]
                        address = _address_attribute(data[at + 24 : at + length])
                        if address:
                            found.append((index, address, bits))
                    at += length + 3 & ~3
    except OSError:
        return found


def _address_attribute(data: bytes) -> Address:
    """IFA_LOCAL if there is one (on a point-to-point link IFA_ADDRESS is the other end), else IFA_ADDRESS."""
    values = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        values[kind] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return values.get(2) or values.get(1, b"")
