"""Which service addresses a node announces, and passes on."""

from __future__ import annotations

import pytest

from tests.integration.bgpconfig.cluster import MAX, config_of, verdict

BASE = """
Node a: {bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}}
Node b: {bgp: {ipv4Address: 10.0.0.2/24}}
BGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65000}
"""
RANGES = (
    "BGPConfiguration default: {serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: ''}], "
    "serviceExternalIPs: [{cidr: 198.51.100.0/24}, {cidr: 198.51.100.7/32}], "
    "serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}, {cidr: 203.0.114.9/32}]%s}\n"
)
WHOLE = ["10.96.0.0/16", "198.51.100.0/24", "203.0.113.0/24"]
SERVICE = (
    "Service shop/web: {type: LoadBalancer, clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5], externalIPs: [198.51.100.3, 8.8.8.8], "
    "ipFamilies: [IPv4], externalTrafficPolicy: Local, status: {loadBalancer: {ingress: [{ip: 203.0.113.5}]}}}\n"
)
SINGLE = ["10.96.0.5/32", "198.51.100.3/32", "203.0.113.5/32"]


def endpoints(node: str, name: str = "web-1", ready: str = "true", family: str = "IPv4") -> str:
    return (
        f"EndpointSlice shop/{name}: {{labels: {{kubernetes.io/service-name: web}}, addressType: {family}, "
        f"endpoints: [{{addresses: [10.1.0.1], nodeName: {node}, conditions: {{ready: {ready}}}}}]}}\n"
    )


def announced(text: str, node: str = "a", **environment: str) -> list[str]:
    return [str(one.network) for one in config_of(text, node, **environment).speaker.originate]


def test_ranges_are_announced_whole_but_for_single_addresses() -> None:
    assert announced(BASE + RANGES % "") == WHOLE
    assert announced(BASE + RANGES % ", serviceLoadBalancerAggregation: Disabled") == WHOLE[:2]
    assert announced(BASE, cluster_ips="10.97.0.0/16") == ["10.97.0.0/16"]
    one = config_of(BASE + RANGES % "").speaker.originate[0]
    assert (one.blackhole, one.local_pref) == (False, MAX - 1024)


@pytest.mark.parametrize(
    ("service", "slices", "found", "why"),
    [
        (SERVICE, endpoints("a"), SINGLE, "an endpoint here"),
        (SERVICE, endpoints("b"), [], "an endpoint elsewhere"),
        (SERVICE, endpoints("a", ready="false"), [], "an endpoint that is not ready"),
        (SERVICE, endpoints("a", ready="null"), SINGLE, "unknown is ready"),
        (SERVICE, endpoints("b") + endpoints("a", "web-2"), SINGLE, "all slices count"),
        (SERVICE, endpoints("a", family="IPv6"), [], "of a family that the service does not have"),
        (SERVICE, "", [], "no slices at all"),
        (SERVICE.replace("LoadBalancer, ", "ExternalName, "), endpoints("a"), [], "a type without addresses"),
        (SERVICE.replace("clusterIP: 10.96.0.5", "clusterIP: None"), endpoints("a"), [], "headless"),
        (
            SERVICE.replace("Policy: Local", "Policy: Cluster"),
            endpoints("a"),
            [],
            "any node will do: the range says it",
        ),
        (
            SERVICE.replace("Policy: Local", "Policy: Cluster").replace("203.0.113.5", "203.0.114.9"),
            "",
            ["10.96.0.5/32", "198.51.100.3/32", "203.0.114.9/32"],
            "a load balancer range of one address",
        ),
        (
            SERVICE.replace("Policy: Local", "Policy: Cluster").replace("198.51.100.3", "198.51.100.7"),
            "",
            ["10.96.0.5/32", "198.51.100.7/32", "203.0.113.5/32"],
            "an external range of one address",
        ),
    ],
)
def test_when_a_single_service_is_announced(service: str, slices: str, found: list[str], why: str) -> None:
    assert sorted(set(announced(BASE + RANGES % "" + service + slices)) - set(WHOLE)) == found, why


def test_without_aggregation_a_service_is_announced_by_every_node_while_it_has_endpoints() -> None:
    text = BASE + RANGES % ", serviceLoadBalancerAggregation: Disabled" + SERVICE.replace("Local", "Cluster")
    assert "203.0.113.5/32" in announced(text + endpoints("b"))
    assert "203.0.113.5/32" not in announced(text + endpoints("b", ready="false"))


def test_cluster_ips_are_announced_only_if_there_is_a_range_for_them() -> None:
    text = BASE + "BGPConfiguration default: {serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]}\n" + SERVICE
    assert announced(text + endpoints("a")) == ["203.0.113.0/24", "203.0.113.5/32"]


def test_kubernetes_may_call_the_node_otherwise() -> None:
    text = BASE.replace("Node a: {", "Node a: {orchRefs: [{nodeName: a.example, orchestrator: k8s}], ")
    assert "10.96.0.5/32" in announced(text + RANGES % "" + SERVICE + endpoints("a.example"))
    assert "10.96.0.5/32" in announced(BASE + RANGES % "" + SERVICE + endpoints("ref"), kubernetes_node="ref")


@pytest.mark.parametrize(("value", "is_excluded"), [("true", True), ("", True), ("yes", True), ("false", False)])
def test_an_excluded_node_announces_no_service(value: str, is_excluded: bool) -> None:
    label = f"labels: {{node.kubernetes.io/exclude-from-external-load-balancers: '{value}'}}, "
    text = BASE.replace("Node a: {", "Node a: {" + label) + RANGES % "" + SERVICE + endpoints("a")
    assert (announced(text) == []) is is_excluded
    tor = verdict(config_of(text), "Global_192_0_2_1", "10.96.0.5/32", source="ibgp")
    assert (tor is None) is is_excluded


def test_an_excluded_reflector_passes_on_what_others_announce() -> None:
    label = "labels: {node.kubernetes.io/exclude-from-external-load-balancers: 'true'}, "
    text = BASE.replace("Node a: {bgp: {", "Node a: {" + label + "bgp: {routeReflectorClusterID: 1.0.0.1, ")
    config = config_of(text + RANGES % "" + "BGPPeer in: {peerIP: 10.0.0.2, asNumber: 64512}\n")
    for prefix in ("10.96.0.5/32", "198.51.100.3/32", "203.0.114.9/32"):
        assert verdict(config, "Global_10_0_0_2", prefix, source="ibgp") is not None, prefix
    assert verdict(config, "Global_192_0_2_1", "10.96.0.5/32", source="ibgp") is None, "nor draws their traffic"
    assert verdict(config, "Global_10_0_0_2", "10.96.0.5/32", source="kernel") is None


def test_single_services_are_let_out_without_a_change_of_policy() -> None:
    text = (
        BASE
        + "BGPConfiguration default: {serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}], serviceLoadBalancerAggregation: Disabled}\n"
    )
    with_service = config_of(text + SERVICE + endpoints("a"))
    assert verdict(with_service, "Global_192_0_2_1", "203.0.113.5/32", source="originate") is not None
    assert verdict(with_service, "Global_192_0_2_1", "203.0.113.5/32", source="kernel") is None
    assert with_service.speaker.peers == config_of(text).speaker.peers
