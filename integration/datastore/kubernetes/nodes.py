"""Calico's Node in the annotations of Kubernetes' Node (libcalico-go, lib/backend/k8s/resources/node.go)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from integration.resources.base import API_VERSION
from integration.resources.fields import parse_address, parse_as_number, parse_network

Object = dict[str, Any]
PREFIX = "projectcalico.org/"
KUBE_LABELS = PREFIX + "kube-labels"
Check = Callable[[str], object]


def mac(text: str) -> str:
    octets = text.replace("-", ":").split(":")
    if len(octets) != 6 or not all(len(octet) == 2 for octet in octets):
        raise ValueError(f"{text!r} is no MAC address")
    bytes.fromhex("".join(octets))
    return text


def ipv4_network(text: str) -> object:
    return parse_network(text, 4)


def ipv6_network(text: str) -> object:
    return parse_network(text, 6)


def ipv4(text: str) -> object:
    return parse_address(text, 4)


def ipv6(text: str) -> object:
    return parse_address(text, 6)


# annotation → where it belongs in the resource, and what raises ValueError for a text that cannot stand there
FIELDS: Mapping[str, tuple[tuple[str, ...], Check]] = {
    "IPv4Address": (("spec", "bgp", "ipv4Address"), ipv4_network),
    "IPv6Address": (("spec", "bgp", "ipv6Address"), ipv6_network),
    "ASNumber": (("spec", "bgp", "asNumber"), parse_as_number),
    "RouteReflectorClusterID": (("spec", "bgp", "routeReflectorClusterID"), ipv4),
    "IPv4IPIPTunnelAddr": (("spec", "bgp", "ipv4IPIPTunnelAddr"), ipv4),
    "IPv4VXLANTunnelAddr": (("spec", "ipv4VXLANTunnelAddr"), ipv4),
    "VXLANTunnelMACAddr": (("spec", "vxlanTunnelMACAddr"), mac),
    "IPv6VXLANTunnelAddr": (("spec", "ipv6VXLANTunnelAddr"), ipv6),
    "VXLANTunnelMACAddrV6": (("spec", "vxlanTunnelMACAddrV6"), mac),
    "IPv4WireguardInterfaceAddr": (("spec", "wireguard", "interfaceIPv4Address"), ipv4),
    "IPv6WireguardInterfaceAddr": (("spec", "wireguard", "interfaceIPv6Address"), ipv6),
    "Interfaces": (("spec", "interfaces"), json.loads),
    "WireguardPublicKey": (("status", "wireguardPublicKey"), str),
    "WireguardPublicKeyV6": (("status", "wireguardPublicKeyV6"), str),
}
AS_VALUE: Mapping[str, Callable[[str], Any]] = {"ASNumber": parse_as_number, "Interfaces": json.loads}
ADDRESS_TYPES = ("InternalIP", "ExternalIP")
TEXTS = TypeAdapter(dict[str, str])


def from_node(found: Mapping[str, Any], *, use_pod_cidr: bool = False) -> Object:
    """The resource. Annotations that make no sense are left out, as if nobody had set them.

    Kubernetes' labels win over Calico's own; what they were is remembered in the annotation kube-labels, so that
    `annotations_of` can leave them out again.
    """
    outer: Mapping[str, Any] = found["metadata"]
    annotations: Mapping[str, str] = outer.get("annotations") or {}
    value: Object = {"kind": "Node", "apiVersion": API_VERSION, "metadata": metadata_of(outer), "spec": {}}
    for name, (place, check) in FIELDS.items():
        text = annotations.get(PREFIX + name)
        if text:
            try:
                check(text)
            except ValueError:
                continue
            put(value, place, AS_VALUE.get(name, str)(text))
    spec: Mapping[str, Any] = found.get("spec") or {}
    if use_pod_cidr and spec.get("podCIDR"):
        use_tunnel_address(value, spec["podCIDR"], annotations)
    value["spec"]["orchRefs"] = [{"nodeName": outer["name"], "orchestrator": "k8s"}]
    addresses = [
        {"address": value["spec"]["bgp"][name], "type": "CalicoNodeIP"}
        for name in ("ipv4Address", "ipv6Address")
        if name in value["spec"].get("bgp", {})
    ]
    for each in (found.get("status") or {}).get("addresses") or []:
        if each.get("type") in ADDRESS_TYPES:
            addresses.append({"address": each["address"], "type": each["type"]})
    if addresses:
        value["spec"]["addresses"] = addresses
    if spec.get("podCIDRs"):
        put(value, ("status", "podCIDRs"), list(spec["podCIDRs"]))
    return value


def metadata_of(outer: Mapping[str, Any]) -> Object:
    metadata = {
        name: outer[name] for name in ("name", "uid", "resourceVersion", "creationTimestamp") if outer.get(name)
    }
    annotations: Mapping[str, str] = outer.get("annotations") or {}
    kube_labels: dict[str, str] = outer.get("labels") or {}
    if labels := {**texts(annotations.get(PREFIX + "labels")), **kube_labels}:
        metadata["labels"] = labels
    own = texts(annotations.get(PREFIX + "annotations"))
    metadata["annotations"] = {**own, KUBE_LABELS: compact(kube_labels)}
    return metadata


def texts(text: str | None) -> dict[str, str]:
    """A JSON object of texts, or nothing if it is none."""
    try:
        return TEXTS.validate_json(text or "{}")
    except ValidationError:
        return {}


def use_tunnel_address(value: Object, pod_cidr: str, annotations: Mapping[str, str]) -> None:
    """With host-local IPAM the tunnels have the first address of the node's pod CIDR, whatever annotations say."""
    try:
        network = ipaddress.IPv4Network(pod_cidr, strict=False)
    except ValueError:
        return
    address = str(network.network_address + 1)
    put(value, ("spec", "bgp", "ipv4IPIPTunnelAddr"), address)
    if annotations.get(PREFIX + "WireguardPublicKey"):
        put(value, ("spec", "wireguard", "interfaceIPv4Address"), address)


def annotations_of(value: Mapping[str, Any]) -> dict[str, str | None]:
    """Every annotation of ours with what it must say; None: it must go."""
    metadata: Mapping[str, Any] = value.get("metadata") or {}
    annotations = dict(metadata.get("annotations") or {})
    inherited = texts(annotations.pop(KUBE_LABELS, None))
    labels = {name: text for name, text in (metadata.get("labels") or {}).items() if name not in inherited}
    wanted: dict[str, str | None] = {
        PREFIX + "labels": compact(labels) if labels else None,
        PREFIX + "annotations": compact(annotations) if annotations else None,
    }
    for name, (place, _) in FIELDS.items():
        found = look_up(value, place)
        text = compact(found) if name == "Interfaces" and found else str(found or "")
        wanted[PREFIX + name] = text or None
    return wanted


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def put(value: Object, place: tuple[str, ...], found: Any) -> None:
    for name in place[:-1]:
        value = value.setdefault(name, {})
    value[place[-1]] = found


def look_up(value: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
