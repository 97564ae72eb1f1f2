"""Graceful restart (RFC 4724) with BIRD and FRR, each side in both roles, seen in the kernels' routing tables."""

from __future__ import annotations

import pytest

from tests.interop.frr import Frr
from tests.interop.router import Router, holds_for, until, wait_down, wait_no_routes, wait_routes
from tests.interop.world import World, establish, plain, prefixes, wait_both

KERNEL = "program = true"
RESTARTERS = pytest.mark.parametrize("kind", ["bird", "frr"])


def fib(router: Router) -> set[str]:
    """The prefixes in the namespace's main tables."""
    lines = (router.node.ip("route", "show") + router.node.ip("-6", "route", "show")).splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("blackhole")}


def kill_speaker(router: Router) -> None:
    """kill -9 of what speaks BGP; FRR's zebra, which holds its routes, is another process."""
    if isinstance(router, Frr):
        router.kill_bgpd()
    else:
        router.kill()


@RESTARTERS
def test_the_helper_keeps_forwarding_while_catbird_is_killed_and_restarted(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    ours, theirs = plain(65001), plain(65002)
    establish(catbird, other, announce_one=ours, announce_two=theirs, graceful_restart=True)
    wait_routes(other, *prefixes(ours))
    until(lambda: set(prefixes(ours)) <= fib(other), f"{kind} has them in its kernel")
    until(lambda: set(prefixes(theirs)) <= fib(catbird), "catbird has them in its kernel")
    catbird.kill()
    wait_down(other, catbird.node.ipv4)
    holds_for(
        lambda: set(prefixes(ours)) <= fib(other) and set(prefixes(theirs)) <= fib(catbird),
        "both kernels keep the routes while catbird is away",
        1.5,
    )
    catbird.start()

    def all_stay() -> bool:
        assert set(prefixes(ours)) <= fib(other), f"{kind} lost routes while catbird came back"
        assert set(prefixes(theirs)) <= fib(catbird), "catbird's kernel lost routes while it came back"
        return catbird.is_established(other.node.ipv4) and other.is_established(catbird.node.ipv4)

    until(all_stay, "the session is back")
    wait_routes(other, *prefixes(ours))
    wait_routes(catbird, *prefixes(theirs))
    until(
        lambda: not any(route.is_stale for route in other.routes("ipv4").values()), "nothing is stale after End-of-RIB"
    )
    holds_for(lambda: set(prefixes(theirs)) <= fib(catbird), "nor is anything taken away late", 1)


@RESTARTERS
def test_catbird_keeps_the_routes_of_a_peer_that_restarts_and_drops_what_it_no_longer_has(
    world: World, kind: str
) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    theirs = plain(65002, count=2)
    kept, gone = prefixes(theirs[:2]), prefixes(theirs[2:])
    establish(catbird, other, announce_two=theirs, graceful_restart=True)
    wait_routes(catbird, *prefixes(theirs))
    until(lambda: set(prefixes(theirs)) <= fib(catbird), "catbird has them in its kernel")
    kill_speaker(other)
    wait_down(catbird, other.node.ipv4)
    assert all(catbird.routes("ipv4")[prefix].is_stale for prefix in prefixes(theirs) if "." in prefix)
    holds_for(lambda: set(prefixes(theirs)) <= fib(catbird), "catbird forwards by its stale routes", 1)
    for prefix in gone:
        del other.announcements[prefix]
    other.start(recovering=True)
    wait_both(catbird, other)
    wait_no_routes(catbird, *gone)
    seen = wait_routes(catbird, *kept)
    assert not any(seen[prefix].is_stale for prefix in kept)
    until(lambda: set(kept) <= fib(catbird) and not set(gone) & fib(catbird), "the kernel follows")


@RESTARTERS
def test_stale_routes_go_when_the_peer_does_not_come_back_in_time(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    establish(catbird, other, announce_two=plain(65002), graceful_restart=True, restart_time_s=4)
    wait_routes(catbird, *prefixes(plain(65002)))
    kill_speaker(other)
    wait_down(catbird, other.node.ipv4)
    holds_for(lambda: "10.2.1.0/24" in catbird.routes("ipv4"), "kept for the restart time", 2)
    wait_no_routes(catbird, *prefixes(plain(65002)), deadline_s=10)
    until(lambda: not set(prefixes(plain(65002))) & fib(catbird), "gone from the kernel")


@RESTARTERS
def test_catbirds_routes_go_from_a_helper_when_it_does_not_come_back(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), graceful_restart=True, restart_time_s=4)
    until(lambda: set(prefixes(plain(65001))) <= fib(other), f"{kind} has them in its kernel")
    catbird.kill()
    holds_for(lambda: set(prefixes(plain(65001))) <= fib(other), "kept for the restart time", 2)
    until(lambda: not set(prefixes(plain(65001))) & fib(other), "gone after it", 15)


def test_an_orderly_end_is_no_graceful_restart(world: World) -> None:
    """BIRD follows RFC 4724: a session that ended with a NOTIFICATION keeps no routes."""
    catbird, bird = world.catbird(65001, kernel=KERNEL), world.bird()
    establish(catbird, bird, announce_one=plain(65001), announce_two=plain(65002), graceful_restart=True)
    wait_routes(bird, *prefixes(plain(65001)))
    bird.shut_down(catbird.node.ipv4, "going away")
    wait_no_routes(catbird, *prefixes(plain(65002)))
    until(lambda: not set(prefixes(plain(65002))) & fib(catbird), "gone from catbird's kernel")
