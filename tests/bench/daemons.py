"""The speakers to compare: configuration text, command line, and the processes to measure.

Each daemon gets its best known settings, given beside it (`settings`) and printed under the table.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import process_stats

REPOSITORY = Path(__file__).resolve().parents[2]


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


@dataclass(frozen=True, slots=True)
class Topology:
    """The daemon under test and its peers. `netns`: where it runs; `programs_kernel`: best routes go into that kernel."""

    listen: str
    port: int
    peers: tuple[PeerSpec, ...]
    asn: int = 64512
    router_id: str = "10.255.0.1"
    netns: str | None = None
    programs_kernel: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that stays in the foreground, run in the directory given to `Daemon.prepare`."""

    command: list[str]


@dataclass(frozen=True, slots=True)
class Daemon:
    name: str
    settings: str
    prepare: Callable[[Topology, Path], list[Launch]]
    scenarios: str = "abcd"  # those it can take part in


@dataclass(frozen=True, slots=True)
class Running:
    roots: tuple[int, ...]
    directory: Path

    @property
    def pids(self) -> list[int]:
        """All its processes: some daemons split themselves up."""
        return process_stats.with_descendants(self.roots)

    def check_alive(self) -> None:
        """Raises DaemonError if a process has ended."""
        for pid in self.roots:
            if process_stats.is_dead(pid):
                raise DaemonError(f"the daemon ended by itself:\n{self.log_tail()}")

    def log_tail(self) -> str:
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-12:])


def _bird(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        f"router id {topology.router_id};",
        "log stderr { warning, error, fatal, bug, auth };",
        "protocol device { scan time 600; }",
    ]
    if topology.programs_kernel:
        lines.append("protocol kernel { ipv4 { export all; import none; }; scan time 600; }")
    for peer in topology.peers:
        is_ebgp = peer.asn != topology.asn
        # Loopback addresses are nobody's neighbours for BIRD: multihop there.
        reach = ("direct;" if topology.netns else "multihop;") if is_ebgp else ""
        lines.append(
            f"protocol bgp {peer.name} {{ local {topology.listen} port {topology.port} as {topology.asn}; "
            f"neighbor {peer.address} as {peer.asn}; {reach} passive; strict bind; hold time {peer.hold_time_s}; "
            f"ipv4 {{ import all; export {'all' if peer.receives else 'none'}; }}; }}"
        )
    (directory / "bird.conf").write_text("\n".join(lines) + "\n")
    return [Launch([_found("bird"), "-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"])]


def _catbird(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        "[speaker]",
        f"asn = {topology.asn}",
        f'router_id = "{topology.router_id}"',
        f'listen = ["{topology.listen}"]',
        f"port = {topology.port}",
        f'control = "{directory}/speaker.sock"',
    ]
    if topology.programs_kernel:
        lines += ["[kernel]", "learn = []", "program = true"]
    for peer in topology.peers:
        lines += [
            "[[peer]]",
            f'name = "{peer.name}"',
            f'address = "{peer.address}"',
            f"asn = {peer.asn}",
            "passive = true",
            f"hold_time_s = {peer.hold_time_s}",
            'import = "accept"',
            f'export = "{"accept" if peer.receives else "reject"}"',
        ]
    (directory / "speaker.toml").write_text("\n".join(lines) + "\n")
    return [Launch([sys.executable, "-m", "integration.catbird", "speaker", "-c", f"{directory}/speaker.toml"])]


def _frr(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        "frr defaults datacenter",
        f"router bgp {topology.asn}",
        f" bgp router-id {topology.router_id}",
        " no bgp ebgp-requires-policy",
        " no bgp network import-check",
        " bgp disable-ebgp-connected-route-check",
        " coalesce-time 0",
        " write-quanta 64",
        " read-quanta 10",
    ]
    for peer in topology.peers:
        lines += [
            f" neighbor {peer.address} remote-as {peer.asn}",
            f" neighbor {peer.address} passive",
            f" neighbor {peer.address} advertisement-interval 0",
            f" neighbor {peer.address} timers {max(1, peer.hold_time_s // 3)} {peer.hold_time_s}",
        ]
        if peer.asn != topology.asn:
            lines.append(f" neighbor {peer.address} ebgp-multihop 255")
        if not peer.receives:
            lines.append(f" neighbor {peer.address} route-map NOTHING out")
    lines += ["route-map NOTHING deny 10", ""]
    configuration = directory / "frr.conf"
    configuration.write_text("\n".join(lines))
    empty = directory / "empty.conf"
    empty.write_text("")
    directory.chmod(0o777)
    program = Path("/usr/lib/frr")
    common = ["-z", str(directory / "zserv"), "-i"]
    bgpd = Launch(
        [
            _found(str(program / "bgpd")), "-f", str(configuration), "-p", str(topology.port), "-l", topology.listen,
            *common, str(directory / "bgpd.pid"), "-P", "0", "--vty_socket", str(directory),
            *([] if topology.programs_kernel else ["-n"]),
        ]
    )  # fmt: skip
    zebra = Launch(
        [
            _found(str(program / "zebra")), "-f", str(empty), *common, str(directory / "zebra.pid"), "-P", "0",
            "-s", "90000000", "--vty_socket", str(directory),
        ]
    )  # fmt: skip
    return [zebra, bgpd] if topology.programs_kernel else [bgpd]


def _gobgp(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        "[global.config]",
        f"as = {topology.asn}",
        f'router-id = "{topology.router_id}"',
        f"port = {topology.port}",
        f'local-address-list = ["{topology.listen}"]',
    ]
    for peer in topology.peers:
        lines += [
            "[[neighbors]]",
            "[neighbors.config]",
            f'neighbor-address = "{peer.address}"',
            f"peer-as = {peer.asn}",
            "[neighbors.transport.config]",
            "passive-mode = true",
            "[neighbors.timers.config]",
            f"hold-time = {peer.hold_time_s}",
            f"keepalive-interval = {max(1, peer.hold_time_s // 3)}",
        ]
        if peer.asn != topology.asn:
            lines += ["[neighbors.ebgp-multihop.config]", "enabled = true", "multihop-ttl = 255"]
    (directory / "gobgp.toml").write_text("\n".join(lines) + "\n")
    command = [
        _found("gobgpd"),
        "-f",
        "gobgp.toml",
        "--api-hosts",
        f"unix://{directory}/api",
        "--pprof-disable",
        "-l",
        "warn",
    ]
    return [Launch(command)]


def _openbgpd(topology: Topology, directory: Path) -> list[Launch]:
    Path("/run/openbgpd").mkdir(exist_ok=True)  # its chroot
    lines = [
        f"AS {topology.asn}",
        f"router-id {topology.router_id}",
        "fib-update no",
        f"listen on {topology.listen} port {topology.port}",
        f'socket "{directory}/bgpd.sock"',
    ]
    for peer in topology.peers:
        reach = "" if peer.asn == topology.asn else "multihop 64\n "
        lines.append(
            f"neighbor {peer.address} {{\n remote-as {peer.asn}\n passive\n {reach}holdtime {peer.hold_time_s}\n"
            " announce IPv4 unicast\n}"
        )
        lines += [f"allow from {peer.address}", f"{'allow' if peer.receives else 'deny'} to {peer.address}"]
    configuration = directory / "bgpd.conf"
    configuration.write_text("\n".join(lines) + "\n")
    configuration.chmod(0o600)
    return [Launch([_found("bgpd"), "-d", "-f", str(configuration)])]


def _forwarder(topology: Topology, directory: Path) -> list[Launch]:
    return [Launch([sys.executable, "-m", "tests.bench.forwarder", str(write_json(topology, directory))])]


def write_json(topology: Topology, directory: Path) -> Path:
    path = directory / "topology.json"
    path.write_text(json.dumps(asdict(topology)))
    return path


DAEMONS = {
    daemon.name: daemon
    for daemon in (
        Daemon("catbird", "as shipped, CPython", _catbird),
        Daemon("bird2", "no log of routes, no import tables, device and kernel scans every 600 s", _bird),
        Daemon("frr", "coalesce-time 0, advertisement-interval 0, write-quanta 64; zebra only for the kernel", _frr),
        Daemon("gobgpd", "no profiler, no kernel", _gobgp, "abd"),
        Daemon("openbgpd", "no kernel", _openbgpd, "abd"),
        Daemon("copy", "no BGP: copies the bytes, which shows the load generator's share of the time", _forwarder, "a"),
    )
}


def command_daemon(text: str) -> Daemon:
    """`NAME=COMMAND LINE` with `{config}` for the topology as JSON: anything else that speaks BGP."""
    name, _, line = text.partition("=")

    def prepare(topology: Topology, directory: Path) -> list[Launch]:
        path = write_json(topology, directory)
        return [Launch([word.replace("{config}", str(path)) for word in shlex.split(line)])]

    return Daemon(name, line, prepare)


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise DaemonError(f"{program} is not installed")
    return path


@contextmanager
def running(daemon: Daemon, topology: Topology, cpu: int | None) -> Iterator[Running]:
    """The daemon's processes, on one CPU if given; ended and cleaned up afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{daemon.name}-"))
    processes: list[subprocess.Popen[bytes]] = []
    enter = ["taskset", "-c", str(cpu)] if cpu is not None else []
    if topology.netns:
        enter += ["ip", "netns", "exec", topology.netns]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        with (directory / "log").open("wb") as log:
            for launch in daemon.prepare(topology, directory):
                processes.append(
                    subprocess.Popen(
                        [*enter, *launch.command],
                        cwd=directory,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        yield Running(tuple(process.pid for process in processes), directory)
    finally:
        _end(processes)
        shutil.rmtree(directory, ignore_errors=True)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.terminate()
    deadline = time.monotonic() + 3
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
