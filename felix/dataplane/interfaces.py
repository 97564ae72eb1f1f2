"""What a workload's interface needs of the host beside routes: sysctls, once it is up; and what the whole host needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from felix.claims import LocalWorkloads
from felix.desired import Message
from felix.ports import Failure

SYSCTLS = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class InterfaceSettings:
    """`forwards`: IPForwarding is Enabled. `allows_spoofing`: WorkloadSourceSpoofing is Any."""

    forwards: bool = True
    has_ipv6: bool = True
    allows_spoofing: bool = False


class WorkloadInterfaces:
    """A Programmer and an InterfaceListener."""

    def __init__(self, settings: InterfaceSettings, root: Path = SYSCTLS) -> None:
        self._settings = settings
        self._root = root
        self._workloads = LocalWorkloads()
        self._up: dict[str, int] = {}
        self._done: dict[str, tuple[int, bool]] = {}  # interface → index for which it was set up, and spoofing
        self._is_host_done = False

    def reconfigure(self, settings: InterfaceSettings) -> None:
        self._settings = settings
        self._done.clear()
        self._is_host_done = False

    def on_message(self, message: Message) -> None:
        self._workloads.on_message(message)

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        if state == "up":
            self._up[name] = ifindex
        else:
            self._up.pop(name, None)

    async def apply(self, now: float) -> list[Failure]:
        failures = []
        if not self._is_host_done:
            failures += self._write(self._of_host(), "host")
            self._is_host_done = not failures
        for interface, endpoint in self._workloads.owners():
            index = self._up.get(interface)
            spoofs = self._settings.allows_spoofing and bool(endpoint.allowed_source_prefixes)
            if index is None or self._done.get(interface) == (index, spoofs):
                continue
            found = self._write(self._of_workload(interface, spoofs), f"interface {interface}")
            failures += found
            if not found:
                self._done[interface] = (index, spoofs)
        return failures

    async def check(self) -> list[str]:
        """Somebody (systemd-networkd, an administrator) may have set them otherwise."""
        found = []
        if self._is_host_done and (wrong := self._wrong(self._of_host())):
            found.append(f"host: {', '.join(wrong)}")
            self._is_host_done = False
        for interface in [one for one in self._done if one in self._up]:
            wanted = self._of_workload(interface, self._done[interface][1])
            if wrong := self._wrong(wanted):
                found.append(f"interface {interface}: {', '.join(wrong)}")
                del self._done[interface]
        return found

    def _wrong(self, wanted: Mapping[str, tuple[str, bool]]) -> list[str]:
        return [path for path, (value, is_needed) in wanted.items() if is_needed and self._read(path) != value]

    def _of_host(self) -> dict[str, tuple[str, bool]]:
        wanted = {"netfilter/nf_conntrack_acct": ("1", False)}
        if self._settings.forwards:
            wanted["ipv4/ip_forward"] = ("1", True)
            if self._settings.has_ipv6:
                wanted["ipv6/conf/all/forwarding"] = ("1", False)
        return wanted

    def _of_workload(self, name: str, spoofs: bool) -> Mapping[str, tuple[str, bool]]:
        """Path → value, and whether it must be so."""
        reverse_path = "0" if spoofs else self._read("ipv4/conf/default/rp_filter") or "1"
        wanted = {
            f"ipv6/conf/{name}/accept_ra": ("0", False),
            f"ipv4/conf/{name}/route_localnet": ("1", True),
            f"ipv4/neigh/{name}/proxy_delay": ("0", False),
            f"ipv4/conf/{name}/proxy_arp": ("1", True),
            f"ipv4/conf/{name}/forwarding": ("1", True),
            f"ipv4/conf/{name}/rp_filter": (reverse_path, False),
        }
        if self._settings.has_ipv6 and (self._root / "ipv6").is_dir():
            wanted |= {f"ipv6/conf/{name}/proxy_ndp": ("1", True), f"ipv6/conf/{name}/forwarding": ("1", True)}
        return wanted

    def _write(self, wanted: Mapping[str, tuple[str, bool]], what: str) -> list[Failure]:
        failures = []
        for path, (value, is_needed) in wanted.items():
            if self._read(path) == value:
                continue
            try:
                (self._root / path).write_text(value)
            except OSError as error:
                if is_needed:
                    failures.append(Failure(what, f"net/{path} = {value}: {error.strerror or error}"))
        return failures

    def _read(self, path: str) -> str:
        try:
            return (self._root / path).read_text().strip()
        except OSError:
            return ""
