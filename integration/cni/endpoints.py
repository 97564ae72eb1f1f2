"""The WorkloadEndpoint of a container, from what the runtime, the pod and IPAM say. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from integration.cni.identity import Identity
from integration.cni.network_config import NetworkConfig
from integration.cni.pods import Wishes
from integration.datastore.kubernetes.pods import from_pod
from integration.resources.base import API_VERSION

Object = dict[str, Any]


def single(address: str) -> str:
    """`10.65.0.2/26` → `10.65.0.2/32`."""
    text = address.partition("/")[0]
    return f"{text}/{ipaddress.ip_address(text).max_prefixlen}"


def endpoint_of(
    identity: Identity,
    config: NetworkConfig,
    wishes: Wishes,
    addresses: Sequence[str],
    mac: str,
    pod: Mapping[str, Any] | None,
) -> Object:
    """`addresses` with length /32 or /128. `pod` None: not under Kubernetes' policy."""
    spec: Object = {
        "orchestrator": identity.orchestrator,
        "node": identity.node,
        "containerID": identity.container_id,
        "endpoint": identity.endpoint,
        "interfaceName": identity.host_interface,
        "ipNetworks": list(addresses),
        "profiles": [config.name],
    }
    labels = {
        "projectcalico.org/namespace": identity.namespace,
        "projectcalico.org/orchestrator": identity.orchestrator,
    }
    metadata: Object = {
        "name": identity.key.name,
        "namespace": identity.namespace,
        "labels": {**config.labels, **labels},
    }
    if identity.is_kubernetes:
        spec["pod"] = identity.pod
    if pod is not None:
        found = from_pod(pod, interface_prefix=identity.interface_prefix)
        metadata["labels"] = found["metadata"]["labels"]
        for name in ("profiles", "ports", "serviceAccountName", "qosControls"):
            if name in found["spec"]:
                spec[name] = found["spec"][name]
        if found["metadata"].get("generateName"):
            metadata["generateName"] = found["metadata"]["generateName"]
    if mac:
        spec["mac"] = mac
    if wishes.allowed_sources:
        spec["allowSpoofedSourcePrefixes"] = list(wishes.allowed_sources)
    if nats := _nats(wishes, addresses):
        spec["ipNATs"] = nats
    return {"kind": "WorkloadEndpoint", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec}


def _nats(wishes: Wishes, addresses: Sequence[str]) -> list[Object]:
    inner = {":" in one: one.partition("/")[0] for one in addresses}
    return [
        {"internalIP": inner[":" in outer], "externalIP": outer} for outer in wishes.floating if (":" in outer) in inner
    ]


def network_profile(config: NetworkConfig, identity: Identity) -> Object:
    """Where no policy type is set, whoever is on the same network may talk; Kubernetes' pods are open, as its model says."""
    source = {} if identity.is_kubernetes else {"source": {"selector": f"has({config.name})"}}
    return {
        "kind": "Profile",
        "apiVersion": API_VERSION,
        "metadata": {"name": config.name},
        "spec": {
            "ingress": [{"action": "Allow", **source}],
            "egress": [{"action": "Allow"}],
            "labelsToApply": {config.name: ""},
        },
    }
