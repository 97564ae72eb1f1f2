"""Routers on one LAN, and the usual ways to bring two of them up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tests.interop.bird import Bird
from tests.interop.catbird import Catbird
from tests.interop.frr import Frr
from tests.interop.gobgp import GoBgp
from tests.interop.lan import Lan, lan
from tests.interop.openbgpd import OpenBgpd
from tests.interop.router import Announcement, FamilyName, PeerSpec, Router, wait_established

KINDS: dict[str, type[Router]] = {kind.kind: kind for kind in (Bird, Frr, GoBgp, OpenBgpd, Catbird)}
DAEMONS = ("bird", "frr", "gobgp", "openbgpd")  # everyone but us


@dataclass(slots=True)
class World:
    lan: Lan
    routers: list[Router] = field(default_factory=list)

    def router(self, kind: str, asn: int) -> Router:
        return self._add(KINDS[kind](self.lan.add_node(), asn))

    def catbird(self, asn: int = 65001, **fields: Any) -> Catbird:
        made = Catbird(self.lan.add_node(), asn, **fields)
        self._add(made)
        return made

    def bird(self, asn: int = 65002) -> Bird:
        made = Bird(self.lan.add_node(), asn)
        self._add(made)
        return made

    def frr(self, asn: int = 65002) -> Frr:
        made = Frr(self.lan.add_node(), asn)
        self._add(made)
        return made

    def _add(self, router: Router) -> Router:
        self.routers.append(router)
        return router


@contextmanager
def world() -> Iterator[World]:
    with lan() as network:
        made = World(network)
        try:
            yield made
        finally:
            for router in made.routers:
                router.close()


def address(router: Router, over: FamilyName = "ipv4") -> str:
    return router.node.ipv4 if over == "ipv4" else router.node.ipv6


def peer_of(router: Router, over: FamilyName = "ipv4", **fields: Any) -> PeerSpec:
    """How another router's configuration has this one."""
    return PeerSpec(address=address(router, over), asn=router.asn, **fields)


def start_pair(
    one: Router,
    two: Router,
    *,
    over: FamilyName = "ipv4",
    announce_one: Iterable[Announcement] = (),
    announce_two: Iterable[Announcement] = (),
    one_has: dict[str, Any] | None = None,
    two_has: dict[str, Any] | None = None,
    **both: Any,
) -> None:
    """Start both with a session between them. `both` goes into both peers' fields, `one_has` only into one's, …"""
    one.start(replace(peer_of(two, over, **both), **(one_has or {})), announce=announce_one)
    two.start(replace(peer_of(one, over, **both), **(two_has or {})), announce=announce_two)


def establish(one: Router, two: Router, *, over: FamilyName = "ipv4", **how: Any) -> None:
    """`start_pair`, and wait until both say Established."""
    start_pair(one, two, over=over, **how)
    wait_both(one, two, over=over)


def wait_both(one: Router, two: Router, *, over: FamilyName = "ipv4") -> None:
    wait_established(one, address(two, over))
    wait_established(two, address(one, over))


def plain(asn: int, *, count: int = 1) -> list[Announcement]:
    """`count` IPv4 and as many IPv6 prefixes that tell whose they are: 10.N.i.0/24 and 2001:db8:N:i::/64, N = asn % 100."""
    number = asn % 100
    pairs = [(f"10.{number}.{i}.0/24", f"2001:db8:{number}:{i}::/64") for i in range(1, count + 1)]
    return [Announcement(prefix=prefix) for prefix in itertools.chain.from_iterable(pairs)]


def prefixes(announcements: Iterable[Announcement]) -> tuple[str, ...]:
    return tuple(route.prefix for route in announcements)
