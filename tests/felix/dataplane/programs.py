"""Two nodes with the whole program on each, over one datastore file, and a pod behind each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.datastore.settings import load_settings, open_datastore
from integration.resources.keys import Key
from integration.resources.names import WorkloadEndpointName
from tests.netns import Namespace, network_namespace, wire

PROJECT = Path(__file__).parents[3]
WITHIN_S = 20.0
Json = dict[str, Any]
ALLOW = [{"action": "Allow"}]


def node_resource(number: int, **spec: Any) -> tuple[Key, Json]:
    value = {
        "bgp": {"ipv4Address": f"172.16.0.{number}/24", "ipv6Address": f"fd16::{number}/64"} | spec.pop("bgp", {}),
        "ipv4VXLANTunnelAddr": f"10.65.{number}.0",
        "ipv6VXLANTunnelAddr": f"fd65:{number}::",
    } | spec
    return of("Node", f"n{number}", value)


def of(kind: str, name: str, spec: Json, namespace: str = "") -> tuple[Key, Json]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    value = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}
    return Key(kind, name, namespace), value


def block(cidr: str, number: int) -> tuple[Key, Json]:
    return Key("IPAMBlock", cidr.replace("/", "-")), {
        "cidr": cidr,
        "affinity": f"host:n{number}",
        "allocations": [None] * 64,
        "unallocated": list(range(64)),
        "attributes": [],
    }


def pod(number: int) -> tuple[Key, Json]:
    name = WorkloadEndpointName(f"n{number}", "k8s", pod=f"pod{number}", endpoint="eth0").name
    spec = {
        "orchestrator": "k8s", "node": f"n{number}", "pod": f"pod{number}", "endpoint": "eth0",
        "interfaceName": "cali1", "profiles": ["kns.default"],
        "ipNetworks": [f"10.65.{number}.2/32", f"fd65:{number}::2/128"],
    }  # fmt: skip
    return of("WorkloadEndpoint", name, spec, "default")


def pools(**modes: str) -> dict[Key, Json]:
    """Modes of the IPv4 pool; IPv6 has VXLAN's."""
    six = {"vxlanMode": modes.get("vxlanMode", "Never")}
    return dict([
        of("IPPool", "v4", {"cidr": "10.65.0.0/16", **modes}), of("IPPool", "v6", {"cidr": "fd65::/16", **six})
    ])  # fmt: skip


def cluster(*numbers: int) -> dict[Key, Json]:
    found = dict([of("Profile", "kns.default", {"ingress": ALLOW, "egress": ALLOW})])
    for number in numbers:
        found |= dict([
            node_resource(number), pod(number), block(f"10.65.{number}.0/26", number), block(f"fd65:{number}::/122", number)
        ])  # fmt: skip
    return found


@dataclass
class Programs:
    folder: Path
    within_s: float = WITHIN_S
    nodes: dict[int, Namespace] = field(default_factory=dict)
    pods: dict[int, Namespace] = field(default_factory=dict)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def write(self, resources: dict[Key, Json | None]) -> None:
        """None removes."""

        async def work() -> None:
            store = open_datastore(load_settings(f"local:{self.folder}/store.db"))
            try:
                for key, value in resources.items():
                    await (store.delete(key) if value is None else store.apply(key, value))
            finally:
                await store.close()

        asyncio.run(work())

    def read(self, key: Key) -> Json:
        async def work() -> Json:
            store = open_datastore(load_settings(f"local:{self.folder}/store.db"))
            try:
                return (await store.get(key)).value
            finally:
                await store.close()

        return asyncio.run(work())

    def start(self, number: int) -> None:
        words = [
            sys.executable, "-m", "integration.catbird", "felix", "--node", f"n{number}", "--datastore",
            f"local:{self.folder}/store.db", "--control", f"{self.folder}/n{number}.sock", "--mtu-file", f"{self.folder}/n{number}.mtu",
        ]  # fmt: skip
        environment = {"FELIX_ENDPOINTSTATUSPATHPREFIX": f"{self.folder}/n{number}", "FELIX_ROUTEREFRESHINTERVAL": "1"}
        with (self.folder / f"n{number}.log").open("a") as log:
            self.processes[number] = subprocess.Popen(
                self.nodes[number].command(*words), cwd=PROJECT, stdout=log, stderr=log, env=os.environ | environment
            )

    def stop(self, number: int) -> None:
        process = self.processes.pop(number)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, self.log(number)

    def log(self, number: int) -> str:
        return (self.folder / f"n{number}.log").read_text()

    def ping(self, one: int, address: str) -> bool:
        return " 0% packet loss" in self.pods[one].run("ping", "-c1", "-W1", address, check=False)

    def until(self, what: Callable[[], bool]) -> None:
        """Raises AssertionError, with the logs."""
        deadline = time.monotonic() + self.within_s
        while not what():
            ended = {number: process.poll() for number, process in self.processes.items()}
            if time.monotonic() > deadline or any(code is not None for code in ended.values()):
                raise AssertionError(f"exit codes {ended}\n" + "\n".join(self.log(number) for number in self.nodes))
            time.sleep(0.05)

    def mtu_file(self, number: int) -> str:
        path = self.folder / f"n{number}.mtu"
        return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def programs(folder: Path, within_s: float = WITHIN_S) -> Iterator[Programs]:
    """Not started yet. eth0 of both nodes has 172.16.0.N/24 and fd16::N/64."""
    with network_namespace() as a, network_namespace() as b, network_namespace() as pod_a, network_namespace() as pod_b:
        made = Programs(folder, within_s, {1: a, 2: b}, {1: pod_a, 2: pod_b})
        wire(a, "eth0", b, "eth0")
        for number, node in made.nodes.items():
            node.ip(f"address add 172.16.0.{number}/24 dev eth0")
            node.ip(f"address add fd16::{number}/64 dev eth0 nodad")
            node.ip("route add default via 172.16.0.254")  # without one the kernel does not answer for 169.254.1.1
            _wire_pod(node, made.pods[number], number)
        try:
            yield made
        finally:
            for process in made.processes.values():
                process.terminate()
            for process in made.processes.values():
                process.wait(10)


def _wire_pod(node: Namespace, pod: Namespace, number: int) -> None:
    """As the CNI plugin leaves it, but for the routes on the host's side."""
    wire(node, "cali1", pod, "eth0")
    node.ip("link set cali1 address ee:ee:ee:ee:ee:ee")
    node.ip("address add fe80::1/64 dev cali1 nodad")
    pod.ip_batch(
        f"address add 10.65.{number}.2/32 dev eth0\naddress add fd65:{number}::2/128 dev eth0 nodad\n"
        "route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1 dev eth0\nroute add default via fe80::1 dev eth0\n"
    )
