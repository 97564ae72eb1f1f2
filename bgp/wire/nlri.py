"""Runs of IPv4 and IPv6 unicast NLRI ⇄ lists of canonical prefixes (RFC 4271 §4.3, RFC 4760 §5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bgp.families import FAMILIES, IPV4, Family, Nlri
from bgp.wire.errors import NotificationError

INVALID_NETWORK_FIELD = 10


def _alternative(bits: int) -> bytes:
    """What a canonical prefix of this length looks like: its trailing bits are clear."""
    octets, rest = divmod(bits, 8)
    text = re.escape(bytes([bits])) + b"." * octets
    if rest:
        values = range(0, 256, 1 << (8 - rest))
        text += b"[" + b"".join(b"\\x%02x" % value for value in values) + b"]"
    return text


def _canonical_run(family: Family) -> re.Pattern[bytes]:
    # Tried in this order, so the lengths that fill real tables come first: it is most of the cost for IPv6.
    common = [24, 26, 32, 23, 22, 21, 20, 16] if family is IPV4 else [64, 48, 128, 122, 32, 44, 40, 36, 56, 120]
    order = common + [bits for bits in range(family.max_bits, -1, -1) if bits not in common]
    return re.compile(b"|".join(_alternative(bits) for bits in order), re.DOTALL)


_CUT = {family: _canonical_run(family).findall for family in FAMILIES}
_CLEAR = bytes(0xFF if bits % 8 == 0 else (0xFF00 >> (bits % 8)) & 0xFF for bits in range(129))


def split_nlri(data: bytes, family: Family) -> list[Nlri]:
    """Cut a run of NLRI into canonical prefixes, in wire order.

    Raises NotificationError 3/10 (Invalid Network Field, RFC 4271 §6.3) if a length exceeds the family's or the
    data ends inside a prefix. Trailing bits that a peer left set are cleared.
    """
    found: list[Nlri] = _CUT[family](data)
    # findall skips what does not match, so nothing lost means that every octet belongs to a canonical prefix.
    if b"".join(found) == data:
        return found
    return _split_slowly(data, family)


def _split_slowly(data: bytes, family: Family) -> list[Nlri]:
    found = []
    at, end, max_bits = 0, len(data), family.max_bits
    while at < end:
        bits = data[at]
        after = at + 1 + (bits + 7) // 8
        if bits > max_bits:
            raise NotificationError(
                3, INVALID_NETWORK_FIELD, b"", f"prefix length {bits} does not exist in {family.name}"
            )
        if after > end:
            raise NotificationError(
                3, INVALID_NETWORK_FIELD, b"", f"data ends inside a {family.name} prefix of length {bits}"
            )
        prefix = data[at:after]
        if bits % 8:
            prefix = prefix[:-1] + bytes([prefix[-1] & _CLEAR[bits]])
        found.append(prefix)
        at = after
    return found


def pack_runs(nlris: Iterable[Nlri], room: int) -> Iterator[bytes]:
    """Join prefixes into runs of at most `room` octets, each for one UPDATE. `room` holds the longest prefix."""
    run: list[Nlri] = []
    size = 0
    for nlri in nlris:
        size += len(nlri)
        if size > room:
            yield b"".join(run)
            run, size = [], len(nlri)
        run.append(nlri)
    if run:
        yield b"".join(run)
