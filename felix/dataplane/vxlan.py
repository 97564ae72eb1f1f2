"""The VXLAN device of one IP version, and what it must know of the other nodes' devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from felix.dataplane.holders import Holders
from felix.dataplane.tunnel import Tunnel
from felix.desired import VTEP, IPVersion, Message, VTEPRemove, VTEPUpdate
from felix.kernel.tunnels import KernelDevices, Made
from felix.ports import Failure
from felix.sync.devices import VxlanParameters, WantedDevice, neighbours_of, unicast_mac

VXLAN_DEVICES: dict[IPVersion, str] = {4: "vxlan.calico", 6: "vxlan-v6.calico"}


@dataclass(frozen=True, slots=True)
class VxlanSettings:
    """`mtu` 0: not known yet, the kernel's choice."""

    node: str
    is_on: bool = False
    vni: int = 4096
    port: int = 4789
    mtu: int = 0


class VxlanTunnel(Tunnel[VxlanSettings]):
    """A Programmer and an InterfaceListener. `close` when it is needed no more; what it made stays in the kernel."""

    def __init__(self, version: IPVersion, settings: VxlanSettings) -> None:
        self._version = version
        super().__init__(settings)
        self._kernel = KernelDevices()
        self._holders = Holders()
        self._vteps: dict[str, VTEP] = {}

    @property
    def device(self) -> str:
        return VXLAN_DEVICES[self._version]

    def close(self) -> None:
        self._kernel.close()

    def on_message(self, message: Message) -> None:
        match message:
            case VTEPUpdate(vtep):
                self._vteps[vtep.node] = vtep
            case VTEPRemove(node):
                self._vteps.pop(node, None)
            case _:
                return
        self._is_stale = True

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        below, _, _ = self._own()
        before = self._holders.of(below)
        self._holders.interface_changed(name, state, addresses, ifindex)
        if name == self.device or self._holders.of(below) != before:
            self._is_stale = True

    def _own(self) -> tuple[str, str, str]:
        """Our node's address below the tunnel, the tunnel's, and its MAC; empty where unknown."""
        own = self._vteps.get(self._settings.node) or VTEP(self._settings.node)
        if self._version == 4:
            return own.parent_ipv4, own.ipv4, own.mac
        return own.parent_ipv6, own.ipv6, own.mac_v6

    def _make_it_so(self) -> Made:
        settings, (below, address, mac) = self._settings, self._own()
        if not settings.is_on:
            return self._kernel.remove(self.device, "vxlan")
        if not address:  # IPAM has given us none yet: what a former process made goes on
            return Made()
        parent = self._holders.of(below)
        if parent is None:
            return Made(failures=[Failure(f"device {self.device}", f"no interface has this node's address {below}")])
        length = 32 if self._version == 4 else 128
        wanted = WantedDevice(
            self.device, "vxlan", settings.mtu, self._version, frozenset({f"{address}/{length}"}), unicast_mac(mac),
            VxlanParameters(settings.vni, settings.port, below, parent.ifindex),
        )  # fmt: skip
        made = self._kernel.make(wanted)
        if made.link is not None:
            self._tell_neighbours(made, made.link.index)
        return made

    def _tell_neighbours(self, made: Made, index: int) -> None:
        others = [vtep for vtep in self._vteps.values() if vtep.node != self._settings.node]
        neighbours, entries = neighbours_of(others, self._version)
        wanted = neighbours | entries
        there = self._kernel.entries(index, self._version)
        puts, deletes = wanted - there, there - wanted
        replaced = {one[0] for one in puts}  # by address, or by MAC
        failures = self._kernel.write_entries(index, puts, [one for one in deletes if one[0] not in replaced])
        if any(one[0] in replaced for one in deletes):  # a MAC may have had several nodes, of which one is replaced
            failures += self._kernel.write_entries(index, (), self._kernel.entries(index, self._version) - wanted)
        made.failures += failures
        if not failures:
            made.changes += [f"{self.device}: entry {' → '.join(one)}" for one in sorted(puts)]
            made.changes += [f"{self.device}: no entry {' → '.join(one)}" for one in sorted(deletes)]
