"""Selectors, named ports, services and the rest of a rule. The ids of sets must be Calico's."""

from __future__ import annotations

from typing import Any

import pytest

from felix.desired import HTTPMatch, IPSetDelta, IPSetRemove, Origin, PolicyRemove, PortRange, WorkloadUpdate
from integration.resources.keys import Key
from integration.resources.names import unique_id
from integration.resources.selector import parse
from tests.felix.calc.cluster import Cluster, Json, allow, global_policy, namespace, pod, policy

IN_A = "projectcalico.org/namespace == 'a'"


def uid(text: str) -> str:
    return parse(text).uid


@pytest.mark.parametrize(
    ("source", "selector"),
    [
        ({"selector": "app == 'x'"}, f"({IN_A}) && (app == 'x')"),
        ({"selector": "all()"}, f"({IN_A}) && (all())"),
        ({"namespaceSelector": "team == 'red'"}, "pcns.team == 'red'"),
        ({"namespaceSelector": "all()"}, "has(projectcalico.org/namespace)"),
        ({"namespaceSelector": "global()"}, "!has(projectcalico.org/namespace)"),
        ({"namespaceSelector": "has(x) && all()"}, "has(pcns.x) && has(projectcalico.org/namespace)"),
        (
            {"namespaceSelector": "team == 'red'", "selector": "app == 'x' || b == 'c'"},
            "(pcns.team == 'red') && (app == 'x' || b == 'c')",
        ),
        ({"selector": "a == 'b'", "notSelector": "c == 'd'"}, f"(({IN_A}) && (a == 'b')) && (!(c == 'd'))"),
        ({"notSelector": "c == 'd'"}, f"({IN_A}) && (!(c == 'd'))"),
        (
            {"serviceAccounts": {"names": ["s2", "s1"]}},
            f"({IN_A}) && (projectcalico.org/serviceaccount in {{'s1', 's2'}})",
        ),
        ({"serviceAccounts": {"selector": "role == 'r'"}}, f"({IN_A}) && (pcsa.role == 'r')"),
        (
            {"serviceAccounts": {"names": ["s"], "selector": "role == 'r'"}, "selector": "a == 'b'"},
            f"({IN_A}) && (((pcsa.role == 'r') && (projectcalico.org/serviceaccount in {{'s'}})) && (a == 'b'))",
        ),
    ],
)
def test_who_is_meant_in_a_namespaced_policy_is_combined_as_calico_does(source: Json, selector: str) -> None:
    cluster = Cluster(pod("p1"), policy("p", allow(source)))
    assert cluster.rule().source.ip_sets == (uid(selector),)
    assert cluster.rule().source.not_ip_sets == ()


def test_a_global_policy_means_everybody_unless_it_says_otherwise() -> None:
    rules = (allow({"selector": "a == 'b'"}), allow({"notSelector": "a == 'b'"}), allow({"selector": ""}))
    cluster = Cluster(pod("p1"), global_policy("g", *rules))
    first, second, third = (rule.source for rule in cluster.policy("GlobalNetworkPolicy", "g").inbound)
    assert (first.ip_sets, first.not_ip_sets) == ((uid("a == 'b'"),), ())
    assert (second.ip_sets, second.not_ip_sets) == ((), (uid("a == 'b'"),))
    assert third.ip_sets == ()


@pytest.mark.parametrize(
    ("spec", "selector"),
    [
        ({"selector": "a == 'b'"}, "a == 'b'"),
        (
            {"selector": "all()", "namespaceSelector": "team == 'red'"},
            "(has(projectcalico.org/namespace)) && pcns.team == 'red'",
        ),
        ({"namespaceSelector": "all()"}, "has(projectcalico.org/namespace)"),
        (
            {"selector": "a == 'b'", "serviceAccountSelector": "all()"},
            "(a == 'b') && has(projectcalico.org/serviceaccount)",
        ),
    ],
)
def test_whom_a_global_policy_is_for(spec: Json, selector: str) -> None:
    needed = {"performanceHints": ["AssumeNeededOnEveryNode"]}
    cluster = Cluster(global_policy("g", **spec, **needed))
    assert cluster.policy("GlobalNetworkPolicy", "g").selector == parse(selector).canonical


def test_whom_a_namespaced_policy_is_for() -> None:
    needed: Json = {"performanceHints": ["AssumeNeededOnEveryNode"]}
    cluster = Cluster(policy("p", selector="a == 'b'", serviceAccountSelector="role == 'r'", **needed))
    expected = parse(f"((a == 'b') && {IN_A}) && pcsa.role == 'r'")
    assert cluster.policy("NetworkPolicy", "p", "a").selector == expected.canonical


def test_a_named_port_is_a_set_of_addresses_with_ports_among_those_who_are_meant() -> None:
    ports = [{"name": "http", "protocol": "TCP", "port": 8080}, {"name": "http", "protocol": "UDP", "port": 81}]
    destination = {"selector": "app == 'x'", "ports": ["http"]}
    cluster = Cluster(
        pod("p1", ["10.0.0.1/32", "fd00::1/128"], {"app": "x"}, ports=ports),
        pod("p2", ["10.0.0.2/32"], {"app": "y"}, ports=ports),
        policy("p", allow(None, destination, protocol="TCP")),
    )
    id = unique_id("n", f"{uid(f'({IN_A}) && (app == {chr(39)}x{chr(39)})')},tcp,http")
    found = cluster.rule().destination
    assert found.named_ports == (id,)
    assert found.ip_sets == ()
    assert cluster.members(id) == {"10.0.0.1,tcp:8080", "fd00::1,tcp:8080"}


def test_another_number_of_a_named_port_is_another_member() -> None:
    def http(number: int) -> list[Json]:
        return [{"name": "http", "protocol": "TCP", "port": number}]

    cluster = Cluster(pod("p1", ports=http(80)), policy("p", allow(None, {"ports": ["http"]}, protocol="TCP")))
    (id,) = cluster.rule().destination.named_ports
    said = cluster.add(pod("p1", ports=http(81)))
    assert said == [IPSetDelta(id, frozenset({"10.0.0.1,tcp:81"}), frozenset({"10.0.0.1,tcp:80"}))]


def test_beside_a_numbered_port_the_selector_has_its_own_set() -> None:
    destination = {"selector": "app == 'x'", "ports": ["http", 80, "90:91"]}
    cluster = Cluster(pod("p1"), policy("p", allow(None, destination, protocol="TCP")))
    found = cluster.rule().destination
    assert len(found.named_ports) == len(found.ip_sets) == 1
    assert found.ports == (PortRange(80, 80), PortRange(90, 91))


def test_a_named_port_without_protocol_is_one_of_any() -> None:
    ports = [{"name": "dns", "protocol": "TCP", "port": 53}, {"name": "dns", "protocol": "UDP", "port": 54}]
    cluster = Cluster(pod("p1", ports=ports), policy("p", allow(None, {"ports": ["dns"]})))
    (id,) = cluster.rule().destination.named_ports
    assert id == unique_id("n", f"{uid('all()')},any,dns")
    assert cluster.members(id) == {"10.0.0.1,tcp:53", "10.0.0.1,udp:54"}


def test_a_service_as_destination_has_ports_and_as_source_has_none() -> None:
    slice = {
        "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.7"]}, {"addresses": ["10.0.0.8"], "conditions": {"ready": False}}],
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"name": "all"}],
    }
    cluster = Cluster(
        pod("p1"),
        (Key("EndpointSlice", "web-1", "a"), slice),
        policy(
            "p", allow({"services": {"name": "web"}}),
            egress=[allow(None, {"services": {"name": "web", "namespace": "a"}})], types=["Ingress", "Egress"],
        ),
    )  # fmt: skip
    found = cluster.policy("NetworkPolicy", "p", "a")
    assert found.inbound[0].source.ip_sets == (unique_id("svcnoport", "a/web"),)
    assert found.outbound[0].destination.services == (unique_id("svc", "a/web"),)
    assert found.outbound[0].destination_origin == Origin(service="a/web")
    assert cluster.members(unique_id("svcnoport", "a/web")) == {"10.0.0.7/32", "10.0.0.8/32"}
    assert cluster.members(unique_id("svc", "a/web")) == {
        "10.0.0.7,tcp:80", "10.0.0.7,udp:53", "10.0.0.8,tcp:80", "10.0.0.8,udp:53",
    }  # fmt: skip
    cluster.remove(Key("EndpointSlice", "web-1", "a"))
    assert cluster.members(unique_id("svc", "a/web")) == set()


def test_the_rest_of_a_rule_is_carried_over() -> None:
    rule = {
        "action": "Pass",
        "ipVersion": 6,
        "protocol": "udp",
        "notProtocol": 200,
        "source": {"nets": ["fd00::1/64"], "notNets": ["fd00::/128"], "notPorts": [1, "2:3"]},
        "metadata": {"annotations": {"b": "2", "a": "1"}},
    }
    http = allow(protocol="TCP", http={"methods": ["GET"], "paths": [{"exact": "/a"}, {"prefix": "/b"}]})
    cluster = Cluster(pod("p1"), policy("p", rule, http))
    first, second = cluster.policy("NetworkPolicy", "p", "a").inbound
    assert (first.action, first.ip_version, first.protocol, first.not_protocol) == ("pass", 6, 17, 200)
    assert (first.source.nets, first.source.not_nets) == (("fd00::/64",), ("fd00::/128",))
    assert first.source.not_ports == (PortRange(1, 1), PortRange(2, 3))
    assert first.annotations == (("a", "1"), ("b", "2"))
    assert second.http == HTTPMatch(("GET",), (("exact", "/a"), ("prefix", "/b")))


def test_icmp_types_fix_the_version() -> None:
    rules = (
        allow(protocol="ICMP", icmp={"type": 8}), allow(protocol="ICMPv6", icmp={"type": 128, "code": 0}),
        allow(protocol="ICMP"), allow(protocol="ICMP", notICMP={"type": 8, "code": 1}),
    )  # fmt: skip
    found = Cluster(pod("p1"), policy("p", *rules)).policy("NetworkPolicy", "p", "a").inbound
    assert [(rule.ip_version, rule.icmp, rule.not_icmp) for rule in found] == [
        (4, (8, None), None), (6, (128, 0), None), (None, None, None), (4, None, (8, 1)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"action": "Sing"}, "spec.ingress[0].action"),
        ({}, "spec.ingress[0].action"),
        (7, "spec.ingress[0]"),
        (allow({"selector": "a =="}), "spec.ingress[0].source.selector"),
        (allow({"nets": ["10.0.0.0/33"]}), "spec.ingress[0].source.nets[0]"),
        (allow(None, {"ports": [80]}), "spec.ingress[0].destination.ports"),
        (allow(None, {"ports": [80]}, protocol="ICMP"), "spec.ingress[0].destination.ports"),
        (allow(None, {"ports": ["http"]}, protocol=47), "spec.ingress[0].destination.ports"),
        (allow(None, {"ports": ["90:80"]}, protocol="TCP"), "spec.ingress[0].destination.ports[0]"),
        (allow(None, {"ports": [70000]}, protocol="TCP"), "spec.ingress[0].destination.ports[0]"),
        (allow(protocol="carrier pigeon"), "spec.ingress[0].protocol"),
        (allow(protocol="TCP", icmp={"type": 8}), "spec.ingress[0].icmp"),
        (allow(protocol="ICMP", icmp={"code": 8}), "spec.ingress[0].icmp.type"),
        (allow(ipVersion=5), "spec.ingress[0].ipVersion"),
        (allow({"services": {"namespace": "x"}}), "spec.ingress[0].source.services.name"),
        (allow(http={"paths": [{}]}), "spec.ingress[0].http.paths[0]"),
    ],
)
def test_a_policy_with_a_bad_rule_is_absent_and_says_which_field(rule: Any, field: str) -> None:
    """Beside it a good one, which stays."""
    cluster = Cluster(pod("p1"), policy("good", allow()), policy("bad", rule))
    assert list(cluster.dataplane.of("policy")) == [("NetworkPolicy", "a", "good")]
    assert cluster.graph.problems[Key("NetworkPolicy", "bad", "a")].partition(" ")[0].rstrip(":") == field
    assert [id.name for id in cluster.workload("p1").tiers[0].ingress] == ["good"]
    cluster.add(policy("bad", allow()))
    assert [id.name for id in cluster.workload("p1").tiers[0].ingress] == ["bad", "good"]
    assert not cluster.graph.problems


def test_a_policy_whose_rules_turn_bad_leaves_its_endpoints_before_it_goes() -> None:
    cluster = Cluster(pod("p1"), policy("good", allow()), policy("p", allow({"selector": "a == 'b'"})))
    said = cluster.add(policy("p", {"action": "Sing"}))
    assert [type(message) for message in said] == [WorkloadUpdate, PolicyRemove, IPSetRemove]
    assert [id.name for id in cluster.workload("p1").tiers[0].ingress] == ["good"]


def test_a_service_in_a_global_policy_needs_its_namespace() -> None:
    cluster = Cluster(pod("p1"), global_policy("g", allow({"services": {"name": "web"}})))
    assert "services.namespace" in cluster.graph.problems[Key("GlobalNetworkPolicy", "g")]


def test_a_namespaces_labels_reach_its_pods_and_cannot_be_forged() -> None:
    cluster = Cluster(
        pod("p1"),
        pod(
            "p2", ["10.0.0.2/32"], {"pcns.team": "red", "pcsa.role": "r", "projectcalico.org/namespace": "b"}, node="n2"
        ),
        pod("p3", ["10.0.0.3/32"], namespace="b", node="n2"),
        namespace("a", team="blue"),
        namespace("b", team="red"),
        policy("p", allow({"namespaceSelector": "team == 'red'"})),
    )
    (id,) = cluster.rule().source.ip_sets
    assert cluster.members(id) == {"10.0.0.3/32"}
    said = cluster.add(namespace("a", team="red"))
    assert cluster.members(id) == {"10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"}
    assert len(said) == 3  # a delta, the pod here with its labels, the namespace
