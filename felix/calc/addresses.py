"""Addresses and networks as numbers for containment, and in canonical text for messages."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from felix.calc.reading import Invalid
from integration.resources.fields import parse_network

BITS = {4: 32, 6: 128}


class Net(NamedTuple):
    """A network; a single address has the full length."""

    version: int
    value: int
    length: int

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"

    @property
    def address(self) -> str:
        """Without length."""
        value = self.value
        if self.version == 4:
            return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
        return str(IPv6Address(value))

    @property
    def is_single(self) -> bool:
        return self.length == BITS[self.version]

    def cut(self, length: int) -> Net:
        """The network of `length` around it."""
        spare = BITS[self.version] - length
        return Net(self.version, self.value >> spare << spare, length)

    def contains(self, other: Net) -> bool:
        return self.version == other.version and self.length <= other.length and other.cut(self.length) == self


@lru_cache(maxsize=4096)
def parse_net(text: str) -> Net:
    """`10.0.0.0/8`, `10.0.0.1` (a single address), host bits cleared. Raises ValueError."""
    if (fast := plain_ipv4(text)) is not None:
        return fast
    network = parse_network(text)
    return Net(network.version, int(network.network_address), network.prefixlen)


def plain_ipv4(text: str) -> Net | None:
    """By hand what nearly all are; None for whatever is not plain. (`ipaddress` takes ten times as long.)"""
    address, _, length = text.partition("/")
    octets = address.split(".")
    if len(octets) != 4 or len(text) > 18 or not text.isascii():
        return None
    value = 0
    for octet in octets:
        if not octet.isdigit() or (octet[0] == "0" and len(octet) > 1) or (number := int(octet)) > 255:
            return None
        value = value << 8 | number
    if not length:
        return Net(4, value, 32) if "/" not in text else None
    if not length.isdigit() or len(length) > 2 or (bits := int(length)) > 32:
        return None
    return Net(4, value, 32).cut(bits)


def read_net(text: object, field: str) -> Net:
    """Raises Invalid."""
    if not isinstance(text, str):
        raise Invalid(field, text, "is not a text")
    try:
        return parse_net(text)
    except ValueError as error:
        raise Invalid(field, text, str(error), "an address or a CIDR such as 10.0.0.0/16 or fd00::/64") from None


def read_address(text: str, field: str, version: int = 0) -> str:
    """The canonical text without length; empty for the empty text. Raises Invalid."""
    if not text:
        return ""
    net = read_net(text, field)
    if "/" in text or (version and net.version != version):
        raise Invalid(field, text, f"is not an IP{f'v{version}' if version else ''} address")
    return net.address


def interface_of(text: str, field: str, version: int) -> tuple[Net, Net] | None:
    """Address and network of `10.0.0.5/24`; None for the empty text. Raises Invalid."""
    if not text:
        return None
    net = read_net(text, field)
    address = read_net(text.partition("/")[0], field)
    if net.version != version:
        raise Invalid(field, text, f"is not an IPv{version} address")
    return address, net
