"""Who is reached how: link-local peers, loopbacks over several hops, ranges, sessions replaced behind one's back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.interop.router import PeerSpec, Router, holds_for, until, wait_established, wait_routes
from tests.interop.world import World, establish, peer_of, plain, prefixes, wait_both

KERNEL = "program = true"


def link_local(router: Router) -> str:
    rows = json.loads(router.node.ip("-j", "-6", "address", "show", "dev", "eth0", "scope", "link"))
    return str(next(row["addr_info"][0]["local"] for row in rows if row.get("addr_info")))


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_a_session_between_link_local_addresses_carries_both_families_into_the_kernel(world: World, kind: str) -> None:
    """No other address on the link: what data centres call unnumbered (RFC 8950 for IPv4)."""
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    for router in (catbird, other):
        router.node.ip("address", "delete", f"{router.node.ipv4}/24", "dev", "eth0")
        router.node.ip("address", "delete", f"{router.node.ipv6}/64", "dev", "eth0")
    here, there = link_local(catbird), link_local(other)
    spec = PeerSpec(address=there, asn=65002, interface="eth0", extended_next_hop=True)
    catbird.start(spec, announce=plain(65001))
    other.start(replace(spec, address=here, asn=65001), announce=plain(65002))
    wait_established(catbird, there)
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))
    until(lambda: "10.2.1.0/24" in catbird.node.ip("route"), "IPv4 is in catbird's kernel")
    until(lambda: "2001:db8:2:1::/64" in catbird.node.ip("-6", "route"), "IPv6 is in catbird's kernel")
    assert f"via inet6 {there} dev eth0" in catbird.node.ip("route")
    if other.programs_kernel:
        until(lambda: "10.1.1.0/24" in other.node.ip("route"), f"{kind}'s kernel has IPv4")


def test_the_same_link_local_address_on_two_links_is_two_peers(world: World) -> None:
    """Top-of-rack switches are all fe80::1 to their hosts."""
    catbird, left, right = world.catbird(65001, kernel=KERNEL), world.bird(65002), world.frr(65003)
    for interface, other in (("left", left), ("right", right)):
        world.lan.add_cable(catbird.node, other.node, interface)
        catbird.node.ip("address", "add", "fe80::2/64", "dev", interface, "nodad")
        other.node.ip("address", "add", "fe80::1/64", "dev", interface, "nodad")
    specs = [
        PeerSpec(address="fe80::1", asn=asn, interface=interface, extended_next_hop=True)
        for asn, interface in ((65002, "left"), (65003, "right"))
    ]
    catbird.peers = {f"fe80::1%{spec.interface}": spec for spec in specs}
    catbird.start(announce=plain(65001))
    for other, interface in ((left, "left"), (right, "right")):
        back = PeerSpec(address="fe80::2", asn=65001, interface=interface, extended_next_hop=True)
        other.start(back, announce=plain(other.asn))
    wait_routes(catbird, *prefixes(plain(65002)), *prefixes(plain(65003)))
    until(lambda: "10.3.1.0/24 via inet6 fe80::1 dev right" in catbird.node.ip("route"), "right is reached by right")
    until(lambda: "10.2.1.0/24 via inet6 fe80::1 dev left" in catbird.node.ip("route"), "left is reached by left")
    catbird.node.ip("link", "set", "left", "down")
    until(lambda: "dev left" not in catbird.node.ip("route"), "left is gone")
    assert "10.3.1.0/24 via inet6 fe80::1 dev right" in catbird.node.ip("route")


def test_peers_behind_loopback_addresses_meet_over_two_hops(world: World, kind: str) -> None:
    """eBGP multihop with `source`; a node between them routes."""
    catbird, middle, other = world.catbird(65001), world.router("bird", 65009), world.router(kind, 65002)
    near, far = "10.200.0.1", "10.200.0.3"
    for node, address, target in ((catbird.node, near, far), (other.node, far, near)):
        node.ip("address", "add", f"{address}/32", "dev", "lo")
        node.ip("route", "add", f"{target}/32", "via", middle.node.ipv4)
    for target, via in ((near, catbird.node.ipv4), (far, other.node.ipv4)):
        middle.node.ip("route", "add", f"{target}/32", "via", via)
    for node in (middle.node, catbird.node, other.node):  # stay on the long way
        node.run(
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.all.accept_redirects=0",
            "net.ipv4.conf.eth0.send_redirects=0",
            "net.ipv4.conf.eth0.accept_redirects=0",
        )
    catbird.start(PeerSpec(address=far, asn=65002, source=near, multihop=4), announce=plain(65001))
    other.start(PeerSpec(address=near, asn=65001, source=far, multihop=4), announce=plain(65002))
    wait_established(catbird, far)
    wait_routes(other, "10.1.1.0/24")
    assert wait_routes(catbird, "10.2.1.0/24")["10.2.1.0/24"].next_hop == far


def test_ebgp_without_multihop_does_not_reach_beyond_the_link(world: World) -> None:
    catbird, middle, other = world.catbird(65001), world.router("bird", 65009), world.router("gobgp", 65002)
    far = "10.200.0.3"
    other.node.ip("address", "add", f"{far}/32", "dev", "lo")
    catbird.node.ip("route", "add", f"{far}/32", "via", middle.node.ipv4)
    middle.node.ip("route", "add", f"{far}/32", "via", other.node.ipv4)
    for node in (middle.node, catbird.node):
        node.run(
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.eth0.send_redirects=0",
            "net.ipv4.conf.all.accept_redirects=0",
            "net.ipv4.conf.eth0.accept_redirects=0",
        )
    catbird.start(PeerSpec(address=far, asn=65002))
    other.start(PeerSpec(address=catbird.node.ipv4, asn=65001, source=far, multihop=4))
    holds_for(lambda: not catbird.is_established(far), "TTL 1 ends at the first router", 2.5)


def test_a_range_of_peers_shares_one_password(world: World) -> None:
    """TCP_MD5SIG_EXT: one key for a whole prefix."""
    catbird, bird, frr, wrong = world.catbird(65001), world.bird(), world.frr(), world.bird()
    catbird.ranges = {"10.77.0.0/24": 65002}
    catbird.range_lines = 'password = "s3cret"\n'
    catbird.start(announce=plain(65001))
    for other, password in ((bird, "s3cret"), (frr, "s3cret"), (wrong, "other")):
        other.start(replace(peer_of(catbird), password=password))
    for good in (bird, frr):
        wait_routes(good, *prefixes(plain(65001)))
    holds_for(lambda: not wrong.is_established(catbird.node.ipv4), "a wrong password gets no session", 1.5)


@pytest.mark.parametrize("graceful", [True, False])
def test_a_peer_that_restarts_unseen_comes_back_although_its_old_session_looks_alive(
    world: World, graceful: bool
) -> None:
    """BIRD is killed while every packet is lost: catbird hears of it by the new connection (RFC 4724 section 5), or,
    without graceful restart, by the old connection's end when it is next used.
    """
    catbird, bird = world.catbird(65001), world.bird()
    establish(
        catbird, bird, announce_one=plain(65001), announce_two=plain(65002), graceful_restart=graceful, hold_time_s=30
    )
    wait_routes(catbird, *prefixes(plain(65002)))
    bird.node.drop_bgp()
    bird.kill()
    bird.node.pass_bgp()
    assert catbird.is_established(bird.node.ipv4), "catbird has not noticed"
    bird.start(recovering=graceful)
    # With graceful restart the new connection takes over at once; otherwise within the hold time.
    wait_established(bird, catbird.node.ipv4, deadline_s=12 if graceful else 45)
    wait_both(catbird, bird)
    wait_routes(bird, *prefixes(plain(65001)))
    wait_routes(catbird, *prefixes(plain(65002)))


def test_hold_time_0_means_no_keepalives_and_no_end(world: World) -> None:
    catbird, bird = world.catbird(65001), world.bird()
    establish(catbird, bird, announce_two=plain(65002), one_has={"hold_time_s": 0})
    wait_routes(catbird, *prefixes(plain(65002)))
    view = catbird.peer(bird.node.ipv4)
    assert view["hold_time_s"] == 0
    before = view["messages"]["sent"]["keepalive"]
    holds_for(lambda: catbird.is_established(bird.node.ipv4), "it stands", 4)
    assert catbird.peer(bird.node.ipv4)["messages"]["sent"]["keepalive"] == before


def test_a_full_mesh_of_all_kinds_agrees(world: World) -> None:
    """Five routers in five ASes, each with each: every one ends with everyone's prefixes and paths of one AS."""
    catbird = world.catbird(65001)
    others = [world.router(kind, 65002 + i) for i, kind in enumerate(("bird", "frr", "gobgp", "openbgpd"))]
    mesh: list[Router] = [catbird, *others]
    for router in mesh:
        peers = [peer_of(other) for other in mesh if other is not router]
        router.start(*peers, announce=plain(router.asn))
    for reader in mesh:
        wanted = [route for writer in mesh if writer is not reader for route in plain(writer.asn)]
        wait_routes(reader, *prefixes(wanted), deadline_s=40)

    def is_direct() -> bool:
        seen = catbird.routes("ipv4")
        return all(seen[f"10.{i}.1.0/24"].as_path == (65000 + i,) for i in range(2, 6))

    until(is_direct, "catbird prefers everybody's own path")
    victim = others[0]
    victim.kill()
    # How fast the other three hunt the dead path out of the mesh is theirs; catbird's own part is at once.
    until(
        lambda: all(
            route.as_path != (65002,) for prefix, route in catbird.routes("ipv4").items() if prefix == "10.2.1.0/24"
        ),
        "catbird drops what the dead router had announced",
        30,
    )
