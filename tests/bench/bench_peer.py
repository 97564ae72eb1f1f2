"""One BGP session of the load generator: a raw non-blocking socket, an OPEN, keepalives, and bytes.

No state machine: it connects, says OPEN and KEEPALIVE, and from then on sends what it is given and keeps what it gets
with the time of arrival. What came in is looked at later (`Tally`).
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from tests.bench.table import MARKER

KEEPALIVE = MARKER + b"\x00\x13\x04"
MULTIPROTOCOL = {"ipv4": b"\x01\x04\x00\x01\x00\x01", "ipv6": b"\x01\x04\x00\x02\x00\x01"}
READ_OCTETS = 1 << 16  # judging one read (Tally) must not keep the sockets waiting for more than a few ms
WRITE_OCTETS = 1 << 20


class BenchPeerError(Exception):
    """The speaker under test refused or ended a session."""


@dataclass(slots=True, eq=False)
class BenchPeer:
    """`address` is the source address and router id. `hold_time_s` is offered; the speaker may want less."""

    name: str
    address: str
    asn: int
    hold_time_s: int = 90
    families: tuple[str, ...] = ("ipv4",)
    sock: socket.socket | None = None
    is_up: bool = False
    error: str = ""
    leftover: bytes = b""
    tail: bytes = b""
    octets_received: int = 0
    octets_sent: int = 0
    last_heard_at: float = 0.0
    longest_silence_s: float = 0.0
    _to_send: deque[memoryview] = field(default_factory=deque)
    _keepalive_at: float = 0.0

    def connect(self, host: str, port: int, deadline: float) -> None:
        """Dial until somebody listens, then say OPEN and KEEPALIVE. Raises BenchPeerError at `deadline`."""
        while True:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.address, 0))
            try:
                sock.settimeout(2)
                sock.connect((host, port))
                break
            except OSError as error:
                sock.close()
                if time.monotonic() > deadline:
                    raise BenchPeerError(f"{self.name} cannot connect to {host}:{port}: {error}") from error
                time.sleep(0.02)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(self.open_message())
        self.sock = sock
        self._await_keepalive(deadline)
        sock.setblocking(False)

    def open_message(self) -> bytes:
        """Unicast of the families, route refresh and 4-octet AS numbers, nothing else."""
        capabilities = b"".join(MULTIPROTOCOL[family] for family in self.families)
        capabilities += b"\x02\x00" + b"\x41\x04" + self.asn.to_bytes(4, "big")
        body = (
            b"\x04"
            + (self.asn if self.asn < 65536 else 23456).to_bytes(2, "big")
            + self.hold_time_s.to_bytes(2, "big")
            + socket.inet_aton(self.address)
            + bytes([len(capabilities) + 2, 2, len(capabilities)])
            + capabilities
        )
        return MARKER + (19 + len(body)).to_bytes(2, "big") + b"\x01" + body

    def _await_keepalive(self, deadline: float) -> None:
        assert self.sock is not None
        data = b""
        while not self.take_hello(data):
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self.sock], [], [], remaining)[0]:
                raise BenchPeerError(f"{self.name} was not Established in time")
            data = self.sock.recv(65536)
            if not data:
                raise BenchPeerError(f"{self.name}: the speaker closed the connection during OPEN")

    def take_hello(self, data: bytes) -> bool:
        """More of OPEN and KEEPALIVE; whether that was all. What follows them is in `leftover` then."""
        assert self.sock is not None
        data = self.leftover + data
        while len(data) >= 19 and len(data) >= (length := int.from_bytes(data[16:18], "big")):
            kind, message, data = data[18], data[:length], data[length:]
            if kind == 1:
                self.hold_time_s = min(self.hold_time_s, int.from_bytes(message[22:24], "big"))
                self.sock.sendall(KEEPALIVE)
            elif kind == 3:
                raise BenchPeerError(f"{self.name} got NOTIFICATION {message[19]}/{message[20]} {message[21:]!r}")
            elif kind == 4:
                self.is_up = True
                self.last_heard_at = time.monotonic()
                self._keepalive_at = self.last_heard_at + self.hold_time_s / 3
                break
        self.leftover = data
        return self.is_up

    def send(self, data: bytes) -> None:
        """Queue whole messages."""
        view = memoryview(data)
        self._to_send.extend(view[i : i + WRITE_OCTETS] for i in range(0, len(view), WRITE_OCTETS))

    @property
    def has_to_send(self) -> bool:
        return bool(self._to_send)

    def read(self, now: float) -> bytes:
        """One read; empty if there was nothing, or with `error` set."""
        assert self.sock is not None
        try:
            data = self.sock.recv(READ_OCTETS)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.error = f"connection lost: {error}"
            return b""
        if not data:
            self.error = self.error or "the speaker closed the connection"
            return b""
        self.longest_silence_s = max(self.longest_silence_s, now - self.last_heard_at)
        self.last_heard_at = now
        self.octets_received += len(data)
        self.tail = data[-4200:]
        return data

    def write(self) -> None:
        """As much as the socket takes."""
        assert self.sock is not None
        try:
            while self._to_send:
                view = self._to_send[0]
                sent = self.sock.send(view)
                self.octets_sent += sent
                if sent < len(view):
                    self._to_send[0] = view[sent:]
                    return
                self._to_send.popleft()
        except BlockingIOError:
            return
        except OSError as error:
            self.error = self.error or f"connection lost: {error}"
            self._to_send.clear()

    def keep_alive(self, now: float) -> None:
        """A KEEPALIVE when due, between two blocks only: a block may have been cut inside a message."""
        if now >= self._keepalive_at and self.hold_time_s:
            self._keepalive_at = now + self.hold_time_s / 3
            if not self._to_send:  # else the table itself keeps the session alive
                self._to_send.append(memoryview(KEEPALIVE))
                self.write()

    def last_words(self) -> str:
        """The NOTIFICATION that ended the session, if the last octets received were one."""
        at = self.tail.rfind(MARKER)
        message = self.tail[at:] if at >= 0 else b""
        if len(message) < 21 or message[18] != 3:
            return ""
        return f", NOTIFICATION {message[19]}/{message[20]} {message[21:60]!r}"

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
