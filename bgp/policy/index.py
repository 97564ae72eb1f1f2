"""From a value to the set of rules whose condition it satisfies, each set one integer with a bit per rule.

A rule matches if its bit stands in every index; the first matching rule is the lowest bit. So the cost of a policy
is one look-up per kind of condition, whatever the number of its rules: a thousand prefixes or communities cost as
much as ten, and no route a peer can invent makes it more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate
from operator import or_
from typing import TypeVar

from bgp.config import PolicyRule, PrefixMatch
from bgp.families import FAMILIES, IPV4, Family, IPNetwork, Nlri
from bgp.policy.rules import RouteView, glob_expression, next_hop_addresses

Mask = int
Index = Callable[[RouteView], Mask]

Key = TypeVar("Key", bound=Hashable)

Level = tuple[int, dict[int, Mask]]

_INTERFACES_REMEMBERED = 4096  # names come and go with workloads: forget all rather than grow for ever


class PrefixIndex:
    """Prefixes of one family against `(match, mask)` entries.

    For every length of prefix that occurs there is a list of levels, one per length of network that can hold it:
    how far to shift the prefix so that only the network's bits remain, and a dictionary from those to the mask. The
    length octet stays in front of the shifted number, which saves cutting it off.
    """

    __slots__ = ("_entries", "free", "levels")

    def __init__(self, family: Family, entries: Iterable[tuple[IPNetwork, int, int, Mask]], free: Mask) -> None:
        """`entries`: network, shortest and longest length, mask. `free` is the mask of all that ask for no prefix."""
        version = 4 if family is IPV4 else 6
        self._entries = [entry for entry in entries if entry[0].version == version]
        self.free = free
        self.levels: list[list[Level] | None] = [None] * (family.max_bits + 1)  # by length, filled when first needed

    def mask(self, nlri: Nlri) -> Mask:
        levels = self.levels[nlri[0]]
        if levels is None:
            levels = self.build(nlri[0])
        value = int.from_bytes(nlri, "big")
        mask = self.free
        for shift, masks in levels:
            mask |= masks.get(value >> shift, 0)
        return mask

    def build(self, length: int) -> list[Level]:
        """Make and keep the levels for prefixes of this length."""
        by_network_bits: dict[int, dict[int, Mask]] = {}
        for network, shortest, longest, mask in self._entries:
            bits = network.prefixlen
            if max(bits, shortest) <= length <= longest:
                masks = by_network_bits.setdefault(bits, {})
                key = length << bits | int(network.network_address) >> (network.max_prefixlen - bits)
                masks[key] = masks.get(key, 0) | mask
        address_bits = (length + 7) // 8 * 8
        levels = [(address_bits - bits, masks) for bits, masks in sorted(by_network_bits.items())]
        self.levels[length] = levels
        return levels


def prefix_index(family: Family, conditions: Sequence[tuple[PrefixMatch, ...]]) -> PrefixIndex:
    """One entry of `conditions` per rule. A negated match sets a second bit, len(conditions) above the rule's."""
    entries: list[tuple[IPNetwork, int, int, Mask]] = []
    free = 0
    for number, matches in enumerate(conditions):
        if all(match.negate for match in matches):
            free |= 1 << number
        for match in matches:
            bit = 1 << (number + len(conditions) * match.negate)
            entries.append((match.network, match.minimum_bits, match.maximum_bits, bit))
    return PrefixIndex(family, entries, free)


def indexes(rules: Sequence[PolicyRule]) -> list[Index]:
    """One index per kind of condition that occurs, all but the prefix's and the peer type's, cheapest first."""
    makers = (_by_source, _by_local_pref, _by_local_pref_above, _by_interface, _by_as_path, _by_next_hop, _by_community)
    return [index for index in (make(rules) for make in makers) if index is not None]


def _collect(conditions: Iterable[Iterable[Key]]) -> tuple[dict[Key, Mask], Mask]:
    """From what each rule asks for (any of) to a mask per key, and the mask of the rules that do not ask."""
    masks: dict[Key, Mask] = {}
    free = 0
    for number, keys in enumerate(conditions):
        asks = False
        for key in keys:
            masks[key] = masks.get(key, 0) | 1 << number
            asks = True
        if not asks:
            free |= 1 << number
    return masks, free


def _by_source(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect(rule.sources for rule in rules)
    if not masks:
        return None
    return lambda route: free | masks.get(route.source, 0)


def _by_local_pref(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect(() if rule.local_pref is None else (rule.local_pref,) for rule in rules)
    if not masks:
        return None

    def index(route: RouteView) -> Mask:
        value = route.local_pref
        return free if value is None else free | masks.get(value, 0)

    return index


def _by_local_pref_above(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect(() if rule.local_pref_above is None else (rule.local_pref_above,) for rule in rules)
    if not masks:
        return None
    bounds = sorted(masks)
    reached = list(accumulate((masks[bound] for bound in bounds), or_, initial=free))

    def index(route: RouteView) -> Mask:
        value = route.local_pref
        return free if value is None else reached[bisect_left(bounds, value)]

    return index


def _by_interface(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect(rule.interfaces for rule in rules)
    if not masks:
        return None
    globs = [(glob_expression(glob), mask) for glob, mask in masks.items()]
    remembered: dict[str, Mask] = {}

    def index(route: RouteView) -> Mask:
        name = route.interface
        mask = remembered.get(name)
        if mask is None:
            mask = free
            for expression, given in globs:
                if expression.fullmatch(name):
                    mask |= given
            if len(remembered) >= _INTERFACES_REMEMBERED:
                remembered.clear()
            remembered[name] = mask
        return mask

    return index


def _by_as_path(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect((rule.as_path_prefix,) if rule.as_path_prefix else () for rule in rules)
    if not masks:
        return None
    lengths = sorted({len(path) for path in masks})

    def index(route: RouteView) -> Mask:
        path = route.as_path
        mask = free
        for length in lengths:
            mask |= masks.get(path[:length], 0)
        return mask

    return index


def _by_next_hop(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect(rule.next_hops for rule in rules)
    if not masks:
        return None
    entries = [(network, 0, network.max_prefixlen, mask) for network, mask in masks.items()]
    by_octets = {
        family.address_octets: (bytes([family.max_bits]), PrefixIndex(family, entries, 0)) for family in FAMILIES
    }

    def index(route: RouteView) -> Mask:
        mask = free
        for address in next_hop_addresses(route.next_hop):
            length, prefixes = by_octets[len(address)]  # 4 or 16, RouteView says so
            mask |= prefixes.mask(length + address)
        return mask

    return index


def _by_community(rules: Sequence[PolicyRule]) -> Index | None:
    masks, free = _collect(rule.communities for rule in rules)
    if not masks:
        return None
    sizes = {len(octets) for octets in masks}
    has_standard, has_extended, has_large = 4 in sizes, 8 in sizes, 12 in sizes

    def index(route: RouteView) -> Mask:
        mask = free
        if has_standard and (data := route.communities):
            for at in range(0, len(data), 4):
                mask |= masks.get(data[at : at + 4], 0)
        if has_extended and (data := route.extended_communities):
            for at in range(0, len(data), 8):
                mask |= masks.get(data[at : at + 8], 0)
        if has_large and (data := route.large_communities):
            for at in range(0, len(data), 12):
                mask |= masks.get(data[at : at + 12], 0)
        return mask

    return index
