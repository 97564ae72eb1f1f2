"""HostEndpoint, WorkloadEndpoint, LiveMigration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from integration.resources.base import Problem
from integration.resources.fields import PORT_PROTOCOLS, parse_address, parse_network, protocol_of
from integration.resources.models.endpoints import (
    IPNAT,
    EndpointPort,
    HostEndpointSpec,
    LiveMigrationSource,
    LiveMigrationTarget,
    QoSControls,
    WorkloadEndpointPort,
    WorkloadEndpointSpec,
)

BANDWIDTH = (1_000, 10**15)
BURST = (1_000, 34_359_738_360)
# field → its range where it is not 0; for ingress… and egress… alike
QOS_RANGES = {
    "Bandwidth": BANDWIDTH,
    "Burst": BURST,
    "Peakrate": (1_010, 1_010_000_000_000_000),
    "Minburst": (1_000, 10**8),
    "PacketRate": (1, 10_000),
    "PacketBurst": (1, 10_000),
    "MaxConnections": (1, 0xFFFF_FFFF),
}


def check_port(port: EndpointPort | WorkloadEndpointPort, path: str) -> Iterator[Problem]:
    if protocol_of(port.protocol) not in PORT_PROTOCOLS:
        yield Problem(f"{path}.protocol", port.protocol, "has no ports", "TCP, UDP, SCTP")
    if isinstance(port, WorkloadEndpointPort) and not port.name and not port.host_port:
        yield Problem(f"{path}.name", None, "is required where hostPort is not set")


def check_host_endpoint(spec: HostEndpointSpec, path: str) -> Iterator[Problem]:
    if not spec.interface_name and not spec.expected_ips:
        yield Problem(
            f"{path}.interfaceName", None, "is required where expectedIPs is empty", "an interface's name or *"
        )


def check_workload_endpoint(spec: WorkloadEndpointSpec, path: str) -> Iterator[Problem]:
    networks = [parse_network(text) for text in spec.ip_networks]
    for index, network in enumerate(networks):
        if network.prefixlen != network.max_prefixlen:
            place, allowed = f"{path}.ipNetworks[{index}]", f"a /{network.max_prefixlen}"
            yield Problem(place, spec.ip_networks[index], "holds more than one address", allowed)
    for index, nat in enumerate(spec.ip_nats):
        if not any(parse_address(nat.internal_ip) in network for network in networks):
            place = f"{path}.ipNATs[{index}].internalIP"
            yield Problem(place, nat.internal_ip, "is not in the endpoint's networks", ", ".join(spec.ip_networks))


def check_nat(nat: IPNAT, path: str) -> Iterator[Problem]:
    version = parse_address(nat.internal_ip).version
    if parse_address(nat.external_ip).version != version:
        reason, allowed = "is not of internalIP's family", f"an IPv{version} address"
        yield Problem(f"{path}.externalIP", nat.external_ip, reason, allowed)


def check_qos(controls: QoSControls, path: str) -> Iterator[Problem]:
    given = controls.to_json()
    for direction in ("ingress", "egress"):
        for name, (low, high) in QOS_RANGES.items():
            value = given.get(direction + name, 0)
            if value and not low <= value <= high:
                yield Problem(f"{path}.{direction}{name}", value, "is out of range", f"0, or {low} to {high}")


def check_one_end(end: LiveMigrationSource | LiveMigrationTarget, path: str) -> Iterator[Problem]:
    first = end.workload if isinstance(end, LiveMigrationSource) else end.selector
    name = "workload" if isinstance(end, LiveMigrationSource) else "selector"
    if bool(first) == bool(end.workload_endpoint):
        yield Problem(path, None, "says both or neither", f"exactly one of {name} and workloadEndpoint")


CHECKS: dict[type, Callable[[Any, str], Iterator[Problem]]] = {
    EndpointPort: check_port,
    WorkloadEndpointPort: check_port,
    HostEndpointSpec: check_host_endpoint,
    WorkloadEndpointSpec: check_workload_endpoint,
    IPNAT: check_nat,
    QoSControls: check_qos,
    LiveMigrationSource: check_one_end,
    LiveMigrationTarget: check_one_end,
}
