"""One record per AFI/SAFI: everything that differs between IPv4 and IPv6 unicast.

A prefix is an `Nlri`: canonical wire bytes, the length octet followed by as few address octets as hold that many
bits, trailing bits cleared (RFC 4271 §4.3 leaves them open; two spellings would be two keys).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Nlri = bytes
Address = bytes  # packed, 4 or 16 octets

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """An address family with its subsequent family (RFC 4760 §3). Compared by identity: there are two."""

    name: str
    afi: int
    safi: int
    max_bits: int

    @property
    def address_octets(self) -> int:
        return self.max_bits // 8

    @property
    def key(self) -> bytes:
        """AFI and SAFI as MP_REACH_NLRI starts with them, 3 octets."""
        return self.afi.to_bytes(2, "big") + bytes([self.safi])

    def __repr__(self) -> str:
        return self.name


IPV4 = Family("ipv4", 1, 1, 32)
IPV6 = Family("ipv6", 2, 1, 128)
FAMILIES = (IPV4, IPV6)
BY_KEY = {family.key: family for family in FAMILIES}
BY_NAME = {family.name: family for family in FAMILIES}


def family_of(address: Address) -> Family:
    return IPV4 if len(address) == 4 else IPV6


def nlri_of(network: IPNetwork) -> Nlri:
    bits = network.prefixlen
    return bytes([bits]) + network.network_address.packed[: (bits + 7) // 8]


def parse_prefix(text: str) -> tuple[Family, Nlri]:
    """`10.1.0.0/26` → its family and NLRI. Raises ValueError (host bits set, not a prefix)."""
    network = ipaddress.ip_network(text)
    return (IPV4 if network.version == 4 else IPV6), nlri_of(network)


def network_of(family: Family, nlri: Nlri) -> IPNetwork:
    octets = nlri[1:].ljust(family.address_octets, b"\0")
    if family is IPV4:
        return ipaddress.IPv4Network((octets, nlri[0]))
    return ipaddress.IPv6Network((octets, nlri[0]))


def prefix_text(family: Family, nlri: Nlri) -> str:
    return f"{address_text(nlri[1:].ljust(family.address_octets, bytes(1)))}/{nlri[0]}"


def address_text(address: Address) -> str:
    """Packed address → text. 32 octets are a global and a link-local next hop (RFC 2545 §3); empty is 'none'."""
    if len(address) == 4:
        return f"{address[0]}.{address[1]}.{address[2]}.{address[3]}"
    if len(address) == 32:
        return f"{ipaddress.IPv6Address(address[:16])}%{ipaddress.IPv6Address(address[16:])}"
    return str(ipaddress.IPv6Address(address)) if address else "none"


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    return ipaddress.ip_address(text).packed
