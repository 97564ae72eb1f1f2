"""TCP-MD5 (RFC 2385), TTL security (RFC 5082), prefix limits (RFC 4486), and who is let in at all."""

from __future__ import annotations

import pytest

from tests.interop.router import (
    FamilyName,
    PeerSpec,
    holds_for,
    until,
    wait_down,
    wait_established,
    wait_no_routes,
    wait_routes,
)
from tests.interop.world import World, establish, peer_of, plain, prefixes, start_pair, wait_both


@pytest.mark.parametrize("over", ["ipv4", "ipv6"])
def test_the_same_password_on_both_sides_gives_a_session(world: World, kind: str, over: FamilyName) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    # GoBGP sends IPv4 with an IPv6 next hop even to a peer that did not offer RFC 8950, which RFC 7606 §7.11 answers
    # with a reset.
    extended = {"extended_next_hop": over == "ipv6"}
    establish(
        catbird, other, over=over, announce_one=plain(65001), announce_two=plain(65002), password="s3cret", **extended
    )
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))
    assert "s3cret" not in catbird.log_text() + catbird.cli("show", "config") + catbird.cli(
        "show", "peers", "-o", "json"
    )


def test_a_wrong_password_gives_none_until_it_is_put_right_in_the_running_speaker(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    start_pair(catbird, other, announce_two=plain(65002), one_has={"password": "wrong"}, two_has={"password": "right"})
    holds_for(
        lambda: not catbird.is_established(other.node.ipv4) and not other.is_established(catbird.node.ipv4),
        "no session with different passwords",
        3,
    )
    catbird.set_password(other.node.ipv4, "right")
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))


def test_a_password_on_one_side_only_gives_no_session(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    start_pair(catbird, other, one_has={"password": "s3cret"})
    holds_for(
        lambda: not catbird.is_established(other.node.ipv4) and not other.is_established(catbird.node.ipv4),
        "no session when one side has no password",
        2.5,
    )


def test_a_password_changed_on_both_sides_brings_the_session_back(world: World, kind: str) -> None:
    """All four reset the session (or wait for a reset) when their own password changes. catbird does not: see below."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_two=plain(65002), password="one", hold_time_s=9)
    wait_routes(catbird, *prefixes(plain(65002)))
    catbird.set_password(other.node.ipv4, "two")
    assert catbird.is_established(other.node.ipv4), "a new password does not by itself end the session"
    other.set_password(catbird.node.ipv4, "two")
    until(lambda: bool(catbird.peer(other.node.ipv4)["flaps"]) or kind == "openbgpd", "the other side reset it", 40)
    if kind == "openbgpd":  # "only take effect when the session is reset" (bgpctl(8))
        other.kill()
        other.start()
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))


def test_two_catbirds_change_their_password_without_losing_the_session(world: World) -> None:
    one, two = world.catbird(65001), world.catbird(65002)
    establish(one, two, announce_two=plain(65002), password="one", hold_time_s=9)
    wait_routes(one, *prefixes(plain(65002)))
    one.set_password(two.node.ipv4, "two")
    two.set_password(one.node.ipv4, "two")
    two.announce(*plain(65002, count=3))
    wait_routes(one, *prefixes(plain(65002, count=3)))
    assert one.peer(two.node.ipv4)["flaps"] == 0
    assert two.peer(one.node.ipv4)["flaps"] == 0
    # The new key is what the connection really uses: a third change on one side only starves it.
    one.set_password(two.node.ipv4, "three")
    wait_down(one, two.node.ipv4, 20)


def test_ttl_security_on_both_sides_gives_a_session(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002), ttl_security=True)
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))


def test_ttl_security_refuses_a_peer_that_sends_a_low_ttl(world: World) -> None:
    """BIRD without it sends TTL 1 to a directly connected eBGP peer."""
    catbird, other = world.catbird(65001), world.bird()
    start_pair(catbird, other, one_has={"ttl_security": True})
    holds_for(lambda: not catbird.is_established(other.node.ipv4), "packets with a low TTL are not accepted", 3)


def test_too_many_prefixes_from_a_peer_end_its_session_with_the_right_word(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    three = [route for route in plain(65002, count=3) if route.family == "ipv4"]
    establish(catbird, other, announce_two=three[:2], one_has={"max_prefixes": 2})
    wait_routes(catbird, *prefixes(three[:2]))
    other.announce(three[2])
    wait_down(catbird, other.node.ipv4)
    wait_no_routes(catbird, *prefixes(three))
    assert "more than 2 ipv4 prefixes" in str(catbird.peer(other.node.ipv4)["last_error"])
    words = {
        "bird": "Maximum number of prefixes reached",
        "frr": "Maximum Number of Prefixes Reached",
        "gobgp": "maximum number of prefixes reached",
        "openbgpd": "max-prefix exceeded",
    }
    until(lambda: words[kind].lower() in other.session(catbird.node.ipv4).text.lower(), f"{kind} was told why", 5)


def test_a_peer_that_had_too_many_prefixes_is_let_in_again_after_a_pause(world: World) -> None:
    catbird, bird = world.catbird(65001), world.bird()
    three = [route for route in plain(65002, count=3) if route.family == "ipv4"]
    limit = "max_prefixes = { ipv4 = { maximum = 2, restart_s = 3.0 } }"
    establish(catbird, bird, announce_two=three[:2], one_has={"more": (limit,)})
    bird.announce(three[2])
    wait_down(catbird, bird.node.ipv4)
    bird.withdraw(three[0].prefix)
    holds_for(lambda: not catbird.is_established(bird.node.ipv4), "the pause is kept", 1.5)
    wait_routes(catbird, three[1].prefix, three[2].prefix)


def test_a_prefix_limit_that_only_warns_keeps_the_session(world: World) -> None:
    catbird, bird = world.catbird(65001), world.bird()
    three = [route for route in plain(65002, count=3) if route.family == "ipv4"]
    limit = 'max_prefixes = { ipv4 = { maximum = 2, action = "warn" } }'
    establish(catbird, bird, announce_two=three, one_has={"more": (limit,)})
    wait_routes(catbird, *prefixes(three))
    until(lambda: "prefix" in catbird.log_text().lower().split("established", 1)[1], "the operator is told", 5)
    assert catbird.peer(bird.node.ipv4)["flaps"] == 0


def test_a_peer_that_refuses_too_many_prefixes_is_understood(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    four = [route for route in plain(65001, count=4) if route.family == "ipv4"]
    start_pair(catbird, other, announce_one=four[:2], two_has={"max_prefixes": 2})
    wait_routes(other, *prefixes(four[:2]))
    catbird.announce(four[2])
    catbird.announce(four[3])  # FRR counts before it adds, so that the fourth is what it minds
    until(
        lambda: "Maximum Number of Prefixes Reached" in str(catbird.peer(other.node.ipv4)["last_error"]),
        "catbird shows the peer's reason",
        20,
    )


def test_a_wrong_as_number_is_refused_and_both_say_so(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    start_pair(catbird, other, one_has={"asn": 65999})
    until(lambda: "Bad Peer AS" in str(catbird.peer(other.node.ipv4)["last_error"]), "catbird says why", 20)
    assert not other.is_established(catbird.node.ipv4)


def test_without_a_policy_an_ebgp_peer_gives_and_gets_nothing(world: World) -> None:
    """RFC 8212; the switch for it is the speaker's `ebgp_requires_policy`."""
    bare, bird = world.catbird(65003), world.bird()
    bare.has_policy = False
    bare.start(peer_of(bird), announce=plain(65003))
    bird.start(peer_of(bare), announce=plain(65002))
    wait_both(bare, bird)
    holds_for(lambda: not bare.routes("ipv4") and not bird.routes("ipv4"), "nothing is exchanged", 1.5)
    bare.speaker_lines = "ebgp_requires_policy = false"
    bare.reload()
    wait_routes(bare, *prefixes(plain(65002)))
    wait_routes(bird, *prefixes(plain(65003)))
    assert bare.peer(bird.node.ipv4)["flaps"] == 0


def test_peers_from_a_range_need_no_configuration_of_their_own(world: World) -> None:
    catbird = world.catbird(65001)
    catbird.ranges = {"10.77.0.0/24": 65002}
    bird, frr = world.bird(), world.frr()
    catbird.start(announce=plain(65001))
    for other in (bird, frr):
        other.start(peer_of(catbird), announce=[plain(65002, count=3)[other.node.number]])
    for other in (bird, frr):
        wait_established(other, catbird.node.ipv4)
        wait_routes(other, *prefixes(plain(65001)))
    states = [peer["state"] for peer in catbird.show("/v1/peers") if peer["dynamic"]]
    assert states.count("Established") == 2
    bird.kill()
    wait_established(frr, catbird.node.ipv4)


def test_a_stranger_is_not_let_in(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    catbird.start(PeerSpec(address="10.77.0.200", asn=65002, passive=True))
    other.start(peer_of(catbird))
    holds_for(lambda: not other.is_established(catbird.node.ipv4), "an unknown address gets no session", 2)
