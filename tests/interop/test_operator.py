"""What operators do: shut down with a word to the other side, drain, change configuration, talk to old routers."""

from __future__ import annotations

import pytest

from tests.interop.router import (
    Announcement,
    holds_for,
    until,
    wait_down,
    wait_established,
    wait_no_routes,
    wait_routes,
)
from tests.interop.world import World, establish, peer_of, plain, prefixes, wait_both

REASON = "Wartung um 12:00, Ticket 4711"


def test_the_other_side_reads_catbirds_reason_for_a_shutdown(world: World, kind: str) -> None:
    """RFC 9003."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001))
    wait_routes(other, *prefixes(plain(65001)))
    name = catbird.peers[other.node.ipv4].name
    catbird.cli("peer", name, "shutdown", REASON)
    wait_down(other, catbird.node.ipv4)
    until(lambda: REASON in other.session(catbird.node.ipv4).text, f"{kind} shows the reason", 5)
    wait_no_routes(other, *prefixes(plain(65001)))
    holds_for(lambda: not other.is_established(catbird.node.ipv4), "it stays down", 2)
    assert catbird.peer(other.node.ipv4)["shutdown"] == REASON
    catbird.cli("peer", name, "enable")
    wait_both(catbird, other)
    wait_routes(other, *prefixes(plain(65001)))


def test_catbird_shows_the_other_sides_reason_for_a_shutdown(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other)
    other.shut_down(catbird.node.ipv4, REASON)
    wait_down(catbird, other.node.ipv4)
    # Later failures to connect, each in its own way, do not hide it.
    assert REASON in str(catbird.peer(other.node.ipv4)["last_down"])
    assert REASON in catbird.cli("show", "peer", catbird.peers[other.node.ipv4].name)


def test_graceful_shutdown_marks_what_is_announced(world: World, kind: str) -> None:
    """RFC 8326: 65535:0 on every route, while the session stands and the routes stay usable."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001))
    assert wait_routes(other, "10.1.1.0/24")["10.1.1.0/24"].communities == set()
    catbird.graceful_shutdown = True
    catbird.reload()

    def is_marked() -> bool:
        return bool({"65535:0", "gracefulShutdown", "GRACEFUL_SHUTDOWN"} & seen_communities())

    def seen_communities() -> frozenset[str]:
        return other.routes("ipv4")["10.1.1.0/24"].communities

    until(is_marked, f"{kind} sees GRACEFUL_SHUTDOWN")
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def test_routes_marked_for_graceful_shutdown_become_the_last_choice(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    # FRR 8.4 knows the word and the number alike; the others the number.
    establish(catbird, other, announce_two=[Announcement(prefix="10.2.0.0/16", communities=("65535:0",))])
    seen = wait_routes(catbird, "10.2.0.0/16")["10.2.0.0/16"]
    assert "65535:0" in seen.communities or "graceful-shutdown" in seen.communities
    assert seen.local_pref == 0


def test_a_new_peer_touches_no_session_that_stands(world: World) -> None:
    catbird, bird, frr = world.catbird(65001), world.bird(65002), world.frr(65003)
    establish(catbird, bird, announce_two=plain(65002))
    wait_routes(catbird, *prefixes(plain(65002)))
    frr.start(peer_of(catbird))
    catbird.peers[frr.node.ipv4] = peer_of(frr)
    catbird.reload()
    wait_both(catbird, frr)
    wait_routes(frr, *prefixes(plain(65002)))
    assert catbird.peer(bird.node.ipv4)["flaps"] == 0
    del catbird.peers[frr.node.ipv4]
    catbird.reload()
    wait_down(frr, catbird.node.ipv4)
    assert catbird.peer(bird.node.ipv4)["flaps"] == 0


def test_a_changed_export_policy_reaches_the_peer_without_a_reset(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001))
    wait_routes(other, *prefixes(plain(65001)))
    catbird.announce(Announcement(prefix="10.1.1.0/24", communities=("65001:42",), med=9))
    until(lambda: other.routes("ipv4")["10.1.1.0/24"].communities == {"65001:42"}, f"{kind} sees the new community")
    assert other.routes("ipv4")["10.1.1.0/24"].med == 9
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def test_a_changed_import_policy_is_applied_to_what_came_before_without_a_reset(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_two=plain(65002, count=2))
    wait_routes(catbird, *prefixes(plain(65002, count=2)))
    catbird.import_rules = '{ prefix = "10.2.1.0/24", action = "reject" }, { prefix = "10.2.2.0/24", action = "accept", set = { local_pref = 300 } }'
    catbird.reload()
    wait_no_routes(catbird, "10.2.1.0/24")
    until(lambda: catbird.routes("ipv4")["10.2.2.0/24"].local_pref == 300, "the other rule sets LOCAL_PREF")
    assert "10.2.1.0/24" in catbird.cli("show", "routes", "--peer", catbird.peers[other.node.ipv4].name, "--received")
    catbird.import_rules = ""
    catbird.reload()
    wait_routes(catbird, "10.2.1.0/24")
    assert catbird.routes("ipv4")["10.2.2.0/24"].local_pref in (None, 100)
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def test_sessions_may_use_another_port(world: World) -> None:
    catbird, frr = world.catbird(65001, speaker_lines="port = 1790"), world.frr(65002)
    catbird.start(peer_of(frr, passive=True), announce=plain(65001))
    frr.start(peer_of(catbird, more=(f"neighbor {catbird.node.ipv4} port 1790",)))
    wait_both(catbird, frr)
    wait_routes(frr, *prefixes(plain(65001)))


@pytest.mark.parametrize(("kind", "asn"), [("bird", 65001), ("openbgpd", 65001), ("openbgpd", 4200000001)])
def test_a_2_octet_speaker_gets_as_trans_and_the_real_path_beside_it(world: World, kind: str, asn: int) -> None:
    """RFC 6793 section 4.2.2: AS_PATH with 23456 and AS4_PATH, which the other side puts together.

    BIRD 2.0 without 4-octet numbers refuses a neighbour that has one, so that catbird's own number is small there.
    """
    catbird, other = world.catbird(asn), world.router(kind, 65002)
    ours = Announcement(prefix="10.1.0.0/16", prepend=(4200000009, 65010))
    theirs = Announcement(prefix="10.2.0.0/16", prepend=(65002,))
    establish(
        catbird,
        other,
        announce_one=[ours, Announcement(prefix="2001:db8:1::/48")],
        announce_two=[theirs],
        two_has={"four_octet_asn": False},
    )
    assert wait_routes(other, ours.prefix)[ours.prefix].as_path == (asn, 4200000009, 65010)
    assert wait_routes(other, "2001:db8:1::/48")["2001:db8:1::/48"].as_path == (asn,)
    assert wait_routes(catbird, theirs.prefix)[theirs.prefix].as_path == (65002, 65002)


def test_the_real_path_is_put_together_from_a_2_octet_speakers_as4_path(world: World) -> None:
    """RFC 6793 section 4.2.3. BIRD has the 4-octet numbers from its own configuration and must send both attributes."""
    catbird, bird = world.catbird(65001), world.bird(65002)
    theirs = Announcement(prefix="10.2.0.0/16", prepend=(4200000009, 65011, 4200000010))
    establish(catbird, bird, announce_two=[theirs], two_has={"four_octet_asn": False})
    seen = wait_routes(catbird, theirs.prefix)[theirs.prefix]
    assert seen.as_path == (65002, 4200000009, 65011, 4200000010)


def test_a_speaker_without_any_capability_exchanges_ipv4(world: World) -> None:
    """FRR's `dont-capability-negotiate`: an OPEN as of 1995, without optional parameters (RFC 5492 section 3)."""
    catbird, frr = world.catbird(65001), world.frr(65002)
    establish(catbird, frr, announce_one=plain(65001), announce_two=plain(65002), two_has={"four_octet_asn": False})
    wait_routes(frr, "10.1.1.0/24")
    wait_routes(catbird, "10.2.1.0/24")
    assert not catbird.routes("ipv6")


def test_local_asn_shows_the_peer_another_number(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(
        catbird,
        other,
        announce_one=plain(65001),
        one_has={"local_asn": 65055},
        two_has={"asn": 65055},
    )
    assert wait_routes(other, "10.1.1.0/24")["10.1.1.0/24"].as_path[0] == 65055


def test_catbird_says_in_tables_what_stands(world: World) -> None:
    """A run through the commands of the day, against BIRD."""
    catbird, bird = world.catbird(65001), world.bird()
    establish(catbird, bird, announce_one=plain(65001), announce_two=plain(65002))
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_established(bird, catbird.node.ipv4)
    name = catbird.peers[bird.node.ipv4].name
    assert "Established" in catbird.cli("show", "peers")
    assert bird.node.ipv4 in catbird.cli("show", "peer", name)
    assert "10.2.1.0/24" in catbird.cli("show", "routes", "--peer", name, "--received")
    sent = catbird.cli("show", "routes", "--peer", name, "--sent")
    assert "10.1.1.0/24" in sent
    assert "10.2.1.0/24" not in sent, "nothing is sent back to where it came from"
    assert "10.2.1.0/24" in catbird.cli("show", "routes", "10.2.1.7")
