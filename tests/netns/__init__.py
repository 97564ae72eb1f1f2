"""Network namespaces for tests: named, wired, entered for a moment, and gone afterwards.

    with network_namespace() as node, network_namespace() as tor:
        wire(node, "eth0", tor, "eth0")
        node.ip("address add 10.0.0.1/24 dev eth0")
        sock = node.open_socket(socket.AF_INET, socket.SOCK_STREAM)

Everything needs root: mark such tests with `pytest.mark.root`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PREFIX = "cbt"
_CLONE_NEWNET = 0x40000000
_NETNS = Path("/run/netns")
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str

    @property
    def path(self) -> Path:
        return _NETNS / self.name

    def ip(self, command: str, *, check: bool = True) -> str:
        """`ip` inside, its words separated by blanks; returns what it printed. Raises AssertionError if it fails."""
        return _run("ip", "-n", self.name, *command.split(), check=check)

    def ip_batch(self, lines: str) -> None:
        """Many `ip` commands, one a line, in one process."""
        _run("ip", "-n", self.name, "-batch", "-", stdin=lines)

    def ip_json(self, command: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ip(f"-j {command}") or "[]")
        return found

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` inside; the process keeps its pid, /sys and /run."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, *command: str, check: bool = True) -> str:
        return _run(*self.command(*command), check=check)

    def sysctl(self, setting: str) -> None:
        """Like `net.ipv4.ip_forward=1`."""
        self.run("sysctl", "-q", "-w", setting)

    def ifindex(self, name: str) -> int:
        index: int = self.ip_json(f"link show dev {name}")[0]["ifindex"]
        return index

    def call(self, function: Callable[[], T]) -> T:
        """Call it inside, in a thread of its own. A socket that it opens stays inside for good."""
        answer: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                with self.path.open("rb") as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                        number = ctypes.get_errno()
                        raise OSError(number, f"setns: {os.strerror(number)}")
                answer.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"in {self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return answer[0]

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return self.call(lambda: socket.socket(family, kind, protocol))

    def netlink(self) -> socket.socket:
        """A NETLINK_ROUTE socket inside."""
        return self.open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


@contextlib.contextmanager
def network_namespace() -> Iterator[Namespace]:
    """A new namespace with `lo` up and IPv6 addresses usable at once; removed with all that is in it."""
    namespace = Namespace(f"{PREFIX}{os.getpid()}n{next(_numbers)}")
    _run("ip", "netns", "add", namespace.name)
    try:
        namespace.run("sysctl", "-q", "-w", *(f"net.ipv6.conf.{which}.accept_dad=0" for which in ("all", "default")))
        namespace.ip("link set lo up")
        yield namespace
    finally:
        _run("ip", "netns", "delete", namespace.name, check=False)


def wire(one: Namespace, one_name: str, other: Namespace, other_name: str) -> None:
    """A veth pair with both ends up. Both may be in the same namespace."""
    one.ip(f"link add {one_name} type veth peer name {other_name} netns {other.name}")
    one.ip(f"link set {one_name} up")
    other.ip(f"link set {other_name} up")


def _run(*command: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
