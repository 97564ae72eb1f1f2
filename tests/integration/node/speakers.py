"""`catbird speaker` as a process on loopback, for system tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.cli.client import SpeakerClient, SpeakerError

ROOT = Path(__file__).parents[3]
DEADLINE_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(true: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `true()` is; return its value. Fails with `what`."""
    end = time.monotonic() + deadline_s
    while True:
        if value := true():
            return value
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.05)


@dataclass
class RunningSpeaker:
    """One process; its files are `NAME.toml`, `NAME.sock` and `NAME.log` in `directory`."""

    name: str
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.directory / f"{self.name}.toml"

    @property
    def client(self) -> SpeakerClient:
        return SpeakerClient(str(self.directory / f"{self.name}.sock"), timeout_s=5)

    def log(self) -> str:
        return (self.directory / f"{self.name}.log").read_text()

    def get(self, *segments: str) -> Any:
        """What the control socket says, None while it does not."""
        try:
            return self.client.get(*segments)
        except SpeakerError:
            return None

    def routes(self) -> set[str]:
        return {row["prefix"] for row in self.client.rows("routes")}

    def wait_started(self) -> None:
        until(lambda: self.get("status") or self.process.poll() is not None, f"{self.name} starts")
        assert self.process.poll() is None, self.log()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


def toml(name: str, directory: Path, *, asn: int = 64512, listen: str = "127.0.0.1", port: int, more: str = "") -> str:
    return f"""
[speaker]
asn = {asn}
router_id = "10.0.0.{listen.rpartition(".")[2]}"
listen = [{json.dumps(listen)}]
port = {port}
control = {json.dumps(str(directory / f"{name}.sock"))}
ebgp_requires_policy = false
{more}
"""


def peer(name: str, address: str, asn: int, port: int, more: str = "") -> str:
    return f"""
[[peer]]
name = {json.dumps(name)}
address = {json.dumps(address)}
asn = {asn}
port = {port}
connect_retry_s = 1
{more}
"""


@contextmanager
def speaker(
    name: str, directory: Path, text: str, *options: str, inside: Sequence[str] = ()
) -> Iterator[RunningSpeaker]:
    """Started, not yet waited for; killed in the end if it still runs. `inside`: what enters a namespace."""
    (directory / f"{name}.toml").write_text(text)
    command = [
        *inside,
        sys.executable,
        "-m",
        "integration.catbird",
        "speaker",
        "-c",
        str(directory / f"{name}.toml"),
        *options,
    ]
    with open(directory / f"{name}.log", "ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
    try:
        yield RunningSpeaker(name, directory, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
