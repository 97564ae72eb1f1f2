"""Which policies an endpoint is under, in which order, and what else its message says."""

from __future__ import annotations

from typing import Any

import pytest

from felix import desired as d
from felix.calc.local import CalculationSettings
from felix.desired import PolicyId, PolicyRule, TierPolicies, WorkloadId
from integration.resources.keys import Key
from tests.felix.calc.cluster import (
    NODE,
    Cluster,
    Entry,
    allow,
    global_policy,
    host_endpoint,
    namespace,
    node,
    pod,
    policy,
)


def tier(name: str, **spec: Any) -> tuple[Key, dict[str, Any]]:
    return Key("Tier", name), {"spec": spec}


def ingress_of(cluster: Cluster) -> list[tuple[str, list[str]]]:
    return [(found.name, [id.name for id in found.ingress]) for found in cluster.workload("p1").tiers]


def test_tiers_and_policies_come_in_order_and_those_without_order_last_by_name() -> None:
    cluster = Cluster(
        pod("p1"),
        tier("late", order=2_000_000), tier("early", order=1, defaultAction="Pass"), tier("aaa"),
        *(global_policy(name, tier=where, order=order) for name, where, order in (
            ("l", "late", 1), ("e", "early", 1), ("n", "aaa", 1), ("d", "", None),
            ("second", "default", 2), ("first", "default", 1.5), ("c", "default", None), ("also-first", "default", 1.5),
        )),
    )  # fmt: skip
    assert ingress_of(cluster) == [
        ("early", ["e"]),
        ("default", ["also-first", "first", "second", "c", "d"]),
        ("late", ["l"]),
        ("aaa", ["n"]),
    ]
    assert [found.default_action for found in cluster.workload("p1").tiers] == ["Pass", "Deny", "Deny", "Deny"]
    cluster.add(tier("late", order=0))
    assert [name for name, _ in ingress_of(cluster)] == ["late", "early", "default", "aaa"]


def test_a_tie_is_decided_by_name_then_namespace_then_kind() -> None:
    cluster = Cluster(
        pod("p1"),
        policy("x"),
        policy("x", kind="StagedNetworkPolicy"),
        global_policy("x"),
        global_policy("x-y"),
    )
    (found,) = cluster.workload("p1").tiers
    assert [(id.kind, id.name) for id in found.ingress] == [
        ("GlobalNetworkPolicy", "x-y"),  # "x-y/…" sorts before "x/…": '-' is less than '/'
        ("GlobalNetworkPolicy", "x"),
        ("NetworkPolicy", "x"),
        ("StagedNetworkPolicy", "x"),
    ]


def test_a_tier_that_does_not_exist_comes_last_and_denies() -> None:
    cluster = Cluster(pod("p1"), global_policy("g", tier="gone", order=1), global_policy("d", order=9))
    assert ingress_of(cluster) == [("default", ["d"]), ("gone", ["g"])]
    assert cluster.workload("p1").tiers[-1].default_action == "Deny"
    cluster.add(tier("gone", order=1, defaultAction="Pass"))
    assert ingress_of(cluster)[0] == ("gone", ["g"])
    assert cluster.workload("p1").tiers[0].default_action == "Pass"


def test_calicos_own_tiers_are_there_before_anybody_made_them() -> None:
    cluster = Cluster(
        pod("p1"), *(global_policy(f"{name}.g", tier=name) for name in ("kube-baseline", "default", "kube-admin"))
    )
    assert [(found.name, found.default_action) for found in cluster.workload("p1").tiers] == [
        ("kube-admin", "Pass"),
        ("default", "Deny"),
        ("kube-baseline", "Pass"),
    ]


@pytest.mark.parametrize(
    ("types", "ingress", "egress"),
    [(["Ingress"], 1, 0), (["egress"], 0, 1), (["Ingress", "Egress"], 1, 1), ([], 1, 1)],
)
def test_a_policy_is_for_the_directions_that_it_names_and_both_if_none(
    types: list[str], ingress: int, egress: int
) -> None:
    cluster = Cluster(pod("p1"), policy("p", allow(), egress=[allow()], types=types))
    (found,) = cluster.workload("p1").tiers
    assert (len(found.ingress), len(found.egress)) == (ingress, egress)


def test_an_endpoint_without_policies_has_no_tiers_and_is_up_to_its_profiles() -> None:
    cluster = Cluster(pod("p1", profiles=["kns.a", "gone", "projectcalico-default-allow"]), namespace("a"))
    assert cluster.workload("p1").tiers == ()
    profiles = {name: found.profile for name, found in cluster.dataplane.of("profile").items()}
    assert profiles["gone"].inbound == profiles["gone"].outbound == (PolicyRule("deny"),)
    assert profiles["projectcalico-default-allow"].inbound == (PolicyRule("allow"),)
    assert profiles["kns.a"].inbound == (PolicyRule("allow"),)
    cluster.remove(Key("Profile", "kns.a"), Key("Profile", "projectcalico-default-allow"))
    assert cluster.dataplane.of("profile")["kns.a"].profile.inbound == (PolicyRule("deny"),)
    assert cluster.dataplane.of("profile")["projectcalico-default-allow"].profile.inbound == (PolicyRule("allow"),)


def test_only_policies_of_local_endpoints_are_told() -> None:
    cluster = Cluster(
        pod("p1", labels={"app": "x"}),
        pod("p2", ["10.0.0.2/32"], {"app": "y"}, node="n2"),
        policy("x", selector="app == 'x'"),
        policy("y", allow({"selector": "app == 'z'"}), selector="app == 'y'"),
        policy("hinted", selector="app == 'y'", performanceHints=["AssumeNeededOnEveryNode"]),
    )
    assert [id.name for id in cluster.dataplane.of("policy")] == ["hinted", "x"]
    assert cluster.dataplane.sets == {}
    said = cluster.add(pod("p1", labels={"app": "y"}))
    assert [type(message) for message in said] == [
        d.IPSetUpdate, d.PolicyUpdate, d.WorkloadUpdate, d.PolicyRemove,
    ]  # fmt: skip


def test_a_staged_policy_is_there_as_staged_unless_it_would_delete_or_ignore() -> None:
    staged = [
        policy(f"s-{action}", kind="StagedNetworkPolicy", stagedAction=action) for action in ("Set", "Delete", "Ignore")
    ]
    kubernetes: Entry = (
        Key("StagedKubernetesNetworkPolicy", "k", "a"),
        {"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}},
    )
    cluster = Cluster(pod("p1", labels={"projectcalico.org/orchestrator": "k8s"}), *staged, kubernetes)
    (found,) = cluster.workload("p1").tiers
    assert [(id.kind, id.name, id.is_staged) for id in found.ingress] == [
        ("StagedKubernetesNetworkPolicy", "k", True),
        ("StagedNetworkPolicy", "s-Set", True),
    ]
    expected = 'projectcalico.org/orchestrator == "k8s"'
    assert expected in cluster.policy("StagedKubernetesNetworkPolicy", "k", "a").selector


def test_what_a_workloads_message_says() -> None:
    cluster = Cluster(
        pod(
            "p1", ["10.0.0.1/32", "fd00::1/128"], {"app": "x"},
            mac="ee:ee:ee:ee:ee:ee", ipv4Gateway="169.254.1.1", serviceAccountName="sa",
            allowSpoofedSourcePrefixes=["10.9.0.0/16"], ipNATs=[{"internalIP": "10.0.0.1", "externalIP": "1.2.3.4"}],
            qosControls={"ingressBandwidth": 1000, "egressPacketRate": 5, "dscp": "AF11"},
        ),
        namespace("a", team="red"),
    )  # fmt: skip
    found = cluster.workload("p1")
    assert found == d.WorkloadEndpoint(
        WorkloadId("k8s", "a/p1", "eth0"),
        "calip1",
        mac="ee:ee:ee:ee:ee:ee",
        profiles=("kns.a",),
        ipv4_nets=("10.0.0.1/32",),
        ipv6_nets=("fd00::1/128",),
        ipv4_gateway="169.254.1.1",
        allowed_source_prefixes=("10.9.0.0/16",),
        qos=d.QoS(ingress_bandwidth=1000, egress_packet_rate=5, dscp=10),
        labels=(
            ("app", "x"),
            ("pcns.projectcalico.org/name", "a"),
            ("pcns.team", "red"),
            ("projectcalico.org/namespace", "a"),
            ("projectcalico.org/serviceaccount", "sa"),
        ),
        service_account="sa",
    )
    cluster.graph.reconfigure(CalculationSettings(has_floating_ips=True))
    cluster.add()
    assert cluster.workload("p1").nats == (("10.0.0.1", "1.2.3.4"),)


def test_openstacks_floating_addresses_need_no_setting() -> None:
    key, value = pod("p1", ipNATs=[{"internalIP": "10.0.0.1", "externalIP": "1.2.3.4"}])
    cluster = Cluster((Key(key.kind, "n1-openstack-vm-tap1", "a"), value))
    found = cluster.dataplane.of("workload")[WorkloadId("openstack", "a/vm", "tap1")].endpoint
    assert found.nats == (("10.0.0.1", "1.2.3.4"),)


def test_an_endpoint_that_lost_its_addresses_is_gone() -> None:
    cluster = Cluster(pod("p1"))
    said = cluster.add(pod("p1", []))
    assert d.WorkloadRemove(WorkloadId("k8s", "a/p1", "eth0")) in said
    assert d.RouteRemove("10.0.0.1/32") in said


def test_a_host_endpoint_has_a_list_for_each_purpose() -> None:
    cluster = Cluster(
        host_endpoint(
            "eth0", labels={"role": "edge"}, interfaceName="eth0", expectedIPs=["192.168.0.1"], profiles=["x"]
        ),
        host_endpoint("other", "n2", {"role": "edge"}, interfaceName="eth0", expectedIPs=["192.168.0.2"]),
        global_policy("plain", allow({"selector": "role == 'edge'"})),
        global_policy("forward", applyOnForward=True, types=["Ingress", "Egress"]),
        global_policy("raw", doNotTrack=True, applyOnForward=True, types=["Ingress", "Egress"]),
        global_policy("dnat", preDNAT=True, applyOnForward=True, types=[]),
    )
    assert list(cluster.dataplane.of("hep")) == ["eth0"]
    found = cluster.host_endpoint("eth0")

    def one(tiers: tuple[TierPolicies, ...]) -> tuple[list[str], list[str]]:
        (only,) = tiers
        return [id.name for id in only.ingress], [id.name for id in only.egress]

    assert (found.interface, found.expected_ips, found.profiles) == ("eth0", ("192.168.0.1",), ("x",))
    assert one(found.tiers) == (["forward", "plain"], ["forward"])
    assert one(found.forward_tiers) == (["forward"], ["forward"])
    assert one(found.untracked_tiers) == (["raw"], ["raw"])
    assert one(found.pre_dnat_tiers) == (["dnat"], [])
    (id,) = cluster.policy("GlobalNetworkPolicy", "plain").inbound[0].source.ip_sets
    assert cluster.members(id) == {"192.168.0.1/32", "192.168.0.2/32"}
    cluster.add(host_endpoint("eth0", "n2", interfaceName="eth0"))
    assert not cluster.dataplane.of("hep")
    assert not cluster.dataplane.of("policy")


def test_untracked_and_pre_dnat_policies_do_not_reach_workloads() -> None:
    cluster = Cluster(pod("p1"), global_policy("raw", doNotTrack=True), global_policy("dnat", preDNAT=True))
    assert cluster.workload("p1").tiers == ()


def test_network_sets_are_members_and_namespaced_ones_inherit_their_namespaces_labels() -> None:
    cluster = Cluster(
        pod("p1"),
        namespace("b", team="red"),
        (
            Key("NetworkSet", "s", "b"),
            {"metadata": {"labels": {"k": "v"}}, "spec": {"nets": ["10.1.0.7/16", "1.2.3.4"]}},
        ),
        (
            Key("GlobalNetworkSet", "g"),
            {"metadata": {"labels": {"k": "v"}}, "spec": {"nets": ["8.0.0.0/8", "1.2.3.4/32"]}},
        ),
        policy("p", allow({"selector": "k == 'v'", "namespaceSelector": "team == 'red'"})),
        global_policy("g", allow({"selector": "k == 'v'"})),
    )
    assert cluster.members(cluster.rule().source.ip_sets[0]) == {"10.1.0.0/16", "1.2.3.4/32"}
    (id,) = cluster.policy("GlobalNetworkPolicy", "g").inbound[0].source.ip_sets
    assert cluster.members(id) == {"10.1.0.0/16", "1.2.3.4/32", "8.0.0.0/8"}
    cluster.remove(Key("NetworkSet", "s", "b"))
    assert cluster.members(id) == {"8.0.0.0/8", "1.2.3.4/32"}  # still a member for another reason


def test_a_bgp_peer_that_selects_local_workloads_is_named_by_them() -> None:
    def peer(name: str, **spec: str) -> tuple[Key, dict[str, Any]]:
        return Key("BGPPeer", name), {"spec": spec}

    cluster = Cluster(
        node(NODE, "192.168.0.1/24"),
        pod("p1", labels={"bgp": "yes"}),
        peer("b", localWorkloadSelector="bgp == 'yes'"),
        peer("a", localWorkloadSelector="bgp == 'yes'", node="n2"),
        peer("c", localWorkloadSelector="bgp == 'yes'", nodeSelector="rack == '1'"),
        peer("0", peerIP="192.168.0.9"),
    )
    assert cluster.workload("p1").bgp_peer == "b"
    cluster.remove(Key("BGPPeer", "b"))
    assert cluster.workload("p1").bgp_peer == ""
    key, value = node(NODE, "192.168.0.1/24")
    cluster.add((key, {**value, "metadata": {"labels": {"rack": "1"}}}))
    assert cluster.workload("p1").bgp_peer == "c"


def test_a_live_migration_has_a_source_and_a_target() -> None:
    spec = {
        "source": {"workload": {"orchestratorID": "k8s", "workloadID": "a/p1"}},
        "target": {"selector": "vm == 'new'"},
    }
    cluster = Cluster(
        pod("p1"), pod("p2", ["10.0.0.2/32"], {"vm": "new"}), (Key("LiveMigration", "m", "a"), {"spec": spec})
    )
    assert [cluster.workload(name).live_migration for name in ("p1", "p2")] == ["source", "target"]
    cluster.remove(Key("LiveMigration", "m", "a"))
    assert [cluster.workload(name).live_migration for name in ("p1", "p2")] == ["", ""]


def test_namespaces_and_service_accounts_are_told_with_their_own_labels() -> None:
    account = Key("Profile", "ksa.a.sa.dotted"), {"spec": {"labelsToApply": {"pcsa.role": "r", "pcns.team": "red"}}}
    cluster = Cluster(namespace("a", team="red"), account)
    assert cluster.dataplane.of("namespace") == {
        "a": d.NamespaceUpdate("a", (("projectcalico.org/name", "a"), ("team", "red")))
    }
    assert list(cluster.dataplane.of("account").values()) == [
        d.ServiceAccountUpdate("a", "sa.dotted", (("role", "r"),))
    ]
    cluster.remove(account[0], Key("Profile", "kns.a"))
    assert not cluster.dataplane.of("account")
    assert not cluster.dataplane.of("namespace")


def test_policy_ids_name_kind_namespace_and_name() -> None:
    cluster = Cluster(pod("p1"), policy("knp.default.x"), global_policy("g"))
    assert set(cluster.dataplane.of("policy")) == {
        PolicyId("NetworkPolicy", "a", "knp.default.x"),
        PolicyId("GlobalNetworkPolicy", "", "g"),
    }
