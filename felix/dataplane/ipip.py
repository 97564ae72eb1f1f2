"""The IPIP device, `tunl0`: one for all nodes, the routes say where each packet goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from felix.desired import Host, HostRemove, HostUpdate, Message
from felix.kernel.tunnels import KernelDevices, Made
from felix.ports import Failure
from felix.sync.devices import WantedDevice

DEVICE = "tunl0"


@dataclass(frozen=True, slots=True)
class IpipSettings:
    """`mtu` 0: not known yet, the kernel's choice."""

    node: str
    is_on: bool = False
    mtu: int = 0


class IpipTunnel:
    """A Programmer and an InterfaceListener. The kernel's `tunl0` cannot be deleted: switched off it loses its address."""

    def __init__(self, settings: IpipSettings) -> None:
        self._settings = settings
        self._kernel = KernelDevices()
        self._own: Host | None = None
        self._is_stale = True

    def close(self) -> None:
        self._kernel.close()

    def reconfigure(self, settings: IpipSettings) -> None:
        self._is_stale = self._is_stale or settings != self._settings
        self._settings = settings

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

    async def apply(self, now: float) -> list[Failure]:
        if not self._is_stale:
            return []
        made = self._make()
        self._is_stale = bool(made.failures)
        return made.failures

    async def check(self) -> list[str]:
        made = self._make()
        self._is_stale = self._is_stale or bool(made.failures)
        return [*made.changes, *(f"{one.what}: {one.reason}" for one in made.failures)]

    def _make(self) -> Made:
        try:
            return self._make_it_so()
        except OSError as error:
            return Made(failures=[Failure(f"device {DEVICE}", error.strerror or str(error))])

    def _make_it_so(self) -> Made:
        if not self._settings.is_on:
            made = Made(self._kernel.link(DEVICE))
            is_ipip = made.link is not None and made.link.kind == "ipip"
            return self._kernel.forget_addresses(DEVICE, 4) if is_ipip else made
        address = self._own.ipip_address if self._own is not None else ""
        if not address:  # IPAM has given us none yet: what a former process made goes on
            return Made()
        return self._kernel.make(WantedDevice(DEVICE, "ipip", self._settings.mtu, 4, frozenset({f"{address}/32"})))
