"""Copies the bytes: what one peer sends goes to every other as it came. The bound that no speaker can beat.

Run as a process of its own, `python -m tests.bench.forwarder FILE.json`, in the place of a daemon, so that the table shows
how little of the time is the load generator's.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from pathlib import Path

from tests.bench.bench_peer import KEEPALIVE
from tests.bench.table import MARKER

READ_OCTETS = 1 << 18


def open_message(asn: int, router_id: str) -> bytes:
    capabilities = b"\x01\x04\x00\x01\x00\x01\x02\x00\x41\x04" + asn.to_bytes(4, "big")
    options = bytes([2, len(capabilities)]) + capabilities
    body = b"\x04" + min(asn, 23456).to_bytes(2, "big") + b"\x00\x5a" + socket.inet_aton(router_id)
    body += bytes([len(options)]) + options
    return MARKER + (19 + len(body)).to_bytes(2, "big") + b"\x01" + body


class Forwarder:
    """Blocking sends: with one sender nobody else waits."""

    def __init__(self, configuration: dict[str, object]) -> None:
        self.hello = open_message(int(str(configuration["asn"])), str(configuration["router_id"])) + KEEPALIVE
        peers = configuration["peers"]
        assert isinstance(peers, list)
        self.receivers = {peer["address"] for peer in peers if peer["receives"]}
        self.listener = socket.create_server(
            (str(configuration["listen"]), int(str(configuration["port"]))), backlog=4096
        )
        self.peers: dict[int, socket.socket] = {}
        self.is_open: dict[int, bool] = {}
        self.listening: set[int] = set()
        self.poll = select.epoll()

    def run(self) -> None:
        self.poll.register(self.listener, select.EPOLLIN)
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.listener.fileno():
                    self.accept()
                else:
                    self.copy(fd)

    def accept(self) -> None:
        sock, (address, _) = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(self.hello)
        self.peers[sock.fileno()] = sock
        self.is_open[sock.fileno()] = False
        if address in self.receivers:
            self.listening.add(sock.fileno())
        self.poll.register(sock, select.EPOLLIN)

    def copy(self, fd: int) -> None:
        data = self.peers[fd].recv(READ_OCTETS)
        if not data:
            self.poll.unregister(fd)
            self.peers.pop(fd).close()
            self.listening.discard(fd)
            return
        if not self.is_open[fd]:
            # OPEN and KEEPALIVE are ours; the generator sends nothing more before it has seen ours.
            self.is_open[fd] = data.endswith(KEEPALIVE)
            return
        if data == KEEPALIVE:
            return
        for other in self.listening:
            if other != fd:
                self.peers[other].sendall(data)


if __name__ == "__main__":
    Forwarder(json.loads(Path(sys.argv[1]).read_text())).run()
