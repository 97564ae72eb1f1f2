"""Packets that rules hand to a netlink group (`NFLOG`, nftables' `log group`): read, decoded, passed on.

Numbers from linux/netfilter/nfnetlink_log.h. Whoever sends packets through the node decides how many there are: a
turn of the loop reads a bounded number of datagrams, and what the kernel has no room for it drops and says so.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from felix.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    KernelError,
    NetlinkFormatError,
    attribute,
    attributes,
    decode_error,
    frames,
    message,
)

NETLINK_NETFILTER = 12
_ULOG = 4 << 8  # the subsystem, in the high octet of the message type
_PACKET, _CONFIG = _ULOG | 0, _ULOG | 1
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_QTHRESH = 1, 2, 4, 5
_CMD_BIND = 1
_COPY_PACKET = 2
_PACKET_HDR, _IFINDEX_INDEV, _IFINDEX_OUTDEV, _PAYLOAD, _PREFIX = 1, 4, 5, 9, 10
_GENERAL = struct.Struct("!BBH")  # family, version 0, group
_SO_RCVBUFFORCE = 33
_BUFFER_OCTETS = 1 << 20
_READ_OCTETS = 1 << 16
_READS_A_TURN = 16
HEADERS_OCTETS = 128  # of each packet: IPv6 with some extension headers and the ports
FLUSH_AFTER_HUNDREDTHS = 20  # the kernel gathers packets so long
FLUSH_AT = 32  # or so many


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """`payload` begins with the IP header, and may be cut. Interfaces by index, 0: none."""

    group: int
    prefix: str
    payload: bytes
    in_interface: int = 0
    out_interface: int = 0


def decode(data: bytes) -> Iterator[LoggedPacket]:
    """The packets in one datagram. Raises NetlinkFormatError."""
    for kind, _flags, _sequence, _port, start, end in frames(data):
        if kind == _PACKET:
            yield _decode_packet(data, start, end)


def _decode_packet(data: bytes, start: int, end: int) -> LoggedPacket:
    if end - start < _GENERAL.size:
        raise NetlinkFormatError("a logged packet without its header")
    group = _GENERAL.unpack_from(data, start)[2]
    prefix, payload, interfaces = "", b"", {_IFINDEX_INDEV: 0, _IFINDEX_OUTDEV: 0}
    for kind, first, last in attributes(data, start + _GENERAL.size, end):
        if kind == _PREFIX:
            prefix = data[first:last].rstrip(b"\0").decode("utf-8", "replace")
        elif kind == _PAYLOAD:
            payload = data[first:last]
        elif kind in interfaces:
            if last - first != 4:
                raise NetlinkFormatError(f"an interface index of {last - first} octets")
            interfaces[kind] = int.from_bytes(data[first:last], "big")
    return LoggedPacket(group, prefix, payload, interfaces[_IFINDEX_INDEV], interfaces[_IFINDEX_OUTDEV])


def bind_messages(group: int) -> list[bytes]:
    """What asks the kernel for a group: to whom, how much of each packet, how soon."""
    general = _GENERAL.pack(socket.AF_UNSPEC, 0, group)
    mode = struct.pack("!IBB", HEADERS_OCTETS, _COPY_PACKET, 0)
    gathering = attribute(_CFG_TIMEOUT, struct.pack("!I", FLUSH_AFTER_HUNDREDTHS)) + attribute(_CFG_QTHRESH, struct.pack("!I", FLUSH_AT))  # fmt: skip
    bodies = attribute(_CFG_CMD, bytes([_CMD_BIND])), attribute(_CFG_MODE, mode) + gathering
    return [
        message(_CONFIG, NLM_F_REQUEST | NLM_F_ACK, number, general + body) for number, body in enumerate(bodies, 1)
    ]


class GroupRefused(OSError):
    """Somebody else reads this group (the kernel allows one), or CAP_NET_ADMIN is missing: the kernel says EPERM to both."""


class NFLogReader:
    """Calls `received` for every packet that arrives on the sockets (of `open_group`, its own from now on).

    `lost` counts how often the kernel had to drop packets, `malformed` datagrams that could not be decoded.
    """

    def __init__(self, sockets: Iterable[socket.socket], received: Callable[[LoggedPacket], None]) -> None:
        """From the event loop that shall read."""
        self.lost = 0
        self.malformed = 0
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        for one in self._sockets:
            self._loop.add_reader(one, self._read, one)

    def close(self) -> None:
        for one in self._sockets:
            self._loop.remove_reader(one)
            one.close()
        self._sockets.clear()

    def _read(self, one: socket.socket) -> None:
        for _ in range(_READS_A_TURN):
            try:
                data, (port, _groups) = one.recvfrom(_READ_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            if port != 0:
                continue  # not from the kernel
            try:
                for packet in decode(data):
                    self._received(packet)
            except NetlinkFormatError:
                self.malformed += 1


def open_group(group: int) -> socket.socket:
    """A socket that gets the group's packets, in this thread's network namespace.

    Raises GroupRefused, or OSError of a kernel without log groups.
    """
    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        try:
            one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
        except PermissionError:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
        one.bind((0, 0))
        # The kernel answers inside `send`: what stands in the socket afterwards is the acknowledgement.
        for request in bind_messages(group):
            one.send(request)
            _check(one.recv(_READ_OCTETS), group)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def _check(answer: bytes, group: int) -> None:
    for kind, flags, _sequence, _port, start, end in frames(answer):
        if kind == NLMSG_ERROR and (error := decode_error(answer, flags, start, end)) is not None:
            _refuse(error, group)


def _refuse(error: KernelError, group: int) -> None:
    if error.code in (errno.EPERM, errno.EBUSY):
        raise GroupRefused(error.code, f"log group {group} has another reader, or CAP_NET_ADMIN is missing")
    raise OSError(error.code, f"log group {group}: {error}")
