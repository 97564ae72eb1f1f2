"""One BGP daemon in each router's namespace: catbird, BIRD or FRR, started, watched, killed and ended by pid."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from integration.demo.cluster import store_url
from integration.demo.configs import V6, bird_config, catbird_config, frr_config, sessions_of
from integration.demo.namespaces import Run
from integration.demo.plan import FABRIC_IPV4, FABRIC_IPV6, Plan, Router, RouterKind

FRR_PROGRAMS = Path("/usr/lib/frr")
BIRD = Path("/usr/sbin/bird")
PROJECT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 10.0


class CannotRun(Exception):
    """One line for the person at the terminal."""


def why_missing(kind: RouterKind) -> str | None:
    """None, or what to install."""
    if kind == "bird" and not BIRD.exists():
        return "there is no BIRD on this machine: apt-get install bird2"
    if kind == "frr" and not (FRR_PROGRAMS / "bgpd").exists():
        return "there is no FRR on this machine: apt-get install frr"
    return None


class RunningRouter:
    """A router's daemon. `sessions` says how its sessions stand, where the daemon can be asked."""

    def __init__(self, plan: Plan, router: Router, run: Run) -> None:
        self.plan = plan
        self.router = router
        self.run = run
        self.folder = run.folder
        self.log_path = run.folder / f"{router.name}.log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        raise NotImplementedError

    def sessions(self) -> dict[str, str]:
        """Peer → state of the session, "Established" if it is. Empty if the daemon does not answer."""
        raise NotImplementedError

    def peers(self) -> list[dict[str, Any]]:
        """More about the sessions, as `catbird show peers -o json` has it; empty where there is no catbird."""
        return []

    def kill(self) -> None:
        """As if the kernel's out-of-memory killer had come by."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def stop(self) -> list[int]:
        """End it kindly; the exit codes, -9 for what had to be killed."""
        for process in self.processes:
            process.terminate()
        codes = []
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self.processes:
            try:
                codes.append(process.wait(max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        self.processes.clear()
        return codes

    def why_dead(self) -> str | None:
        """None while everything runs; else how it ended."""
        for process in self.processes:
            code = process.poll()
            if code is not None:
                return f"{self.router.name}: {Path(str(process.args[0])).name} ended with {code}"  # type: ignore[index]
        return None

    def log_tail(self, lines: int = 15) -> list[str]:
        with suppress(OSError):
            return self.log_path.read_text(errors="replace").splitlines()[-lines:]
        return []

    def spawn(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """From the main thread only: a child would be killed when the thread that made it ends."""
        with self.log_path.open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=os.environ
                    | {"PYTHONPATH": str(PROJECT)}
                    | dict(environment or {}),  # a checkout needs no installation
                    start_new_session=True,  # an interrupt at the terminal is for the demo, which ends them in order
                    preexec_fn=self.run.namespaces[self.router.name].child_setup(),  # noqa: PLW1509
                )
            )


class Catbird(RunningRouter):
    @property
    def socket_path(self) -> Path:
        return self.folder / f"{self.router.name}.sock"

    def start(self) -> None:
        path = self.folder / f"{self.router.name}.toml"
        path.write_text(catbird_config(self.plan, self.router, self.folder))
        program = "reflector" if self.router.is_reflector else "speaker"
        self.spawn(sys.executable, "-P", "-m", "integration.catbird", program, "-c", str(path))

    def sessions(self) -> dict[str, str]:
        return {str(peer["name"]): str(peer["state"]) for peer in self.peers()}

    def peers(self) -> list[dict[str, Any]]:
        with suppress(OSError, ValueError, http.client.HTTPException):
            found: list[dict[str, Any]] = ask(self.socket_path, "/v1/peers")
            return found
        return []


class WholeNode(Catbird):
    """`catbird node`: the speaker, with Felix and the CNI agent beside it. Its sessions are found by address."""

    def start(self) -> None:
        name, folder = self.router.name, self.folder
        environment = {
            "IP": f"{self.router.ipv4}/{FABRIC_IPV4.prefixlen}",
            "IP6": f"{self.router.ipv6}/{FABRIC_IPV6.prefixlen}",
            "CALICO_ROUTER_ID": str(self.router.ipv4),
            "NO_DEFAULT_POOLS": "true",
            "CALICO_NODENAME_FILE": str(folder / f"{name}-nodename"),
            "FELIX_ENDPOINTSTATUSPATHPREFIX": str(folder / f"{name}-status"),
        }
        self.spawn(
            sys.executable, "-P", "-m", "integration.catbird", "node", "--datastore", store_url(folder), "--node", name,
            "--control", str(self.socket_path), "--felix-control", str(self.felix_path), "--cni-agent", str(self.agent_path),
            "--mtu-file", str(folder / f"{name}-mtu"),
            environment=environment,
        )  # fmt: skip

    @property
    def felix_path(self) -> Path:
        return self.folder / f"{self.router.name}-felix.sock"

    @property
    def agent_path(self) -> Path:
        return self.folder / f"{self.router.name}-cni.sock"

    def is_ready(self) -> bool:
        """Containers can be started."""
        with suppress(OSError, ValueError, http.client.HTTPException):
            return self.agent_path.exists() and ask(self.felix_path, "/v1/status")["applied"] is True
        return False

    def peers(self) -> list[dict[str, Any]]:
        names = {str(peer.ipv4): peer.name for peer in self.plan.peers_of(self.router)}
        names |= {str(peer.ipv6): peer.name + V6 for peer in self.plan.peers_of(self.router)}
        return [{**peer, "name": names[peer["address"]]} for peer in super().peers() if peer.get("address") in names]


class Bird(RunningRouter):
    def start(self) -> None:
        path = self.folder / f"{self.router.name}.conf"
        path.write_text(bird_config(self.plan, self.router, self.log_path))
        control = self.folder / f"{self.router.name}.ctl"
        self.spawn(str(BIRD), "-f", "-R", "-c", str(path), "-s", str(control), "-P", str(control.with_suffix(".pid")))

    def sessions(self) -> dict[str, str]:
        control = self.folder / f"{self.router.name}.ctl"
        text = _output("birdc", "-r", "-s", str(control), "show", "protocols")
        states = {}
        for line in text.splitlines():
            words = line.split()
            if len(words) > 3 and words[1] == "BGP":
                states[words[0]] = words[-1] if words[3] == "up" else words[3]
        return states


class Frr(RunningRouter):
    def start(self) -> None:
        folder = self.folder / f"{self.router.name}-frr"
        folder.mkdir(exist_ok=True)
        (folder / "zebra.conf").write_text(f"log file {folder / 'zebra.log'}\n")
        (folder / "bgpd.conf").write_text(frr_config(self.plan, self.router, folder / "bgpd.log"))
        shutil.chown(folder, "frr", "frr")  # both daemons drop root for it
        self._daemon("zebra", folder, "-s", "8388608")
        wait_until((folder / "zserv.api").exists, 10)
        self._daemon("bgpd", folder)

    def _daemon(self, name: str, folder: Path, *more: str) -> None:
        words = [str(FRR_PROGRAMS / name), "-f", f"{folder / name}.conf", "-z", str(folder / "zserv.api")]
        words += ["-i", f"{folder / name}.pid", "--vty_socket", str(folder), "-P", "0", *more]
        self.spawn(*words)

    def sessions(self) -> dict[str, str]:
        folder = self.folder / f"{self.router.name}-frr"
        text = _output("vtysh", "--vty_socket", str(folder), "-c", "show bgp ipv4 unicast summary json")
        more = _output("vtysh", "--vty_socket", str(folder), "-c", "show bgp ipv6 unicast summary json")
        names = {str(address): name for name, address, _ in sessions_of(self.plan, self.router)}
        states: dict[str, str] = {}
        for said in (text, more):
            with suppress(ValueError):
                peers = json.loads(said).get("peers", {})
                states |= {names[at]: peer["state"] for at, peer in peers.items() if at in names}
        return states

    def log_tail(self, lines: int = 15) -> list[str]:
        folder = self.folder / f"{self.router.name}-frr"
        tail = super().log_tail(lines)
        for path in (folder / "zebra.log", folder / "bgpd.log"):
            with suppress(OSError):
                tail += path.read_text(errors="replace").splitlines()
        return tail[-lines:]


KINDS: dict[RouterKind, type[RunningRouter]] = {"catbird": Catbird, "bird": Bird, "frr": Frr}


def make_router(plan: Plan, router: Router, run: Run) -> RunningRouter:
    return WholeNode(plan, router, run) if router.is_whole else KINDS[router.kind](plan, router, run)


def merged(states: Mapping[str, str]) -> dict[str, str]:
    """By router: of two sessions with it the one that does not stand."""
    found: dict[str, str] = {}
    for name, state in states.items():
        router = name.removesuffix(V6)
        if found.get(router, "Established") == "Established":
            found[router] = state
    return found


def ask(socket_path: Path, target: str, timeout_s: float = 2.0) -> Any:
    """GET from a speaker's control socket. Raises OSError, http.client.HTTPException or ValueError."""
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(str(socket_path))
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"{target}: {answer.status} {body.decode(errors='replace')}")
        return json.loads(body)
    finally:
        connection.close()


def wait_until(is_so: Callable[[], bool], timeout_s: float, interval_s: float = 0.05) -> bool:
    """Poll until `is_so()`; False if that took longer than `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_s)
    return True


def _output(*command: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    return ""
