"""catbird between two others: what it passes on, and what it keeps to itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.router import Announcement, Router, holds_for, until, wait_established, wait_no_routes, wait_routes
from tests.interop.world import World, peer_of

LIVELY = Announcement(
    prefix="10.2.0.0/16",
    communities=("65002:7", "65003:8"),
    large_communities=("65002:7:8",),
    med=55,
    prepend=(65002,),
)
LIVELY6 = Announcement(prefix="2001:db8:2::/48", communities=("65002:9",))


def through(
    world: World, source: str, sink: str, *routes: Announcement, sink_asn: int = 65003, **more: Any
) -> tuple[Router, Router, Router]:
    """source (AS 65002) → catbird (65001) → sink, all Established."""
    catbird, first, second = world.catbird(65001, **more), world.router(source, 65002), world.router(sink, sink_asn)
    catbird.start(peer_of(first), peer_of(second))
    first.start(peer_of(catbird), announce=routes)
    second.start(peer_of(catbird))
    for other in (first, second):
        wait_established(catbird, other.node.ipv4)
        wait_established(other, catbird.node.ipv4)
    return catbird, first, second


@pytest.mark.parametrize(
    ("source", "sink"), [("bird", "frr"), ("frr", "gobgp"), ("gobgp", "openbgpd"), ("openbgpd", "bird")]
)
def test_attributes_survive_the_way_through_from_one_as_to_another(world: World, source: str, sink: str) -> None:
    catbird, first, second = through(world, source, sink, LIVELY, LIVELY6)
    seen = wait_routes(second, LIVELY.prefix, LIVELY6.prefix)
    got = seen[LIVELY.prefix]
    assert got.as_path == (65001, 65002, 65002)
    assert got.communities == set(LIVELY.communities)
    assert got.large_communities == set(LIVELY.large_communities)
    assert got.med in (None, 0), "MED is not passed on to another AS (RFC 4271 section 5.1.4)"
    assert seen[LIVELY6.prefix].as_path == (65001, 65002)
    assert seen[LIVELY6.prefix].communities == {"65002:9"}
    first.withdraw(LIVELY.prefix)
    wait_no_routes(second, LIVELY.prefix)
    first.kill()
    wait_no_routes(second, LIVELY6.prefix)
    assert catbird.is_established(second.node.ipv4)


def test_ebgp_routes_reach_ibgp_peers_with_their_next_hop_and_med(world: World, kind: str) -> None:
    catbird, first, second = through(world, "bird", kind, LIVELY, LIVELY6, sink_asn=65001)
    seen = wait_routes(second, LIVELY.prefix, LIVELY6.prefix)
    got = seen[LIVELY.prefix]
    assert got.as_path == (65002, 65002)
    assert got.next_hop in (first.node.ipv4, catbird.node.ipv4)
    assert got.med == 55
    assert got.local_pref == 100


@pytest.mark.parametrize(
    ("community", "sink_asn"), [("65535:65281", 65003), ("65535:65282", 65003), ("65535:65282", 65001)]
)
def test_no_export_and_no_advertise_are_obeyed(world: World, community: str, sink_asn: int) -> None:
    """RFC 1997: NO_EXPORT stays inside the AS, NO_ADVERTISE goes to nobody."""
    kept = Announcement(prefix="10.2.0.0/16", communities=(community,))
    free = Announcement(prefix="10.22.0.0/16")
    catbird, _, second = through(world, "bird", "frr", kept, free, sink_asn=sink_asn)
    wait_routes(second, free.prefix)
    assert kept.prefix in catbird.routes("ipv4")
    assert kept.prefix not in second.routes("ipv4")


def test_no_export_still_reaches_peers_of_the_same_as(world: World) -> None:
    kept = Announcement(prefix="10.2.0.0/16", communities=("65535:65281",))
    _, _, second = through(world, "bird", "frr", kept, sink_asn=65001)
    wait_routes(second, kept.prefix)


def test_ibgp_routes_are_not_passed_to_other_ibgp_peers(world: World) -> None:
    """RFC 4271 section 9.2: that takes a route reflector."""
    catbird, first, second = world.catbird(65001), world.router("bird", 65001), world.router("frr", 65001)
    catbird.start(peer_of(first), peer_of(second), announce=[Announcement(prefix="10.1.0.0/16")])
    first.start(peer_of(catbird), announce=[Announcement(prefix="10.2.0.0/16")])
    second.start(peer_of(catbird))
    wait_routes(second, "10.1.0.0/16")
    wait_routes(catbird, "10.2.0.0/16")
    holds_for(lambda: "10.2.0.0/16" not in second.routes("ipv4"), "the iBGP route stays here", 1)


def test_the_better_of_two_paths_is_chosen_and_the_other_takes_over(world: World) -> None:
    """The shorter AS path, and the reason why the other lost is shown."""
    catbird, short, long = world.catbird(65001), world.router("bird", 65002), world.router("frr", 65003)
    route = Announcement(prefix="10.9.0.0/16")
    catbird.start(peer_of(short), peer_of(long))
    short.start(peer_of(catbird), announce=[route])
    long.start(peer_of(catbird), announce=[Announcement(prefix="10.9.0.0/16", prepend=(65003,))])

    def paths() -> int:
        views = catbird.route_views("prefix=10.9.0.0/16&which=all")
        return len(views[0]["paths"]) if views else 0

    until(lambda: paths() == 2, "both paths are there")
    assert catbird.routes("ipv4")["10.9.0.0/16"].as_path == (65002,)
    why = catbird.cli("show", "routes", "10.9.0.0/16", "--why")
    assert "AS path" in why or "AS_PATH" in why, why
    short.kill()

    def has_taken_over() -> bool:
        best = catbird.routes("ipv4").get("10.9.0.0/16")
        return best is not None and best.as_path == (65003, 65003)

    until(has_taken_over, "the longer path took over")
