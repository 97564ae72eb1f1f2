"""What a daemon under test is asked to be: its peers, seen from its side, and the commands that make it so."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


class DaemonError(Exception):
    """A daemon is not installed, or did not start, or died. The text says which and why."""


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """One session of the daemon, from the daemon's side: it waits for `address` to connect."""

    name: str
    address: str
    asn: int
    receives: bool = True  # whether it is told routes
    hold_time_s: int = 90
    is_client: bool = False  # RFC 4456


@dataclass(frozen=True, slots=True)
class Topology:
    """The daemon under test and its peers. `netns`: where it runs; `programs_kernel`: best routes go into that kernel.

    `families` are "ipv4" and "ipv6", always over IPv4 sessions.
    """

    listen: str
    port: int
    peers: tuple[PeerSpec, ...]
    asn: int = 64512
    router_id: str = "10.255.0.1"
    cluster_id: str = "10.255.0.1"
    families: tuple[str, ...] = ("ipv4",)
    netns: str | None = None
    programs_kernel: bool = False

    @property
    def is_reflector(self) -> bool:
        return any(peer.is_client for peer in self.peers)


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that stays in the foreground, run in the directory it was prepared in."""

    command: list[str]


def write_json(topology: Topology, directory: Path) -> Path:
    path = directory / "topology.json"
    path.write_text(json.dumps(asdict(topology)))
    return path
