"""What of Felix' configuration an explanation depends on."""

from __future__ import annotations

from felix.config import FelixConfig
from felix.explain.flow import NUMBERS, ExplainSettings, Failsafe
from felix.parameters import ProtoPort


def explain_settings(config: FelixConfig) -> ExplainSettings:
    return ExplainSettings(
        workload_prefixes=config.interface_prefixes,
        endpoint_to_host=config.default_endpoint_to_host_action,
        failsafe_in=_failsafes(config.failsafe_inbound_host_ports),
        failsafe_out=_failsafes(config.failsafe_outbound_host_ports),
        honours_source_prefixes=config.workload_source_spoofing == "Any",
        vxlan_port=config.vxlan_port,
        allows_vxlan_from_workloads=config.allow_vxlan_packets_from_workloads,
        allows_ipip_from_workloads=config.allow_ipip_packets_from_workloads,
        drops_invalid=not config.disable_conntrack_invalid_check,
        stops_service_loops=config.service_loop_prevention != "Disabled",
    )


def _failsafes(ports: tuple[ProtoPort, ...]) -> tuple[Failsafe, ...]:
    return tuple(Failsafe(NUMBERS[one.protocol], one.port, one.net) for one in ports)
