"""Pods as workload endpoints (libcalico-go, lib/backend/k8s/conversion/workload_endpoint_default.go)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from integration.datastore.kubernetes.qos import qos_controls
from integration.resources.base import API_VERSION
from integration.resources.fields import parse_network
from integration.resources.names import WorkloadEndpointName, workload_interface

Object = dict[str, Any]
CNI = "cni.projectcalico.org/"
POD_IP, POD_IPS, CONTAINER_ID = CNI + "podIP", CNI + "podIPs", CNI + "containerID"
POD_NETNS = CNI + "podNetns"
AWS_POD_IPS = "vpc.amazonaws.com/pod-ips"
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
FINISHED_PHASES = ("Failed", "Succeeded", "Completed")
PROTOCOLS = {"": "TCP", "TCP": "TCP", "UDP": "UDP", "SCTP": "SCTP"}
MAX_LABEL = 63
TEXTS = TypeAdapter(list[str])


def is_endpoint(pod: Mapping[str, Any]) -> bool:
    """Scheduled, and with a network of its own. A pod may become one, but never ceases to be one."""
    spec: Mapping[str, Any] = pod.get("spec") or {}
    return bool(spec.get("nodeName")) and not spec.get("hostNetwork")


def endpoint_name(pod: Mapping[str, Any]) -> str:
    """Raises ValueError if the parts cannot make a name."""
    node, name = pod["spec"]["nodeName"], pod["metadata"]["name"]
    return WorkloadEndpointName(node=node, orchestrator="k8s", pod=name, endpoint="eth0").name


def from_pod(pod: Mapping[str, Any], *, interface_prefix: str = "cali") -> Object:
    """The WorkloadEndpoint. Raises ValueError if an annotation or address cannot be understood."""
    outer: Mapping[str, Any] = pod["metadata"]
    spec: Mapping[str, Any] = pod["spec"]
    annotations: Mapping[str, str] = outer.get("annotations") or {}
    namespace, account = outer["namespace"], spec.get("serviceAccountName") or ""
    addresses = [] if is_finished(pod) else [str(parse_network(text)) for text in address_texts(pod)]
    endpoint: Object = {
        "orchestrator": "k8s",
        "node": spec["nodeName"],
        "containerID": annotations.get(CONTAINER_ID),
        "pod": outer["name"],
        "endpoint": "eth0",
        "serviceAccountName": account,
        "ipNetworks": addresses,
        "ipNATs": floating_addresses(annotations, addresses),
        "profiles": [f"kns.{namespace}", *([f"ksa.{namespace}.{account}"] if account else [])],
        "interfaceName": workload_interface(namespace, outer["name"], interface_prefix),
        "ports": list(ports(spec)),
        "allowSpoofedSourcePrefixes": [
            str(parse_network(text, bare=False)) for text in texts(annotations, CNI + "allowedSourcePrefixes")
        ],
        "qosControls": qos_controls(annotations),
    }
    return {
        "kind": "WorkloadEndpoint",
        "apiVersion": API_VERSION,
        "metadata": metadata_of(outer, endpoint_name(pod), account),
        "spec": {name: value for name, value in endpoint.items() if value},
    }


def metadata_of(outer: Mapping[str, Any], name: str, account: str) -> Object:
    kept = ("namespace", "uid", "resourceVersion", "creationTimestamp", "generateName")
    labels = {
        **(outer.get("labels") or {}),
        "projectcalico.org/namespace": outer["namespace"],
        "projectcalico.org/orchestrator": "k8s",
    }
    if account and len(account) < MAX_LABEL:
        labels["projectcalico.org/serviceaccount"] = account
    metadata = {"name": name, **{part: outer[part] for part in kept if outer.get(part)}, "labels": labels}
    annotations: Mapping[str, str] = outer.get("annotations") or {}
    if NETWORK_STATUS in annotations:
        metadata["annotations"] = {NETWORK_STATUS: annotations[NETWORK_STATUS]}
    return metadata


def is_finished(pod: Mapping[str, Any]) -> bool:
    """It still exists, but its addresses are no longer its own: they were taken from it, or it has ended."""
    annotations: Mapping[str, str] = pod["metadata"].get("annotations") or {}
    was_released = "" in (annotations.get(POD_IP), annotations.get(AWS_POD_IPS))
    if pod["metadata"].get("deletionTimestamp") and was_released:
        return True
    return (pod.get("status") or {}).get("phase") in FINISHED_PHASES


def address_texts(pod: Mapping[str, Any]) -> list[str]:
    """From the first source that has any: kubelet writes the status late, the CNI plugin its annotations at once."""
    status: Mapping[str, Any] = pod.get("status") or {}
    annotations: Mapping[str, str] = pod["metadata"].get("annotations") or {}
    if status.get("podIPs"):
        return [each["ip"] for each in status["podIPs"]]
    for text in (status.get("podIP"), *(annotations.get(name) for name in (POD_IPS, POD_IP, AWS_POD_IPS))):
        if text:
            return [part.strip() for part in text.split(",")]
    return []


def floating_addresses(annotations: Mapping[str, str], addresses: list[str]) -> list[Object]:
    if not addresses:
        return []
    inner = {":" in address: address.partition("/")[0] for address in addresses}
    return [
        {"internalIP": inner[":" in outer], "externalIP": outer}
        for outer in texts(annotations, CNI + "floatingIPs")
        if (":" in outer) in inner
    ]


def ports(spec: Mapping[str, Any]) -> Iterator[Object]:
    """The ports that a policy may name or the host forwards."""
    for container in (*(spec.get("containers") or []), *(spec.get("initContainers") or [])):
        for each in container.get("ports") or []:
            protocol = PROTOCOLS.get(each.get("protocol") or "")
            if protocol and each.get("containerPort") and (each.get("name") or each.get("hostPort")):
                port = {
                    "name": each.get("name"),
                    "protocol": protocol,
                    "port": each["containerPort"],
                    "hostPort": each.get("hostPort"),
                    "hostIP": each.get("hostIP"),
                }
                yield {name: value for name, value in port.items() if value}


def texts(annotations: Mapping[str, str], name: str) -> list[str]:
    """An annotation's JSON list of texts. Raises ValueError."""
    try:
        return TEXTS.validate_json(annotations.get(name) or "[]")
    except ValidationError:
        raise ValueError(f"the annotation {name} holds no JSON list of texts: {annotations[name]!r}") from None


def patch_of(endpoint: Mapping[str, Any]) -> Object:
    """The annotations by which the CNI plugin tells a pod's addresses before kubelet does."""
    spec: Mapping[str, Any] = endpoint.get("spec") or {}
    addresses: list[str] = spec.get("ipNetworks") or []
    if not addresses:
        return {}
    annotations = {POD_IP: addresses[0], POD_IPS: ",".join(addresses)}
    if spec.get("containerID"):
        annotations[CONTAINER_ID] = spec["containerID"]
    netns = ((endpoint.get("metadata") or {}).get("annotations") or {}).get(POD_NETNS)
    return annotations | ({POD_NETNS: netns} if netns else {})


# The container's id stays, for the plugin to know which instance of a pod it is asked to take down again.
RELEASED = {POD_IP: "", POD_IPS: ""}
