"""`catbird felix` itself in a namespace of its own, with pods behind cali interfaces, and a datastore that the test writes.

No route and no setting is made here that is Felix' to make: without it nothing reaches anybody.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from integration.cli.client import FelixClient, SpeakerError
from integration.datastore.api import Datastore
from integration.datastore.local.driver import LocalDatastore
from integration.resources.keys import Key
from tests.felix.truth.sockets import Namespace
from tests.felix.truth.world import (
    GATEWAY_V4,
    GATEWAY_V6,
    MAC,
    NODE,
    WORKLOADS,
    Party,
    base_resources,
    endpoint_of,
    key_of,
    resource,
)

ROOT = Path(__file__).parents[3]
DEADLINE_S = 20.0


async def until(holds: Callable[[], object], what: str, within_s: float = DEADLINE_S, every_s: float = 0.005) -> float:
    """How long it took, in seconds. Fails if it does not come to hold."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not within {within_s} s: {what}")
        await asyncio.sleep(every_s)
    return time.monotonic() - began


class FelixNode:
    """`async with felix_node(folder)`: the namespaces are there, Felix runs once it is started."""

    def __init__(self, folder: Path, url: str = "", name: str = NODE, **parameters: str) -> None:
        """`parameters` of Felix, by their names (`HealthEnabled="true"`)."""
        self.folder, self.name = folder, name
        self.url = url or f"local:{folder / 'store.db'}"
        self.parameters = {"EndpointStatusPathPrefix": str(folder), **parameters}
        self.control = folder / "felix.sock"
        self.host = Namespace("host")
        self.pods: dict[str, Namespace] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.ask = FelixClient(str(self.control), timeout_s=5)
        self.host.command("ip", "link", "set", "lo", "up")
        for setting in ("ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"):
            self.host.write(setting, "0")
        # A new namespace may have inherited what this machine is set to.
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.host.write(setting, "0")

    # --- pods ----------------------------------------------------------------------------------------------------------

    def add_pod(self, party: Party) -> None:
        """As a CNI plugin does it, without the host's route."""
        theirs = self.pods[party.name] = Namespace(party.name)
        theirs.write("ipv6/conf/all/accept_dad", "0")
        theirs.write("ipv6/conf/default/accept_dad", "0")
        mac = f"02:00:00:00:01:{party.ipv4.rsplit('.', 1)[1].zfill(2)}"
        peer = f"type veth peer name eth0 address {mac} netns {theirs.path}"
        self.host.command("ip", "link", "add", party.host_side, "address", MAC, *peer.split())
        self.host.command("ip", "link", "set", party.host_side, "up")
        for family, lines in (("-4", (
            "link set lo up",
            "link set eth0 up",
            f"addr add {party.ipv4}/32 dev eth0",
            f"route add {GATEWAY_V4} dev eth0 scope link",
            f"route add default via {GATEWAY_V4} dev eth0",
            f"neigh add {GATEWAY_V4} lladdr {MAC} dev eth0 nud permanent",
        )), ("-6", (
            f"addr add {party.ipv6}/128 dev eth0 nodad",
            f"neigh add {GATEWAY_V6} lladdr {MAC} dev eth0 nud permanent",
            f"route add default via {GATEWAY_V6} dev eth0 src {party.ipv6}",
        ))):  # fmt: skip
            theirs.command("ip", family, "-batch", "-", text="\n".join(lines) + "\n")

    def remove_pod(self, party: Party) -> None:
        self.host.command("ip", "link", "delete", party.host_side)
        self.pods.pop(party.name).close()

    # --- the process ---------------------------------------------------------------------------------------------------

    @property
    def log_file(self) -> Path:
        return self.folder / "felix.log"

    def start(self, **more: str) -> None:
        """`more` parameters, for this run. Only ever inside the namespace: Felix programs whatever network it is in."""
        environ = {f"FELIX_{name.upper()}": value for name, value in {**self.parameters, **more}.items()}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "integration.catbird", "felix", "--datastore", self.url, "--node", self.name,
                 "--control", str(self.control), "--mtu-file", str(self.folder / "mtu"), "--log-format", "json"],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environ}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=self.host.child_setup(),  # noqa: PLW1509 (two system calls, no lock)
            )  # fmt: skip

    async def ready(self) -> float:
        """Until what the datastore says is in the kernel; how long that took, in seconds."""
        return await until(lambda: self.status().get("applied"), f"applied\n{self.log_file.read_text()[-3000:]}")

    def status(self) -> dict[str, Any]:
        """Empty while nobody answers."""
        try:
            found: dict[str, Any] = self.ask.get("status")
        except SpeakerError:
            return {}
        return found

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(number)
        return process.wait(DEADLINE_S)

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        process = self.process
        assert process is not None
        await until(lambda: process.poll() is not None, "Felix ends")
        self.process = None
        return process.wait()

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        for namespace in (self.host, *self.pods.values()):
            namespace.close()

    # --- what it says and did ------------------------------------------------------------------------------------------

    def events(self, name: str = "") -> list[dict[str, Any]]:
        found = []
        for line in self.log_file.read_text().splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                if name in ("", event["event"]):
                    found.append(event)
        return found

    def nft(self, *words: str) -> str:
        return self.host.command("nft", *words)

    def rules(self) -> str:
        """Everything in the packet filter, without what changes by itself and whose the table is."""
        lines = self.nft("-s", "list", "ruleset").splitlines()
        return "\n".join(
            line.partition(" # progname")[0] for line in lines if line.strip() not in ("flags", "flags owner")
        )

    def routes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.host.command("ip", "-j", "route"))
        found += json.loads(self.host.command("ip", "-j", "-6", "route"))
        return found

    def setting(self, path: str) -> str:
        return self.host.run(lambda: Path("/proc/sys/net", path).read_text().strip())


@asynccontextmanager
async def felix_node(folder: Path, url: str = "", **parameters: str) -> AsyncIterator[FelixNode]:
    """With the four pods of the little world."""
    node = FelixNode(folder, url, **parameters)
    try:
        for party in WORKLOADS:
            node.add_pod(party)
        yield node
    finally:
        node.close()


@asynccontextmanager
async def local_store(folder: Path) -> AsyncIterator[LocalDatastore]:
    """A file with the little world in it."""
    store = LocalDatastore(folder / "store.db", "normal")
    try:
        await put(store, *base_resources().values())
        yield store
    finally:
        await store.close()


async def put(store: Datastore, *values: Mapping[str, Any]) -> None:
    for value in values:
        await store.apply(key_of(value), dict(value))


def policy(name: str, selector: str, order: int = 100, **spec: Any) -> dict[str, Any]:
    return resource("GlobalNetworkPolicy", name, {"selector": selector, "order": order, "types": ["Ingress"], **spec})


def felix_configuration(**spec: Any) -> dict[str, Any]:
    return resource("FelixConfiguration", "default", spec)


def endpoint_key(party: Party) -> Key:
    return key_of(endpoint_of(party))
