"""Policies of Kubernetes and of Calico, for pods, services and ports of nodes."""

from __future__ import annotations

from typing import Any

import yaml

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.programs import wait_until
from tests.kubernetes.scene import address, are_running, gets, page, pod, policy, run, server, until_gets

EVERYBODY: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
FRIENDS = {
    **EVERYBODY,
    "ingress": [{"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}], "ports": [{"port": 8080}]}],
}


def test_network_policies_of_kubernetes_hold_and_are_lifted(cluster: Cluster) -> None:
    cluster.apply(policy("deny", EVERYBODY))
    took_s = [until_gets(cluster, "client1", target, False) for target in ("web1", "web2")]
    assert not gets(cluster, "client2", "web1")
    cluster.apply(policy("friends", FRIENDS))
    assert not gets(cluster, "client1", "web2")
    cluster.kubectl("label", "pod", "client1", "friend=yes")
    took_s += [until_gets(cluster, "client1", target, True) for target in ("web1", "web2")]
    assert not gets(cluster, "client2", "web1")
    cluster.kubectl("label", "pod", "client1", "friend-")
    took_s.append(until_gets(cluster, "client1", "web2", False))
    cluster.kubectl("delete", "networkpolicy", "deny", "friends")
    took_s += [until_gets(cluster, client, "web1", True) for client in ("client1", "client2")]
    print("\npolicies: seen by a client after", ", ".join(f"{each:.2f}" for each in took_s), "s")


def test_a_namespace_is_let_in_by_its_labels_and_a_port_by_its_name(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "team")
    wait_until(lambda: cluster.get("serviceaccount", "default", "team"), "pods may be made in team")
    cluster.apply({**pod("inside", "node2"), "metadata": {"name": "inside", "namespace": "team"}})
    wait_until(lambda: are_running(cluster, "inside"), "the pod of team runs")
    named = server("named", "node1", labels={"app": "named"})
    named["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    run(cluster, named)
    there = address(cluster, "named")

    def inside_gets() -> bool:
        words = ("exec", "-n", "team", "inside", "--", "timeout", "1", "wget", "-qO-", f"http://{there}:8080/hostname")
        return cluster.kubectl(*words, check=False).strip() == "named"

    source = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
    chosen = {
        "podSelector": {"matchLabels": {"app": "named"}},
        "ingress": [{"from": [source], "ports": [{"port": "web"}]}],
    }
    cluster.apply(policy("team", chosen))
    wait_until(lambda: not inside_gets(), "the namespace without the label is kept out", 20)
    cluster.kubectl("label", "namespace", "team", "team=a")
    wait_until(inside_gets, "the namespace with the label is let in", 20)
    assert not gets(cluster, "client1", "named")
    cluster.kubectl("delete", "networkpolicy", "team")
    cluster.kubectl("delete", "namespace", "team")
    cluster.kubectl("delete", "pod", "named")


def test_services_lead_to_pods_on_both_nodes_and_policies_hold_for_them(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.start_proxy(cluster.credentials.admin)
    cluster.kubectl("label", "pod", "web1", "web2", "app=web")
    spec = {
        "type": "NodePort",
        "clusterIP": "10.96.0.80",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}],
    }
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})

    def served(client: str) -> str:
        words = ("timeout", "1", "wget", "-qO-", "http://10.96.0.80/hostname")
        return cluster.exec(client, *words, check=False).strip()

    outside = [f"http://172.30.0.{number}:30080/hostname" for number in (11, 12)]
    for client in ("client1", "client2"):
        wait_until(lambda: {served(client) for _ in range(4)} == {"web1", "web2"}, f"{client} sees both", 30)  # noqa: B023
    for url in outside:
        wait_until(lambda url=url: page(url) in ("web1", "web2"), f"{url} leads to a pod", 20)  # type: ignore[misc]
    cluster.apply(policy("closed", {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}))
    wait_until(lambda: not any(served("client1") for _ in range(4)), "the service is closed", 30)
    assert page(outside[0]) == ""
    cluster.kubectl("delete", "networkpolicy", "closed")
    wait_until(lambda: served("client1"), "the service is open", 20)
    cluster.kubectl("delete", "service", "web")


def test_a_port_of_the_node_may_be_a_pods(cluster: Cluster) -> None:
    open_to_all = server("hosted", "node1")
    open_to_all["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 8088}]
    run(cluster, open_to_all)
    url = "http://172.30.0.11:8088/hostname"
    wait_until(lambda: page(url) == "hosted", "the pod answers on the node's port", 20)
    cluster.kubectl("delete", "pod", "hosted")
    wait_until(lambda: page(url) == "", "the node's port is closed", 20)


def test_a_global_policy_of_calico_holds_and_is_explained(cluster: Cluster) -> None:
    spec = {
        "selector": 'projectcalico.org/namespace == "default" && has(shy)',
        "types": ["Ingress"],
        "ingress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [8080]}}, {"action": "Allow"}],
    }
    shy = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "shy"},
        "spec": spec,
    }
    cluster.catbird("apply", "-f", "-", stdin=yaml.safe_dump(shy))
    cluster.kubectl("label", "pod", "web1", "shy=")
    until_gets(cluster, "client2", "web1", False)
    cluster.exec("client2", "ping", "-c", "1", "-W", "2", address(cluster, "web1"))
    words = ("--from", address(cluster, "client2"), "--to", "default/web1", "--protocol", "tcp", "--port", "8080")
    told = cluster.nodes["node1"].catbird("policy", "explain", *words)
    assert told.startswith("DENY"), told
    assert "shy" in told
    cluster.catbird("delete", "globalnetworkpolicy", "shy")
    until_gets(cluster, "client2", "web1", True)


def test_the_packet_filter_may_be_changed_under_running_pods(cluster: Cluster) -> None:
    node = cluster.nodes["node1"]

    def has_chains() -> bool:
        return ":cali-FORWARD" in node.run("iptables-save", check=False)

    felix = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"nftablesMode": "Disabled"},
    }
    assert not has_chains()
    cluster.apply(policy("friends", FRIENDS))
    cluster.kubectl("label", "pod", "client1", "friend=yes")
    until_gets(cluster, "client2", "web1", False)
    for mode in ("Disabled", "Enabled"):
        felix["spec"] = {"nftablesMode": mode}
        cluster.catbird("apply", "-f", "-", stdin=yaml.safe_dump(felix))
        wait_until(lambda mode=mode: has_chains() == (mode == "Disabled"), f"nftablesMode {mode}", 30)  # type: ignore[misc]
        until_gets(cluster, "client1", "web1", True)
        assert not gets(cluster, "client2", "web1")
        assert not gets(cluster, "client2", "web2")
    cluster.kubectl("delete", "networkpolicy", "friends")
    cluster.kubectl("label", "pod", "client1", "friend-")
    until_gets(cluster, "client2", "web1", True)
