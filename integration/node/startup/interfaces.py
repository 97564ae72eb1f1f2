"""This node's interfaces and their addresses, as the kernel has them now."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface

IPInterface = IPv4Interface | IPv6Interface
REACHED_PORT = 80  # nothing is sent there: connecting a UDP socket only asks for the route


@dataclass(frozen=True, slots=True)
class Interface:
    """`addresses` with the prefix length of their network, in the kernel's order."""

    index: int
    name: str
    addresses: tuple[IPInterface, ...] = ()


async def read_interfaces() -> list[Interface]:
    """In the order of their index, of the network namespace that this thread is in. Raises OSError."""
    # 15 MB and 0.3 s, and only a node that looks for its addresses needs it.
    pyroute2 = await asyncio.to_thread(importlib.import_module, "pyroute2")
    names: dict[int, str] = {}
    addresses: dict[int, list[IPInterface]] = {}
    try:
        async with pyroute2.AsyncIPRoute() as kernel:
            async for link in await kernel.get_links():
                names[link["index"]] = link.get("ifname")
            async for each in await kernel.get_addr():
                if each["family"] in (socket.AF_INET, socket.AF_INET6):
                    # On a point-to-point link `address` is the other end.
                    own = each.get("local") or each.get("address")
                    addresses.setdefault(each["index"], []).append(ip_interface(f"{own}/{each['prefixlen']}"))
    except pyroute2.NetlinkError as error:
        raise OSError(error.code, str(error)) from error
    return [Interface(index, name, tuple(addresses.get(index, ()))) for index, name in sorted(names.items())]


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
