"""The messages about this node's own endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from felix.calc.active import AllTiers
from felix.calc.configuration import LocalPeer
from felix.calc.endpoints import HostRecord, Workload
from felix.calc.migrations import Migration, role
from felix.desired import HostEndpoint, WorkloadEndpoint

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CalculationSettings:
    """What the calculation must know of Felix' configuration."""

    has_floating_ips: bool = False
    is_openstack: bool = False  # floating addresses are OpenStack's own matter, and always on
    route_source: Literal["CalicoIPAM", "WorkloadIPs"] = "CalicoIPAM"


def workload_endpoint(
    record: Workload,
    tiers: AllTiers,
    labels: Labels,
    settings: CalculationSettings,
    peers: Iterable[tuple[str, LocalPeer]],
    migrations: Iterable[Migration],
) -> WorkloadEndpoint:
    """`labels` are own and inherited ones, `peers` those that are for our node, by name."""
    details = record.details
    if details is None:
        raise ValueError(f"{record.id} is on another node")
    nets = record.addressed.nets
    has_nats = settings.has_floating_ips or settings.is_openstack or record.id.orchestrator == "openstack"
    return WorkloadEndpoint(
        record.id,
        details.interface,
        mac=details.mac,
        profiles=record.addressed.profiles,
        tiers=tiers.normal,
        ipv4_nets=tuple(net for net in nets if ":" not in net),
        ipv6_nets=tuple(net for net in nets if ":" in net),
        nats=details.nats if has_nats else (),
        ipv4_gateway=details.ipv4_gateway,
        ipv6_gateway=details.ipv6_gateway,
        allowed_source_prefixes=details.allowed_source_prefixes,
        qos=details.qos,
        labels=tuple(sorted(labels.items())),
        service_account=details.service_account,
        bgp_peer=next((name for name, peer in peers if peer.workloads.matches(labels)), ""),
        live_migration=role(migrations, record.node, record.id, labels),
    )


def host_endpoint(record: HostRecord, tiers: AllTiers) -> HostEndpoint:
    return HostEndpoint(
        record.name,
        record.interface,
        tuple(net.partition("/")[0] for net in record.addressed.nets),
        record.addressed.profiles,
        tiers.normal,
        tiers.untracked,
        tiers.pre_dnat,
        tiers.forward,
    )
