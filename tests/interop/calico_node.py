"""Nodes of a Calico cluster: `catbird node` on one etcd, workloads behind them, resources written as Calico writes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from integration.resources.keys import Key, affinity_key, etcd_path
from tests.integration.datastore.etcd_servers import Etcd, etcd
from tests.interop.catbird import ROOT, Catbird
from tests.interop.lan import Node, run

STORE_HOST = "10.77.0.254"
MAC = "ee:ee:ee:ee:ee:ee"  # of every cali interface


@dataclass(slots=True, eq=False)
class CalicoNode(Catbird):
    """`catbird node`; its configuration is what lies in the datastore."""

    datastore: str = ""
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    kind: ClassVar[str] = "catbird"

    @property
    def name(self) -> str:
        return f"n{self.node.number}"

    def configuration(self) -> str:
        return f"# {self.name}: see the datastore\n"

    def launch(self, *, recovering: bool) -> None:
        del recovering
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        self.spawn(
            "env", *variables, sys.executable, "-m", "integration.catbird", "node", "--datastore", self.datastore, "--node", self.name,
            "--without", "felix", "--without", "cni",
            "--control", str(self.control), *self.arguments, cwd=ROOT,
        )  # fmt: skip

    def is_ready(self) -> bool:
        return (self.folder / "ctl").exists() and Catbird.is_ready(self)

    def states(self) -> dict[str, str]:
        """Peer's name → state."""
        return {peer["name"]: peer["state"] for peer in self.show("/v1/peers")}

    def sessions(self) -> dict[str, tuple[int, float]]:
        """Established peers: how often each came up, and for how long it has been up."""
        return {
            peer["name"]: (peer["flaps"], peer["since_s"])
            for peer in self.show("/v1/peers")
            if peer["state"] == "Established"
        }

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        """`catbird apply` on this node; what it prints."""
        resource = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}
        command = (sys.executable, "-m", "integration.catbird", "apply", "--datastore", self.datastore, "-f", "-")
        return run(*self.node.command(*command), stdin=json.dumps(resource), cwd=ROOT)

    def add_workload(self, address: str) -> Workload:
        """A namespace behind a cali interface, with a host route as Felix makes it."""
        number = self.node.number
        netns = f"{self.node.netns}w"
        run("ip", "netns", "add", netns)
        for line in (
            f"link add cali{number} netns {self.node.netns} type veth peer name eth0 netns {netns}",
            f"-n {netns} link set lo up",
            f"-n {netns} addr add {address}/32 dev eth0",
            f"-n {netns} link set eth0 up",
            f"-n {self.node.netns} link set cali{number} address {MAC} up",
            f"-n {netns} neigh add 169.254.1.1 lladdr {MAC} dev eth0",
            f"-n {netns} route add 169.254.1.1 dev eth0",
            f"-n {netns} route add default via 169.254.1.1",
            f"-n {self.node.netns} route add {address}/32 dev cali{number}",
        ):
            run("ip", *line.split())
        self.node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        return Workload(netns, address)


@dataclass(slots=True)
class Workload:
    netns: str
    address: str

    def close(self) -> None:
        run("ip", "netns", "delete", self.netns, check=False)

    def reaches(self, other: Workload) -> bool:
        command = ["nsenter", f"--net=/run/netns/{self.netns}", "--", "ping", "-c", "1", "-W", "1", other.address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def stream_to(self, other: Workload) -> Iterator[Stream]:
        """100 packets a second, until the end; then `sent` and `lost` say how it went."""
        command = ["nsenter", f"--net=/run/netns/{self.netns}", "--", "ping", "-q", "-i", "0.01", other.address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        stream = Stream()
        try:
            yield stream
        finally:
            process.send_signal(2)
            text = process.communicate(timeout=10)[0]
        found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        assert found, text
        stream.sent, stream.lost = int(found[1]), int(found[1]) - int(found[2])


@dataclass(slots=True)
class Stream:
    sent: int = 0
    lost: int = 0


@dataclass(slots=True)
class Store:
    """The cluster's etcd, seen from inside the LAN."""

    server: Etcd

    @property
    def url(self) -> str:
        return "etcd:" + ",".join(self.server.endpoints)

    def put(self, kind: str, name: str, spec: dict[str, Any], namespace: str = "", **more: Any) -> None:
        """As Calico stores it."""
        metadata = {"name": name, "uid": f"uid-{kind}-{name}"} | ({"namespace": namespace} if namespace else {})
        metadata |= more.pop("metadata", {})
        value = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec} | more
        self.put_text(Key(kind, name, namespace), json.dumps(value))

    def put_text(self, key: Key, text: str) -> None:
        self.server.ctl("put", etcd_path(key), text)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.server.ctl("get", "--print-value-only", etcd_path(Key(kind, name))))  # type: ignore[no-any-return]

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        assert self.server.ctl("del", etcd_path(Key(kind, name, namespace))).strip() == "1"

    def put_node(self, node: Node, asn: int | None = None, **bgp: Any) -> None:
        more = {} if asn is None else {"asNumber": asn}
        spec = {"bgp": {"ipv4Address": f"{node.ipv4}/24", **more, **bgp}}
        self.put("Node", f"n{node.number}", spec, metadata={"labels": {"kubernetes.io/hostname": f"n{node.number}"}})

    def put_block(self, node: Node, cidr: str) -> None:
        value = {"state": "confirmed", "deleted": False}
        self.put_text(affinity_key(f"host:n{node.number}", cidr), json.dumps(value))


@contextmanager
def store_on(hub: str, directory: Path, members: int = 1) -> Iterator[Store]:
    """etcd in the LAN's hub, at STORE_HOST."""
    inside = ("nsenter", f"--net=/run/netns/{hub}", "--")
    run("ip", "-n", hub, "addr", "add", f"{STORE_HOST}/24", "dev", "br0")
    run("ip", "-n", hub, "link", "set", "lo", "up")
    with etcd(directory, members, host=STORE_HOST, inside=inside) as server:
        yield Store(server)
