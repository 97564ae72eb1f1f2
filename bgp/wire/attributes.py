"""Path attributes: the pre-scan that every distinct set passes once, and what decision and policy read of it.

`ATTRIBUTES` has one row per attribute that we know: flags, length rule, and what RFC 7606 makes of an error. The
result of a scan is a `PathAttributes` whose `block` is canonical: valid, 4-octet AS numbers, without MP_REACH_NLRI and
MP_UNREACH_NLRI (they carry the prefixes), without what had to be discarded. Order and unknown attributes stay exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bgp.families import Address
from bgp.wire import as_path as path_codec
from bgp.wire.errors import NotificationError

ORIGIN, AS_PATH, NEXT_HOP, MED, LOCAL_PREF, ATOMIC_AGGREGATE, AGGREGATOR = 1, 2, 3, 4, 5, 6, 7
COMMUNITIES, ORIGINATOR_ID, CLUSTER_LIST = 8, 9, 10
MP_REACH, MP_UNREACH, EXTENDED_COMMUNITIES, AS4_PATH, AS4_AGGREGATOR = 14, 15, 16, 17, 18
IPV6_EXTENDED_COMMUNITIES, LARGE_COMMUNITIES = 25, 32

OPTIONAL, TRANSITIVE, PARTIAL, EXTENDED = 0x80, 0x40, 0x20, 0x10
KIND = OPTIONAL | TRANSITIVE

Action = Literal["treat-as-withdraw", "attribute discard"]
TREAT_AS_WITHDRAW: Action = "treat-as-withdraw"
DISCARD: Action = "attribute discard"


@dataclass(frozen=True, slots=True)
class Row:
    """`size` > 0: exactly so many octets; < 0: a non-zero multiple; None: checked by its own decoder."""

    name: str
    flags: int
    size: int | None
    on_error: Action
    internal_only: bool = False  # discarded when an external peer sends it


ATTRIBUTES: dict[int, Row] = {
    ORIGIN: Row("ORIGIN", 0x40, 1, TREAT_AS_WITHDRAW),  # RFC 7606 §7.1
    AS_PATH: Row("AS_PATH", 0x40, None, TREAT_AS_WITHDRAW),  # §7.2
    NEXT_HOP: Row("NEXT_HOP", 0x40, 4, TREAT_AS_WITHDRAW),  # §7.3
    MED: Row("MULTI_EXIT_DISC", 0x80, 4, TREAT_AS_WITHDRAW),  # §7.4
    LOCAL_PREF: Row("LOCAL_PREF", 0x40, 4, TREAT_AS_WITHDRAW, internal_only=True),  # §7.5
    ATOMIC_AGGREGATE: Row("ATOMIC_AGGREGATE", 0x40, 0, DISCARD),  # §7.6
    AGGREGATOR: Row("AGGREGATOR", 0xC0, None, DISCARD),  # §7.7; 8 octets, 6 with a 2-octet peer
    COMMUNITIES: Row("COMMUNITIES", 0xC0, -4, TREAT_AS_WITHDRAW),  # §7.8
    ORIGINATOR_ID: Row("ORIGINATOR_ID", 0x80, 4, TREAT_AS_WITHDRAW, internal_only=True),  # §7.9
    CLUSTER_LIST: Row("CLUSTER_LIST", 0x80, -4, TREAT_AS_WITHDRAW, internal_only=True),  # §7.10
    EXTENDED_COMMUNITIES: Row("EXTENDED_COMMUNITIES", 0xC0, -8, TREAT_AS_WITHDRAW),  # §7.14
    AS4_PATH: Row("AS4_PATH", 0xC0, None, DISCARD),  # RFC 6793 §6
    AS4_AGGREGATOR: Row("AS4_AGGREGATOR", 0xC0, 8, DISCARD),  # RFC 6793 §6
    IPV6_EXTENDED_COMMUNITIES: Row("IPV6_EXTENDED_COMMUNITIES", 0xC0, -20, TREAT_AS_WITHDRAW),  # RFC 7606 §7.15
    LARGE_COMMUNITIES: Row("LARGE_COMMUNITIES", 0xC0, -12, TREAT_AS_WITHDRAW),  # RFC 8092 §6
}
MANDATORY = 1 << ORIGIN | 1 << AS_PATH
SUBCODE_OF = {ORIGIN: 6, AS_PATH: 11, NEXT_HOP: 8}  # where the error is in the value; else 5 (length) or 9


class MalformedAttributes(Exception):
    """The routes of this UPDATE must be treated as withdrawn (RFC 7606 §2).

    `notification` is what RFC 4271 §6.3 would have answered; it is used when the NLRI cannot be trusted (§5.2).
    """

    def __init__(self, notification: NotificationError) -> None:
        super().__init__(str(notification))
        self.notification = notification


class Fields:
    """What the attributes mean, decoded when two paths compete or a policy or a person asks."""

    __slots__ = (
        "aggregator",
        "as_path",
        "as_path_length",
        "cluster_list",
        "communities",
        "extended_communities",
        "large_communities",
        "local_pref",
        "med",
        "neighbour_asn",
        "origin",
        "originator_id",
        "others",
    )

    def __init__(self, block: bytes) -> None:
        self.origin = 2
        self.as_path = b""  # the value: segments with 4-octet AS numbers
        self.as_path_length = 0
        self.neighbour_asn = 0
        self.med: int | None = None
        self.local_pref: int | None = None
        self.communities = b""
        self.extended_communities = b""
        self.large_communities = b""
        self.originator_id = b""
        self.cluster_list = b""
        self.aggregator = b""
        self.others: list[tuple[int, int, bytes]] = []  # (flags, code, value) of attributes outside ATTRIBUTES
        at, end = 0, len(block)
        while at < end:
            flags, code = block[at], block[at + 1]
            if flags & EXTENDED:
                start = at + 4
                at = start + (block[at + 2] << 8 | block[at + 3])
            else:
                start = at + 3
                at = start + block[at + 2]
            if code == AS_PATH:
                self.as_path = block[start:at]
                if at - start >= 6 and block[start] == 2 and at - start == 2 + 4 * block[start + 1]:
                    self.as_path_length = block[start + 1]
                    self.neighbour_asn = int.from_bytes(block[start + 2 : start + 6], "big")
                else:
                    self.as_path_length = path_codec.length(self.as_path)
                    self.neighbour_asn = path_codec.first_asn(self.as_path)
            elif code == ORIGIN:
                self.origin = block[start]
            elif code == MED:
                self.med = int.from_bytes(block[start:at], "big")
            elif code == LOCAL_PREF:
                self.local_pref = int.from_bytes(block[start:at], "big")
            elif code != NEXT_HOP:
                self._keep(flags, code, block[start:at])

    def _keep(self, flags: int, code: int, value: bytes) -> None:
        name = _KEPT.get(code)
        if name is not None:
            setattr(self, name, value)
        elif code not in ATTRIBUTES:
            self.others.append((flags, code, value))


_KEPT = {
    COMMUNITIES: "communities",
    EXTENDED_COMMUNITIES: "extended_communities",
    LARGE_COMMUNITIES: "large_communities",
    ORIGINATOR_ID: "originator_id",
    CLUSTER_LIST: "cluster_list",
    AGGREGATOR: "aggregator",
}


class PathAttributes:
    """One interned set. Compared by identity; `next_hop` is part of it: 4, 16 or 32 octets (RFC 2545 §3).

    `local_pref_at`: not 0 for what peers usually send (`scan_usual`), with at most one AS_SEQUENCE behind ORIGIN; then
    where LOCAL_PREF stands in the block of an internal peer, and belongs in that of an external one. `reflect_at`: not 0
    if it is such and not yet reflected; then where ORIGINATOR_ID and CLUSTER_LIST belong. `seen`: bit n, attribute n is
    in the block; None has it worked out when somebody asks.
    """

    __slots__ = ("_fields", "_seen", "block", "imported", "local_pref_at", "next_hop", "reflect_at")

    def __init__(
        self, block: bytes, next_hop: Address, seen: int | None, local_pref_at: int = 0, reflect_at: int = 0
    ) -> None:
        self.block = block
        self.next_hop = next_hop
        self.local_pref_at = local_pref_at
        self.reflect_at = reflect_at
        self._seen = seen
        self._fields: Fields | None = None
        self.imported: Any = None  # what the import of the peer that sent it made of it; kept by bgp/rib/adj_rib_in.py

    @property
    def seen(self) -> int:
        seen = self._seen
        if seen is None:
            seen = self._seen = sum(1 << code for _, code, _ in split_block(self.block))
        return seen

    @property
    def fields(self) -> Fields:
        fields = self._fields
        if fields is None:
            fields = self._fields = Fields(self.block)
        return fields


def attribute(flags: int, code: int, value: bytes) -> bytes:
    """One attribute as it stands on the wire; the extended length bit is set as needed."""
    if len(value) > 255:
        return bytes((flags | EXTENDED, code)) + len(value).to_bytes(2, "big") + value
    return bytes((flags & ~EXTENDED, code, len(value))) + value


def build(
    *,
    next_hop: Address,
    origin: int = 0,
    as_path: bytes = b"",
    med: int | None = None,
    local_pref: int | None = None,
    communities: bytes = b"",
    extended_communities: bytes = b"",
    large_communities: bytes = b"",
) -> PathAttributes:
    """A set of our own, for a route that enters BGP here."""
    parts = {ORIGIN: bytes([origin]), AS_PATH: as_path}
    if len(next_hop) == 4:
        parts[NEXT_HOP] = next_hop
    if med is not None:
        parts[MED] = med.to_bytes(4, "big")
    if local_pref is not None:
        parts[LOCAL_PREF] = local_pref.to_bytes(4, "big")
    for code, value in (
        (COMMUNITIES, communities),
        (EXTENDED_COMMUNITIES, extended_communities),
        (LARGE_COMMUNITIES, large_communities),
    ):
        if value:
            parts[code] = value
    return from_values(parts, next_hop)


def from_values(values: dict[int, bytes], next_hop: Address) -> PathAttributes:
    """Values of known attributes → a set, in ascending order of type (RFC 4271 §5)."""
    block = b"".join(attribute(ATTRIBUTES[code].flags, code, value) for code, value in sorted(values.items()))
    return PathAttributes(block, next_hop, sum(1 << code for code in values))


def split_block(block: bytes) -> list[tuple[int, int, bytes]]:
    """A valid block → (flags, code, value) in wire order."""
    found = []
    at, end = 0, len(block)
    while at < end:
        flags, code = block[at], block[at + 1]
        if flags & EXTENDED:
            start, at = at + 4, at + 4 + (block[at + 2] << 8 | block[at + 3])
        else:
            start, at = at + 3, at + 3 + block[at + 2]
        found.append((flags, code, block[start:at]))
    return found


# --- the usual set: one match in C instead of a walk ----------------------------------------------------------------


def _items(octets: int, most: int, before: Callable[[int], bytes] = lambda _count: b"", item: bytes = b".") -> bytes:
    """A length octet, what follows it `before` the items, and 1 to `most` items of so many octets."""
    counts = range(1, most + 1)
    heads = [(len(before(n)) + octets * n, before(n), n) for n in counts]
    return b"(?:%b)" % b"|".join(
        re.escape(bytes([length]) + head) + (b"%b{%d}" % (item, n) if item != b"." else b".{%d}" % (octets * n))
        for length, head, n in heads
    )


def _usual_pattern(is_ebgp: bool) -> re.Pattern[bytes]:
    """Ascending order, large communities also where FRR puts them, lengths of one octet. Group 1 is the next hop, 2 where
    LOCAL_PREF belongs, 3 where ORIGINATOR_ID does, 5 what an internal peer reflected. What must be there is there, but for NEXT_HOP. Every attribute begins with octets of
    its own, so that a block which does not match costs one pass too.
    """
    as_path = _items(4, 24, lambda count: bytes([2, count]), rb"(?:(?!\0\0\0\0).{4})")
    origin, next_hop, med = rb"\x40\x01\x01[\0-\2]", rb"(?:\x40\x03\x04([\x01-\xdf].{3}))?", rb"(?:\x80\x04\x04.{4})?"
    local_pref = rb"()" if is_ebgp else rb"()\x40\x05\x04.{4}"
    aggregate = rb"(?:\x40\x06\0)?(?:\xc0\x07\x08(?!\0\0\0\0).{8})?"
    communities = rb"(?:\xc0\x08%b)?" % _items(4, 32)
    reflected = b"" if is_ebgp else rb"(?:\x80\x09\x04.{4})?(?:\x80\x0a%b)?" % _items(4, 8)
    extended = rb"(?:\xc0\x10%b)?" % _items(8, 8)
    large = rb"\xc0\x20%b" % _items(12, 8)
    if not is_ebgp:
        as_path = rb"(?:\0|%b)" % as_path
    start = origin + rb"\x40\x02" + as_path + next_hop + med + local_pref + aggregate + communities
    return re.compile(start + b"()(%b)?(%b)%b(?(4)|(?:%b)?)" % (large, reflected, extended, large), re.DOTALL)


_USUAL = {is_ebgp: _usual_pattern(is_ebgp).fullmatch for is_ebgp in (False, True)}


def scan_usual(block: bytes, is_ebgp: bool) -> PathAttributes | None:
    """What nearly every peer with 4-octet AS numbers sends, in a microsecond; None says nothing about the block.

    All mandatory attributes are there, but for NEXT_HOP if `next_hop` is empty. Accepts nothing that `Scan` would change.
    """
    match = _USUAL[is_ebgp](block)
    if match is None:
        return None
    reflect_at = 0 if is_ebgp or match[5] else match.start(3)
    return PathAttributes(block, match[1] or b"", None, match.start(2), reflect_at)


# --- the fast scan: any order, checked in one pass ------------------------------------------------------------------


def _nominal_rows(is_ebgp: bool) -> dict[bytes, tuple[int, int, int]]:
    """Flags and code as they stand on the wire → (code bit, length rule, octets before the value)."""
    rows = {}
    for code, row in ATTRIBUTES.items():
        if code in (AS4_PATH, AS4_AGGREGATOR) or (is_ebgp and row.internal_only):
            continue
        size = row.size if row.size is not None else (8 if code == AGGREGATOR else -2)
        for flags in range(256):
            # The Partial bit means something only where both kind bits are set; the low four are ignored (RFC 4271 §4.3).
            if flags & 0xC0 == row.flags and not flags & 0x0F and (row.flags == 0xC0 or not flags & PARTIAL):
                rows[bytes((flags, code))] = (1 << code, size, 4 if flags & EXTENDED else 3)
    return rows


_EBGP_ROWS, _IBGP_ROWS = _nominal_rows(True), _nominal_rows(False)
_ORIGINS = frozenset((0, 1, 2))


def scan_nominal(block: bytes, is_ebgp: bool) -> PathAttributes | None:
    """The set, if the block is free of anything special; None sends it through `scan`.

    For a peer with 4-octet AS numbers. Accepts nothing that `scan` would change (a property test holds them together).
    """
    rows = _EBGP_ROWS if is_ebgp else _IBGP_ROWS
    at, end, seen, next_hop = 0, len(block), 0, b""
    while at < end:
        row = rows.get(block[at : at + 2])
        if row is None:
            return None
        bit, size, start = row
        if seen & bit or at + start > end:
            return None
        seen |= bit
        length = block[at + 2] if start == 3 else block[at + 2] << 8 | block[at + 3]
        start += at
        at = start + length
        if at > end:
            return None
        if size >= 0:
            if length != size:
                return None
            if bit == 8:
                next_hop = block[start:at]
                if not 0 < block[start] < 224:
                    return None
            elif bit == 2 and block[start] > 2:
                return None
            elif bit == 128 and block[start : start + 4] == b"\0\0\0\0":
                return None  # AGGREGATOR with AS 0 (RFC 7607)
        elif bit == 4:
            if length and (
                length < 6
                or block[start] != 2
                or length != 2 + 4 * block[start + 1]
                or b"\0\0\0\0" in block[start + 2 : at]
            ):
                return None  # anything but one AS_SEQUENCE takes the long way
        elif length == 0 or length % size:
            return None
    return PathAttributes(block, next_hop, seen)


# --- the full scan ---------------------------------------------------------------------------------------------------


class Scan:
    """One walk over a block with every rule of RFC 7606. Fatal faults raise NotificationError.

    `kept` are the attributes that stay (flags, code, value); `fault` the first treat-as-withdraw fault;
    `notes` what was discarded and why; `reach`, `unreach` the values of MP_REACH_NLRI and MP_UNREACH_NLRI.
    """

    __slots__ = ("dropped", "fault", "four_octet_asn", "is_ebgp", "kept", "met", "notes", "passes", "reach", "unreach")

    def __init__(
        self, block: bytes, *, is_ebgp: bool, four_octet_asn: bool, passes: Literal["all", "none"] | frozenset[int]
    ):
        self.is_ebgp = is_ebgp
        self.four_octet_asn = four_octet_asn
        self.passes = passes  # which unknown optional transitive attributes go on
        self.kept: list[tuple[int, int, bytes]] = []
        self.met = 0  # bit n: attribute n has been there, whatever became of it: only the first counts (RFC 7606 §3 g)
        self.fault: NotificationError | None = None
        self.notes: list[str] = []
        self.dropped = 0  # unknown attributes stopped by the allow-list
        self.reach: bytes | None = None
        self.unreach: bytes | None = None
        at, end = 0, len(block)
        while at < end:
            head = 4 if block[at] & EXTENDED else 3
            if end - at < head:
                self._blame(NotificationError(3, 1, b"", "data after the last path attribute"))
                return
            flags, code = block[at], block[at + 1]
            length = block[at + 2] << 8 | block[at + 3] if head == 4 else block[at + 2]
            start, after = at + head, at + head + length
            if after > end:
                # RFC 7606 §4: the sum of the lengths still tells where the NLRI are.
                self._blame(NotificationError(3, 5, block[at:], f"{name_of(code)} runs past the path attributes"))
                return
            self._take(flags, code, block[start:after], block[at:after])
            at = after

    def _blame(self, error: NotificationError) -> None:
        if self.fault is None:
            self.fault = error

    def _take(self, flags: int, code: int, value: bytes, whole: bytes) -> None:
        bit = 1 << code
        if self.met & bit:
            if code in (MP_REACH, MP_UNREACH):  # RFC 7606 §3 g
                raise NotificationError(3, 1, b"", f"{name_of(code)} appears twice")
            self.notes.append(f"second {name_of(code)} discarded")
            return
        self.met |= bit
        if code in (MP_REACH, MP_UNREACH):
            if flags & KIND != OPTIONAL:  # RFC 7606 §3 c
                self._blame(NotificationError(3, 4, whole, f"flags 0x{flags:02x} of {name_of(code)}"))
            if code == MP_REACH:
                self.reach = value
            else:
                self.unreach = value
            return
        row = ATTRIBUTES.get(code)
        if row is None:
            self._take_unknown(flags, code, value, whole)
        elif row.internal_only and self.is_ebgp:
            self._discard(code, "from an external peer")
        elif code in (AS4_PATH, AS4_AGGREGATOR) and self.four_octet_asn:
            self._discard(code, "from a peer with 4-octet AS numbers (RFC 6793 §4.1)")
        else:
            error = self._check(row, flags, code, value, whole)
            if error is None:
                self.kept.append((flags & ~0x0F, code, value))
            elif row.on_error == DISCARD:
                self._discard(code, error.text)
            else:
                self._blame(error)

    def _discard(self, code: int, why: str) -> None:
        self.notes.append(f"{name_of(code)} discarded: {why}")

    def _take_unknown(self, flags: int, code: int, value: bytes, whole: bytes) -> None:
        if not flags & OPTIONAL:
            raise NotificationError(3, 2, whole, f"well-known attribute {code} is not known")
        if flags & TRANSITIVE and (self.passes == "all" or (self.passes != "none" and code in self.passes)):
            self.kept.append(((flags | PARTIAL) & ~0x0F, code, value))  # RFC 4271 §5: we do not recognise it
            return
        if flags & TRANSITIVE:
            self.dropped += 1

    def _check(self, row: Row, flags: int, code: int, value: bytes, whole: bytes) -> NotificationError | None:
        if flags & KIND != row.flags:
            return NotificationError(3, 4, whole, f"flags 0x{flags:02x} of {row.name}")
        size = row.size
        if code == AGGREGATOR:
            size = 8 if self.four_octet_asn else 6
        if size is not None:
            if (len(value) != size) if size >= 0 else (not value or len(value) % size):
                return NotificationError(3, 5, whole, f"{row.name} of {len(value)} octets")
        elif code in (AS_PATH, AS4_PATH):
            four = self.four_octet_asn or code == AS4_PATH
            text = path_codec.fault(value, octets=4 if four else 2, allow_confederation=not self.is_ebgp)
            if text:
                return NotificationError(3, 11, b"", f"{row.name}: {text}")
        if code == ORIGIN and value[0] not in _ORIGINS:
            return NotificationError(3, 6, whole, f"ORIGIN {value[0]}")
        if code == NEXT_HOP and not is_host_address(value):
            return NotificationError(3, 8, whole, "NEXT_HOP is not a host address")
        if code in (AGGREGATOR, AS4_AGGREGATOR) and not any(value[:-4]):
            return NotificationError(3, 9, whole, f"{row.name} with AS 0 (RFC 7607)")
        return None

    def attributes(self, next_hop: Address) -> PathAttributes:
        """The canonical set; `next_hop` is MP_REACH_NLRI's, or empty to take NEXT_HOP's."""
        kept = self.kept if self.four_octet_asn else _merge_four_octet(self.kept)
        if not next_hop:
            next_hop = next((value for _, code, value in kept if code == NEXT_HOP), b"")
        block = b"".join(attribute(flags, code, value) for flags, code, value in kept)
        seen = 0
        for _, code, _ in kept:
            seen |= 1 << code
        return PathAttributes(block, next_hop, seen)


def _merge_four_octet(kept: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What a peer without 4-octet AS numbers sent → canonical form (RFC 6793 §4.2.3)."""
    values = {code: value for _, code, value in kept}
    narrow = values.get(AGGREGATOR)
    wide = values.get(AS4_AGGREGATOR)
    # An AGGREGATOR that is not AS_TRANS was made by someone who ignores AS4_*: both are out of date.
    trusted = narrow is None or wide is None or narrow[:2] == path_codec.AS_TRANS_OCTETS
    merged = []
    for flags, code, value in kept:
        if code == AS_PATH:
            value = path_codec.widen(value)  # noqa: PLW2901
            if trusted and AS4_PATH in values:
                value = path_codec.merge(value, values[AS4_PATH])  # noqa: PLW2901
        elif code == AGGREGATOR:
            value = wide if wide is not None and trusted else b"\0\0" + value  # noqa: PLW2901
        if code not in (AS4_PATH, AS4_AGGREGATOR):
            merged.append((flags, code, value))
    return merged


def is_host_address(address: Address) -> bool:
    """Whether a next hop may be a host: not 0.0.0.0/8, not multicast or above, not :: or ff00::/8."""
    if len(address) == 4:
        return 0 < address[0] < 224
    return address[0] != 0xFF and any(address[:16])


def one_next_hop(address: Address) -> Address:
    """A pair without a global address → the link-local one alone.

    On links that have no other addresses BIRD sends `::` in the global one's place and FRR the link-local one twice.
    """
    if len(address) == 32 and (address[:2] == b"\xfe\x80" or not any(address[:16])):
        return address[16:]
    return address


def name_of(code: int) -> str:
    if code == MP_REACH:
        return "MP_REACH_NLRI"
    if code == MP_UNREACH:
        return "MP_UNREACH_NLRI"
    row = ATTRIBUTES.get(code)
    return row.name if row else f"attribute {code}"
