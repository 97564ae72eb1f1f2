"""Readers of single values: each takes a Node and returns what the configuration keeps, or notes what is allowed."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from bgp.families import BY_NAME, Family, IPAddress, IPNetwork
from bgp.policy.communities import parse_community
from bgp.toml.problems import Node, Reader, Refused, T, did_you_mean, shown

# Linux's names, /etc/iproute2/rt_protos; written down here so that a file means the same on every machine.
PROTOCOLS = {
    "redirect": 1,
    "kernel": 2,
    "boot": 3,
    "static": 4,
    "gated": 8,
    "ra": 9,
    "mrt": 10,
    "zebra": 11,
    "bird": 12,
    "dnrouted": 13,
    "xorp": 14,
    "ntk": 15,
    "dhcp": 16,
    "keepalived": 18,
    "babel": 42,
    "felix": 80,
    "openr": 99,
    "bgp": 186,
    "isis": 187,
    "ospf": 188,
    "rip": 189,
    "eigrp": 192,
}
TABLES = {"default": 253, "main": 254, "local": 255}

AS_TRANS = 23456  # RFC 6793 §9: stands for what two octets cannot say, is nobody's
_ASN_WORDS = "1 to 4294967295 without 23456 (AS_TRANS, RFC 6793)"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@%/-]{0,63}")
_INTERFACE = re.compile(r"[^\s/\x00-\x1f\x7f]{1,15}")
_GLOB = re.compile(r"[^\s/\x00-\x1f\x7f]{1,64}")


def boolean(node: Node) -> bool:
    return node.expect(bool, "true or false")


def integer(least: int, most: int) -> Reader[int]:
    def read(node: Node) -> int:
        value = node.expect(int, f"a whole number from {least} to {most}")
        if not least <= value <= most:
            node.refuse(f"{shown(value)} is not allowed; allowed: {least} to {most}")
        return value

    return read


def number(least: float, most: float, *, above: bool = False) -> Reader[float]:
    """`above`: `least` itself is too little."""
    words = f"{'more than ' if above else ''}{least:g} to {most:g}"

    def read(node: Node) -> float:
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            value: float = node.value if abs(node.value) <= most else math.inf
        else:
            value = node.expect(float, f"a number, {words}")
        # not (…): NaN compares false with everything
        if not least <= value <= most or (above and value == least):
            node.refuse(f"{shown(node.value)} is not allowed; allowed: {words}")
        return float(value)

    return read


def hold_time(node: Node) -> int:
    words = "0 (no keepalives) or 3 to 65535 (RFC 4271 §4.2)"
    value = node.expect(int, words)
    if value != 0 and not 3 <= value <= 65535:
        node.refuse(f"{shown(value)} is not allowed; allowed: {words}")
    return value


def text(longest_octets: int, words: str = "a string") -> Reader[str]:
    """One line of printable text of at most so many octets in UTF-8."""

    def read(node: Node) -> str:
        value = node.expect(str, words)
        if not value.isprintable():
            node.refuse("control characters are not allowed; allowed: one line of printable text")
        if len(value.encode()) > longest_octets:
            node.refuse(f"{len(value.encode())} octets are too long; allowed: at most {longest_octets} in UTF-8")
        return value

    return read


def name(node: Node) -> str:
    value = node.expect(str, "a name")
    if not _NAME.fullmatch(value):
        node.refuse(f"{shown(value)} is no name; allowed: letters, digits and . _ : @ % / -, at most 64")
    return value


def choice(allowed: Collection[str]) -> Reader[Any]:
    """One of these words."""
    words = ", ".join(allowed)

    def read(node: Node) -> str:
        value = node.expect(str, words)
        if value not in allowed:
            node.refuse(f"{shown(value)} is not allowed; {did_you_mean(value, allowed)}")
        return value

    return read


def named_number(names: Mapping[str, int], least: int, most: int) -> Reader[int]:
    """A number or one of the names for it."""

    def read(node: Node) -> int:
        if not isinstance(node.value, str):
            return integer(least, most)(node)
        if node.value not in names:
            hint = did_you_mean(node.value, names)
            node.refuse(f"{shown(node.value)} is not known; {hint}, or a number from {least} to {most}")
        return names[node.value]

    return read


def optional(reader: Reader[T]) -> Reader[T | None]:
    """`false` is none, so that a peer can undo what [defaults] gives all."""
    return lambda node: None if node.value is False else reader(node)


def list_of(reader: Reader[T], *, may_be_empty: bool = False, may_repeat: bool = False) -> Reader[tuple[T, ...]]:
    """An array, or one item alone. Every item that cannot be used is noted."""

    def read(node: Node) -> tuple[T, ...]:
        if not isinstance(node.value, list):
            return (reader(node),)
        if not node.value and not may_be_empty:
            node.refuse("an empty array says nothing; leave the key out")
        items: list[T] = []
        seen: set[T] = set()
        is_refused = False
        for at in range(len(node.value)):
            try:
                item = reader(node.child(at))
                items.append(item)
                if not may_repeat:  # only then: a rule or a policy is slow to hash
                    if item in seen:
                        node.child(at).refuse(f"{shown(node.value[at])} is there twice")
                    seen.add(item)
            except Refused:
                is_refused = True
        if is_refused:
            raise Refused
        return tuple(items)

    return read


def asn(node: Node) -> int:
    """Plain, or as `"1.10"` (asdot, RFC 5396) in quotes."""
    value = node.value
    if isinstance(value, float):
        node.refuse(f'{value} is a fraction; an AS number with a dot is written in quotes, "1.10"')
    if isinstance(value, str):
        high, dot, low = value.partition(".")
        halves = [high, low] if dot else [high]
        if not all(half.isascii() and half.isdecimal() and len(half) <= 10 for half in halves):
            node.refuse(f"{shown(value)} is not an AS number; allowed: {_ASN_WORDS}")
        if dot and max(int(high), int(low)) > 0xFFFF:
            node.refuse(f"{shown(value)} is not an AS number; in asdot both parts are at most 65535")
        value = int(high) << 16 | int(low) if dot else int(high)
    elif isinstance(value, bool) or not isinstance(value, int):
        node.expect(int, _ASN_WORDS)
    if not 1 <= value <= 0xFFFFFFFF or value == AS_TRANS:
        node.refuse(f"{shown(value)} is not allowed; allowed: {_ASN_WORDS}")
    return int(value)


def any_address(node: Node) -> IPAddress:
    value = node.expect(str, "an IP address")
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        node.refuse(f"{shown(value)} is not an IP address")


def host_address(node: Node) -> IPAddress:
    """The address of one machine."""
    address = any_address(node)
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        node.refuse(f"{address} is not the address of one machine")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        node.refuse(f"{shown(node.value)} is an IPv4 address in IPv6 clothes; write {address.ipv4_mapped}")
    return address


def global_address(node: Node) -> IPAddress:
    """Without %interface, for where it has no place."""
    address = host_address(node)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        node.refuse(f"{shown(node.value)} must not carry an interface here")
    return address


def listen_address(node: Node) -> IPAddress:
    address = any_address(node)
    if address.is_multicast:
        node.refuse(f"{address} is multicast: BGP runs over TCP")
    return address


def router_id(node: Node) -> IPAddress:
    value = node.expect(str, "a router ID in the form of an IPv4 address")
    try:
        identifier = ipaddress.IPv4Address(value)
    except ValueError:
        node.refuse(f"{shown(value)} is not allowed; allowed: four octets as in 10.0.0.1")
    if not int(identifier):
        node.refuse("0.0.0.0 is not allowed; allowed: any other (RFC 6286)")
    return identifier


def network(node: Node) -> IPNetwork:
    value = node.expect(str, "a prefix such as 10.0.0.0/8 or 2001:db8::/32")
    try:
        # "10.0.0.0/255.0.0.0" and a bare address are taken by ipaddress, but nobody means them
        if not re.fullmatch(r"[0-9A-Fa-f:.]+/[0-9]{1,3}", value):
            raise ValueError
        found = ipaddress.ip_network(value, strict=False)
    except ValueError:
        node.refuse(f"{shown(value)} is not a prefix; allowed: such as 10.0.0.0/8 or 2001:db8::/32")
    if str(found.network_address) != str(ipaddress.ip_address(value.partition("/")[0])):
        node.refuse(f"{shown(value)} has host bits set; did you mean {found}?")
    return found


def unicast_network(node: Node) -> IPNetwork:
    """A prefix that may be a route of AFI 1 or 2, SAFI 1."""
    found = network(node)
    if found.is_multicast or (found.is_link_local and found.version == 6):
        node.refuse(f"{found} is {'multicast' if found.is_multicast else 'link-local'}; allowed: a unicast prefix")
    return found


def address_or_network(node: Node) -> IPNetwork:
    """A single address is the prefix of its full length."""
    if isinstance(node.value, str) and "/" not in node.value:
        return ipaddress.ip_network(global_address(node))
    return network(node)


def family(node: Node) -> Family:
    return BY_NAME[choice(BY_NAME)(node)]


def community(node: Node) -> bytes:
    value = node.expect(str, 'a string such as "65000:1"')
    try:
        return parse_community(value)
    except ValueError as error:
        node.refuse(_one_line(str(error)))


def standard_community(node: Node) -> bytes:
    octets = community(node)
    if len(octets) != 4:
        node.refuse(f"{shown(node.value)} is not a standard community; allowed: 65000:1 or a name such as no-export")
    return octets


def interface(node: Node) -> str:
    value = node.expect(str, "the name of an interface")
    if not _INTERFACE.fullmatch(value):
        node.refuse(f"{shown(value)} is no name of an interface; allowed: 1 to 15 characters without blanks and /")
    return value


def interface_glob(node: Node) -> str:
    value = node.expect(str, "the name of an interface, with * and ? for what may differ")
    if not _GLOB.fullmatch(value):
        node.refuse(f"{shown(value)} is no name of an interface; allowed: cali* or eth? or a whole name")
    return value


def host_and_port(node: Node) -> str:
    words = '"127.0.0.1:9179", "[::1]:9179" or "localhost:9179"'
    value = node.expect(str, words)
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", value)
    if match is None or not 1 <= int(match[2]) <= 65535:
        node.refuse(f"{shown(value)} is not host:port; allowed: {words}")
    return value


def socket_path(node: Node) -> str:
    value = text(107, "a path")(node)  # sun_path of unix(7), with its final zero
    if not value:
        node.refuse("an empty path is not allowed")
    return value


def password(node: Node) -> str:
    """Never shown, not even when it is wrong. 80 octets are TCP_MD5SIG_MAXKEYLEN."""
    value = node.expect(str, "a string of 1 to 80 octets")
    if not 1 <= len(value.encode()) <= 80:
        node.refuse(f"{len(value.encode())} octets are not allowed; allowed: 1 to 80 (TCP-MD5)")
    return value


def password_file(node: Node) -> str:
    """The first line of a file; a relative path starts where the configuration file is."""
    path = node.document.directory / node.expect(str, "the path of a file")
    try:
        with path.open("rb") as file:
            line = file.readline(4096).rstrip(b"\r\n").decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        node.refuse(f"{shown(str(path))} cannot be read: {reason}")
    if not 1 <= len(line.encode()) <= 80:
        node.refuse(f"the first line has {len(line.encode())} octets; allowed: 1 to 80 (TCP-MD5)")
    return line


def _one_line(words: str) -> str:
    return words if words.isprintable() and len(words) <= 200 else ascii(words[:200])[1:-1]
