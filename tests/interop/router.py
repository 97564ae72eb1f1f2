"""What every router in these tests can do, and how it is told what to do: the same words for BIRD, FRR, GoBGP, OpenBGPD
and catbird.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from tests.interop.lan import Node

FamilyName = Literal["ipv4", "ipv6"]
BOTH: tuple[FamilyName, ...] = ("ipv4", "ipv6")
DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSpec:
    """One other side as a router's configuration has it. Every router turns this into its own words."""

    address: str
    asn: int
    local_asn: int | None = None
    password: str | None = None
    passive: bool = False
    families: tuple[FamilyName, ...] = BOTH
    hold_time_s: int = 90
    ttl_security: bool = False
    extended_next_hop: bool = False
    extended_messages: bool = False
    four_octet_asn: bool = True
    graceful_restart: bool = False
    restart_time_s: int = 30
    max_prefixes: int | None = None
    shutdown: str | None = None  # administratively down, with this reason
    next_hop_self: bool = False
    client: bool = False  # of this router as a route reflector (RFC 4456)
    multihop: int | None = None
    source: str | None = None
    interface: str | None = None  # scope of a link-local address
    more: tuple[str, ...] = ()  # further lines in the router's own language, inside this peer's part

    @property
    def name(self) -> str:
        address = f"{self.address}%{self.interface}" if self.interface else self.address
        return "p" + address.replace(".", "_").replace(":", "_").replace("%", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A route that a router originates. `prepend` lists AS numbers that go in front, nearest first."""

    prefix: str
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    med: int | None = None
    local_pref: int | None = None
    prepend: tuple[int, ...] = ()
    extended_communities: tuple[str, ...] = ()  # "rt:65002:1"; BIRD and FRR only

    @property
    def family(self) -> FamilyName:
        return "ipv6" if ":" in self.prefix else "ipv4"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRoute:
    """The best path to a prefix that a router learned from a peer, as its own command line prints it."""

    prefix: str
    as_path: tuple[int, ...] = ()
    next_hop: str = ""
    origin: str = ""
    communities: frozenset[str] = frozenset()
    large_communities: frozenset[str] = frozenset()
    extended_communities: frozenset[str] = frozenset()
    med: int | None = None
    local_pref: int | None = None
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()  # nearest reflector first
    is_stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSession:
    """`text` is everything the router says about the session: last errors, capabilities, reasons, counters."""

    address: str
    is_established: bool
    text: str
    refreshes_received: int | None = None  # ROUTE-REFRESH messages, None where the router does not count them


def until(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Ask again and again until it holds. Raises AssertionError saying `what` did not come true."""
    end = time.monotonic() + deadline_s
    pause_s = 0.02
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline_s:g} s still not true: {what}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.25)


def holds_for(holds: Callable[[], bool], what: str, duration_s: float) -> None:
    """It must hold now and go on holding: for what must not happen."""
    end = time.monotonic() + duration_s
    while time.monotonic() < end:
        assert holds(), f"no longer true: {what}"
        time.sleep(0.1)


@dataclass(slots=True, eq=False)
class Router(ABC):
    """One routing daemon in one namespace. `peers` and `announcements` are what its configuration says now."""

    node: Node
    asn: int
    peers: dict[str, PeerSpec] = field(default_factory=dict)
    announcements: dict[str, Announcement] = field(default_factory=dict)
    cluster_id: str = ""  # of the clients; empty: the router ID
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="cbi", dir="/tmp")))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    kind: ClassVar[str]
    programs_kernel: ClassVar[bool] = True

    @property
    def router_id(self) -> str:
        return self.node.ipv4

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # What each daemon does in its own way.

    @abstractmethod
    def launch(self, *, recovering: bool) -> None:
        """Write the configuration and start the processes. `recovering`: as after a graceful restart (RFC 4724)."""

    @abstractmethod
    def is_ready(self) -> bool:
        """The command line answers."""

    @abstractmethod
    def reload(self) -> None:
        """Make the running daemon do what `peers` and `announcements` say now."""

    @abstractmethod
    def session(self, address: str) -> SeenSession: ...

    @abstractmethod
    def routes(self, family: FamilyName) -> dict[str, SeenRoute]: ...

    @abstractmethod
    def refresh(self, address: str) -> None:
        """Ask the peer for its routes once more (RFC 2918)."""

    # What is the same for all.

    def start(self, *peers: PeerSpec, announce: Iterable[Announcement] = (), recovering: bool = False) -> None:
        self.peers |= {peer.address: peer for peer in peers}
        self.announcements |= {route.prefix: route for route in announce}
        self.launch(recovering=recovering)
        until(self.is_ready, f"{self.kind} answers", 20)

    def stop(self) -> None:
        """Ask it to end, as an operator or an init system does, and wait for that."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        self.processes.clear()

    def kill(self) -> None:
        """kill -9: no NOTIFICATION, no clean-up."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self.processes.clear()

    def restart(self, *, gracefully: bool = False) -> None:
        """Kill it and start it again with the same configuration. `gracefully`: it says so to its peers (RFC 4724)."""
        self.kill()
        self.start(recovering=gracefully)

    def announce(self, *routes: Announcement) -> None:
        self.announcements |= {route.prefix: route for route in routes}
        self.reload()

    def withdraw(self, *prefixes: str) -> None:
        for prefix in prefixes:
            del self.announcements[prefix]
        self.reload()

    def set_password(self, address: str, password: str | None) -> None:
        self.peers[address] = replace(self.peers[address], password=password)
        self.reload()

    def shut_down(self, address: str, reason: str) -> None:
        self.peers[address] = replace(self.peers[address], shutdown=reason)
        self.reload()

    def close(self) -> None:
        """Kill whatever still runs and say what it had to say: pytest shows that when the test failed."""
        self.kill()
        print(f"---- {self.kind} ({self.node.ipv4}, AS {self.asn}), end of its log ----\n{self.log_text()[-6000:]}")
        for path in sorted(self.folder.glob("*.conf")) + sorted(self.folder.glob("*.toml")):
            print(f"---- {path.name} ----\n{path.read_text()}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, *command: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a process of this router in its namespace, in a process group of its own, output to the log."""
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                self.node.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd or self.folder,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def is_established(self, address: str) -> bool:
        return self.session(address).is_established


def wait_established(router: Router, *addresses: str, deadline_s: float = DEADLINE_S) -> None:
    for address in addresses:
        until(lambda: router.is_established(address), f"{router.kind} is Established with {address}", deadline_s)  # noqa: B023 - called within the loop


def wait_down(router: Router, address: str, deadline_s: float = DEADLINE_S) -> None:
    until(lambda: not router.is_established(address), f"{router.kind} has lost {address}", deadline_s)


def wait_routes(router: Router, *prefixes: str, deadline_s: float = DEADLINE_S) -> dict[str, SeenRoute]:
    """Wait until the router has all these from its peers and return what it says of them."""
    seen: dict[str, SeenRoute] = {}

    def has_all() -> bool:
        for family in BOTH:
            if any((":" in prefix) == (family == "ipv6") for prefix in prefixes):
                seen.update(router.routes(family))
        return all(prefix in seen for prefix in prefixes)

    try:
        until(has_all, f"{router.kind} has {', '.join(prefixes)}", deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it has {', '.join(seen) or 'none'}") from None
    return seen


def wait_no_routes(router: Router, *prefixes: str, deadline_s: float = DEADLINE_S) -> None:
    def has_none() -> bool:
        return not any(prefix in router.routes(family) for family in BOTH for prefix in prefixes)

    until(has_none, f"{router.kind} has lost {', '.join(prefixes)}", deadline_s)
