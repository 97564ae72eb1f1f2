"""Felix' configuration in the terms of its parts. Pure."""

from __future__ import annotations

from pathlib import Path

from felix.calc.local import CalculationSettings
from felix.config import FelixConfig
from felix.dataplane.interfaces import InterfaceSettings
from felix.dataplane.ipip import IpipSettings
from felix.dataplane.mtu import Mtus, MtuSettings
from felix.dataplane.routes import RouteSettings
from felix.dataplane.vxlan import VxlanSettings
from felix.dataplane.wireguard import WireguardSettings
from felix.dataplane.workload_links import WorkloadLinkSettings
from felix.desired import EncapsulationUpdate, IPVersion
from felix.parameters import ProtoPort
from felix.rules.marks import marks_of
from felix.rules.settings import Failsafe, RuleSettings
from felix.sync.wireguard import free_table

DENIED_GROUP = 2  # NFLOG's; Calico's for what is outbound, and nobody else's
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def calculation_settings(config: FelixConfig) -> CalculationSettings:
    return CalculationSettings(
        has_floating_ips=config.floating_ips == "Enabled",
        is_openstack=config.is_openstack,
        route_source=config.route_source,  # type: ignore[arg-type]
    )


def uses_nftables(config: FelixConfig) -> bool:
    """Auto is nftables: it is faster, and stands beside an iptables-based kube-proxy without harm."""
    return config.nftables_mode != "Disabled"


def with_encapsulation(config: FelixConfig, pools: EncapsulationUpdate) -> EncapsulationUpdate:
    """What the configuration says, else what the pools ask for."""
    vxlan = config.vxlan_enabled
    return EncapsulationUpdate(
        ipip=pools.ipip if config.ipip_enabled is None else config.ipip_enabled,
        vxlan=pools.vxlan if vxlan is None else vxlan,
        vxlan_v6=(pools.vxlan_v6 if vxlan is None else vxlan) and config.ipv6_support,
    )


def rule_settings(config: FelixConfig, encapsulation: EncapsulationUpdate) -> RuleSettings:
    is_nft = uses_nftables(config)
    return RuleSettings(
        interface_prefixes=config.interface_prefixes,
        mark_mask=config.nftables_mark_mask if is_nft else config.iptables_mark_mask,
        filter_allow=config.nftables_filter_allow_action if is_nft else config.iptables_filter_allow_action,  # type: ignore[arg-type]
        mangle_allow=config.nftables_mangle_allow_action if is_nft else config.iptables_mangle_allow_action,  # type: ignore[arg-type]
        deny=config.nftables_filter_deny_action if is_nft else config.iptables_filter_deny_action,  # type: ignore[arg-type]
        endpoint_to_host=config.default_endpoint_to_host_action,  # type: ignore[arg-type]
        log_prefix=config.log_prefix,
        log_rate=config.log_action_rate_limit,
        log_burst=config.log_action_rate_limit_burst,
        denied_group=DENIED_GROUP,
        leaves_routes=config.route_sync_disabled or not config.remove_external_routes,
        failsafe_in=_failsafes(config.failsafe_inbound_host_ports),
        failsafe_out=_failsafes(config.failsafe_outbound_host_ports),
        checks_invalid=not config.disable_conntrack_invalid_check,
        inserts=config.chain_insert_mode == "insert",
        vxlan_port=config.vxlan_port,
        has_vxlan=encapsulation.vxlan,
        has_vxlan_v6=encapsulation.vxlan_v6,
        has_ipip=encapsulation.ipip,
        wireguard_port=config.wireguard_listening_port if config.wireguard_enabled else 0,
        wireguard_device=config.wireguard_interface_name,
        wireguard_port_v6=config.wireguard_listening_port_v6 if config.wireguard_enabled_v6 else 0,
        wireguard_device_v6=config.wireguard_interface_name_v6,
        wireguard_encrypts_host=config.wireguard_host_encryption_enabled,
        allows_vxlan_from_workloads=config.allow_vxlan_packets_from_workloads,
        allows_ipip_from_workloads=config.allow_ipip_packets_from_workloads,
        service_loop=config.service_loop_prevention,  # type: ignore[arg-type]
        nat_ports=config.nat_port_range,
        nat_address=config.nat_outgoing_address,
        nat_excludes_hosts=config.nat_outgoing_exclusions == "IPPoolsAndHostIPs",
        nat_interface=config.iptables_nat_outgoing_interface_filter,
        has_floating_ips=config.floating_ips == "Enabled",
        is_openstack=config.is_openstack,
        metadata_address=config.metadata_addr,
        metadata_port=config.metadata_port,
        allows_spoofing=config.workload_source_spoofing == "Any",
        external_nodes=config.external_nodes,
        interface_exclude=config.interface_exclude,
        node_ports=config.kube_node_port_ranges,
    )


def _failsafes(ports: tuple[ProtoPort, ...]) -> tuple[Failsafe, ...]:
    return tuple(Failsafe(PROTOCOLS[one.protocol], one.port, one.net) for one in ports)


CLUSTER_ROUTES = {
    "Enabled": frozenset({"vxlan", "ipip", "none"}),
    "EnabledIPIPOnly": frozenset({"vxlan", "ipip"}),
    "EnabledNoEncapOnly": frozenset({"vxlan", "none"}),
    "Disabled": frozenset({"vxlan"}),
}


def route_settings(config: FelixConfig, node: str) -> RouteSettings:
    return RouteSettings(
        node=node,
        prefixes=config.interface_prefixes,
        device_protocol=config.device_route_protocol,
        metrics=(config.ipv4_normal_route_priority, config.ipv6_normal_route_priority),
        elevated_metrics=(config.ipv4_elevated_route_priority, config.ipv6_elevated_route_priority),
        sources=(config.device_route_source_address, config.device_route_source_address_ipv6),
        removes_external=config.remove_external_routes,
        programs=CLUSTER_ROUTES[config.program_cluster_routes],
        is_disabled=config.route_sync_disabled,
    )


def interface_settings(config: FelixConfig) -> InterfaceSettings:
    return InterfaceSettings(
        forwards=config.ip_forwarding == "Enabled",
        has_ipv6=config.ipv6_support,
        allows_spoofing=config.workload_source_spoofing == "Any",
    )


def workload_link_settings(config: FelixConfig) -> WorkloadLinkSettings:
    return WorkloadLinkSettings(knows_neighbours=config.is_openstack, has_ipv6=config.ipv6_support)


def vxlan_settings(
    config: FelixConfig, pools: EncapsulationUpdate, node: str, version: IPVersion, mtus: Mtus
) -> VxlanSettings:
    """`pools`: what is on, the configuration considered; as in the next two."""
    is_on, kind = (pools.vxlan, "vxlan") if version == 4 else (pools.vxlan_v6, "vxlan-v6")
    return VxlanSettings(node, is_on, config.vxlan_vni, config.vxlan_port, mtus.tunnels.get(kind, 0))


def ipip_settings(config: FelixConfig, pools: EncapsulationUpdate, node: str, mtus: Mtus) -> IpipSettings:
    return IpipSettings(node, pools.ipip, mtus.tunnels.get("ipip", 0))


def mtu_settings(config: FelixConfig, pools: EncapsulationUpdate, node: str, file: Path | None) -> MtuSettings:
    is_on = {
        "ipip": pools.ipip,
        "vxlan": pools.vxlan,
        "vxlan-v6": pools.vxlan_v6,
        "wireguard": config.wireguard_enabled,
        "wireguard-v6": config.wireguard_enabled_v6 and config.ipv6_support,
    }
    given = (
        ("ipip", config.ipip_mtu),
        ("vxlan", config.vxlan_mtu),
        ("vxlan-v6", config.vxlan_mtu_v6),
        ("wireguard", config.wireguard_mtu),
        ("wireguard-v6", config.wireguard_mtu_v6),
    )
    enabled = frozenset(kind for kind, on in is_on.items() if on)
    return MtuSettings(node, config.mtu_iface_pattern, enabled, given, config.require_mtu_file, file)


def wireguard_settings(config: FelixConfig, node: str, version: IPVersion, mtus: Mtus) -> WireguardSettings:
    is_four = version == 4
    is_on = config.wireguard_enabled if is_four else config.wireguard_enabled_v6 and config.ipv6_support
    mask = config.nftables_mark_mask if uses_nftables(config) else config.iptables_mark_mask
    return WireguardSettings(
        node,
        is_on,
        config.wireguard_interface_name if is_four else config.wireguard_interface_name_v6,
        config.wireguard_listening_port if is_four else config.wireguard_listening_port_v6,
        mtus.tunnels.get("wireguard" if is_four else "wireguard-v6", 0),
        marks_of(mask, has_wireguard=is_on).wireguard,
        mask,
        free_table(config.free_tables),
        config.wireguard_routing_rule_priority,
        int(config.wireguard_keep_alive_s),
        config.wireguard_host_encryption_enabled,
    )
