"""Who is a WireGuard peer, and for what."""

from __future__ import annotations

import base64

import pytest

from felix.desired import Host, IPVersion, Route, RouteType, WireguardPeer
from felix.sync.wireguard import Cluster, Peer, different_peers, free_table


def key(name: str) -> str:
    return base64.b64encode(name.encode().ljust(32)).decode()


WORKLOAD = RouteType(is_remote=True, is_workload=True)


def cluster(version: IPVersion = 4) -> Cluster:
    made = Cluster("n1", version)
    for number in (1, 2, 3):
        name = f"n{number}"
        made.hosts[name] = Host(name, f"172.16.0.{number}", f"fd16::{number}")
        made.keys[name] = WireguardPeer(
            name, key(f"key{number}"), f"10.65.{number}.1", key(f"six{number}"), f"fd65:{number}::1"
        )
        for block in (f"10.65.{number}.0/26", f"fd65:{number}::/122"):
            made.set_route(
                block, Route(block, WORKLOAD if number > 1 else RouteType(is_local=True, is_workload=True), node=name)
            )
    return made


def test_each_other_node_is_a_peer_for_its_own_networks() -> None:
    found = cluster().reach(key("key1"), 51820, 0, encrypts_host=False)
    assert found.peers == {
        key(f"key{n}"): Peer(key(f"key{n}"), (f"172.16.0.{n}", 51820), frozenset({f"10.65.{n}.0/26"})) for n in (2, 3)
    }
    assert found.through == {"10.65.2.0/26", "10.65.3.0/26"}
    assert found.thrown == frozenset()


def test_versions_have_keys_and_networks_of_their_own() -> None:
    found = cluster(6).reach(key("six1"), 51821, 25, encrypts_host=True)
    assert found.peers[key("six2")] == Peer(
        key("six2"), ("fd16::2", 51821), frozenset({"fd65:2::/122", "fd16::2/128"}), 25
    )


@pytest.mark.parametrize("why", ["no key", "no address", "two claim it", "it is ours"])
def test_who_is_no_peer_is_reached_without(why: str) -> None:
    made = cluster()
    if why == "no key":
        del made.keys["n2"]
    elif why == "no address":
        made.hosts["n2"] = Host("n2")
    elif why == "two claim it":
        made.keys["n4"] = WireguardPeer("n4", key("key2"))
    else:
        made.keys["n2"] = WireguardPeer("n2", key("key1"))
    found = made.reach(key("key1"), 51820, 0, encrypts_host=True)
    assert set(found.peers) == {key("key3")}
    assert "10.65.2.0/26" in found.thrown
    assert "172.16.0.2/32" not in found.through


def test_an_address_that_is_in_the_device_is_never_thrown_out_of_it() -> None:
    made = cluster()
    del made.keys["n2"]
    made.set_route("172.16.0.3/32", Route("172.16.0.3/32", WORKLOAD, node="n2"))
    found = made.reach(key("key1"), 51820, 0, encrypts_host=True)
    assert not found.through & found.thrown


def test_only_what_differs_is_written() -> None:
    one, two = Peer("a", ("10.0.0.1", 1)), Peer("b", ("10.0.0.2", 1))
    changed = Peer("b", ("10.0.0.3", 1))
    assert different_peers({"a": one, "b": changed}, {"a": one, "b": two, "c": two}) == ([changed], ["c"])


@pytest.mark.parametrize(
    ("ranges", "table"), [([(1, 250)], 1), ([(253, 300)], 256), ([(254, 255), (7, 9)], 7), ([(0, 9)], 1)]
)
def test_the_kernels_own_tables_are_never_taken(ranges: list[tuple[int, int]], table: int) -> None:
    assert free_table(ranges) == table


def test_no_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="RouteTableRanges"):
        free_table([(253, 255)])


def test_two_ways_to_write_one_key_are_one_key() -> None:
    made = cluster()
    made.keys["n2"] = WireguardPeer("n2", "A" * 42 + "B=")
    assert "A" * 43 + "=" in made.reach(key("key1"), 51820, 0, encrypts_host=False).peers
