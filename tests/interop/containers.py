"""Nodes that run the whole of catbird (speaker, Felix, CNI agent) in namespaces, and real containers on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.netns import Namespace, network_namespace

ROOT = Path(__file__).parents[2]
NETWORK = "net"
BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "sleep", "ip", "ping", "wget", "httpd", "nc", "cat", "ls", "echo", "timeout")
CONTAINERS_CONF = """[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin}", "/usr/lib/cni"]
network_config_dir = "{conf}"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
default_sysctls = []
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
"""


def wait_for(what: str, is_so: Callable[[], object], within_s: float = 30.0) -> None:
    ends_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < ends_at, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.05)


def root_file_system(folder: Path) -> Path:
    """A busybox and nothing else."""
    root = folder / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "www"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "www/index.html").write_text("hello\n")
    return root


@dataclass
class WholeNode:
    """`catbird node` in a namespace, and podman and cnitool that use its plugins."""

    name: str
    address: str
    host: Namespace
    folder: Path
    store: str
    process: subprocess.Popen[bytes] | None = None
    containers: list[str] = field(default_factory=list)
    run_root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="cbp")))  # podman takes 50 characters

    def file(self, name: str) -> Path:
        return self.folder / f"{self.name}-{name}"

    def start(self) -> None:
        environment = {
            **os.environ, "IP": self.address, "CALICO_ROUTER_ID": self.address.partition("/")[0], "NO_DEFAULT_POOLS": "true",
            "CALICO_NODENAME_FILE": str(self.file("nodename")), "FELIX_ENDPOINTSTATUSPATHPREFIX": str(self.file("status")),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        log = self.file("log").open("ab")
        self.process = subprocess.Popen(
            self.host.command(
                sys.executable, "-m", "integration.catbird", "node", "--datastore", self.store, "--node", self.name,
                "--control", str(self.file("speaker.sock")), "--felix-control", str(self.file("felix.sock")),
                "--cni-agent", str(self.file("cni.sock")),
            ),
            env=environment, stderr=log, stdout=log,
        )  # fmt: skip

    def is_ready(self) -> bool:
        return self.file("cni.sock").exists() and self.felix_status().get("applied") is True

    def felix_status(self) -> dict[str, Any]:
        from integration.cli.client import FelixClient, SpeakerError

        try:
            status: dict[str, Any] = FelixClient(str(self.file("felix.sock"))).get("status")
        except SpeakerError:
            return {}
        return status

    def stop(self, number: int = 15) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def catbird(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "integration.catbird", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self) -> None:
        self.catbird(
            "cni", "install", "--datastore", self.store, "--bin-dir", str(self.file("bin")),
            "--conf-dir", str(self.file("net.d")), "--agent", str(self.file("cni.sock")), "--conf-name", "10-net.conflist",
        )  # fmt: skip
        path = self.file("net.d") / "10-net.conflist"
        value = json.loads(path.read_text())
        value["name"], value["cniVersion"] = NETWORK, "0.4.0"
        value["plugins"] = value["plugins"][:1]
        value["plugins"][0] |= {
            "nodename": self.name, "policy_setup_timeout_seconds": 5, "endpoint_status_dir": str(self.file("status") / "endpoint-status"),
        }  # fmt: skip
        path.write_text(json.dumps(value))
        self.file("containers.conf").write_text(CONTAINERS_CONF.format(bin=self.file("bin"), conf=self.file("net.d")))

    def podman(self, *words: str, check: bool = True) -> str:
        storage = ["--root", str(self.file("storage")), "--runroot", str(self.run_root), "--storage-driver", "vfs"]
        done = subprocess.run(
            self.host.command("podman", *storage, *words),
            env={**os.environ, "CONTAINERS_CONF": str(self.file("containers.conf"))},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"podman {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, name: str, rootfs: Path, *command: str) -> str:
        """Start a container; its address."""
        self.podman("run", "-d", "--name", name, "--net", NETWORK, "--rootfs", str(rootfs), *command)
        self.containers.append(name)
        return self.address_of(name)

    def address_of(self, name: str) -> str:
        found = json.loads(self.podman("inspect", name))[0]["NetworkSettings"]["Networks"][NETWORK]
        return str(found["IPAddress"])

    def inside(self, name: str, *command: str) -> bool:
        done = subprocess.run(
            self.host.command(
                "podman", "--root", str(self.file("storage")), "--runroot", str(self.run_root), "--storage-driver", "vfs",
                "exec", name, *command,
            ),
            env={**os.environ, "CONTAINERS_CONF": str(self.file("containers.conf"))},
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def remove(self, name: str) -> None:
        self.podman("rm", "-f", "-t", "0", name)
        self.containers.remove(name)

    def log(self) -> str:
        return self.file("log").read_text(errors="replace")


@contextmanager
def whole_nodes(folder: Path, count: int = 2) -> Iterator[list[WholeNode]]:
    """Nodes on one switch, meshed, with a pool; all is ready."""
    store = f"local:{folder / 'store.db'}"
    with ExitStack() as stack:
        fabric = stack.enter_context(network_namespace())
        fabric.ip("link add br0 type bridge")
        fabric.ip("link set br0 up")
        nodes = []
        for number in range(1, count + 1):
            host = stack.enter_context(network_namespace())
            host.ip(f"link add eth0 type veth peer name n{number} netns {fabric.name}")
            fabric.ip(f"link set n{number} master br0 up")
            address = f"10.77.0.{number}/24"
            host.ip_batch(f"address add {address} dev eth0\nlink set eth0 up\nroute add default via 10.77.0.254\n")
            nodes.append(WholeNode(f"n{number}", address, host, folder, store))
        apply(store, folder, [POOL])
        try:
            for node in nodes:
                node.install()
                node.start()
            for node in nodes:
                wait_for(f"{node.name} is ready\n{node.log()}", node.is_ready, 60)
            yield nodes
        finally:
            for node in nodes:
                for name in [*node.containers]:
                    node.podman("rm", "-f", "-t", "0", name, check=False)
                if node.process is not None:
                    node.stop()
                shutil.rmtree(node.run_root, ignore_errors=True)


POOL: dict[str, Any] = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "IPPool",
    "metadata": {"name": "pool"},
    "spec": {"cidr": "10.65.0.0/16", "blockSize": 26},
}


def apply(store: str, folder: Path, resources: Sequence[dict[str, Any]]) -> None:
    path = folder / "apply.json"
    path.write_text("\n---\n".join(map(json.dumps, resources)))
    done = subprocess.run(
        [sys.executable, "-m", "integration.catbird", "apply", "-f", str(path), "--datastore", store],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
