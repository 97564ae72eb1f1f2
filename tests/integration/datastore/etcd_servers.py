"""Real etcd servers on loopback, each with a directory of its own: start, kill, bring back."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_S = 30.0
ETCD = "/usr/bin/etcd"


@dataclass
class Member:
    name: str
    client_port: int
    peer_port: int
    command: list[str] = field(default_factory=list)
    log: Path = Path()
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """As a service that is stopped: it hands over leadership and ends its connections."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_S)
            self.process = None

    def kill(self) -> None:
        """As a machine that loses power."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class Etcd:
    members: list[Member]
    scheme: str = "http"
    ctl_options: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()  # a command that runs another in the servers' network namespace

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(f"{self.scheme}://{member.host}:{member.client_port}" for member in self.members)

    def ctl(self, *command: str, member: Member | None = None, check: bool = True) -> str:
        """etcdctl, with one member or with all."""
        chosen = self.members if member is None else [member]
        endpoints = ",".join(f"{self.scheme}://{one.host}:{one.client_port}" for one in chosen)
        full = [*self.inside, "etcdctl", "--endpoints", endpoints, *self.ctl_options, *command]
        done = subprocess.run(
            full,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"ETCDCTL_API": "3", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(full)}: {done.stderr}")
        return done.stdout + (done.stderr if not check else "")

    def wait_ready(self, members: Sequence[Member] | None = None) -> None:
        deadline = time.monotonic() + START_S
        for member in members or self.members:
            while "successfully" not in self.ctl("endpoint", "health", member=member, check=False):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{member.name} does not get healthy:\n{member.log.read_text()[-3000:]}")
                time.sleep(0.1)

    def leader(self) -> Member:
        for member in self.members:
            if member.process is not None:
                fields = self.ctl("endpoint", "status", "-w", "simple", member=member).split(", ")
                if fields[4] == "true":
                    return member
        raise AssertionError("no member leads")


def free_ports(count: int) -> list[int]:
    """All are held until the last is known, or one might come twice."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def etcd(
    directory: Path,
    members: int = 1,
    *,
    scheme: str = "http",
    options: Sequence[str] = (),
    ctl: Sequence[str] = (),
    host: str = "127.0.0.1",
    inside: Sequence[str] = (),
) -> Iterator[Etcd]:
    """A cluster that is healthy. Needs Debian's etcd-server and etcd-client (tests/install_debian.sh)."""
    ports = iter(free_ports(2 * members))
    made = [Member(f"m{number}", next(ports), next(ports), host=host) for number in range(members)]
    cluster = ",".join(f"{member.name}=http://{host}:{member.peer_port}" for member in made)
    for member in made:
        client, peer = f"{scheme}://{host}:{member.client_port}", f"http://{host}:{member.peer_port}"
        member.log = directory / f"{member.name}.log"
        member.command = [
            *inside, ETCD, "--name", member.name, "--data-dir", str(directory / member.name),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "500",
            "--unsafe-no-fsync", *options,
        ]  # fmt: skip
        if (
            "--unsafe-no-fsync"
            not in subprocess.run([ETCD, "--help"], capture_output=True, text=True, check=True).stdout
        ):
            member.command.remove("--unsafe-no-fsync")
        member.start()
    server = Etcd(made, scheme, tuple(ctl), tuple(inside))
    try:
        server.wait_ready()
        yield server
    finally:
        for member in made:
            member.kill()
