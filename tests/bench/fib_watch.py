"""A second pair of eyes on a namespace's IPv4 routes: counts them as the kernel accepts them, then dumps and compares.

An rtnetlink reader of its own, so that a bug in the speaker's is not in its judge.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bgp.families import Nlri

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTMGRP_IPV4_ROUTE = 0x40
SO_RCVBUFFORCE = 33
NLM_F_DUMP = 0x301  # with NLM_F_REQUEST
RTA_DST, RTA_GATEWAY = 1, 5
HEADER = struct.Struct("=IHHII")
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg

DAEMON_ADDRESS, PEER_ADDRESS = "10.9.0.1", "10.9.0.2"


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Sockets made inside belong to this network namespace for good. For a single-threaded program."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, 0):
            raise OSError(ctypes.get_errno(), f"setns {name}")
        yield
        libc.setns(home, 0)
    finally:
        os.close(home)
        os.close(there)


@contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """Names of the daemon's and its peer's namespace, joined by a veth with 10.9.0.1/24 and 10.9.0.2/24."""
    tag = f"cbb{os.getpid()}{uuid.uuid4().hex[:4]}"
    names = (f"{tag}d", f"{tag}p")
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", names[0], "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", names[1])
        for name, address in zip(names, (DAEMON_ADDRESS, PEER_ADDRESS), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "e0")
            _ip("-n", name, "link", "set", "e0", "up")
        yield names
    finally:
        for name in names:
            if Path(f"/run/netns/{name}").exists():
                _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


class FibWatch:
    """Counts routes added in a namespace. `lost_count`: the kernel dropped notifications, `dump` still tells the truth."""

    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.added = 0
        self.removed = 0
        self.lost_count = False
        with entered(netns):
            self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self.sock.bind((0, RTMGRP_IPV4_ROUTE))
        self.sock.setblocking(False)

    def drain(self) -> None:
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                self.lost_count = True  # ENOBUFS
                return
            for kind, _ in _messages(data):
                self.added += kind == RTM_NEWROUTE
                self.removed += kind == RTM_DELROUTE

    def dump(self) -> dict[Nlri, bytes]:
        """Unicast routes of the main table with a gateway: prefix → gateway."""
        with entered(self.netns), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            body = ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
            sock.send(HEADER.pack(HEADER.size + len(body), RTM_GETROUTE, NLM_F_DUMP, 1, 0) + body)
            routes: dict[Nlri, bytes] = {}
            while True:
                for kind, message in _messages(sock.recv(1 << 18)):
                    if kind == 3:  # NLMSG_DONE
                        return routes
                    if kind == RTM_NEWROUTE and message[4] == 254:
                        _add_route(message, routes)

    def close(self) -> None:
        self.sock.close()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        yield kind, data[at + HEADER.size : at + length]
        at += max(HEADER.size, (length + 3) & ~3)


def _add_route(message: bytes, routes: dict[Nlri, bytes]) -> None:
    bits, at = message[1], ROUTE.size
    destination, gateway = b"", b""
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == RTA_DST:
            destination = message[at + 4 : at + length]
        elif kind == RTA_GATEWAY:
            gateway = message[at + 4 : at + length]
        at += max(4, (length + 3) & ~3)
    if gateway:
        routes[bytes([bits]) + destination[: (bits + 7) // 8]] = gateway
