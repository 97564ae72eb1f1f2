"""Listing a large table: in order, each prefix once, and never long without a breath."""

from __future__ import annotations

import random

from bgp.views import _in_order


def test_prefixes_come_once_by_address_and_length_with_breaths_in_between() -> None:
    rng = random.Random(7)
    names = [bytes([32]) + rng.randbytes(4) for _ in range(60_000)]
    names += [bytes([24]) + b"\x0a" + rng.randbytes(2) for _ in range(30_000)]  # with doubles
    names += [b"\x00", b"\x08\x0a", b"\x08\x0a"]
    made = list(_in_order(names))
    assert [name for name in made if name is not None] == sorted(set(names), key=lambda name: (name[1:], name[0]))
    since_breath, longest = 0, 0
    for name in made:
        since_breath = 0 if name is None else since_breath + 1
        longest = max(longest, since_breath)
    assert longest <= 10_000
