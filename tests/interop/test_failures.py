"""What goes wrong in a network: killed daemons, cut cables, lost packets, both dialling at once."""

from __future__ import annotations

import signal

import pytest

from tests.interop.lan import Node
from tests.interop.router import (
    Router,
    holds_for,
    until,
    wait_down,
    wait_established,
    wait_no_routes,
    wait_routes,
)
from tests.interop.world import World, establish, plain, prefixes, start_pair, wait_both


def connections(node: Node) -> int:
    """TCP connections of BGP that this node holds open."""
    return len(node.run("ss", "-Htn", "state", "established", "( sport = :179 or dport = :179 )").splitlines())


def test_routes_of_a_killed_peer_go_and_come_back_with_it(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002))
    wait_routes(catbird, *prefixes(plain(65002)))
    other.kill()
    wait_down(catbird, other.node.ipv4)
    wait_no_routes(catbird, *prefixes(plain(65002)))
    other.start()
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))


def test_routes_of_a_killed_catbird_go_and_come_back_with_it(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002))
    wait_routes(other, *prefixes(plain(65001)))
    catbird.kill()
    wait_no_routes(other, *prefixes(plain(65001)))
    catbird.start()
    wait_both(catbird, other)
    wait_routes(other, *prefixes(plain(65001)))
    wait_routes(catbird, *prefixes(plain(65002)))


def test_sigterm_says_goodbye_and_exits_with_0(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001))
    wait_routes(other, *prefixes(plain(65001)))
    process = catbird.processes[0]
    catbird.stop()
    assert process.returncode == 0
    # Cease was received and shows in the peer's own words: nobody had to wait for a hold timer.
    wait_no_routes(other, *prefixes(plain(65001)), deadline_s=5)
    text = other.session(catbird.node.ipv4).text.lower()
    assert "cease" in text or "administrative" in text or "shutdown" in text or "de-configured" in text


def test_hold_timer_ends_a_session_whose_packets_are_lost_and_it_recovers(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002), hold_time_s=6)
    wait_routes(catbird, *prefixes(plain(65002)))
    assert catbird.peer(other.node.ipv4)["hold_time_s"] == 6
    other.node.drop_bgp()
    holds_for(lambda: catbird.is_established(other.node.ipv4), "no earlier than the hold time", 1.5)
    wait_down(catbird, other.node.ipv4, 12)
    wait_down(other, catbird.node.ipv4, 12)
    wait_no_routes(catbird, *prefixes(plain(65002)))
    assert "hold timer expired" in str(catbird.peer(other.node.ipv4)["last_error"]).lower()
    other.node.pass_bgp()
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))


def test_keepalives_hold_an_idle_session_for_longer_than_its_hold_time(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, hold_time_s=3)
    holds_for(
        lambda: catbird.is_established(other.node.ipv4) and other.is_established(catbird.node.ipv4),
        "the session stands on keepalives alone",
        7,
    )
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def test_a_session_survives_a_short_cut_of_the_cable(world: World, kind: str) -> None:
    """The far end of the cable is pulled and plugged: nothing but silence for less than the hold time."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_two=plain(65002))
    wait_routes(catbird, *prefixes(plain(65002)))
    for _ in range(3):
        other.node.set_carrier(up=False)
        holds_for(lambda: True, "the cable is out", 0.3)
        other.node.set_carrier(up=True)
    if kind in ("frr", "bird"):  # both may end a session of their own as soon as its interface goes down
        wait_both(catbird, other)
        wait_routes(catbird, *prefixes(plain(65002)))
        return
    other.announce(plain(65002, count=2)[2])
    wait_routes(catbird, "10.2.2.0/24")
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def test_catbirds_own_link_goes_down_and_comes_back(world: World, kind: str) -> None:
    """With the kernel: Linux drops the routes over the link itself, and they have to be written again."""
    catbird = world.catbird(65001, kernel="program = true")
    other = world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002), hold_time_s=9)
    wait_routes(catbird, *prefixes(plain(65002)))
    until(lambda: has_fib_routes(catbird, *prefixes(plain(65002))), "catbird's kernel has the routes")
    catbird.node.set_link(up=False)
    holds_for(lambda: True, "the link is down", 1)
    catbird.node.set_link(up=True)
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))
    until(lambda: has_fib_routes(catbird, *prefixes(plain(65002))), "they are back in catbird's kernel")
    wait_routes(other, *prefixes(plain(65001)))


def has_fib_routes(router: Router, *wanted: str) -> bool:
    """They stand in the namespace's routing table, IPv4 and IPv6."""
    table = router.node.ip("route", "show") + router.node.ip("-6", "route", "show")
    return all(f"\n{prefix} " in f"\n{table}" for prefix in wanted)


def test_when_both_dial_at_once_one_connection_is_left(world: World, kind: str) -> None:
    """RFC 4271 section 6.8. Both sides' first SYNs wait for their answers and get them together."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    hold_answers(other.node)
    start_pair(catbird, other, announce_one=plain(65001), announce_two=plain(65002))
    until(lambda: min(syns(catbird.node), syns(other.node)) > 0, "both are dialling", 15)
    other.node.run("nft", "delete", "table", "inet", "hold")
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))
    holds_for(
        lambda: catbird.is_established(other.node.ipv4) and other.is_established(catbird.node.ipv4),
        "one session is left and stands",
        2,
    )
    assert connections(catbird.node) == 1
    assert catbird.peer(other.node.ipv4)["flaps"] == 0


def hold_answers(node: Node) -> None:
    """Lose every SYN-ACK of BGP, both ways: connections start and stay half-open until the rule goes."""
    rule = "tcp flags & (syn | ack) == (syn | ack) tcp sport 179 drop"
    chains = "".join(
        f" chain {hook} {{ type filter hook {hook} priority 0;\n  {rule}\n }}\n" for hook in ("input", "output")
    )
    node.run("nft", "-f", "-", stdin=f"table inet hold {{\n{chains}}}\n")


def syns(node: Node) -> int:
    return len(node.run("ss", "-Htn", "state", "syn-sent", "( dport = :179 )").splitlines())


def test_a_session_reset_by_hand_comes_back_and_counts_as_a_flap(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002))
    wait_routes(other, *prefixes(plain(65001)))
    catbird.cli("peer", catbird.peers[other.node.ipv4].name, "reset")
    until(lambda: bool(catbird.peer(other.node.ipv4)["flaps"] == 1), "the session went down")
    wait_both(catbird, other)
    wait_routes(other, *prefixes(plain(65001)))
    wait_routes(catbird, *prefixes(plain(65002)))


@pytest.mark.parametrize("passive_side", ["catbird", "other"])
def test_either_side_may_be_passive(world: World, kind: str, passive_side: str) -> None:
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    passive = {"passive": True}
    start_pair(
        catbird,
        other,
        announce_one=plain(65001),
        one_has=passive if passive_side == "catbird" else {},
        two_has=passive if passive_side == "other" else {},
    )
    wait_established(catbird, other.node.ipv4)
    wait_routes(other, *prefixes(plain(65001)))


def test_a_frozen_catbird_recovers_when_it_thaws(world: World, kind: str) -> None:
    """SIGSTOP for longer than the hold time: the machine was suspended, or out of processor time."""
    catbird, other = world.catbird(65001), world.router(kind, 65002)
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002), hold_time_s=3)
    wait_routes(other, *prefixes(plain(65001)))
    catbird.processes[0].send_signal(signal.SIGSTOP)
    try:
        wait_down(other, catbird.node.ipv4, 10)
    finally:
        catbird.processes[0].send_signal(signal.SIGCONT)
    wait_both(catbird, other)
    wait_routes(catbird, *prefixes(plain(65002)))
    wait_routes(other, *prefixes(plain(65001)))
