"""Whole clusters: what resources say, done by speakers that talk to each other."""

from __future__ import annotations

from typing import Any

import pytest

from bgp.families import IPV4, parse_prefix
from bgp.ports import LearnedRoute
from integration.bgpconfig import NodeState, Snapshot
from integration.resources.keys import Key
from tests.bgp.test_speaker import Kernel
from tests.bgp.world import Node, World
from tests.integration.bgpconfig.cluster import MAX, objects


class Cluster:
    """A speaker for each node named; a change of resources reaches all of them."""

    def __init__(self, text: str, *names: str) -> None:
        self.world, self.resources = World(), Snapshot()
        self.states = {name: NodeState(name) for name in names}
        self.kernels = {name: Kernel() for name in names}
        self.speakers: dict[str, Node] = {}
        self.apply(text)
        for name, state in self.states.items():
            address = str(state.config().speaker.router_id)
            node = Node(
                self.world, address, state.config().speaker, fib=self.kernels[name], next_hops=self.kernels[name]
            )
            self.speakers[name] = self.world.nodes[node.address] = node
        self.world.start()

    def apply(self, text: str) -> None:
        for key, value in objects(text):
            self.put(key, value)

    def put(self, key: Key, value: dict[str, Any] | None) -> list[str]:
        """Returns what it cost whom: `NODE: CHANGE`."""
        changes = []
        for name, state in self.states.items():
            state.apply_json(key, value)
            if name in self.speakers:
                found = self.speakers[name].speaker.reconfigure(state.config().speaker, self.world.now)
                changes += [f"{name}: {change}" for change in found]
        if self.speakers:
            self.world.run(3.0)
        return changes

    def workload(self, name: str, address: str, metric: int = 1024) -> None:
        """Felix writes its route."""
        route = LearnedRoute(interface="cali1", protocol=3, metric=metric)
        self.speakers[name].speaker.fib_changed(IPV4, [(parse_prefix(f"{address}/32")[1], route)], [])
        self.world.settle()

    def routes(self, name: str) -> set[str]:
        return set(self.speakers[name].routes())

    def metric(self, name: str, prefix: str) -> int | None:
        route = self.kernels[name].routes.get((IPV4, parse_prefix(prefix)[1]))
        return None if route is None else route.metric


NODES = """
Node a: {bgp: {ipv4Address: 10.0.0.1/24}}
Node b: {bgp: {ipv4Address: 10.0.0.2/24}}
Node c: {bgp: {ipv4Address: 10.0.0.3/24}}
IPPool plain: {cidr: 10.1.0.0/16}
IPPool over: {cidr: 10.2.0.0/16, vxlanMode: Always}
BlockAffinity host:a/10.1.0.0-26: {state: confirmed}
BlockAffinity host:b/10.1.1.0-26: {state: confirmed}
BlockAffinity host:a/10.2.0.0-26: {state: confirmed}
"""


def test_a_mesh_exchanges_blocks_and_writes_what_is_not_felixs() -> None:
    cluster = Cluster(NODES, "a", "b", "c")
    cluster.workload("a", "10.1.0.5")
    assert cluster.routes("c") == {"10.1.0.0/26", "10.1.1.0/26", "10.2.0.0/26"}
    assert cluster.speakers["c"].routes()["10.1.0.0/26"]["local_pref"] == MAX - 1024
    assert cluster.metric("c", "10.1.0.0/26") == 1024
    assert cluster.metric("c", "10.2.0.0/26") is None
    assert cluster.kernels["a"].routes[IPV4, parse_prefix("10.1.0.0/26")[1]].next_hops == (), (
        "its own block's blackhole"
    )


def test_a_workload_that_migrates_is_found_at_its_new_node() -> None:
    cluster = Cluster(NODES, "a", "b", "c")
    cluster.workload("a", "10.1.0.5")
    cluster.workload("b", "10.1.0.5", metric=512)
    for name in ("a", "c"):
        assert cluster.speakers[name].routes()["10.1.0.5/32"]["peer"] == "Mesh_10_0_0_2", name
        assert cluster.metric(name, "10.1.0.5/32") == 512


REFLECTED = (
    NODES
    + """
BGPConfiguration default: {nodeToNodeMeshEnabled: false}
Node c: {labels: {rr: "1"}, bgp: {ipv4Address: 10.0.0.3/24, routeReflectorClusterID: 1.0.0.1}}
BGPPeer all: {nodeSelector: all(), peerSelector: has(rr)}
"""
)


def test_a_reflector_passes_on_blocks_that_its_own_felix_knows_too() -> None:
    cluster = Cluster(REFLECTED, "a", "b", "c")
    through_tunnel = LearnedRoute(interface="vxlan.calico", protocol=80, metric=1024, behind_peers=True)
    cluster.speakers["c"].speaker.fib_changed(IPV4, [(parse_prefix("10.2.0.0/26")[1], through_tunnel)], [])
    cluster.world.settle()
    assert cluster.routes("b") == {"10.1.0.0/26", "10.1.1.0/26", "10.2.0.0/26"}
    assert {report.config.name for report in cluster.states["b"].config().peers} == {"Node_10_0_0_3"}


def test_turning_a_node_into_a_reflector_moves_its_sessions_and_no_others() -> None:
    cluster = Cluster(NODES, "a", "b", "c")
    (key, value), *_ = objects(
        "Node c: {labels: {rr: '1'}, bgp: {ipv4Address: 10.0.0.3/24, routeReflectorClusterID: 1.0.0.1}}"
    )
    changes = cluster.put(key, value)
    assert not any("Mesh_10_0_0_2" in change for change in changes if change.startswith("a"))
    assert cluster.speakers["a"].state("Mesh_10_0_0_2") == "Established"
    for peer_key, peer in objects("BGPPeer all: {nodeSelector: all(), peerSelector: has(rr)}"):
        cluster.put(peer_key, peer)
    assert cluster.speakers["a"].state("Node_10_0_0_3") == "Established"


def test_both_ends_of_a_session_with_a_local_as_number_agree() -> None:
    text = NODES + "BGPConfiguration default: {nodeToNodeMeshEnabled: false}\n"
    cluster = Cluster(text + "BGPPeer p: {node: a, peerIP: 10.0.0.2, asNumber: 64512, localASNumber: 65009}", "a", "b")
    assert cluster.speakers["a"].state("Node_10_0_0_2") == "Established"
    assert cluster.speakers["b"].routes()["10.1.0.0/26"]["as_path"] == "65009"


TOR = NODES + "BGPPeer tor: {peerIP: 10.0.0.9, asNumber: 65000, filters: [f]}\n"


@pytest.mark.parametrize(
    ("change", "costs"),
    [
        ("IPPool new: {cidr: 10.3.0.0/16, disableBGPExport: true}", "export_policy"),
        ("BGPFilter f: {importV4: [{action: Reject}]}", "import_policy"),
        ("Service shop/x: {clusterIP: 10.96.0.5}", ""),
        ("BGPConfiguration default: {serviceClusterIPs: [{cidr: 10.96.0.0/16}]}", "originate"),
        ("BGPPeer tor: {peerIP: 10.0.0.9, asNumber: 65000, nextHopMode: Keep}", "next_hop"),
        ("BlockAffinity host:a/10.1.2.0-26: {}", "originate"),
    ],
)
def test_a_change_that_is_no_sessions_own_resets_none(change: str, costs: str) -> None:
    cluster = Cluster(TOR, "a", "b")
    assert cluster.speakers["a"].state("Mesh_10_0_0_2") == "Established"
    for key, value in objects(change):
        changes = cluster.put(key, value)
        assert not any("reset" in one or "is started" in one or "is stopped" in one for one in changes), changes
        assert any(costs in one for one in changes) if costs else changes == []
    assert cluster.speakers["a"].state("Mesh_10_0_0_2") == "Established"
