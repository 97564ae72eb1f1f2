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

from tests.bench.bench_peer import KEEPALIVE, MULTIPROTOCOL
from tests.bench.judge import whole_messages
from tests.bench.table import MARKER

READ_OCTETS = 1 << 18


def open_message(asn: int, router_id: str, families: list[str]) -> bytes:
    capabilities = b"".join(MULTIPROTOCOL[family] for family in families)
    capabilities += b"\x02\x00\x41\x04" + asn.to_bytes(4, "big")
    options = bytes([2, len(capabilities)]) + capabilities
    body = b"\x04" + min(asn, 23456).to_bytes(2, "big") + b"\x00\xf0" + socket.inet_aton(router_id)
    body += bytes([len(options)]) + options
    return MARKER + (19 + len(body)).to_bytes(2, "big") + b"\x01" + body


class Forwarder:
    """Whatever lies ready at all peers goes out in one write to each. Blocking writes: the generator always reads."""

    def __init__(self, configuration: dict[str, object]) -> None:
        peers, families = configuration["peers"], configuration["families"]
        assert isinstance(peers, list)
        assert isinstance(families, list)
        asn, router_id = int(str(configuration["asn"])), str(configuration["router_id"])
        self.hello = open_message(asn, router_id, families) + KEEPALIVE
        self.receivers = {peer["address"] for peer in peers if peer["receives"]}
        self.listener = socket.create_server(
            (str(configuration["listen"]), int(str(configuration["port"]))), backlog=4096
        )
        self.peers: dict[int, socket.socket] = {}
        self.is_open: dict[int, bool] = {}
        self.rest: dict[int, bytes] = {}  # the beginning of a message whose end has not come
        self.listening: set[int] = set()
        self.poll = select.epoll()

    def run(self) -> None:
        self.poll.register(self.listener, select.EPOLLIN)
        while True:
            parts = dict[int, bytes]()
            for fd, _ in self.poll.poll(maxevents=4096):
                if fd == self.listener.fileno():
                    self.accept()
                elif data := self.read(fd):
                    parts[fd] = data
            if parts:
                self.copy(parts)

    def accept(self) -> None:
        sock, (address, _) = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(self.hello)
        self.peers[sock.fileno()] = sock
        self.is_open[sock.fileno()] = False
        self.rest[sock.fileno()] = b""
        if address in self.receivers:
            self.listening.add(sock.fileno())
        self.poll.register(sock, select.EPOLLIN)

    def read(self, fd: int) -> bytes:
        """Whole messages to pass on."""
        try:
            data = self.peers[fd].recv(READ_OCTETS)
        except ConnectionError:
            data = b""
        if not data:
            self.poll.unregister(fd)
            self.peers.pop(fd).close()
            self.listening.discard(fd)
            return b""
        if not self.is_open[fd]:
            # OPEN and KEEPALIVE are for us; UPDATEs may follow at once.
            _, found, data = data.partition(KEEPALIVE)
            self.is_open[fd] = bool(found)
        if data in (b"", KEEPALIVE):
            return b""
        data = self.rest[fd] + data
        end = whole_messages(data)
        self.rest[fd] = data[end:]
        return data[:end]

    def copy(self, parts: dict[int, bytes]) -> None:
        """All of it to everybody, but nobody its own."""
        everything = b"".join(parts.values())
        view, at, own = memoryview(everything), 0, dict[int, tuple[int, int]]()
        for fd, part in parts.items():
            own[fd] = (at, at := at + len(part))
        for fd in self.listening:
            begin, end = own.get(fd, (0, 0))
            if begin:
                self.peers[fd].sendall(view[:begin])
            if end < len(everything):
                self.peers[fd].sendall(view[end:])


if __name__ == "__main__":
    Forwarder(json.loads(Path(sys.argv[1]).read_text())).run()
