"""Expressions of nf_tables' rules as netlink attributes. Pure; numbers from linux/netfilter/nf_tables.h."""

from __future__ import annotations

import struct

from felix.kernel.netlink import attribute
from felix.kernel.nft_elements import data, nested, text

VERDICT, REGISTER = 0, 1
EQUAL, UNEQUAL, AT_MOST, AT_LEAST = 0, 1, 3, 5
META_MARK, META_IIFNAME, META_OIFNAME, META_PROTOCOL = 3, 6, 7, 16
NETWORK, TRANSPORT = 1, 2
ADDRESS_AT = {(4, "source"): 12, (4, "destination"): 16, (6, "source"): 8, (6, "destination"): 24}
OCTETS = {4: 4, 6: 16}
CT_STATE, CT_STATUS = 0, 2
CT_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
DST_NAT = 32
FIB_OIF, FIB_ADDRESS_TYPE = 1, 3
FIB_SOURCE, FIB_DESTINATION, FIB_MARK, FIB_IIF, FIB_OUT = 1, 2, 4, 8, 16
RTN_LOCAL = 2
ANONYMOUS, CONSTANT, INTERVAL, CONCATENATION = 1, 2, 4, 0x80
TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT = {4: 7, 6: 8}, 12, 13
CODES = {"drop": 0, "accept": 1, "jump": 0xFFFFFFFD, "goto": 0xFFFFFFFC, "return": 0xFFFFFFFB}
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class Unencodable(ValueError):
    """A rule that the kernel has no words for, or that has no meaning."""


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!Q", value))


def expression(name: str, attributes: bytes) -> bytes:
    return nested(1, text(1, name) + nested(2, attributes))


def meta(key: int, register: int = REGISTER) -> bytes:
    return expression("meta", be32(1, register) + be32(2, key))


def payload(base: int, offset: int, octets: int, register: int = REGISTER) -> bytes:
    return expression("payload", be32(1, register) + be32(2, base) + be32(3, offset) + be32(4, octets))


def compare(operator: int, value: bytes) -> bytes:
    return expression("cmp", be32(1, REGISTER) + be32(2, operator) + data(3, value))


def masked(mask: bytes, xor: bytes) -> bytes:
    return expression(
        "bitwise", be32(1, REGISTER) + be32(2, REGISTER) + be32(3, len(mask)) + data(4, mask) + data(5, xor)
    )


def lookup(name: str, *, negated: bool = False, id: int = 0, into_verdict: bool = False) -> bytes:
    said = text(1, name) + be32(2, REGISTER)
    if into_verdict:
        said += be32(3, VERDICT)
    if id:
        said += be32(4, id)
    if negated:
        said += be32(5, 1)
    return expression("lookup", said)


def verdict(word: str, chain: str = "") -> bytes:
    said = be32(1, CODES[word]) + (text(2, chain) if chain else b"")
    return expression("immediate", be32(1, VERDICT) + nested(2, nested(2, said)))


def host_u32(value: int) -> bytes:
    return struct.pack("=I", value)


def limit(rate: str, burst: int) -> bytes:
    """`10/second`."""
    if not rate:
        return b""
    number, _, unit = rate.partition("/")
    if unit not in UNITS:
        raise Unencodable(f"a rate of {rate}")
    said = be64(1, int(number)) + be64(2, UNITS[unit]) + be32(3, burst) + be32(4, 0) + be32(5, 0)
    return expression("limit", said)


def immediate(register: int, value: bytes) -> bytes:
    return expression("immediate", be32(1, register) + data(2, value))


COUNTER = expression("counter", be64(1, 0) + be64(2, 0))
