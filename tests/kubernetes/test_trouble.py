"""What dies, and what goes on meanwhile. The last test ends catbird."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.programs import Program, wait_until
from tests.kubernetes.scene import address, check_addresses, gets, namespace_of, pod, policy, run, until_gets


@contextlib.contextmanager
def no_packet_is_lost(cluster: Cluster) -> Iterator[None]:
    """Between client1 and client2, fifty a second, while the block runs."""
    there, namespace = address(cluster, "client2"), namespace_of(cluster, "client1")
    log = cluster.folder / f"ping-{time.monotonic_ns()}.log"
    words = ("nsenter", f"--net={namespace}", "ping", "-n", "-i", "0.02", there)
    ping = Program("ping", cluster.nodes["node1"].command(*words), log)
    try:
        yield
    finally:
        ping.stop(signal.SIGINT)
        told = next((line for line in log.read_text().splitlines() if "transmitted" in line), "no answer from ping")
        print(f"\n{told}")
    assert ", 0% packet loss" in told


def test_while_the_api_server_is_away_pods_keep_talking_and_afterwards_policies_come_through(cluster: Cluster) -> None:
    cluster.kubectl("label", "pod", "web2", "closed=yes")
    with no_packet_is_lost(cluster):
        for _ in range(3):
            cluster.kill_api_server()
            cluster.start_api_server_again()
            closed = {"podSelector": {"matchLabels": {"closed": "yes"}}, "policyTypes": ["Ingress"]}
            cluster.apply(policy("closed", closed))
            took_s = until_gets(cluster, "client1", "web2", False)
            cluster.kubectl("delete", "networkpolicy", "closed")
            until_gets(cluster, "client1", "web2", True)
            print(f"\nafter an API server's restart a policy held {took_s:.1f} s after it was written")
    assert all(each.programs["catbird"].process.poll() is None for each in cluster.nodes.values())


def test_catbird_may_be_restarted_everywhere_and_no_packet_is_lost(cluster: Cluster) -> None:
    with no_packet_is_lost(cluster):
        for each in cluster.nodes.values():
            assert each.programs["catbird"].stop(signal.SIGTERM) == 0
            each.start_catbird(cluster.account("catbird-node"), NO_DEFAULT_POOLS="true")
            wait_until(each.has_session, f"{each.name} has its session")


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
    """And says before how much memory it has come to need."""
    for name, node in cluster.nodes.items():
        speaker = psutil.Process(node.programs["catbird"].process.pid)
        memory = [each.memory_info().rss // 2**20 for each in (speaker, *speaker.children(recursive=True))]
        print(f"\n{name}: catbird's processes have {memory} MiB")
    for node in cluster.nodes.values():
        assert node.programs.pop("catbird").stop(signal.SIGINT) == 0
