"""UPDATE messages: received bodies → route changes; prefixes and attribute blocks → messages.

RFC 4271 §4.3 and §6.3, RFC 4760, RFC 7606, RFC 8950. A received UPDATE that is malformed in a way that leaves its
prefixes readable becomes a withdrawal of these; only what cannot be read resets the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from bgp.families import BY_KEY, IPV4, IPV6, Address, Family, Nlri
from bgp.wire.attributes import (
    AS_PATH,
    DISCARD,
    EXTENDED,
    LOCAL_PREF,
    MANDATORY,
    MP_REACH,
    MP_UNREACH,
    NEXT_HOP,
    OPTIONAL,
    ORIGIN,
    TREAT_AS_WITHDRAW,
    PathAttributes,
    Scan,
    attribute,
    is_host_address,
    name_of,
    one_next_hop,
    scan_nominal,
    scan_usual,
    split_block,
)
from bgp.wire.errors import NotificationError
from bgp.wire.nlri import pack_runs, split_nlri

ANNOUNCE, WITHDRAW, END_OF_RIB = 1, 2, 3

# (kind, family, prefixes, attributes); attributes only with ANNOUNCE
RouteChange = tuple[int, Family, list[Nlri], PathAttributes | None]

MARKER = b"\xff" * 16
HEADER_OCTETS = 19
_INTERN_LIMIT = 65536  # sets in one generation; two are kept


class UpdateParser:
    """Takes the UPDATE bodies of one session. Interns attribute sets, bounded, in two generations.

    `passes`: which unknown optional transitive attributes go on ("all", "none" or their codes).
    `first_asn`: with an external peer, the AS that must lead each path; None does not check.
    `extended_next_hop`: families whose next hop may be of the other family (RFC 8950, both sides said so).
    `on_malformed(body, verdict, text)` is told of every fault that is not worth a reset.
    """

    def __init__(
        self,
        *,
        families: Iterable[Family],
        is_ebgp: bool,
        four_octet_asn: bool = True,
        extended_next_hop: frozenset[Family] = frozenset(),
        passes: Literal["all", "none"] | frozenset[int] = "all",
        first_asn: int | None = None,
        on_malformed: Callable[[bytes, str, str], None] = lambda _body, _verdict, _text: None,
    ) -> None:
        self.families = frozenset(families)
        self.is_ebgp = is_ebgp
        self.four_octet_asn = four_octet_asn
        self.extended_next_hop = extended_next_hop
        self.passes = passes
        self.set_first_asn(first_asn)
        self.on_malformed = on_malformed
        self.dropped_attributes = 0  # unknown ones, stopped by the allow-list
        self.ignored_families = 0  # UPDATEs for a family that was not negotiated
        self._mandatory = MANDATORY if is_ebgp else MANDATORY | 1 << LOCAL_PREF
        self._has_ipv4 = IPV4 in self.families
        self._young: dict[bytes, PathAttributes] = {}
        self._old: dict[bytes, PathAttributes] = {}

    def set_first_asn(self, first_asn: int | None) -> None:
        self.first_asn = first_asn
        self._first_octets = b"" if first_asn is None else first_asn.to_bytes(4, "big")

    def forget(self) -> None:
        """Intern anew: what was imported from the old sets is out of date (an import policy changed)."""
        self._young, self._old = {}, {}

    def parse(self, data: bytes, start: int, end: int, changes: list[RouteChange]) -> None:
        """Append what the UPDATE body data[start:end] says. Raises NotificationError if the session must be reset."""
        if end - start < 4:
            raise NotificationError(1, 2, (end - start + HEADER_OCTETS).to_bytes(2, "big"), "UPDATE under 23 octets")
        at = start + 2 + (data[start] << 8 | data[start + 1])
        if at + 2 > end:
            raise NotificationError(3, 1, b"", "withdrawn routes run past the UPDATE")
        nlri_at = at + 2 + (data[at] << 8 | data[at + 1])
        if nlri_at > end:
            raise NotificationError(3, 1, b"", "path attributes run past the UPDATE")
        if at > start + 2 and self._has_ipv4:
            changes.append((WITHDRAW, IPV4, split_nlri(data[start + 2 : at], IPV4), None))
        if nlri_at == at + 2:
            self._without_attributes(data, start, end, nlri_at, changes)
            return
        block = data[at + 2 : nlri_at]
        if nlri_at < end and self._has_ipv4:
            attributes = self._young.get(block)
            if attributes is None:
                attributes = (self._old and self._known(block)) or self._first_sight(block)
            if attributes is not None:
                changes.append((ANNOUNCE, IPV4, split_nlri(data[nlri_at:end], IPV4), attributes))
                return
        self._parse_special(data[start:end], block, data[nlri_at:end], changes)

    def _without_attributes(self, data: bytes, start: int, end: int, nlri_at: int, changes: list[RouteChange]) -> None:
        if nlri_at < end:
            nlris = split_nlri(data[nlri_at:end], IPV4)
            error = NotificationError(3, 3, bytes([ORIGIN]), "IPv4 prefixes without path attributes")
            self._withdraw_malformed(data[start:end], error, [(IPV4, nlris)], changes)
        elif end - start == 4 and self._has_ipv4:
            changes.append((END_OF_RIB, IPV4, [], None))

    # --- interning --------------------------------------------------------------------------------------------------

    def _known(self, key: bytes) -> PathAttributes | None:
        attributes = self._old.get(key)
        if attributes is not None:
            self._intern(key, attributes)
        return attributes

    def _intern(self, key: bytes, attributes: PathAttributes) -> None:
        if len(self._young) >= _INTERN_LIMIT:
            self._old, self._young = self._young, {}
        self._young[key] = attributes

    def _first_sight(self, block: bytes) -> PathAttributes | None:
        """A block that came with IPv4 NLRI, if there is nothing special about it."""
        if not self.four_octet_asn:
            return None
        attributes = scan_usual(block, self.is_ebgp)
        if attributes is None or not attributes.next_hop or block[9:13] != (self._first_octets or block[9:13]):
            attributes = scan_nominal(block, self.is_ebgp)
            if attributes is None or not attributes.next_hop or self._missing(attributes, needs_next_hop=True):
                return None
        if len(self._young) >= _INTERN_LIMIT:
            self._old, self._young = self._young, {}
        self._young[block] = attributes
        return attributes

    def _missing(self, attributes: PathAttributes, *, needs_next_hop: bool) -> NotificationError | None:
        """What a reachable route lacks (RFC 7606 §3 d), or a path that does not begin with the peer (RFC 4271 §6.3)."""
        needed = self._mandatory | 1 << NEXT_HOP if needs_next_hop else self._mandatory
        lacking = needed & ~attributes.seen
        if lacking:
            code = (lacking & -lacking).bit_length() - 1
            return NotificationError(3, 3, bytes([code]), f"{name_of(code)} is missing")
        if self._first_octets and self._path_start(attributes) != self._first_octets:
            return NotificationError(3, 11, b"", f"AS_PATH does not begin with the peer's AS {self.first_asn}")
        return None

    def _path_start(self, attributes: PathAttributes) -> bytes:
        block = attributes.block
        # ORIGIN and one AS_SEQUENCE in front, as nearly everybody sends them: no need to decode.
        if block[:3] == b"\x40\x01\x01" and block[4:6] == b"\x40\x02" and block[7:8] == b"\x02":
            return block[9:13]
        return attributes.fields.neighbour_asn.to_bytes(4, "big") if attributes.seen >> AS_PATH & 1 else b""

    # --- everything that is not an interned IPv4 announcement -------------------------------------------------------

    def _parse_special(self, body: bytes, block: bytes, tail: bytes, changes: list[RouteChange]) -> None:
        if not tail and self._parse_multiprotocol(block, changes):
            return
        scan = Scan(block, is_ebgp=self.is_ebgp, four_octet_asn=self.four_octet_asn, passes=self.passes)
        self.dropped_attributes += scan.dropped
        announced: list[tuple[Family, list[Nlri], Address]] = []
        if tail:
            announced.append((IPV4, split_nlri(tail, IPV4), b""))
        if scan.reach is not None:
            family, next_hop, nlris = self._split_reach(scan.reach)
            if family is not None and nlris:
                announced.append((family, nlris, next_hop))
        if scan.unreach is not None:
            self._take_unreach(
                scan.unreach, changes, is_alone=not scan.kept and not scan.notes and len(body) == 4 + len(block)
            )
        for note in scan.notes:
            self.on_malformed(body, DISCARD, note)
        # RFC 7606 §5.2: an error, and no reachable prefix that it could be contained to. Wrong flags of a lone
        # MP_UNREACH_NLRI hide nothing: what it withdraws is withdrawn.
        is_harmless = scan.met == 1 << MP_UNREACH and scan.fault is not None and scan.fault.subcode == 4
        if scan.fault is not None and not announced and not is_harmless:
            raise scan.fault
        for family, nlris, next_hop in announced:
            if family not in self.families:
                self.ignored_families += 1
                continue
            fault = scan.fault
            attributes = None
            if fault is None:
                attributes = self._canonical(scan, next_hop)
                fault = self._missing(attributes, needs_next_hop=not next_hop) or self._bad_next_hop(attributes)
            if fault is not None or attributes is None:
                assert fault is not None
                self._withdraw_malformed(body, fault, [(family, nlris)], changes)
            else:
                changes.append((ANNOUNCE, family, nlris, attributes))

    def _canonical(self, scan: Scan, next_hop: Address) -> PathAttributes:
        """Interned by what it became: the same set on another UPDATE is the same object."""
        fresh = scan.attributes(next_hop)
        key = (
            b"\0" + fresh.next_hop + b"\0" + fresh.block
        )  # no attribute block begins with flags of 0 and type 10 or above 127
        known = self._young.get(key) or self._known(key)
        if known is not None:
            return known
        self._intern(key, fresh)
        return fresh

    def _parse_multiprotocol(self, block: bytes, changes: list[RouteChange]) -> bool:
        """The usual IPv6 UPDATE: MP_REACH_NLRI first (RFC 7606 §5.1), then ordinary attributes. False: not one of these."""
        if len(block) < 4 or block[1] != MP_REACH or block[0] & ~EXTENDED != OPTIONAL or not self.four_octet_asn:
            return False
        start = 4 if block[0] & EXTENDED else 3
        after = start + (block[2] << 8 | block[3] if start == 4 else block[2])
        value = block[start:after]
        if after > len(block) or len(value) < 5:
            return False
        nlri_at = 5 + value[3]
        key = value[:nlri_at] + block[after:]
        attributes = self._young.get(key) or self._known(key)
        if attributes is None:
            attributes = self._first_multiprotocol(value, block[after:], key)
            if attributes is None:
                return False
        family = BY_KEY[value[:3]]
        nlris = split_nlri(value[nlri_at:], family)
        if nlris:
            changes.append((ANNOUNCE, family, nlris, attributes))
        return bool(nlris)

    def _first_multiprotocol(self, value: bytes, rest: bytes, key: bytes) -> PathAttributes | None:
        family, next_hop, _ = self._split_reach(value)
        if family is None or family not in self.families or not is_host_address(next_hop):
            return None
        attributes = scan_usual(rest, self.is_ebgp)
        if attributes is None or attributes.next_hop or rest[9:13] != (self._first_octets or rest[9:13]):
            attributes = scan_nominal(rest, self.is_ebgp)
            if attributes is None or attributes.next_hop or self._missing(attributes, needs_next_hop=False):
                return None
        attributes.next_hop = next_hop
        self._intern(key, attributes)
        return attributes

    def _split_reach(self, value: bytes) -> tuple[Family | None, Address, list[Nlri]]:
        """MP_REACH_NLRI → family, next hop, prefixes. RFC 7606 §7.11: a bad next hop length hides where the NLRI begin."""
        if len(value) < 5:
            raise NotificationError(3, 9, attribute(OPTIONAL, MP_REACH, value), "MP_REACH_NLRI of under 5 octets")
        family = BY_KEY.get(value[:3])
        octets = value[3]
        nlri_at = 5 + octets
        if nlri_at > len(value):
            raise NotificationError(3, 9, attribute(OPTIONAL, MP_REACH, value), "next hop runs past MP_REACH_NLRI")
        if family is None:
            self.ignored_families += 1
            return None, b"", []
        allowed: tuple[int, ...] = (4,) if family is IPV4 else (16, 32)
        if family in self.extended_next_hop:
            allowed = (4, 16, 32)
        if octets not in allowed:
            raise NotificationError(
                3, 9, attribute(OPTIONAL, MP_REACH, value), f"next hop of {octets} octets for {family.name}"
            )
        return family, one_next_hop(value[4 : 4 + octets]), split_nlri(value[nlri_at:], family)

    def _take_unreach(self, value: bytes, changes: list[RouteChange], *, is_alone: bool) -> None:
        if len(value) < 3:
            raise NotificationError(3, 9, attribute(OPTIONAL, MP_UNREACH, value), "MP_UNREACH_NLRI of under 3 octets")
        family = BY_KEY.get(value[:3])
        if family is None or family not in self.families:
            self.ignored_families += 1
        elif len(value) > 3:
            changes.append((WITHDRAW, family, split_nlri(value[3:], family), None))
        elif is_alone:
            changes.append((END_OF_RIB, family, [], None))

    def _bad_next_hop(self, attributes: PathAttributes) -> NotificationError | None:
        if not is_host_address(attributes.next_hop):
            return NotificationError(
                3, 8, attribute(0x40, NEXT_HOP, attributes.next_hop), "next hop is not a host address"
            )
        return None

    def _withdraw_malformed(
        self,
        body: bytes,
        error: NotificationError,
        announced: list[tuple[Family, list[Nlri]]],
        changes: list[RouteChange],
    ) -> None:
        self.on_malformed(body, TREAT_AS_WITHDRAW, error.text)
        for family, nlris in announced:
            if family in self.families:
                changes.append((WITHDRAW, family, nlris, None))


# --- encoding --------------------------------------------------------------------------------------------------------


def _header(size: int) -> bytes:
    return MARKER + size.to_bytes(2, "big") + b"\x02"


HEADERS = [_header(size) for size in range(4097)]


def header(size: int) -> bytes:
    return HEADERS[size] if size <= 4096 else _header(size)


def reach(family: Family, next_hop: Address) -> bytes:
    """What stands in MP_REACH_NLRI before the prefixes."""
    return family.key + bytes((len(next_hop),)) + next_hop + b"\0"


def multiprotocol(block: bytes, start: bytes, octets: bytes) -> tuple[bytes, bytes]:
    """The body of an UPDATE with these prefixes, in two parts; `start` is from `reach`. MP_REACH_NLRI goes first (RFC 7606 §5.1)."""
    size = len(start) + len(octets)
    head = b"\0\0%b\x90\x0e%b%b" % ((4 + size + len(block)).to_bytes(2, "big"), size.to_bytes(2, "big"), start)
    return head, octets + block


def told(attributes: bytes, start: bytes) -> tuple[bytes, Address]:
    """The attributes and the next hop of what stands before prefixes: of `multiprotocol`, or (`start` is empty) of a body."""
    if start:
        return attributes, start[4 : 4 + start[3]]
    attributes = attributes[4:]
    return attributes, next((value for _, code, value in split_block(attributes) if code == NEXT_HOP), b"")


def announcements(
    family: Family, block: bytes, next_hop: Address, nlris: Iterable[Nlri], max_octets: int
) -> Iterator[bytes]:
    """Whole UPDATE messages for prefixes that share a set. `block` has NEXT_HOP if and only if `next_hop` is empty.

    Yields nothing if not even one prefix fits beside the attributes; the caller must see to that (`fits`).
    """
    if not next_hop:
        head = b"\0\0" + len(block).to_bytes(2, "big") + block
        for run in pack_runs(nlris, max_octets - HEADER_OCTETS - len(head)):
            yield header(HEADER_OCTETS + len(head) + len(run)) + head + run
        return
    start = reach(family, next_hop)
    for run in pack_runs(nlris, max_octets - HEADER_OCTETS - 8 - len(start) - len(block)):
        head, rest = multiprotocol(block, start, run)
        yield header(HEADER_OCTETS + len(head) + len(rest)) + head + rest


def fits(family: Family, block: bytes, next_hop: Address, max_octets: int) -> bool:
    """Whether one prefix of any length fits into a message beside these attributes."""
    extra = 4 if not next_hop else 4 + 4 + 5 + len(next_hop)
    return HEADER_OCTETS + extra + len(block) + 1 + family.address_octets <= max_octets


def withdrawals(family: Family, nlris: Iterable[Nlri], max_octets: int) -> Iterator[bytes]:
    """Whole UPDATE messages. IPv4 in the classic field, everything else in MP_UNREACH_NLRI."""
    if family is IPV4:
        for run in pack_runs(nlris, max_octets - HEADER_OCTETS - 4):
            yield header(HEADER_OCTETS + 4 + len(run)) + len(run).to_bytes(2, "big") + run + b"\0\0"
        return
    for run in pack_runs(nlris, max_octets - HEADER_OCTETS - 4 - 4 - 3):
        value = family.key + run
        body = b"\0\0" + (4 + len(value)).to_bytes(2, "big") + bytes((OPTIONAL | EXTENDED, MP_UNREACH))
        yield header(HEADER_OCTETS + 8 + len(value)) + body + len(value).to_bytes(2, "big") + value


def end_of_rib(family: Family) -> bytes:
    """RFC 4724 §2."""
    if family is IPV4:
        return header(23) + b"\0\0\0\0"
    return header(29) + b"\0\0\0\x06" + bytes((OPTIONAL, MP_UNREACH, 3)) + family.key


__all__ = ["ANNOUNCE", "END_OF_RIB", "IPV6", "WITHDRAW", "RouteChange", "UpdateParser"]
