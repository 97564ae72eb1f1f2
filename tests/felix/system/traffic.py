"""Connections and packets between pods, one at a time or without end.

The moment of a probe is when it is sent: a veth hands a packet over within the system call that sends it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field

from tests.felix.system.node import FelixNode
from tests.felix.truth.world import PARTIES, Party

WITHIN_S = 0.3
BEAT = struct.Struct("!Id")  # number, when it was sent


def bound(node: FelixNode, party: Party, kind: socket.SocketKind, port: int = 0) -> socket.socket:
    made = node.pods[party.name].socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((party.ipv4, port))
    return made


class Echo:
    """A pod's TCP and UDP server of one port. `accepted`: peer addresses; `beats`: what came by UDP, from whom."""

    def __init__(self, node: FelixNode, party: Party, port: int) -> None:
        self.accepted: list[tuple[str, int]] = []
        self.beats: list[tuple[str, int, float]] = []
        self._tcp = bound(node, party, socket.SOCK_STREAM, port)
        self._tcp.listen(512)
        self._udp = bound(node, party, socket.SOCK_DGRAM, port)
        self._open: set[socket.socket] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._tcp, self._accept)
        self._loop.add_reader(self._udp, self._receive)

    def _accept(self) -> None:
        with suppress(OSError):
            made, peer = self._tcp.accept()
            made.setblocking(False)
            self.accepted.append((peer[0], peer[1]))
            self._open.add(made)
            self._loop.add_reader(made, self._echo, made)

    def _echo(self, one: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            data = one.recv(4096)
        if data:
            with suppress(OSError):
                one.send(data)
        else:
            self._loop.remove_reader(one)
            self._open.discard(one)
            one.close()

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data, peer = self._udp.recvfrom(64)
            except OSError:
                return
            if len(data) == BEAT.size:
                self.beats.append((peer[0], *BEAT.unpack(data)))
            with suppress(OSError):
                self._udp.sendto(data, peer)

    def close(self) -> None:
        for one in (self._tcp, self._udp, *self._open):
            self._loop.remove_reader(one)
            one.close()


async def connects(node: FelixNode, source: str, destination: str, port: int, within_s: float = WITHIN_S) -> bool:
    """Whether a new TCP connection comes about."""
    one = bound(node, PARTIES[source], socket.SOCK_STREAM)
    try:
        await asyncio.wait_for(
            asyncio.get_running_loop().sock_connect(one, (PARTIES[destination].ipv4, port)), within_s
        )
    except (TimeoutError, OSError):
        return False
    finally:
        one.close()
    return True


@dataclass(slots=True)
class Tries:
    """When each was sent, and the moments of those that came through."""

    sent: list[float] = field(default_factory=list)
    passed: list[float] = field(default_factory=list)

    def failed(self) -> list[float]:
        through = set(self.passed)
        return [at for at in self.sent if at not in through]


class Stream:
    """One TCP connection that sends a number every few milliseconds and gets it back. `answered_at`: when something came."""

    def __init__(self, node: FelixNode, source: str, destination: str, port: int, every_s: float = 0.005) -> None:
        self._one = bound(node, PARTIES[source], socket.SOCK_STREAM)
        self._to = PARTIES[destination].ipv4, port
        self._every_s = every_s
        self.sent = self.received = 0
        self.longest_gap_s = 0.0
        self.broke: OSError | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(self._one, self._to)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._receive())
        except* OSError as errors:
            self.broke = errors.exceptions[0]  # type: ignore[assignment]
        finally:
            self._one.close()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(self._one, struct.pack("!I", self.sent))
            self.sent += 1
            await asyncio.sleep(self._every_s)

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        last_at = time.monotonic()
        octets = 0
        while data := await loop.sock_recv(self._one, 65536):
            now = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now - last_at)
            last_at = now
            octets += len(data)
            self.received = octets // 4
        raise ConnectionResetError("the other end closed")


class Beats:
    """UDP packets of one socket without end (a flow that conntrack knows), each answered. By number what was lost."""

    def __init__(self, node: FelixNode, source: str, destination: str, port: int, every_s: float = 0.005) -> None:
        self._one = bound(node, PARTIES[source], socket.SOCK_DGRAM)
        self._to = PARTIES[destination].ipv4, port
        self._every_s = every_s
        self.tries = Tries()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._one, self._receive)
        try:
            while True:
                at = time.monotonic()
                self.tries.sent.append(at)
                with suppress(OSError):
                    self._one.sendto(BEAT.pack(len(self.tries.sent), at), self._to)
                await asyncio.sleep(self._every_s)
        finally:
            loop.remove_reader(self._one)
            self._one.close()

    def _receive(self) -> None:
        with suppress(OSError):
            while True:
                self.tries.passed.append(BEAT.unpack(self._one.recv(64))[1])


async def new_connections(
    node: FelixNode, source: str, destination: str, port: int, tries: Tries, every_s: float, within_s: float = WITHIN_S
) -> None:
    """A new TCP connection every so often, without end, some at the same time."""

    async def one() -> None:
        at = time.monotonic()
        tries.sent.append(at)
        if await connects(node, source, destination, port, within_s):
            tries.passed.append(at)

    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(one())
            await asyncio.sleep(every_s)


class NewPackets:
    """UDP packets each of a flow of its own: what passes once is not known to conntrack the next time."""

    def __init__(self, node: FelixNode, source: str, destination: str, port: int, every_s: float = 0.002) -> None:
        self._node, self._source = node, PARTIES[source]
        self._to = PARTIES[destination].ipv4, port
        self._every_s = every_s
        self.sent = 0

    async def run(self) -> None:
        """By hand, from one port after the other."""
        with self._node.pods[self._source.name].socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as one:
            one.setblocking(False)
            one.bind((self._source.ipv4, 0))
            while True:
                self.sent += 1
                data = BEAT.pack(self.sent, time.monotonic())
                source_port = 1024 + self.sent % 64000
                header = struct.pack("!HHHH", source_port, self._to[1], 8 + len(data), 0)
                with suppress(OSError):
                    one.sendto(header + data, (self._to[0], 0))
                await asyncio.sleep(self._every_s)
