"""FelixDaemon: datastore → calculation → kernel, and everything that tells of it, in one process."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from felix.calc.graph import CalculationGraph
from felix.config import FelixConfig
from felix.dataplane.loop import PartKeepsFailing
from felix.dataplane.mtu import MTU_FILE
from felix.desired import InSync, Message
from felix.endpoint_status import EndpointId, Status
from felix.explain.decide import Direction
from felix.explain.denied import DeniedFlows, denied_flow, with_endpoint
from felix.explain.flow import Surroundings
from felix.explain.settings import explain_settings
from felix.explain.state import DesiredState
from felix.figures import Figures
from felix.health import Health
from felix.kernel.nflog import LoggedPacket, NFLogReader, open_group
from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError
from integration.datastore.status_keys import status_keys_of
from integration.lean import settled
from integration.logs import EventLog
from integration.node.felix.control import Asked, FelixApi, no_trace
from integration.node.felix.counting import counted
from integration.node.felix.key_publisher import KeyPublisher
from integration.node.felix.parts import Parts
from integration.node.felix.settings import DENIED_GROUP, calculation_settings, uses_nftables
from integration.node.felix.source import FelixSource
from integration.node.felix.tracing import Tracing, remove_left_trace
from integration.node.felix_config import LiveConfig
from integration.node.felix_observer import FelixObserver
from integration.node.felix_ports import (
    ConfiguredPort,
    health_application,
    health_port,
    metrics_application,
    metrics_port,
)
from integration.node.felix_status import EndpointStatusReporter, ProcessStatusReporter
from integration.node.http_server import HttpServer
from integration.node.policy_sync import PolicySync
from integration.node.sockets import claim_unix_socket, release_unix_socket
from integration.node.status_files import StatusFiles

CONFIG_KINDS = ("Node", "ClusterInformation", "FelixConfiguration")
RESTART_CODE = 129  # Calico's: the configuration changed, start me anew
CALCULATION, START = "CalculationGraph", "FelixStartup"
CALCULATION_TIMEOUT_S, REPORT_S = 30.0, 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """`control` is where the control socket is to be; `mtu_file` is for the CNI plugin."""

    node: str
    control: str
    environ: Mapping[str, str]
    mtu_file: Path = MTU_FILE


class FelixDaemon:
    """`run()` until `stop()`; returns the exit code."""

    def __init__(self, datastore: Datastore, options: Options, log: EventLog) -> None:
        self._datastore, self._options, self._log = datastore, options, log
        self._config = LiveConfig(options.environ, options.node, log, also_live=LIVE_HERE)
        self._figures = Figures(time.monotonic)
        self._health = Health(time.monotonic, self._config.now.health_timeout_overrides)
        self._health.register(START, ready=True)
        self._state = DesiredState()
        self._denied = DeniedFlows(counted=self._count_denied)
        self._inbox: asyncio.Queue[list[Message]] = asyncio.Queue()
        self._stopping = asyncio.Event()
        self._code = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: Parts | None = None
        self._graph: CalculationGraph | None = None
        self._source: FelixSource | None = None
        self._was_in_sync = False

    def stop(self, code: int = 0) -> None:
        self._code = self._code or code
        self._stopping.set()

    async def run(self) -> int:
        """Raises OSError if this node cannot do what Felix needs, CannotListen if the control socket is taken."""
        self._begin(self._serve_ports())
        work = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except PartKeepsFailing as error:
            self._log.event("felix_gives_up", level="error", error=str(error), kept="everything in the kernel")
            self._code = 1
        finally:
            for task in (work, stopping, *self._tasks):
                task.cancel()
            await asyncio.gather(work, stopping, *self._tasks, return_exceptions=True)
            if self._parts is not None:
                self._parts.close()
        self._log.event("felix_stopped", exit_code=self._code, kept="everything in the kernel")
        return self._code

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    # --- from start to stop --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        await self._read_configuration()
        config = self._config.now
        self._config.begin()
        self._config.listen(self._config_changed)
        graph = self._graph = CalculationGraph(self._options.node, calculation_settings(config))
        observer = FelixObserver(
            self._figures, self._health, self._log, self._statuses, config.dataplane_watchdog_timeout_s
        )
        self._observer = observer
        self._files = StatusFiles(config.endpoint_status_path_prefix, self._log)
        self._sync = PolicySync(config.policy_sync_path_prefix, self._log) if config.policy_sync_path_prefix else None
        keys = status_keys_of(self._datastore)
        self._reporter = None if keys is None else EndpointStatusReporter(keys, lambda: self._config.now, self._log)
        keys_of_ours = KeyPublisher(self._datastore, self._options.node, self._log)
        self._begin(keys_of_ours.run())
        self._parts = Parts(
            config, self._options.node, observer, [observer.states], self._log, observer.tell_statuses,
            self._options.mtu_file, keys_of_ours.publish,
        )  # fmt: skip
        self._parts.start()
        self._source = FelixSource(self._datastore, graph, self._inbox.put_nowait, self._log)
        remove_left_trace(self._log)
        await self._serve_control(config)
        self._begin(self._files.run())
        if self._sync is not None:
            self._begin(self._sync.run())
        if keys is not None and self._reporter is not None:
            self._begin(self._reporter.run())
            self._begin(ProcessStatusReporter(keys, lambda: self._config.now, self._log).run())
        self._read_denied()
        self._begin(self._report())
        self._begin(self._source.run())
        self._begin(self._after_first_apply())
        renderer = "nftables" if uses_nftables(config) else "iptables"
        self._log.event("felix_started", node=self._options.node, packet_filter=renderer)
        self._health.report(START)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver())
            tasks.create_task(self._parts.plane.run())

    async def _read_configuration(self) -> None:
        """What the datastore says before anything is made: some settings cannot be taken over later."""
        graph = CalculationGraph(self._options.node)
        for kind in CONFIG_KINDS:
            while True:
                try:
                    listing = await self._datastore.list(kind)
                    break
                except DatastoreError as error:
                    self._log.event("datastore_lost", level="warning", error=str(error), waiting_for=kind)
                    await asyncio.sleep(RETRY_S)
            for entry in listing.entries:
                graph.update(entry.key, entry.value)
        graph.in_sync()
        for message in graph.flush():
            self._config.on_message(message)

    async def _deliver(self) -> None:
        while True:
            messages = await self._inbox.get()
            for message in messages:
                self._config.on_message(message)
                if self._config.restart:
                    self._log.event("felix_restarts", because=sorted(self._config.restart))
                    self.stop(RESTART_CODE)
                    return
                self._observer.on_message(message)
                self._files.on_message(message)
                self._state.fold(message)
                if self._sync is not None:
                    self._sync.on_message(message)
            assert self._parts is not None
            self._parts.take(messages)
            if not self._was_in_sync and any(isinstance(one, InSync) for one in messages):
                self._was_in_sync = True
                self._report_calculation()

    async def _after_first_apply(self) -> None:
        assert self._parts is not None
        await self._parts.plane.is_applied.wait()
        settled()
        await self._parts.remove_other_renderer()
        self._files.in_sync()
        if self._reporter is not None:
            self._reporter.in_sync()

    def _config_changed(self, config: FelixConfig) -> None:
        self._health.override(config.health_timeout_overrides)
        if self._graph is not None:
            self._graph.reconfigure(calculation_settings(config))
            if self._source is not None:
                self._source.flush_soon()  # what follows from the settings waits for no resource to change
        if self._parts is not None:
            self._parts.reconfigure(config)
        for port in self._ports:
            port.look_soon()

    def _statuses(self, changes: Mapping[EndpointId, Status | None]) -> None:
        self._files.told(changes)
        if self._reporter is not None:
            self._reporter.told(changes)

    # --- telling -------------------------------------------------------------------------------------------------------

    async def _serve_ports(self) -> None:
        config = self._config
        self._ports = [
            ConfiguredPort("health", health_application(self._health), lambda: health_port(config.now), self._log),
            ConfiguredPort(
                "metrics", metrics_application(self._figures, lambda: config.now), lambda: metrics_port(config.now),
                self._log,
            ),
        ]  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            for port in self._ports:
                tasks.create_task(port.run())

    async def _serve_control(self, config: FelixConfig) -> None:
        path = self._options.control
        listening = claim_unix_socket(path)
        inode = os.lstat(path).st_ino
        parts = self._parts
        assert parts is not None
        tracing = Tracing(self._state, lambda: parts.rules, lambda: parts.kept.names)
        asked = Asked(
            self._state, self._health, lambda: explain_settings(self._config.now), self._surroundings, self._status,
            self._counted, tracing.start if uses_nftables(config) else no_trace,
        )  # fmt: skip
        server = HttpServer(FelixApi(asked), failed=lambda text: self._log.event("defect", where="control", error=text))
        await server.serve(listening)

        async def until_cancelled() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                release_unix_socket(path, inode)
                await server.close()  # what is being traced ends with us

        self._begin(until_cancelled())

    async def _counted(self) -> list[Any]:
        return [] if self._parts is None else await counted(self._parts.rules.values())

    def _surroundings(self) -> Surroundings:
        return Surroundings({} if self._parts is None else dict(self._parts.kept.addresses))

    def _status(self) -> dict[str, Any]:
        plane = self._parts.plane if self._parts is not None else None
        graph, source = self._graph, self._source
        return {
            "node": self._options.node,
            "in_sync": self._was_in_sync,
            "applied": plane is not None and plane.is_applied.is_set(),
            "datastore": source.status_text if source is not None else "wait-for-datastore",
            "datastore_lost": (source.lost or None) if source is not None else None,
            "failures": [f"{one.what}: {one.reason}" for one in plane.failures] if plane is not None else [],
            "problems": {str(key): why for key, why in graph.problems.items()} if graph is not None else {},
            "workloads": sorted(id.workload for id in self._state.workloads),
            "policies": len(self._state.policies),
            "denied_packets": self._denied.total,
        }

    async def _report(self) -> None:
        """Figures and the calculation's health, and what was denied more than once."""
        self._health.register(CALCULATION, timeout_s=CALCULATION_TIMEOUT_S)
        while True:
            self._report_calculation()
            for repeated in self._denied.due(time.monotonic()):
                self._log.event("denied", level="info", **repeated.flow.view(), packets=repeated.count)
            await asyncio.sleep(REPORT_S)

    def _report_calculation(self) -> None:
        self._health.report(CALCULATION, ready=self._was_in_sync, detail="" if self._was_in_sync else "not in sync")
        if self._graph is not None:
            found = self._graph.statistics()
            for name in found.__dataclass_fields__:
                with suppress(KeyError, ValueError):
                    self._figures.set(f"felix_{name}", getattr(found, name))  # type: ignore[arg-type]

    def _read_denied(self) -> None:
        try:
            group = open_group(DENIED_GROUP)
        except OSError as error:
            self._log.event("denied_not_read", level="warning", group=DENIED_GROUP, error=error.strerror or str(error))
            return
        self._denied_reader = NFLogReader([group], self._denied_packet)

    def _denied_packet(self, packet: LoggedPacket) -> None:
        names = self._parts.kept.names if self._parts is not None else {}
        flow = denied_flow(
            packet.prefix, packet.payload, names.get(packet.in_interface, ""), names.get(packet.out_interface, "")
        )
        if flow is None:
            return
        told = self._denied.note(flow, time.monotonic())
        if told is not None:
            addresses = self._surroundings().interfaces
            known = with_endpoint(told, self._state, lambda name: addresses.get(name, frozenset()))
            self._log.event("denied", level="info", **self._named(known.view()))

    def _count_denied(self, tier: str, policy: str, direction: Direction) -> None:
        way = "ingress" if direction == "in" else "egress"
        self._figures.count("felix_denied_packets", tier=tier, policy=policy, direction=way)

    def _named(self, view: dict[str, Any]) -> dict[str, Any]:
        """With the workload's name where an address is one of ours."""
        for side in ("source", "destination"):
            with suppress(ValueError):
                found = self._state.workload_at(ipaddress.ip_address(view[side]))
                if found is not None:
                    view[f"{side}_workload"] = found.id.workload
        return view


# Beyond what `felix.config` marks: these the parts take over while packets flow.
LIVE_HERE = frozenset({
    "default_endpoint_to_host_action", "failsafe_inbound_host_ports", "failsafe_outbound_host_ports",
    "disable_conntrack_invalid_check", "service_loop_prevention", "log_prefix", "log_action_rate_limit",
    "log_action_rate_limit_burst", "nftables_filter_allow_action", "nftables_filter_deny_action",
    "nftables_mangle_allow_action", "iptables_filter_allow_action", "iptables_filter_deny_action",
    "iptables_mangle_allow_action", "iptables_nat_outgoing_interface_filter", "nat_port_range", "nat_outgoing_address",
    "nat_outgoing_exclusions", "allow_ipip_packets_from_workloads", "allow_vxlan_packets_from_workloads",
    "external_nodes", "workload_source_spoofing", "ip_forwarding", "remove_external_routes",
    "device_route_source_address", "device_route_source_address_ipv6", "ipv4_normal_route_priority",
    "ipv4_elevated_route_priority", "ipv6_normal_route_priority", "ipv6_elevated_route_priority",
    "program_cluster_routes", "floating_ips", "route_source", "cluster_type", "chain_insert_mode", "metadata_addr",
    "metadata_port", "ipip_enabled", "ipip_mtu", "ipip_tunnel_addr", "vxlan_enabled", "vxlan_port", "vxlan_vni", "vxlan_mtu",
    "vxlan_mtu_v6", "ipv4_vxlan_tunnel_addr", "ipv6_vxlan_tunnel_addr", "vxlan_tunnel_mac", "vxlan_tunnel_mac_v6",
    "mtu_iface_pattern", "require_mtu_file", "wireguard_listening_port", "wireguard_listening_port_v6",
    "wireguard_mtu", "wireguard_mtu_v6", "wireguard_keep_alive_s", "wireguard_routing_rule_priority",
})  # fmt: skip
