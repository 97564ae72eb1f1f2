"""Nodes, the pods on them, the ways between them, and how long a pod takes to run."""

from __future__ import annotations

import statistics

import yaml

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.programs import wait_until
from tests.kubernetes.scene import NODES, address, page, pod, started_after, until_gets


def test_a_node_is_ready_and_catbird_has_written_into_it_who_it_is(cluster: Cluster) -> None:
    for number, name in enumerate(NODES, 1):
        annotations = cluster.get("node", name)["metadata"]["annotations"]
        assert annotations["projectcalico.org/IPv4Address"] == f"172.30.0.{10 + number}/24"
    cluster.kubectl("label", "node", "node2", "rack=r2")
    found = yaml.safe_load(cluster.catbird("get", "node", "node2", "-o", "yaml"))
    assert found["metadata"]["labels"]["rack"] == "r2"
    assert found["spec"]["bgp"]["ipv4Address"] == "172.30.0.12/24"


def test_pods_on_both_nodes_run_and_reach_each_other(cluster: Cluster) -> None:
    for client in ("client1", "client2"):
        for target in ("web1", "web2"):
            until_gets(cluster, client, target, True)
    cluster.exec("client1", "ping", "-c", "2", "-W", "2", address(cluster, "client2"))


def test_the_way_to_the_other_nodes_pods_is_the_speakers(cluster: Cluster) -> None:
    for here, there in (NODES, NODES[::-1]):
        other = cluster.nodes[there].address
        routes = cluster.nodes[here].run("ip", "-4", "route", "show", "proto", "bird")
        assert f"via {other} dev eth0" in routes, routes
        assert "Established" in cluster.nodes[here].catbird("show", "peers")


def test_the_node_reaches_its_pods_and_a_pod_the_api_server(cluster: Cluster) -> None:
    cluster.nodes["node1"].run("ping", "-c", "1", "-W", "2", address(cluster, "web1"))
    cluster.exec("client1", "nc", "-w", "2", "172.30.0.1", "6443", "-e", "true")


def test_the_time_from_a_pods_creation_to_running(cluster: Cluster) -> None:
    alone = [started_after(cluster, [pod(f"alone{n}")])[0] for n in range(8)]
    together = started_after(cluster, [pod(f"together{n}") for n in range(20)])
    print(
        f"\nPod created to Running, one after the other: median {statistics.median(alone):.2f} s, "
        f"from {min(alone):.2f} to {max(alone):.2f}"
        f"\n20 at once on two nodes: median {statistics.median(together):.2f} s, last {max(together):.2f} s"
    )
    assert len(together) == 20
    assert statistics.median(alone) < 5
    cluster.kubectl("delete", "pod", *(f"alone{n}" for n in range(8)), *(f"together{n}" for n in range(20)))


def test_a_router_outside_learns_the_pods_by_bgp(cluster: Cluster) -> None:
    """It stands beside the nodes, with a session to each by a BGPPeer, and reaches pods by their own addresses."""
    socket = cluster.start_router(
        """
        [speaker]
        asn = 65000
        router_id = "172.30.0.1"
        [kernel]
        [[peer]]
        name = "node1"
        address = "172.30.0.11"
        asn = 64512
        import = "accept"
        export = "accept"
        [[peer]]
        name = "node2"
        address = "172.30.0.12"
        asn = 64512
        import = "accept"
        export = "accept"
        """
    )
    router = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPPeer",
        "metadata": {"name": "router"},
        "spec": {"peerIP": "172.30.0.1", "asNumber": 65000},
    }
    cluster.catbird("apply", "-f", "-", stdin=yaml.safe_dump(router))
    for number in (1, 2):
        url = f"http://{address(cluster, f'web{number}')}:8080/hostname"
        wait_until(lambda url=url, number=number: page(url) == f"web{number}", f"{url} is reached")  # type: ignore[misc]
    assert "via 172.30.0.11" in cluster.ip("route", "get", address(cluster, "web1"))
    assert cluster.catbird("show", "peers", "--socket", socket).count("Established") == 2
    cluster.catbird("delete", "bgppeer", "router")
    wait_until(lambda: "10.244." not in cluster.ip("route", "show"), "the router forgets")
