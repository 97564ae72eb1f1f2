"""One TCP connection of a session: raw non-blocking reads and writes on the event loop, no copy of what is sent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from bgp.families import Address

if TYPE_CHECKING:
    from bgp.session.session import Session
    from bgp.speaker import Speaker

READ_OCTETS = 1 << 18  # one turn's worth: bounds what a full table may take before others get theirs
_GATHER = 64  # buffers in one sendmsg


class Connection:
    """`closed` is called once, when the descriptor is gone."""

    def __init__(
        self, sock: socket.socket, session: Session, speaker: Speaker, closed: Callable[[Connection], None]
    ) -> None:
        self.sock = sock
        self._fd = sock.fileno()  # a selector that does not know a socket yet says so with its whole description
        self.session = session
        self._speaker = speaker
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[memoryview | bytes] = deque()
        self._queued = 0  # octets in it
        self._is_writing = False
        self._is_closing = False
        self.is_open = True
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self) -> None:
        self._loop.add_reader(self._fd, self._readable)

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Local and remote, packed; IPv4 addresses mapped into IPv6 are given as IPv4. Raises OSError."""
        return packed_address(self.sock.getsockname()), packed_address(self.sock.getpeername())

    def _readable(self) -> None:
        try:
            data = self.sock.recv(READ_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if self._is_closing:
            if not data:
                self.close(abort=True)
            return  # our NOTIFICATION is on its way; what still comes does not matter
        if data:
            self._speaker.receive_data(self.session, data, time.monotonic())
        else:
            self._lost("closed by the peer")

    def send(self, buffers: list[bytes | memoryview]) -> int:
        """Returns how many octets wait."""
        if not self.is_open or self._is_closing:
            return 0
        if not self._queue and len(buffers) == 1:  # the usual case, spelled out: it happens once a member and flush
            whole = buffers[0]
            try:
                sent = self.sock.send(whole)
            except OSError:
                sent = 0  # said again by _write, which knows what to do
            if sent == len(whole):
                return 0
            buffers = [memoryview(whole)[sent:]]
        self._queue.extend(buffers)
        self._queued += sum(map(len, buffers))
        if not self._is_writing:
            self._write()
        return self._queued

    def _write(self) -> None:
        queue = self._queue
        now = 0.0
        while queue:
            some = [queue[at] for at in range(min(len(queue), _GATHER))]
            try:
                sent = self.sock.sendmsg(some)
            except BlockingIOError:
                break
            except OSError as error:
                # The reader meets it too, perhaps with the NOTIFICATION that explains it; but it must not wait for ever.
                self._queue.clear()
                self._queued = 0
                self._loop.call_later(0.2, self._lost, error.strerror or str(error))
                break
            now = now or time.monotonic()
            self._queued -= sent
            for buffer in some:
                if sent < len(buffer):
                    break
                sent -= len(buffer)
                queue.popleft()
            if sent:
                queue[0] = memoryview(queue[0])[sent:]
        if now:
            self.session.bytes_flushed(now)
        self._watch_writable()

    def _watch_writable(self) -> None:
        if self._queue and not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._fd, self._write)
            self.session.send_blocked(time.monotonic())
        elif self._queue:
            self.session.send_blocked(time.monotonic())
        elif self.is_open:
            was_blocked = self._is_writing
            if was_blocked:
                self._is_writing = False
                self._loop.remove_writer(self._fd)
            if self._is_closing:
                self._finish()
            elif was_blocked:
                self._speaker.drained(self.session, time.monotonic())

    def _lost(self, why: str) -> None:
        if self.is_open:
            was_closing = self._is_closing
            self._release()
            if not was_closing:
                self._speaker.connection_lost(self.session, why, time.monotonic())

    def close(self, *, abort: bool) -> None:
        """Send what is queued first unless `abort`. A peer that does not read gets two seconds."""
        if not self.is_open:
            return
        if abort:
            self._release()
        elif self._queue:
            self._is_closing = True
            self._loop.call_later(2.0, self._release)
        else:
            self._finish()

    def _finish(self) -> None:
        """Say that nothing more comes and let the peer read it: closing over unread data would send a reset instead."""
        self._is_closing = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._release()
            return
        self._loop.call_later(2.0, self._release)

    def _release(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._fd)
        if self._is_writing:
            self._loop.remove_writer(self._fd)
        self._queue.clear()
        self.sock.close()
        self._closed(self)


def packed_address(name: tuple[object, ...]) -> Address:
    """A socket's address → packed."""
    text = str(name[0]).partition("%")[0]
    if ":" not in text:
        return socket.inet_pton(socket.AF_INET, text)
    packed = socket.inet_pton(socket.AF_INET6, text)
    return packed[12:] if packed[:12] == b"\0" * 10 + b"\xff\xff" else packed
