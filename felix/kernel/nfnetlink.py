"""The packet filter by netlink: transactions of our own, and what stands in our table.

Numbers from linux/netfilter/nf_tables.h. A batch is one transaction. The library nft reads every large set anew before it
adds one element to it; a message of our own costs some hundredths of a millisecond.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from felix.desired import IPVersion
from felix.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attributes,
    decode_error,
    frames,
    message,
)
from felix.kernel.nft_elements import Key, decode_elements, named, text

NETLINK_NETFILTER = 12
SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 16, 17
NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, GET_CHAIN, DELETE_CHAIN, NEW_RULE, GET_RULE, DELETE_RULE = range(9)
NEW_SET, GET_SET, DELETE_SET, NEW_ELEMENTS, GET_ELEMENTS, DELETE_ELEMENTS, NEW_GENERATION = range(9, 16)
_FLAGS = {
    NEW_TABLE: NLM_F_CREATE,
    NEW_CHAIN: NLM_F_CREATE,
    NEW_RULE: NLM_F_CREATE | NLM_F_APPEND,
    NEW_SET: NLM_F_CREATE,
    NEW_ELEMENTS: NLM_F_CREATE,
}
SOL_NETLINK = 270
_EXT_ACK, _CAP_ACK = 11, 10
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
FAMILY_NUMBERS: dict[IPVersion, int] = {4: 2, 6: 10}
MAX_ELEMENTS = 500  # in a message: an attribute's length has 16 bits
DORMANT, OWNER, PERSIST = 1, 2, 4  # flags of a table; a persistent one outlives its owner
WHOLE = -1  # place of an error that is no single message's
RULE_MARK = 0xC1  # the kind of user data in which our rules carry what they were made of
MARK_OCTETS = 8
DUMP_ATTEMPTS = 5
RECEIVED_OCTETS = 1 << 17  # the kernel fills 32 KiB, unless one message is longer

Message = tuple[int, bytes]
"""Kind, and the body behind the family's header."""


class Refused(OSError):
    """Nothing of the transaction was done; the kernel's words."""

    def __str__(self) -> str:
        return str(self.strerror)


class Hooked(NamedTuple):
    """Where the kernel calls a base chain, and what becomes of a packet at its end (0 drop, 1 accept)."""

    type: str
    hook: int
    priority: int
    policy: int


class TableState(NamedTuple):
    """`owner`: the socket that alone may alter it; 0: anybody may."""

    flags: int
    owner: int


class SetKind(NamedTuple):
    flags: int
    key_type: int


def open_nfnetlink() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    for option, octets in ((_SO_RCVBUFFORCE, 16 << 20), (_SO_SNDBUFFORCE, 16 << 20)):
        try:
            made.setsockopt(socket.SOL_SOCKET, option, octets)
        except PermissionError:
            pass
    for option in (_EXT_ACK, _CAP_ACK):
        made.setsockopt(SOL_NETLINK, option, 1)
    made.bind((0, 0))
    return made


def body(family: int, attributes_: bytes, resource: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, resource) + attributes_


class NftSocket:
    """Requests about one table of one IP version. Blocking, as the kernel works off a request within `send`.

    Several threads may ask; one waits for the other.
    """

    def __init__(self, version: IPVersion, table: str, factory: Callable[[], socket.socket] = open_nfnetlink) -> None:
        self._socket = factory()
        self._lock = threading.Lock()
        self.port_id: int = self._socket.getsockname()[0]
        self._family = FAMILY_NUMBERS[version]
        self._table = table
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    # --- changes -----------------------------------------------------------------------------------------------------

    def transaction(self, messages: Sequence[Message]) -> dict[int, Refused]:
        """By a message's place why it was refused: then none was done. `WHOLE`: what is wrong shows only with all of them."""
        if not messages:
            return {}
        with self._lock:
            first = self._sequence + 1
            last = first + len(messages)
            parts = [message(_BATCH_BEGIN, NLM_F_REQUEST, first, body(0, b"", 10))]
            for sequence, (kind, said) in enumerate(messages, start=first + 1):
                # A refused message says so unasked; the last is asked, so that there is an end.
                flags = NLM_F_REQUEST | _FLAGS.get(kind, 0) | (NLM_F_ACK if sequence == last else 0)
                parts.append(message(SUBSYSTEM | kind, flags, sequence, body(self._family, said)))
            parts.append(message(_BATCH_END, NLM_F_REQUEST, last + 1, body(0, b"", 10)))
            self._sequence = last + 1
            self._socket.send(b"".join(parts))
            return self._await(first, last)

    def _await(self, first: int, last: int) -> dict[int, Refused]:
        """`first` is the batch's own number: what it is told concerns all."""
        refused: dict[int, Refused] = {}
        while True:
            received = self._socket.recv(RECEIVED_OCTETS)
            for kind, flags, sequence, _, start, end in frames(received):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                error = decode_error(received, flags, start, end)
                if error is not None:
                    place = WHOLE if sequence == first else sequence - first - 1
                    refused.setdefault(place, Refused(error.code, error.text))
                if sequence == last or (sequence == first and error is not None):
                    return refused

    # --- what stands there -------------------------------------------------------------------------------------------

    def dump(self, kind: int, attributes_: bytes = b"") -> list[tuple[bytes, int, int]]:
        """Bodies (behind the family's header) of all answers. Again while others change what is read. Raises OSError."""
        for _ in range(DUMP_ATTEMPTS):
            with self._lock:
                found, is_whole = self._dump(kind, attributes_)
            if is_whole:
                return found
        raise OSError(errno.EAGAIN, "the packet filter is changed all the time while it is read")

    def _dump(self, kind: int, attributes_: bytes) -> tuple[list[tuple[bytes, int, int]], bool]:
        self._sequence += 1
        sequence = self._sequence
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(message(SUBSYSTEM | kind, flags, sequence, body(self._family, attributes_)))
        found: list[tuple[bytes, int, int]] = []
        is_whole = True
        generations: set[bytes] = (
            set()
        )  # each answer says in which it was made; of elements the kernel says nothing else
        while True:
            received = self._socket.recv(RECEIVED_OCTETS)
            for answer, flags, number, _, start, end in frames(received):
                if number != sequence:
                    continue
                is_whole = is_whole and not flags & NLM_F_DUMP_INTR
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    error = decode_error(received, flags, start, end) if end - start >= 4 else None
                    if error is not None and error.code != errno.ENOENT:
                        raise OSError(error.code, error.text)
                    return found, is_whole and len(generations) <= 1
                generations.add(received[start + 2 : start + 4])
                found.append((received, start + 4, end))

    def _ours(self, kind: int, name_attribute: int, asked: bytes = b"") -> Iterator[tuple[str, dict[int, bytes]]]:
        """Name and attributes of all of a kind in our table."""
        for received, start, end in self.dump(kind, text(1, self._table) + asked):
            found = {a: received[b:c] for a, b, c in attributes(received, start, end)}
            if named(found.get(1, b"")) == self._table:
                yield named(found.get(name_attribute, b"")), found

    def table(self) -> TableState | None:
        """None: there is no such table."""
        for received, start, end in self.dump(GET_TABLE):
            found = {a: received[b:c] for a, b, c in attributes(received, start, end)}
            if received[start - 4] == self._family and named(found.get(1, b"")) == self._table:
                return TableState(*(int.from_bytes(found.get(kind, b""), "big") for kind in (2, 9)))
        return None

    def chains(self) -> dict[str, Hooked | None]:
        """None: a chain that is only jumped to."""
        return {name: _hooked(found) for name, found in self._ours(GET_CHAIN, 3) if name}

    def sets(self) -> dict[str, SetKind]:
        """Named ones and maps; those without a name (`__set0`) belong to rules."""
        return {
            name: SetKind(int.from_bytes(found.get(3, b""), "big"), int.from_bytes(found.get(4, b""), "big"))
            for name, found in self._ours(GET_SET, 2)
            if not name.startswith("__")
        }

    def elements(self, name: str) -> dict[Key, str]:
        """The keys of a set as the kernel has them, and where a verdict map's entries go to."""
        found: dict[Key, str] = {}
        for answer in self.dump(GET_ELEMENTS, text(1, self._table) + text(2, name)):
            found.update(decode_elements(*answer))
        return found

    def marks(self, chain: str) -> bytes:
        """What its rules were made of, in order: `MARK_OCTETS` each, zeros for one that is not ours."""
        found = []
        for received, start, end in self.dump(GET_RULE, text(1, self._table) + text(2, chain)):
            mark = b""
            for kind, first, last in attributes(received, start, end):
                if kind == 7:
                    mark = rule_mark(received[first:last])
            found.append(mark.ljust(MARK_OCTETS, b"\0"))
        return b"".join(found)

    def rule_handles(self, chain: str = "") -> dict[str, list[int]]:
        """Chain → its rules' handles, of all chains or one."""
        found: dict[str, list[int]] = {}
        for name, said in self._ours(GET_RULE, 2, text(2, chain) if chain else b""):
            found.setdefault(name, []).append(int.from_bytes(said.get(3, b""), "big"))
        return found

    def counters(self, chain: str) -> list[tuple[int, int]]:
        """Packets and octets of each rule of a chain, in order."""
        return [_counter(found.get(4, b"")) for name, found in self._ours(GET_RULE, 2, text(2, chain)) if name == chain]


def _hooked(chain: dict[int, bytes]) -> Hooked | None:
    if 4 not in chain:
        return None
    hook = chain[4]
    found = {a: int.from_bytes(hook[b:c], "big", signed=True) for a, b, c in attributes(hook, 0, len(hook)) if a <= 2}
    policy = int.from_bytes(chain.get(5, b""), "big")
    return Hooked(named(chain.get(7, b"")), found.get(1, -1), found.get(2, 0), policy)


def rule_mark(user_data: bytes) -> bytes:
    """Kind, length and value follow one another, an octet each in front."""
    at = 0
    while at + 2 <= len(user_data):
        kind, length = user_data[at], user_data[at + 1]
        if kind == RULE_MARK:
            return user_data[at + 2 : at + 2 + length]
        at += 2 + length
    return b""


def _counter(expressions: bytes) -> tuple[int, int]:
    """The first counter among a rule's expressions."""
    for _, first, last in attributes(expressions, 0, len(expressions)):
        found = {kind: expressions[a:b] for kind, a, b in attributes(expressions, first, last)}
        if named(found.get(1, b"")) == "counter":
            said = found.get(2, b"")
            counts = {number: int.from_bytes(said[a:b], "big") for number, a, b in attributes(said, 0, len(said))}
            return counts.get(2, 0), counts.get(1, 0)
    return 0, 0
