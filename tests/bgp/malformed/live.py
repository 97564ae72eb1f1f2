"""A real speaker on loopback TCP, and routers that say to it whatever a test wants said.

`LiveSpeaker` runs the engine and its asyncio server in a thread of its own; a `Router` is a blocking socket with just
enough BGP to come up. `Healthy` is the other session: an external peer that must not notice anything, and from whose
side the tests see what became of a route.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

from bgp.config import PeerConfig, SpeakerConfig
from bgp.io.server import SpeakerServer
from bgp.speaker import Speaker

Result = TypeVar("Result")

MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE, REFRESH = 1, 2, 3, 4, 5
SPEAKER_ASN, EXTERNAL_ASN, HEALTHY_ASN = 65001, 65002, 65003
SPEAKER_ID, HEALTHY_ADDRESS = "10.255.0.1", "127.30.0.1"
DEADLINE_S = 10.0


def message(kind: int, body: bytes = b"") -> bytes:
    return MARKER + (19 + len(body)).to_bytes(2, "big") + bytes([kind]) + body


def attribute(code: int, value: bytes, flags: int) -> bytes:
    if len(value) > 255:
        return bytes([flags | 0x10, code]) + len(value).to_bytes(2, "big") + value
    return bytes([flags, code, len(value)]) + value


def update(attributes: bytes = b"", nlri: bytes = b"", withdrawn: bytes = b"") -> bytes:
    body = len(withdrawn).to_bytes(2, "big") + withdrawn + len(attributes).to_bytes(2, "big") + attributes + nlri
    return message(UPDATE, body)


def capability(code: int, value: bytes = b"") -> bytes:
    return bytes([code, len(value)]) + value


def open_body(
    asn: int,
    router_id: bytes,
    *,
    version: int = 4,
    hold_time_s: int = 0,
    my_as: int | None = None,
    four_octet_asn: int | None = -1,
    more: bytes = b"",
    refresh: bool = True,
) -> bytes:
    """`four_octet_asn` -1: the AS number; None: the capability is left out. `more`: further capabilities."""
    capabilities = capability(1, b"\0\1\0\1") + capability(1, b"\0\2\0\1")
    if refresh:
        capabilities += capability(2)
    if four_octet_asn is not None:
        capabilities += capability(65, (asn if four_octet_asn == -1 else four_octet_asn).to_bytes(4, "big"))
    capabilities += more
    return fixed_open(asn if my_as is None else my_as, router_id, version, hold_time_s) + parameters(capabilities)


def fixed_open(my_as: int, router_id: bytes, version: int = 4, hold_time_s: int = 0) -> bytes:
    return bytes([version]) + my_as.to_bytes(2, "big") + hold_time_s.to_bytes(2, "big") + router_id


def parameters(capabilities: bytes) -> bytes:
    return bytes([len(capabilities) + 2, 2, len(capabilities)]) + capabilities if capabilities else b"\0"


class Router:
    """A peer under the test's control. `said` counts the messages sent after OPEN and KEEPALIVE."""

    def __init__(self, port: int, address: str, asn: int, router_id: bytes) -> None:
        self.address, self.asn, self.router_id = address, asn, router_id
        self._buffer = b""
        self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE_S, (address, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Router:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def establish(self, **details: Any) -> Router:
        """Raises AssertionError if the speaker does not agree."""
        self.send(message(OPEN, open_body(self.asn, self.router_id, **details)))
        assert self.receive(OPEN)
        assert self.receive(KEEPALIVE) == b""
        self.send(message(KEEPALIVE))
        return self

    def receive(self, kind: int) -> bytes:
        """The body of the next message, which must be of this kind."""
        got = self.next_message()
        assert got is not None, "closed"
        assert got[0] == kind, f"type {got[0]}: {got[1].hex()}"
        return got[1]

    def next_message(self) -> tuple[int, bytes] | None:
        """Type and body; None: the connection is closed."""
        while True:
            if len(self._buffer) >= 19:
                length = int.from_bytes(self._buffer[16:18], "big")
                if len(self._buffer) >= length:
                    kind, body = self._buffer[18], self._buffer[19:length]
                    self._buffer = self._buffer[length:]
                    return kind, body
            self.sock.settimeout(DEADLINE_S)
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._buffer += data

    def answer(self) -> tuple[int, int, str] | None:
        """The NOTIFICATION that ends the connection, its data in hexadecimal; None: it is closed without one."""
        while (got := self.next_message()) is not None:
            kind, body = got
            if kind == NOTIFICATION:
                assert self.next_message() is None, "the NOTIFICATION is the last thing said"
                return body[0], body[1], body[2:].hex()
        return None


class Healthy(Router):
    """The session that must survive everything. `routes`: prefix → attributes (code → flags and value) as told to it."""

    def __init__(self, port: int) -> None:
        super().__init__(port, HEALTHY_ADDRESS, HEALTHY_ASN, bytes([10, 255, 0, 3]))
        self.routes: dict[bytes, dict[int, tuple[int, bytes]]] = {}
        self.establish()
        self.marks = count()

    def read_until(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not is_done():
            assert time.monotonic() < deadline, "the healthy session was not told in time"
            got = self.next_message()
            assert got is not None, "the healthy session was closed"
            kind, body = got
            assert kind in (UPDATE, KEEPALIVE), f"the healthy session got type {kind}: {body.hex()}"
            if kind == UPDATE:
                self._take(body)

    def _take(self, body: bytes) -> None:
        at = 2 + int.from_bytes(body[:2], "big")
        for prefix in split(body[2:at]):
            self.routes.pop(prefix, None)
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        attributes = split_attributes(body[at + 2 : end])
        for prefix in split(body[end:]):
            self.routes[prefix] = attributes
        for code, has_next_hop in ((14, True), (15, False)):
            if code in attributes:
                value = attributes[code][1]
                for prefix in split(value[5 + value[3] :] if has_next_hop else value[3:]):
                    if has_next_hop:
                        self.routes[b"6" + prefix] = attributes
                    else:
                        self.routes.pop(b"6" + prefix, None)


def split(run: bytes) -> list[bytes]:
    prefixes = []
    while run:
        octets = 1 + (run[0] + 7) // 8
        prefixes.append(run[:octets])
        run = run[octets:]
    return prefixes


def split_attributes(block: bytes) -> dict[int, tuple[int, bytes]]:
    found = {}
    while block:
        start = 4 if block[0] & 0x10 else 3
        end = start + int.from_bytes(block[2:start], "big")
        found[block[1]] = (block[0], block[start:end])
        block = block[end:]
    return found


class Events:
    """What the speaker tells a log."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        self.told.append((name, fields))


class LiveSpeaker:
    """Serves 127.0.0.1 on a port of its own. Routers from 127.20/16 are external, those from 127.21/16 internal."""

    def __init__(self) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.events = Events()
        self.hosts = count(1)
        self.prefixes = count(1)
        self.speaker: Speaker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self._start)
        self.healthy = Healthy(self.port)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run in the speaker's loop; a coroutine function is awaited."""

        async def run() -> Any:
            result = function()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_S)

    def _config(self) -> SpeakerConfig:
        return SpeakerConfig(
            asn=SPEAKER_ASN,
            router_id=ipaddress.ip_address(SPEAKER_ID),
            listen=(ipaddress.ip_address("127.0.0.1"),),
            port=self.port,
            ebgp_requires_policy=False,
            peers=(
                PeerConfig(
                    name="healthy",
                    address=ipaddress.ip_address(HEALTHY_ADDRESS),
                    asn=HEALTHY_ASN,
                    passive=True,
                    multihop=9,
                ),
                PeerConfig(name="external", range=ipaddress.ip_network("127.20.0.0/16"), asn=EXTERNAL_ASN, multihop=9),
                PeerConfig(name="internal", range=ipaddress.ip_network("127.21.0.0/16"), asn=SPEAKER_ASN),
            ),
        )

    async def _start(self) -> None:
        config = self._config()
        self.speaker = Speaker(
            config, fib=None, next_hops=None, events=self.events, rng=random.Random(1), now=time.monotonic()
        )
        self.server = SpeakerServer(self.speaker, config)
        await self.server.start()

    def stop(self) -> None:
        self.healthy.sock.close()
        self.call(lambda: self.server.stop("the tests are over"))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def router(self, *, is_ebgp: bool) -> Router:
        """Connected from an address that nobody has used yet: what one test did wrong must not damp the next."""
        host = next(self.hosts)
        address = f"127.{20 if is_ebgp else 21}.{host >> 8}.{host & 255}"
        asn = EXTERNAL_ASN if is_ebgp else SPEAKER_ASN
        return Router(self.port, address, asn, bytes([10, 1, host >> 8, host & 255]))

    def fresh_prefix(self) -> bytes:
        """10.x.y.0/24 as NLRI."""
        number = next(self.prefixes)
        return bytes([24, 10, number >> 8, number & 255])

    def peer(self, router: Router) -> dict[str, Any] | None:
        """The router as `peers_view` shows it; None: it is not there."""
        views: list[dict[str, Any]] = self.call(lambda: self.speaker.peers_view(time.monotonic()))
        return next((view for view in views if view["address"] == router.address), None)

    def settle(self, router: Router, base: bytes) -> bool:
        """Everything that the router has said is done with and told to the healthy session. False: it is closed.

        Two marker routes one after the other: what a flush tells comes in no particular order.
        """
        for _ in range(2):
            mark = self.fresh_prefix()
            try:
                router.send(update(base, mark))
            except OSError:
                return False
            deadline = time.monotonic() + DEADLINE_S
            while not self.call(lambda mark=mark: self._knows(mark)):  # type: ignore[misc]
                view = self.peer(router)
                if view is None or view["state"] != "Established":
                    return False
                assert time.monotonic() < deadline
                time.sleep(0.001)
            self.healthy.read_until(lambda mark=mark: mark in self.healthy.routes)  # type: ignore[misc]
        return True

    def settle_without(self, nlri: bytes) -> bool:
        """The router is gone: the healthy session must hear that its route is, too."""
        self.healthy.read_until(lambda: nlri not in self.healthy.routes)
        return True

    def _knows(self, nlri: bytes) -> bool:
        from bgp.families import IPV4

        return nlri in self.speaker.ribs[IPV4].table
