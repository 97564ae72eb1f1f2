"""The IPIP device, `tunl0`: one for all nodes, the routes say where each packet goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from felix.dataplane.tunnel import Tunnel
from felix.desired import Host, HostRemove, HostUpdate, Message
from felix.kernel.tunnels import KernelDevices, Made
from felix.sync.devices import WantedDevice

DEVICE = "tunl0"


@dataclass(frozen=True, slots=True)
class IpipSettings:
    """`mtu` 0: not known yet, the kernel's choice."""

    node: str
    is_on: bool = False
    mtu: int = 0


class IpipTunnel(Tunnel[IpipSettings]):
    """A Programmer and an InterfaceListener. The kernel's `tunl0` cannot be deleted: switched off it loses its address."""

    def __init__(self, settings: IpipSettings) -> None:
        super().__init__(settings)
        self._kernel = KernelDevices()
        self._own: Host | None = None

    @property
    def device(self) -> str:
        return DEVICE

    def close(self) -> None:
        self._kernel.close()

    def on_message(self, message: Message) -> None:
        match message:
            case HostUpdate(host) if host.name == self._settings.node:
                self._is_stale = self._is_stale or host != self._own
                self._own = host
            case HostRemove(name) if name == self._settings.node:
                self._own = None

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        self._is_stale = self._is_stale or name == DEVICE

    def _make_it_so(self) -> Made:
        if not self._settings.is_on:
            made = Made(self._kernel.link(DEVICE))
            is_ipip = made.link is not None and made.link.kind == "ipip"
            return self._kernel.forget_addresses(DEVICE, 4) if is_ipip else made
        address = self._own.ipip_address if self._own is not None else ""
        if not address:  # IPAM has given us none yet: what a former process made goes on
            return Made()
        return self._kernel.make(WantedDevice(DEVICE, "ipip", self._settings.mtu, 4, frozenset({f"{address}/32"})))
