"""A start under Kubernetes: with its API as the datastore, and beside another datastore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.api import Datastore
from integration.datastore.client import ResourceClient
from integration.datastore.kubernetes.driver import KubernetesDatastore
from integration.datastore.local.driver import LocalDatastore
from integration.node.startup import StartUpError, start_up
from integration.resources.keys import Key
from tests.bgp.world import Told
from tests.integration.datastore.kubernetes_servers import Cluster, kubeconfig_file, running_cluster

NODES = "/api/v1/nodes"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster("fake", "v1") as running:
        running.make(NODES, {
            "metadata": {"name": "worker-1", "labels": {"zone": "b"}},
            "status": {"addresses": [{"type": "Hostname", "address": "worker-1"}, {"type": "InternalIP", "address": "127.0.0.1"}]},
        })  # fmt: skip
        config = "kind: ClusterConfiguration\nnetworking:\n  podSubnet: 10.244.0.0/16,fd00:244::/56\n"
        running.make(
            "/api/v1/namespaces/kube-system/configmaps",
            {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": config}},
        )
        yield running


@asynccontextmanager
async def opened(datastore: Datastore) -> AsyncIterator[ResourceClient]:
    try:
        yield ResourceClient(datastore)
    finally:
        await datastore.close()


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {
        "NODENAME": "worker-1", "CALICO_NODENAME_FILE": str(folder / "nodename"), "IP": "autodetect",
        "IP_AUTODETECTION_METHOD": "kubernetes-internal-ip",
    } | variables  # fmt: skip


def test_kubernetes_as_the_datastore(cluster: Cluster, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(KubernetesDatastore(cluster.settings())) as client:
            variables = environment(tmp_path, AS="65009", CLUSTER_TYPE="k8s,bgp")
            assert await start_up(client, variables, Told()) == "worker-1"
            node = (await client.datastore.get(Key("Node", "worker-1"))).value
            assert node["spec"]["bgp"] == {"ipv4Address": "127.0.0.1/8", "asNumber": 65009}
            assert node["spec"]["orchRefs"] == [{"nodeName": "worker-1", "orchestrator": "k8s"}]
            information = (await client.datastore.get(Key("ClusterInformation", "default"))).value["spec"]
            assert information["clusterType"] == "k8s,bgp,kubeadm,kdd"
            pools = (await client.datastore.list("IPPool")).entries
            assert [pool.value["spec"]["cidr"] for pool in pools] == ["10.244.0.0/16", "fd00:244::/56"]
            # There is no configuration for one node's Felix in Kubernetes.
            felix = await client.datastore.list("FelixConfiguration")
            assert [entry.key.name for entry in felix.entries] == ["default"]

    asyncio.run(main())
    found = cluster.call("GET", f"{NODES}/worker-1").body["metadata"]["annotations"]
    assert found["projectcalico.org/IPv4Address"] == "127.0.0.1/8"


def test_a_node_that_kubernetes_does_not_know(cluster: Cluster, tmp_path: Path) -> None:
    async def main(**variables: str) -> None:
        async with opened(KubernetesDatastore(cluster.settings())) as client:
            await start_up(client, environment(tmp_path, **variables), Told())

    with pytest.raises(StartUpError, match=r"^NODENAME: Kubernetes has no node 'worker-9'.* `kubectl get nodes` shows"):
        asyncio.run(main(NODENAME="worker-9"))
    with pytest.raises(StartUpError, match=r"^CALICO_K8S_NODE_REF: Kubernetes has no node 'worker-8'"):
        asyncio.run(main(CALICO_K8S_NODE_REF="worker-8"))


def test_another_datastore_beside_kubernetes(cluster: Cluster, tmp_path: Path) -> None:
    async def main(kubeconfig: str) -> dict[str, Any]:
        async with opened(LocalDatastore(tmp_path / "store.db")) as client:
            variables = environment(tmp_path, NODENAME="mine", KUBECONFIG=kubeconfig, CALICO_K8S_NODE_REF="worker-1")
            await start_up(client, variables, Told())
            pool = await client.datastore.get(Key("IPPool", "default-ipv4-ippool"))
            assert pool.value["spec"]["cidr"] == "10.244.0.0/16"
            return (await client.datastore.get(Key("Node", "mine"))).value

    with kubeconfig_file(cluster.kubeconfig) as file:
        node = asyncio.run(main(file))
    assert node["spec"]["bgp"] == {"ipv4Address": "127.0.0.1/8"}
    assert node["spec"]["orchRefs"] == [{"nodeName": "worker-1", "orchestrator": "k8s"}]
    assert node["metadata"]["labels"] == {"zone": "b"}


def test_credentials_that_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    async def main() -> None:
        wrong = dict(cluster.kubeconfig, users=[{"name": "me", "user": {"token": "guessed"}}])
        with kubeconfig_file(wrong) as file:
            async with opened(LocalDatastore(tmp_path / "store.db")) as client:
                await start_up(client, environment(tmp_path, KUBECONFIG=file), Told())

    with pytest.raises(StartUpError, match=r"^DATASTORE_TYPE: .* correct its credentials \(ETCD_USERNAME"):
        asyncio.run(main())
