"""Netlink framing: bytes ⇄ messages, attributes, errors. Pure; numbers from linux/netlink.h.

Everything is in the machine's byte order and aligned to 4 octets, except addresses, which are as on the wire.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = struct.Struct("=IHHII")  # length (header included), type, flags, sequence number, port id
ATTRIBUTE = struct.Struct("=HH")  # length (these 4 octets included), type
HEADER_OCTETS = 16

NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010  # the table changed while it was read: something may be missing or twice
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_CAPPED = 0x100  # on an error: the offending message is cut to its header
NLM_F_ACK_TLVS = 0x200  # on an error: attributes follow

_NLA_TYPE_MASK = 0x3FFF  # the two high bits say "nested" and "network byte order"
_NLMSGERR_ATTR_MSG = 1


class NetlinkFormatError(ValueError):
    """These bytes are no netlink message of the kind asked for. Nothing of them was used."""


@dataclass(frozen=True, slots=True)
class KernelError:
    """What the kernel says about one request: `code` is a positive errno, `text` what a person should read."""

    code: int
    text: str

    @property
    def name(self) -> str:
        return errno.errorcode.get(self.code, str(self.code))

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


Frame = tuple[int, int, int, int, int, int]  # type, flags, sequence number, port id, start and end of the body


def frames(data: bytes) -> Iterator[Frame]:
    """The messages in one datagram, in order. Raises NetlinkFormatError where a length does not fit."""
    offset, total = 0, len(data)
    unpack = HEADER.unpack_from
    while offset + HEADER_OCTETS <= total:
        length, kind, flags, sequence, port_id = unpack(data, offset)
        if length < HEADER_OCTETS or offset + length > total:
            raise NetlinkFormatError(f"message length {length} at octet {offset} of {total}")
        yield kind, flags, sequence, port_id, offset + HEADER_OCTETS, offset + length
        offset += (length + 3) & ~3
    if offset < total:
        raise NetlinkFormatError(f"{total - offset} octets after the last message")


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each attribute's value in data[start:end]. Raises NetlinkFormatError."""
    unpack = ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, kind = unpack(data, start)
        if length < 4 or start + length > end:
            raise NetlinkFormatError(f"attribute {kind & _NLA_TYPE_MASK} has length {length}, {end - start} are left")
        yield kind & _NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3
    if start < end:
        raise NetlinkFormatError(f"{end - start} octets after the last attribute")


def attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER_OCTETS + len(body), kind, flags, sequence, 0) + body


def with_ack(data: bytes) -> bytes:
    """The same request, but the kernel shall answer it even if all went well."""
    flags = int.from_bytes(data[6:8], sys.byteorder) | NLM_F_ACK
    return data[:6] + flags.to_bytes(2, sys.byteorder) + data[8:]


def decode_error(data: bytes, flags: int, start: int, end: int) -> KernelError | None:
    """The body of NLMSG_ERROR, or of a NLMSG_DONE that carries a code; None = success. Raises NetlinkFormatError."""
    if end - start < 4:
        raise NetlinkFormatError("an error without a code")
    code = -int.from_bytes(data[start : start + 4], sys.byteorder, signed=True)
    if code == 0:
        return None
    text = os.strerror(code) if 0 < code < 4096 else f"error {code}"
    extended = _extended_text(data, flags, start + 4, end)
    return KernelError(code, extended or text)


def _extended_text(data: bytes, flags: int, start: int, end: int) -> str:
    if not flags & NLM_F_ACK_TLVS or start + HEADER_OCTETS > end:
        return ""
    # The request comes back in front of the attributes: whole, or its header only.
    echoed = HEADER_OCTETS if flags & NLM_F_CAPPED else int.from_bytes(data[start : start + 4], sys.byteorder)
    for kind, first, last in attributes(data, min(start + ((echoed + 3) & ~3), end), end):
        if kind == _NLMSGERR_ATTR_MSG:
            return data[first:last].rstrip(b"\0").decode("utf-8", "replace")
    return ""


def u32(data: bytes, start: int, end: int) -> int:
    """A 4-octet attribute value. Raises NetlinkFormatError."""
    if end - start != 4:
        raise NetlinkFormatError(f"a number of {end - start} octets where 4 are due")
    return int.from_bytes(data[start:end], sys.byteorder)
