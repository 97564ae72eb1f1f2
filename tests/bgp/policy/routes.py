"""Routes and rules in short, for the policy tests."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from bgp.config import PrefixMatch, RouteSource
from bgp.families import Nlri, nlri_of


@dataclass(frozen=True)
class Route:
    as_path: tuple[int, ...] = (65000, 65001)
    communities: bytes = b""
    extended_communities: bytes = b""
    large_communities: bytes = b""
    local_pref: int | None = 100
    next_hop: bytes = b"\xc0\x00\x02\x01"
    source: RouteSource = "ebgp"
    interface: str = "eth0"


def nlri(text: str) -> Nlri:
    return nlri_of(ipaddress.ip_network(text))


def inside(text: str, shortest: int | None = None, longest: int | None = None, *, negate: bool = False) -> PrefixMatch:
    """Inside `text`, any length that fits unless given."""
    network = ipaddress.ip_network(text)
    return PrefixMatch(
        network=network,
        minimum_bits=network.prefixlen if shortest is None else shortest,
        maximum_bits=network.max_prefixlen if longest is None else longest,
        negate=negate,
    )


def exactly(text: str, *, negate: bool = False) -> PrefixMatch:
    bits = ipaddress.ip_network(text).prefixlen
    return inside(text, bits, bits, negate=negate)
