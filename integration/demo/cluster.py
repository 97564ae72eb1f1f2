"""The demo's cluster as resources in one file: pools, nodes' peers, pods, tenants' policies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.datastore.settings import load_settings, open_datastore
from integration.demo.plan import (
    BLOCK_BITS_IPV4,
    BLOCK_BITS_IPV6,
    NAMESPACE,
    NODE_ASN,
    POOL_IPV4,
    POOL_IPV6,
    RACK_IPV4,
    RACK_IPV6,
    TENANTS,
    TOR_ASN,
    Plan,
    Workload,
)
from integration.resources.keys import Key

Resource = dict[str, Any]
OWN_ROUTES = "own-routes"


def store_path(folder: Path) -> Path:
    return folder / "store.db"


def store_url(folder: Path) -> str:
    return f"local:{store_path(folder)}"


def resource(kind: str, name: str, spec: Resource, namespace: str = "", **metadata: Any) -> Resource:
    about = {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": about, "spec": spec}


@dataclass(frozen=True, slots=True)
class Cluster:
    plan: Plan
    folder: Path

    def write(self, resources: Sequence[Resource]) -> None:
        async def put() -> None:
            datastore = open_datastore(load_settings(store_url(self.folder)))
            try:
                for one in resources:
                    metadata = one["metadata"]
                    await datastore.apply(Key(one["kind"], metadata["name"], metadata.get("namespace", "")), one)
            finally:
                await datastore.close()

        asyncio.run(put())

    def beginning(self) -> list[Resource]:
        """What somebody must have said before nodes start. Each node writes its own Node."""
        everything = [{"action": "Allow"}]
        labels = {"pcns.projectcalico.org/name": NAMESPACE}
        profile = {"ingress": everything, "egress": everything, "labelsToApply": labels}
        # The rack hears of a block from its own node alone; the others' word is as good to it, and a hop longer.
        others = [{"action": "Reject", "source": "RemotePeers"}]
        mesh = {"nodeToNodeMeshEnabled": not self.plan.reflectors, "asNumber": NODE_ASN}
        return [
            resource("IPPool", "pods", {"cidr": str(POOL_IPV4), "blockSize": BLOCK_BITS_IPV4}),
            resource("IPPool", "pods-v6", {"cidr": str(POOL_IPV6), "blockSize": BLOCK_BITS_IPV6}),
            resource("BGPConfiguration", "default", mesh),
            resource("BGPFilter", OWN_ROUTES, {"exportV4": others, "exportV6": others}),
            resource("Profile", f"kns.{NAMESPACE}", profile),
            *self._peers(),
            *(self._pod(node.name, one) for node in self.plan.nodes for one in node.workloads),
        ]

    def _peers(self) -> list[Resource]:
        found = []
        others = [(self.plan.tor, TOR_ASN), *((reflector, NODE_ASN) for reflector in self.plan.reflectors)]
        for router, asn in others:
            for address in (router.ipv4, router.ipv6):
                spec = {"peerIP": str(address), "asNumber": asn, "keepaliveTime": "3s"}
                if router.is_tor:
                    spec["filters"] = [OWN_ROUTES]
                found.append(resource("BGPPeer", f"{router.name}-v{address.version}", spec))
        return found

    @staticmethod
    def _pod(node: str, workload: Workload) -> Resource:
        addresses = json.dumps([str(one) for one in workload.addresses])
        return resource(
            "Pod", workload.name, {"nodeName": node, "containers": []}, NAMESPACE,
            labels={"tenant": workload.tenant}, annotations={"cni.projectcalico.org/ipAddrs": addresses},
        )  # fmt: skip

    def policies(self) -> list[Resource]:
        """Each tenant for itself; the rack may reach the first."""
        rack = [{"action": "Allow", "source": {"nets": [str(net)]}} for net in (RACK_IPV4, RACK_IPV6)]
        found = []
        for tenant in TENANTS:
            own = {"action": "Allow", "source": {"selector": f"tenant == '{tenant}'"}}
            ingress = [own, *rack] if tenant == TENANTS[0] else [own]
            spec = {"selector": f"tenant == '{tenant}'", "types": ["Ingress"], "ingress": ingress}
            found.append(resource("GlobalNetworkPolicy", f"{tenant}-only", spec))
        return found
