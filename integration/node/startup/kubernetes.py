"""What Kubernetes says of this node and its cluster, whatever the datastore is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bgp.ports import EventSink
from integration.datastore.api import Datastore
from integration.datastore.errors import Unauthorized, Unavailable
from integration.node.startup.variables import StartUpError, Variables

NODE_REF = "CALICO_K8S_NODE_REF"
# ConfigMaps of kube-system → the word in clusterType.
MARKS = {"kubeadm-config": "kubeadm", "full-cluster-state": "rancher"}
PACKAGE = "integration.datastore.kubernetes."


@dataclass(frozen=True, slots=True)
class KubernetesFacts:
    internal_ips: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    cluster_types: list[str] = field(default_factory=list)
    pod_subnets: list[str] = field(default_factory=list)  # kubeadm's


def is_kubernetes(datastore: Datastore) -> bool:
    # By its name: importing the driver to ask costs megabytes.
    return type(datastore).__module__.startswith(PACKAGE)


class KubernetesReader:
    """Asks the API server of the datastore, else that of KUBECONFIG or of the pod."""

    def __init__(self, datastore: Datastore, variables: Variables, node: str, log: EventSink) -> None:
        self.node = variables.text(NODE_REF, node)
        self.variable = NODE_REF if variables.text(NODE_REF) else "NODENAME"
        self.kubeconfig = variables.text("KUBECONFIG")
        self.is_there = is_kubernetes(datastore) or bool(self.kubeconfig or variables.text("KUBERNETES_SERVICE_HOST"))
        self.is_own = not is_kubernetes(datastore)
        self.datastore = datastore
        self.connection: Any = None
        self.log = log

    async def read(self, *, with_cluster: bool = True) -> KubernetesFacts | None:
        """None: no Kubernetes. Raises StartUpError for a node that it does not know, and DatastoreError."""
        if not self.is_there:
            return None
        found = await self.get(f"/api/v1/nodes/{self.node}")
        if found is None:
            raise StartUpError(
                self.variable, f"Kubernetes has no node {self.node!r}, or does not let us see it",
                f"set {self.variable} to a name that `kubectl get nodes` shows, and allow `get` of nodes",
            )  # fmt: skip
        addresses = (found.get("status") or {}).get("addresses") or []
        facts = KubernetesFacts(
            [each["address"] for each in addresses if each.get("type") == "InternalIP"],
            dict(found["metadata"].get("labels") or {}),
        )
        for name, word in MARKS.items() if with_cluster else ():
            marked = await self.get(f"/api/v1/namespaces/kube-system/configmaps/{name}")
            if marked is not None:
                facts.cluster_types.append(word)
                facts.pod_subnets.extend(pod_subnets(marked.get("data") or {}) if word == "kubeadm" else [])
        return facts

    async def get(self, path: str) -> dict[str, Any] | None:
        """None if it is not there or not for us."""
        from integration.datastore.kubernetes.connection import ApiError, Connection, KubernetesSettings

        if self.connection is None:
            shared = None if self.is_own else getattr(self.datastore, "connection", None)
            self.connection = shared or Connection(KubernetesSettings(kubeconfig=self.kubeconfig))
        try:
            answer: dict[str, Any] = await self.connection.request("GET", path)
        except ApiError as error:
            if error.code == 401:
                raise Unauthorized(f"Kubernetes does not know us: {error}") from error
            if error.code not in (403, 404):
                raise Unavailable(f"Kubernetes answers {path} with {error}") from error
            if error.code == 403:
                self.log.event("kubernetes_forbids", level="warning", path=path, error=str(error))
            return None
        return answer

    async def close(self) -> None:
        if self.connection is not None and self.is_own:
            await self.connection.close()


def pod_subnets(data: Mapping[str, str]) -> list[str]:
    """`podSubnet: 10.244.0.0/16,fd00::/56` in kubeadm's ClusterConfiguration."""
    found = next((match for text in data.values() if (match := re.search(r"podSubnet: *(.*)", text))), None)
    return [part.strip("\"' ") for part in found[1].split(",")] if found else []
