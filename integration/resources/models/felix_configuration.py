"""FelixConfiguration: what Felix may be told about this cluster, a node (`node.NAME`) or nodes by selector."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from integration.resources.base import Model, Resource
from integration.resources.fields import (
    CIDRText,
    DSCPText,
    Duration,
    EnabledOrDisabled,
    InterfaceFilter,
    InterfaceName,
    IPv4CIDRText,
    IPv4Text,
    IPv6Text,
    LogFilters,
    NetText,
    NumericPort,
    Port,
    RegexText,
    RoutePriority,
    SelectorText,
)
from integration.resources.models.bgp import LOG_LEVELS
from integration.resources.rules import Default, Items, OneOf, Pattern, Range, Required

Whole = Annotated[int | None, Range(0)]
PortOrZero = Annotated[int | None, Range(0, 65535)]
KeyValues = Annotated[str, Pattern(r"\s*([\w-]+=[^,]*(,\s*|$))*", "comma-separated NAME=VALUE pairs")]
TimerText = Annotated[str, Pattern(r"([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto", "Auto, or a duration such as 90s")]


class ProtoPort(Model):
    protocol: Annotated[str, OneOf("TCP", "UDP", "SCTP", ignore_case=True)] = ""  # TCP if empty
    port: Annotated[PortOrZero, Required()] = None
    net: NetText = ""


class RouteTableRange(Model):
    min: Annotated[int | None, Required(), Range(1, 250)] = None
    max: Annotated[int | None, Required(), Range(1, 250)] = None


class RouteTableIDRange(Model):
    min: Annotated[int | None, Required(), Range(1, 0xFFFF_FFFF)] = None
    max: Annotated[int | None, Required(), Range(1, 0xFFFF_FFFF)] = None


class HealthTimeoutOverride(Model):
    name: Annotated[str, Required()] = ""
    timeout: Annotated[Duration, Required()] = ""


class ConntrackTimeouts(Model):
    creation_grace_period: TimerText = ""
    tcp_syn_sent: TimerText = ""
    tcp_established: TimerText = ""
    tcp_fins_seen: TimerText = ""
    tcp_reset_seen: TimerText = ""
    udp_timeout: TimerText = ""
    generic_timeout: TimerText = ""
    icmp_timeout: TimerText = ""


class FelixConfigurationSpec(Model):
    """Absent fields leave Felix's own defaults, files and environment in force; an empty list is a value."""

    # Interfaces, the host, what is ours
    interface_prefix: str = ""
    interface_exclude: str = ""
    interface_refresh_interval: Duration = ""
    node_selector: SelectorText = ""
    ip_forwarding: EnabledOrDisabled = ""
    ipv6_support: bool | None = None
    floating_ips: EnabledOrDisabled = ""
    workload_source_spoofing: Annotated[str, OneOf("", "Disabled", "Any", ignore_case=True)] = ""
    mtu_iface_pattern: RegexText = ""
    require_mtu_file: bool | None = None
    dataplane_driver: str = ""
    use_internal_dataplane_driver: bool | None = None
    dataplane_watchdog_timeout: Duration = ""
    aws_src_dst_check: Annotated[str, OneOf("DoNothing", "Enable", "Disable")] = ""
    cgroup_v2_path: str = ""
    openstack_region: str = ""
    metadata_addr: str = ""
    metadata_port: Whole = None
    windows_manage_firewall_rules: EnabledOrDisabled = ""
    sidecar_acceleration_enabled: bool | None = None
    feature_detect_override: KeyValues = ""
    feature_gates: KeyValues = ""
    policy_sync_path_prefix: str = ""
    local_subnet_l2_reachability: Annotated[str, OneOf("Disabled", "PodsAndLoadBalancers")] = ""
    local_subnet_l2_reachability_refresh_interval: Duration = ""
    live_migration_route_convergence_time: Duration = ""
    istio_ambient_mode: EnabledOrDisabled = ""
    istio_dscp_mark: DSCPText = None
    # Packet filter
    chain_insert_mode: Annotated[str, OneOf("", "Insert", "Append", ignore_case=True)] = ""
    default_endpoint_to_host_action: Annotated[str, OneOf("", "Drop", "Accept", "Return", ignore_case=True)] = ""
    failsafe_inbound_host_ports: list[ProtoPort] | None = None
    failsafe_outbound_host_ports: list[ProtoPort] | None = None
    disable_conntrack_invalid_check: bool | None = None
    service_loop_prevention: Annotated[str, OneOf("", "Drop", "Reject", "Disabled", ignore_case=True)] = ""
    kube_node_port_ranges: Annotated[list[NumericPort] | None, Items(7)] = None
    max_ipset_size: Whole = None
    ipsets_refresh_interval: Duration = ""
    iptables_backend: Annotated[str, OneOf("", "Auto", "Legacy", "NFT", ignore_case=True)] = ""
    iptables_filter_allow_action: Annotated[str, OneOf("", "Accept", "Return", ignore_case=True)] = ""
    iptables_filter_deny_action: Annotated[str, OneOf("", "Drop", "Reject", ignore_case=True)] = ""
    iptables_mangle_allow_action: Annotated[str, OneOf("", "Accept", "Return", ignore_case=True)] = ""
    iptables_mark_mask: Annotated[int | None, Range(0, 0xFFFF_FFFF)] = None
    iptables_refresh_interval: Duration = ""
    iptables_post_write_check_interval: Duration = ""
    iptables_lock_probe_interval: Duration = ""
    iptables_nat_outgoing_interface_filter: InterfaceFilter = ""
    nftables_mode: Annotated[str, OneOf("Disabled", "Enabled", "Auto"), Default("Auto")] = ""
    nftables_filter_allow_action: Annotated[str, OneOf("", "Accept", "Return", ignore_case=True)] = ""
    nftables_filter_deny_action: Annotated[str, OneOf("", "Drop", "Reject", ignore_case=True)] = ""
    nftables_mangle_allow_action: Annotated[str, OneOf("", "Accept", "Return", ignore_case=True)] = ""
    nftables_mark_mask: Annotated[int | None, Range(0, 0xFFFF_FFFF)] = None
    nftables_refresh_interval: Duration = ""
    nftables_flow_table_offload: Annotated[str, OneOf("All", "Disabled")] = ""
    log_prefix: Annotated[str, Pattern(r"[a-zA-Z0-9%: /_-]*", "letters, digits and %: /_-")] = ""
    log_action_rate_limit: Annotated[
        str, Pattern(r"[1-9][0-9]{0,3}/(second|minute|hour|day)", "such as 10/second or 100/hour")
    ] = ""
    log_action_rate_limit_burst: Annotated[int | None, Range(0, 9999)] = None
    nat_port_range: NumericPort | None = None
    nat_outgoing_address: IPv4Text = ""
    nat_outgoing_exclusions: Annotated[str, OneOf("IPPoolsOnly", "IPPoolsAndHostIPs")] = ""
    xdp_enabled: bool | None = None
    xdp_refresh_interval: Duration = ""
    generic_xdp_enabled: bool | None = None
    # Routes and tunnels
    program_cluster_routes: Annotated[str, OneOf("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")] = ""
    route_source: Annotated[str, OneOf("", "WorkloadIPs", "CalicoIPAM", ignore_case=True)] = ""
    route_refresh_interval: Duration = ""
    route_sync_disabled: bool | None = None
    route_table_range: RouteTableRange | None = None
    route_table_ranges: list[RouteTableIDRange] | None = None
    remove_external_routes: bool | None = None
    device_route_protocol: Annotated[int | None, Range(0, 255)] = None
    device_route_source_address: IPv4Text = ""
    device_route_source_address_ipv6: IPv6Text = ""
    ipv4_normal_route_priority: RoutePriority = None
    ipv4_elevated_route_priority: RoutePriority = None
    ipv6_normal_route_priority: RoutePriority = None
    ipv6_elevated_route_priority: RoutePriority = None
    netlink_timeout: Duration = ""
    external_nodes_list: list[IPv4CIDRText] | None = None
    ipip_enabled: bool | None = None
    ipip_mtu: Whole = None
    allow_ipip_packets_from_workloads: bool | None = None
    vxlan_enabled: bool | None = None
    vxlan_port: Whole = None
    vxlan_vni: Whole = None
    vxlan_mtu: Whole = None
    vxlan_mtu_v6: Whole = None
    allow_vxlan_packets_from_workloads: bool | None = None
    wireguard_enabled: bool | None = None
    wireguard_enabled_v6: bool | None = None
    wireguard_host_encryption_enabled: bool | None = None
    wireguard_interface_name: InterfaceName = ""
    wireguard_interface_name_v6: InterfaceName = ""
    wireguard_keep_alive: Duration = ""
    wireguard_listening_port: Port = None
    wireguard_listening_port_v6: Port = None
    wireguard_mtu: Whole = None
    wireguard_mtu_v6: Whole = None
    wireguard_routing_rule_priority: Annotated[int | None, Range(1, 32765)] = None
    wireguard_threading_enabled: bool | None = None
    # Logs, metrics, health, reports
    log_file_path: str = ""
    log_severity_file: Annotated[str, LOG_LEVELS] = ""
    log_severity_screen: Annotated[str, LOG_LEVELS] = ""
    log_severity_sys: Annotated[str, LOG_LEVELS] = ""
    log_debug_filename_regex: RegexText = ""
    health_enabled: bool | None = None
    health_host: str = ""
    health_port: PortOrZero = None
    health_timeout_overrides: list[HealthTimeoutOverride] = []
    prometheus_metrics_enabled: bool | None = None
    prometheus_metrics_host: Annotated[str, Pattern(r"[a-zA-Z0-9:._+-]{1,64}", "1 to 64 letters, digits and :._+-")] = (
        ""
    )
    prometheus_metrics_port: PortOrZero = None
    prometheus_metrics_ca_file: str = ""
    prometheus_metrics_cert_file: str = ""
    prometheus_metrics_key_file: str = ""
    prometheus_metrics_client_auth: str = ""
    prometheus_go_metrics_enabled: bool | None = None
    prometheus_process_metrics_enabled: bool | None = None
    prometheus_wire_guard_metrics_enabled: bool | None = None
    reporting_interval: Duration = ""
    reporting_ttl: Duration = ""
    endpoint_reporting_enabled: bool | None = None
    endpoint_reporting_delay: Duration = ""
    endpoint_status_path_prefix: str = ""
    usage_reporting_enabled: bool | None = None
    usage_reporting_initial_delay: Duration = ""
    usage_reporting_interval: Duration = ""
    flow_logs_flush_interval: Duration = ""
    flow_logs_collector_debug_trace: bool | None = None
    flow_logs_goldmane_server: str = ""
    flow_logs_local_reporter: Annotated[str, OneOf("Disabled", "Enabled")] = ""
    flow_logs_policy_evaluation_mode: Annotated[str, OneOf("None", "Continuous")] = ""
    # Felix's own process
    debug_disable_log_dropping: bool | None = None
    debug_host: str = ""
    debug_port: PortOrZero = None
    debug_memory_profile_path: str = ""
    debug_simulate_calc_graph_hang_after: Duration = ""
    debug_simulate_dataplane_apply_delay: Duration = ""
    debug_simulate_dataplane_hang_after: Duration = ""
    go_gc_threshold: Annotated[int | None, Range(-1)] = None
    go_max_procs: Annotated[int | None, Range(-1)] = None
    go_memory_limit_mb: Annotated[int | None, Range(-1)] = None
    # eBPF
    bpf_enabled: bool | None = None
    bpf_attach_type: Annotated[str, OneOf("TC", "TCX")] = ""
    bpf_connect_time_load_balancing: Annotated[str, OneOf("TCP", "Enabled", "Disabled")] = ""
    bpf_connect_time_load_balancing_enabled: bool | None = None
    bpf_conntrack_log_level: Annotated[str, OneOf("Off", "Debug")] = ""
    bpf_conntrack_mode: Annotated[str, OneOf("Auto", "Userspace", "BPFProgram")] = ""
    bpf_conntrack_timeouts: ConntrackTimeouts | None = None
    bpf_ctlb_log_filter: str = ""
    bpf_data_iface_pattern: RegexText = ""
    bpf_disable_gro_for_ifaces: RegexText = ""
    bpf_disable_unprivileged: bool | None = None
    bpf_dsr_optout_cidrs: list[CIDRText] | None = None
    bpf_enforce_rpf: Annotated[str, OneOf("", "Disabled", "Strict", "Loose", ignore_case=True)] = ""
    bpf_exclude_cidrs_from_nat: list[CIDRText] | None = None
    bpf_export_buffer_size_mb: Whole = None
    bpf_external_service_mode: Annotated[str, OneOf("", "Tunnel", "DSR", ignore_case=True)] = ""
    bpf_ext_to_service_connmark: Whole = None
    bpf_force_track_packets_from_ifaces: list[InterfaceFilter] | None = None
    bpf_host_conntrack_bypass: bool | None = None
    bpf_host_networked_nat_without_ctlb: EnabledOrDisabled = ""
    bpf_ip_fragment_reassembly_enabled: bool | None = None
    bpf_ip_frag_timeout: Duration = ""
    bpf_jit_hardening: Annotated[str, OneOf("Auto", "Strict")] = ""
    bpf_kube_proxy_healthz_port: PortOrZero = None
    bpf_kube_proxy_iptables_cleanup_enabled: bool | None = None
    bpf_kube_proxy_min_sync_period: Duration = ""
    bpf_l3_iface_pattern: RegexText = ""
    bpf_log_filters: LogFilters = None
    bpf_log_level: Annotated[str, OneOf("", "Off", "Info", "Debug", ignore_case=True)] = ""
    bpf_maglev_max_endpoints_per_service: Whole = None
    bpf_maglev_max_services: Whole = None
    bpf_map_size_conntrack: Whole = None
    bpf_map_size_conntrack_cleanup_queue: Annotated[int | None, Range(1)] = None
    bpf_map_size_conntrack_scaling: Annotated[str, OneOf("", "Disabled", "DoubleIfFull", ignore_case=True)] = ""
    bpf_map_size_if_state: Whole = None
    bpf_map_size_ip_sets: Whole = None
    bpf_map_size_nat_affinity: Whole = None
    bpf_map_size_nat_backend: Whole = None
    bpf_map_size_nat_frontend: Whole = None
    bpf_map_size_per_cpu_conntrack: Whole = None
    bpf_map_size_route: Whole = None
    bpf_overlay_host_source_ip: Annotated[str, OneOf("TunnelAddress", "HostAddress")] = ""
    bpf_policy_debug_enabled: bool | None = None
    bpf_profiling: EnabledOrDisabled = ""
    bpf_psnat_ports: NumericPort | None = None
    bpf_redirect_to_peer: Annotated[str, OneOf("Enabled", "Disabled", "L2Only")] = ""


class FelixConfiguration(Resource):
    spec: FelixConfigurationSpec = Field(default_factory=FelixConfigurationSpec)
