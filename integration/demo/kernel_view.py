"""What stands in a namespace's routing tables, as the kernel says it, and every route that leaves them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.rtnl.iprsocket import MarshalRtnl

from bgp.families import IPAddress, IPNetwork
from integration.demo.namespaces import Namespace

# The protocol numbers under which a routing daemon writes: BIRD's (catbird takes the same), and FRR's for BGP.
BGP_PROTOCOLS = frozenset({12, 186})
MAIN_TABLE = 254


@dataclass(frozen=True, slots=True)
class KernelRoute:
    prefix: IPNetwork
    protocol: int
    gateways: frozenset[IPAddress]


def bgp_routes(namespace: Namespace) -> dict[IPNetwork, KernelRoute]:
    """The routes that a BGP daemon wrote into the main table, both families."""
    return {route.prefix: route for route in namespace.run(_dump) if route.protocol in BGP_PROTOCOLS}


def addresses_of(namespace: Namespace, interface: str = "eth0") -> frozenset[IPAddress]:
    """All of an interface's addresses, its link-local one too: what a route over it may have as its gateway."""

    def read() -> frozenset[IPAddress]:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=interface)[0]
            found = [message.get_attr("IFA_ADDRESS") for message in netlink.get_addr(index=index)]
            return frozenset(ipaddress.ip_address(address) for address in found)

    return namespace.run(read)


def _dump() -> list[KernelRoute]:
    with IPRoute() as netlink:
        return [
            _route(message)
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in netlink.get_routes(family=family, table=MAIN_TABLE)
        ]


def _route(message: Any) -> KernelRoute:
    hops = message.get_attr("RTA_MULTIPATH") or [message]
    gateways = {hop.get_attr("RTA_GATEWAY") or (hop.get_attr("RTA_VIA") or {}).get("addr") for hop in hops}
    any_address = "0.0.0.0" if message["family"] == socket.AF_INET else "::"
    destination = message.get_attr("RTA_DST") or any_address
    return KernelRoute(
        prefix=ipaddress.ip_network(f"{destination}/{message['dst_len']}"),
        protocol=message["proto"],
        gateways=frozenset(ipaddress.ip_address(gateway) for gateway in gateways if gateway),
    )


class DeletionWatch:
    """Hears of every route of a BGP daemon that leaves a namespace's main table, from now on."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.run(_listen)

    def deleted(self) -> list[KernelRoute]:
        """What went since the last call. Raises OSError ENOBUFS if there was more than the socket could hold."""
        gone: list[KernelRoute] = []
        parser = MarshalRtnl()
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return gone
            for message in parser.parse(data):
                if message["header"]["type"] == rtnl.RTM_DELROUTE and message["table"] == MAIN_TABLE:
                    route = _route(message)
                    if route.protocol in BGP_PROTOCOLS:
                        gone.append(route)

    def close(self) -> None:
        self._socket.close()


def _listen() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made.bind((0, rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE))
    return made
