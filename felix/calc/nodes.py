"""Nodes: addresses, tunnels, keys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from felix.calc.addresses import Net, interface_of, parse_net, read_address
from felix.calc.endpoints import MAC, checked
from felix.calc.reading import Json, labels, part, parts, text
from felix.desired import VTEP, Host, WireguardPeer
from integration.resources.fields import check_wireguard_key
from integration.resources.keys import Key


class NodeRecord(NamedTuple):
    """Addresses are None or empty where unknown; a subnet has the length that the node gives it."""

    name: str
    labels: Mapping[str, str]
    ipv4: Net | None
    ipv4_subnet: Net | None
    ipv6: Net | None
    ipv6_subnet: Net | None
    others: tuple[Net, ...]  # all its addresses, the two above included
    ipip: str
    vxlan: str
    vxlan_mac: str
    vxlan_v6: str
    vxlan_mac_v6: str
    wireguard: WireguardPeer | None

    def address(self, version: int) -> str:
        """Without length; empty if there is none."""
        found = self.ipv4 if version == 4 else self.ipv6
        return found.address if found else ""

    def subnet(self, version: int) -> Net | None:
        return self.ipv4_subnet if version == 4 else self.ipv6_subnet


def read_node(key: Key, value: Json) -> NodeRecord:
    spec = part(value, "spec", "")
    bgp = part(spec, "bgp", "spec.")
    ipv4 = interface_of(text(bgp, "ipv4Address", "spec.bgp."), "spec.bgp.ipv4Address", 4)
    ipv6 = interface_of(text(bgp, "ipv6Address", "spec.bgp."), "spec.bgp.ipv6Address", 6)
    others = addresses(spec)
    if not ipv4 and not ipv6:  # without BGP, Kubernetes' addresses of the node will do
        ipv4, ipv6 = first_of(others, 4), first_of(others, 6)
    own = [found[0] for found in (ipv4, ipv6) if found]
    return NodeRecord(
        key.name,
        labels(part(value, "metadata", ""), "labels", "metadata."),
        ipv4[0] if ipv4 else None,
        ipv4[1] if ipv4 else None,
        ipv6[0] if ipv6 else None,
        ipv6[1] if ipv6 else None,
        tuple(dict.fromkeys([*own, *(address for _, address, _ in others)])),
        read_address(text(bgp, "ipv4IPIPTunnelAddr", "spec.bgp."), "spec.bgp.ipv4IPIPTunnelAddr", 4),
        read_address(text(spec, "ipv4VXLANTunnelAddr", "spec."), "spec.ipv4VXLANTunnelAddr", 4),
        read_mac(spec, "vxlanTunnelMACAddr"),
        read_address(text(spec, "ipv6VXLANTunnelAddr", "spec."), "spec.ipv6VXLANTunnelAddr", 6),
        read_mac(spec, "vxlanTunnelMACAddrV6"),
        read_wireguard(key.name, spec, part(value, "status", "")),
    )


def addresses(spec: Json) -> list[tuple[str, Net, Net]]:
    """Type, address, network of all of the node's addresses; what is none (a host name) is left out."""
    found = []
    for each, path in parts(spec, "addresses", "spec."):
        given = text(each, "address", path)
        try:
            found.append((text(each, "type", path), parse_net(given.partition("/")[0]), parse_net(given)))
        except ValueError:
            continue
    return found


def first_of(found: list[tuple[str, Net, Net]], version: int) -> tuple[Net, Net] | None:
    for wanted in ("InternalIP", "ExternalIP"):
        for kind, address, network in found:
            if kind == wanted and address.version == version:
                return address, network
    return None


def read_wireguard(name: str, spec: Json, status: Json) -> WireguardPeer | None:
    wireguard = part(spec, "wireguard", "spec.")
    path = "spec.wireguard."
    peer = WireguardPeer(
        name,
        read_key(status, "wireguardPublicKey"),
        read_address(text(wireguard, "interfaceIPv4Address", path), f"{path}interfaceIPv4Address", 4),
        read_key(status, "wireguardPublicKeyV6"),
        read_address(text(wireguard, "interfaceIPv6Address", path), f"{path}interfaceIPv6Address", 6),
    )
    return peer if peer != WireguardPeer(name) else None


def read_key(status: Json, name: str) -> str:
    """One that is none is as good as none: its node has no tunnel that anybody could speak to, but everything else."""
    given = text(status, name, "status.")
    try:
        if given:
            check_wireguard_key(given)
    except ValueError:
        return ""
    return given


def read_mac(spec: Json, name: str) -> str:
    return checked(text(spec, name, "spec."), MAC, f"spec.{name}", "is not a MAC address")


def host_of(node: NodeRecord) -> Host:
    return Host(
        node.name,
        node.address(4),
        node.address(6),
        str(node.ipv4_subnet or ""),
        str(node.ipv6_subnet or ""),
        node.ipip,
        tuple(sorted(node.labels.items())),
    )


def vtep_of(node: NodeRecord) -> VTEP | None:
    """Each version only where both the tunnel's address and the one below it are known."""
    found = VTEP(node.name)
    if node.vxlan and node.ipv4:
        mac = node.vxlan_mac or made_up_mac(node.name)
        found = VTEP(node.name, node.vxlan, mac, node.ipv4.address)
    if node.vxlan_v6 and node.ipv6:
        mac = node.vxlan_mac_v6 or made_up_mac(f"{node.name}-v6")
        found = VTEP(node.name, found.ipv4, found.mac, found.parent_ipv4, node.vxlan_v6, mac, node.ipv6.address)
    return found if found != VTEP(node.name) else None


def made_up_mac(name: str) -> str:
    """As Calico makes it up on every node alike: 66, and the first octets of the name's SHA-1."""
    return ":".join(f"{octet:02x}" for octet in b"f" + hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:5])


def parameters_of_node(node: NodeRecord | None) -> dict[str, str]:
    """Felix' parameters that the node's own resource sets."""
    if node is None:
        return {}
    found = {
        "IpInIpTunnelAddr": node.ipip,
        "IPv4VXLANTunnelAddr": node.vxlan,
        "VXLANTunnelMACAddr": node.vxlan_mac,
        "IPv6VXLANTunnelAddr": node.vxlan_v6,
        "VXLANTunnelMACAddrV6": node.vxlan_mac_v6,
    }
    return {name: text for name, text in found.items() if text}
