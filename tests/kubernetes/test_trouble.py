"""What dies, and what goes on meanwhile. The last test ends catbird."""

from __future__ import annotations

import signal
import time

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.programs import Program, wait_until
from tests.kubernetes.scene import address, check_addresses, gets, namespace_of, pod, policy, run, until_gets


def test_while_the_api_server_is_away_pods_keep_talking_and_afterwards_policies_come_through(cluster: Cluster) -> None:
    there = address(cluster, "web2")
    node, namespace = cluster.nodes["node1"], namespace_of(cluster, "client1")
    page = ["nsenter", f"--net={namespace}", "busybox", "wget", "-qO-", f"http://{there}:8080/hostname"]
    cluster.kill_api_server()
    for _ in range(10):
        assert node.run(*page).strip() == "web2"
        time.sleep(0.2)
    assert all(each.programs["catbird"].process.poll() is None for each in cluster.nodes.values())
    cluster.start_api_server_again()
    cluster.apply(policy("deny", {"podSelector": {}, "policyTypes": ["Ingress"]}))
    took_s = until_gets(cluster, "client1", "web2", False)
    cluster.kubectl("delete", "networkpolicy", "deny")
    until_gets(cluster, "client1", "web2", True)
    print(f"\nafter an API server's restart a policy holds {took_s:.1f} s after it was written")


def test_catbird_may_be_restarted_everywhere_and_no_packet_is_lost(cluster: Cluster) -> None:
    there, namespace = address(cluster, "client2"), namespace_of(cluster, "client1")
    node = cluster.nodes["node1"]
    log = cluster.folder / "ping.log"
    ping = Program("ping", node.command("nsenter", f"--net={namespace}", "ping", "-n", "-i", "0.02", there), log)
    for each in cluster.nodes.values():
        assert each.programs["catbird"].stop(signal.SIGTERM) == 0
        each.start_catbird(cluster.account("catbird-node"), NO_DEFAULT_POOLS="true")
        wait_until(lambda each=each: "Established" in each.catbird("show", "peers", check=False), f"{each.name} peers")  # type: ignore[misc]
    ping.stop(signal.SIGINT)
    told = next(line for line in log.read_text().splitlines() if "transmitted" in line)
    print(f"\nboth catbirds restarted: {told}")
    assert ", 0% packet loss" in told


def test_a_node_that_loses_power_comes_back_with_its_pods(cluster: Cluster) -> None:
    node = cluster.nodes["node2"]
    before = cluster.get("pod", "web2")["status"]["containerStatuses"][0]["containerID"]
    node.lose_power()
    cluster.set_up(node)
    node.install_plugins(cluster.account("catbird-cni-plugin"))
    node.start_catbird(cluster.account("catbird-node"), NO_DEFAULT_POOLS="true")

    def is_up_again() -> bool:
        (status,) = cluster.get("pod", "web2")["status"]["containerStatuses"]
        return status.get("containerID", before) != before and status["ready"] and gets(cluster, "client1", "web2")

    took_s = wait_until(is_up_again, "web2 runs again and is reached", 90)
    wait_until(lambda: gets(cluster, "client2", "web1"), "client2 reaches web1", 60)
    check_addresses(cluster)
    print(f"\nafter a loss of power: a pod is reached again {took_s:.1f} s after catbird's start")


def test_while_catbird_is_dead_pods_keep_talking_and_new_ones_start(cluster: Cluster) -> None:
    node = cluster.nodes["node1"]
    node.programs["catbird"].stop(signal.SIGKILL)
    assert gets(cluster, "client1", "web2")
    assert gets(cluster, "client2", "web1")
    run(cluster, pod("orphan", "node1"))
    node.start_catbird(cluster.account("catbird-node"), NO_DEFAULT_POOLS="true")
    until_gets(cluster, "orphan", "web2", True)
    cluster.kubectl("delete", "pod", "orphan")
    check_addresses(cluster)


def test_catbird_ends_when_asked(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        assert node.programs.pop("catbird").stop(signal.SIGINT) == 0
