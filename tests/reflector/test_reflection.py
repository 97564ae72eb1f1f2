"""Reflectors, clients and non-clients as whole speakers: who ends up with which routes, and what these carry."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bgp.world import Node, World, config_of, originate, peer

HUB = "10.0.0.9"


def route(number: int) -> str:
    return f"10.{number}.0.0/26"


def spokes(world: World, *numbers: int, hubs: tuple[int, ...] = (9,), **options: object) -> list[Node]:
    """Nodes that know the hubs alone, each with a route of its own."""
    peers = "".join(peer(hub, **options) for hub in hubs)
    return [world.node(f"10.0.0.{number}", originate(route(number)) + peers) for number in numbers]


def hub_text(
    address: str = HUB, *, clients: tuple[int, ...] = (), others: tuple[int, ...] = (), **speaker: object
) -> str:
    keys = {"asn": 64512, "router_id": f'"{address}"'} | speaker
    head = "[speaker]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
    return head + "".join(peer(n, client=True) for n in clients) + "".join(peer(n) for n in others)


def hub(world: World, address: str = HUB, **options: object) -> Node:
    return world.node(address, hub_text(address, **options))  # type: ignore[arg-type]


def paths_of(node: Node, prefix: str) -> list[dict[str, Any]]:
    """All, the best first."""
    [view] = [view for view in node.speaker.routes_view(prefix=prefix) if view is not None]
    paths: list[dict[str, Any]] = view["paths"]
    return paths


def test_clients_hear_everybody_and_non_clients_hear_clients() -> None:
    world = World()
    nodes = spokes(world, 1, 2, 3, 4)
    hub(world, clients=(1, 2), others=(3, 4))
    world.start()
    everything = {route(number) for number in (1, 2, 3, 4)}
    assert [set(node.routes()) for node in nodes] == [
        everything,
        everything,
        everything - {route(4)},
        everything - {route(3)},
    ]


def test_a_reflected_route_says_where_it_is_from_and_keeps_all_else() -> None:
    world = World()
    sender = world.node("10.0.0.1", originate(route(1), communities='["64512:7"]', local_pref=140, med=9) + peer(9))
    receiver = spokes(world, 2)[0]
    reflector = hub(world, clients=(1, 2), cluster_id='"10.9.9.9"')
    world.start()
    sent, heard = reflector.routes()[route(1)], receiver.routes()[route(1)]
    assert (heard["originator_id"], heard["cluster_list"]) == ("10.0.0.1", ["10.9.9.9"])
    assert heard["next_hop"] == "10.0.0.1", "not the reflector"
    same = ("next_hop", "as_path", "origin", "med", "local_pref", "communities")
    assert [heard[key] for key in same] == [sent[key] for key in same]
    assert route(1) not in reflector.routes("sent", peer="p1"), "nobody hears himself"
    assert sender.routes()[route(1)]["source"] == "originate"


def test_meshed_clients_are_left_to_themselves() -> None:
    world = World()
    nodes = spokes(world, 1, 2, 3)
    reflector = hub(world, clients=(1, 2), others=(3,), client_to_client="false")
    world.start()
    assert [route(2) in nodes[0].routes(), route(3) in nodes[0].routes()] == [False, True]
    assert {route(1), route(2)} < set(nodes[2].routes())
    text = hub_text(clients=(1, 2), others=(3,))
    reflector.speaker.reconfigure(config_of(HUB, text), world.now)
    world.settle()
    assert route(2) in nodes[0].routes()
    assert reflector.speaker.peer_view("p1", world.now)["flaps"] == 0  # type: ignore[index]


def test_another_cluster_id_goes_out_live() -> None:
    world = World()
    nodes = spokes(world, 1, 2)
    reflector = hub(world, clients=(1, 2))
    world.start()
    assert nodes[0].routes()[route(2)]["cluster_list"] == [HUB], "named by the router ID"
    reflector.speaker.reconfigure(config_of(HUB, hub_text(clients=(1, 2), cluster_id='"1.2.3.4"')), world.now)
    world.settle()
    assert nodes[0].routes()[route(2)]["cluster_list"] == ["1.2.3.4"]
    assert nodes[0].speaker.peers_view(world.now)[0]["flaps"] == 0


def test_the_first_client_makes_a_reflector_and_the_last_one_ends_it() -> None:
    world = World()
    nodes = spokes(world, 1, 2)
    reflector = hub(world, others=(1, 2))
    world.start()
    assert route(2) not in nodes[0].routes()
    reflector.speaker.reconfigure(config_of(HUB, hub_text(clients=(1,), others=(2,))), world.now)
    world.run(30.0)
    assert route(2) in nodes[0].routes()
    assert route(1) in nodes[1].routes()
    reflector.speaker.reconfigure(config_of(HUB, hub_text(others=(1, 2))), world.now)
    world.run(30.0)
    assert route(2) not in nodes[0].routes()
    assert route(1) not in nodes[1].routes()


def test_reflectors_in_a_hierarchy_pass_routes_up_and_down() -> None:
    """1, 2 - 7 - 9 - 8 - 3, 4: two of a lower level are clients of the one above."""
    world = World()
    leaves = [*spokes(world, 1, 2, hubs=(7,)), *spokes(world, 3, 4, hubs=(8,))]
    hub(world, "10.0.0.7", clients=(1, 2), others=(9,))
    hub(world, "10.0.0.8", clients=(3, 4), others=(9,))
    hub(world, clients=(7, 8))
    world.start()
    for leaf in leaves:
        assert set(leaf.routes()) == {route(number) for number in (1, 2, 3, 4)}
    far = leaves[0].routes()[route(4)]
    assert far["cluster_list"] == ["10.0.0.7", HUB, "10.0.0.8"]
    assert (far["originator_id"], far["next_hop"]) == ("10.0.0.4", "10.0.0.4")


@pytest.mark.parametrize("cluster", ['"1.1.1.1"', None])
def test_a_redundant_pair_loses_one_and_no_client_loses_a_route(cluster: str | None) -> None:
    """With one cluster id for both (they refuse each other's reflections) or one each."""
    world = World()
    nodes = spokes(world, 1, 2, 3, hubs=(8, 9), graceful_restart=False)
    more = {} if cluster is None else {"cluster_id": cluster}
    pair = [
        hub(world, "10.0.0.8", clients=(1, 2, 3), others=(9,), **more),
        hub(world, "10.0.0.9", clients=(1, 2, 3), others=(8,), **more),
    ]
    world.start()
    everything = {route(number) for number in (1, 2, 3)}
    refused = [view for view in pair[0].speaker.routes_view(peer="p9", which="received") if view]
    assert all("own cluster" in path["reason"] for view in refused for path in view["paths"]) or cluster is None
    assert refused
    pair[0].kill()
    for _ in range(40):
        world.run(0.25)
        for node in nodes:
            assert set(node.routes()) == everything


def test_who_comes_later_hears_all_and_who_goes_is_forgotten_by_all() -> None:
    world = World()
    nodes = spokes(world, 1, 2, graceful_restart=False)
    reflector = world.node(
        HUB, hub_text() + '[[peer]]\nname = "nodes"\nrange = "10.0.0.0/24"\nasn = 64512\nclient = true\n'
    )
    world.start()
    late = spokes(world, 3, graceful_restart=False)[0]
    late.speaker.start(world.now)
    world.run(1.0)
    for node in (*nodes, late):
        assert set(node.routes()) == {route(1), route(2), route(3)}
    late.kill()
    world.run(1.0)
    for node in (*nodes, reflector):
        assert set(node.routes()) == {route(1), route(2)}


def test_what_moved_while_a_reflector_was_dead_is_followed_by_the_other() -> None:
    """The dead one's path is stale and leads to node 1, the survivor's is fresh and leads to node 3."""
    world = World()
    nodes = spokes(world, 1, 2, 3, hubs=(8, 9))
    pair = [hub(world, address, clients=(1, 2, 3)) for address in ("10.0.0.8", "10.0.0.9")]
    world.start()
    pair[0].kill()
    world.run(1.0)
    peers = peer(8) + peer(9)
    nodes[0].speaker.reconfigure(config_of("10.0.0.1", peers), world.now)
    nodes[2].speaker.reconfigure(config_of("10.0.0.3", originate(route(3), route(1)) + peers), world.now)
    world.run(5.0)
    assert nodes[1].routes()[route(1)]["next_hop"] == "10.0.0.3"
    lost = [path for path in paths_of(nodes[1], route(1)) if path["stale"]]
    assert [path["next_hop"] for path in lost] == ["10.0.0.1"]
    assert "fresh before stale" in lost[0]["reason"]


def test_nobody_sends_packets_by_a_dead_reflectors_word_while_another_says_the_same() -> None:
    """The survivor's path wins when the other turns stale, and the other's again when it has come back and said so."""
    world = World()
    nodes = spokes(world, 1, 2, hubs=(8, 9))
    pair = [hub(world, address, clients=(1, 2)) for address in ("10.0.0.8", "10.0.0.9")]
    world.start()
    assert nodes[1].routes()[route(1)]["peer"] == "p8", "the lower address, all else being equal"
    pair[0].kill()
    world.run(1.0)
    assert {path["peer"]: path["stale"] for path in paths_of(nodes[1], route(1))} == {"p9": False, "p8": True}
    assert nodes[1].routes()[route(1)]["peer"] == "p9"
    back = hub(world, "10.0.0.8", clients=(1, 2))
    back.speaker.start(world.now)
    world.run(20.0)
    assert {path["peer"]: path["stale"] for path in paths_of(nodes[1], route(1))} == {"p8": False, "p9": False}
    assert nodes[1].routes()[route(1)]["peer"] == "p8"
