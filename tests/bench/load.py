"""Drives all sessions of the load generator from one thread.

Sockets first: what arrived is only stamped and kept; judging it (`Tally.feed`) waits for a moment when nothing is
readable. So the generator needs far less time per route than any speaker, which the `copy` row of the table shows.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable

from tests.bench.bench_peer import BenchPeer, BenchPeerError
from tests.bench.tally import Tally

TICK_S = 0.05
BACKLOG_OCTETS = 64 << 20  # judged at the latest when so much lies unread, to bound memory


class Load:
    """Established sessions and, for the receivers among them, a tally each (by peer name)."""

    def __init__(self, peers: Iterable[BenchPeer], tallies: dict[str, Tally]) -> None:
        self.peers = list(peers)
        self.tallies = tallies
        self._poll = select.epoll()
        self._by_fd: dict[int, BenchPeer] = {}
        self._unjudged: deque[tuple[BenchPeer, float, bytes]] = deque()
        self._unjudged_octets = 0
        self._sending: set[BenchPeer] = set()
        self._keepalives_at = 0.0

    def connect(self, host: str, port: int, timeout_s: float) -> None:
        """One after the other: some daemons have a listen backlog of 8. Raises BenchPeerError."""
        deadline = time.monotonic() + timeout_s
        for peer in self.peers:
            peer.connect(host, port, deadline)
            assert peer.sock is not None
            self._by_fd[peer.sock.fileno()] = peer
            self._poll.register(peer.sock, select.EPOLLIN)
            if peer.leftover:
                self._keep(peer, peer.last_heard_at, peer.leftover)

    def send(self, peer: BenchPeer, data: bytes) -> None:
        """Begin to send whole messages; `run` goes on with it."""
        peer.send(data)
        self._write(peer)

    def run(self, is_done: Callable[[float], bool], timeout_s: float, watch_fd: int | None = None) -> bool:
        """Serve the sockets until `is_done(now)`, asked once nothing is readable. False after `timeout_s`.

        `watch_fd` wakes the loop too (somebody else's socket, read by `is_done`). Raises BenchPeerError if a session ends.
        """
        deadline = time.monotonic() + timeout_s
        if watch_fd is not None:
            self._poll.register(watch_fd, select.EPOLLIN)
        try:
            while (now := time.monotonic()) < deadline:
                if now >= self._keepalives_at:
                    self._keepalives_at = now + 0.25
                    for peer in self.peers:
                        peer.keep_alive(now)
                if self._serve() and self._unjudged_octets < BACKLOG_OCTETS:
                    continue
                if self._unjudged:
                    self._judge_oldest()
                elif is_done(time.monotonic()):
                    return True
            return False
        finally:
            if watch_fd is not None:
                self._poll.unregister(watch_fd)

    def _serve(self) -> bool:
        """One round over the ready sockets; whether a session had something."""
        busy = False
        for fd, ready in self._poll.poll(0 if self._unjudged else TICK_S):
            peer = self._by_fd.get(fd)
            if peer is None:
                continue
            busy = True
            if ready & ~select.EPOLLOUT:
                now = time.monotonic()
                if data := peer.read(now):
                    self._keep(peer, now, data)
            if ready & select.EPOLLOUT:
                self._write(peer)
            if peer.error:
                raise BenchPeerError(f"{peer.name}: {peer.error}{peer.last_words()}")
        return busy

    def _write(self, peer: BenchPeer) -> None:
        assert peer.sock is not None
        peer.write()
        if peer.has_to_send and peer not in self._sending:
            self._sending.add(peer)
            self._poll.modify(peer.sock, select.EPOLLIN | select.EPOLLOUT)
        elif not peer.has_to_send and peer in self._sending:
            self._sending.discard(peer)
            self._poll.modify(peer.sock, select.EPOLLIN)

    def _keep(self, peer: BenchPeer, now: float, data: bytes) -> None:
        self._unjudged.append((peer, now, data))
        self._unjudged_octets += len(data)

    def _judge_oldest(self) -> None:
        peer, arrived_at, data = self._unjudged.popleft()
        self._unjudged_octets -= len(data)
        if tally := self.tallies.get(peer.name):
            tally.feed(data, arrived_at)

    def is_quiet(self, now: float, for_s: float) -> bool:
        """Whether everything is sent and no UPDATE has come for so long."""
        last = max([tally.last_update_at for tally in self.tallies.values()], default=0.0)
        return not self._sending and now - last >= for_s

    def close(self) -> None:
        self._poll.close()
        for peer in self.peers:
            peer.close()
