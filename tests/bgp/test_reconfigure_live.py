"""Every field of a peer, changed on a session that stands: does it cost the session what its declared effect says?"""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_address
from typing import Any

import pytest

from bgp.config import ACCEPT_ALL, PeerConfig, Policy, PolicyRule, PrefixLimit
from bgp.families import IPV4
from bgp.reconfigure import PEER_EFFECTS
from tests.bgp.test_speaker import pair
from tests.bgp.world import Node, World, originate

# Another value that the other side can live with. The other end itself (address, range, interface) makes another peer.
OTHER_VALUES: dict[str, Any] = {
    "name": "renamed",
    "description": "x",
    "asn": 64999,
    "local_asn": 64998,
    "port": 1790,
    "source": ip_address("10.0.0.1"),
    "multihop": 3,
    "ttl_security": 1,
    "hold_time_s": 30,
    "families": (IPV4,),
    "client": True,
    "graceful_restart": False,
    "restart_time_s": 77,
    "extended_next_hop": True,
    "extended_messages": False,
    "four_octet_asn": False,
    "route_refresh": False,
    "min_hold_time_s": 7,
    "keepalive_s": 5,
    "passive": True,
    "password": "secret",
    "connect_retry_s": 3.0,
    "idle_hold_s": 2.0,
    "max_prefixes": ((IPV4, PrefixLimit(maximum=100)),),
    "shutdown": "enough",
    "import_policy": Policy(rules=(PolicyRule(action="accept"),)),
    "export_policy": Policy(default="reject"),
    "allowed_own_asn": 1,
    "unknown_attributes": "none",
    "enforce_first_asn": False,
    "next_hop": "keep",
    "graceful_shutdown": True,
}
OTHER_ENDS = {"address", "range", "interface"}


@pytest.fixture
def world() -> World:
    return World()


def changed(node: Node, world: World, name: str) -> None:
    (peer,) = node.speaker.config.peers
    value = OTHER_VALUES[name]
    if isinstance(value, bool) and value == getattr(peer, name):
        value = not value  # the switch stands the other way
    other = replace(peer, **{name: value})
    assert other != peer
    node.speaker.reconfigure(replace(node.speaker.config, peers=(other,)), world.now)
    world.settle()


def test_every_field_is_tried() -> None:
    assert set(OTHER_VALUES) | OTHER_ENDS == {field.name for field in fields(PeerConfig)} == set(PEER_EFFECTS)


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_field_costs_the_session_what_is_declared(world: World, name: str) -> None:
    a, b = pair(world, originate("10.1.0.0/26"), originate("10.2.0.0/26"))
    world.start()
    before = b.speaker.neighbours["p1"].peer.established
    assert before is not None
    changed(a, world, name)
    after = b.speaker.neighbours["p1"].peer.established
    ends_it = "reset" in PEER_EFFECTS[name] or name == "shutdown"
    assert (after is not before) == ends_it, f"{name}: {PEER_EFFECTS[name]}"
    if not ends_it:
        wanted = set() if name == "export_policy" else {"10.1.0.0/26"}
        assert set(b.routes()) - {"10.2.0.0/26"} == wanted
        assert "10.2.0.0/26" in a.routes()


def test_a_policy_that_says_the_same_costs_nothing(world: World) -> None:
    a, _ = pair(world, originate("10.1.0.0/26"))
    world.start()
    sent = a.speaker.peers_view(world.now)[0]["messages"]["sent"]["update"]
    (peer,) = a.speaker.config.peers
    same = replace(peer, export_policy=replace(peer.export_policy or ACCEPT_ALL))
    a.speaker.reconfigure(replace(a.speaker.config, peers=(same,)), world.now)
    world.settle()
    assert a.speaker.peers_view(world.now)[0]["messages"]["sent"]["update"] == sent
