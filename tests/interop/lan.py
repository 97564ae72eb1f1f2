"""A small LAN: one bridge in a namespace of its own, and a namespace with one interface, `eth0`, for each router.

With a bridge between them, one router's link can go down without the other noticing anything but silence, and a third
router can join.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "cbi"
_numbers = itertools.count(1)


def run(
    *command: str, stdin: str | None = None, check: bool = True, cwd: Path | None = None, timeout_s: float = 30
) -> str:
    """Run a command and return what it printed. Raises AssertionError with its stderr if it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(slots=True)
class Node:
    """One namespace. `number` is the last part of its addresses, 10.77.0.N and fd77::N."""

    netns: str
    number: int
    hub: str
    port: str  # the bridge's end of this node's cable

    @property
    def ipv4(self) -> str:
        return f"10.77.0.{self.number}"

    @property
    def ipv6(self) -> str:
        return f"fd77::{self.number}"

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` inside this namespace.

        nsenter and not `ip netns exec`: it execs, so the pid is the daemon's, and /sys and /run stay as they are.
        """
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--", *command]

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        return run(*self.command(*command), stdin=stdin, check=check)

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.netns, *arguments)

    def set_link(self, *, up: bool) -> None:
        """Take the node's own interface down or up. IPv6 addresses survive it (keep_addr_on_down)."""
        self.ip("link", "set", "eth0", "up" if up else "down")

    def set_carrier(self, *, up: bool) -> None:
        """Pull or plug the cable: eth0 stays configured and loses its carrier."""
        run("ip", "-n", self.hub, "link", "set", self.port, "up" if up else "down")

    def drop_bgp(self) -> None:
        """Lose every BGP packet silently, both ways, without the TCP stack being told."""
        rule = "meta l4proto tcp tcp dport 179 drop\n  meta l4proto tcp tcp sport 179 drop"
        self.run(
            "nft",
            "-f",
            "-",
            stdin=f"table inet lost {{\n chain i {{ type filter hook input priority 0;\n  {rule}\n }}\n"
            # Dropped on the way out before TCP, an attempt to send would come back as EPERM: drop it after routing.
            f" chain o {{ type filter hook postrouting priority 0;\n  {rule}\n }}\n}}\n",
        )

    def pass_bgp(self) -> None:
        self.run("nft", "delete", "table", "inet", "lost")


@dataclass(slots=True)
class Lan:
    hub: str
    nodes: list[Node] = field(default_factory=list)

    def add_node(self) -> Node:
        number = len(self.nodes) + 1
        netns, port = f"{self.hub}n{number}", f"p{number}"
        _add_namespace(netns)
        node = Node(netns=netns, number=number, hub=self.hub, port=port)
        self.nodes.append(node)
        _batch(
            f"link add {port} netns {self.hub} type veth peer name eth0 netns {netns}",
        )
        _batch(f"link set {port} master br0 up", netns=self.hub)
        _batch(
            "link set lo up",
            f"addr add {node.ipv4}/24 dev eth0",
            f"addr add {node.ipv6}/64 dev eth0 nodad",
            "link set eth0 up",
            netns=netns,
        )
        return node

    def add_cable(self, one: Node, two: Node, interface: str) -> None:
        """One more link, between these two alone. It has only the link-local address that each end is given."""
        _batch(f"link add {interface} netns {one.netns} type veth peer name {interface} netns {two.netns}")
        for node in (one, two):
            node.ip("link", "set", interface, "addrgenmode", "none", "up")


@contextmanager
def lan() -> Iterator[Lan]:
    hub = f"{PREFIX}{os.getpid()}x{next(_numbers)}"
    made = Lan(hub=hub)
    _add_namespace(hub)
    try:
        _batch("link add br0 type bridge forward_delay 0", "link set br0 up", netns=hub)
        yield made
    finally:
        for netns in [node.netns for node in made.nodes] + [hub]:
            run("ip", "netns", "delete", netns, check=False)


def remove_leftovers() -> None:
    """Namespaces of test runs that were killed before they could clean up."""
    folder = Path("/run/netns")
    for path in folder.iterdir() if folder.exists() else ():
        pid = path.name.removeprefix(PREFIX).split("x")[0]
        if path.name.startswith(PREFIX) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            run("ip", "netns", "delete", path.name, check=False)


def _add_namespace(name: str) -> None:
    run("ip", "netns", "add", name)
    # No duplicate address detection: link-local addresses are usable at once. Addresses stay on a link that goes down.
    settings = (
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv6.conf.default.dad_transmits=0",
        "net.ipv6.conf.all.keep_addr_on_down=1",
        "net.ipv6.conf.default.keep_addr_on_down=1",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
    )
    run("nsenter", f"--net=/run/netns/{name}", "--", "sysctl", "-q", "-w", *settings)


def _batch(*lines: str, netns: str | None = None) -> None:
    where: Sequence[str] = ("-n", netns) if netns else ()
    run("ip", *where, "-b", "-", stdin="\n".join(lines) + "\n")
