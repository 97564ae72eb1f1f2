"""WireGuard devices by generic netlink (linux/wireguard.h, linux/genetlink.h)."""

from __future__ import annotations

import base64
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from felix.kernel.links import address_text
from felix.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkFormatError,
    attribute,
    attributes,
    message,
    u32,
)
from felix.kernel.sockets import RequestSocket, steadily
from felix.ports import Failure
from felix.sync.wireguard import DeviceState, Peer

_NETLINK_GENERIC, _CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 16, 3, 1, 2
_GET_DEVICE, _SET_DEVICE, _VERSION = 0, 1, 1
_NESTED = 0x8000
_IFINDEX, _PRIVATE_KEY, _PUBLIC_KEY, _PORT, _MARK, _PEERS = 1, 3, 4, 6, 7, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEP_ALIVE, _PEER_ALLOWED = 1, 3, 4, 5, 9
_REMOVE, _REPLACE_ALLOWED = 1, 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_BITS = 1, 2, 3
_HEADER = struct.Struct("=BBH")
KEY_OCTETS = 32
ALLOWED_AT_ONCE = 500  # an attribute holds 65,535 octets, and each of these takes at most 44
OCTETS_AT_ONCE = 30_000


def open_generic() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)


# --- messages


def get_family(sequence: int, name: str) -> bytes:
    body = _HEADER.pack(_GET_FAMILY, 1, 0) + attribute(_FAMILY_NAME, name.encode() + b"\0")
    return message(_CONTROL, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def get_device(sequence: int, family: int, index: int) -> bytes:
    body = _HEADER.pack(_GET_DEVICE, _VERSION, 0) + attribute(_IFINDEX, struct.pack("=I", index))
    return message(family, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


def set_device(sequence: int, family: int, index: int, parts: bytes) -> bytes:
    """`parts`: attributes of the device; what is not said stays."""
    body = _HEADER.pack(_SET_DEVICE, _VERSION, 0) + attribute(_IFINDEX, struct.pack("=I", index)) + parts
    return message(family, NLM_F_REQUEST, sequence, body)


def device_parts(port: int | None = None, mark: int | None = None, private_key: bytes | None = None) -> bytes:
    said = attribute(_PRIVATE_KEY, private_key) if private_key is not None else b""
    if port is not None:
        said += attribute(_PORT, struct.pack("=H", port))
    if mark is not None:
        said += attribute(_MARK, struct.pack("=I", mark))
    return said


def peer_parts(peer: Peer) -> Iterator[bytes]:
    """The peer whole; one with very many networks in several pieces, to be sent in order."""
    allowed = sorted(peer.allowed)
    key = attribute(_PEER_KEY, base64.b64decode(peer.key))
    first = key + attribute(_PEER_FLAGS, struct.pack("=I", _REPLACE_ALLOWED))
    first += attribute(_PEER_ENDPOINT, _socket_address(*peer.endpoint))
    first += attribute(_PEER_KEEP_ALIVE, struct.pack("=H", peer.keep_alive_s))
    for at in range(0, max(len(allowed), 1), ALLOWED_AT_ONCE):
        nets = b"".join(attribute(_NESTED, _allowed(one)) for one in allowed[at : at + ALLOWED_AT_ONCE])
        yield (first if at == 0 else key) + attribute(_PEER_ALLOWED | _NESTED, nets)


def removed_peer_parts(key: str) -> bytes:
    return attribute(_PEER_KEY, base64.b64decode(key)) + attribute(_PEER_FLAGS, struct.pack("=I", _REMOVE))


def in_messages(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of peers as attributes of a device, as many together as a message takes."""
    some: list[bytes] = []
    octets = 0
    for piece in pieces:
        if some and octets + len(piece) > OCTETS_AT_ONCE:
            yield attribute(_PEERS | _NESTED, b"".join(some))
            some, octets = [], 0
        some.append(attribute(_NESTED, piece))
        octets += len(piece)
    if some:
        yield attribute(_PEERS | _NESTED, b"".join(some))


def _allowed(network: str) -> bytes:
    parsed = ipaddress.ip_network(network)
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    said = attribute(_ALLOWED_FAMILY, struct.pack("=H", family))
    said += attribute(_ALLOWED_ADDRESS, parsed.network_address.packed)
    return said + attribute(_ALLOWED_BITS, bytes((parsed.prefixlen,)))


def _socket_address(address: str, port: int) -> bytes:
    if ":" in address:
        return struct.pack("=H", socket.AF_INET6) + struct.pack(
            "!HI16sI", port, 0, socket.inet_pton(socket.AF_INET6, address), 0
        )
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(address))


def read_family(data: bytes, start: int, end: int) -> int:
    """0 if it does not say."""
    for kind, first, last in attributes(data, start + _HEADER.size, end):
        if kind == _FAMILY_ID and last - first == 2:
            return int(struct.unpack_from("=H", data, first)[0])
    return 0


class DeviceReader:
    """A device's answer comes in several messages, a peer's networks too."""

    def __init__(self) -> None:
        self._key, self._port, self._mark = "", 0, 0
        self._peers: dict[str, Peer] = {}

    def take(self, data: bytes, start: int, end: int) -> None:
        """Raises NetlinkFormatError."""
        for kind, first, last in attributes(data, start + _HEADER.size, end):
            if kind == _PUBLIC_KEY and last - first == KEY_OCTETS and any(data[first:last]):
                self._key = base64.b64encode(data[first:last]).decode()
            elif kind == _PORT and last - first == 2:
                (self._port,) = struct.unpack_from("=H", data, first)
            elif kind == _MARK:
                self._mark = u32(data, first, last)
            elif kind == _PEERS:
                for _, begin, stop in attributes(data, first, last):
                    self._take_peer(data, begin, stop)

    def _take_peer(self, data: bytes, start: int, end: int) -> None:
        key, endpoint, keep_alive = "", ("", 0), 0
        allowed: set[str] = set()
        for kind, first, last in attributes(data, start, end):
            if kind == _PEER_KEY:
                key = base64.b64encode(data[first:last]).decode()
            elif kind == _PEER_ENDPOINT:
                endpoint = _read_socket_address(data, first, last)
            elif kind == _PEER_KEEP_ALIVE and last - first == 2:
                (keep_alive,) = struct.unpack_from("=H", data, first)
            elif kind == _PEER_ALLOWED:
                allowed = {_read_allowed(data, begin, stop) for _, begin, stop in attributes(data, first, last)}
        before = self._peers.get(key)
        if before is not None:  # its networks go on
            self._peers[key] = Peer(key, before.endpoint, before.allowed | allowed, before.keep_alive_s)
        else:
            self._peers[key] = Peer(key, endpoint, frozenset(allowed), keep_alive)

    def state(self) -> DeviceState:
        return DeviceState(self._key, self._port, self._mark, self._peers)


def _read_socket_address(data: bytes, start: int, end: int) -> tuple[str, int]:
    if end - start < 8:
        raise NetlinkFormatError(f"a socket address of {end - start} octets")
    family, (port,) = struct.unpack_from("=H", data, start)[0], struct.unpack_from("!H", data, start + 2)
    if family == socket.AF_INET6 and end - start >= 24:
        return address_text(data[start + 8 : start + 24]), port
    return address_text(data[start + 4 : start + 8]), port


def _read_allowed(data: bytes, start: int, end: int) -> str:
    address, bits = "", 0
    for kind, first, last in attributes(data, start, end):
        if kind == _ALLOWED_ADDRESS and last - first in (4, 16):
            address = address_text(data[first:last])
        elif kind == _ALLOWED_BITS and last > first:
            bits = data[first]
    return f"{address}/{bits}"


# --- the kernel


class KernelWireguard:
    """In the network namespace in which it was made. Every method may raise OSError."""

    def __init__(self) -> None:
        self._socket = RequestSocket(open_generic)
        self._family = 0

    def close(self) -> None:
        self._socket.close()

    def read(self, index: int) -> DeviceState:
        return steadily(lambda: self._read(index))

    def _read(self, index: int) -> DeviceState:
        family = self._find_family()
        reader = DeviceReader()
        for data, answers in self._socket.dump(lambda sequence: get_device(sequence, family, index)):
            for kind, _, _, _, start, end in answers:
                if kind == family:
                    reader.take(data, start, end)
        return reader.state()

    def write(
        self, index: int, port: int | None = None, mark: int | None = None, *, new_key: bool = False,
        puts: Iterable[Peer] = (), removes: Iterable[str] = (),
    ) -> list[Failure]:  # fmt: skip
        """What is None stays. `new_key`: a private key that nobody knows but the kernel."""
        family = self._find_family()
        settings = device_parts(port, mark, os.urandom(KEY_OCTETS) if new_key else None)  # the kernel clamps it
        pieces = [*map(removed_peer_parts, removes), *(piece for peer in puts for piece in peer_parts(peer))]
        failures = []
        for parts in [*([settings] if settings else []), *in_messages(pieces)]:
            first = self._socket.sequences(1)
            error = self._socket.write([set_device(first, family, index, parts)], first).get(0)
            if error is not None:
                failures.append(Failure("WireGuard", str(error)))
        return failures

    def _find_family(self) -> int:
        """Asking for it loads the kernel's module."""
        if not self._family:
            try:
                for data, answers in self._socket.dump(lambda sequence: get_family(sequence, "wireguard")):
                    for _, _, _, _, start, end in answers:
                        self._family = read_family(data, start, end)
            except OSError as error:
                raise OSError(error.errno, "the kernel has no WireGuard") from None
        if not self._family:
            raise OSError(errno.ENOENT, "the kernel has no WireGuard")
        return self._family
