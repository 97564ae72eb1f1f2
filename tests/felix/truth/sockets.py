"""Namespaces without names, and what is sent in them by hand: SCTP, ICMP, and packets with somebody else's source address.

A namespace is an open descriptor: it ends with this process, whatever happens.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
SCTP = 132
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace of its own. `path` is one that `ip … netns` takes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fd = _in_thread(_unshared)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, work: Callable[[], T]) -> T:
        """`work()` inside, in a thread of its own; sockets that it makes stay inside."""

        def enter_and_work() -> T:
            _check(_libc.setns(self.fd, CLONE_NEWNET))
            return work()

        return _in_thread(enter_and_work)

    def child_setup(self) -> Callable[[], None]:
        """For subprocess's preexec_fn: one system call through a name bound beforehand."""
        setns, fd = _libc.setns, self.fd

        def setup() -> None:
            if setns(fd, CLONE_NEWNET) != 0:
                os._exit(127)

        return setup

    def command(self, *words: str, text: str = "") -> str:
        """Run a program inside; what it prints. Raises RuntimeError with what it complained of."""
        done = subprocess.run(
            words, input=text, preexec_fn=self.child_setup(), capture_output=True, text=True, timeout=20, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def write(self, path: str, value: str) -> None:
        """A setting below /proc/sys/net: which one is meant follows from the namespace of who opens it."""

        def put() -> None:
            with open(f"/proc/sys/net/{path}", "w") as file:
                file.write(value)

        self.run(put)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        made = self.run(lambda: socket.socket(family, kind, protocol))
        made.setblocking(False)
        return made

    def close(self) -> None:
        os.close(self.fd)


def _unshared() -> int:
    _check(_libc.unshare(CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(work: Callable[[], T]) -> T:
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return answer[0]


def family_of(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


# --- packets by hand


def sctp_init(source_port: int, destination_port: int, tag: int) -> bytes:
    """The first packet of an association (RFC 9260 §3.3.2), checksum included: conntrack looks at both."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, tag, 65536, 1, 1, 1)
    header = struct.pack("!HHI", source_port, destination_port, 0)
    # The checksum stands in the packet with its lowest octet first (RFC 9260 appendix A).
    return header + struct.pack("<I", crc32c(header + b"\0\0\0\0" + chunk)) + chunk


def _crc32c_table() -> list[int]:
    table = []
    for octet in range(256):
        value = octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for octet in data:
        value = value >> 8 ^ _CRC32C[(value ^ octet) & 0xFF]
    return value ^ 0xFFFFFFFF


def icmp_message(kind: int, code: int, identifier: int, payload: bytes, *, version: int) -> bytes:
    """In IPv6 the kernel writes the checksum."""
    plain = struct.pack("!BBHHH", kind, code, 0, identifier, 1) + payload
    return plain if version == 6 else plain[:2] + struct.pack("!H", checksum(plain)) + plain[4:]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def udp_packet(source: str, destination: str, source_port: int, port: int, payload: bytes) -> bytes:
    """A whole IPv4 packet, for a socket of IPPROTO_RAW. UDP's checksum 0: none."""
    udp = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp
