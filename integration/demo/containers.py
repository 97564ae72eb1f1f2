"""The demo as a container runtime: it executes the CNI plugins, as kubelet's runtime does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.demo.cluster import store_path, store_url
from integration.demo.namespaces import NETNS, Run
from integration.demo.plan import NAMESPACE, Router, Workload
from integration.demo.routers import PROJECT, CannotRun

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Containers:
    run: Run

    @property
    def binaries(self) -> Path:
        return self.run.folder / "bin"

    def install(self) -> None:
        """Raises CannotRun."""
        done = subprocess.run(
            [
                sys.executable, "-P", "-m", "integration.catbird", "cni", "install", "--datastore", store_url(self.run.folder),
                "--bin-dir", str(self.binaries), "--conf-dir", str(self.run.folder / "net.d"),
            ],
            env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise CannotRun(done.stderr.strip())

    def add(self, router: Router, workload: Workload) -> None:
        """Raises CannotRun with the plugin's words."""
        self._call("ADD", router, workload)

    def delete(self, router: Router, workload: Workload) -> None:
        self._call("DEL", router, workload)

    def _call(self, command: str, router: Router, workload: Workload) -> None:
        folder = self.run.folder
        config: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": "demo",
            "type": "calico",
            "datastore_type": "local",
            "local_path": str(store_path(folder)),
            "nodename": router.name,
            "policy": {"type": "k8s"},
            "policy_setup_timeout_seconds": 5,
            "endpoint_status_dir": str(folder / f"{router.name}-status" / "endpoint-status"),
            "ipam": {"type": "calico-ipam", "assign_ipv6": "true"},
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"demo-{workload.name}",
            "CNI_NETNS": str(NETNS / self.run.namespaces[workload.name].file_name),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.binaries),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={workload.name}",
            "CATBIRD_CNI_AGENT": str(folder / f"{router.name}-cni.sock"),
            "PYTHONPATH": str(PROJECT),
        }
        done = subprocess.run(
            [str(self.binaries / "calico")], input=json.dumps(config), env=os.environ | environment,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            preexec_fn=self.run.namespaces[router.name].child_setup(),
        )  # fmt: skip
        if done.returncode != 0:
            raise CannotRun(f"{command} {workload.name} on {router.name}: {done.stdout.strip()} {done.stderr.strip()}")
