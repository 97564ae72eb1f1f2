"""Routes, tunnel endpoints, hosts, pools, configuration."""

from __future__ import annotations

from typing import Any

import pytest

from felix import desired as d
from felix.calc.addresses import parse_net
from felix.calc.local import CalculationSettings
from felix.desired import Route, RouteType
from integration.resources.keys import Key
from tests.felix.calc.cluster import Cluster, block, node, pod, pool

HERE, THERE = node("n1", "192.168.0.1/24"), node("n2", "192.168.0.2/24")
FAR = node("n3", "192.168.9.3/24")
VXLAN = pool("pods", "10.0.0.0/16", vxlanMode="CrossSubnet", natOutgoing=True)
# 66 and the first five octets of `printf NAME | sha1sum`, for n2 and n3-v6.
MAC_OF_N2, MAC_OF_N3_V6 = "66:40:24:34:76:fc", "66:90:c0:29:2a:8a"
KEY = "QmFzZTY0IG9mIHRoaXJ0eS10d28gb2N0ZXRzLi4uISE="
REMOTE, LOCAL = RouteType(is_remote=True, is_workload=True), RouteType(is_local=True, is_workload=True)


def test_a_block_is_where_its_node_is_and_a_borrowed_address_where_its_user_is() -> None:
    cluster = Cluster(HERE, THERE, FAR, VXLAN, block("10.0.0.0/26", "host:n2", "n2", "n3", None))
    near = Route("10.0.0.0/26", REMOTE, "vxlan", "n2", "192.168.0.2", same_subnet=True, nat_outgoing=True)
    assert cluster.route("10.0.0.0/26") == near
    assert cluster.route("10.0.0.1/32") == Route(
        "10.0.0.1/32", REMOTE, "vxlan", "n3", "192.168.9.3", nat_outgoing=True, is_borrowed=True
    )
    assert "10.0.0.0/32" not in cluster.dataplane.of("route")
    said = cluster.add(block("10.0.0.0/26", "host:n3", "n2", "n3"))
    assert d.RouteRemove("10.0.0.1/32") in said
    assert cluster.route("10.0.0.0/26").node == "n3"
    assert cluster.route("10.0.0.0/32") == Route(
        "10.0.0.0/32", REMOTE, "vxlan", "n2", "192.168.0.2", True, nat_outgoing=True, is_borrowed=True
    )


def test_blocks_of_nobody_and_of_load_balancers_make_no_route_of_their_own() -> None:
    cluster = Cluster(
        HERE,
        block("10.0.0.0/30", None, "n1", None),
        block("10.0.0.4/30", "virtual:load-balancer", None, None),
        block("10.0.0.8/30", "host:n1"),
        (Key("IPAMBlock", "10.0.0.12-30"), {"cidr": "10.0.0.12/30", "affinity": "host:n1", "deleted": True}),
    )
    assert {destination for destination in cluster.dataplane.of("route") if destination.startswith("10.")} == {
        "10.0.0.0/32", "10.0.0.8/30",
    }  # fmt: skip


def test_a_local_workload_has_a_route_of_its_own() -> None:
    cluster = Cluster(HERE, THERE, VXLAN, block("10.0.0.0/26", "host:n1", "n1"), pod("p1", ["10.0.0.0/32"]))
    cluster.add(pod("p2", ["10.0.0.5/32"], node="n2"))
    assert cluster.route("10.0.0.0/26").type == LOCAL
    own = cluster.route("10.0.0.0/32")
    assert (own.type, own.is_local_workload, own.is_borrowed, own.node_ip) == (LOCAL, True, False, "192.168.0.1")
    assert "10.0.0.5/32" not in cluster.dataplane.of("route")


def test_with_workloads_as_source_every_workload_has_a_route_and_blocks_have_none() -> None:
    cluster = Cluster(
        HERE, THERE, VXLAN, block("10.0.0.0/26", "host:n1", "n1"), pod("p2", ["10.0.0.5/32"], node="n2"),
        settings=CalculationSettings(route_source="WorkloadIPs"),
    )  # fmt: skip
    assert cluster.route("10.0.0.5/32") == Route(
        "10.0.0.5/32", REMOTE, "vxlan", "n2", "192.168.0.2", same_subnet=True, nat_outgoing=True
    )
    assert "10.0.0.0/26" not in cluster.dataplane.of("route")


def test_a_tunnels_address_in_a_block_is_no_workload_and_in_a_block_of_its_own_is_both() -> None:
    tunnel = node("n2", "192.168.0.2/24", bgp={"ipv4IPIPTunnelAddr": "10.0.0.1"}, ipv4VXLANTunnelAddr="10.0.0.1")
    cluster = Cluster(HERE, tunnel, VXLAN, block("10.0.0.0/26", "host:n2", None, "n2"))
    found = cluster.route("10.0.0.1/32")
    assert found.type == RouteType(is_remote=True, is_tunnel=True)
    assert found.tunnel_types == {"vxlan", "ipip"}
    assert not found.is_borrowed
    cluster.add((Key("IPAMBlock", "10.0.0.0-26"), None), block("10.0.0.1/32", "host:n2", "n2"))
    assert cluster.route("10.0.0.1/32").type == RouteType(is_remote=True, is_workload=True, is_tunnel=True)
    cluster.add((Key("IPAMBlock", "10.0.0.1-32"), None), block("10.0.0.0/26", "host:n1", None, "n2"))
    assert cluster.route("10.0.0.1/32").is_borrowed


def test_hosts_and_pools_have_routes() -> None:
    both = node(
        "n2", "192.168.0.2/24", addresses=[{"address": "172.16.0.2", "type": "ExternalIP"}, {"address": "a-name"}]
    )
    cluster = Cluster(HERE, both, VXLAN, pool("lb", "10.9.0.0/16", allowedUses=["LoadBalancer"]))
    assert cluster.route("192.168.0.1/32") == Route(
        "192.168.0.1/32", RouteType(is_local=True, is_host=True), "", "n1", "192.168.0.1"
    )
    remote = RouteType(is_remote=True, is_host=True)
    assert cluster.route("172.16.0.2/32") == Route("172.16.0.2/32", remote, "", "n2", "192.168.0.2")
    assert cluster.route("10.0.0.0/16") == Route("10.0.0.0/16", pool="vxlan", nat_outgoing=True)
    assert "10.9.0.0/16" not in cluster.dataplane.of("route")


def test_two_nodes_with_one_address_are_told_apart_by_name_and_the_other_takes_over() -> None:
    cluster = Cluster(HERE, node("n9", "192.168.0.2/24"), THERE)
    assert cluster.route("192.168.0.2/32").node == "n2"
    cluster.remove(Key("Node", "n2"))
    assert cluster.route("192.168.0.2/32").node == "n9"


def test_another_subnet_or_pool_changes_the_routes_it_concerns_and_no_others() -> None:
    cluster = Cluster(
        HERE, THERE, VXLAN, pool("other", "10.1.0.0/16", ipipMode="Always"),
        block("10.0.0.0/26", "host:n2"), block("10.1.0.0/26", "host:n2"),
    )  # fmt: skip
    assert cluster.route("10.1.0.0/26") == Route("10.1.0.0/26", REMOTE, "ipip", "n2", "192.168.0.2")
    said = cluster.add(node("n1", "192.168.0.1/32"))
    assert [m.route for m in said if isinstance(m, d.RouteUpdate)] == [
        Route("10.0.0.0/26", REMOTE, "vxlan", "n2", "192.168.0.2", nat_outgoing=True)
    ]
    said = cluster.add(pool("pods", "10.0.0.0/16"))
    assert {m.route.destination for m in said if isinstance(m, d.RouteUpdate)} == {"10.0.0.0/16", "10.0.0.0/26"}
    assert cluster.route("10.0.0.0/26").pool == "none"


def test_a_pool_within_another_says_how_and_both_say_whether_to_masquerade() -> None:
    cluster = Cluster(
        HERE, THERE, VXLAN, pool("inner", "10.0.1.0/24", ipipMode="Always"), block("10.0.1.0/26", "host:n2")
    )
    found = cluster.route("10.0.1.0/26")
    assert (found.pool, found.nat_outgoing) == ("ipip", True)


def test_ipv6_goes_by_ipv6_addresses_and_the_ipv6_subnet() -> None:
    cluster = Cluster(
        node("n1", "192.168.0.1/24", bgp={"ipv6Address": "fd01::1/64"}),
        node("n2", "192.168.9.2/24", bgp={"ipv6Address": "fd01::2/64"}),
        pool("six", "fd00::/48", vxlanMode="CrossSubnet"),
        block("fd00::/122", "host:n2"),
    )
    assert cluster.route("fd00::/122") == Route("fd00::/122", REMOTE, "vxlan", "n2", "fd01::2", same_subnet=True)


def test_of_two_pools_with_one_cidr_the_first_by_name_counts() -> None:
    cluster = Cluster(pool("b", "10.0.0.0/16", ipipMode="Always"), pool("a", "10.0.0.0/16", natOutgoing=True))
    assert cluster.dataplane.of("pool")["10.0.0.0/16"].pool == d.Pool("10.0.0.0/16", masquerade=True)
    cluster.remove(Key("IPPool", "a"))
    assert cluster.dataplane.of("pool")["10.0.0.0/16"].pool == d.Pool("10.0.0.0/16", ipip="always")
    cluster.add(pool("b", "10.5.0.0/16"))
    assert list(cluster.dataplane.of("pool")) == ["10.5.0.0/16"]


def test_tunnel_endpoints_need_both_addresses_and_have_a_mac_of_their_own_or_calicos() -> None:
    cluster = Cluster(
        node("n2", "192.168.0.2/24", ipv4VXLANTunnelAddr="10.0.0.1"),
        node("n3", "192.168.0.3/24", ipv4VXLANTunnelAddr="10.0.0.2", vxlanTunnelMACAddr="66:aa:bb:cc:dd:ee",
             ipv6VXLANTunnelAddr="fd00::2", bgp={"ipv6Address": "fd01::3/64"}),
        node("n4", "192.168.0.4/24", ipv6VXLANTunnelAddr="fd00::3"),
    )  # fmt: skip
    found = {name: message.vtep for name, message in cluster.dataplane.of("vtep").items()}
    assert found["n2"] == d.VTEP("n2", "10.0.0.1", MAC_OF_N2, "192.168.0.2")
    assert found["n3"].mac == "66:aa:bb:cc:dd:ee"
    assert (found["n3"].ipv6, found["n3"].parent_ipv6, found["n3"].mac_v6) == ("fd00::2", "fd01::3", MAC_OF_N3_V6)
    assert "n4" not in found


def test_hosts_fall_back_to_kubernetes_addresses_without_bgp() -> None:
    addresses = [{"address": "1.2.3.4", "type": "ExternalIP"}, {"address": "10.9.0.5/16", "type": "InternalIP"}]
    plain = Key("Node", "n5"), {"metadata": {"labels": {"b": "2", "a": "1"}}, "spec": {"addresses": addresses}}
    cluster = Cluster(plain, node("n1", "192.168.0.1/24", bgp={"ipv4IPIPTunnelAddr": "10.0.0.1"}))
    hosts = {name: message.host for name, message in cluster.dataplane.of("host").items()}
    assert hosts["n5"] == d.Host("n5", "10.9.0.5", ipv4_subnet="10.9.0.0/16", labels=(("a", "1"), ("b", "2")))
    assert hosts["n1"] == d.Host("n1", "192.168.0.1", ipv4_subnet="192.168.0.0/24", ipip_address="10.0.0.1")


def test_wireguard_peers_are_nodes_with_a_key_or_an_address() -> None:
    key, value = node("n2", "192.168.0.2/24", wireguard={"interfaceIPv4Address": "10.0.0.7"})
    cluster = Cluster((key, {**value, "status": {"wireguardPublicKey": KEY}}), HERE)
    assert [message.peer for message in cluster.dataplane.of("wireguard").values()] == [
        d.WireguardPeer("n2", KEY, "10.0.0.7")
    ]
    assert cluster.route("10.0.0.7/32").tunnel_types == {"wireguard"}


def test_pools_say_which_tunnels_there_must_be() -> None:
    cluster = Cluster()
    assert cluster.dataplane.things["encapsulation",] == d.EncapsulationUpdate()
    cluster.add(pool("a", "10.0.0.0/16", ipipMode="Always"), pool("b", "fd00::/48", vxlanMode="Always"))
    assert cluster.dataplane.things["encapsulation",] == d.EncapsulationUpdate(ipip=True, vxlan_v6=True)


def test_configuration_comes_in_layers_and_selectors_ask_our_nodes_labels() -> None:
    def configuration(name: str, **spec: Any) -> tuple[Key, dict[str, Any]]:
        return Key("FelixConfiguration", name), {"spec": spec}

    key, value = node("n1", "192.168.0.1/24", ipv4VXLANTunnelAddr="10.0.0.1")
    labelled = key, {**value, "metadata": {"labels": {"rack": "1"}}}
    cluster = Cluster(
        configuration("default", logSeverityScreen="Debug", ipipEnabled=True),
        configuration("node.n1", wireguardEnabled=True), configuration("node.n2", wireguardEnabled=False),
        configuration("rack1", nodeSelector="rack == '1'", vxlanMTU=1400, routeRefreshInterval="1m"),
        configuration("also", nodeSelector="has(rack)", vxlanMTU=1300),
        configuration("nowhere", vxlanMTU=1),
        (Key("ClusterInformation", "default"), {"spec": {"clusterGUID": "abc", "clusterType": "k8s,bgp"}}),
    )  # fmt: skip
    config = cluster.dataplane.things["config",]
    assert config == d.ConfigUpdate(
        {"LogSeverityScreen": "Debug", "IpInIpEnabled": "true", "ClusterGUID": "abc", "ClusterType": "k8s,bgp"},
        {},
        {"WireguardEnabled": "true"},
    )
    said = cluster.add(labelled)
    assert isinstance(said[0], d.ConfigUpdate)
    assert said[0].by_selector == {"VXLANMTU": "1300", "RouteRefreshInterval": "60"}
    assert said[0].for_node == {"WireguardEnabled": "true", "IPv4VXLANTunnelAddr": "10.0.0.1"}


def test_networks_of_services_are_passed_on() -> None:
    spec = {"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "serviceLoadBalancerIPs": [{"cidr": "fd00::/112"}]}
    cluster = Cluster((Key("BGPConfiguration", "default"), {"spec": spec}))
    assert cluster.dataplane.things["cidrs",] == d.ServiceCIDRsUpdate(("10.96.0.0/12",), (), ("fd00::/112",))
    cluster.remove(Key("BGPConfiguration", "default"))
    assert cluster.dataplane.things["cidrs",] == d.ServiceCIDRsUpdate()


def test_addresses_at_which_workloads_find_their_node_are_passed_on() -> None:
    spec = {"localWorkloadPeeringIPV4": "169.254.9.1", "localWorkloadPeeringIPV6": "FD00::9:1"}
    cluster = Cluster((Key("BGPConfiguration", "default"), {"spec": spec}))
    assert cluster.dataplane.things["peering",] == d.WorkloadPeeringUpdate("169.254.9.1", "fd00::9:1")
    cluster.remove(Key("BGPConfiguration", "default"))
    assert cluster.dataplane.things["peering",] == d.WorkloadPeeringUpdate()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1/32"), ("10.0.0.1/8", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0"), ("FD00::0001", "fd00::1/128"),
        ("fd00::1/64", "fd00::/64"), ("::/0", "::/0"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4/128"),
    ],
)  # fmt: skip
def test_networks_are_written_canonically(text: str, canonical: str) -> None:
    assert str(parse_net(text)) in (canonical, canonical.replace("::ffff:1.2.3.4", "::ffff:102:304"))


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.01", "10.0.0.256", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1",
                                  "10.0.0.1/1_0", "１0.0.0.1", "10.0.0.1/٣", "fe80::1%eth0", "fd00::/129", " 10.0.0.1"])  # fmt: skip
def test_what_is_no_network_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_net(text)
