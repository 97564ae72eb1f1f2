"""WorkloadEndpoint, HostEndpoint, LiveMigration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from integration.resources.base import Model, Resource
from integration.resources.fields import (
    CIDRText,
    ContainerIDText,
    DSCPText,
    InterfaceName,
    IPText,
    IPv4Text,
    IPv6Text,
    MACText,
    NameText,
    NetText,
    PlainSelector,
    Port,
    PortName,
    ProtocolText,
)
from integration.resources.rules import Items, Range, Required


class EndpointPort(Model):
    name: Annotated[PortName, Required()] = ""
    protocol: Annotated[ProtocolText, Required()] = None
    port: Annotated[Port, Required()] = None


class HostEndpointSpec(Model):
    node: Annotated[NameText, Required()] = ""
    interface_name: InterfaceName = ""  # `*`: all interfaces
    expected_ips: Annotated[list[IPText], Items(unique=True)] = []
    profiles: Annotated[list[NameText], Items(unique=True)] = []
    ports: list[EndpointPort] = []


class HostEndpoint(Resource):
    spec: HostEndpointSpec = Field(default_factory=HostEndpointSpec)


class WorkloadEndpointPort(Model):
    name: PortName = ""
    protocol: Annotated[ProtocolText, Required()] = None
    port: Annotated[Port, Required()] = None
    host_port: Annotated[int, Range(0, 65535)] = 0
    host_ip: NetText = ""


class IPNAT(Model):
    internal_ip: Annotated[IPText, Required()] = ""
    external_ip: Annotated[IPText, Required()] = ""


class QoSControls(Model):
    """Bandwidths and bursts in bits (a second), minbursts in octets, packet rates a second. 0: no limit."""

    ingress_bandwidth: int = 0
    ingress_burst: int = 0
    ingress_peakrate: int = 0
    ingress_minburst: int = 0
    egress_bandwidth: int = 0
    egress_burst: int = 0
    egress_peakrate: int = 0
    egress_minburst: int = 0
    ingress_packet_rate: int = 0
    ingress_packet_burst: int = 0
    egress_packet_rate: int = 0
    egress_packet_burst: int = 0
    ingress_max_connections: int = 0
    egress_max_connections: int = 0
    dscp: DSCPText = None


class WorkloadEndpointSpec(Model):
    orchestrator: NameText = ""
    workload: NameText = ""
    node: NameText = ""
    container_id: ContainerIDText = ""
    pod: NameText = ""
    endpoint: NameText = ""
    service_account_name: NameText = ""
    ip_networks: list[NetText] = []  # single addresses: /32 or /128
    ip_nats: list[IPNAT] = []
    ipv4_gateway: IPv4Text = ""
    ipv6_gateway: IPv6Text = ""
    profiles: list[NameText] = []
    interface_name: Annotated[InterfaceName, Required()] = ""
    mac: MACText = ""
    ports: list[WorkloadEndpointPort] = []
    allow_spoofed_source_prefixes: list[CIDRText] = []
    qos_controls: QoSControls | None = None


class WorkloadEndpoint(Resource):
    spec: WorkloadEndpointSpec = Field(default_factory=WorkloadEndpointSpec)


class WorkloadIdentifier(Model):
    hostname: str = ""
    orchestrator_id: str = ""
    workload_id: str = ""


class WorkloadEndpointIdentifier(WorkloadIdentifier):
    endpoint_id: str = ""


class LiveMigrationSource(Model):
    """Exactly one of the two."""

    workload: WorkloadIdentifier | None = None
    workload_endpoint: WorkloadEndpointIdentifier | None = None


class LiveMigrationTarget(Model):
    """Exactly one of the two."""

    selector: PlainSelector = ""
    workload_endpoint: WorkloadEndpointIdentifier | None = None


class LiveMigrationSpec(Model):
    source: LiveMigrationSource | None = None
    target: LiveMigrationTarget | None = None


class LiveMigration(Resource):
    spec: LiveMigrationSpec = Field(default_factory=LiveMigrationSpec)
