"""BGPConfiguration, BGPPeer, BGPFilter: who peers with whom, and what passes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from integration.resources.base import Model, Resource
from integration.resources.fields import (
    AsNumber,
    CommunityText,
    Duration,
    InterfaceGlob,
    IPText,
    IPv4NetText,
    IPv4Text,
    IPv6NetText,
    IPv6Text,
    NameText,
    NetText,
    PeerIPText,
    Port,
    RoutePriority,
    SecretKeyText,
    SelectorText,
)
from integration.resources.rules import Default, Items, Length, OneOf, Range, Required

LOG_LEVELS = OneOf("", "Trace", "Debug", "Info", "Warning", "Error", "Fatal", ignore_case=True)


class SecretKeyRef(Model):
    name: Annotated[NameText, Required()] = ""
    key: Annotated[SecretKeyText, Required()] = ""
    optional: bool | None = None


class BGPPassword(Model):
    secret_key_ref: SecretKeyRef | None = None


class CIDRBlock(Model):
    cidr: NetText = ""


class Community(Model):
    """A name for a community value, for `PrefixAdvertisement.communities`."""

    name: Annotated[str, Required(), Length(253)] = ""
    value: Annotated[CommunityText, Required()] = ""


class PrefixAdvertisement(Model):
    cidr: Annotated[NetText, Required()] = ""
    communities: Annotated[list[str], Required(), Items(50)] = []


class BGPConfigurationSpec(Model):
    """`default` speaks for all nodes, `node.NAME` for one; other names mean nothing."""

    log_severity_screen: Annotated[str, LOG_LEVELS, Default("Info")] = ""
    node_to_node_mesh_enabled: bool | None = None
    as_number: AsNumber | None = None
    service_load_balancer_ips: list[CIDRBlock] = []
    service_external_ips: list[CIDRBlock] = []
    service_cluster_ips: list[CIDRBlock] = []
    service_load_balancer_aggregation: Annotated[str, OneOf("Enabled", "Disabled"), Default("Enabled")] = ""
    communities: Annotated[list[Community], Items(500)] = []
    prefix_advertisements: Annotated[list[PrefixAdvertisement], Items(500)] = []
    listen_port: Port = None
    node_mesh_password: BGPPassword | None = None
    node_mesh_max_restart_time: Duration | None = None
    bind_mode: Annotated[str, OneOf("None", "NodeIP")] = ""
    ignored_interfaces: Annotated[list[InterfaceGlob], Items(unique=True)] = []  # not `*` alone
    local_workload_peering_ipv4: IPv4Text = ""
    local_workload_peering_ipv6: IPv6Text = ""
    program_cluster_routes: Annotated[str, OneOf("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")] = (
        ""  # no default in the CRD on purpose: absent means EnabledNoEncapOnly
    )
    ipv4_normal_route_priority: RoutePriority = None
    ipv6_normal_route_priority: RoutePriority = None


class BGPConfiguration(Resource):
    spec: BGPConfigurationSpec = Field(default_factory=BGPConfigurationSpec)


class BGPPeerSpec(Model):
    node: NameText = ""
    node_selector: SelectorText = ""
    peer_ip: PeerIPText = ""
    as_number: AsNumber | None = None
    local_as_number: AsNumber | None = None
    peer_selector: SelectorText = ""
    keep_original_next_hop: bool = False
    next_hop_mode: Annotated[str, OneOf("Auto", "Self", "Keep")] = ""
    password: BGPPassword | None = None
    source_address: Annotated[str, OneOf("UseNodeIP", "None")] = ""  # UseNodeIP if empty
    max_restart_time: Duration | None = None
    keepalive_time: Duration | None = None
    num_allowed_local_as_numbers: Annotated[int | None, Range(0, 2**31 - 1)] = None
    ttl_security: Annotated[int | None, Range(0, 255)] = None
    reachable_by: IPText = ""
    filters: list[Annotated[NameText, Required()]] = []
    local_workload_selector: SelectorText = ""
    reverse_peering: Annotated[str, OneOf("Auto", "Manual")] = ""  # Auto if empty


class BGPPeer(Resource):
    spec: BGPPeerSpec = Field(default_factory=BGPPeerSpec)


class PrefixLengthV4(Model):
    min: Annotated[int | None, Range(0, 32)] = None
    max: Annotated[int | None, Range(0, 32)] = None


class PrefixLengthV6(Model):
    min: Annotated[int | None, Range(0, 128)] = None
    max: Annotated[int | None, Range(0, 128)] = None


class CommunityMatch(Model):
    values: Annotated[list[CommunityText], Required(), Items(1, low=1)] = []


class AddCommunity(Model):
    value: Annotated[CommunityText, Required()] = ""


class PrependASPath(Model):
    prefix: Annotated[list[AsNumber], Required(), Items(10, low=1)] = []


class SetPriority(Model):
    value: Annotated[RoutePriority, Required()] = None


class FilterOperation(Model):
    """Exactly one of the three."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependASPath | None = None
    set_priority: SetPriority | None = None


class FilterRule(Model):
    """Conditions, all of which must hold, and the verdict on the whole filter. The cidr's family is the subclass's."""

    source: Annotated[str, OneOf("RemotePeers")] = ""
    interface: InterfaceGlob = ""
    match_operator: Annotated[str, OneOf("Equal", "NotEqual", "In", "NotIn")] = ""
    peer_type: Annotated[str, OneOf("eBGP", "iBGP")] = ""
    communities: CommunityMatch | None = None
    as_path_prefix: list[AsNumber] = []
    priority: RoutePriority = None
    action: Annotated[str, Required(), OneOf("Accept", "Reject")] = ""
    operations: Annotated[list[FilterOperation], Items(10)] = []


class FilterRuleV4(FilterRule):
    cidr: Annotated[IPv4NetText, Length(18)] = ""
    prefix_length: PrefixLengthV4 | None = None


class FilterRuleV6(FilterRule):
    cidr: Annotated[IPv6NetText, Length(43)] = ""
    prefix_length: PrefixLengthV6 | None = None


class BGPFilterSpec(Model):
    export_v4: list[FilterRuleV4] = []
    import_v4: list[FilterRuleV4] = []
    export_v6: list[FilterRuleV6] = []
    import_v6: list[FilterRuleV6] = []


class BGPFilter(Resource):
    spec: BGPFilterSpec = Field(default_factory=BGPFilterSpec)
