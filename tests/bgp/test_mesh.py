"""A full mesh in which one dies: whatever had been said by then, nobody keeps its prefix."""

from __future__ import annotations

import random

import pytest

from tests.bgp.world import World, originate, peer

EBGP = {"import": "accept", "export": "accept", "graceful_restart": False}
NUMBERS = (1, 2, 3, 4, 5)


def mesh(world: World) -> None:
    for number in NUMBERS:
        head = f'[speaker]\nasn = {65000 + number}\nrouter_id = "10.0.0.{number}"\n'
        peers = "".join(peer(other, asn=65000 + other, **EBGP) for other in NUMBERS if other != number)
        world.node(f"10.0.0.{number}", head + originate(f"10.{number}.0.0/24") + peers)


@pytest.mark.parametrize("seed", range(60))
def test_a_router_that_dies_at_any_moment_is_forgotten_by_all(seed: int) -> None:
    rng = random.Random(seed)
    world = World(rng)
    mesh(world)
    victim = world.nodes[bytes([10, 0, 0, rng.choice(NUMBERS)])]
    for node in list(world.nodes.values()):
        node.speaker.start(world.now)
    world.steps(rng.randrange(10, 1500))
    victim.kill()
    world.run(3.0)
    prefix = f"10.{victim.address[3]}.0.0/24"
    for node in world.nodes.values():
        assert prefix not in node.routes(), f"10.0.0.{node.address[3]} still has it"
        wanted = {f"10.{other.address[3]}.0.0/24" for other in world.nodes.values()}
        assert set(node.routes()) == wanted
