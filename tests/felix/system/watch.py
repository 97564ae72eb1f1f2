"""When the packet filter changes, and through whom: what the kernel itself says of each transaction."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field

from felix.kernel.netlink import attributes, frames
from felix.kernel.nfnetlink import NEW_GENERATION, open_nfnetlink
from tests.felix.system.node import FelixNode

SUBSYSTEM, GROUP, SOL_NETLINK, ADD_MEMBERSHIP, NAME = 10 << 8, 7, 270, 1, 3


@dataclass(slots=True)
class FilterWatch:
    """`changes`: when (monotonic seconds), and the name of the process or thread that did it."""

    node: FelixNode
    changes: list[tuple[float, str]] = field(default_factory=list)
    _socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self._socket = self.node.host.run(open_nfnetlink)
        self._socket.setblocking(False)
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        now = time.monotonic()
        while True:
            try:
                received = self._socket.recv(1 << 20)
            except BlockingIOError:
                return
            for kind, _, _, _, start, end in frames(received):
                if kind == SUBSYSTEM | NEW_GENERATION:
                    found = {number: received[one:two] for number, one, two in attributes(received, start + 4, end)}
                    self.changes.append((now, found.get(NAME, b"").rstrip(b"\0").decode()))

    def until_now(self) -> None:
        """What came while our loop was busy is of no later moment than now."""
        self._read()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
