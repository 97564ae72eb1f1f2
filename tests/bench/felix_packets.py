"""What Felix' rules cost a packet: iperf3 between two pods of one node, several nodes side by side, alternating.

nothing    no rules at all, and so no connection tracking either
tracking   one rule that lets established connections pass: what any stateful filter costs
felix      Felix' own, with as many interfaces in its dispatch maps as asked for
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from integration.datastore.api import Step
from integration.datastore.local.driver import LocalDatastore
from tests.felix.system.node import FelixNode, until
from tests.felix.truth.world import PARTIES, base_resources, endpoint_of, key_of

AT_ONCE = 100
SETTLED_OCTETS = 10**8
A, B = PARTIES["a"], PARTIES["b"]
TRACKING = "table ip x { chain f { type filter hook forward priority 0; ct state established,related accept; }; }"


def many(count: int) -> Iterator[dict[str, Any]]:
    for at in range(count):
        address = f"10.{70 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"
        party = replace(A, name=f"x{at}", host_side=f"cali{at:011x}", ipv4=address, ipv6=f"fd00:70::{at:x}")
        yield endpoint_of(party)


def plain(folder: Path, rules: str) -> FelixNode:
    """A node whose routes are made by hand, without Felix."""
    node = FelixNode(folder)
    for party in (A, B):
        node.add_pod(party)
        node.host.command("ip", "route", "add", party.ipv4, "dev", party.host_side)
        node.host.write(f"ipv4/conf/{party.host_side}/proxy_arp", "1")
    node.host.write("ipv4/ip_forward", "1")
    if rules:
        node.host.command("nft", "-f", "-", text=rules)
    return node


async def with_felix(folder: Path, endpoints: int) -> FelixNode:
    store = LocalDatastore(folder / "store.db", "normal")
    steps = [Step(key_of(one), one) for one in (*base_resources().values(), *many(endpoints))]
    for at in range(0, len(steps), AT_ONCE):
        await store.transact(steps[at : at + AT_ONCE])
    node = FelixNode(folder)
    for party in (A, B):
        node.add_pod(party)
    node.start()
    await until(lambda: node.status().get("applied"), "applied", 600, 0.5)
    node.stop()  # what it wrote stays; its process takes no part
    await store.close()
    return node


class Flow:
    """An iperf3 that runs only while it is wanted."""

    def __init__(self, node: FelixNode) -> None:
        self.server = subprocess.Popen(
            ["iperf3", "-s", "-1", "-B", B.ipv4, "--forceflush"],
            stdout=subprocess.PIPE,
            preexec_fn=node.pods["b"].child_setup(),  # noqa: PLW1509 (two system calls, no lock)
        )
        assert self.server.stdout is not None
        while b"listening" not in self.server.stdout.readline():
            pass
        self.client = subprocess.Popen(
            ["iperf3", "-c", B.ipv4, "-t", "86400", "-i", "0"],
            stdout=subprocess.DEVNULL,
            preexec_fn=node.pods["a"].child_setup(),  # noqa: PLW1509
        )
        while self.octets() < SETTLED_OCTETS:
            time.sleep(0.05)
        self.send(signal.SIGSTOP)

    def octets(self) -> int:
        """That b's interface has received."""
        lines = Path(f"/proc/{self.server.pid}/net/dev").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.strip().startswith("eth0:")))

    def send(self, number: signal.Signals) -> None:
        for one in (self.server, self.client):
            one.send_signal(number)

    def gigabits(self, seconds: float) -> float:
        self.send(signal.SIGCONT)
        time.sleep(seconds / 4)
        before, began = self.octets(), time.monotonic()
        time.sleep(seconds)
        found = (self.octets() - before) * 8 / (time.monotonic() - began) / 1e9
        self.send(signal.SIGSTOP)
        return found

    def close(self) -> None:
        for one in (self.client, self.server):
            one.kill()
            one.wait()


async def measure(endpoints: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """In Gbit/s, by round. A machine's speed wanders by a sixth from one second to the next, so turns are short and many."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        nodes = {
            "nothing": plain(folders[0], ""),
            "tracking": plain(folders[1], TRACKING),
            "felix": await with_felix(folders[2], endpoints),
        }
        flows = {}
        for name, node in nodes.items():
            stack.callback(node.close)
            flows[name] = Flow(node)
            stack.callback(flows[name].close)
        found: dict[str, list[float]] = {name: [] for name in nodes}
        for _ in range(rounds):
            for name in random.sample(list(flows), len(flows)):
                found[name].append(await asyncio.to_thread(flows[name].gigabits, seconds))
        return found
