"""Felix' dataplane put together: packet filters, routes, interfaces, and what watches the kernel for others' changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bgp.ports import EventSink
from felix.config import FelixConfig
from felix.dataplane.interfaces import WorkloadInterfaces
from felix.dataplane.loop import Check, Dataplane, Observer
from felix.dataplane.routes import RouteProgrammer
from felix.dataplane.wireguard import KeyKnown
from felix.dataplane.workload_links import WorkloadLinks
from felix.desired import EncapsulationUpdate, IPVersion, Message
from felix.figures import Reading
from felix.kernel.connections import Connections
from felix.kernel.interfaces import InterfaceMonitor
from felix.kernel.nft_monitor import NftMonitor
from felix.kernel.nftables import NftablesFilter
from felix.ports import InterfaceListener, PacketFilter, Programmer
from felix.rules.ruleset import RuleProgrammer
from felix.rules.static import guard
from felix.sync.routes import FELIX_PROTOCOL, KernelRoute
from integration.node.felix.settings import (
    interface_settings,
    route_settings,
    rule_settings,
    uses_nftables,
    with_encapsulation,
    workload_link_settings,
)
from integration.node.felix.tunnels import Tunnels

ALTERED_ROUTES = "altered routes"
RULES: dict[IPVersion, str] = {4: "rules", 6: "rules-v6"}


@dataclass(slots=True)
class Kept:
    """Interfaces and their addresses, for explanations."""

    addresses: dict[str, frozenset[str]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        if state == "gone":
            self.addresses.pop(name, None)
        else:
            self.addresses[name] = addresses
            self.names[ifindex] = name


class Parts:
    """From the configuration that was in force when Felix began. `start` and `close` from the event loop."""

    def __init__(
        self,
        config: FelixConfig,
        node: str,
        observer: Observer,
        listeners: Iterable[InterfaceListener],
        log: EventSink,
        interfaces_changed: Callable[[], None],
        mtu_file: Path | None,
        key_known: KeyKnown,
    ) -> None:
        """Raises OSError if the kernel or its programs are not what is needed; the text says what to install."""
        self._node, self._log, self._config = node, log, config
        self._pools = EncapsulationUpdate()
        versions: list[IPVersion] = [4, 6] if config.ipv6_support else [4]
        self.rules = {version: self._rules_of(version, config) for version in versions}
        self._connections = Connections(log.event)
        self.routes = RouteProgrammer(route_settings(config, node), self._connections.forget, self._apply_at)
        self.interfaces = WorkloadInterfaces(interface_settings(config))
        self._links = WorkloadLinks(workload_link_settings(config), self.routes.routes_dropped)
        self.tunnels = Tunnels(config, with_encapsulation(config, self._pools), node, mtu_file, log.event, key_known)
        self.kept = Kept()
        parts: dict[str, Programmer] = {RULES[version]: one for version, one in self.rules.items()}
        parts |= {"interfaces": self.interfaces, "links": self._links, **self.tunnels.parts, "routes": self.routes}
        checks = {
            RULES[version]: Check(one.filter.check, self._refresh_s(config)) for version, one in self.rules.items()
        }
        checks["routes"] = Check(self.routes.check, config.route_refresh_interval_s)
        checks[ALTERED_ROUTES] = Check(self.routes.put_right, 0)  # as they are told
        checks["interfaces"] = Check(self.interfaces.check, config.interface_refresh_interval_s)
        checks["links"] = Check(self._links.check, config.interface_refresh_interval_s)
        tunnel_checks = self.tunnels.checks()
        self._tunnel_checks = tuple(tunnel_checks)
        self.plane = Dataplane(parts, checks | tunnel_checks, observer)
        self._interfaces_changed = interfaces_changed
        all_listeners: list[InterfaceListener] = [
            *self.rules.values(),
            *self.tunnels.listeners,
            self.routes,
            self.interfaces,
            self._links,
            self.kept,
            *listeners,
            self,
        ]
        self._monitor = InterfaceMonitor(
            all_listeners, self, {FELIX_PROTOCOL, config.device_route_protocol}, self.routes.port_id
        )  # fmt: skip
        self._nft_monitor: NftMonitor | None = None

    @staticmethod
    def _refresh_s(config: FelixConfig) -> float:
        return config.nftables_refresh_interval_s if uses_nftables(config) else config.iptables_refresh_interval_s

    def _rules_of(self, version: IPVersion, config: FelixConfig) -> RuleProgrammer:
        return RuleProgrammer(make_filter(version, config, self._log), rule_settings(config, self._pools))

    def start(self) -> None:
        self._monitor.start()
        if uses_nftables(self._config):
            filters = [one.filter for one in self.rules.values() if isinstance(one.filter, NftablesFilter)]
            self._nft_monitor = NftMonitor("calico", {id for one in filters for id in one.port_ids})
            asyncio.get_running_loop().add_reader(self._nft_monitor.fileno(), self._nft_changed)

    def close(self) -> None:
        self._monitor.close()
        if self._nft_monitor is not None:
            asyncio.get_running_loop().remove_reader(self._nft_monitor.fileno())
            self._nft_monitor.close()
        self.routes.close()
        self._connections.close()
        self._links.close()
        self.tunnels.close()
        for one in self.rules.values():
            close = getattr(one.filter, "close", None)
            if close is not None:
                close()

    def figures(self) -> Iterator[Reading]:
        yield from self.routes.figures()
        for one in self.rules.values():
            yield from one.figures()

    async def remove_other_renderer(self) -> None:
        """After the first apply: what a Felix with the other setting had written would go on deciding beside ours."""
        for version in self.rules:
            try:
                other = make_filter(version, self._config, self._log, is_other=True)
            except OSError:
                continue  # its programs are not here, and so neither are its rules
            try:
                await other.remove_everything()
            except Exception as error:  # its own errors, of either kind; ours are in force whatever is left
                self._log.event("other_renderer_left", level="warning", version=version, error=str(error))

    def take(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, EncapsulationUpdate) and message != self._pools:
                self._pools = message
                self.reconfigure(self._config)
        self.plane.take(messages)

    def reconfigure(self, config: FelixConfig) -> None:
        """What can be taken over while packets flow."""
        self._config = config
        encapsulation = with_encapsulation(config, self._pools)
        for version, one in self.rules.items():
            wanted = rule_settings(config, encapsulation)
            if one.settings != wanted:
                one.reconfigure(wanted)
            self.plane.set_interval(RULES[version], self._refresh_s(config))
        self.tunnels.reconfigure(config, encapsulation)
        for name in self._tunnel_checks:
            self.plane.set_interval(name, config.route_refresh_interval_s)
        self.routes.reconfigure(route_settings(config, self._node))
        self.interfaces.reconfigure(interface_settings(config))
        self._links.reconfigure(workload_link_settings(config))
        self.plane.set_interval("routes", config.route_refresh_interval_s)
        for name in ("interfaces", "links"):
            self.plane.set_interval(name, config.interface_refresh_interval_s)
        self.plane.wake()

    def _apply_at(self, at: float) -> None:
        self.plane.apply_at(at)

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        self._interfaces_changed()
        self.plane.wake()

    def route_changed(self, route: KernelRoute, *, is_gone: bool, is_replacement: bool) -> None:
        at = self.routes.route_changed(route, is_gone=is_gone, is_replacement=is_replacement)
        if at is not None:
            asyncio.get_running_loop().call_at(at, self.plane.check_soon, ALTERED_ROUTES)

    def routes_lost(self) -> None:
        self.routes.routes_lost()
        self.plane.check_soon(ALTERED_ROUTES)

    def _nft_changed(self) -> None:
        assert self._nft_monitor is not None
        filters = {v: one.filter for v, one in self.rules.items() if isinstance(one.filter, NftablesFilter)}
        for version, what in self._nft_monitor.read().items():
            if version in filters:
                filters[version].suspect(what)
                self.plane.check_soon(RULES[version])


def make_filter(version: IPVersion, config: FelixConfig, log: EventSink, *, is_other: bool = False) -> PacketFilter:
    """The configured one, or the other. Raises OSError if its programs are missing."""
    if uses_nftables(config) is not is_other:
        return NftablesFilter(version, guard=guard(config.interface_prefixes), owns=config.nftables_table_owner)
    from felix.kernel.iptables import IptablesFilter

    return IptablesFilter(version, backend=config.iptables_backend, max_set_size=config.max_ipset_size, told=log.event)
