"""Speakers talking to each other without sockets: what an operator of two or three of them would notice."""

from __future__ import annotations

from typing import Any

import pytest

from bgp.families import IPV4, Address, Family, Nlri, parse_prefix
from bgp.ports import FibRoute, LearnedRoute, NextHop, Resolution
from bgp.rib.adj_rib_in import AdjRibIn
from bgp.rib.loc_rib import LocRib
from tests.bgp.world import Node, World, config_of, originate, peer

EBGP = {"import": "accept", "export": "accept"}


def speaker(asn: int, address: str) -> str:
    return f'[speaker]\nasn = {asn}\nrouter_id = "{address}"\n'


@pytest.fixture
def world() -> World:
    return World()


def pair(world: World, left: str = "", right: str = "", **options: Any) -> tuple[Node, Node]:
    """1 (AS 64512) and 2 (AS 64513), with these additions to their files."""
    a = world.node("10.0.0.1", speaker(64512, "10.0.0.1") + left + peer(2, asn=64513, **(EBGP | options)))
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + right + peer(1, asn=64512, **(EBGP | options)))
    return a, b


def test_an_originated_route_crosses_an_external_session(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26", "fd00:1::/64"))
    world.start()
    assert a.state("p2") == b.state("p1") == "Established"
    route = b.routes()["10.1.0.0/26"]
    assert (route["as_path"], route["next_hop"], route["local_pref"]) == ("64512", "10.0.0.1", None)
    assert b.routes()["fd00:1::/64"]["next_hop"] == "fd00::1"
    told, heard = a.routes("sent", peer="p2"), b.routes("received", peer="p1")
    for prefix in ("10.1.0.0/26", "fd00:1::/64"):
        assert {key: told[prefix][key] for key in ("next_hop", "as_path", "origin", "communities")} == {
            key: heard[prefix][key] for key in ("next_hop", "as_path", "origin", "communities")
        }
    assert a.speaker.is_converged
    assert b.speaker.is_converged


def test_an_external_peer_without_policy_gets_and_gives_nothing(world: World) -> None:
    a = world.node("10.0.0.1", speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513))
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + originate("10.2.0.0/26") + peer(1, **EBGP))
    world.start()
    assert "10.1.0.0/26" not in b.routes()
    assert "10.2.0.0/26" not in a.routes()
    assert "RFC 8212" in a.routes("received", peer="p2")["10.2.0.0/26"]["reason"]


def test_internal_routes_are_not_passed_on_to_internal_peers(world: World) -> None:
    for number in (1, 2, 3):
        others = "".join(peer(other) for other in (1, 2, 3) if other != number and {number, other} != {1, 3})
        world.node(f"10.0.0.{number}", originate(f"10.{number}.0.0/26") + others)
    world.start()
    nodes = list(world.nodes.values())
    assert set(nodes[1].routes()) == {"10.1.0.0/26", "10.2.0.0/26", "10.3.0.0/26"}
    assert set(nodes[0].routes()) == {"10.1.0.0/26", "10.2.0.0/26"}
    assert nodes[0].routes()["10.2.0.0/26"]["local_pref"] == 100


def test_a_withdrawn_origination_is_gone_everywhere_without_a_reset(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26", "10.1.1.0/26"))
    world.start()
    text = speaker(64512, "10.0.0.1") + originate("10.1.1.0/26") + peer(2, asn=64513, **EBGP)
    a.speaker.reconfigure(config_of("10.0.0.1", text), world.now)
    world.settle()
    assert set(b.routes()) == {"10.1.1.0/26"}
    assert b.speaker.peers_view(world.now)[0]["flaps"] == 0


@pytest.mark.parametrize("community", ["no-export", "no-advertise"])
def test_well_known_communities_are_obeyed(world: World, community: str) -> None:
    _, b = pair(world, originate("10.1.0.0/26", communities=f'["{community}"]'))
    world.start()
    assert b.routes() == {}


def test_graceful_shutdown_lowers_the_preference(world: World) -> None:
    _, b = pair(world, originate("10.1.0.0/26", communities='["graceful-shutdown"]'))
    world.start()
    assert b.routes()["10.1.0.0/26"]["local_pref"] == 0


def test_an_as_loop_is_refused_and_can_be_allowed_live(world: World) -> None:
    config = '[{action="accept", set={prepend=[64513]}}]'
    a, b = pair(world, originate("10.1.0.0/26"), export="accept")
    a.speaker.reconfigure(
        config_of(
            "10.0.0.1",
            speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **(EBGP | {"export": config})),
        ),
        world.now,
    )
    world.start()
    assert b.routes() == {}
    assert "own AS 64513" in b.routes("received", peer="p1")["10.1.0.0/26"]["reason"]
    text = speaker(64513, "10.0.0.2") + peer(1, allowed_own_asn=1, **EBGP)
    b.speaker.reconfigure(config_of("10.0.0.2", text), world.now)
    world.settle()
    assert b.routes()["10.1.0.0/26"]["as_path"] == "64512 64513"


def test_policies_change_live_in_both_directions_and_never_reset(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26", "10.9.0.0/26"))
    world.start()
    some = '[{prefix={prefix="10.1.0.0/16", ge=16, le=32}, action="accept", set={med=7}}]'
    text = speaker(64512, "10.0.0.1") + originate("10.1.0.0/26", "10.9.0.0/26")
    a.speaker.reconfigure(config_of("10.0.0.1", text + peer(2, asn=64513, **(EBGP | {"export": some}))), world.now)
    world.settle()
    assert {prefix: route["med"] for prefix, route in b.routes().items()} == {"10.1.0.0/26": 7}
    b_text = speaker(64513, "10.0.0.2") + peer(1, **(EBGP | {"import": '[{action="accept", set={local_pref=300}}]'}))
    b.speaker.reconfigure(config_of("10.0.0.2", b_text), world.now)
    a.speaker.reconfigure(config_of("10.0.0.1", text + peer(2, asn=64513, **EBGP)), world.now)
    world.settle()
    assert {prefix: (r["med"], r["local_pref"]) for prefix, r in b.routes().items()} == {
        "10.1.0.0/26": (None, 300),
        "10.9.0.0/26": (None, 300),
    }
    b.speaker.reconfigure(
        config_of("10.0.0.2", speaker(64513, "10.0.0.2") + peer(1, **(EBGP | {"import": "reject"}))), world.now
    )
    world.settle()
    assert b.routes() == {}
    assert b.speaker.peers_view(world.now)[0]["flaps"] == a.speaker.peers_view(world.now)[0]["flaps"] == 0


def three(world: World) -> tuple[Node, Node, Node]:
    """1 and 3 originate the same prefix; 2 hears both and tells both."""
    a = world.node("10.0.0.1", speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP))
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + peer(1, asn=64512, **EBGP) + peer(3, asn=64514, **EBGP))
    prepend = {"export": '[{action="accept", set={prepend=[64514]}}]'}
    c = world.node(
        "10.0.0.3", speaker(64514, "10.0.0.3") + originate("10.1.0.0/26") + peer(2, asn=64513, **(EBGP | prepend))
    )
    return a, b, c


def test_competition_is_decided_and_explained_and_the_winner_is_told_nothing_back(world: World) -> None:
    a, b, c = three(world)
    world.start()
    (view,) = [v for v in b.speaker.routes_view(prefix="10.1.0.0/26") if v]
    assert [path["peer"] for path in view["paths"]] == ["p1", "p3"]
    assert "step 4a, shortest AS path: 2 against 1" in view["paths"][1]["reason"]
    assert a.routes("received", peer="p2") == {}
    assert c.routes("received", peer="p2")["10.1.0.0/26"]["as_path"] == "64513 64512"
    a.speaker.reconfigure(config_of("10.0.0.1", speaker(64512, "10.0.0.1") + peer(2, asn=64513, **EBGP)), world.now)
    world.settle()
    assert a.routes()["10.1.0.0/26"]["as_path"] == "64513 64514 64514"
    assert c.routes("received", peer="p2") == {}, "the new winner still holds what we told it before"


def test_a_killed_peer_keeps_its_routes_until_it_is_back_or_its_time_is_over(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26", "10.1.1.0/26"))
    world.start()
    a.kill()
    world.run(1.0)
    assert b.routes()["10.1.0.0/26"]["stale"]
    world.node("10.0.0.1", speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP))
    world.nodes[bytes([10, 0, 0, 1])].speaker.start(world.now)
    world.run(20.0)
    assert {prefix: route["stale"] for prefix, route in b.routes().items()} == {"10.1.0.0/26": False}
    world.nodes[bytes([10, 0, 0, 1])].kill()
    world.run(119.0)
    assert b.routes()["10.1.0.0/26"]["stale"]
    world.run(2.0)
    assert b.routes() == {}


def test_an_administrative_shutdown_takes_the_routes_at_once_and_tells_why(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26"))
    world.start()
    a.speaker.shutdown_peer("p2", "moving the rack, back at 10", world.now)
    world.settle()
    assert b.routes() == {}
    assert "moving the rack, back at 10" in b.speaker.peers_view(world.now)[0]["last_error"]
    a.speaker.enable_peer("p2", world.now)
    world.run(30.0)
    assert "10.1.0.0/26" in b.routes()


def test_too_many_prefixes_end_the_session_with_the_limit_in_the_notification(world: World) -> None:
    _, b = pair(
        world, originate("10.1.0.0/26", "10.1.1.0/26", "10.1.2.0/26"), max_prefixes="{ipv4={maximum=2, restart_s=30}}"
    )
    world.start()
    assert b.routes() == {}
    assert "more than 2 ipv4 prefixes" in b.speaker.peers_view(world.now)[0]["last_error"]
    assert b.told.named("prefix_limit_exceeded")


RANGE = '[[peer]]\nname="nodes"\nrange="10.0.0.0/24"\nasn=64512\n'


def hub_and_leaf(world: World) -> tuple[Node, Node]:
    hub = world.node("10.0.0.1", originate("10.1.0.0/26") + RANGE)
    leaf = world.node("10.0.0.7", originate("10.7.0.0/26") + peer(1))
    world.start()
    return hub, leaf


def test_a_dynamic_peer_is_accepted_from_its_range_and_gone_when_it_leaves(world: World) -> None:
    hub, leaf = hub_and_leaf(world)
    assert set(hub.routes()) == {"10.1.0.0/26", "10.7.0.0/26"}
    assert [view["name"] for view in hub.speaker.peers_view(world.now)] == ["nodes-10.0.0.7"]
    leaf.speaker.shutdown_peer("p1", "rack 7 moves", world.now)
    world.run(2.0)
    assert set(hub.routes()) == {"10.1.0.0/26"}
    assert hub.speaker.summary(world.now)["peers"] == 0
    view = hub.speaker.peer_view("nodes-10.0.0.7", world.now)
    assert view is not None
    assert (view["state"], view["flaps"], view["prefixes"]["ipv4"]["received"]) == ("Gone", 1, 0)
    assert "rack 7 moves" in view["last_down"]
    assert hub.routes(which="received", peer="nodes-10.0.0.7") == {}


def test_a_dynamic_peer_that_comes_back_is_known(world: World) -> None:
    hub, leaf = hub_and_leaf(world)
    hub.speaker.neighbours["nodes-10.0.0.7"].peer.malformed(b"\xff", "bad marker", "session reset", world.now)
    leaf.speaker.shutdown_peer("p1", "rack 7 moves", world.now)
    world.run(2.0)
    leaf.speaker.enable_peer("p1", world.now)
    world.run(10.0)
    view = hub.speaker.peer_view("nodes-10.0.0.7", world.now)
    assert view is not None
    assert (view["state"], view["flaps"], len(view["malformed_messages"])) == ("Established", 1, 1)
    assert "rack 7 moves" in view["last_down"]
    assert len(hub.speaker.peers_view(world.now)) == 1
    assert set(hub.routes()) == {"10.1.0.0/26", "10.7.0.0/26"}


def test_strangers_that_come_and_go_cost_bounded_memory_and_hide_nobody(world: World) -> None:
    hub, leaf = hub_and_leaf(world)
    leaf.speaker.shutdown_peer("p1", "rack 7 moves", world.now)
    world.run(2.0)
    for last in range(20, 220):
        session = hub.speaker.accept(hub.address, bytes([10, 0, 0, last]), world.now)
        assert session is not None
        hub.speaker.accepted(session)
        hub.speaker.connection_lost(session, "reset", world.now)
        world.run(0.25)
    views = hub.speaker.peers_view(world.now)
    assert len(views) == 64
    assert [views[0]["name"], views[-1]["name"]] == ["nodes-10.0.0.219", "nodes-10.0.0.7"]
    assert hub.speaker.neighbours == {}


def test_a_dynamic_peer_that_is_shut_down_stays_out_until_enabled(world: World) -> None:
    hub, _ = hub_and_leaf(world)
    hub.speaker.shutdown_peer("nodes-10.0.0.7", "not now", world.now)
    world.run(60.0)
    view = hub.speaker.peer_view("nodes-10.0.0.7", world.now)
    assert view is not None
    assert (view["state"], view["shutdown"]) == ("Gone", "not now")
    hub.speaker.enable_peer("nodes-10.0.0.7", world.now)
    world.run(60.0)
    assert hub.state("nodes-10.0.0.7") == "Established"


def test_dynamic_peers_that_are_gone_go_by_the_name_of_their_range_and_with_it(world: World) -> None:
    hub, leaf = hub_and_leaf(world)
    leaf.speaker.shutdown_peer("p1", "", world.now)
    world.run(2.0)
    hub.speaker.reconfigure(config_of("10.0.0.1", RANGE.replace("nodes", "leaves")), world.now)
    assert [view["name"] for view in hub.speaker.peers_view(world.now)] == ["leaves-10.0.0.7"]
    hub.speaker.reconfigure(config_of("10.0.0.1", ""), world.now)
    assert hub.speaker.peers_view(world.now) == []


def test_a_stranger_is_not_accepted(world: World) -> None:
    a, _ = pair(world)
    assert a.speaker.accept(b"\x0a\0\0\1", b"\x0a\0\0\x63", world.now) is None


class Kernel:
    """A Fib and NextHopTracker that remembers what it was asked."""

    def __init__(self) -> None:
        self.routes: dict[tuple[Family, Nlri], FibRoute] = {}
        self.unreachable: set[Address] = set()
        self.converged_calls = 0

    def apply(self, family: Family, changes: Any) -> None:
        for nlri, route in changes.items():
            if route is None:
                self.routes.pop((family, nlri), None)
            else:
                self.routes[family, nlri] = route

    def converged(self) -> None:
        self.converged_calls += 1

    def track(self, address: Address) -> Resolution:
        if address in self.unreachable:
            return Resolution(reachable=False)
        return Resolution(reachable=True, metric=1, hops=(NextHop(address, 2),), interface="eth0")

    def forget(self, address: Address) -> None: ...


KERNEL = "[kernel]\nprogram = true\n"
PREFIX = (IPV4, parse_prefix("10.1.0.0/26")[1])


def test_learned_routes_are_programmed_and_follow_their_next_hop(world: World) -> None:
    kernel = Kernel()
    world.node("10.0.0.1", speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP))
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + KERNEL + peer(1, **EBGP), fib=kernel, next_hops=kernel)
    world.start()
    assert kernel.routes[PREFIX].next_hops == (NextHop(b"\x0a\0\0\1", 2),)
    assert kernel.converged_calls == 1
    b.speaker.next_hops_changed({b"\x0a\0\0\1": Resolution(reachable=False)})
    world.settle()
    assert PREFIX not in kernel.routes
    assert b.routes("all")["10.1.0.0/26"]["state"] == "unreachable"
    b.speaker.next_hops_changed({b"\x0a\0\0\1": kernel.track(b"\x0a\0\0\1")})
    world.settle()
    assert PREFIX in kernel.routes


def by_way_out(world: World, more: str = "", interface: str = "eth0") -> tuple[Node, Node, Kernel]:
    """1 announces a route to 2, which takes it only while packets for it leave by this interface."""
    kernel = Kernel()
    policy = {"import": f'[{{interface="{interface}", action="accept"{more}}}]'}
    a = world.node(
        "10.0.0.1", speaker(64512, "10.0.0.1") + originate("10.1.0.0/26", "10.1.1.0/26") + peer(2, asn=64513, **EBGP)
    )
    text = speaker(64513, "10.0.0.2") + KERNEL + peer(1, **(EBGP | policy)) + peer(3, asn=64514, **EBGP)
    b = world.node("10.0.0.2", text, fib=kernel, next_hops=kernel)
    world.node("10.0.0.3", speaker(64514, "10.0.0.3") + peer(2, asn=64513, **EBGP))
    world.start()
    return a, b, kernel


def move(node: Node, interface: str) -> None:
    """1, as a next hop, is reached by this interface now."""
    hop = b"\x0a\0\0\1"
    node.speaker.next_hops_changed({hop: Resolution(reachable=True, hops=(NextHop(hop, 3),), interface=interface)})
    node.world.settle()


@pytest.mark.parametrize("rule", ["", ', set={next_hop="10.0.0.77"}', ", set={local_pref=300}"])
def test_a_next_hop_that_moves_to_another_interface_is_judged_again(world: World, rule: str) -> None:
    _, b, kernel = by_way_out(world, rule)
    both = {"10.1.0.0/26", "10.1.1.0/26"}
    assert set(b.routes()) == both
    move(b, "eth1")
    assert b.routes() == {}
    assert PREFIX not in kernel.routes
    assert set(b.routes("received", peer="p1")) == both
    move(b, "eth0")
    assert set(b.routes()) == set(world.nodes[b"\x0a\0\0\3"].routes()) == both
    view = b.speaker.peers_view(world.now)[0]
    assert view["flaps"] == view["messages"]["sent"]["refresh"] == 0


def test_a_route_announced_once_more_is_judged_by_where_it_leaves_now(world: World) -> None:
    """Its attributes are known, and what import made of them then."""
    a, b, _ = by_way_out(world)
    again, gone = originate("10.1.0.0/26"), speaker(64512, "10.0.0.1") + peer(2, asn=64513, **EBGP)
    a.speaker.reconfigure(config_of("10.0.0.1", gone), world.now)
    world.settle()
    move(b, "eth1")
    a.speaker.reconfigure(config_of("10.0.0.1", gone + again), world.now)
    world.settle()
    assert b.routes() == {}
    assert b.routes("received", peer="p1")["10.1.0.0/26"]["state"] == "rejected"


def test_a_move_that_changes_no_verdict_is_told_to_nobody(world: World) -> None:
    _, b, kernel = by_way_out(world, '}, {action="accept"')
    view = b.speaker.peer_view("p3", world.now)
    assert view is not None
    told = view["messages"]["sent"]["update"]
    move(b, "eth1")
    assert b.speaker.peer_view("p3", world.now)["messages"]["sent"]["update"] == told  # type: ignore[index]
    assert kernel.routes[PREFIX].next_hops == (NextHop(b"\x0a\0\0\1", 3),)


def test_a_refused_route_keeps_its_next_hop_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, b, _ = by_way_out(world)
    move(b, "eth1")
    monkeypatch.setattr(b.speaker._hops, "_limit", 0)
    b.speaker._hops.track(b"\x0a\0\0\x63")
    b.speaker.handle_timer(world.now)
    move(b, "eth0")
    assert set(b.routes()) == {"10.1.0.0/26", "10.1.1.0/26"}


def test_policies_that_do_not_ask_for_the_interface_are_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel()
    world.node("10.0.0.1", speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP))
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + KERNEL + peer(1, **EBGP), fib=kernel, next_hops=kernel)
    world.start()
    monkeypatch.delattr(LocRib, "where")
    monkeypatch.delattr(AdjRibIn, "sort")
    move(b, "eth1")
    assert set(b.routes()) == {"10.1.0.0/26"}


def test_equal_paths_share_the_load_up_to_the_limit(world: World) -> None:
    kernel = Kernel()
    text = '[speaker]\nasn = 64513\nrouter_id = "10.0.0.9"\nmultipath = 2\n' + KERNEL
    for number in (1, 2, 3):
        world.node(
            f"10.0.0.{number}",
            speaker(64500 + number, f"10.0.0.{number}") + originate("10.1.0.0/26") + peer(9, asn=64513, **EBGP),
        )
        text += peer(number, asn=64500 + number, **EBGP)
    node = world.node("10.0.0.9", text, fib=kernel, next_hops=kernel)
    world.start()
    assert len(kernel.routes[PREFIX].next_hops) == 2
    node.speaker.shutdown_peer("p1", "", world.now)
    world.settle()
    assert {hop.address[3] for hop in kernel.routes[PREFIX].next_hops} == {2, 3}


def test_what_the_kernel_has_is_announced_and_withdrawn(world: World) -> None:
    a, b = pair(world)
    world.start()
    a.speaker.fib_changed(IPV4, [(PREFIX[1], LearnedRoute(interface="cali1"))], [])
    world.settle()
    assert b.routes()["10.1.0.0/26"]["next_hop"] == "10.0.0.1"
    a.speaker.fib_changed(IPV4, [], [PREFIX[1]])
    world.settle()
    assert b.routes() == {}


def test_a_blackhole_is_programmed_for_an_originated_aggregate(world: World) -> None:
    kernel = Kernel()
    world.node("10.0.0.1", KERNEL + originate("10.1.0.0/26", blackhole=True) + peer(2), fib=kernel, next_hops=kernel)
    world.start()
    assert kernel.routes[PREFIX] == FibRoute(next_hops=())


def test_a_refresh_brings_the_routes_once_more_and_changes_nothing(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26"))
    world.start()
    before = b.speaker.peers_view(world.now)[0]["messages"]["received"]["update"]
    b.speaker.refresh_peer("p1", "in", world.now)
    world.settle()
    assert b.speaker.peers_view(world.now)[0]["messages"]["received"]["update"] > before
    assert set(b.routes()) == {"10.1.0.0/26"}
    with pytest.raises(KeyError, match="no peer 'nobody'; there are: p2"):
        a.speaker.refresh_peer("nobody", "in", world.now)


def test_a_2_octet_peer_hears_the_whole_path(world: World) -> None:
    """AS4_PATH carries it through (RFC 6793 §4.2)."""
    world.node("10.0.0.1", speaker(4200000001, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP))
    world.node(
        "10.0.0.2",
        speaker(64513, "10.0.0.2") + peer(1, asn=4200000001, **EBGP) + peer(3, asn=64514, **EBGP),
    )
    old = world.node("10.0.0.3", speaker(64514, "10.0.0.3") + peer(2, asn=64513, four_octet_asn=False, **EBGP))
    world.start()
    assert old.routes()["10.1.0.0/26"]["as_path"] == "64513 4200000001"


def test_peers_come_and_go_live_without_touching_others(world: World) -> None:
    a, _, c = three(world)
    world.start()
    b = world.nodes[bytes([10, 0, 0, 2])]
    b.speaker.reconfigure(config_of("10.0.0.2", speaker(64513, "10.0.0.2") + peer(3, asn=64514, **EBGP)), world.now)
    world.run(2.0)
    assert [view["name"] for view in b.speaker.peers_view(world.now)] == ["p3"]
    assert b.routes()["10.1.0.0/26"]["peer"] == "p3"
    assert c.speaker.peers_view(world.now)[0]["flaps"] == 0
    text = speaker(64513, "10.0.0.2") + peer(1, asn=64512, **EBGP) + peer(3, asn=64514, **EBGP)
    b.speaker.reconfigure(config_of("10.0.0.2", text), world.now)
    world.run(60.0)
    assert b.routes()["10.1.0.0/26"]["peer"] == "p1"
    assert a.state("p2") == "Established"


def test_stopping_says_cease_and_leaves_the_routes_with_who_can_keep_them(world: World) -> None:
    a, b = pair(world, originate("10.1.0.0/26"))
    world.start()
    a.speaker.stop(world.now, "upgrade")
    world.settle()
    assert b.routes()["10.1.0.0/26"]["stale"]
    assert "upgrade" in b.speaker.peers_view(world.now)[0]["last_error"]


def test_a_route_that_comes_back_follows_its_next_hop_though_that_was_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attributes were kept, and with them what import had made of them."""
    kernel = Kernel()
    with_route = speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP)
    without = speaker(64512, "10.0.0.1") + peer(2, asn=64513, **EBGP)
    a = world.node("10.0.0.1", with_route)
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + KERNEL + peer(1, **EBGP), fib=kernel, next_hops=kernel)
    world.start()
    a.speaker.reconfigure(config_of("10.0.0.1", without), world.now)
    world.settle()
    monkeypatch.setattr(b.speaker._hops, "_limit", 0)
    b.speaker._hops.track(b"\x0a\0\0\x63")
    b.speaker.handle_timer(world.now)
    a.speaker.reconfigure(config_of("10.0.0.1", with_route), world.now)
    world.settle()
    b.speaker.next_hops_changed({b"\x0a\0\0\1": Resolution(reachable=False)})
    world.settle()
    assert b.routes("all")["10.1.0.0/26"]["state"] == "unreachable"
    assert PREFIX not in kernel.routes


def test_a_route_that_comes_back_is_taken_once_its_next_hop_is_no_address_of_ours(world: World) -> None:
    with_route = speaker(64512, "10.0.0.1") + originate("10.1.0.0/26") + peer(2, asn=64513, **EBGP)
    without = speaker(64512, "10.0.0.1") + peer(2, asn=64513, **EBGP)
    a = world.node("10.0.0.1", with_route)
    b = world.node("10.0.0.2", speaker(64513, "10.0.0.2") + peer(1, **EBGP))
    b.speaker.local_addresses_changed(frozenset({b"\x0a\0\0\1"}))
    world.start()
    assert b.routes() == {}
    a.speaker.reconfigure(config_of("10.0.0.1", without), world.now)
    world.settle()
    b.speaker.local_addresses_changed(frozenset())
    a.speaker.reconfigure(config_of("10.0.0.1", with_route), world.now)
    world.settle()
    assert set(b.routes()) == {"10.1.0.0/26"}
