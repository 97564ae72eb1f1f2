"""This node's interfaces and their addresses, as the kernel has them now."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from felix.kernel.links import RTM_NEWADDR, RTM_NEWLINK, decode_address, decode_link, dump_addresses, dump_links
from felix.kernel.netlink import NetlinkFormatError
from felix.kernel.sockets import DumpInterrupted, RequestSocket

IPInterface = IPv4Interface | IPv6Interface
READINGS = 5  # of a kernel whose interfaces change all the while
REACHED_PORT = 80  # nothing is sent there: connecting a UDP socket only asks for the route


@dataclass(frozen=True, slots=True)
class Interface:
    """`addresses` with the prefix length of their network, in the kernel's order."""

    index: int
    name: str
    addresses: tuple[IPInterface, ...] = ()


def read_interfaces() -> list[Interface]:
    """In the order of their index, of the network namespace that this thread is in. Raises OSError."""
    kernel = RequestSocket()
    try:
        for tries_left in reversed(range(READINGS)):
            try:
                return dumped(kernel)
            except (DumpInterrupted, NetlinkFormatError) as error:
                if not tries_left:
                    raise OSError(errno.EAGAIN, f"the interfaces cannot be read whole: {error}") from error
    finally:
        kernel.close()
    raise AssertionError("unreachable")


def dumped(kernel: RequestSocket) -> list[Interface]:
    links: dict[int, str] = {}
    addresses: dict[int, list[IPInterface]] = {}
    for data, frames in kernel.dump(dump_links):
        for kind, _, _, _, start, end in frames:
            link = decode_link(data, start, end) if kind == RTM_NEWLINK else None
            if link is not None:
                links[link.index] = link.name
    for data, frames in kernel.dump(dump_addresses):
        for kind, _, _, _, start, end in frames:
            found = decode_address(data, start, end) if kind == RTM_NEWADDR else None
            if found is not None:
                own = found[0]
                addresses.setdefault(own.ifindex, []).append(ip_interface((own.address, own.bits)))
    return [Interface(index, name, tuple(addresses.get(index, ()))) for index, name in sorted(links.items())]


def with_length(address: IPv4Address | IPv6Address, interfaces: Iterable[Interface]) -> IPInterface | None:
    """The address as it stands on an interface, None if it is on none."""
    return next((one for each in interfaces for one in each.addresses if one.ip == address), None)


async def way_to(destination: str, version: int) -> IPv4Address | IPv6Address:
    """Our own address on the way to a host, given by address or name. Raises OSError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = await loop.getaddrinfo(destination, REACHED_PORT, family=family, type=socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        probe.connect(found[0][4])
        return ip_interface(str(probe.getsockname()[0]).partition("%")[0]).ip


def is_global_unicast(address: IPv4Address | IPv6Address) -> bool:
    """Go's IsGlobalUnicast, which Calico means: private addresses are, 0.0.0.0, loopback, link-local, multicast are not."""
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or str(address) == "255.255.255.255"
    )


def first_match(interfaces: Sequence[Interface], version: int) -> tuple[Interface, IPInterface] | None:
    """The first global unicast address; interfaces that came last are asked first, as Calico always did."""
    for each in sorted(interfaces, key=lambda one: one.index, reverse=True):
        for address in each.addresses:
            if address.version == version and is_global_unicast(address.ip):
                return each, address
    return None
