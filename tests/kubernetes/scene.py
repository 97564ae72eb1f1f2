"""What the tests of a cluster make and look at."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import yaml

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.images import BUSYBOX
from tests.kubernetes.programs import wait_until

NODES = ("node1", "node2")
POOL: dict[str, Any] = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "IPPool",
    "metadata": {"name": "pods"},
    "spec": {"cidr": "10.244.0.0/16", "natOutgoing": True},
}
CLEARED_S = 30.0
STANDING = ("web1", "web2", "client1", "client2")


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
    return str(cluster.get("pod", name)["status"].get("podIP", ""))


def gets(cluster: Cluster, client: str, target: str) -> bool:
    """Whether `client` has the page of `target` within a second."""
    page = cluster.exec(
        client, "timeout", "1", "wget", "-qO-", f"http://{address(cluster, target)}:8080/hostname", check=False
    )
    return page.strip() == target


def page(url: str) -> str:
    """As somebody outside the cluster gets it; "" if not within a second."""
    command = ["timeout", "1", "busybox", "wget", "-qO-", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()


def until_gets(cluster: Cluster, client: str, target: str, expected: bool) -> float:
    what = f"{client} {'reaches' if expected else 'does not reach'} {target}"
    return wait_until(lambda: gets(cluster, client, target) == expected, what, 20)


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


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


def namespace_of(cluster: Cluster, name: str) -> str:
    """The pod's network namespace, as the node that it runs on calls it."""
    node = cluster.nodes[cluster.get("pod", name)["spec"]["nodeName"]]
    wanted = f" {address(cluster, name)}/32"
    for path in node.run("find", "/run/netns", "-name", "cni-*").split():
        if wanted in node.run("nsenter", f"--net={path}", "ip", "-4", "address", check=False):
            return path
    raise AssertionError(f"{name} has no network namespace")
