"""Up to thousands of clients in one thread: they dial, greet, send and keep what arrives with the time of arrival.

As in `load`, judging waits for a moment when no socket is readable. A session that cannot come up yet is dialled again:
daemons differ in how soon they take a peer back.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from tests.bench.bench_peer import KEEPALIVE, BenchPeer, BenchPeerError
from tests.bench.judge import Judge

TICK_S = 0.02
READ_OCTETS = 1 << 18
BACKLOG_OCTETS = 1 << 30  # judged at the latest when so much lies unread, to bound memory
REDIAL_S = 0.05
GREETING_S = 5.0  # a connection without OPEN and KEEPALIVE after so long is dropped and dialled again


class Fleet:
    """`judges` by client name; clients without one are read and forgotten."""

    def __init__(self, host: str, port: int, judges: Mapping[str, Judge]) -> None:
        self.host, self.port, self.judges = host, port, judges
        self.up: dict[str, BenchPeer] = {}
        self.unjudged: deque[tuple[Judge, float, bytes]] = deque()
        self.last_data_at = 0.0
        self.first_connected_at = 0.0
        self.redials = 0
        self.last_refusal = ""
        self._unjudged_octets = 0
        self._poll = select.epoll()
        self._by_fd: dict[int, BenchPeer] = {}
        self._dialling: dict[BenchPeer, float] = {}  # since when
        self._redials: deque[tuple[float, BenchPeer]] = deque()
        self._writing: set[BenchPeer] = set()
        self._keepalives_at = 0.0
        self._buffer = bytearray(READ_OCTETS)
        self._view = memoryview(self._buffer)

    def connect(
        self,
        clients: Iterable[BenchPeer],
        window: int,
        timeout_s: float,
        when_up: Callable[[BenchPeer], None] = lambda _: None,
    ) -> None:
        """Bring the clients up, at most `window` of them on the way at once. Raises BenchPeerError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        waiting = deque(clients)
        wanted = [client.name for client in waiting]
        self.first_connected_at = 0.0
        while waiting or self._dialling or self._redials:
            now = time.monotonic()
            if now > deadline:
                count = sum(name in self.up for name in wanted)
                raise BenchPeerError(
                    f"{count} of {len(wanted)} clients Established after {timeout_s:.0f} s; {self.last_refusal}"
                )
            for client in [client for client, since in self._dialling.items() if now - since > GREETING_S]:
                self._dial_again(client, "no OPEN and KEEPALIVE in time")
            while self._redials and self._redials[0][0] <= now:
                self._dial(self._redials.popleft()[1])
            while waiting and len(self._dialling) + len(self._redials) < window:
                self._dial(waiting.popleft())
            for client in self._turn(0.005):
                when_up(client)

    def _dial(self, client: BenchPeer) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((client.address, 0))
        sock.setblocking(False)
        client.sock, client.is_up, client.leftover, client.error = sock, False, b"", ""
        code = sock.connect_ex((self.host, self.port))
        self._dialling[client] = time.monotonic()
        if code not in (0, errno.EINPROGRESS):
            self._dial_again(client, errno.errorcode.get(code, str(code)))
            return
        self._by_fd[sock.fileno()] = client
        self._poll.register(sock, select.EPOLLOUT)

    def _dial_again(self, client: BenchPeer, why: str) -> None:
        self.redials += 1
        self.last_refusal = f"the last refused was {client.name}: {why}"
        self._dialling.pop(client, None)
        self._forget(client)
        self._redials.append((time.monotonic() + REDIAL_S, client))

    def _forget(self, client: BenchPeer) -> None:
        if client.sock is not None:
            self._by_fd.pop(client.sock.fileno(), None)
            client.close()
        self._writing.discard(client)
        self.up.pop(client.name, None)

    def drop(self, clients: Iterable[BenchPeer]) -> None:
        """Close their connections without a word."""
        for client in clients:
            self._forget(client)

    def send(self, client: BenchPeer, data: bytes) -> None:
        """Begin to send whole messages; the loop goes on with it."""
        client.send(data)
        self._write(client)

    def _write(self, client: BenchPeer) -> None:
        client.write()
        assert client.sock is not None
        if client.has_to_send != (client in self._writing):
            if client.has_to_send:
                self._writing.add(client)
                self._poll.modify(client.sock, select.EPOLLIN | select.EPOLLOUT)
            else:
                self._writing.discard(client)
                self._poll.modify(client.sock, select.EPOLLIN)

    def run(self, is_done: Callable[[float], bool], timeout_s: float, look: Callable[[], object] = bool) -> bool:
        """Serve the sockets until `is_done(now)`, asked once nothing is readable or left to judge. False after the time.

        `look` may look at `unjudged` after each round; what is true ends the run. Raises BenchPeerError if a session ends.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            before = self.last_data_at
            self._turn(0.0 if self.unjudged else TICK_S)
            if look():
                return True
            if self.last_data_at != before and self._unjudged_octets < BACKLOG_OCTETS:
                continue
            if not self.judge_one() and is_done(time.monotonic()):
                return True
        return False

    def judge_one(self) -> Judge | None:
        """Judge the oldest read, if there is one."""
        if not self.unjudged:
            return None
        judge, arrived_at, data = self.unjudged.popleft()
        self._unjudged_octets -= len(data)
        judge.feed(data, arrived_at)
        return judge

    def forget_unjudged(self) -> None:
        """Whoever looked at it needs no judge."""
        self.unjudged.clear()
        self._unjudged_octets = 0

    def _turn(self, wait_s: float) -> list[BenchPeer]:
        """One round over the ready sockets; who has come up in it."""
        risen = []
        for fd, ready in self._poll.poll(wait_s):
            client = self._by_fd.get(fd)
            if client is None:
                continue
            if not client.is_up:
                if self._greet(client, ready):
                    risen.append(client)
            else:
                if ready & ~select.EPOLLOUT:
                    self._read(client)
                if ready & select.EPOLLOUT:
                    self._write(client)
            if client.error:
                raise BenchPeerError(f"{client.name}: {client.error}{client.last_words()}")
        now = time.monotonic()
        if now >= self._keepalives_at:
            self._keepalives_at = now + 0.5
            for client in self.up.values():
                client.keep_alive(now)
        return risen

    def _greet(self, client: BenchPeer, ready: int) -> bool:
        sock = client.sock
        assert sock is not None
        try:
            if ready & select.EPOLLOUT and not ready & (select.EPOLLERR | select.EPOLLHUP):
                self.first_connected_at = self.first_connected_at or time.monotonic()
                sock.sendall(client.open_message())
                self._poll.modify(sock, select.EPOLLIN)
                return False
            data = sock.recv(65536)
            if not data:
                raise BenchPeerError("the speaker closed the connection during OPEN")
            if not client.take_hello(data):
                return False
        except BlockingIOError:
            return False
        except (OSError, BenchPeerError) as error:
            self._dial_again(client, str(error))
            return False
        del self._dialling[client]
        self.up[client.name] = client
        if client.leftover:
            self._keep(client, client.last_heard_at, client.leftover)
        return True

    def _read(self, client: BenchPeer) -> None:
        assert client.sock is not None
        try:
            count = client.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            client.error = f"connection lost: {error}"
            return
        if not count:
            client.error = client.error or "the speaker closed the connection"
            return
        data = bytes(self._view[:count])
        if data != KEEPALIVE:
            self._keep(client, time.monotonic(), data)
            client.tail = data[-100:]

    def _keep(self, client: BenchPeer, now: float, data: bytes) -> None:
        self.last_data_at = now
        client.octets_received += len(data)
        judge = self.judges.get(client.name)
        if judge is not None:
            self.unjudged.append((judge, now, data))
            self._unjudged_octets += len(data)

    @property
    def is_sending(self) -> bool:
        return bool(self._writing)

    def close(self) -> None:
        self.drop(list(self._by_fd.values()))
        self._poll.close()
