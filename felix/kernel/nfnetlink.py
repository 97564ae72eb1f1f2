"""The packet filter by netlink: elements in batches, what stands in our table, and who changes it.

Numbers from linux/netfilter/nf_tables.h. A batch is one transaction. The library nft reads every large set anew before it
adds one element to it; a message of our own costs some hundredths of a millisecond.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from felix.desired import IPSetType, IPVersion
from felix.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    decode_error,
    frames,
    message,
)
from felix.kernel.sockets import ignore_senders

NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 16, 17
NEW_TABLE, NEW_CHAIN, GET_CHAIN, DELETE_CHAIN, NEW_RULE, GET_RULE, DELETE_RULE = 0, 3, 4, 5, 6, 7, 8
NEW_SET, GET_SET, DELETE_SET, NEW_ELEMENTS, GET_ELEMENTS, DELETE_ELEMENTS, NEW_GENERATION = 9, 10, 11, 12, 13, 14, 15
_FLAGS = {
    NEW_CHAIN: NLM_F_CREATE,
    NEW_RULE: NLM_F_CREATE | NLM_F_APPEND,
    NEW_SET: NLM_F_CREATE,
    NEW_ELEMENTS: NLM_F_CREATE,
}
_GROUP = 7  # NFNLGRP_NFTABLES
_NESTED = 0x8000
_SOL_NETLINK, _ADD_MEMBERSHIP, _EXT_ACK, _CAP_ACK = 270, 1, 11, 10
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_INTERVAL_END = 1
_GOTO = 0xFFFFFFFC  # -4
FAMILY_NUMBERS = {4: 2, 6: 10}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
MANY_CHAINS = 200  # if others have touched so many, all are looked at
MAX_ELEMENTS = 500  # in a message: an attribute's length has 16 bits
MAX_BATCH_OCTETS = 1 << 20


class ElementsRefused(OSError):
    """Nothing of the transaction was done; the kernel's words."""


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _body(family: int, attributes_: bytes, resource: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, resource) + attributes_


# --- elements --------------------------------------------------------------------------------------------------------


def data(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def net_elements(cidr: str) -> list[bytes]:
    """An interval: where it begins, and where it has ended. The last address of all has no end."""
    network = ipaddress.ip_network(cidr)
    found = [nested(1, data(1, network.network_address.packed))]
    after = int(network.broadcast_address) + 1
    octets = network.max_prefixlen // 8
    if after < 1 << network.max_prefixlen:
        end = data(1, after.to_bytes(octets, "big")) + attribute(3, struct.pack("!I", _INTERVAL_END))
        found.append(nested(1, end))
    return found


def port_element(member: str) -> bytes:
    """`10.0.0.1,tcp:80`."""
    address, _, rest = member.partition(",")
    protocol, _, port = rest.partition(":")
    key = (
        ipaddress.ip_address(address).packed + bytes((PROTOCOLS[protocol], 0, 0, 0)) + struct.pack("!HH", int(port), 0)
    )
    return nested(1, data(1, key))


def verdict_element(interface: str, chain: str) -> bytes:
    """interface → goto chain."""
    key = data(1, interface.encode().ljust(16, b"\0"))
    verdict = nested(2, nested(2, attribute(1, struct.pack("!I", _GOTO)) + text(2, chain)))
    return nested(1, key + verdict)


def interface_element(interface: str) -> bytes:
    return nested(1, data(1, interface.encode().ljust(16, b"\0")))


def encode_member(type: IPSetType, member: str) -> list[bytes]:
    """Raises ValueError."""
    try:
        return net_elements(member) if type == "net" else [port_element(member)]
    except (KeyError, struct.error) as error:
        raise ValueError(f"{member!r} is no {type} member: {error}") from None


@dataclass(frozen=True, slots=True)
class ElementChange:
    """Elements of one set or map of `table`; encoded."""

    what: Literal["add", "delete"]
    name: str
    elements: Sequence[bytes]


# --- sockets ---------------------------------------------------------------------------------------------------------


def open_nfnetlink() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    for option, octets in ((_SO_RCVBUFFORCE, 16 << 20), (_SO_SNDBUFFORCE, 16 << 20)):
        try:
            made.setsockopt(socket.SOL_SOCKET, option, octets)
        except PermissionError:
            pass
    for option in (_EXT_ACK, _CAP_ACK):
        made.setsockopt(_SOL_NETLINK, option, 1)
    made.bind((0, 0))
    return made


class NftSocket:
    """Requests about one table of one IP version. Blocking, as the kernel works off a request within `send`."""

    def __init__(self, version: IPVersion, table: str, factory: Callable[[], socket.socket] = open_nfnetlink) -> None:
        self._socket = factory()
        self.port_id: int = self._socket.getsockname()[0]
        self._family = FAMILY_NUMBERS[version]
        self._table = table
        self._sequence = 0
        self.senders: set[int] = set()  # threads, by which the kernel names who changed something

    def close(self) -> None:
        self._socket.close()

    def change(self, changes: Iterable[ElementChange]) -> None:
        """All or nothing. Raises ElementsRefused."""
        for error in self.transaction(self.encoded(changes)).values():
            raise error

    def encoded(self, changes: Iterable[ElementChange]) -> list[tuple[int, bytes]]:
        """For `transaction`."""
        return [body for change in changes if change.elements for body in self._messages(change)]

    def _messages(self, change: ElementChange) -> Iterator[tuple[int, bytes]]:
        kind = NEW_ELEMENTS if change.what == "add" else DELETE_ELEMENTS
        head = text(1, self._table) + text(2, change.name)
        for at in range(0, len(change.elements), MAX_ELEMENTS):
            yield kind, head + nested(3, b"".join(change.elements[at : at + MAX_ELEMENTS]))

    def transaction(self, messages: Sequence[tuple[int, bytes]]) -> dict[int, ElementsRefused]:
        """Kinds and bodies (behind the family's header). By a message's place why it was refused: then none was done."""
        if not messages:
            return {}
        self.senders.add(threading.get_native_id())
        first = self._sequence + 1
        last = first + len(messages)
        parts = [message(_BATCH_BEGIN, NLM_F_REQUEST, first, _body(0, b"", 10))]
        for sequence, (kind, body) in enumerate(messages, start=first + 1):
            # A refused message says so unasked; the last is asked, so that there is an end.
            flags = NLM_F_REQUEST | _FLAGS.get(kind, 0) | (NLM_F_ACK if sequence == last else 0)
            parts.append(message(_SUBSYSTEM | kind, flags, sequence, _body(self._family, body)))
        parts.append(message(_BATCH_END, NLM_F_REQUEST, last + 1, _body(0, b"", 10)))
        self._sequence = last + 1
        self._socket.send(b"".join(parts))
        return self._await(first, last)

    def _await(self, first: int, last: int) -> dict[int, ElementsRefused]:
        refused: dict[int, ElementsRefused] = {}
        while True:
            received = self._socket.recv(1 << 20)
            for kind, flags, sequence, _, start, end in frames(received):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                error = decode_error(received, flags, start, end)
                if error is not None:
                    refused.setdefault(max(0, sequence - first - 1), ElementsRefused(error.code, error.text))
                if sequence == last or (sequence == first and error is not None):
                    return refused

    def dump(self, kind: int, attributes_: bytes = b"") -> Iterator[tuple[bytes, int, int]]:
        """Bodies (behind the family's header) of all answers. Raises OSError."""
        self._sequence += 1
        sequence = self._sequence
        body = _body(self._family, attributes_)
        self._socket.send(message(_SUBSYSTEM | kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body))
        while True:
            received = self._socket.recv(1 << 20)
            for answer, flags, number, _, start, end in frames(received):
                if number != sequence:
                    continue
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    error = decode_error(received, flags, start, end) if end - start >= 4 else None
                    if error is not None and error.code != errno.ENOENT:
                        raise OSError(error.code, error.text)
                    return
                yield received, start + 4, end

    def chains(self) -> set[str]:
        return {name for name in self._names(GET_CHAIN, 3) if name}

    def sets(self) -> set[str]:
        """Named ones and maps; those without a name (`__set0`) belong to rules."""
        return {name for name in self._names(GET_SET, 2) if not name.startswith("__")}

    def _names(self, kind: int, name_attribute: int) -> Iterator[str]:
        for received, start, end in self.dump(kind, text(1, self._table)):
            found = {a: received[b:c] for a, b, c in attributes(received, start, end)}
            if found.get(1, b"").rstrip(b"\0").decode() == self._table:
                yield found.get(name_attribute, b"").rstrip(b"\0").decode(errors="replace")

    def rule_handles(self, chain: str = "") -> dict[str, list[int]]:
        """Chain → its rules' handles, in order: a rule that somebody replaced has another one."""
        asked = text(1, self._table) + (text(2, chain) if chain else b"")
        found: dict[str, list[int]] = {}
        for received, start, end in self.dump(GET_RULE, asked):
            name, handle, table = b"", 0, b""
            for kind, first, last in attributes(received, start, end):
                if kind == 1:
                    table = received[first:last]
                elif kind == 2:
                    name = received[first:last]
                elif kind == 3:
                    handle = int.from_bytes(received[first:last], "big")
                    break
            if table.rstrip(b"\0").decode() == self._table:
                found.setdefault(name.rstrip(b"\0").decode(errors="replace"), []).append(handle)
        return found

    def counters(self, chain: str) -> list[tuple[int, int]]:
        """Packets and octets of each rule of a chain, in order."""
        found = []
        for received, start, end in self.dump(GET_RULE, text(1, self._table) + text(2, chain)):
            name = b""
            counts = (0, 0)
            for kind, first, last in attributes(received, start, end):
                if kind == 2:
                    name = received[first:last].rstrip(b"\0")
                elif kind == 4:
                    counts = _counter(received, first, last) or counts
            if name.decode(errors="replace") == chain:
                found.append(counts)
        return found

    def elements(self, name: str) -> set[bytes]:
        """The keys of a set as the kernel has them, each with its flags in front."""
        found = set()
        for received, start, end in self.dump(GET_ELEMENTS, text(1, self._table) + text(2, name)):
            for kind, first, last in attributes(received, start, end):
                if kind == 3:
                    found |= {_key(received, one, two) for _, one, two in attributes(received, first, last)}
        return found


def _key(received: bytes, start: int, end: int) -> bytes:
    key, flags = b"", 0
    for kind, first, last in attributes(received, start, end):
        if kind == 1:
            key = next((received[a:b] for number, a, b in attributes(received, first, last) if number == 1), b"")
        elif kind == 3:
            flags = int.from_bytes(received[first:last], "big")
    return bytes((flags & _INTERVAL_END,)) + key


def element_key(element: bytes) -> bytes:
    """Of an encoded element, as `NftSocket.elements` says it."""
    return _key(element, 4, len(element))


def encode_key(key: bytes) -> bytes:
    """An element by what `NftSocket.elements` says of it, to be deleted."""
    return nested(1, data(1, key[1:]) + (attribute(3, struct.pack("!I", _INTERVAL_END)) if key[0] else b""))


def _counter(received: bytes, start: int, end: int) -> tuple[int, int] | None:
    """The first counter among a rule's expressions."""
    for _, first, last in attributes(received, start, end):
        name = b""
        for kind, one, two in attributes(received, first, last):
            if kind == 1:
                name = received[one:two].rstrip(b"\0")
            elif kind == 2 and name == b"counter":
                octets = packets = 0
                for number, a, b in attributes(received, one, two):
                    if number == 1:
                        octets = int.from_bytes(received[a:b], "big")
                    elif number == 2:
                        packets = int.from_bytes(received[a:b], "big")
                return packets, octets
    return None


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
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self._table = table.encode() + b"\0"
        self._touched: dict[IPVersion, Touched] = {}  # in the transaction that is being told

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self, is_ours: Callable[[int], bool]) -> dict[IPVersion, Touched]:
        """By IP version what a process that is not `is_ours(pid)` has changed in the table; all after an overflow."""
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
                self._take(received, kind, start, end, is_ours, foreign)

    def _take(
        self,
        received: bytes,
        kind: int,
        start: int,
        end: int,
        is_ours: Callable[[int], bool],
        foreign: dict[IPVersion, Touched],
    ) -> None:
        version: IPVersion = 6 if end > start and received[start] == FAMILY_NUMBERS[6] else 4
        if kind != _SUBSYSTEM | NEW_GENERATION and version in self._touched and self._touched[version].is_more:
            return  # all is looked at anyway, and a removed table has a message for each of its rules
        found: dict[int, bytes] = {}
        for number, first, last in attributes(received, start + 4, end):
            found[number] = received[first:last]
            if number == 2:  # table and name come first, and then perhaps much
                break
        if kind == _SUBSYSTEM | NEW_GENERATION:
            if self._touched and not is_ours(int.from_bytes(found.get(2, b""), "big")):
                for version, touched in self._touched.items():
                    foreign.setdefault(version, Touched()).add(touched)
            self._touched = {}
        elif found.get(1) == self._table:
            now = self._touched.setdefault(version, Touched())
            name = found.get(2, b"").rstrip(b"\0").decode(errors="replace")
            if kind in (_SUBSYSTEM | NEW_RULE, _SUBSYSTEM | DELETE_RULE):
                now.chains.add(name)
                now.is_more = len(now.chains) >= MANY_CHAINS
            elif kind in (_SUBSYSTEM | NEW_ELEMENTS, _SUBSYSTEM | DELETE_ELEMENTS):
                now.sets.add(name)
            else:
                now.is_more = True


def own_threads() -> set[int]:
    """The kernel names a change's thread, not its process."""
    return {int(name) for name in os.listdir("/proc/self/task")}
