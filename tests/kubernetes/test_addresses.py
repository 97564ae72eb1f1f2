"""Addresses of pods and tunnels: who has them, and that each comes back."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import yaml

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import PAUSE
from tests.kubernetes.programs import wait_until
from tests.kubernetes.scene import (
    NODES,
    POOL,
    address,
    check_addresses,
    gets,
    pod,
    run,
    server,
    until_gets,
)


def test_a_pod_that_has_done_its_work_needs_no_address(cluster: Cluster) -> None:
    done = pod("done", "node1", "echo done")
    done["spec"]["restartPolicy"] = "Never"
    cluster.apply(done)
    wait_until(lambda: cluster.get("pod", "done")["status"]["phase"] == "Succeeded", "the pod ends")
    check_addresses(cluster)
    cluster.kubectl("delete", "pod", "done")


def test_a_pod_whose_sandbox_dies_gets_another_and_no_address_is_lost(cluster: Cluster) -> None:
    node = cluster.nodes["node2"]
    listing = node.ctr("--namespace", "k8s.io", "containers", "list").splitlines()
    pauses = [line.split()[0] for line in listing if PAUSE in line]
    infos = {each: node.ctr("--namespace", "k8s.io", "containers", "info", each) for each in pauses}
    (sandbox,) = [each for each, text in infos.items() if '"io.kubernetes.pod.name": "client2"' in text]
    node.ctr("--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", sandbox)

    def is_up_again() -> bool:
        status = cluster.get("pod", "client2")["status"]
        return (
            bool(status.get("podIP"))
            and status["containerStatuses"][0]["restartCount"] == 1
            and gets(cluster, "client2", "web1")
        )

    wait_until(is_up_again, "client2 runs in another sandbox", 60)
    check_addresses(cluster)


def test_a_pod_of_the_same_name_may_come_back_on_another_node(cluster: Cluster) -> None:
    for on in ("node1", "node2", "node1"):
        run(cluster, server("mover", on))
        until_gets(cluster, "client1", "mover", True)
        cluster.kubectl("delete", "pod", "mover")
    check_addresses(cluster)


def test_a_pool_with_vxlan_gives_each_node_a_tunnel_and_takes_it_away(cluster: Cluster) -> None:
    pool = {
        **POOL,
        "metadata": {"name": "far"},
        "spec": {"cidr": "10.245.0.0/16", "vxlanMode": "Always", "blockSize": 28, "nodeSelector": "all()"},
    }
    cluster.catbird("apply", "-f", "-", stdin=yaml.safe_dump(pool))
    key = "projectcalico.org/IPv4VXLANTunnelAddr"

    def tunnels() -> list[str]:
        annotations = [cluster.get("node", name)["metadata"]["annotations"] for name in NODES]
        return [each[key] for each in annotations if each.get(key)]

    wait_until(lambda: len(tunnels()) == 2, "each node has a tunnel address", 20)
    assert all(each.startswith("10.245.") for each in tunnels())
    chosen = {"cni.projectcalico.org/ipv4pools": '["far"]'}
    run(cluster, *(server(f"far{n}", f"node{n}", annotations=chosen) for n in (1, 2)))
    assert all(address(cluster, f"far{n}").startswith("10.245.") for n in (1, 2))
    until_gets(cluster, "far1", "far2", True)
    until_gets(cluster, "client1", "far2", True)
    assert "vxlan.calico" in cluster.nodes["node1"].run("ip", "route", "get", address(cluster, "far2"))
    cluster.kubectl("delete", "pod", "far1", "far2")
    cluster.catbird("delete", "ippool", "far")
    wait_until(lambda: not tunnels(), "no node has a tunnel address", 20)
    check_addresses(cluster)


def test_a_node_with_more_pods_than_a_block_has_addresses_takes_another(cluster: Cluster) -> None:
    pool = {**POOL, "metadata": {"name": "small"}, "spec": {"cidr": "10.246.0.0/24", "blockSize": 29}}
    cluster.catbird("apply", "-f", "-", stdin=yaml.safe_dump(pool))
    chosen = {"cni.projectcalico.org/ipv4pools": '["small"]'}
    pods = [pod(f"many{n}", "node1", annotations=chosen) for n in range(12)]
    names = [each["metadata"]["name"] for each in pods]
    run(cluster, *pods)
    found = {each["metadata"]["name"]: each["status"]["podIP"] for each in cluster.all("pods")}
    assert len(set(found.values())) == len(found)
    blocks = {block["spec"]["cidr"] for block in cluster.all("ipamblocks.crd.projectcalico.org")}
    mine = {each for each in blocks if any(ip_address(found[name]) in ip_network(each) for name in names)}
    assert len(mine) == 2

    def are_known() -> bool:
        routes = cluster.nodes["node2"].run("ip", "-4", "route", "show", "proto", "bird")
        return all(f"{block} via 172.30.0.11" in routes for block in mine)

    wait_until(are_known, "the other node knows the ways to both blocks", 20)
    cluster.kubectl("delete", "pod", *names)
    check_addresses(cluster)
    cluster.catbird("delete", "ippool", "small")
