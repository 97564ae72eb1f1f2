"""The bits of a packet's mark that Felix uses, taken from the mask that it is allowed. Pure; Calico's order of bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from felix.filter_rules import Mark, SetMark


@dataclass(frozen=True, slots=True)
class Marks:
    """Each a single bit of `mask`."""

    mask: int
    accept: int
    next_tier: int  # passed
    drop: int
    scratch0: int
    scratch1: int
    wireguard: int  # 0 where the mask has no bit for it
    endpoint: (
        int  # all the rest: which endpoint a packet came from, where IPVS forwards; 0 where that is less than two bits
    )

    @property
    def no_endpoint(self) -> int:
        """In the bits of `endpoint`: none of ours. Its lowest bit."""
        return self.endpoint & -self.endpoint

    @property
    def ours(self) -> int:
        """What rules say to each other. The rest of the mask is others' to read: WireGuard's bit leads its own packets."""
        return self.accept | self.next_tier | self.drop | self.scratch0 | self.scratch1

    @property
    def verdicts(self) -> int:
        return self.accept | self.next_tier

    def all_but_accept(self) -> int:
        """What forwarding clears when a packet comes by: a verdict of an earlier table stands."""
        return self.next_tier | self.scratch0 | self.scratch1


def marks_of(mask: int, *, has_wireguard: bool = True) -> Marks:
    """From the lowest bit up. Raises ValueError if the mask has fewer than five bits, or six with WireGuard."""
    bits = [1 << place for place in range(32) if mask >> place & 1]
    needed = 6 if has_wireguard else 5
    if len(bits) < needed:
        raise ValueError(f"mark mask {mask:#x} has {len(bits)} bits, and {needed} are needed")
    accept, next_tier, drop, scratch0, scratch1, wireguard, *rest = [*bits, 0]
    endpoint = sum(rest) if len(bits) > 7 else 0
    return Marks(mask, accept, next_tier, drop, scratch0, scratch1, wireguard, endpoint)


# Few bits and tens of thousands of rules that ask for them.
@cache
def is_set(bits: int) -> Mark:
    return Mark(bits, bits)


@cache
def is_clear(bits: int) -> Mark:
    return Mark(0, bits)


@cache
def is_any_set(bits: int) -> Mark:
    return Mark(0, bits, negated=True)


@cache
def put(bits: int) -> SetMark:
    return SetMark(bits, bits)


@cache
def clear(bits: int) -> SetMark:
    return SetMark(0, bits)
