"""One node: containerd, kubelet and catbird, in a network, mount and UTS namespace of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.images import PAUSE
from tests.kubernetes.programs import Program, wait_until

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
CGROUPS = Path("/sys/fs/cgroup")


class Node:
    def __init__(self, name: str, number: int, folder: Path, binaries: Path, image: Path) -> None:
        self.name, self.number = name, number
        self.address = f"172.30.0.{10 + number}"
        self.folder = folder / name
        self.folder.mkdir()
        self.binaries, self.image = binaries, image
        self.programs: dict[str, Program] = {}
        self.cgroup = f"{os.environ['CATBIRD_CLUSTER_CGROUP']}/{name}"

    # --- where it is --------------------------------------------------------------------------------------------------

    def join_network(self, gateway: str) -> None:
        """One interface, eth0, on the bridge k0."""
        _ip("netns", "add", self.name)
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        enter = ["nsenter", f"--net=/run/netns/{self.name}", "--"]
        own = ["unshare", "--mount", "--uts", "--propagation", "private", "--"]
        self.start("holder", [*enter, *own, "bash", str(HERE / "node.sh"), self.name, str(ready)], inside=False)
        _ip("link", "add", f"v{self.number}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", f"v{self.number}", "master", "k0", "up")
        for command in (
            "link set lo up",
            f"address add {self.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
        ):
            _ip("-n", self.name, *command.split())
        wait_until(ready.exists, f"{self.name} has its mounts")

    @property
    def pid(self) -> int:
        return self.programs["holder"].process.pid

    def command(self, *words: str) -> list[str]:
        """The command line that runs it on the node; its pid is the program's."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--", *words]

    def run(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment(),
            cwd=PROJECT,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "HOME": "/run"}

    def start(
        self, name: str, command: list[str], *, inside: bool = True, environment: Mapping[str, str] | None = None
    ) -> None:
        words = self.command(*command) if inside else command
        self.programs[name] = Program(
            f"{self.name}/{name}", words, self.folder / f"{name}.log", {**self.environment(), **(environment or {})}
        )

    def stop(self) -> dict[str, int]:
        """Exit codes by program, which are ended in the opposite order of their start."""
        codes = {}
        for name, program in reversed(self.programs.items()):
            codes[program.name] = program.stop(signal.SIGTERM if name == "holder" else signal.SIGINT)
        return codes

    def lose_power(self) -> None:
        """Everything that runs here dies at once, and what was written is gone; `join_network` and so on begin anew."""
        for program in reversed(self.programs.values()):
            program.stop(signal.SIGKILL)
        for file in (CGROUPS / "pids" / self.cgroup).rglob("cgroup.procs"):
            for pid in file.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        self.programs.clear()
        _ip("netns", "delete", self.name)
        _ip("link", "delete", f"v{self.number}")

    # --- containers ---------------------------------------------------------------------------------------------------

    def start_containers(self) -> None:
        cri = {
            "sandbox_image": PAUSE, "disable_apparmor": True, "restrict_oom_score_adj": True,
            "cni": {"bin_dir": "/opt/cni/bin", "conf_dir": "/etc/cni/net.d"}, "containerd": {"snapshotter": "overlayfs"},
        }  # fmt: skip
        config = self.folder / "containerd.toml"
        config.write_text(
            'version = 2\nroot = "/var/lib/containerd"\nstate = "/run/containerd"\n'
            'disabled_plugins = ["io.containerd.internal.v1.opt"]\n[grpc]\naddress = "/run/containerd/containerd.sock"\n'
            + _toml(["plugins", "io.containerd.grpc.v1.cri"], cri)
        )
        self.start("containerd", ["containerd", "--config", str(config), "--log-level", "debug"])
        wait_until(lambda: self.ctr("version", check=False), f"containerd answers on {self.name}")
        self.ctr("--namespace", "k8s.io", "images", "import", str(self.image))

    def ctr(self, *words: str, check: bool = True) -> str:
        return self.run("ctr", "--address", "/run/containerd/containerd.sock", *words, check=check)

    def start_kubelet(self, kubeconfig: Path) -> None:
        self._make_cgroups()
        authority = str(kubeconfig.parent / "ca.crt")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": authority},
            },
            "authorization": {"mode": "Webhook"},
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "nodeStatusUpdateFrequency": "2s",
            "syncFrequency": "1s",
            "volumePluginDir": "/var/lib/kubelet/plugins",
        }
        file = self.folder / "kubelet.yaml"
        file.write_text(yaml.safe_dump(config))
        self.start(
            "kubelet",
            [
                str(self.binaries / "kubelet"), "--config", str(file), "--kubeconfig", str(kubeconfig), "--node-ip", self.address,
                "--container-runtime", "remote", "--container-runtime-endpoint", "unix:///run/containerd/containerd.sock",
                "--oom-score-adj", "0", "--runtime-cgroups", "/", "--v", "2",
            ],
        )  # fmt: skip

    def start_proxy(self, kubeconfig: Path) -> None:
        """kube-proxy, with iptables; limits of connection tracking are the machine's and stay."""
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": "10.244.0.0/16",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        }
        file = self.folder / "kube-proxy.yaml"
        file.write_text(yaml.safe_dump(config))
        self.start("kube-proxy", [str(self.binaries / "kube-proxy"), "--config", str(file)])

    def _make_cgroups(self) -> None:
        controllers = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
        for controller in controllers:
            (CGROUPS / controller / self.cgroup).mkdir(parents=True, exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            whole = (CGROUPS / "cpuset" / name).read_text()
            for folder in (self.cgroup.split("/")[0], self.cgroup):
                (CGROUPS / "cpuset" / folder / name).write_text(whole)

    # --- catbird ------------------------------------------------------------------------------------------------------

    def install_plugins(self, kubeconfig: Path) -> None:
        self.run(
            sys.executable, "-m", "integration.catbird", "cni", "install", "--datastore", f"kubernetes:{kubeconfig}"
        )

    def start_catbird(self, kubeconfig: Path, **environment: str) -> None:
        words = [sys.executable, "-m", "integration.catbird", "node", "--datastore", f"kubernetes:{kubeconfig}"]
        self.start("catbird", words, environment=environment)

    def has_session(self) -> bool:
        return "Established" in self.catbird("show", "peers", check=False)

    def catbird(self, *words: str, check: bool = True) -> str:
        return self.run(sys.executable, "-m", "integration.catbird", *words, check=check)

    def state(self) -> str:
        """For whoever has to find out what went wrong."""
        looks = (
            "ip -4 address",
            "ip -4 route",
            "nft list ruleset",
            f"{sys.executable} -m integration.catbird show peers",
        )
        told = [f"--- {self.name}: {look}\n{self.run(*look.split(), check=False)}" for look in looks]
        return "\n".join(told)


def _toml(path: list[str], table: dict[str, Any]) -> str:
    lines = ["[" + ".".join(f'"{part}"' for part in path) + "]"]
    inner = []
    for key, value in table.items():
        if isinstance(value, dict):
            inner.append(_toml([*path, key], value))
        else:
            lines.append(f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}")
    return "\n".join([*lines, *inner]) + "\n"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10)
