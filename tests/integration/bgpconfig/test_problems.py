"""What an operator sees of a resource that is wrong, and that nothing else suffers from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.bgpconfig.cluster import TWO, config_of, objects, problems_of, verdict

GOOD = TWO + "BGPPeer good: {peerIP: 192.0.2.1, asNumber: 65000}\nIPPool good: {cidr: 10.1.0.0/16}\n"
BAD = "BGPPeer bad: {peerIP: 192.0.2.2, asNumber: 65000, %s}\n"


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        ("BGPPeer bad: {peerIP: 192.0.2.2}", "spec.asNumber", "AS 0 is nobody's"),
        ("BGPPeer bad: {peerIP: 192.0.2.2, asNumber: 0}", "spec.asNumber", "this peer is left out"),
        ("BGPPeer bad: {peerIP: 192.0.2, asNumber: 1}", "spec.peerIP", "is not an IP address; this peer is left out"),
        ("BGPPeer bad: {peerIP: 'fe80::1', asNumber: 1}", "spec.peerIP", "is link-local"),
        ("BGPPeer bad: {peerIP: 0.0.0.0, asNumber: 1}", "spec.peerIP", "is no host's address"),
        ("BGPPeer bad: {peerIP: '192.0.2.2:0', asNumber: 1}", "spec.peerIP", "port 0"),
        ("BGPPeer bad: {asNumber: 1}", "spec", "names no other end"),
        ("BGPPeer bad: {nodeSelector: '((', peerIP: 192.0.2.2, asNumber: 1}", "spec.nodeSelector", "selects nothing"),
        ("BGPPeer bad: {peerSelector: 'a = b'}", "spec.peerSelector", "selects nothing"),
        ("BGPPeer bad: {peerIP: 192.0.2.2, asNumber: many}", "spec.asNumber", "is not an AS number"),
        ("Node bad: {bgp: {ipv4Address: 10.0.0.300}}", "spec.bgp.ipv4Address", "is not an IPv4 address"),
        ("Node bad: {bgp: {ipv6Address: 'fe80::1/64'}}", "spec.bgp.ipv6Address", "the node has no IPv6 for BGP"),
        ("IPPool bad: {cidr: 10.300.0.0/16}", "spec.cidr", "the pool is left out"),
        ("IPPool bad: {disabled: maybe, cidr: 10.9.0.0/16}", "spec.disabled", "is neither true nor false"),
        ("BGPConfiguration default: {asNumber: 0}", "spec.asNumber", "AS 0"),
        ("BGPConfiguration default: {asNumber: x}", "spec.asNumber", "is not an AS number"),
        (
            "BGPConfiguration default: {serviceClusterIPs: [{cidr: 10.96/16}]}",
            "spec.serviceClusterIPs[0].cidr",
            "ignored",
        ),
        ("BGPConfiguration default: {ignoredInterfaces: ['*']}", "spec.ignoredInterfaces", "ignored"),
        ("BGPConfiguration other: {}", "metadata.name", "passed over"),
        (
            "BGPConfiguration node.a: {asNumber: 5}",
            "spec.asNumber",
            "can only be set on the BGPConfiguration named default",
        ),
        (
            "Service shop/bad: {clusterIP: 10.96.0, externalTrafficPolicy: Local}\nEndpointSlice shop/bad: {labels: {kubernetes.io/service-name: bad}, addressType: IPv4, endpoints: [{nodeName: a}]}",
            "spec.clusterIPs[0]",
            "is not an IP address",
        ),
    ],
)
def test_one_broken_resource_is_named_and_the_rest_stands(bad: str, field: str, reason: str) -> None:
    config, without = config_of(GOOD + bad), config_of(GOOD)
    key, _ = objects(bad)[0]
    assert [(one.key, one.field) for one in config.problems] == [(key, field)]
    assert reason in config.problems[0].reason
    assert replace(config.speaker, peers=()) == replace(without.speaker, peers=()) or key.kind == "BGPConfiguration"
    assert [report.config for report in config.peers] == [report.config for report in without.peers]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("spec.maxRestartTime", "maxRestartTime: soon"),
        ("spec.maxRestartTime", "maxRestartTime: 2h"),
        ("spec.keepaliveTime", "keepaliveTime: 300s"),
        ("spec.ttlSecurity", "ttlSecurity: 255"),
        ("spec.reachableBy", "reachableBy: 'fd00::1'"),
        ("spec.localASNumber", "localASNumber: 0"),
        ("spec.filters[0]", "filters: [nowhere]"),
        ("spec.nextHopMode", "nextHopMode: Somehow"),
    ],
)
def test_what_is_not_essential_is_left_out_of_a_peer(field: str, text: str) -> None:
    config = config_of(GOOD + BAD % text)
    assert [one.field for one in config.problems] == [field]
    good, bad = (one for one in config.speaker.peers if one.name.startswith("Global"))
    assert bad == replace(good, name=bad.name, address=bad.address)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("cidr: 10.9.0.0/33, matchOperator: In, action: Accept", "cidr"),
        ("cidr: 'fd00::/8', matchOperator: In, action: Accept", "cidr"),
        ("cidr: 10.9.0.0/16, action: Accept", "matchOperator"),
        ("cidr: 10.9.0.0/16, matchOperator: Near, action: Accept", "matchOperator"),
        ("matchOperator: In, action: Accept", "cidr"),
        ("action: Perhaps", "action"),
        ("source: Kernel, action: Accept", "source"),
        ("peerType: other, action: Accept", "peerType"),
        ("communities: {values: ['1:2', '3:4']}, action: Accept", "communities.values"),
        ("communities: {values: ['1:70000']}, action: Accept", "communities.values[0]"),
        ("action: Accept, operations: [{}]", "operations[0]"),
        ("action: Accept, operations: [{setPriority: {value: 0}}]", "operations[0].setPriority.value"),
    ],
)
def test_a_filter_lets_nothing_past_a_rule_that_cannot_be_understood(rule: str, field: str) -> None:
    first = "cidr: 10.8.0.0/16, matchOperator: In, action: Accept"
    text = GOOD.replace("asNumber: 65000", "asNumber: 65000, filters: [f]")
    config = config_of(text + f"BGPFilter f: {{exportV4: [{{{first}}}, {{{rule}}}, {{action: Accept}}]}}")
    assert {one.field for one in config.problems} == {f"spec.exportV4[1].{field}"}
    assert verdict(config, "Global_192_0_2_1", "10.8.0.0/24") is not None
    assert verdict(config, "Global_192_0_2_1", "10.1.0.0/26") is None
    assert verdict(config, "Mesh_10_0_0_2", "10.1.0.0/26") is not None


def test_a_filter_that_cannot_be_read_lets_nothing_past() -> None:
    text = GOOD.replace("asNumber: 65000", "asNumber: 65000, filters: [f]")
    config = config_of(text + "BGPFilter f: {exportV4: [{action: Accept, priority: high}]}")
    assert problems_of(config) == [
        "BGPFilter f: spec.exportV4[0].priority: is not a whole number",
        "BGPPeer good: spec.filters[0]: BGPFilter f cannot be read; no route passes",
    ]
    assert verdict(config, "Global_192_0_2_1", "10.1.0.0/26") is None
    assert verdict(config, "Global_192_0_2_1", "10.1.0.0/26", "import") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Node a: does not exist; this node has no addresses, and so no peers"),
        ("Node a: {}", "Node a: spec.bgp: has no address; this node has no peers"),
        (
            "Node a: {bgp: {ipv4Address: 10.0.0.1, routeReflectorClusterID: one}}",
            "Node a: spec.bgp.routeReflectorClusterID: 'one' is not an IP address; the router ID is used",
        ),
    ],
)
def test_what_is_wrong_with_the_node_itself(text: str, problem: str) -> None:
    config = config_of(text)
    assert problems_of(config) == [problem]
    assert config.speaker.peers == ()


def test_a_field_that_cannot_be_read_does_not_take_the_configuration_with_it() -> None:
    config = config_of(
        TWO + "BGPConfiguration default: {asNumber: 65001, listenPort: many, nodeToNodeMeshEnabled: true}"
    )
    assert (config.speaker.asn, config.speaker.port) == (65001, 179)
    assert problems_of(config) == ["BGPConfiguration default: spec.listenPort: is not a whole number"]
