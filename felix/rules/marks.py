"""The bits of a packet's mark that Felix uses, taken from the mask that it is allowed. Pure; Calico's order of bits."""

from __future__ import annotations

from dataclasses import dataclass

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
    wireguard: int

    @property
    def verdicts(self) -> int:
        return self.accept | self.next_tier

    def all_but_accept(self) -> int:
        """What forwarding clears when a packet comes by: a verdict of an earlier table stands."""
        return self.next_tier | self.scratch0 | self.scratch1


def marks_of(mask: int) -> Marks:
    """Raises ValueError if the mask has fewer than six bits."""
    bits = [1 << place for place in range(32) if mask >> place & 1]
    if len(bits) < 6:
        raise ValueError(f"mark mask {mask:#x} has {len(bits)} bits, and 6 are needed")
    return Marks(mask, *bits[:6])


def is_set(bits: int) -> Mark:
    return Mark(bits, bits)


def is_clear(bits: int) -> Mark:
    return Mark(0, bits)


def is_any_set(bits: int) -> Mark:
    return Mark(0, bits, negated=True)


def put(bits: int) -> SetMark:
    return SetMark(bits, bits)


def clear(bits: int) -> SetMark:
    return SetMark(0, bits)
