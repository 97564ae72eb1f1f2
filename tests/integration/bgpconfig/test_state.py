"""A configuration that is kept up to date is the one that would be made anew; what a change does not touch stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.bgpconfig import Environment, NodeState, Snapshot, build
from integration.resources.keys import Key
from tests.integration.bgpconfig.cluster import TWO, is_written, objects, snapshot_of

# A few names and values each, so that changes meet: selectors, addresses that move, ports, reflectors, filters, secrets.
POOL = """
Node a: {labels: {rack: x}, bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}}
---
Node a: {labels: {rack: y, rr: "1"}, bgp: {ipv4Address: 10.0.0.1/24, routeReflectorClusterID: 1.0.0.1}}
---
Node a: {labels: {node.kubernetes.io/exclude-from-external-load-balancers: "true"}, bgp: {ipv4Address: 10.0.0.2, asNumber: 65001}, wireguard: {interfaceIPv4Address: 10.1.0.1}}
---
Node b: {labels: {rack: x}, bgp: {ipv4Address: 10.0.0.2/24}, wireguard: {interfaceIPv4Address: 10.1.0.2}}
---
Node b: {labels: {rack: y, rr: "1"}, bgp: {ipv4Address: 10.0.0.3/24, ipv6Address: "fd00::3", routeReflectorClusterID: 1.0.0.1, asNumber: 65002}}
---
Node c: {labels: {rack: y}, bgp: {ipv4Address: 10.0.0.2, ipv6Address: "fe80::1"}}
---
Node c: {labels: {rr: "1"}, bgp: {ipv4Address: 10.0.0.3}, orchRefs: [{nodeName: q, orchestrator: k8s}]}
---
BGPConfiguration default: {nodeToNodeMeshEnabled: false, listenPort: 180, serviceClusterIPs: [{cidr: 10.96.0.0/16}]}
---
BGPConfiguration default: {asNumber: 65002, nodeMeshPassword: {secretKeyRef: {name: s, key: k}}, programClusterRoutes: Enabled, prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: ["1:1"]}], bindMode: NodeIP}
---
BGPConfiguration default: {listenPort: many}
---
BGPConfiguration node.b: {listenPort: 181}
---
BGPConfiguration node.a: {listenPort: 182, prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: ["2:2"]}]}
---
BGPPeer p: {peerIP: 10.0.0.2, asNumber: 64512, filters: [f]}
---
BGPPeer p: {nodeSelector: "rack == 'y'", peerSelector: has(rr), filters: [f, g]}
---
BGPPeer p: {peerIP: nowhere, asNumber: 1}
---
BGPPeer q: {node: b, peerIP: "10.0.0.1:182", asNumber: 64512, localASNumber: 65009}
---
BGPPeer q: {peerIP: 10.0.0.2, asNumber: 65002, password: {secretKeyRef: {name: s, key: k}}}
---
BGPPeer q: {localWorkloadSelector: has(w), asNumber: 65005, filters: [g]}
---
BGPPeer r: {nodeSelector: has(rr), peerSelector: "rack == 'x'", reversePeering: Manual, password: {secretKeyRef: {name: s, key: j}}}
---
BGPPeer r: {localWorkloadSelector: all(), asNumber: 65006, node: a}
---
BGPFilter f: {exportV4: [{cidr: 10.9.0.0/16, matchOperator: In, action: Accept}], importV6: [{action: Reject}]}
---
BGPFilter f: {exportV4: [{action: Perhaps}]}
---
BGPFilter f: {exportV4: nothing}
---
BGPFilter g: {importV4: [{action: Accept, operations: [{setPriority: {value: 5}}]}]}
---
IPPool i: {cidr: 10.1.0.0/16}
---
IPPool i: {cidr: 10.1.0.0/16, ipipMode: Always}
---
IPPool j: {cidr: 10.2.0.0/16, disableBGPExport: true}
---
BlockAffinity host:a/10.1.0.0-26: {state: confirmed}
---
BlockAffinity host:a/10.1.0.0-26: {state: pending}
---
BlockAffinity host:b/10.1.1.0-26: {state: confirmed}
---
Secret kube-system/s: {data: {k: eA==}}
---
Secret kube-system/s: {data: {k: eQ==, j: eA==}}
---
Service shop/web: {type: ClusterIP, clusterIP: 10.96.0.5, externalTrafficPolicy: Local}
---
EndpointSlice shop/e: {labels: {kubernetes.io/service-name: web}, addressType: IPv4, endpoints: [{nodeName: a}]}
---
EndpointSlice shop/e: {labels: {kubernetes.io/service-name: other}, addressType: IPv4, endpoints: [{nodeName: a}]}
---
WorkloadEndpoint shop/w: {node: a, interfaceName: cali1, ipNetworks: [10.1.0.1/32], profiles: [kns.shop]}
---
WorkloadEndpoint shop/w: {node: b, interfaceName: cali1, ipNetworks: [10.1.0.1/32], labels: {w: "1"}}
---
Profile kns.shop: {labelsToApply: {w: "1"}}
---
Namespace shop: {}
"""
VALUES: list[tuple[Key, dict[str, Any]]] = [entry for text in POOL.split("---") for entry in objects(text)]
changes = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(VALUES).map(lambda entry: (entry[0], None)),
)


def test_a_node_that_goes_with_a_change_that_concerns_all_peers_leaves_none() -> None:
    state = NodeState("a")
    for text in (
        'Node a: {labels: {rr: "1"}, bgp: {ipv4Address: 10.0.0.1/24}}',
        "Node b: {labels: {rack: x}, bgp: {ipv4Address: 10.0.0.2/24}}",
        """BGPPeer r: {nodeSelector: has(rr), peerSelector: "rack == 'x'"}""",
    ):
        for key, value in objects(text):
            state.apply_json(key, value)
    assert [str(peer.address) for peer in state.config().speaker.peers] == ["10.0.0.2"]
    for key, value in objects("BGPConfiguration default: {nodeToNodeMeshEnabled: false}"):
        state.apply_json(key, value)
    state.apply_json(Key("Node", "b"), None)
    assert state.config().speaker.peers == ()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(VALUES), min_size=8, max_size=25),
    st.lists(st.lists(changes, min_size=1, max_size=4), min_size=1, max_size=8),
)
def test_after_any_history_it_is_what_a_fresh_build_makes(
    first: list[tuple[Key, Any]], history: list[list[tuple[Key, Any]]]
) -> None:
    state, now = NodeState("a"), dict[Key, Any]()
    for batch in [first, *history]:
        for key, value in batch:
            state.apply_json(key, value)
            now[key] = value
        snapshot = Snapshot()
        for key, value in now.items():
            snapshot.apply_json(key, value)
        assert state.config() == build(snapshot, "a")
        assert state.config().to_json() == build(snapshot, "a").to_json()


@given(st.permutations(VALUES[::2]))
@settings(max_examples=20, deadline=None)
def test_the_order_of_resources_makes_no_difference(values: list[tuple[Key, Any]]) -> None:
    """But for two of one name, of which the later counts."""
    held = dict(VALUES[::2])
    first, second = Snapshot(), Snapshot()
    for key, _ in values:
        first.apply_json(key, held[key])
    for key, value in held.items():
        second.apply_json(key, value)
    assert build(first, "a", Environment()) == build(second, "a", Environment())


def state_of(text: str) -> NodeState:
    return NodeState("a", snapshot=snapshot_of(text))


def apply(state: NodeState, text: str) -> None:
    for key, value in objects(text):
        state.apply_json(key, value)


BASE = (
    TWO
    + "Node c: {labels: {rr: '1'}, bgp: {ipv4Address: 10.0.0.3/24}}\nBGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65000, filters: [f]}\n"
)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("Node d: {bgp: {ipv4Address: 10.0.0.4}}", {"Mesh_10_0_0_4"}),
        ("Node c: {bgp: {ipv4Address: 10.0.0.3, asNumber: 65001}}", {"Mesh_10_0_0_3"}),
        ("BGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65001, filters: [f]}", {"Global_192_0_2_1"}),
        ("BGPFilter f: {exportV4: [{action: Accept}]}", {"Global_192_0_2_1"}),
        ("BGPFilter unused: {exportV4: [{action: Accept}]}", set()),
        ("Service shop/web: {clusterIP: 10.96.0.5, externalTrafficPolicy: Local}", set()),
        ("BlockAffinity host:b/10.1.0.0-26: {}", set()),
        ("Node c: {labels: {rr: '2'}, bgp: {ipv4Address: 10.0.0.3/24}}", set()),
    ],
)
def test_a_change_leaves_the_other_peers_the_objects_they_were(change: str, changed: set[str]) -> None:
    state = state_of(BASE)
    before = {report.config.name: report for report in state.config().peers}
    apply(state, change)
    after = {report.config.name: report for report in state.config().peers}
    assert {name for name, report in after.items() if report is not before.get(name)} == changed


def test_a_node_that_takes_over_the_address_of_a_peer_makes_it_one_of_ours() -> None:
    text = "BGPConfiguration default: {nodeToNodeMeshEnabled: false, listenPort: 1790}\n"
    state = state_of(text + "Node a: {bgp: {ipv4Address: 10.0.0.1}}\nBGPPeer p: {peerIP: 10.0.0.9, asNumber: 64512}")
    assert [(peer.port, peer.passive) for peer in state.config().speaker.peers] == [(179, False)]
    apply(state, "Node d: {bgp: {ipv4Address: 10.0.0.9}}")
    assert [(peer.port, peer.passive) for peer in state.config().speaker.peers] == [(1790, True)]
    state.apply(Key("Node", "d"), None)
    assert [(peer.port, peer.passive) for peer in state.config().speaker.peers] == [(179, False)]


def test_a_node_that_turns_wireguard_on_is_left_to_felix() -> None:
    text = TWO.replace("Node a: {", "Node a: {wireguard: {interfaceIPv4Address: 10.1.0.1}, ")
    state, hop = state_of(text), bytes([10, 0, 0, 2])
    assert is_written(state.config(), "10.1.0.0/26", next_hop=hop)
    apply(state, "Node b: {wireguard: {interfaceIPv4Address: 10.1.0.2}, bgp: {ipv4Address: 10.0.0.2/24}}")
    assert not is_written(state.config(), "10.1.0.0/26", next_hop=hop)


def test_what_changes_nothing_gives_the_same_configuration() -> None:
    state = state_of(BASE)
    before = state.config()
    apply(
        state, "Secret kube-system/other: {data: {}}\nNode b: {status: {podCIDRs: []}, bgp: {ipv4Address: 10.0.0.2/24}}"
    )
    assert state.config() is before


def test_a_password_that_arrives_lets_its_session_go_and_no_other() -> None:
    text = BASE + "BGPPeer in: {peerIP: 192.0.2.9, asNumber: 64512, password: {secretKeyRef: {name: s, key: k}}}"
    state = state_of(text)
    held = {peer.name: peer for peer in state.config().speaker.peers}
    apply(state, "Secret kube-system/s: {data: {k: eA==}}")
    after = {peer.name: peer for peer in state.config().speaker.peers}
    assert (held["Global_192_0_2_9"].shutdown, after["Global_192_0_2_9"].shutdown) == ("waiting for its password", None)
    assert after["Global_192_0_2_9"].password == "x"
    assert all(after[name] is held[name] for name in held if name != "Global_192_0_2_9")
    assert state.config().problems[0].key.name == "tor", "only the filter is missing now"
