"""Node, CalicoNodeStatus, ClusterInformation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from integration.resources.base import Model, Resource
from integration.resources.fields import (
    AsNumber,
    CIDRText,
    IPv4CIDRText,
    IPv4Text,
    IPv6CIDRText,
    IPv6Text,
    MACText,
    NameText,
    WireguardKeyText,
)
from integration.resources.rules import Items, OneOf, Range, Required


class NodeBGPSpec(Model):
    as_number: AsNumber | None = None
    ipv4_address: IPv4CIDRText = ""  # with the prefix length of the node's network; host bits are kept
    ipv6_address: IPv6CIDRText = ""
    ipv4_ipip_tunnel_addr: IPv4Text = ""
    route_reflector_cluster_id: IPv4Text = ""  # in the form of an IPv4 address


class OrchRef(Model):
    """What an orchestrator (`k8s`) calls this node."""

    node_name: str = ""
    orchestrator: Annotated[str, Required()] = ""


class NodeWireguardSpec(Model):
    interface_ipv4_address: IPv4Text = ""
    interface_ipv6_address: IPv6Text = ""


class NodeAddress(Model):
    address: Annotated[CIDRText, Required()] = ""
    type: str = ""  # CalicoNodeIP, InternalIP, ExternalIP


class NodeInterface(Model):
    name: str = ""
    addresses: list[str] = []


class NodeSpec(Model):
    bgp: NodeBGPSpec | None = None  # absent: the node takes no part in BGP
    ipv4_vxlan_tunnel_addr: IPv4Text = ""
    vxlan_tunnel_mac_addr: MACText = ""
    ipv6_vxlan_tunnel_addr: IPv6Text = ""
    vxlan_tunnel_mac_addr_v6: MACText = ""
    orch_refs: list[OrchRef] = []
    wireguard: NodeWireguardSpec | None = None
    addresses: list[NodeAddress] = []
    interfaces: list[NodeInterface] = []


class NodeStatus(Model):
    wireguard_public_key: WireguardKeyText = ""
    wireguard_public_key_v6: WireguardKeyText = ""
    pod_cidrs: list[str] = []


class Node(Resource):
    spec: NodeSpec = Field(default_factory=NodeSpec)
    status: NodeStatus = Field(default_factory=NodeStatus)


class CalicoNodeStatusSpec(Model):
    node: Annotated[NameText, Required()] = ""
    classes: Annotated[
        list[Annotated[str, OneOf("Agent", "BGP", "Routes")]], Required(), Items(3, low=1, unique=True)
    ] = []
    # 0: one report when the resource is made or changed, and none after.
    update_period_seconds: Annotated[int | None, Required(), Range(0, 86400)] = None


class BGPDaemonStatus(Model):
    state: Annotated[str, OneOf("Ready", "NotReady")] = ""
    version: str = ""
    router_id: str = ""
    last_boot_time: str = ""
    last_reconfiguration_time: str = ""


class AgentStatus(Model):
    bird_v4: BGPDaemonStatus | None = None
    bird_v6: BGPDaemonStatus | None = None


class PeerStatus(Model):
    peer_ip: str = ""
    type: Annotated[str, OneOf("NodeMesh", "NodePeer", "GlobalPeer")] = ""
    state: Annotated[str, OneOf("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close")] = ""
    since: str = ""


class BGPStatus(Model):
    number_established_v4: int = 0
    number_not_established_v4: int = 0
    number_established_v6: int = 0
    number_not_established_v6: int = 0
    peers_v4: list[PeerStatus] = []
    peers_v6: list[PeerStatus] = []


class LearnedFrom(Model):
    source_type: Annotated[str, OneOf("Kernel", "Static", "Direct", "NodeMesh", "BGPPeer")] = ""
    peer_ip: str = ""


class RouteStatus(Model):
    type: Annotated[str, OneOf("FIB", "RIB")] = ""  # FIB: the best of its prefix
    destination: str = ""
    gateway: str = ""
    interface: str = ""
    learned_from: LearnedFrom | None = None


class RoutesStatus(Model):
    routes_v4: list[RouteStatus] = []
    routes_v6: list[RouteStatus] = []


class CalicoNodeStatusStatus(Model):
    last_updated: str | None = None
    agent: AgentStatus | None = None
    bgp: BGPStatus | None = None
    routes: RoutesStatus | None = None


class CalicoNodeStatus(Resource):
    spec: CalicoNodeStatusSpec = Field(default_factory=CalicoNodeStatusSpec)
    status: CalicoNodeStatusStatus = Field(default_factory=CalicoNodeStatusStatus)


class ClusterInformationSpec(Model):
    cluster_guid: str = ""  # 32 hex digits
    cluster_type: str = ""  # words with commas between: k8s,bgp,kdd
    calico_version: str = ""
    datastore_ready: bool | None = None  # False: components wait; absent is True
    variant: str = ""


class ClusterInformation(Resource):
    spec: ClusterInformationSpec = Field(default_factory=ClusterInformationSpec)
