"""The speakers to compare: how each is configured, started, killed and ended, and the processes to measure.

Each daemon gets its best known settings, given beside it (`settings`) and printed under the table.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import configurations, process_stats
from tests.bench.topology import DaemonError, Launch, Topology, write_json

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Daemon:
    """`connect_window`: how many clients may be connecting at once, for those with a short listen backlog."""

    name: str
    settings: str
    prepare: Callable[[Topology, Path], list[Launch]]
    cannot: tuple[str, ...] = ()  # scenarios it cannot take part in
    connect_window: int = 64


@dataclass(slots=True)
class Running:
    """A started daemon. `cpu` is where it runs, None for any."""

    daemon: Daemon
    topology: Topology
    directory: Path
    cpu: int | None
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        enter = ["taskset", "-c", str(self.cpu)] if self.cpu is not None else []
        if self.topology.netns:
            enter += ["ip", "netns", "exec", self.topology.netns]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.directory / "log").open("ab") as log:
            for launch in self.daemon.prepare(self.topology, self.directory):
                self._processes.append(
                    subprocess.Popen(
                        [*enter, *launch.command],
                        cwd=self.directory,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )

    def kill(self) -> None:
        """As a crash would: no process of it gets to say goodbye."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # a child that went with its parent
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def end(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        deadline = time.monotonic() + 3
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pids(self) -> list[int]:
        """All its processes: some daemons split themselves up."""
        return process_stats.with_descendants([process.pid for process in self._processes])

    def check_alive(self) -> None:
        """Raises DaemonError if a process has ended."""
        if any(process_stats.is_dead(process.pid) for process in self._processes):
            raise DaemonError(f"the daemon ended by itself:\n{self.log_tail()}")

    def wait_until_listening(self, timeout_s: float) -> None:
        """Raises DaemonError if nobody listens on the port in time. Looks in /proc, so that no connection is seen."""
        wanted = f":{self.topology.port:04X} 00000000:0000 0A"
        deadline = time.monotonic() + timeout_s
        while wanted not in Path("/proc/net/tcp").read_text():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DaemonError(f"not listening after {timeout_s:.0f} s:\n{self.log_tail()}")
            time.sleep(0.005)

    def log_tail(self) -> str:
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-12:])


@contextmanager
def running(daemon: Daemon, topology: Topology, cpu: int | None) -> Iterator[Running]:
    """The daemon's processes, on one CPU if given; ended and cleaned up afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{daemon.name}-"))
    process = Running(daemon, topology, directory, cpu)
    try:
        process.start()
        yield process
    finally:
        process.end()
        shutil.rmtree(directory, ignore_errors=True)


DAEMONS = {
    daemon.name: daemon
    for daemon in (
        Daemon(
            "copy",
            "no BGP: copies the bytes, which shows the load generator's share of the time",
            configurations.forwarder,
            ("b", "c", "d", "S3cold", "S5", "S7", "S9"),  # it remembers nothing, for those who come later
        ),
        Daemon(
            "bird2",
            "no log of routes, no import tables, device and kernel scans every 600 s; rr client, error wait time 1; "
            "its listen backlog is 8: four clients connect at a time",
            configurations.bird,
            connect_window=4,
        ),
        Daemon(
            "frr",
            "coalesce-time 0, advertisement-interval 0, write-quanta 64; zebra only for the kernel, "
            "as reflector -n -Z (no RIB, no zebra), route-reflector-client",
            configurations.frr,
        ),
        Daemon(
            "gobgpd",
            "no profiler, no kernel; route-reflector-client with cluster-id, idle-hold-time-after-reset 1",
            configurations.gobgp,
            ("c",),
        ),
        Daemon("openbgpd", "no kernel; route-reflector, two filter rules for all", configurations.openbgpd, ("c",)),
        Daemon("catbird", "as shipped, CPython; cluster_id and client = true", configurations.catbird),
    )
}


def command_daemon(text: str) -> Daemon:
    """`NAME=COMMAND LINE` with `{config}` for the topology as JSON: anything else that speaks BGP."""
    name, _, line = text.partition("=")

    def prepare(topology: Topology, directory: Path) -> list[Launch]:
        path = write_json(topology, directory)
        return [Launch([word.replace("{config}", str(path)) for word in shlex.split(line)])]

    return Daemon(name, line, prepare)
