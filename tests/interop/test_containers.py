"""Real containers on two nodes: addresses, routes that the speakers exchanged, policies, and nothing left at the end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.containers import WholeNode, apply, root_file_system, wait_for, whole_nodes
from tests.netns import network_namespace

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.timeout(240)]


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def fetches(node: WholeNode, address: str) -> bool:
    # Debian's static busybox crashes over wget's own -T.
    return node.inside("client", "timeout", "1", "wget", "-q", "-O", "-", f"http://{address}/")


def allocated(store: str) -> int:
    import asyncio

    from integration.datastore.settings import load_settings, open_datastore

    async def count() -> int:
        datastore = open_datastore(load_settings(store))
        try:
            blocks = await datastore.list("IPAMBlock")
        finally:
            await datastore.close()
        return sum(
            1
            for entry in blocks.entries
            for one in entry.value["allocations"]
            if one is not None and entry.value["attributes"][one].get("handle_id")
        )

    return asyncio.run(count())


def test_podmans_containers_reach_each_other_across_nodes_and_leave_nothing(tmp_path: Path) -> None:
    rootfs = root_file_system(tmp_path)
    with whole_nodes(tmp_path) as (one, two):
        web = one.run("web", rootfs, "/bin/httpd", "-f", "-h", "/www")
        two.run("client", rootfs, "/bin/sleep", "600")
        wait_for("packets", lambda: fetches(two, web))
        route = two.host.ip_json(f"route get {web}")[0]
        assert route["gateway"] == "10.77.0.1"  # the speaker's work
        drop = {"action": "Deny", "protocol": "TCP", "destination": {"ports": [80]}}
        apply(one.store, tmp_path, [policy("no-web", selector=f"has({'net'})", ingress=[drop, {"action": "Allow"}])])
        wait_for("the policy", lambda: not fetches(two, web), 10)
        assert two.inside("client", "ping", "-c", "1", "-W", "2", web)
        one.remove("web")
        two.remove("client")
        assert allocated(one.store) == 0
        for node in (one, two):
            assert [link["ifname"] for link in node.host.ip_json("link show type veth")] == ["eth0"]
            assert node.stop() == 0


def test_cnitool_adds_checks_and_deletes(tmp_path: Path) -> None:
    builder = Path(__file__).parents[1] / "build_cnitool.sh"
    tool = Path("/tmp/catbird-cnitool")
    subprocess.run([str(builder), str(tool)], check=True)
    with whole_nodes(tmp_path, 1) as (node,), network_namespace() as pod:
        environment = {
            "NETCONFPATH": str(node.file("net.d")), "CNI_PATH": f"{node.file('bin')}:/usr/lib/cni",
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart",
        }  # fmt: skip

        def cnitool(command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                node.host.command(str(tool / "cnitool"), command, "net", str(pod.path)),
                env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        added = cnitool("add")
        assert added.returncode == 0, added.stdout + added.stderr
        assert json.loads(added.stdout)["ips"][0]["address"].startswith("10.65.")
        pod.run("ping", "-c1", "-W2", "10.77.0.1", check=False)
        assert cnitool("check").returncode == 0
        pod.ip("route del default")
        broken = cnitool("check")
        assert "the container lacks the route 0.0.0.0/0" in broken.stdout + broken.stderr
        for _ in range(2):
            assert cnitool("del").returncode == 0
        assert allocated(node.store) == 0
