"""Paths that need thought: loops, sets, reflection, next hops that are far away, prefixes at the ends of their range."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.interop.catbird import Catbird
from tests.interop.router import (
    Announcement,
    PeerSpec,
    Router,
    holds_for,
    until,
    wait_established,
    wait_no_routes,
    wait_routes,
)
from tests.interop.world import World, establish, peer_of, plain, prefixes

KERNEL = "program = true"


def path_from(catbird: Catbird, prefix: str, peer: Router) -> dict[str, Any] | None:
    """What catbird says of one peer's path to a prefix, chosen or not."""
    views = catbird.route_views(f"prefix={prefix}&which=all")
    name = catbird.peers[peer.node.ipv4].name
    return next((path for view in views for path in view["paths"] if path["peer"] == name), None)


def test_a_path_with_our_own_as_is_refused_unless_it_is_allowed(world: World) -> None:
    """RFC 4271 section 9.1.2, AS loop detection."""
    catbird, bird = world.catbird(65001), world.bird()
    looped = Announcement(prefix="10.2.0.0/16", prepend=(65009, 65001))
    establish(catbird, bird, announce_two=[looped, *plain(65002)])
    wait_routes(catbird, *prefixes(plain(65002)))
    assert looped.prefix not in catbird.routes("ipv4")
    refused = path_from(catbird, looped.prefix, bird)
    assert refused is not None
    assert "loop" in refused["reason"].lower() or "own AS" in refused["reason"], refused["reason"]
    spec = catbird.peers[bird.node.ipv4]
    catbird.peers[bird.node.ipv4] = replace(spec, more=("allowed_own_asn = 1",))
    catbird.reload()
    assert wait_routes(catbird, looped.prefix)[looped.prefix].as_path == (65002, 65009, 65001)


def test_a_route_servers_path_does_not_begin_with_its_own_as(world: World) -> None:
    """`rs client` in BIRD. The first AS is checked unless that is switched off."""
    catbird, server, member = world.catbird(65001), world.bird(65002), world.frr(65003)
    server.start(replace(peer_of(catbird), more=("rs client;",)), replace(peer_of(member), more=("rs client;",)))
    member.start(
        replace(peer_of(server), more=(f"no neighbor {server.node.ipv4} enforce-first-as",)), announce=plain(65003)
    )
    catbird.start(peer_of(server))
    wait_routes(server, *prefixes(plain(65003)))
    wait_established(catbird, server.node.ipv4)
    holds_for(lambda: not catbird.routes("ipv4"), "a path that does not begin with the peer's AS is not taken", 1.5)
    assert catbird.peer(server.node.ipv4)["flaps"] == 0
    catbird.peers[server.node.ipv4] = replace(peer_of(server), more=("enforce_first_asn = false",))
    catbird.reload()
    seen = wait_routes(catbird, *prefixes(plain(65003)))
    assert seen["10.3.1.0/24"].as_path == (65003,)
    assert seen["10.3.1.0/24"].next_hop == member.node.ipv4, "a route server leaves the next hop as it is"


def test_an_aggregate_with_an_as_set_is_taken_and_passed_on(world: World) -> None:
    """FRR aggregates two ASes' routes with `as-set`; the set counts as one AS in the path's length."""
    catbird, frr = world.catbird(65001), world.frr(65002)
    first, second, sink = world.bird(65003), world.bird(65004), world.bird(65005)
    frr.start(peer_of(catbird), peer_of(first), peer_of(second))
    first.start(peer_of(frr), announce=[Announcement(prefix="10.40.1.0/24")])
    second.start(peer_of(frr), announce=[Announcement(prefix="10.40.2.0/24")])
    catbird.start(peer_of(frr), peer_of(sink))
    sink.start(peer_of(catbird))
    wait_routes(catbird, "10.40.1.0/24", "10.40.2.0/24")
    frr.vtysh("configure terminal", "router bgp 65002", "address-family ipv4", "aggregate-address 10.40.0.0/16 as-set")
    wait_routes(catbird, "10.40.0.0/16")
    path = path_from(catbird, "10.40.0.0/16", frr)
    assert path is not None
    assert path["as_path"].replace(" ", "") in ("65002{65003,65004}", "65002{6500365004}"), path["as_path"]
    wait_routes(sink, "10.40.0.0/16")
    text = sink.birdc("show", "route", "10.40.0.0/16", "all")
    assert "BGP.as_path: 65001 65002 {65003 65004}" in text, text
    assert "BGP.aggregator: 10.77.0.2 AS65002" in text, text


def test_reflected_routes_are_taken_with_their_originator_and_own_ones_refused(world: World) -> None:
    """BIRD reflects between catbird and FRR, all in one AS (RFC 4456)."""
    catbird, reflector, client = world.catbird(65001), world.bird(65001), world.frr(65001)
    is_client = ("rr client;", "rr cluster id 9.9.9.9;")
    reflector.start(replace(peer_of(catbird), more=is_client), replace(peer_of(client), more=is_client))
    catbird.start(peer_of(reflector), announce=plain(65001))
    client.start(peer_of(reflector), announce=plain(65002))
    seen = wait_routes(catbird, *prefixes(plain(65002)))
    assert seen["10.2.1.0/24"].next_hop == client.node.ipv4
    path = path_from(catbird, "10.2.1.0/24", reflector)
    assert path is not None
    assert (path["originator_id"], path["cluster_list"]) == (client.router_id, ["9.9.9.9"]) or (
        path["originator_id"] == client.router_id and path["cluster_list"] == "9.9.9.9"
    )
    wait_routes(client, *prefixes(plain(65001)))
    assert "10.1.1.0/24" not in catbird.routes("ipv4"), "our own route does not come back as another's"


def test_extended_communities_survive_the_way_through(world: World) -> None:
    catbird, bird, frr = world.catbird(65001), world.bird(65002), world.frr(65003)
    route = Announcement(prefix="10.2.0.0/16", extended_communities=("rt:65002:77", "ro:65002:78"))
    catbird.start(peer_of(bird), peer_of(frr))
    bird.start(peer_of(catbird), announce=[route])
    frr.start(peer_of(catbird))
    at_catbird = wait_routes(catbird, route.prefix)[route.prefix].extended_communities
    assert at_catbird == {"rt:65002:77", "soo:65002:78"}, at_catbird
    at_frr = wait_routes(frr, route.prefix)[route.prefix].extended_communities
    assert at_frr == {"rt:65002:77", "soo:65002:78"}, at_frr


def test_the_shortest_and_the_longest_prefixes_travel_and_reach_the_kernel(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    theirs = [
        "0.0.0.0/0",
        "10.2.0.0/16",
        "10.2.0.0/17",
        "10.2.255.255/32",
        "10.2.3.4/30",
        "::/0",
        "2001:db8:2::1/128",
        "2001:db8:2::/127",
    ]
    ours = ["0.0.0.0/1", "10.1.0.1/32", "10.1.0.0/31", "8000::/1", "2001:db8:1::1/128", "2001:db8:1::8/125"]
    establish(
        catbird,
        other,
        announce_one=[Announcement(prefix=prefix) for prefix in ours],
        announce_two=[Announcement(prefix=prefix) for prefix in theirs],
    )
    wait_routes(catbird, *theirs)
    wait_routes(other, *ours)

    def kernel() -> set[str]:
        rows = [
            row for f in ("-4", "-6") for row in json.loads(catbird.node.ip(f, "-j", "route", "show", "proto", "bird"))
        ]
        default = {"default4" if "." in row["gateway"] else "default6" for row in rows if row["dst"] == "default"}
        return {row["dst"] for row in rows} - {"default"} | default

    wanted = {
        "default4",
        "default6",
        "10.2.0.0/16",
        "10.2.0.0/17",
        "10.2.255.255",
        "10.2.3.4/30",
        "2001:db8:2::1",
        "2001:db8:2::/127",
    }
    until(lambda: kernel() >= wanted, "all are in the kernel")
    other.withdraw("0.0.0.0/0", "::/0")
    until(lambda: kernel() == wanted - {"default4", "default6"}, "the defaults are gone and the rest stays")


@pytest.mark.parametrize("kind", ["bird", "frr", "gobgp"])
def test_an_ibgp_next_hop_far_away_is_found_through_the_kernels_table(world: World, kind: str) -> None:
    """The next hop is another router's, reachable by a static route only; the route lives and dies with that.

    Not with OpenBGPD, which has no routing table on Linux to verify such a next hop in.
    """
    catbird, border, outside = world.catbird(65001, kernel=KERNEL), world.router(kind, 65001), world.bird(65003)
    far = "10.200.0.3"
    outside.node.ip("address", "add", f"{far}/32", "dev", "lo")
    border.node.ip("route", "add", f"{far}/32", "via", outside.node.ipv4)
    route = Announcement(prefix="10.3.0.0/16")
    border.start(peer_of(catbird), PeerSpec(address=far, asn=65003, multihop=3))
    outside.start(PeerSpec(address=border.node.ipv4, asn=65001, multihop=3, source=far), announce=[route])
    catbird.start(peer_of(border))
    wait_routes(border, route.prefix)
    name = "10.3.0.0/16"

    def state() -> str:
        path = path_from(catbird, name, border)
        return str(path["state"]) if path else "none"

    until(lambda: state() == "unreachable", f"catbird cannot reach {far}, it says {state()}")
    catbird.node.ip("route", "add", f"{far}/32", "via", outside.node.ipv4)
    until(lambda: state() == "best", "a static route brings it to life")
    until(lambda: f"{name} via {outside.node.ipv4}" in catbird.node.ip("route"), "the kernel sends straight there")
    catbird.node.ip("route", "delete", f"{far}/32")
    until(lambda: state() == "unreachable", "and its end, to an end")
    until(lambda: name not in catbird.node.ip("route"), "in the kernel too")


def test_a_third_partys_next_hop_on_the_same_lan_is_used(world: World) -> None:
    """BIRD passes on FRR's route with FRR's own address (RFC 4271 section 5.1.3), and packets skip BIRD."""
    catbird, middle, far = world.catbird(65001, kernel=KERNEL), world.bird(65002), world.frr(65003)
    middle.start(peer_of(catbird), peer_of(far))
    far.start(peer_of(middle), announce=plain(65003))
    catbird.start(peer_of(middle))
    wait_routes(catbird, *prefixes(plain(65003)))
    next_hop = catbird.routes("ipv4")["10.3.1.0/24"].next_hop
    assert next_hop == far.node.ipv4
    until(lambda: f"10.3.1.0/24 via {far.node.ipv4}" in catbird.node.ip("route"), "the kernel goes there directly")


def test_many_changes_in_a_row_end_in_the_last_state(world: World, kind: str) -> None:
    """Announced, changed and withdrawn faster than anybody looks."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other)
    for turn in range(8):
        other.announce(*(replace(route, communities=(f"65002:{turn}",)) for route in plain(65002, count=4)))
        if turn % 2:
            other.withdraw("10.2.1.0/24", "2001:db8:2:1::/64")
        catbird.announce(*(replace(route, communities=(f"65001:{turn}",)) for route in plain(65001, count=4)))
        if turn % 2:
            catbird.withdraw("10.1.1.0/24", "2001:db8:1:1::/64")

    def is_final(router: Router, asn: int) -> bool:
        seen = router.routes("ipv4") | router.routes("ipv6")
        wanted = set(prefixes(plain(asn, count=4))) - set(prefixes(plain(asn)))
        marks = {seen[prefix].communities for prefix in wanted & set(seen)}
        return set(seen) == wanted and marks == {frozenset({f"{asn}:7"})}

    until(lambda: is_final(catbird, 65002), "catbird has the last state")
    until(lambda: is_final(other, 65001), f"{kind} has the last state")
    other.withdraw(*(prefix for prefix in list(other.announcements)))
    wait_no_routes(catbird, *prefixes(plain(65002, count=4)))
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def test_a_duplicate_router_id_inside_the_as_is_refused(world: World) -> None:
    """RFC 6286: the same identifier is an error only between internal peers."""
    catbird, bird = world.catbird(65001), world.bird(65001)
    bird.forced_router_id = catbird.router_id
    bird.start(peer_of(catbird))
    catbird.start(peer_of(bird))
    until(lambda: "Bad BGP Identifier" in str(catbird.peer(bird.node.ipv4)["last_error"]), "refused with 2/3")
    assert not bird.is_established(catbird.node.ipv4)


def test_the_same_router_id_in_another_as_is_fine(world: World) -> None:
    catbird, bird = world.catbird(65001), world.bird(65002)
    bird.forced_router_id = catbird.router_id
    catbird.start(peer_of(bird))
    bird.start(peer_of(catbird), announce=plain(65002))
    wait_routes(catbird, *prefixes(plain(65002)))
