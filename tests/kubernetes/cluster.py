"""A Kubernetes cluster of one control plane and some nodes, on catbird alone.

    with running_cluster(nodes=2) as cluster:
        cluster.apply(pod)

Only inside the namespaces of run.sh: the control plane is in the ones of this process, each node in a network, mount and
UTS namespace of its own, all on one bridge.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kubernetes.credentials import ADMIN_TOKEN, Credentials
from tests.kubernetes.images import write_image
from tests.kubernetes.node import Node
from tests.kubernetes.programs import Program, wait_until

PROJECT = Path(__file__).resolve().parents[2]
ADDRESS = "172.30.0.1"
SERVER = f"https://{ADDRESS}:6443"
API_SERVER = "kube-apiserver"
SERVICES = "10.96.0.0/16"
ACCOUNTS = PROJECT / "docs" / "kubernetes.yaml"


class Cluster:
    def __init__(self) -> None:
        self.folder = Path(os.environ["CATBIRD_CLUSTER"])
        self.binaries = Path(os.environ["CATBIRD_CLUSTER_PROGRAMS"])
        self.programs: list[Program] = []
        self.nodes: dict[str, Node] = {}
        self.credentials = Credentials(self.folder, SERVER)
        self.image = self.folder / "image.tar"
        write_image(self.image)

    # --- the control plane --------------------------------------------------------------------------------------------

    def start(self) -> None:
        for command in ("link add k0 type bridge", f"address add {ADDRESS}/24 dev k0", "link set k0 up"):
            subprocess.run(["ip", *command.split()], check=True, timeout=10)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._start_etcd()
        self._start_api_server()
        wait_until(self._is_ready, "the API server is ready")
        for name, more in (
            ("kube-controller-manager", [
                "--service-account-private-key-file", "sa.key", "--root-ca-file", "ca.crt",
                "--cluster-signing-cert-file", "ca.crt", "--cluster-signing-key-file", "ca.key",
            ]),
            ("kube-scheduler", []),
        ):  # fmt: skip
            files = [str(self.folder / word) if word.startswith(("sa.", "ca.")) else word for word in more]
            admin = ["--kubeconfig", str(self.credentials.admin), "--leader-elect=false"]
            self._run(name, str(self.binaries / name), *admin, *files)

    def _start_etcd(self) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        self._run(
            "etcd", "etcd", "--logger", "zap", "--log-level", "error", "--data-dir", str(self.folder / "etcd"),
            "--unsafe-no-fsync", "--initial-cluster", f"default={peer}", "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        )  # fmt: skip

    def _start_api_server(self) -> None:
        folder = self.folder
        self._run(
            API_SERVER, str(self.binaries / "kube-apiserver"), "--etcd-servers", "http://127.0.0.1:2379",
            "--bind-address", "0.0.0.0", "--advertise-address", ADDRESS, "--secure-port", "6443", "--insecure-port", "0",
            "--service-cluster-ip-range", SERVICES, "--authorization-mode", "Node,RBAC", "--allow-privileged=true",
            "--tls-cert-file", f"{folder}/server.crt", "--tls-private-key-file", f"{folder}/server.key",
            "--client-ca-file", f"{folder}/ca.crt", "--token-auth-file", f"{folder}/tokens.csv",
            "--service-account-key-file", f"{folder}/sa.pub", "--service-account-signing-key-file", f"{folder}/sa.key",
            "--service-account-issuer", "https://kubernetes.default.svc", "--profiling=false",
            "--kubelet-preferred-address-types", "InternalIP", "--cert-dir", f"{folder}/certificates",
            "--kubelet-client-certificate", f"{folder}/apiserver-kubelet.crt",
            "--kubelet-client-key", f"{folder}/apiserver-kubelet.key",
        )  # fmt: skip

    def kill_api_server(self) -> None:
        program = next(each for each in self.programs if each.name == API_SERVER)
        program.stop(signal.SIGKILL)
        self.programs.remove(program)

    def start_api_server_again(self) -> None:
        self._start_api_server()
        wait_until(self._is_ready, "the API server is ready again")

    def _is_ready(self) -> bool:
        for program in self.programs:
            assert program.process.poll() is None, program.tail()
        return self.kubectl("get", "--raw", "/readyz", check=False) == "ok"

    def start_router(self, config: str) -> str:
        """A speaker beside the nodes; its control socket."""
        file, socket = self.folder / "router.toml", str(self.folder / "router.sock")
        file.write_text(textwrap.dedent(config).replace("[speaker]", f'[speaker]\ncontrol = "{socket}"'))
        self._run("router", sys.executable, "-m", "integration.catbird", "speaker", "-c", str(file))
        return socket

    def ip(self, *words: str) -> str:
        return _run(["ip", *words], dict(os.environ), None, True, 10.0)

    def _run(self, name: str, *command: str) -> None:
        self.programs.append(Program(name, list(command), self.folder / f"{name}.log"))

    # --- nodes --------------------------------------------------------------------------------------------------------

    def add_node(self, number: int) -> Node:
        node = Node(f"node{number}", number, self.folder, self.binaries, self.image)
        self.nodes[node.name] = node
        self.set_up(node)
        return node

    def set_up(self, node: Node) -> None:
        """All but catbird."""
        node.join_network(ADDRESS)
        node.start_containers()
        node.start_kubelet(self.credentials.kubelet(node.name))

    def is_node_ready(self, name: str) -> bool:
        conditions = self.get("node", name).get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def stop(self) -> dict[str, int]:
        """Exit codes by program."""
        codes: dict[str, int] = {}
        for node in self.nodes.values():
            codes |= node.stop()
        for program in reversed(self.programs):
            codes[program.name] = program.stop(signal.SIGINT)
        return codes

    # --- talking to it ------------------------------------------------------------------------------------------------

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True, patience_s: float = 60.0) -> str:
        """What it printed. Raises AssertionError if it fails and `check` is set."""
        home = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        command = [str(self.binaries / "kubectl"), "--kubeconfig", str(self.credentials.admin), *words]
        return _run(command, home, stdin, check, patience_s)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """{} if it is not there."""
        text = self.kubectl("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(text or "{}")
        return found

    def all(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-A", "-o", "json"))["items"]
        return found

    def catbird(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """The command, with this cluster as its datastore."""
        environment = {**os.environ, "DATASTORE_TYPE": "kubernetes", "KUBECONFIG": str(self.credentials.admin)}
        return _run([sys.executable, "-m", "integration.catbird", *words], environment, stdin, check, 60.0)

    def account(self, name: str) -> Path:
        """The kubeconfig of a service account in kube-system."""
        secret = self.get("serviceaccount", name, "kube-system")["secrets"][0]["name"]
        token = base64.b64decode(self.get("secret", secret, "kube-system")["data"]["token"]).decode()
        return self.credentials.kubeconfig(name, {"token": token})

    def exec(self, pod: str, *words: str, check: bool = True) -> str:
        return self.kubectl("exec", pod, "--", *words, check=check)

    def watch(self, path: str) -> Iterator[tuple[float, dict[str, Any]]]:
        """(monotonic time, object) of each event from now on, whatever its type."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        request = urllib.request.Request(f"{SERVER}{path}", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:
            for line in answer:
                yield time.monotonic(), json.loads(line)["object"]

    def logs(self) -> str:
        programs = [*self.programs, *(program for node in self.nodes.values() for program in node.programs.values())]
        return "\n".join(program.tail() for program in programs)


def _run(command: list[str], environment: dict[str, str], stdin: str | None, check: bool, patience_s: float) -> str:
    done = subprocess.run(
        command,
        input=stdin,
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def running_cluster(nodes: int) -> Iterator[Cluster]:
    """With Calico's definitions, catbird's accounts, and `nodes` nodes that kubelet has told of; catbird runs on none yet."""
    cluster = Cluster()
    try:
        cluster.start()
        definitions = _run([sys.executable, "-m", "integration.resources.crds"], dict(os.environ), None, True, 60.0)
        cluster.kubectl("apply", "-f", "-", stdin=definitions)
        cluster.kubectl("apply", "-f", str(ACCOUNTS))
        for number in range(1, nodes + 1):
            cluster.add_node(number)
        for name in cluster.nodes:
            wait_until(lambda name=name: cluster.get("node", name), f"kubelet tells of {name}")  # type: ignore[misc]
        wait_until(lambda: cluster.get("serviceaccount", "default"), "pods may be made")
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()
