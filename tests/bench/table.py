"""A full BGP table, deterministic for a seed, with its UPDATE messages made beforehand.

What a receiver must have heard in the end is known per prefix: each attribute set is unique and numbered, so a route
that arrives lost, doubled, with another's attributes or with altered ones is seen (`tests/bench/tally.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bgp.families import Nlri

MARKER = b"\xff" * 16
# Lengths of an Internet table, coarsely: most are /24.
PREFIX_LENGTHS = (24,) * 12 + (23,) * 2 + (22,) * 3 + (21, 20, 19)
EXCLUDED_FIRST_OCTETS = frozenset({0, 10, 127, 169, 172, 192})

Identity = bytes
"""What must survive the way through a speaker: see `identity_of`."""


@dataclass(frozen=True, slots=True)
class AttributeSet:
    """Path attributes as one upstream gives them, without the next hop."""

    origin: int
    as_path: tuple[int, ...]
    med: int | None
    communities: tuple[int, ...]
    large_communities: tuple[tuple[int, int, int], ...]

    def encode(self, next_hop: bytes, local_pref: int | None = None) -> bytes:
        """The path attribute block of an UPDATE on a 4-octet AS session (RFC 4271 §4.3, RFC 6793).

        An IPv6 `next_hop` is left out: it belongs to MP_REACH_NLRI, which `announcement` adds.
        """
        path = b"".join(asn.to_bytes(4, "big") for asn in self.as_path)
        if path:
            path = bytes([2, len(self.as_path)]) + path
        parts = [bytes([0x40, 1, 1, self.origin]), bytes([0x40, 2, len(path)]) + path]
        if len(next_hop) == 4:
            parts.append(b"\x40\x03\x04" + next_hop)
        if self.med is not None:
            parts.append(b"\x80\x04\x04" + self.med.to_bytes(4, "big"))
        if local_pref is not None:
            parts.append(b"\x40\x05\x04" + local_pref.to_bytes(4, "big"))
        if self.communities:
            parts.append(bytes([0xC0, 8, 4 * len(self.communities)]))
            parts += [community.to_bytes(4, "big") for community in self.communities]
        if self.large_communities:
            parts.append(bytes([0xC0, 32, 12 * len(self.large_communities)]))
            parts += [word.to_bytes(4, "big") for large in self.large_communities for word in large]
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Table:
    """What one peer sends: `updates[i]` announces `groups[i]` with `blocks[i]` (whose next hop is the sender)."""

    groups: list[list[Nlri]]
    blocks: list[bytes]
    updates: list[bytes] = field(repr=False)

    @property
    def stream(self) -> bytes:
        return b"".join(self.updates)

    @property
    def prefix_count(self) -> int:
        return sum(map(len, self.groups))

    def withdrawals(self) -> bytes:
        """UPDATEs that take the whole table back, 800 prefixes each."""
        prefixes = [prefix for group in self.groups for prefix in group]
        parts = []
        for start in range(0, len(prefixes), 800):
            parts.append(withdrawal(prefixes[start : start + 800]))
        return b"".join(parts)


def make_prefixes(count: int, seed: int = 1, family: str = "ipv4") -> list[Nlri]:
    """`count` distinct prefixes in random order, public-looking unicast space only. IPv6: all /48."""
    rng = random.Random(seed)
    seen: set[Nlri] = set()
    while len(seen) < count:
        if family == "ipv6":
            seen.add(b"\x30" + (0x2000 << 32 | rng.getrandbits(45)).to_bytes(6, "big"))
            continue
        address = rng.getrandbits(32)
        first = address >> 24
        if first >= 224 or first in EXCLUDED_FIRST_OCTETS:
            continue
        bits = PREFIX_LENGTHS[address % 20]
        packed = ((address >> (32 - bits)) << (32 - bits)).to_bytes(4, "big")
        seen.add(bytes([bits]) + packed[: (bits + 7) // 8])
    return sorted(seen, key=lambda _: rng.random())


def make_attribute_sets(count: int, first_asn: int, path_lengths: list[int], seed: int) -> list[AttributeSet]:
    """`count` distinct sets as `first_asn` would send them; set i has an AS path of `path_lengths[i]`, at least 3."""
    rng = random.Random(seed)
    sets: dict[tuple[int, ...], AttributeSet] = {}
    while len(sets) < count:
        # Unique by its path alone, so that no two sets look the same whatever a daemon does to the rest.
        path = (first_asn, *(rng.randrange(1, 400_000) for _ in range(path_lengths[len(sets)] - 1)))
        if path in sets or 23456 in path or any(64496 <= asn <= 65551 for asn in path[1:]):
            continue
        communities = tuple(
            sorted({path[1] << 16 & 0xFFFF0000 | rng.randrange(1, 5000) for _ in range(rng.randrange(9))})
        )
        large = tuple((path[1], rng.randrange(100), i) for i in range(rng.randrange(3) if rng.random() < 0.1 else 0))
        sets[path] = AttributeSet(
            origin=0 if rng.random() < 0.85 else 2,
            as_path=path,
            med=rng.randrange(1000) if rng.random() < 0.5 else None,
            communities=communities,
            large_communities=large,
        )
    return list(sets.values())


def announcement(block: bytes, prefixes: list[Nlri], next_hop: bytes) -> bytes:
    """One UPDATE. With an IPv6 `next_hop` the prefixes go into MP_REACH_NLRI, which stands first (RFC 7606 §5.1)."""
    run = b"".join(prefixes)
    if len(next_hop) == 4:
        return _message(2, b"\0\0" + len(block).to_bytes(2, "big") + block + run)
    reach = b"\0\2\1\x10" + next_hop + b"\0" + run
    block = b"\x90\x0e" + len(reach).to_bytes(2, "big") + reach + block
    return _message(2, b"\0\0" + len(block).to_bytes(2, "big") + block)


def withdrawal(prefixes: list[Nlri], family: str = "ipv4") -> bytes:
    """One UPDATE that takes the prefixes back."""
    run = b"".join(prefixes)
    if family == "ipv4":
        return _message(2, len(run).to_bytes(2, "big") + run + b"\0\0")
    unreach = b"\0\2\1" + run
    block = b"\x90\x0f" + len(unreach).to_bytes(2, "big") + unreach
    return _message(2, b"\0\0" + len(block).to_bytes(2, "big") + block)


def make_table(
    groups: list[list[Nlri]], sets: list[AttributeSet], next_hop: bytes, local_pref: int | None = None
) -> Table:
    """One UPDATE per group. A group must fit into 4,096 octets."""
    blocks = [attribute_set.encode(next_hop, local_pref) for attribute_set in sets]
    updates = [announcement(block, group, next_hop) for group, block in zip(groups, blocks, strict=True)]
    return Table(groups, blocks, updates)


def full_table(
    prefix_count: int,
    set_count: int,
    first_asn: int,
    next_hop: bytes,
    seed: int = 1,
    path_lengths: list[int] | None = None,
    local_pref: int | None = None,
) -> Table:
    """`prefix_count` prefixes spread evenly over `set_count` attribute sets with AS paths of 3 to 6.

    The next hop decides the family; with a LOCAL_PREF it is what an internal peer sends.
    """
    prefixes = make_prefixes(prefix_count, seed, "ipv4" if len(next_hop) == 4 else "ipv6")
    if path_lengths is None:
        rng = random.Random(seed + 100)
        path_lengths = [rng.randint(3, 6) for _ in range(set_count)]
    groups = [prefixes[i::set_count] for i in range(set_count)]
    sets = make_attribute_sets(set_count, first_asn, path_lengths, seed + 200)
    return make_table(groups, sets, next_hop, local_pref)


def competing_tables(
    prefix_count: int,
    set_count: int,
    peers: list[tuple[int, bytes]],
    seed: int = 1,
    local_pref: int | None = None,
) -> tuple[list[Table], list[int]]:
    """The same prefixes from several peers, given as (AS number, next hop); the best of group i is peer `best[i]`.

    The best has a shorter AS path than all others. Every peer sends its groups in an order of its own.
    """
    rng = random.Random(seed + 300)
    shortest = [rng.randint(3, 5) for _ in range(set_count)]
    best = [i % len(peers) for i in range(set_count)]
    tables = []
    for number, (asn, next_hop) in enumerate(peers):
        lengths = [bits + (best[i] != number) for i, bits in enumerate(shortest)]
        table = full_table(prefix_count, set_count, asn, next_hop, seed, lengths, local_pref)
        order = list(range(set_count))
        random.Random(seed + number).shuffle(order)
        tables.append(Table(table.groups, table.blocks, [table.updates[i] for i in order]))
    return tables, best


def attribute_values(block: bytes) -> dict[int, bytes]:
    """Attribute values by type code, in wire order. Raises IndexError for rubbish."""
    values: dict[int, bytes] = {}
    at = 0
    while at < len(block):
        if block[at] & 0x10:
            start = at + 4
            end = start + int.from_bytes(block[at + 2 : start], "big")
        else:
            start = at + 3
            end = start + block[at + 2]
        values[block[at + 1]] = block[start:end]
        at = end
    return values


def identity_of(block: bytes) -> tuple[Identity, dict[int, bytes]]:
    """A received attribute block → what must have survived unaltered, and the other attributes by code.

    Independent of attribute order and of the extended-length flag. Raises IndexError or KeyError for rubbish.
    """
    values = attribute_values(block)
    communities = _sorted(values.pop(8, b""), 4)
    large_communities = _sorted(values.pop(32, b""), 12)
    med = values.pop(4, bytes(4))  # none is the lowest (RFC 4271 §9.1.2.2 c), and FRR writes it so
    identity = b"|".join((values.pop(1), values.pop(2), med, communities, large_communities))
    return identity, values


def _sorted(data: bytes, width: int) -> bytes:
    """Communities are a set (RFC 1997, RFC 8092 §3): some daemons sort them."""
    return b"".join(sorted(data[i : i + width] for i in range(0, len(data), width)))


def _message(kind: int, body: bytes) -> bytes:
    return MARKER + (19 + len(body)).to_bytes(2, "big") + bytes([kind]) + body
