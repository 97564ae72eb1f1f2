"""Routes both ways, both families on one session, and what they carry."""

from __future__ import annotations

import pytest

from tests.interop.router import Announcement, FamilyName, SeenRoute, until, wait_no_routes, wait_routes
from tests.interop.world import World, establish, peer_of, plain, prefixes


def rich(asn: int, *, local_pref: int | None = None) -> list[Announcement]:
    """One prefix of each family with every attribute that people set; the AS path is lengthened by the own number."""
    number = asn % 100
    return [
        Announcement(
            prefix=prefix,
            communities=(f"{asn}:100", f"{asn}:200"),
            large_communities=(f"{asn}:1:{number}", "4200000000:4294967295:0"),
            med=70 + number,
            local_pref=local_pref,
            prepend=(asn, asn),
        )
        for prefix in (f"10.{number}.0.0/16", f"2001:db8:{number}::/48")
    ]


def assert_attributes_survived(seen: dict[str, SeenRoute], sent: list[Announcement], *, path: tuple[int, ...]) -> None:
    for route in sent:
        got = seen[route.prefix]
        assert got.as_path == path
        assert got.origin == "igp"
        assert got.communities == set(route.communities)
        assert got.large_communities == set(route.large_communities)
        assert got.med == route.med


def test_ebgp_carries_both_families_both_ways_with_their_attributes_and_withdraws(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    ours, theirs = rich(65001), rich(65002)
    establish(catbird, other, announce_one=ours, announce_two=theirs)

    at_other = wait_routes(other, *prefixes(ours))
    assert_attributes_survived(at_other, ours, path=(65001, 65001, 65001))
    assert at_other["10.1.0.0/16"].next_hop == catbird.node.ipv4
    assert at_other["2001:db8:1::/48"].next_hop == catbird.node.ipv6

    at_catbird = wait_routes(catbird, *prefixes(theirs))
    assert_attributes_survived(at_catbird, theirs, path=(65002, 65002, 65002))
    assert at_catbird["10.2.0.0/16"].next_hop == other.node.ipv4
    assert at_catbird["2001:db8:2::/48"].next_hop == other.node.ipv6

    catbird.withdraw(*prefixes(ours))
    wait_no_routes(other, *prefixes(ours))
    other.withdraw("2001:db8:2::/48")
    wait_no_routes(catbird, "2001:db8:2::/48")
    assert "10.2.0.0/16" in catbird.routes("ipv4")
    other.withdraw("10.2.0.0/16")
    wait_no_routes(catbird, "10.2.0.0/16")
    other.announce(*theirs)
    wait_routes(catbird, *prefixes(theirs))


def test_ibgp_keeps_local_pref_and_leaves_the_as_path_alone(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65001)
    ours = [Announcement(prefix=p, local_pref=150, med=3) for p in ("10.1.0.0/16", "2001:db8:1::/48")]
    theirs = [Announcement(prefix=p, local_pref=250, med=4) for p in ("10.2.0.0/16", "2001:db8:2::/48")]
    establish(catbird, other, announce_one=ours, announce_two=theirs)
    for reader, sender, sent in ((other, catbird, ours), (catbird, other, theirs)):
        seen = wait_routes(reader, *prefixes(sent))
        for route in sent:
            got = seen[route.prefix]
            assert (got.as_path, got.local_pref, got.med) == ((), route.local_pref, route.med)
        assert seen[sent[0].prefix].next_hop == sender.node.ipv4
        assert seen[sent[1].prefix].next_hop == sender.node.ipv6


@pytest.mark.parametrize("families", [("ipv4",), ("ipv6",)])
def test_only_the_families_that_both_want_are_exchanged(
    world: World, kind: str, families: tuple[FamilyName, ...]
) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002), one_has={"families": families})
    wanted, unwanted = plain(65001), plain(65002)
    if families == ("ipv4",):
        wait_routes(other, wanted[0].prefix)
        wait_routes(catbird, unwanted[0].prefix)
        assert not other.routes("ipv6")
        assert not catbird.routes("ipv6")
    else:
        wait_routes(other, wanted[1].prefix)
        wait_routes(catbird, unwanted[1].prefix)
        assert not other.routes("ipv4")
        assert not catbird.routes("ipv4")


@pytest.mark.parametrize("kind", ["bird", "frr", "gobgp"])
def test_an_ipv6_session_carries_ipv4_with_an_ipv6_next_hop_where_there_is_no_ipv4(world: World, kind: str) -> None:
    """RFC 8950, as on links without IPv4 addresses. OpenBGPD 7.7 does not have it."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    for router in (catbird, other):
        router.node.ip("address", "delete", f"{router.node.ipv4}/24", "dev", "eth0")
    ours, theirs = plain(65001), plain(65002)
    establish(catbird, other, over="ipv6", announce_one=ours, announce_two=theirs, extended_next_hop=True)
    at_other = wait_routes(other, *prefixes(ours))
    assert at_other["10.1.1.0/24"].next_hop == catbird.node.ipv6
    at_catbird = wait_routes(catbird, *prefixes(theirs))
    assert at_catbird["10.2.1.0/24"].next_hop == other.node.ipv6
    assert at_catbird["2001:db8:2:1::/64"].next_hop == other.node.ipv6


@pytest.mark.parametrize("kind", ["bird", "frr", "gobgp"])
def test_an_ipv6_session_prefers_an_ipv4_next_hop_where_the_link_has_one(world: World, kind: str) -> None:
    """The others send their IPv6 address whenever RFC 8950 was negotiated; each understands the other."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    ours, theirs = plain(65001), plain(65002)
    establish(catbird, other, over="ipv6", announce_one=ours, announce_two=theirs, extended_next_hop=True)
    assert wait_routes(other, *prefixes(ours))["10.1.1.0/24"].next_hop == catbird.node.ipv4
    assert wait_routes(catbird, *prefixes(theirs))["10.2.1.0/24"].next_hop == other.node.ipv6


def test_an_ipv6_session_without_extended_next_hop_carries_ipv4_with_an_ipv4_next_hop(world: World) -> None:
    catbird, other = world.catbird(65001), world.router("openbgpd", 65002)
    establish(catbird, other, over="ipv6", announce_one=plain(65001), announce_two=plain(65002))
    assert wait_routes(other, *prefixes(plain(65001)))["10.1.1.0/24"].next_hop == catbird.node.ipv4
    assert wait_routes(catbird, *prefixes(plain(65002)))["10.2.1.0/24"].next_hop == other.node.ipv4


def test_a_next_hop_mapped_from_ipv4_neither_resets_the_session_nor_hides_the_rest(world: World) -> None:
    """What GoBGP sends for IPv6 over an IPv4 session unless it is told better."""
    catbird = world.catbird(65001)
    gobgp = world.router("gobgp", 65002)
    gobgp.explicit_next_hop = False  # type: ignore[attr-defined]
    establish(catbird, gobgp, announce_two=plain(65002))
    wait_routes(catbird, "10.2.1.0/24")
    gobgp.announce(Announcement(prefix="10.2.9.0/24"))
    wait_routes(catbird, "10.2.9.0/24")
    assert catbird.is_established(gobgp.node.ipv4)
    assert catbird.peer(gobgp.node.ipv4)["flaps"] == 0


@pytest.mark.parametrize("kind", ["bird", "frr", "openbgpd"])
def test_route_refresh_asked_by_the_other_side_is_answered(world: World, kind: str) -> None:
    """GoBGP 3 never asks: its soft reset works on what it kept."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001))
    wait_routes(other, *prefixes(plain(65001)))
    before = catbird.peer(other.node.ipv4)["messages"]
    other.refresh(catbird.node.ipv4)

    def is_answered() -> bool:
        now = catbird.peer(other.node.ipv4)["messages"]
        asked: int = now["received"]["refresh"] - before["received"]["refresh"]
        return asked >= 2 and bool(now["sent"]["update"] - before["sent"]["update"] >= 2)

    until(is_answered, "catbird was asked for both families and sent them again", 10)
    assert other.is_established(catbird.node.ipv4)


def test_catbird_asks_for_a_refresh_and_gets_it(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_two=plain(65002))
    wait_routes(catbird, *prefixes(plain(65002)))
    before = other.session(catbird.node.ipv4).refreshes_received or 0
    updates = catbird.peer(other.node.ipv4)["messages"]["received"]["update"]
    catbird.cli("peer", catbird.peers[other.node.ipv4].name, "refresh", "--in")
    until(lambda: (other.session(catbird.node.ipv4).refreshes_received or 0) >= before + 2, f"{kind} was asked", 10)
    if kind != "openbgpd":  # bgpctl(8): "the neighbor is not obliged to re-send all routes", and it does not
        until(
            lambda: bool(catbird.peer(other.node.ipv4)["messages"]["received"]["update"] >= updates + 2),
            "the routes came again",
            10,
        )
    assert set(prefixes(plain(65002))) <= set(catbird.routes("ipv4")) | set(catbird.routes("ipv6"))


def test_extended_messages_carry_more_attributes_than_4096_octets_hold(world: World) -> None:
    """RFC 8654, with BIRD, which alone of the four has it."""
    catbird, bird = world.catbird(65001), world.bird()
    many = tuple(f"65002:{i}" for i in range(1500))
    ours = Announcement(prefix="10.1.0.0/16", communities=tuple(f"65001:{i}" for i in range(1500)))
    establish(
        catbird,
        bird,
        announce_one=[ours],
        announce_two=[Announcement(prefix="10.2.0.0/16", communities=many)],
        extended_messages=True,
    )
    assert wait_routes(catbird, "10.2.0.0/16")["10.2.0.0/16"].communities == set(many)
    wait_routes(bird, "10.1.0.0/16")
    # birdc cuts a line this long short, but its filters see all.
    found = bird.birdc("show", "route", "where", "bgp_community.len = 1500 && (65001,1499) ~ bgp_community")
    assert "10.1.0.0/16" in found, found


def test_without_extended_messages_a_route_too_big_for_one_message_harms_no_other(world: World) -> None:
    catbird, bird = world.catbird(65001), world.bird()
    too_big = Announcement(prefix="10.1.0.0/16", communities=tuple(f"65001:{i}" for i in range(1500)))
    establish(catbird, bird, announce_one=[too_big, Announcement(prefix="10.1.2.0/24")])
    wait_routes(bird, "10.1.2.0/24")
    assert "10.1.0.0/16" not in bird.routes("ipv4")
    assert catbird.peer(bird.node.ipv4)["flaps"] == 0


def test_thousands_of_routes_arrive_whole_and_go_whole(world: World) -> None:
    """BIRD → catbird with its kernel → FRR; then half of it is withdrawn."""
    catbird, bird, frr = world.catbird(65001, kernel="program = true"), world.bird(65002), world.frr(65003)
    many = [Announcement(prefix=f"10.{100 + i // 250}.{i % 250}.0/24") for i in range(10000)]
    catbird.start(peer_of(bird), peer_of(frr))
    bird.start(peer_of(catbird), announce=many)
    frr.start(peer_of(catbird))

    def fib() -> int:
        return len(catbird.node.ip("route", "show", "proto", "bird").splitlines())

    def at_frr() -> int:
        peers = frr.show("show bgp summary json").get("ipv4Unicast", {}).get("peers", {})
        return int(peers.get(catbird.node.ipv4, {}).get("pfxRcd", 0))

    until(lambda: fib() == 10000, "catbird's kernel has all")
    until(lambda: at_frr() == 10000, "FRR has all")
    for route in many[::2]:
        del bird.announcements[route.prefix]
    bird.reload()
    until(lambda: fib() == 5000, "catbird's kernel has half")
    until(lambda: at_frr() == 5000, "FRR has half")
    assert set(prefixes(many[1::2])) == set(catbird.routes("ipv4"))


def test_hundreds_of_routes_with_sets_of_their_own_arrive_in_both_directions(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    # gobgp's command line adds one at a time; FRR answers nobody while it reads a route map an entry.
    count = {"gobgp": 40, "frr": 60}.get(kind, 300)

    def routes(asn: int, first: int, number: int) -> list[Announcement]:
        return [
            Announcement(prefix=f"10.{first + i // 250}.{i % 250}.0/24", communities=(f"{asn}:{i}",))
            for i in range(number)
        ]

    ours, theirs = routes(65001, 100, 300), routes(65002, 200, count)
    establish(catbird, other, announce_one=ours, announce_two=theirs)
    for reader, sent in ((other, ours), (catbird, theirs)):
        seen = wait_routes(reader, *prefixes(sent))
        assert [route.prefix for route in sent if seen[route.prefix].communities != set(route.communities)] == []
