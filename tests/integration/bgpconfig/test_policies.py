"""What nodes tell peers, take from them and write into the kernel, as Calico's BIRD filters decide it."""

from __future__ import annotations

from typing import Any

import pytest

from bgp.config import RouteSetting
from bgp.policy.communities import parse_community
from tests.integration.bgpconfig.cluster import MAX, config_of, is_written, verdict

CLUSTER = """
Node a: {bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}}
Node b: {bgp: {ipv4Address: 10.0.0.2/24, ipv6Address: "fd00::2/64"}}
IPPool plain: {cidr: 10.1.0.0/16}
IPPool ipip: {cidr: 10.2.0.0/16, ipipMode: CrossSubnet}
IPPool vxlan: {cidr: 10.3.0.0/16, vxlanMode: Always}
IPPool closed: {cidr: 10.4.0.0/16, disableBGPExport: true}
IPPool off: {cidr: 10.5.0.0/16, disabled: true}
IPPool six: {cidr: "fd10::/48"}
BlockAffinity host:a/10.1.0.0-26: {state: confirmed}
BlockAffinity host:a/10.1.0.64-26: {state: pending}
BlockAffinity host:a/10.1.0.128-26: {state: pendingDeletion}
BlockAffinity host:a/10.1.9.9-32: {}
BlockAffinity host:a/10.2.0.0-26: {state: confirmed}
BlockAffinity host:b/10.1.1.0-26: {state: confirmed}
BlockAffinity host:a/fd10::-122: {state: confirmed}
BGPPeer tor: {peerIP: 192.0.2.1, asNumber: 65000, filters: [f]}
BGPPeer tor6: {peerIP: "2001:db8::1", asNumber: 65000, filters: [f]}
"""
TOR, MESH = "Global_192_0_2_1", "Mesh_10_0_0_2"
ACCEPTED = RouteSetting()


@pytest.mark.parametrize(
    ("prefix", "route", "tor", "mesh", "why"),
    [
        ("10.1.0.0/26", {}, True, True, "an own block"),
        ("10.1.0.5/32", {"interface": "cali1"}, False, False, "a workload in an own block"),
        ("10.1.0.5/32", {"interface": "cali1", "local_pref": MAX - 512}, True, True, "it is migrating"),
        ("10.1.0.5/32", {"local_pref": MAX - 1023}, True, True, "just better than normal"),
        ("10.1.9.9/32", {"interface": "cali1"}, True, True, "a block of one address"),
        ("10.1.0.70/32", {"interface": "cali1"}, True, True, "a block that is only pending is none yet"),
        ("10.1.0.130/32", {"interface": "cali1"}, True, True, "a block that goes holds nothing back"),
        ("10.1.1.7/32", {"interface": "cali1"}, True, True, "an address borrowed from another's block"),
        ("10.1.1.0/26", {"source": "ibgp", "local_pref": 100}, True, True, "another's block"),
        ("10.3.0.0/26", {"interface": "vxlan.calico"}, True, False, "through a tunnel"),
        ("10.2.1.0/26", {"interface": "tunl0"}, True, False, "through IPIP, which Felix writes"),
        ("10.1.1.0/26", {"interface": "wireguard.cali"}, True, False, "through WireGuard"),
        ("10.1.1.1/32", {"interface": "bpfin.cali"}, False, False, "the BPF dataplane's"),
        ("10.4.0.0/26", {}, False, False, "disableBGPExport"),
        ("10.5.0.0/26", {}, True, True, "disabled is for allocation only"),
        ("0.0.0.0/0", {}, False, False, "nobody's"),
        ("192.168.0.0/24", {"source": "ebgp"}, False, False, "what an outside router told"),
        ("10.0.0.0/15", {}, False, False, "larger than a pool"),
    ],
)
def test_what_a_peer_is_told(prefix: str, route: dict[str, Any], tor: bool, mesh: bool, why: str) -> None:
    config = config_of(CLUSTER)
    assert (verdict(config, TOR, prefix, **route) is not None) is tor, why
    assert (verdict(config, MESH, prefix, **route) is not None) is mesh, why


def test_families_have_policies_of_their_own() -> None:
    config = config_of(CLUSTER)
    assert verdict(config, "Mesh_fd00__2", "fd10::/122") == ACCEPTED
    assert verdict(config, "Mesh_fd00__2", "fd10::1/128") is None
    assert verdict(config, "Mesh_fd00__2", "fd11::/122") is None


def test_with_ipip_programmed_by_the_speaker_tunl0_is_no_secret() -> None:
    config = config_of(CLUSTER + "BGPConfiguration default: {programClusterRoutes: Enabled}")
    assert verdict(config, MESH, "10.2.1.0/26", interface="tunl0") == ACCEPTED


def test_own_blocks_are_originated_with_their_priority_and_a_blackhole_where_the_speaker_writes_routes() -> None:
    config = config_of(CLUSTER + "BGPConfiguration default: {ipv6NormalRoutePriority: 2000}")
    found = {str(one.network): (one.blackhole, one.local_pref) for one in config.speaker.originate}
    assert found == {
        "10.1.0.0/26": (True, MAX - 1024),
        "10.1.0.128/26": (True, MAX - 1024),
        "10.2.0.0/26": (False, MAX - 1024),  # Felix's
        "fd10::/122": (True, MAX - 2000),
    }


def test_blocks_are_the_nodes_pod_networks_where_kubernetes_allocates() -> None:
    text = CLUSTER.replace(
        'Node a: {bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}}',
        "Node a: {bgp: {ipv4Address: 10.0.0.1/24}, status: {podCIDRs: [10.1.7.0/24]}}",
    )
    config = config_of(text, uses_pod_cidr=True)
    assert [str(one.network) for one in config.speaker.originate] == ["10.1.7.0/24"]
    assert verdict(config, TOR, "10.1.7.1/32") is None


@pytest.mark.parametrize(
    ("programs", "written"),
    [
        ("", ["10.1.1.0/26"]),
        ("EnabledNoEncapOnly", ["10.1.1.0/26"]),
        ("EnabledIPIPOnly", ["10.2.1.0/26"]),
        ("Enabled", ["10.1.1.0/26", "10.2.1.0/26"]),
        ("Disabled", []),
        ("nonsense", ["10.1.1.0/26"]),
    ],
)
def test_which_routes_the_speaker_writes(programs: str, written: list[str]) -> None:
    config = config_of(CLUSTER + f"BGPConfiguration default: {{programClusterRoutes: '{programs}'}}")
    asked = ["10.1.1.0/26", "10.2.1.0/26", "10.3.1.0/26"]
    assert [prefix for prefix in asked if is_written(config, prefix)] == written
    assert is_written(config, "172.16.0.0/12"), "what is in no pool is written"


@pytest.mark.parametrize(("mode", "direct"), [("Always", None), ("CrossSubnet", "10.0.0.0/24")])
def test_routes_of_ipip_pools_that_the_speaker_writes_go_through_the_tunnel(mode: str, direct: str | None) -> None:
    text = CLUSTER.replace("ipipMode: CrossSubnet", f"ipipMode: {mode}")
    kernel = config_of(text + "BGPConfiguration default: {programClusterRoutes: Enabled}").to_json()["kernel"]
    assert kernel["tunnels"] == [
        {"prefix": "10.2.0.0/16", "interface": "tunl0"} | ({"direct": direct} if direct else {})
    ]
    assert "tunnels" not in config_of(text).to_json()["kernel"]


SERVICES = "BGPConfiguration default: {serviceClusterIPs: [{cidr: 10.96.0.0/16}], serviceLoadBalancerIPs: [{cidr: 203.0.113.7/32}]}\n"


def test_no_route_to_a_service_is_written() -> None:
    config = config_of(CLUSTER + SERVICES)
    assert not is_written(config, "10.96.0.0/16")
    assert not is_written(config, "10.96.0.1/32")
    assert not is_written(config, "203.0.113.7/32")


def test_nodes_behind_wireguard_are_left_to_felix_if_both_ends_have_it() -> None:
    text = CLUSTER.replace("Node b: {", "Node b: {wireguard: {interfaceIPv4Address: 10.1.1.1}, ")
    both = text.replace("Node a: {", "Node a: {wireguard: {interfaceIPv4Address: 10.1.0.1}, ")
    hop = {"next_hop": bytes([10, 0, 0, 2])}
    assert is_written(config_of(text), "10.1.1.0/26", **hop)
    assert not is_written(config_of(both), "10.1.1.0/26", **hop)
    assert is_written(config_of(both), "10.1.1.0/26", next_hop=bytes([10, 0, 0, 3]))


def test_metrics_and_priorities() -> None:
    kernel = config_of(CLUSTER + "BGPConfiguration default: {ipv4NormalRoutePriority: 500}").speaker.kernel
    assert kernel is not None
    assert (kernel.priority_base, kernel.metric, kernel.route_protocol, kernel.persist) == (MAX, 500, 12, True)
    config = config_of(CLUSTER + "BGPConfiguration default: {ipv4NormalRoutePriority: 500}")
    assert verdict(config, TOR, "10.1.0.5/32", local_pref=MAX - 499) == ACCEPTED
    assert verdict(config, TOR, "10.1.0.5/32", local_pref=MAX - 512) is None


def test_ignored_interfaces_and_workloads_are_no_subnets_to_announce() -> None:
    kernel = config_of("BGPConfiguration default: {ignoredInterfaces: ['docker*', '*']}").speaker.kernel
    assert kernel is not None
    refused = [rule.interface for rule in kernel.learn if rule.protocol == 2]
    assert refused == ["docker*", "cali*", "kube-ipvs*"]


def filters(direction: str, *rules: str) -> str:
    return CLUSTER + f"BGPFilter f: {{{direction}V4: [{', '.join('{' + rule + '}' for rule in rules)}]}}\n"


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        ("cidr: 10.9.0.0/16, matchOperator: Equal", ("10.9.0.0/16", {}), ("10.9.0.0/24", {})),
        ("cidr: 10.9.0.0/16, matchOperator: NotEqual", ("10.9.0.0/24", {}), ("10.9.0.0/16", {})),
        ("cidr: 10.9.0.0/16, matchOperator: In", ("10.9.1.1/32", {}), ("10.8.0.0/15", {})),
        ("cidr: 10.9.0.0/16, matchOperator: NotIn", ("10.8.0.0/16", {}), ("10.9.3.0/24", {})),
        (
            "cidr: 10.9.0.0/16, matchOperator: In, prefixLength: {min: 20, max: 24}",
            ("10.9.0.0/24", {}),
            ("10.9.0.0/25", {}),
        ),
        ("cidr: 10.9.0.0/16, matchOperator: In, prefixLength: {min: 8}", ("10.9.0.0/16", {}), ("10.8.0.0/15", {})),
        ("cidr: 10.9.0.0/16, matchOperator: In, prefixLength: {max: 24}", ("10.9.0.0/16", {}), ("10.9.0.0/25", {})),
        ("cidr: 10.9.0.0/16, matchOperator: NotIn, prefixLength: {min: 24}", ("10.9.0.0/16", {}), ("10.9.0.0/24", {})),
        ("source: RemotePeers", ("10.9.0.0/16", {"source": "ebgp"}), ("10.9.0.0/16", {"source": "kernel"})),
        ("source: RemotePeers", ("10.9.0.0/16", {"source": "ibgp"}), ("10.9.0.0/16", {"source": "originate"})),
        ("interface: 'eth*'", ("10.9.0.0/16", {"interface": "eth1"}), ("10.9.0.0/16", {"interface": "ens1"})),
        ("interface: '*'", ("10.9.0.0/16", {"interface": "eth1"}), ("10.9.0.0/16", {"interface": ""})),
        ("priority: 512", ("10.9.0.0/16", {"local_pref": MAX - 512}), ("10.9.0.0/16", {})),
        (
            "asPathPrefix: [65001, 65002]",
            ("10.9.0.0/16", {"as_path": (65001, 65002, 1)}),
            ("10.9.0.0/16", {"as_path": (65002,)}),
        ),
        (
            "communities: {values: ['1:2']}",
            ("10.9.0.0/16", {"communities": parse_community("1:2")}),
            ("10.9.0.0/16", {}),
        ),
        (
            "communities: {values: ['1:2:3']}",
            ("10.9.0.0/16", {"large_communities": parse_community("1:2:3")}),
            ("10.9.0.0/16", {}),
        ),
        (
            "cidr: 10.9.0.0/16, matchOperator: In, source: RemotePeers",
            ("10.9.0.0/16", {"source": "ebgp"}),
            ("10.9.0.0/16", {}),
        ),
    ],
)
@pytest.mark.parametrize("direction", ["export", "import"])
def test_each_match_of_a_filter(direction: str, rule: str, matching: tuple[str, Any], other: tuple[str, Any]) -> None:
    """Accepted by the filter means accepted with what its operations set."""
    config = config_of(filters(direction, f"{rule}, action: Accept, operations: [{{addCommunity: {{value: '7:7'}}}}]"))
    kernel = {"source": "kernel", "local_pref": 1, "as_path": ()}
    for prefix, route, is_matching in ((*matching, True), (*other, False)):
        setting = verdict(config, TOR, prefix, direction, **(kernel | route))
        added = setting.add_communities if setting is not None else ()
        assert added == ((parse_community("7:7"),) if is_matching else ()), (prefix, route)


def test_peer_type_is_that_of_the_session() -> None:
    text = filters("export", "peerType: eBGP, action: Reject", "action: Accept")
    text += "BGPPeer inside: {peerIP: 192.0.2.9, asNumber: 64512, filters: [f]}\n"
    config = config_of(text)
    assert verdict(config, TOR, "10.1.0.0/26") is None
    assert verdict(config, "Global_192_0_2_9", "10.1.0.0/26") == ACCEPTED


def test_operations_in_their_order() -> None:
    rule = (
        "action: Accept, operations: [{addCommunity: {value: '1:2'}}, {addCommunity: {value: '1:2:3'}}, "
        "{prependASPath: {prefix: [65001, 65002]}}, {prependASPath: {prefix: [65003]}}, {setPriority: {value: 512}}]"
    )
    setting = verdict(config_of(filters("import", rule)), TOR, "10.9.0.0/16", "import")
    assert setting == RouteSetting(
        local_pref=MAX - 512,
        add_communities=(parse_community("1:2"),),
        add_large_communities=(parse_community("1:2:3"),),
        prepend=(65003, 65001, 65002),
    )


def test_the_first_matching_rule_of_all_filters_decides_and_what_none_matches_follows_the_built_in_rules() -> None:
    text = filters("export", "cidr: 10.9.0.0/16, matchOperator: In, action: Accept")
    text = text.replace("filters: [f]", "filters: [g, f]")
    text += "BGPFilter g: {exportV4: [{cidr: 10.9.1.0/24, matchOperator: In, action: Reject}]}"
    config = config_of(text)
    assert verdict(config, TOR, "10.9.1.0/24") is None
    assert verdict(config, TOR, "10.9.2.0/24") == ACCEPTED
    assert verdict(config, TOR, "10.1.0.0/26") == ACCEPTED
    assert verdict(config, TOR, "10.8.0.0/16") is None
    assert verdict(config, TOR, "10.8.0.0/16", "import") == ACCEPTED
    assert verdict(config, MESH, "10.9.2.0/24") is None, "the mesh has no filters"


def test_a_filters_accept_does_not_open_a_pool_with_disable_bgp_export() -> None:
    assert verdict(config_of(filters("export", "action: Accept")), TOR, "10.4.0.0/26") is None


COMMUNITIES = """
BGPConfiguration default:
  communities: [{name: own, value: "64512:1"}]
  prefixAdvertisements:
    - {cidr: 10.0.0.0/8, communities: [own]}
    - {cidr: 10.1.0.0/16, communities: ["64512:2", "1:2:3"]}
    - {cidr: "fd10::/48", communities: ["64512:6"]}
"""


def communities(setting: RouteSetting | None) -> set[bytes] | None:
    return None if setting is None else {*setting.add_communities, *setting.add_large_communities}


def test_communities_are_added_by_every_prefix_around_a_route_whatever_lets_it_out() -> None:
    text = filters(
        "export", "cidr: 10.9.0.0/16, matchOperator: In, action: Accept, operations: [{addCommunity: {value: '7:7'}}]"
    )
    config = config_of(text + COMMUNITIES)
    own, two, large, six, seven = map(parse_community, ("64512:1", "64512:2", "1:2:3", "64512:6", "7:7"))
    assert communities(verdict(config, TOR, "10.1.0.0/26")) == {own, two, large}
    assert communities(verdict(config, TOR, "10.1.0.5/32")) is None
    assert communities(verdict(config, TOR, "10.2.0.0/26")) == {own}
    assert communities(verdict(config, TOR, "10.9.1.0/24")) == {own, seven}
    assert communities(verdict(config, MESH, "10.5.0.0/26")) == {own}
    assert communities(verdict(config, "Mesh_fd00__2", "fd10::/122")) == {six}


def test_a_nodes_own_communities_take_the_place_of_the_clusters_in_the_families_they_speak_of() -> None:
    own = 'BGPConfiguration node.a: {prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: ["9:9"]}]}\n'
    config = config_of(CLUSTER + COMMUNITIES + own)
    assert communities(verdict(config, TOR, "10.1.0.0/26")) == {parse_community("9:9")}
    assert communities(verdict(config, TOR, "10.2.0.0/26")) == set()
    assert communities(verdict(config, "Mesh_fd00__2", "fd10::/122")) == {parse_community("64512:6")}
