"""Who else changes our tables: the kernel tells of each change."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from felix.desired import IPVersion
from felix.kernel.netlink import attributes, frames
from felix.kernel.nfnetlink import (
    DELETE_ELEMENTS,
    DELETE_RULE,
    FAMILY_NUMBERS,
    NEW_ELEMENTS,
    NEW_GENERATION,
    NEW_RULE,
    SOL_NETLINK,
    SUBSYSTEM,
    open_nfnetlink,
)
from felix.kernel.sockets import ignore_senders

_GROUP = 7  # NFNLGRP_NFTABLES
_ADD_MEMBERSHIP = 1
MANY_CHAINS = 200  # if others have touched so many, all are looked at


@dataclass(slots=True)
class Touched:
    """Chains whose rules, and sets and maps whose elements others have changed; `is_more`: whatever else they did."""

    chains: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    is_more: bool = False

    def add(self, other: Touched) -> None:
        self.chains |= other.chains
        self.sets |= other.sets
        self.is_more = self.is_more or other.is_more


class NftMonitor:
    """Tells of changes that others make to our tables. Non-blocking; for an event loop's reader.

    What the sockets `own_port_ids` send never leaves the kernel: reading the echo of 100,000 rules takes seconds.
    """

    def __init__(
        self,
        table: str,
        own_port_ids: Iterable[int] = (),
        factory: Callable[[], socket.socket] = open_nfnetlink,
    ) -> None:
        self._socket = factory()
        self._socket.setblocking(False)
        ignore_senders(self._socket, sorted(own_port_ids))
        self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self._table = table.encode() + b"\0"
        self._touched: dict[IPVersion, Touched] = {}  # in the transaction that is being told

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> dict[IPVersion, Touched]:
        """By IP version what others have changed in the table; all after an overflow."""
        foreign: dict[IPVersion, Touched] = {}
        while True:
            try:
                received = self._socket.recv(1 << 20)
            except BlockingIOError:
                return foreign
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return {4: Touched(is_more=True), 6: Touched(is_more=True)}
                raise
            for kind, _, _, _, start, end in frames(received):
                self._take(received, kind, start, end, foreign)

    def _take(self, received: bytes, kind: int, start: int, end: int, foreign: dict[IPVersion, Touched]) -> None:
        version: IPVersion = 6 if end > start and received[start] == FAMILY_NUMBERS[6] else 4
        if kind != SUBSYSTEM | NEW_GENERATION and version in self._touched and self._touched[version].is_more:
            return  # all is looked at anyway, and a removed table has a message for each of its rules
        found: dict[int, bytes] = {}
        for number, first, last in attributes(received, start + 4, end):
            found[number] = received[first:last]
            if number == 2:  # table and name come first, and then perhaps much
                break
        if kind == SUBSYSTEM | NEW_GENERATION:
            for version, touched in self._touched.items():
                foreign.setdefault(version, Touched()).add(touched)
            self._touched = {}
        elif found.get(1) == self._table:
            now = self._touched.setdefault(version, Touched())
            name = found.get(2, b"").rstrip(b"\0").decode(errors="replace")
            if kind in (SUBSYSTEM | NEW_RULE, SUBSYSTEM | DELETE_RULE):
                now.chains.add(name)
                now.is_more = len(now.chains) >= MANY_CHAINS
            elif kind in (SUBSYSTEM | NEW_ELEMENTS, SUBSYSTEM | DELETE_ELEMENTS):
                now.sets.add(name)
            else:
                now.is_more = True
