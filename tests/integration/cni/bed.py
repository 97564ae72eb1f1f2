"""A node with the plugins installed: a namespace for the host, pods' namespaces, a datastore, and the agent if wanted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from integration.cni.install import Target, install
from integration.datastore.api import Datastore
from integration.datastore.settings import Settings, load_settings, open_datastore
from integration.resources.keys import Key
from tests.netns import Namespace, network_namespace, wire

T = TypeVar("T")
CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "calico",
    "nodename_file_optional": True,
    "nodename_file": "/nonexistent",
    "mtu": 1450,
    "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
}


@dataclass
class Answer:
    code: int
    text: str
    complaint: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.text)
        return value

    @property
    def addresses(self) -> list[str]:
        return [one["address"] for one in self.json["ips"]]


@dataclass
class Node:
    name: str
    host: Namespace
    folder: Path
    settings: Settings
    config: dict[str, Any] = field(default_factory=lambda: dict(CONFIG))
    agent: subprocess.Popen[str] | None = None
    pods: list[Namespace] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.name}.sock"

    @property
    def binaries(self) -> Path:
        return self.folder / f"{self.name}-bin"

    def install(self) -> None:
        target = Target(
            self.binaries, self.folder / f"{self.name}-conf", agent=str(self.socket), python=sys.executable
        )  # fmt: skip
        install(target, self.settings, {})

    def start_agent(self) -> None:
        self.agent = subprocess.Popen(
            self.host.command(
                sys.executable, "-m", "integration.catbird", "cni", "serve", "--datastore", str(self.settings),
                "--node", self.name, "--agent", str(self.socket),
            ),
            stderr=(self.folder / f"{self.name}-agent.log").open("w"), text=True,
        )  # fmt: skip
        ends_at = time.monotonic() + 20
        while not self.socket.exists():
            assert self.agent.poll() is None, (self.folder / f"{self.name}-agent.log").read_text()
            assert time.monotonic() < ends_at, "the agent does not listen"
            time.sleep(0.01)

    def kill_agent(self, with_signal: int = 9) -> None:
        assert self.agent is not None
        self.agent.send_signal(with_signal)
        self.agent.wait(10)
        self.agent = None

    def environment(self, command: str, pod: Namespace | None, container: str) -> dict[str, str]:
        found = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(pod.path) if pod else "", "CNI_PATH": f"{self.binaries}:/usr/lib/cni",
        }  # fmt: skip
        return {name: value for name, value in found.items() if value}

    def start(
        self, command: str, pod: Namespace | None, container: str, config: Mapping[str, Any] | None = None,
        plugin: str = "calico", more: Mapping[str, str] | None = None, raw: str | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """`raw` is written to the plugin instead of a configuration."""
        running = subprocess.Popen(
            self.host.command(str(self.binaries / plugin)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "NODENAME": self.name, **self.environment(command, pod, container), **(more or {})},
        )  # fmt: skip
        assert running.stdin is not None
        running.stdin.write(json.dumps({**self.config, **(config or {})}) if raw is None else raw)
        running.stdin.close()
        running.stdin = None
        return running

    def call(
        self, command: str, pod: Namespace | None = None, container: str = "c1",
        config: Mapping[str, Any] | None = None, plugin: str = "calico", more: Mapping[str, str] | None = None,
        raw: str | None = None,
    ) -> Answer:  # fmt: skip
        return finished(self.start(command, pod, container, config, plugin, more, raw))

    def store(self, work: Callable[[Datastore], Awaitable[T]]) -> T:
        async def run() -> T:
            datastore = open_datastore(self.settings)
            try:
                return await work(datastore)
            finally:
                await datastore.close()

        return asyncio.run(run())

    def put(self, *resources: dict[str, Any]) -> None:
        async def write(datastore: Datastore) -> None:
            for resource in resources:
                metadata = resource["metadata"]
                key = Key(resource["kind"], metadata["name"], metadata.get("namespace", ""))
                await datastore.apply(key, resource)

        self.store(write)

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        async def read(datastore: Datastore) -> dict[str, dict[str, Any]]:
            return {entry.key.name: entry.value for entry in (await datastore.list(kind)).entries}

        return self.store(read)

    def allocated(self) -> int:
        """Addresses that are given out, in all blocks; cooling ones are not."""
        count = 0
        for block in self.all("IPAMBlock").values():
            attributes = block.get("attributes") or []
            count += sum(1 for one in block["allocations"] if one is not None and attributes[one].get("handle_id"))
        return count


def finished(running: subprocess.Popen[str], timeout_s: float = 60) -> Answer:
    text, complaint = running.communicate(timeout=timeout_s)
    return Answer(running.returncode, text, complaint)


def resource(kind: str, name: str, spec: dict[str, Any], namespace: str = "", **metadata: Any) -> dict[str, Any]:
    about = {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}
    return {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": about, "spec": spec}


def cluster() -> list[dict[str, Any]]:
    return [
        resource("ClusterInformation", "default", {"datastoreReady": True, "clusterGUID": "0" * 32}),
        resource("IPPool", "v4", {"cidr": "10.65.0.0/16", "blockSize": 26, "natOutgoing": True}),
        resource("IPPool", "v6", {"cidr": "fd00:65::/112", "blockSize": 122}),
    ]


@contextmanager
def a_node(folder: Path, *, with_agent: bool = True, url: str = "", name: str = "n1") -> Iterator[Node]:
    """One node; `url` is a datastore that is there already."""
    with ExitStack() as stack:
        host, outside = stack.enter_context(network_namespace()), stack.enter_context(network_namespace())
        wire(host, "eth0", outside, "eth0")
        host.ip_batch("address add 192.0.2.1/24 dev eth0\nroute add default via 192.0.2.254\n")
        node = Node(name, host, folder, load_settings(url or f"local:{folder / 'store.db'}"))
        node.config |= {"nodename": name, "datastore_type": "local", "local_path": str(node.settings.local_path)}
        node.put(*cluster(), resource("Node", name, {}))
        node.install()
        try:
            if with_agent:
                node.start_agent()
            yield node
        finally:
            if node.agent is not None:
                node.kill_agent(15)


@contextmanager
def a_pod() -> Iterator[Namespace]:
    with network_namespace() as pod:
        yield pod
