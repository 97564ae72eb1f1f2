"""How large packets may be: the host's interfaces, what each kind of tunnel takes of that, what is left for pods."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from felix.dataplane.holders import Holders
from felix.desired import HostUpdate, Message
from felix.kernel.tunnels import KernelDevices
from felix.ports import Failure

MTU_FILE = Path("/var/lib/calico/mtu")  # the CNI plugin reads it
ETHERNET_MTU = 1500
SMALLEST_MTU = 68  # IPv4's; less is a mistake
OVERHEADS = {"ipip": 20, "vxlan": 50, "vxlan-v6": 70, "wireguard": 60, "wireguard-v6": 80}
"""By kind of tunnel: the outer header of its version, and UDP's, VXLAN's and Ethernet's, or WireGuard's."""


@dataclass(frozen=True, slots=True)
class MtuSettings:
    """`enabled`: kinds of tunnels that are on. `given`: MTUs that the configuration says, 0 where it says none.

    `pattern`: host interfaces that count; None: none. `requires_file`: not being able to write it is a failure.
    """

    node: str
    pattern: re.Pattern[str] | None = None
    enabled: frozenset[str] = frozenset()
    given: tuple[tuple[str, int], ...] = ()
    requires_file: bool = False
    file: Path | None = MTU_FILE


@dataclass(frozen=True, slots=True)
class Mtus:
    """Of the host, 0 if unknown; of each kind of tunnel; of pods, 0 if unknown."""

    host: int = 0
    tunnels: dict[str, int] = field(default_factory=dict)
    pod: int = 0


def mtus(host: int, settings: MtuSettings) -> Mtus:
    """As Calico: a tunnel has what is left of the host's, unless configured; pods the smallest of what is on."""
    given = {kind: mtu for kind, mtu in settings.given if mtu}
    base = host or ETHERNET_MTU
    tunnels = {kind: given.get(kind) or max(base - octets, SMALLEST_MTU) for kind, octets in OVERHEADS.items()}
    enabled = {kind for kind in settings.enabled if host or kind in given}
    return Mtus(host, tunnels, min((tunnels[kind] for kind in enabled), default=host))


class MtuKeeper:
    """A Programmer and an InterfaceListener. `changed` is called from `apply` with each new result."""

    def __init__(self, settings: MtuSettings, changed: Callable[[Mtus], None], told: Callable[..., None]) -> None:
        self._settings = settings
        self._changed, self._told = changed, told
        self._kernel = KernelDevices()
        self._holders = Holders()
        self._own: tuple[str, ...] = ()
        self._is_stale = True
        self._complaint = ""
        self.now = Mtus()

    def close(self) -> None:
        self._kernel.close()

    def reconfigure(self, settings: MtuSettings) -> None:
        self._is_stale = self._is_stale or settings != self._settings
        self._settings = settings

    def on_message(self, message: Message) -> None:
        match message:
            case HostUpdate(host) if host.name == self._settings.node:
                own = tuple(one for one in (host.ipv4, host.ipv6) if one)
                self._is_stale = self._is_stale or own != self._own
                self._own = own

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        """Pods come and go all the time; they are not the host's."""
        changes = self._holders.interface_changed(name, state, addresses, ifindex)
        is_host = self._matches(name) or (changes and not addresses.isdisjoint(self._own))
        self._is_stale = self._is_stale or is_host

    async def apply(self, now: float) -> list[Failure]:
        if not self._is_stale:
            return []
        try:
            found = mtus(self._host_mtu(), self._settings)
        except OSError as error:
            return [Failure("MTU of the host", error.strerror or str(error))]
        self._is_stale = False
        if found != self.now:
            self.now = found
            self._changed(found)
        return self._write()

    async def check(self) -> list[str]:
        """The kernel tells nobody here of an interface's MTU alone; and the file may have been lost."""
        before = self.now.host
        try:
            host = self._host_mtu()
        except OSError:
            self._is_stale = True  # the apply that follows says why
            return []
        is_lost = bool(self.now.pod) and self._settings.file is not None and self._read() != self.now.pod
        self._is_stale = self._is_stale or before != host or is_lost
        found = [f"the host's MTU is {host}, was {before}"] if before != host else []
        return found + ([f"{self._settings.file} was altered"] if is_lost else [])

    def _matches(self, name: str) -> bool:
        pattern = self._settings.pattern
        return pattern is not None and pattern.search(name) is not None

    def _host_mtu(self) -> int:
        """The smallest of the interfaces that match; where none does, that of the interface with the node's address."""
        links = self._kernel.links()
        if found := [link.mtu for link in links if self._matches(link.name)]:
            return min(found)
        holders = {holder.ifindex for one in self._own if (holder := self._holders.of(one)) is not None}
        return min((link.mtu for link in links if link.index in holders), default=0)

    def _read(self) -> int:
        try:
            return int(self._settings.file.read_text()) if self._settings.file is not None else 0
        except (OSError, ValueError):
            return 0

    def _write(self) -> list[Failure]:
        """Beside it and renamed: the CNI plugin must never read half a number."""
        path, mtu = self._settings.file, self.now.pod
        if path is None or not mtu or self._read() == mtu:
            return []
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(str(mtu))
            temporary.replace(path)
        except OSError as error:
            return self._complain(f"{error.strerror or error}")
        self._complaint = ""
        return []

    def _complain(self, reason: str) -> list[Failure]:
        if self._settings.requires_file:
            self._is_stale = True
            return [Failure(f"file {self._settings.file}", reason)]
        if reason != self._complaint:
            self._told(
                "mtu_file_not_written",
                level="warning",
                file=str(self._settings.file),
                error=reason,
                effect="pods get the plugin's own MTU",
            )
        self._complaint = reason
        return []
