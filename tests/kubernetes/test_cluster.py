"""A Kubernetes of two nodes whose pods, routes, addresses and policies are catbird's: what its users would look at.

The tests share one cluster and go in the order of the file.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.images import BUSYBOX, PAUSE
from tests.kubernetes.programs import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        "CATBIRD_CLUSTER" not in os.environ, reason="runs in the namespaces that tests/kubernetes/run.sh makes"
    ),
]
NODES = ("node1", "node2")
POOL = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "IPPool",
    "metadata": {"name": "pods"},
    "spec": {"cidr": "10.244.0.0/16", "natOutgoing": True},
}
CLEARED_S = 20.0


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(nodes=len(NODES)) as made:
        node, plugin = made.account("catbird-node"), made.account("catbird-cni-plugin")
        for each in made.nodes.values():
            each.install_plugins(plugin)
            each.start_catbird(node, NO_DEFAULT_POOLS="true")
        made.catbird("apply", "-f", "-", stdin=yaml.safe_dump(POOL))
        for name in NODES:
            wait_until(lambda name=name: made.is_node_ready(name), f"{name} is Ready")  # type: ignore[misc]
        yield made
        if request.session.testsfailed:
            print(made.logs(), *(node.state() for node in made.nodes.values()), sep="\n")


def pod(name: str, node: str | None = None, command: str = "sleep 10000", **metadata: Any) -> dict[str, Any]:
    container = {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": command.split()}
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    if node is not None:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def server(name: str, node: str, **metadata: Any) -> dict[str, Any]:
    """Answers HTTP on port 8080 with its name."""
    return pod(name, node, "httpd -f -p 8080 -h /etc", **metadata)


def are_running(cluster: Cluster, *names: str) -> bool:
    found = {each["metadata"]["name"]: each["status"] for each in cluster.all("pods")}
    return all(found.get(name, {}).get("phase") == "Running" and found[name].get("podIP") for name in names)


def run(cluster: Cluster, *pods: dict[str, Any]) -> None:
    cluster.apply(*pods)
    names = [each["metadata"]["name"] for each in pods]
    wait_until(lambda: are_running(cluster, *names), f"{names} are Running")


def address(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name)["status"]["podIP"])


def gets(cluster: Cluster, client: str, target: str) -> bool:
    """Whether `client` has the page of `target` within a second."""
    page = cluster.exec(
        client, "timeout", "1", "wget", "-qO-", f"http://{address(cluster, target)}:8080/hostname", check=False
    )
    return page.strip() == target


def until_gets(cluster: Cluster, client: str, target: str, expected: bool) -> float:
    what = f"{client} {'reaches' if expected else 'does not reach'} {target}"
    return wait_until(lambda: gets(cluster, client, target) == expected, what, 20)


def test_a_node_is_ready_and_catbird_has_written_into_it_who_it_is(cluster: Cluster) -> None:
    for number, name in enumerate(NODES, 1):
        annotations = cluster.get("node", name)["metadata"]["annotations"]
        assert annotations["projectcalico.org/IPv4Address"] == f"172.30.0.{10 + number}/24"
    cluster.kubectl("label", "node", "node2", "rack=r2")
    found = yaml.safe_load(cluster.catbird("get", "node", "node2", "-o", "yaml"))
    assert found["metadata"]["labels"]["rack"] == "r2"
    assert found["spec"]["bgp"]["ipv4Address"] == "172.30.0.12/24"


def test_pods_on_both_nodes_run_and_reach_each_other(cluster: Cluster) -> None:
    run(cluster, *(server(f"web{n}", f"node{n}") for n in (1, 2)), *(pod(f"client{n}", f"node{n}") for n in (1, 2)))
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


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def test_network_policies_of_kubernetes_hold_and_are_lifted(cluster: Cluster) -> None:
    everybody: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
    friends = {
        **everybody,
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}], "ports": [{"port": 8080}]}],
    }
    cluster.apply(policy("deny", everybody))
    took_s = [until_gets(cluster, "client1", target, False) for target in ("web1", "web2")]
    assert not gets(cluster, "client2", "web1")
    cluster.apply(policy("friends", friends))
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


def started_after(cluster: Cluster, pods: list[dict[str, Any]]) -> list[float]:
    """Seconds from each pod's creation to the API server's word that it is Running, as a watch sees it."""
    since = cluster.kubectl("get", "--raw", "/api/v1/namespaces/default/pods?limit=1")
    version = yaml.safe_load(since)["metadata"]["resourceVersion"]
    began = time.monotonic()
    cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(pods))
    made: dict[str, float] = {}
    took_s: dict[str, float] = {}
    for at, seen in cluster.watch(
        f"/api/v1/namespaces/default/pods?watch=1&resourceVersion={version}&timeoutSeconds=60"
    ):
        name = seen["metadata"]["name"]
        made.setdefault(name, began)
        if seen["status"]["phase"] == "Running":
            took_s.setdefault(name, at - began)
        if len(took_s) == len(pods):
            break
    return list(took_s.values())


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


def assigned(cluster: Cluster) -> int:
    blocks = cluster.all("ipamblocks.crd.projectcalico.org")
    return sum(each is not None for block in blocks for each in block["spec"]["allocations"])


def check_addresses(cluster: Cluster) -> None:
    """As many are assigned as live pods have, and nothing about them is wrong."""

    def are_in_use() -> bool:
        living = [each for each in cluster.all("pods") if each["status"]["phase"] in ("Running", "Pending")]
        return assigned(cluster) == len(living)

    wait_until(are_in_use, "each address that is assigned is a pod's", CLEARED_S)
    told = cluster.catbird("ipam", "check")
    assert "found 0 problems" in told, told


def test_deleted_pods_give_their_addresses_back(cluster: Cluster) -> None:
    cluster.kubectl("delete", "pod", *(f"alone{n}" for n in range(8)), *(f"together{n}" for n in range(20)))
    assert len(cluster.all("pods")) == 4
    check_addresses(cluster)


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

    def page(client: str) -> str:
        return cluster.exec(client, "timeout", "1", "wget", "-qO-", "http://10.96.0.80/hostname", check=False).strip()

    def from_outside(address: str) -> str:
        done = subprocess.run(
            ["timeout", "1", "busybox", "wget", "-qO-", f"http://{address}:30080/hostname"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.stdout.strip()

    for client in ("client1", "client2"):
        seen: set[str] = set()
        wait_until(
            lambda: seen.add(page(client)) or seen >= {"web1", "web2"}, f"{client} sees both behind the service", 30
        )  # type: ignore[func-returns-value]  # noqa: B023
    for number in (11, 12):
        wait_until(lambda: from_outside(f"172.30.0.{number}") in ("web1", "web2"), "the node's port leads to a pod", 20)  # noqa: B023
    cluster.apply(policy("closed", {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}))
    wait_until(lambda: not any(page("client1") for _ in range(4)), "the service is closed", 30)
    assert from_outside("172.30.0.11") == ""
    cluster.kubectl("delete", "networkpolicy", "closed")
    wait_until(lambda: page("client1"), "the service is open", 20)
    cluster.kubectl("delete", "service", "web")


def test_a_port_of_the_node_may_be_a_pods(cluster: Cluster) -> None:
    open_to_all = server("hosted", "node1")
    open_to_all["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 8088}]
    run(cluster, open_to_all)
    command = ["timeout", "1", "busybox", "wget", "-qO-", "http://172.30.0.11:8088/hostname"]

    def page() -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()

    wait_until(lambda: page() == "hosted", "the pod answers on the node's port", 20)
    cluster.kubectl("delete", "pod", "hosted")
    wait_until(lambda: page() == "", "the node's port is closed", 20)


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


def namespace_of(cluster: Cluster, name: str) -> str:
    """The pod's network namespace, as the node that it runs on calls it."""
    node = cluster.nodes[cluster.get("pod", name)["spec"]["nodeName"]]
    wanted = f" {address(cluster, name)}/32"
    for path in node.run("find", "/run/netns", "-name", "cni-*").split():
        if wanted in node.run("nsenter", f"--net={path}", "ip", "-4", "address", check=False):
            return path
    raise AssertionError(f"{name} has no network namespace")


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
