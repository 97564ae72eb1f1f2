"""plan: what each node would do, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.commands import Commands, document, peer

CLUSTER = Path(__file__).parent / "cluster.yaml"
TOR = {"peerIP": "192.0.2.1:1790", "asNumber": 65001, "nodeSelector": "rack == '7'", "filters": ["own"],
       "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}, "keepaliveTime": "20s", "maxRestartTime": "60s"}  # fmt: skip
TOR_NAME = "Node_192_0_2_1_port_1790"


@pytest.fixture
def cluster(catbird: Commands) -> Commands:
    assert catbird("apply", "-f", str(CLUSTER)).code == 0
    return catbird


def plan_of(cluster: Commands, text: str, *options: str) -> dict[str, Any]:
    """Node → its part."""
    done = cluster("plan", "-f", "-", "-o", "json", *options, stdin=text)
    assert done.code == 0, done.err
    return {one["node"]: one for one in done.json["nodes"]}


def effects(part: dict[str, Any]) -> dict[tuple[str | None, str], list[str]]:
    return {(one["peer"], one["field"]): one["effects"] for one in part["changes"]}


def test_what_is_there_already_changes_nothing(cluster: Commands) -> None:
    done = cluster("plan", "-f", str(CLUSTER))
    assert done.code == 0
    assert done.lines[0] == "BGPConfiguration default is so already"
    assert done.lines[-1] == "nothing changes on 2 nodes (a, b)"


def test_a_new_peer_appears_on_the_nodes_that_it_selects_with_what_it_would_hear(cluster: Commands) -> None:
    text = peer("tor8", "192.0.2.8", nodeSelector="rack == '7'")
    parts = plan_of(cluster, text)
    added = {
        "name": "Node_192_0_2_8",
        "address": "192.0.2.8",
        "port": 179,
        "remote_asn": 65001,
        "from": ["BGPPeer tor8"],
    }
    assert parts["a"]["peers_added"] == [added]
    assert parts["a"]["sessions_reset"] == []
    assert parts["a"]["routes"] == [{"peer": "Node_192_0_2_8", "added": ["10.96.0.0/16"], "changed": [], "removed": []}]
    assert parts["b"]["peers_added"] == []
    shown = cluster("plan", "-f", "-", stdin=text).lines
    assert shown == [
        "BGPPeer tor8 would be created",
        "",
        "node a:",
        "  + peer Node_192_0_2_8 (192.0.2.8 port 179, AS 65001), from BGPPeer tor8",
        "  + 10.96.0.0/16  announced to Node_192_0_2_8",
        "",
        "nothing changes on 1 node (b)",
    ]


def test_nothing_is_written(cluster: Commands) -> None:
    before = cluster("get", "bgppeers", "-o", "json").out
    plan_of(cluster, peer("tor8", "192.0.2.8") + document("BGPPeer", "tor7", {"peerIP": "192.0.2.9"}))
    assert cluster("get", "bgppeers", "-o", "json").out == before


def test_a_field_that_stands_in_the_open_resets_that_session_alone(cluster: Commands) -> None:
    parts = plan_of(cluster, document("BGPPeer", "tor7", {**TOR, "maxRestartTime": "90s"}))
    assert parts["a"]["sessions_reset"] == [TOR_NAME]
    assert effects(parts["a"]) == {(TOR_NAME, "restart_time_s"): ["reset"]}
    assert effects(parts["b"]) == {}


def test_the_as_of_the_cluster_resets_all_sessions(cluster: Commands) -> None:
    spec = {"asNumber": 64999, "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}]}
    text = document("BGPConfiguration", "default", spec)
    parts = plan_of(cluster, text)
    assert parts["a"]["sessions_reset"] == ["Mesh_192_0_2_12", TOR_NAME]
    assert parts["b"]["sessions_reset"] == ["Mesh_192_0_2_11"]
    assert (
        f"  ! 2 sessions (Mesh_192_0_2_12, {TOR_NAME}) would be reset" in cluster("plan", "-f", "-", stdin=text).lines
    )


def test_a_filter_costs_no_session_but_takes_routes_from_its_peers(cluster: Commands) -> None:
    text = document("BGPFilter", "own", {"exportV4": [{"action": "Reject"}]})
    parts = plan_of(cluster, text)
    assert effects(parts["a"]) == {(TOR_NAME, "export_policy"): ["export"]}
    assert parts["a"]["sessions_reset"] == []
    assert parts["a"]["routes"] == [{"peer": TOR_NAME, "added": [], "changed": [], "removed": ["10.96.0.0/16"]}]
    assert parts["a"]["originate"] == {"added": [], "changed": [], "removed": []}
    shown = cluster("plan", "-f", "-", stdin=text)
    assert f"  - 10.96.0.0/16  announced to {TOR_NAME}" in shown.lines
    assert "what is sent is evaluated again" in shown.out


def test_routes_that_appear_and_disappear(cluster: Commands) -> None:
    spec = {"asNumber": 64512, "serviceClusterIPs": [{"cidr": "10.97.0.0/16"}]}
    parts = plan_of(cluster, document("BGPConfiguration", "default", spec))
    assert parts["b"]["originate"] == {"added": ["10.97.0.0/16"], "changed": [], "removed": ["10.96.0.0/16"]}
    told = {"peer": "Mesh_192_0_2_11", "added": ["10.97.0.0/16"], "changed": [], "removed": ["10.96.0.0/16"]}
    assert parts["b"]["routes"] == [told]


def test_a_secret_that_goes_holds_the_session_down(cluster: Commands) -> None:
    secret = '{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bgp", "namespace": "kube-system"}}'
    parts = plan_of(cluster, secret, "--delete")
    assert parts["a"]["sessions_held_down"] == [TOR_NAME]
    assert parts["a"]["routes"] == [{"peer": TOR_NAME, "added": [], "changed": [], "removed": ["10.96.0.0/16"]}]
    assert "does not exist; its sessions are held down" in parts["a"]["problems"]["new"][0]


def test_deleting_a_node_takes_it_from_the_mesh_of_the_others(cluster: Commands) -> None:
    parts = plan_of(cluster, document("Node", "b"), "--delete")
    assert [one["name"] for one in parts["a"]["peers_removed"]] == ["Mesh_192_0_2_12"]
    assert parts["b"]["node_gone"] is True


def test_a_node_that_comes_is_planned_too(cluster: Commands) -> None:
    parts = plan_of(cluster, document("Node", "c", {"bgp": {"ipv4Address": "192.0.2.13/24"}}), "--node", "c")
    assert list(parts) == ["c"]
    assert [one["name"] for one in parts["c"]["peers_added"]] == ["Mesh_192_0_2_11", "Mesh_192_0_2_12"]


def test_what_apply_would_refuse_is_told_and_left_out(cluster: Commands) -> None:
    done = cluster("plan", "-f", "-", stdin=peer("bad", "192.0.2.400") + peer("tor8", "192.0.2.8"))
    assert done.code == 1
    assert done.lines[0].startswith("BGPPeer bad would be refused: stdin, document 1, line 2, BGPPeer bad: spec.peerIP")
    assert "  + peer Global_192_0_2_8 (192.0.2.8 port 179, AS 65001), from BGPPeer tor8" in done.lines
    missing = cluster("plan", "--delete", "-f", "-", stdin=peer("nobody"))
    assert (missing.code, missing.lines[0]) == (1, "BGPPeer nobody would be refused: BGPPeer nobody does not exist")


def test_a_node_that_nobody_knows_is_an_error(cluster: Commands) -> None:
    done = cluster("plan", "-f", "-", "--node", "z", stdin=peer("tor8"))
    assert (done.code, done.out) == (1, "")
    assert "there is no Node z; known are a, b" in done.err
