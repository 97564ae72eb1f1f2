"""Who peers with whom, and how: resources in, peers out, as Calico's confd makes them."""

from __future__ import annotations

import base64
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from bgp.families import IPV4, IPV6
from tests.integration.bgpconfig.cluster import NO_MESH, TWO, config_of, peer_of, peers_of, problems_of


def test_a_node_is_in_the_mesh_with_all_others_in_both_families() -> None:
    text = """
Node a: {bgp: {ipv4Address: 10.0.0.9/24, ipv6Address: "fd00::9/64"}}
Node b: {bgp: {ipv4Address: 10.0.0.10/24, ipv6Address: "fd00::10/64"}}
Node c: {bgp: {ipv4Address: 10.0.0.11/24, asNumber: 65001}}
Node d: {}
"""
    peers = peers_of(text)
    assert set(peers) == {"Mesh_10_0_0_10", "Mesh_fd00__10", "Mesh_10_0_0_11"}
    peer = peers["Mesh_10_0_0_10"].config
    assert (peer.asn, peer.port, peer.source, peer.families) == (64512, 179, ip_address("10.0.0.9"), (IPV4,))
    assert (peer.multihop, peer.hold_time_s, peer.restart_time_s, peer.client) == (64, 240, 120, False)
    assert peers["Mesh_fd00__10"].config.families == (IPV6,)
    assert peers["Mesh_10_0_0_11"].config.asn == 65001


def test_of_two_nodes_in_the_mesh_the_one_whose_address_is_the_higher_text_dials() -> None:
    text = "Node a: {bgp: {ipv4Address: 10.0.0.9}}\nNode b: {bgp: {ipv4Address: 10.0.0.10}}"
    assert [peer_of(text, "a").passive, peer_of(text, "b").passive] == [False, True]


def test_a_mesh_peer_of_a_node_with_an_as_of_its_own_is_expected_with_the_clusters() -> None:
    """In Calico with the node's own, so that the session fails unless both have it."""
    text = "BGPConfiguration default: {asNumber: 64600}\nNode a: {bgp: {ipv4Address: 10.0.0.1, asNumber: 65001}}\nNode b: {bgp: {ipv4Address: 10.0.0.2}}"
    assert (peer_of(text, "a").asn, peer_of(text, "b").asn) == (64600, 65001)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (NO_MESH, []),
        ("Node r: {bgp: {ipv4Address: 10.0.0.9, routeReflectorClusterID: 1.0.0.1}}", ["Mesh_10_0_0_2"]),
        ("Node r: {bgp: {asNumber: 64512}}", ["Mesh_10_0_0_2"]),
        ("Node r: {bgp: {ipv4Address: 10.0.0.1/24}}", ["Mesh_10_0_0_2"]),  # our own address
    ],
)
def test_who_is_not_in_the_mesh(text: str, names: list[str]) -> None:
    assert list(peers_of(TWO + text)) == names


def test_a_reflector_has_no_mesh() -> None:
    text = TWO + "Node r: {bgp: {ipv4Address: 10.0.0.9, routeReflectorClusterID: 1.0.0.1}}"
    assert peers_of(text, "r") == {}
    assert config_of(text, "r").speaker.cluster_id == ip_address("1.0.0.1")


REFLECTORS = """
Node r: {labels: {rr: one}, bgp: {ipv4Address: 10.0.0.8, routeReflectorClusterID: 1.0.0.1}}
Node s: {labels: {rr: one}, bgp: {ipv4Address: 10.0.0.9, routeReflectorClusterID: 1.0.0.1}}
Node t: {labels: {rr: two}, bgp: {ipv4Address: 10.0.0.7, routeReflectorClusterID: 1.0.0.2}}
BGPPeer all: {nodeSelector: all(), peerSelector: has(rr)}
"""


def test_clients_of_a_reflector_are_internal_peers_outside_its_cluster() -> None:
    peers = peers_of(NO_MESH + TWO + REFLECTORS, "r")
    assert {name: one.config.client for name, one in peers.items()} == {
        "Node_10_0_0_1": True,
        "Node_10_0_0_2": True,
        "Node_10_0_0_7": True,  # a reflector of another cluster
        "Node_10_0_0_9": False,
    }
    assert [str(key) for key in peers["Node_10_0_0_1"].origin] == ["BGPPeer all", "Node a"]
    assert not any(one.config.client for one in peers_of(NO_MESH + TWO + REFLECTORS, "a").values())
    assert set(peers_of(NO_MESH + TWO + REFLECTORS, "a")) == {"Node_10_0_0_7", "Node_10_0_0_8", "Node_10_0_0_9"}


def test_an_external_peer_of_a_reflector_is_no_client() -> None:
    text = "BGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65000}\nBGPPeer in: {peerIP: 192.0.2.2, asNumber: 64512}"
    peers = peers_of(NO_MESH + REFLECTORS.split("BGPPeer", maxsplit=1)[0] + text, "r")
    assert not peers["Global_192_0_2_1"].config.client
    assert peers["Global_192_0_2_2"].config.client
    assert peers["Global_192_0_2_2"].cluster_id == "1.0.0.1"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("", "Global_192_0_2_1"),
        ("node: a, ", "Node_192_0_2_1"),
        ("node: b, ", None),
        ("nodeSelector: \"rack == 'x'\", ", "Node_192_0_2_1"),
        ("nodeSelector: \"rack == 'y'\", ", None),
        ("nodeSelector: \"rack == 'x'\", node: b, ", "Node_192_0_2_1"),  # the selector wins
        ("nodeSelector: '((', ", None),
    ],
)
def test_which_nodes_a_bgppeer_is_for(spec: str, name: str | None) -> None:
    text = "Node a: {labels: {rack: x}, bgp: {ipv4Address: 10.0.0.1}}\n" + NO_MESH
    found = peers_of(text + f"BGPPeer tor: {{{spec}peerIP: 192.0.2.1, asNumber: 65000}}")
    assert list(found) == ([name] if name else [])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", {"asn": 65000, "port": 179, "passive": False, "local_asn": None, "next_hop": "auto"}),
        ("sourceAddress: None", {"source": None}),
        ("sourceAddress: UseNodeIP", {"source": ip_address("10.0.0.1")}),
        ("maxRestartTime: 90.6s", {"restart_time_s": 91}),
        ("keepaliveTime: 1m", {"keepalive_s": 60}),
        ("ttlSecurity: 2", {"ttl_security": 2, "multihop": None}),
        ("ttlSecurity: 0", {"ttl_security": None, "multihop": 64}),
        ("localASNumber: 64999", {"local_asn": 64999}),
        ("localASNumber: 64512", {"local_asn": None}),
        ("numAllowedLocalASNumbers: 2", {"allowed_own_asn": 2}),
        ("nextHopMode: Self", {"next_hop": "self"}),
        ("nextHopMode: Keep", {"next_hop": "keep"}),
        ("keepOriginalNextHop: true", {"next_hop": "keep"}),
        ("keepOriginalNextHop: true, localASNumber: 65000", {"next_hop": "auto"}),  # internal then
        ("keepOriginalNextHop: true, nextHopMode: Auto", {"next_hop": "auto"}),
    ],
)
def test_what_a_bgppeer_may_say(spec: str, expected: dict[str, Any]) -> None:
    text = NO_MESH + TWO + f"BGPPeer tor: {{peerIP: 192.0.2.1, asNumber: 65000{', ' if spec else ''}{spec}}}"
    peer = peer_of(text)
    assert {field: getattr(peer, field) for field in expected} == expected


def test_reachable_by_is_a_host_route() -> None:
    config = config_of(NO_MESH + TWO + "BGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65000, reachableBy: 10.0.0.254}")
    assert config.to_json()["static_routes"] == [{"prefix": "192.0.2.1/32", "next_hop": "10.0.0.254"}]


PORTS = """
BGPConfiguration default: {nodeToNodeMeshEnabled: false, listenPort: 1790}
BGPConfiguration node.b: {listenPort: 1791}
Node a: {bgp: {ipv4Address: 10.0.0.1}}
Node b: {bgp: {ipv4Address: 10.0.0.2}}
Node c: {bgp: {ipv4Address: 10.0.0.3, asNumber: 65003}}
"""


@pytest.mark.parametrize(
    ("address", "asn", "port", "why"),
    [
        ("10.0.0.2", 64512, 1791, "the node's own"),
        ("10.0.0.3", 65003, 1790, "the cluster's"),
        ("10.0.0.3", 64512, 179, "the AS is not that node's, so it is somebody else"),
        ("10.0.0.2:1800", 64512, 1800, "as written"),
        ("192.0.2.1", 64512, 179, "no node of ours"),
    ],
)
def test_which_port_is_dialled(address: str, asn: int, port: int, why: str) -> None:
    text = PORTS + f"BGPPeer p: {{node: a, peerIP: '{address}', asNumber: {asn}}}"
    assert peer_of(text).port == port, why


def test_where_a_node_listens() -> None:
    a, b = config_of(PORTS, "a").speaker, config_of(PORTS, "b").speaker
    assert (a.port, b.port, a.listen) == (1790, 1791, (ip_address("0.0.0.0"),))
    bound = config_of(PORTS.replace("listenPort: 1790", "bindMode: NodeIP"), "a").speaker
    assert (bound.port, bound.listen) == (179, (ip_address("10.0.0.1"),))


def test_a_node_that_is_named_by_peer_ip_peers_back() -> None:
    text = NO_MESH + TWO + "BGPPeer p: {node: a, peerIP: 10.0.0.2, asNumber: 64512, keepaliveTime: 10s, filters: [f]}"
    there, back = peers_of(text, "a"), peers_of(text, "b")
    assert list(there) == ["Node_10_0_0_2"]
    assert list(back) == ["Node_10_0_0_1"]
    peer = back["Node_10_0_0_1"]
    assert (peer.config.asn, peer.config.keepalive_s, peer.filters, peer.config.passive) == (64512, 10, ("f",), False)
    assert peers_of(text.replace("node: a", "node: a, reversePeering: Manual"), "b") == {}


@pytest.mark.parametrize(
    ("spec", "is_reversed"),
    [
        ("peerIP: '10.0.0.2:1791', asNumber: 64512", True),  # the node's port counts, whatever the cluster's
        ("peerIP: '10.0.0.2:1790', asNumber: 64512", False),
        ("peerIP: 10.0.0.2, asNumber: 65000", False),
        ("peerIP: 192.0.2.1, asNumber: 64512", False),
    ],
)
def test_when_a_node_takes_itself_to_be_meant(spec: str, is_reversed: bool) -> None:
    assert bool(peers_of(PORTS + f"BGPPeer p: {{node: a, {spec}}}", "b")) is is_reversed


def test_the_other_end_expects_the_local_as_number_of_the_bgppeer() -> None:
    text = NO_MESH + TWO + "BGPPeer p: {node: a, peerIP: 10.0.0.2, asNumber: 64512, localASNumber: 65009}"
    assert (peer_of(text, "a").local_asn, peer_of(text, "b").asn) == (65009, 65009)


def test_a_global_bgppeer_with_a_nodes_address_elects_who_dials() -> None:
    text = NO_MESH + TWO + "BGPPeer p: {peerIP: 10.0.0.2, asNumber: 64512}"
    assert [peer_of(text, "a").passive, peer_of(text, "b").passive] == [True, False]
    assert [peer_of(text, "a").name, peer_of(text, "b").name] == ["Global_10_0_0_2", "Node_10_0_0_1"]


def test_of_two_bgppeers_for_one_address_the_first_by_name_is_used_and_the_other_reported() -> None:
    text = NO_MESH + TWO
    text += "BGPPeer z: {peerIP: 192.0.2.1, asNumber: 65001}\nBGPPeer m: {peerIP: 192.0.2.1, asNumber: 65002}"
    config = config_of(text)
    assert [report.config.asn for report in config.peers] == [65002]
    assert problems_of(config) == ["BGPPeer z: spec.peerIP: BGPPeer m has this peer already; this one is not used"]
    both = text.replace("peerIP: 192.0.2.1, asNumber: 65001", "peerIP: '192.0.2.1:180', asNumber: 65001")
    assert set(peers_of(both)) == {"Global_192_0_2_1", "Global_192_0_2_1_port_180"}


def test_the_mesh_goes_before_a_nodes_bgppeer_and_a_global_one_before_the_mesh() -> None:
    assert list(peers_of(TWO + "BGPPeer p: {node: a, peerIP: 10.0.0.2, asNumber: 64512}")) == ["Mesh_10_0_0_2"]
    assert list(peers_of(TWO + "BGPPeer p: {peerIP: 10.0.0.2, asNumber: 64512}")) == ["Global_10_0_0_2"]


def secret(value: bytes, namespace: str = "kube-system") -> str:
    return f"Secret {namespace}/bgp: {{data: {{key: {base64.b64encode(value).decode()}}}}}\n"


WITH_PASSWORD = "BGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65000, password: {secretKeyRef: {name: bgp, key: key}}}\n"


def test_a_password_comes_from_the_secret_and_is_shown_nowhere() -> None:
    config = config_of(NO_MESH + TWO + WITH_PASSWORD + secret(b'qu"zzz'))
    assert config.speaker.peers[0].password == 'qu"zzz'
    assert config.peers[0].to_json()["password"] is True
    assert "zzz" not in str(config.to_json()) + repr(config)


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ("", "Secret kube-system/bgp does not exist"),
        (secret(b"x", "default"), "Secret kube-system/bgp does not exist"),
        (secret(b"x").replace("key:", "other:"), "Secret kube-system/bgp has no key"),
        (secret(b"x" * 81), "key has 81 octets"),
        (secret(b"\xff"), "key is not UTF-8"),
        ("Secret kube-system/bgp: {data: {key: '!'}}\n", "key is not base64"),
    ],
)
def test_a_session_without_its_password_is_held_down(there: str, reason: str) -> None:
    config = config_of(NO_MESH + TWO + WITH_PASSWORD + "BGPPeer other: {peerIP: 192.0.2.2, asNumber: 65000}\n" + there)
    held, free = config.speaker.peers
    assert held.shutdown == "waiting for its password"
    assert free.shutdown is None
    assert reason in problems_of(config)[0]
    assert "BGPPeer tor: spec.password" in problems_of(config)[0]


def test_the_meshs_password_and_restart_time() -> None:
    text = "BGPConfiguration default: {nodeMeshPassword: {secretKeyRef: {name: bgp, key: key}}, nodeMeshMaxRestartTime: 200s}\n"
    peer = peer_of(TWO + text + secret(b"mesh", "calico"), secret_namespace="calico")
    assert (peer.password, peer.restart_time_s) == ("mesh", 200)


WORKLOADS = """
Node a: {labels: {rack: x}, bgp: {ipv4Address: 10.0.0.1, ipv6Address: "fd00::1"}}
Profile kns.shop: {labelsToApply: {pcns.team: net}}
WorkloadEndpoint shop/w1: {node: a, interfaceName: cali1, ipNetworks: [10.1.0.1/32, "fd00:1::1/128", 10.1.0.9/32], profiles: [kns.shop], labels: {role: router}}
WorkloadEndpoint shop/w2: {node: a, interfaceName: cali2, ipNetworks: [10.1.0.2/32]}
WorkloadEndpoint shop/w3: {node: b, interfaceName: cali3, ipNetworks: [10.1.0.3/32], labels: {role: router}}
BGPPeer y: {localWorkloadSelector: "role == 'router'", asNumber: 65002}
BGPPeer x: {localWorkloadSelector: "pcns.team == 'net'", asNumber: 65001, localASNumber: 64000, filters: [f], keepaliveTime: 5s}
"""


def test_local_workloads_peer_with_their_node_which_waits_for_them() -> None:
    peers = peers_of(WORKLOADS)
    assert set(peers) == {"Local_Workload_10_1_0_1", "Local_Workload_fd00_1__1"}
    peer = peers["Local_Workload_10_1_0_1"].config
    assert (peer.asn, peer.local_asn, peer.passive, peer.source) == (65001, 64000, True, None)
    assert (peer.keepalive_s, peers["Local_Workload_10_1_0_1"].filters) == (None, ("f",))
    assert [str(key) for key in peers["Local_Workload_10_1_0_1"].origin[:2]] == [
        "BGPPeer x",
        "WorkloadEndpoint shop/w1",
    ]


def test_labels_of_a_namespace_reach_workloads_without_a_profile_too() -> None:
    text = WORKLOADS.replace(
        "Profile kns.shop: {labelsToApply: {pcns.team: net}}", "Namespace shop: {labels: {team: net}}"
    )
    assert set(peers_of(text)) == set(peers_of(WORKLOADS))


def test_where_workloads_find_their_node() -> None:
    text = "BGPConfiguration default: {localWorkloadPeeringIPV4: 169.254.1.9, localWorkloadPeeringIPV6: 'fd00::99'}"
    assert config_of(text).to_json()["workload_addresses"] == ["169.254.1.9", "fd00::99"]


@pytest.mark.parametrize(
    ("node", "wanted", "router_id"),
    [
        ("{bgp: {ipv4Address: 10.0.0.1/24}}", "", "10.0.0.1"),
        ("{bgp: {ipv4Address: 10.0.0.1/24}}", "hash", "25.79.212.8"),
        ("{bgp: {ipv4Address: 10.0.0.1/24}}", "192.0.2.9", "192.0.2.9"),
        ("{bgp: {ipv6Address: 'fd00::1'}}", "", "25.79.212.8"),
    ],
)
def test_the_router_id(node: str, wanted: str, router_id: str) -> None:
    config = config_of(f"Node kube-master: {node}", "kube-master", router_id=wanted)
    assert str(config.speaker.router_id) == router_id


def test_peers_with_the_same_filters_share_their_policies() -> None:
    text = TWO + "Node c: {bgp: {ipv4Address: 10.0.0.3}}"
    first, second = config_of(text).speaker.peers
    assert first.export_policy is second.export_policy
    assert first == replace(second, name=first.name, address=first.address, passive=first.passive)
