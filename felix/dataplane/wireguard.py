"""WireGuard between nodes: the device and its key, a peer per node, and a routing table of its own that leads into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from felix.dataplane.tunnel import Tunnel
from felix.desired import (
    HostRemove,
    HostUpdate,
    IPVersion,
    Message,
    RouteRemove,
    RouteUpdate,
    WireguardRemove,
    WireguardUpdate,
)
from felix.kernel.policy_routing import RoutedTable, UnlessMarked
from felix.kernel.tunnels import KernelDevices, Made
from felix.kernel.wireguard import KernelWireguard
from felix.ports import Failure
from felix.sync.devices import WantedDevice
from felix.sync.wireguard import Cluster, DeviceState, Reach, different_peers

SYSCTLS = Path("/proc/sys/net")
KeyKnown = Callable[[IPVersion, str], None]


@dataclass(frozen=True, slots=True)
class WireguardSettings:
    """`mark`: of the packets that WireGuard itself sends, and with host encryption of those that came unencrypted; 0: no
    bit is free. `marks`: all bits that are ours. `table`: where its routes are, `priority` of the rule that leads there."""

    node: str
    is_on: bool = False
    device: str = "wireguard.cali"
    port: int = 51820
    mtu: int = 0
    mark: int = 0x200000
    marks: int = 0xFFFF0000
    table: int = 1
    priority: int = 99
    keep_alive_s: int = 0
    encrypts_host: bool = False


class WireguardTunnel(Tunnel[WireguardSettings]):
    """A Programmer and an InterfaceListener, for one IP version.

    `key_known` is called with our public key whenever our node's resource says another one, with "" when it should say
    none. The private key is made by us, given to the kernel, and kept by nobody else: a device that is made anew has a new one.
    """

    def __init__(
        self, version: IPVersion, settings: WireguardSettings, key_known: KeyKnown, sysctls: Path = SYSCTLS
    ) -> None:
        self._version: IPVersion = version
        super().__init__(settings)
        self._key_known, self._sysctls = key_known, sysctls
        self._devices, self._wireguard = KernelDevices(), KernelWireguard()
        self._table = RoutedTable(version, settings.table, settings.marks)  # stays it, whatever is configured later
        self._cluster = Cluster(settings.node, version)

    @property
    def device(self) -> str:
        return self._settings.device

    def close(self) -> None:
        self._devices.close()
        self._wireguard.close()
        self._table.close()

    def on_message(self, message: Message) -> None:
        cluster = self._cluster
        match message:
            case WireguardUpdate(peer):
                cluster.keys[peer.node] = peer
            case WireguardRemove(node):
                cluster.keys.pop(node, None)
            case HostUpdate(host):
                cluster.hosts[host.name] = host
            case HostRemove(name):
                cluster.hosts.pop(name, None)
            case RouteUpdate(route):
                cluster.set_route(route.destination, route)
            case RouteRemove(destination):
                cluster.set_route(destination, None)
            case _:
                return
        is_of_keys = isinstance(message, WireguardUpdate | WireguardRemove)
        self._is_stale = self._is_stale or self._settings.is_on or is_of_keys

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        self._is_stale = self._is_stale or name == self._settings.device

    def _make_it_so(self) -> Made:
        return self._make_on() if self._settings.is_on else self._undo()

    def _undo(self) -> Made:
        made = Made()
        self._lead_nowhere(made)
        removed = self._devices.remove(self._settings.device, "wireguard")
        self._note(made, removed.changes, removed.failures)
        self._tell_key("")
        return made

    def _make_on(self) -> Made:
        settings, address = self._settings, self._cluster.own_address()
        if not settings.mark:
            return Made(failures=[Failure(f"device {settings.device}", "the mark mask has no bit for WireGuard")])
        length = 32 if self._version == 4 else 128
        addresses = frozenset({f"{address}/{length}"} if address else ())
        made = self._devices.make(WantedDevice(settings.device, "wireguard", settings.mtu, self._version, addresses))
        if made.link is None:
            self._lead_nowhere(made)
            return made
        state = self._port_and_key(made, made.link.index)
        reach = self._cluster.reach(
            state.public_key, settings.port, settings.keep_alive_s, encrypts_host=settings.encrypts_host
        )
        self._peers(made, made.link.index, state, reach)
        self._lead_in(made, made.link.index, reach)
        self._tell_key(state.public_key)
        return made

    def _port_and_key(self, made: Made, index: int) -> DeviceState:
        settings, state = self._settings, self._wireguard.read(index)
        port = settings.port if state.port != settings.port else None
        mark = settings.mark if state.mark != settings.mark else None
        if port is not None or mark is not None or not state.public_key:
            made.failures += self._wireguard.write(index, port, mark, new_key=not state.public_key)
            state = self._wireguard.read(index)
            made.changes.append(f"{settings.device}: port {state.port}, mark {state.mark:#x}, key {state.public_key}")
        return state

    def _peers(self, made: Made, index: int, state: DeviceState, reach: Reach) -> None:
        puts, removes = different_peers(reach.peers, state.peers)
        if puts or removes:
            made.failures += self._wireguard.write(index, puts=puts, removes=removes)
            made.changes += [f"{self.device}: peer {one.endpoint[0]}" for one in puts]
            made.changes += [f"{self.device}: no peer {one}" for one in removes]

    def _lead_in(self, made: Made, index: int, reach: Reach) -> None:
        """Routes before the rule: an empty table would be asked for nothing, a full one has its answers at once."""
        settings = self._settings
        self._note(made, *self._table.make_routes(index, reach.through, reach.thrown))
        self._write_sysctl(made)
        self._note(made, *self._table.make_rule(UnlessMarked(settings.priority, settings.mark, settings.table)))

    def _lead_nowhere(self, made: Made) -> None:
        self._note(made, *self._table.make_rule(None))
        self._note(made, *self._table.make_routes(0, (), ()))

    @staticmethod
    def _note(made: Made, changes: list[str], failures: list[Failure]) -> None:
        made.changes += changes
        made.failures += failures

    def _write_sysctl(self, made: Made) -> None:
        """Reverse path filtering must look where the answer goes: that depends on the mark."""
        path = self._sysctls / "ipv4/conf/all/src_valid_mark"
        try:
            if self._version == 4 and path.read_text().strip() != "1":
                path.write_text("1")
        except OSError as error:
            made.failures.append(Failure("net/ipv4/conf/all/src_valid_mark", error.strerror or str(error)))

    def _tell_key(self, key: str) -> None:
        if self._cluster.key_of(self._settings.node) != key:
            self._key_known(self._version, key)
