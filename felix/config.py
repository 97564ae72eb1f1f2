"""Felix' configuration: one typed value from environment, file and datastore. Pure; sources are given as names and texts.

Source: Calico's parameters, their names, defaults and order of precedence. Parameters of parts that are not built (eBPF,
Windows, Go's runtime) are known by name, so that a cluster that sets them is not told of a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args

from felix import parameters as p
from felix.desired import PortRange
from felix.parameters import LIVE, LOCAL, NON_ZERO, VITAL, Parameter, ProtoPort, TableRange, parameter

LEVELS = p.one_of("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL")
ENABLED = p.one_of("Enabled", "Disabled")
ACTION = p.one_of("ACCEPT", "RETURN")
DENIAL = p.one_of("DROP", "REJECT")
PORT = p.whole(0, 65535)
MTU = p.whole(0, 65535)
PRIORITY = p.whole(1, 2_147_483_646)
INBOUND = "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667"
OUTBOUND = "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667"


@dataclass(frozen=True, slots=True)
class FelixConfig:
    """Every parameter, parsed. `_s` are seconds; an address, net or path that is not set is "". `FelixConfig()` is the defaults."""

    # fmt: off
    # (RUF009: what `parameter` returns is a field, not a shared default.)
    # Who and where (the datastore cannot say this)
    datastore_type: str = parameter("DatastoreType", p.one_of("etcdv3", "kubernetes", "local"), "etcdv3", LOCAL, NON_ZERO, VITAL)
    hostname: str = parameter("FelixHostname", p.HOSTNAME, "", LOCAL, NON_ZERO)
    etcd_addr: str = parameter("EtcdAddr", p.AUTHORITY, "127.0.0.1:2379", LOCAL)
    etcd_scheme: str = parameter("EtcdScheme", p.one_of("http", "https"), "http", LOCAL)
    etcd_endpoints: tuple[str, ...] = parameter("EtcdEndpoints", p.ENDPOINTS, "", LOCAL)
    etcd_key_file: str = parameter("EtcdKeyFile", p.TEXT, "", LOCAL)
    etcd_cert_file: str = parameter("EtcdCertFile", p.TEXT, "", LOCAL)
    etcd_ca_file: str = parameter("EtcdCaFile", p.TEXT, "", LOCAL)
    typha_addr: str = parameter("TyphaAddr", p.AUTHORITY, "", LOCAL)
    typha_k8s_service_name: str = parameter("TyphaK8sServiceName", p.TEXT, "", LOCAL)
    typha_k8s_namespace: str = parameter("TyphaK8sNamespace", p.TEXT, "kube-system", LOCAL, NON_ZERO)
    typha_read_timeout_s: float = parameter("TyphaReadTimeout", p.SECONDS, "30", LOCAL)
    typha_write_timeout_s: float = parameter("TyphaWriteTimeout", p.SECONDS, "10", LOCAL)
    typha_key_file: str = parameter("TyphaKeyFile", p.TEXT, "", LOCAL)
    typha_cert_file: str = parameter("TyphaCertFile", p.TEXT, "", LOCAL)
    typha_ca_file: str = parameter("TyphaCAFile", p.TEXT, "", LOCAL)
    typha_cn: str = parameter("TyphaCN", p.TEXT, "", LOCAL)
    typha_uri_san: str = parameter("TyphaURISAN", p.TEXT, "", LOCAL)
    # The cluster (ClusterInformation) and the host
    cluster_guid: str = parameter("ClusterGUID", p.TEXT, "baddecaf", LIVE)
    cluster_type: str = parameter("ClusterType", p.TEXT, "")
    calico_version: str = parameter("CalicoVersion", p.TEXT, "", LIVE)
    ipv6_support: bool = parameter("Ipv6Support", p.BOOLEAN, "true")
    ip_forwarding: str = parameter("IPForwarding", ENABLED, "Enabled")
    interface_prefixes: tuple[str, ...] = parameter("InterfacePrefix", p.INTERFACE_PREFIXES, "cali", NON_ZERO, VITAL)
    interface_exclude: tuple[re.Pattern[str], ...] = parameter("InterfaceExclude", p.INTERFACE_PATTERNS, "kube-ipvs0")
    interface_refresh_interval_s: float = parameter("InterfaceRefreshInterval", p.SECONDS, "90", LIVE)
    mtu_iface_pattern: re.Pattern[str] | None = parameter("MTUIfacePattern", p.PATTERN, r"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)")  # noqa: RUF009
    require_mtu_file: bool = parameter("RequireMTUFile", p.BOOLEAN, "false")
    floating_ips: str = parameter("FloatingIPs", ENABLED, "Disabled")
    workload_source_spoofing: str = parameter("WorkloadSourceSpoofing", p.one_of("Disabled", "Any"), "Disabled")
    openstack_region: str = parameter("OpenstackRegion", p.REGION, "", VITAL)
    metadata_addr: str = parameter("MetadataAddr", p.HOSTNAME, "127.0.0.1", VITAL)
    metadata_port: int = parameter("MetadataPort", PORT, "8775", VITAL)
    dataplane_watchdog_timeout_s: float = parameter("DataplaneWatchdogTimeout", p.SECONDS, "90", LIVE)
    live_migration_route_convergence_time_s: float = parameter("LiveMigrationRouteConvergenceTime", p.SECONDS, "30", LIVE)
    local_subnet_l2_reachability: str = parameter("LocalSubnetL2Reachability", p.one_of("Disabled", "PodsAndLoadBalancers"), "Disabled")
    local_subnet_l2_reachability_refresh_interval_s: float = parameter("LocalSubnetL2ReachabilityRefreshInterval", p.SECONDS, "90", LIVE)
    istio_ambient_mode: str = parameter("IstioAmbientMode", ENABLED, "Disabled")
    istio_dscp_mark: int = parameter("IstioDSCPMark", p.DSCP, "23")
    aws_src_dst_check: str = parameter("AWSSrcDstCheck", p.one_of("DoNothing", "Enable", "Disable"), "DoNothing", NON_ZERO)
    feature_detect_override: tuple[tuple[str, str], ...] = parameter("FeatureDetectOverride", p.PAIRS, "")
    feature_gates: tuple[tuple[str, str], ...] = parameter("FeatureGates", p.PAIRS, "")
    # Packet filter
    chain_insert_mode: str = parameter("ChainInsertMode", p.one_of("insert", "append"), "insert", NON_ZERO, VITAL)
    default_endpoint_to_host_action: str = parameter("DefaultEndpointToHostAction", p.one_of("DROP", "RETURN", "ACCEPT"), "DROP", NON_ZERO, VITAL)
    failsafe_inbound_host_ports: tuple[ProtoPort, ...] = parameter("FailsafeInboundHostPorts", p.PROTO_PORTS, INBOUND, VITAL)
    failsafe_outbound_host_ports: tuple[ProtoPort, ...] = parameter("FailsafeOutboundHostPorts", p.PROTO_PORTS, OUTBOUND, VITAL)
    disable_conntrack_invalid_check: bool = parameter("DisableConntrackInvalidCheck", p.BOOLEAN, "false")
    service_loop_prevention: str = parameter("ServiceLoopPrevention", p.one_of("Drop", "Reject", "Disabled"), "Drop")
    kube_node_port_ranges: tuple[PortRange, ...] = parameter("KubeNodePortRanges", p.PORT_RANGES, "30000:32767")
    max_ipset_size: int = parameter("MaxIpsetSize", p.whole(1), "1048576", NON_ZERO)
    ipsets_refresh_interval_s: float = parameter("IpsetsRefreshInterval", p.SECONDS, "90", LIVE)
    log_prefix: str = parameter("LogPrefix", p.TEXT, "calico-packet")
    log_action_rate_limit: str = parameter("LogActionRateLimit", p.LOG_RATE, "")
    log_action_rate_limit_burst: int = parameter("LogActionRateLimitBurst", p.whole(0, 9999), "5")
    nftables_mode: str = parameter("NFTablesMode", p.one_of("Enabled", "Disabled", "Auto"), "Auto")
    nftables_flow_table_offload: str = parameter("NFTablesFlowTableOffload", p.one_of("All", "Disabled"), "Disabled")
    nftables_filter_allow_action: str = parameter("NftablesFilterAllowAction", ACTION, "ACCEPT", NON_ZERO, VITAL)
    nftables_filter_deny_action: str = parameter("NftablesFilterDenyAction", DENIAL, "DROP", NON_ZERO, VITAL)
    nftables_mangle_allow_action: str = parameter("NftablesMangleAllowAction", ACTION, "ACCEPT", NON_ZERO, VITAL)
    nftables_mark_mask: int = parameter("NftablesMarkMask", p.MARK_MASK, "0xffff0000", NON_ZERO, VITAL)
    nftables_refresh_interval_s: float = parameter("NftablesRefreshInterval", p.SECONDS, "180", LIVE)
    nftables_table_owner: bool = parameter("NftablesTableOwner", p.BOOLEAN, "true")  # not Calico's
    iptables_backend: str = parameter("IptablesBackend", p.one_of("legacy", "nft", "auto"), "auto")
    iptables_filter_allow_action: str = parameter("IptablesFilterAllowAction", ACTION, "ACCEPT", NON_ZERO, VITAL)
    iptables_filter_deny_action: str = parameter("IptablesFilterDenyAction", DENIAL, "DROP", NON_ZERO, VITAL)
    iptables_mangle_allow_action: str = parameter("IptablesMangleAllowAction", ACTION, "ACCEPT", NON_ZERO, VITAL)
    iptables_mark_mask: int = parameter("IptablesMarkMask", p.MARK_MASK, "0xffff0000", NON_ZERO, VITAL)
    iptables_refresh_interval_s: float = parameter("IptablesRefreshInterval", p.SECONDS, "180", LIVE)
    iptables_post_write_check_interval_s: float = parameter("IptablesPostWriteCheckIntervalSecs", p.SECONDS, "5", LIVE)
    iptables_lock_probe_interval_s: float = parameter("IptablesLockProbeIntervalMillis", p.MILLIS, "50", LIVE)
    iptables_nat_outgoing_interface_filter: str = parameter("IptablesNATOutgoingInterfaceFilter", p.INTERFACE, "")
    nat_port_range: PortRange | None = parameter("NATPortRange", p.PORT_RANGE, "")  # noqa: RUF009
    nat_outgoing_address: str = parameter("NATOutgoingAddress", p.address(4), "")
    nat_outgoing_exclusions: str = parameter("NATOutgoingExclusions", p.one_of("IPPoolsOnly", "IPPoolsAndHostIPs"), "IPPoolsOnly")
    xdp_enabled: bool = parameter("XDPEnabled", p.BOOLEAN, "true", LIVE)
    xdp_refresh_interval_s: float = parameter("XDPRefreshInterval", p.SECONDS, "90", LIVE)
    generic_xdp_enabled: bool = parameter("GenericXDPEnabled", p.BOOLEAN, "false", LIVE)
    sidecar_acceleration_enabled: bool = parameter("SidecarAccelerationEnabled", p.BOOLEAN, "false", LIVE)
    # Routes and tunnels
    program_cluster_routes: str = parameter("ProgramClusterRoutes", p.one_of("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"), "EnabledIPIPOnly")
    route_source: str = parameter("RouteSource", p.one_of("WorkloadIPs", "CalicoIPAM"), "CalicoIPAM")
    route_refresh_interval_s: float = parameter("RouteRefreshInterval", p.SECONDS, "90", LIVE)
    route_sync_disabled: bool = parameter("RouteSyncDisabled", p.BOOLEAN, "false")
    old_route_table_range: TableRange | None = parameter("RouteTableRange", p.OLD_TABLE_RANGE, "", VITAL)  # noqa: RUF009
    route_table_ranges: tuple[TableRange, ...] = parameter("RouteTableRanges", p.TABLE_RANGES, "", VITAL)
    remove_external_routes: bool = parameter("RemoveExternalRoutes", p.BOOLEAN, "true")
    device_route_protocol: int = parameter("DeviceRouteProtocol", p.whole(0, 255), "3")
    device_route_source_address: str = parameter("DeviceRouteSourceAddress", p.address(4), "")
    device_route_source_address_ipv6: str = parameter("DeviceRouteSourceAddressIPv6", p.address(6), "")
    ipv4_normal_route_priority: int = parameter("IPv4NormalRoutePriority", PRIORITY, "1024")
    ipv4_elevated_route_priority: int = parameter("IPv4ElevatedRoutePriority", PRIORITY, "512")
    ipv6_normal_route_priority: int = parameter("IPv6NormalRoutePriority", PRIORITY, "1024")
    ipv6_elevated_route_priority: int = parameter("IPv6ElevatedRoutePriority", PRIORITY, "512")
    netlink_timeout_s: float = parameter("NetlinkTimeoutSecs", p.SECONDS, "10")
    external_nodes: tuple[str, ...] = parameter("ExternalNodesCIDRList", p.IPV4_NETS, "", VITAL)
    ipip_enabled: bool | None = parameter("IpInIpEnabled", p.OPTIONAL_BOOLEAN, "")
    ipip_mtu: int = parameter("IpInIpMtu", MTU, "0")
    ipip_tunnel_addr: str = parameter("IpInIpTunnelAddr", p.address(4), "")
    allow_ipip_packets_from_workloads: bool = parameter("AllowIPIPPacketsFromWorkloads", p.BOOLEAN, "false")
    vxlan_enabled: bool | None = parameter("VXLANEnabled", p.OPTIONAL_BOOLEAN, "")
    vxlan_port: int = parameter("VXLANPort", p.whole(1, 65535), "4789")
    vxlan_vni: int = parameter("VXLANVNI", p.whole(0, 2**24 - 1), "4096")
    vxlan_mtu: int = parameter("VXLANMTU", MTU, "0")
    vxlan_mtu_v6: int = parameter("VXLANMTUV6", MTU, "0")
    ipv4_vxlan_tunnel_addr: str = parameter("IPv4VXLANTunnelAddr", p.address(4), "")
    ipv6_vxlan_tunnel_addr: str = parameter("IPv6VXLANTunnelAddr", p.address(6), "")
    vxlan_tunnel_mac: str = parameter("VXLANTunnelMACAddr", p.TEXT, "")
    vxlan_tunnel_mac_v6: str = parameter("VXLANTunnelMACAddrV6", p.TEXT, "")
    allow_vxlan_packets_from_workloads: bool = parameter("AllowVXLANPacketsFromWorkloads", p.BOOLEAN, "false")
    wireguard_enabled: bool = parameter("WireguardEnabled", p.BOOLEAN, "false")
    wireguard_enabled_v6: bool = parameter("WireguardEnabledV6", p.BOOLEAN, "false")
    wireguard_listening_port: int = parameter("WireguardListeningPort", PORT, "51820")
    wireguard_listening_port_v6: int = parameter("WireguardListeningPortV6", PORT, "51821")
    wireguard_routing_rule_priority: int = parameter("WireguardRoutingRulePriority", p.whole(1, 32765), "99")
    wireguard_interface_name: str = parameter("WireguardInterfaceName", p.INTERFACE, "wireguard.cali", NON_ZERO)
    wireguard_interface_name_v6: str = parameter("WireguardInterfaceNameV6", p.INTERFACE, "wg-v6.cali", NON_ZERO)
    wireguard_mtu: int = parameter("WireguardMTU", MTU, "0")
    wireguard_mtu_v6: int = parameter("WireguardMTUV6", MTU, "0")
    wireguard_host_encryption_enabled: bool = parameter("WireguardHostEncryptionEnabled", p.BOOLEAN, "false")
    wireguard_keep_alive_s: float = parameter("WireguardPersistentKeepAlive", p.SECONDS, "0")
    wireguard_threading_enabled: bool = parameter("WireguardThreadingEnabled", p.BOOLEAN, "false")
    # Logs, health, metrics, reports
    log_file_path: str = parameter("LogFilePath", p.TEXT, "/var/log/calico/felix.log", VITAL, LIVE)
    log_severity_file: str = parameter("LogSeverityFile", LEVELS, "INFO", LIVE)
    log_severity_screen: str = parameter("LogSeverityScreen", LEVELS, "INFO", LIVE)
    log_severity_sys: str = parameter("LogSeveritySys", LEVELS, "INFO", LIVE)
    health_enabled: bool = parameter("HealthEnabled", p.BOOLEAN, "false", LIVE)
    health_host: str = parameter("HealthHost", p.HOST_ADDRESS, "localhost", LIVE)
    health_port: int = parameter("HealthPort", PORT, "9099", LIVE)
    health_timeout_overrides: tuple[tuple[str, float], ...] = parameter("HealthTimeoutOverrides", p.DURATION_PAIRS, "", LIVE)
    prometheus_metrics_enabled: bool = parameter("PrometheusMetricsEnabled", p.BOOLEAN, "false", LIVE)
    prometheus_metrics_host: str = parameter("PrometheusMetricsHost", p.HOST_ADDRESS, "", LIVE)
    prometheus_metrics_port: int = parameter("PrometheusMetricsPort", PORT, "9091", LIVE)
    prometheus_metrics_ca_file: str = parameter("PrometheusMetricsCAFile", p.TEXT, "", LIVE)
    prometheus_metrics_cert_file: str = parameter("PrometheusMetricsCertFile", p.TEXT, "", LIVE)
    prometheus_metrics_key_file: str = parameter("PrometheusMetricsKeyFile", p.TEXT, "", LIVE)
    prometheus_metrics_client_auth: str = parameter("PrometheusMetricsClientAuth", p.one_of(
        "RequireAndVerifyClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "NoClientCert"), "NoClientCert", LIVE)
    prometheus_process_metrics_enabled: bool = parameter("PrometheusProcessMetricsEnabled", p.BOOLEAN, "true", LIVE)
    prometheus_wireguard_metrics_enabled: bool = parameter("PrometheusWireGuardMetricsEnabled", p.BOOLEAN, "true", LIVE)
    reporting_interval_s: float = parameter("ReportingIntervalSecs", p.SECONDS, "30", LIVE)
    reporting_ttl_s: float = parameter("ReportingTTLSecs", p.SECONDS, "90", LIVE)
    endpoint_reporting_enabled: bool = parameter("EndpointReportingEnabled", p.BOOLEAN, "false", LIVE)
    endpoint_reporting_delay_s: float = parameter("EndpointReportingDelaySecs", p.SECONDS, "1", LIVE)
    endpoint_status_path_prefix: str = parameter("EndpointStatusPathPrefix", p.TEXT, "/var/run/calico", LIVE)
    policy_sync_path_prefix: str = parameter("PolicySyncPathPrefix", p.TEXT, "")
    usage_reporting_enabled: bool = parameter("UsageReportingEnabled", p.BOOLEAN, "true", LIVE)
    usage_reporting_initial_delay_s: float = parameter("UsageReportingInitialDelaySecs", p.SECONDS, "300", LIVE)
    usage_reporting_interval_s: float = parameter("UsageReportingIntervalSecs", p.SECONDS, "86400", LIVE)
    flow_logs_flush_interval_s: float = parameter("FlowLogsFlushInterval", p.SECONDS, "300", LIVE)
    flow_logs_goldmane_server: str = parameter("FlowLogsGoldmaneServer", p.TEXT, "")
    flow_logs_local_reporter: str = parameter("FlowLogsLocalReporter", ENABLED, "Disabled")
    flow_logs_policy_evaluation_mode: str = parameter("FlowLogsPolicyEvaluationMode", p.one_of("None", "Continuous"), "Continuous")
    # fmt: on

    @property
    def free_tables(self) -> tuple[TableRange, ...]:
        """The routing tables that Felix may take; the reserved ones (253 to 255) among them are not to be used."""
        return self.route_table_ranges or ((self.old_route_table_range or TableRange(1, 250)),)

    @property
    def is_openstack(self) -> bool:
        """The cluster's type says so, or one of the settings that only OpenStack has."""
        return (
            "openstack" in self.cluster_type.lower()
            or self.metadata_addr not in ("", "127.0.0.1")
            or self.metadata_port not in (0, 8775)
            or "tap" in self.interface_prefixes
        )

    @property
    def has_flow_logs(self) -> bool:
        return bool(self.flow_logs_goldmane_server) or self.flow_logs_local_reporter == "Enabled"


PARAMETERS: Final[Mapping[str, Parameter]] = {field.name: field.metadata["parameter"] for field in fields(FelixConfig)}
ATTRIBUTES: Final[Mapping[str, str]] = {known.name.lower(): attribute for attribute, known in PARAMETERS.items()}
# Known, and without effect here.
WITHOUT_EFFECT = re.compile(
    r"bpf.*|go(gcthreshold|maxprocs|memorylimitmb)|debug.*|cgroupv2path|windows.*|dataplanedriver|useinternaldataplanedriver"
    r"|prometheusgometricsenabled|logdebugfilenameregex|flowlogscollectordebugtrace|variant|ignorelooserpf"
)

Source = Literal["environment", "config file", "datastore (node)", "datastore (selector)", "datastore (global)"]
SOURCES: Final[tuple[Source, ...]] = get_args(Source)  # the highest first


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A setting that is not in force. `is_vital`: Calico's Felix ends over it; here the default holds."""

    parameter: str
    source: str
    value: str
    reason: str
    allowed: str = ""
    is_vital: bool = False

    def __str__(self) -> str:
        return f"{self.parameter} = {self.value!r} ({self.source}): {self.reason}" + (
            f"; allowed: {self.allowed}" if self.allowed else ""
        )


def resolve(
    environment: Mapping[str, str],
    file: Mapping[str, str],
    for_node: Mapping[str, str],
    by_selector: Mapping[str, str],
    everywhere: Mapping[str, str],
    *,
    hostname: str = "",
) -> tuple[FelixConfig, list[ConfigProblem]]:
    """Merge the layers, the first beating the next; each is parameter name (in any case) → text. Never raises.

    "" says nothing; `none` is the parameter's zero. A bad value is a problem and leaves the default in force, not the next
    layer's value: what somebody wrote to override a setting must not bring that setting back. `environment` is as
    `environment_layer` gives it; `hostname` is the default of FelixHostname, lower case.
    """
    values: dict[str, Any] = {"hostname": hostname}
    problems: list[ConfigProblem] = []
    decided: set[str] = set()
    layers: Iterator[tuple[Source, Mapping[str, str]]] = zip(
        SOURCES, (environment, file, for_node, by_selector, everywhere), strict=True
    )
    for source, layer in layers:
        for name, raw in layer.items():
            text = raw.strip()
            if not text:
                continue
            attribute = ATTRIBUTES.get(name.lower())
            if attribute is None:
                problems += _unknown(name, source, text)
                continue
            known = PARAMETERS[attribute]
            if known.is_local and source.startswith("datastore"):
                problems.append(ConfigProblem(known.name, source, raw, "only the environment or felix.cfg may set it"))
                continue
            value, problem = _parsed(known, source, text)
            if problem:
                problems.append(problem)
            if attribute not in decided:
                decided.add(attribute)
                if problem is None:
                    values[attribute] = value
    config = replace(FelixConfig(), **values)
    return config, problems + list(_contradictions(config))


def _parsed(known: Parameter, source: str, text: str) -> tuple[Any, ConfigProblem | None]:
    if text.lower() == "none":
        if known.has_no_zero:
            return None, ConfigProblem(known.name, source, text, "cannot be none", known.form.allowed, known.is_vital)
        return known.form.zero, None
    try:
        return known.form.parse(text), None
    except ValueError as error:
        return None, ConfigProblem(known.name, source, text, str(error), known.form.allowed, known.is_vital)


def _unknown(name: str, source: str, text: str) -> Iterator[ConfigProblem]:
    lower = name.lower()
    if lower == "bpfenabled" and text.lower() in ("true", "1", "yes", "y", "t"):
        yield ConfigProblem(name, source, text, "there is no eBPF dataplane; the packet filter is used")
    elif not WITHOUT_EFFECT.fullmatch(lower):
        yield ConfigProblem(name, source, text, "is not a parameter of Felix")


def _contradictions(config: FelixConfig) -> Iterator[ConfigProblem]:
    """What single values cannot show."""
    if not config.hostname:
        yield ConfigProblem("FelixHostname", "default", "", "the host's name is unknown", is_vital=True)
    if (
        config.datastore_type == "etcdv3"
        and not config.etcd_endpoints
        and not (config.etcd_scheme and config.etcd_addr)
    ):
        yield ConfigProblem("EtcdEndpoints", "default", "", "neither EtcdEndpoints nor EtcdAddr is set", is_vital=True)
    files = (config.typha_key_file, config.typha_cert_file, config.typha_ca_file)
    names = (config.typha_cn, config.typha_uri_san)
    if any(files + names) and not (all(files) and any(names)):
        reason = "TLS to Typha needs TyphaKeyFile, TyphaCertFile, TyphaCAFile and one of TyphaCN and TyphaURISAN"
        yield ConfigProblem("TyphaKeyFile", "all sources", config.typha_key_file, reason, is_vital=True)


@dataclass(frozen=True, slots=True)
class Difference:
    """Attributes of FelixConfig whose values differ, and those of them that a running Felix cannot take over."""

    changed: frozenset[str]
    restart: frozenset[str]


def difference(old: FelixConfig, new: FelixConfig, also_live: Collection[str] = ()) -> Difference:
    """`also_live` are attributes that the caller takes over by itself, beyond those marked so."""
    changed = frozenset(name for name in PARAMETERS if getattr(old, name) != getattr(new, name))
    return Difference(changed, frozenset(n for n in changed if not PARAMETERS[n].is_live and n not in also_live))
