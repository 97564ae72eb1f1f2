"""The two netlink sockets: one asks and writes, one listens. Never the same, see DESIGN.md."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from felix.kernel.netlink import (
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Frame,
    KernelError,
    NetlinkFormatError,
    decode_error,
    frames,
    with_ack,
)
from felix.kernel.rtnetlink import RTM_DELROUTE, RTM_NEWROUTE

SocketFactory = Callable[[], socket.socket]
Errors = dict[int, KernelError]  # by the request's place in its batch

_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 32, 33, 26
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
_RTMGRP_IPV6_IFADDR, _RTMGRP_IPV6_ROUTE = 0x100, 0x400
_GROUPS = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_IFADDR | _RTMGRP_IPV6_ROUTE
_REQUEST_BUFFER_OCTETS = 4 << 20  # every message of a batch may fail, and each failure is an answer
MONITOR_BUFFER_OCTETS = 32 << 20  # a burst of 20,000 routes by somebody else fits
_READ_OCTETS = 1 << 16
TRIES = 4
T = TypeVar("T")


class RepliesLost(OSError):
    """The kernel had more to say than the socket could hold: what became of the requests must be read anew."""


class DumpInterrupted(OSError):
    """The table changed while it was read, the reading may lack something."""


def steadily(read: Callable[[], T]) -> T:
    """What `read` says, read again where it changed meanwhile: pods come and go, a BGP speaker writes. Raises OSError."""
    for _ in range(TRIES - 1):
        try:
            return read()
        except DumpInterrupted:
            continue
    return read()


def open_netlink() -> socket.socket:
    """A NETLINK_ROUTE socket in this process's network namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _force_buffer(sock: socket.socket, forced: int, plain: int, octets: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, octets)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, octets)  # up to net.core.*mem_max, silently


class RequestSocket:
    """Dumps and batches of changes.

    The kernel works off a request before `send` returns, so an exchange needs no waiting and no event loop: a batch of
    1,000 routes holds the caller some milliseconds.
    """

    def __init__(self, factory: SocketFactory = open_netlink) -> None:
        """Raises OSError."""
        self._socket = sock = factory()
        sock.setblocking(False)
        _force_buffer(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _REQUEST_BUFFER_OCTETS)
        _force_buffer(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _REQUEST_BUFFER_OCTETS)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                pass  # older kernels: less text in errors, more to read in dumps; both are coped with
        sock.bind((0, 0))
        self.port_id: int = sock.getsockname()[0]
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def sequences(self, count: int) -> int:
        """The first of `count` sequence numbers for a batch."""
        if self._sequence + count >= 1 << 32:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def write(self, messages: Sequence[bytes], first_sequence: int) -> Errors:
        """Send requests numbered from `first_sequence`; return those that failed. The others are done.

        Raises RepliesLost, and OSError if the kernel refuses the whole batch.
        """
        if not messages:
            return {}
        last = first_sequence + len(messages) - 1
        self._socket.send(b"".join([*messages[:-1], with_ack(messages[-1])]))
        errors: Errors = {}
        while True:
            data = self._receive()
            for kind, flags, sequence, _, start, end in frames(data):
                if kind != NLMSG_ERROR or not first_sequence <= sequence <= last:
                    continue  # an answer to a batch that ended in RepliesLost
                error = decode_error(data, flags, start, end)
                if error is not None:
                    errors[sequence - first_sequence] = error
                if sequence == last:
                    return errors

    def dump(self, request: Callable[[int], bytes]) -> Iterator[tuple[bytes, list[Frame]]]:
        """Send a dump request (a function of the sequence number), yield its answers datagram by datagram.

        Raises DumpInterrupted at the end of a reading that the kernel says is inconsistent, RepliesLost, or OSError
        with the kernel's errno. A table that does not exist is empty.
        """
        sequence = self.sequences(1)
        self._socket.send(request(sequence))
        is_interrupted = False
        while True:
            data = self._receive()
            answers: list[Frame] = []
            is_done = False
            for frame in frames(data):
                kind, flags, number, _, start, end = frame
                if number != sequence:
                    continue
                is_interrupted = is_interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    is_done = True
                    error = decode_error(data, flags, start, end) if end - start >= 4 else None
                    if error is not None and error.code != errno.ENOENT:
                        raise OSError(error.code, error.text)
                else:
                    answers.append(frame)
            if answers:
                yield data, answers
            if is_done:
                if is_interrupted:
                    raise DumpInterrupted(errno.EINTR, "the table changed while it was read")
                return

    def _discard(self) -> None:
        """Make room: while the buffer is full of old answers there is none for the next one."""
        while True:
            try:
                self._socket.recv(_READ_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def _receive(self) -> bytes:
        while True:
            try:
                data, sender = self._socket.recvfrom(_READ_OCTETS)
            except BlockingIOError:
                raise RepliesLost(errno.ENOMSG, "the kernel did not answer") from None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._discard()
                    raise RepliesLost(errno.ENOBUFS, "the kernel's answers did not fit") from None
                raise
            if sender[0] == 0:  # only the kernel is 0; any process may send to our port
                return data


class MonitorSocket:
    """Tells of changed routes, links and addresses, except routes that `ignored_port_id` (ourselves) wrote.

    Only routes of `tables` are told where all of them are below 256; the rest never leaves the kernel.
    """

    def __init__(
        self,
        ignored_port_id: int,
        tables: Iterable[int],
        factory: SocketFactory = open_netlink,
        buffer_octets: int = MONITOR_BUFFER_OCTETS,
    ) -> None:
        """Raises OSError."""
        self._socket = sock = factory()
        sock.setblocking(False)
        _force_buffer(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, buffer_octets)
        _attach_filter(sock, ignored_port_id, sorted(set(tables)))
        sock.bind((0, _GROUPS))
        self._ignored_port_id = ignored_port_id
        self._buffer = bytearray(_READ_OCTETS)
        self._view = memoryview(self._buffer)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self, limit: int) -> list[tuple[bytes, Frame]]:
        """At most `limit` notifications, oldest first; fewer if there are no more.

        Raises OSError with ENOBUFS once notifications were lost: read everything anew, on a new socket.
        """
        told: list[tuple[bytes, Frame]] = []
        receive, view, ignored = self._socket.recvfrom_into, self._view, self._ignored_port_id
        for _ in range(limit):
            try:
                count, sender = receive(self._buffer)
            except BlockingIOError:
                break
            if sender[0] != 0:
                continue
            data = bytes(view[:count])
            try:
                told += [(data, frame) for frame in frames(data) if frame[3] != ignored]
            except NetlinkFormatError:
                continue
        return told


# Classic BPF (linux/filter.h). Loads are big-endian whatever the machine, the messages are not.
_LOAD_WORD, _LOAD_HALF, _LOAD_OCTET, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_TYPE_AT, _PORT_ID_AT, _TABLE_AT = 4, 12, 20


def _attach_filter(sock: socket.socket, ignored_port_id: int, tables: Sequence[int]) -> None:
    """Let the kernel drop the echo of our own writes: 50,000 of them would fill the buffer and cost their reading."""
    new_route, del_route = socket.htons(RTM_NEWROUTE), socket.htons(RTM_DELROUTE)
    program = [
        (_LOAD_WORD, 0, 0, _PORT_ID_AT),
        (_JUMP_EQUAL, 0, 1, socket.htonl(ignored_port_id)),
        (_RETURN, 0, 0, 0),
    ]
    if tables and max(tables) < 256:  # above, the header's octet does not hold the table
        program += [
            (_LOAD_HALF, 0, 0, _TYPE_AT),
            (_JUMP_EQUAL, 1, 0, new_route),
            (_JUMP_EQUAL, 0, len(tables) + 2, del_route),  # not a route: accept
            (_LOAD_OCTET, 0, 0, _TABLE_AT),
            *((_JUMP_EQUAL, len(tables) - place, 0, table) for place, table in enumerate(tables)),
            (_RETURN, 0, 0, 0),
        ]
    program.append((_RETURN, 0, 0, 0xFFFFFFFF))
    _attach(sock, program)


def ignore_senders(sock: socket.socket, port_ids: Sequence[int]) -> None:
    """Drop in the kernel what is told of requests from these port ids; at most 200. All messages of a datagram are of one."""
    program = [(_LOAD_WORD, 0, 0, _PORT_ID_AT)]
    program += [(_JUMP_EQUAL, len(port_ids) - place, 0, socket.htonl(one)) for place, one in enumerate(port_ids)]
    _attach(sock, [*program, (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)])


def _attach(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code, len(code))
    argument = struct.pack("@HP", len(program), ctypes.addressof(held))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError:
        pass  # no BPF in this kernel: read() drops our own writes as well, only later
