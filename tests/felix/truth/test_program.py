"""The whole program: `catbird felix` over a datastore file, judged by packets, and asked why over its socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from felix.config_layers import IRREGULAR
from integration.cli.client import FelixClient, SpeakerError
from integration.datastore.api import Datastore
from integration.datastore.settings import load_settings, open_datastore
from integration.resources.keys import Key
from tests.felix.truth.bed import Bed
from tests.felix.truth.judges import differences
from tests.felix.truth.node import RENDERERS
from tests.felix.truth.tables import Probe, Scenario, ports_of, scenarios
from tests.felix.truth.world import NODE, Resources, base_resources

pytestmark = pytest.mark.root
PROJECT = Path(__file__).parents[3]
WITHIN_S = 5.0  # a change in the datastore has become rules


@dataclass
class Program:
    """node1's Felix in its namespace, and its datastore."""

    bed: Bed
    store: Datastore
    client: FelixClient
    written: Resources
    log: Path

    async def go_to(self, resources: Resources) -> None:
        for key in self.written.keys() - resources.keys():
            await self.store.delete(key)
        for key, value in resources.items():
            if self.written.get(key) != value:
                await self.store.apply(key, value)
        self.written = dict(resources)

    async def ask(self, *path: str, **question: Any) -> Any:
        def work() -> Any:
            return self.client.post(*path, arguments=question) if question else self.client.get(*path)

        return await asyncio.get_running_loop().run_in_executor(None, work)

    def denials(self, port: int) -> set[tuple[Any, ...]]:
        """Who was told to have been denied that port: source, endpoint, tier, rule."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        log = [json.loads(line) for line in whole.splitlines()]
        found = [one for one in log if one["event"] == "denied" and one["destination_port"] == port]
        return {(one["source_workload"], one["endpoint"], one["tier"], one["rule"]) for one in found}

    async def until_told(self, denials: int, port: int) -> None:
        """The kernel gathers logged packets for 0.2 s, of each rule's at its own time. Raises TimeoutError."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.denials(port)) < denials:
                await self.ask("status")

    async def until_right(self, scenario: Scenario) -> list[str]:
        """What is wrong when everything ought to be right; empty if nothing is."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            self.bed.forget_connections()
            wrong = differences(scenario, await self.bed.verdicts(scenario.probes))
            if not wrong or time.monotonic() > deadline:
                return wrong


def with_configuration(scenario: Scenario) -> Resources:
    """The scenario's parameters as the resource that a person would write."""
    fields = {value: name for name, value in IRREGULAR.items()}
    spec = {fields.get(name, name[0].lower() + name[1:]): value for name, value in scenario.felix.items()}
    value = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": spec,
    }
    return scenario.resources | {Key("FelixConfiguration", "default"): value}


@asynccontextmanager
async def program(folder: Path, renderer: str, resources: Resources | None = None) -> AsyncIterator[Program]:
    """With these resources Felix begins: before it has all of them it programs nothing."""
    store = open_datastore(load_settings(f"local:{folder}/store.db"))
    socket_path = f"{folder}/felix.sock"
    everything = scenarios()
    async with Bed(ports_of(everything, 6), ports_of(everything, 17)) as bed:
        found = Program(bed, store, FelixClient(socket_path), {}, folder / "felix.log")
        await found.go_to(base_resources() if resources is None else resources)
        process = _started(bed, folder, socket_path, renderer)
        try:
            await _until_ready(found, process)
            yield found
        except BaseException:
            print((folder / "felix.log").read_text())
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
            await store.close()
    assert process.returncode == 0


def _started(bed: Bed, folder: Path, socket_path: str, renderer: str) -> subprocess.Popen[bytes]:
    words = [
        "-m",
        "integration.catbird",
        "felix",
        "--node",
        NODE,
        "--datastore",
        f"local:{folder}/store.db",
        "--log-format",
        "json",
    ]
    environment = {
        "FELIX_NFTABLESMODE": "Enabled" if renderer == "nftables" else "Disabled",
        "FELIX_ENDPOINTSTATUSPATHPREFIX": str(folder),
    }
    with (folder / "felix.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *words, "--control", socket_path, "--mtu-file", str(folder / "mtu")],
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            preexec_fn=bed.host.child_setup(),  # noqa: PLW1509 (two system calls, no lock)
            env=os.environ | environment,
        )


async def _until_ready(found: Program, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if (await found.ask("status"))["applied"]:
                return
        except SpeakerError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"felix is not ready; exit code {process.poll()}")


def chosen() -> list[Scenario]:
    """Every fifth scenario, and those with settings, which are taken over while packets flow."""
    return [one for number, one in enumerate(scenarios()) if number % 5 == 0 or one.felix]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_whole_program_does_what_the_tables_say(tmp_path: Path, renderer: str) -> None:
    async def run() -> list[str]:
        wrong: list[str] = []
        async with program(tmp_path, renderer) as felix:
            for scenario in chosen():
                felix.bed.translate(scenario.probes)
                await felix.go_to(with_configuration(scenario))
                wrong += await felix.until_right(scenario)
            status = await felix.ask("status")
        assert status["failures"] == []
        assert status["problems"] == {}
        return wrong

    wrong = asyncio.run(run())
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_running_felix_says_why_and_counts_what_it_met(tmp_path: Path, renderer: str) -> None:
    scenario = next(one for one in scenarios() if one.name.startswith("an earlier tier denies"))

    async def run() -> tuple[dict[Probe, str], dict[str, Any], set[tuple[Any, ...]]]:
        # Nothing but the whole scenario is ever in force: what is counted and told is of no state on the way there.
        async with program(tmp_path, renderer, with_configuration(scenario)) as felix:
            assert await felix.until_right(scenario) == []
            said = {}
            for probe in scenario.probes:
                view = await felix.ask(
                    "policy", "explain", **{"from": probe.source_address, "to": f"default/{probe.destination}", "port": probe.port}
                )  # fmt: skip
                said[probe] = view["verdict"]
            await felix.until_told(2, port=81)
            return said, await felix.ask("policy", "stats"), felix.denials(81)

    said, stats, told = asyncio.run(run())
    assert said == {probe: probe.expected for probe in scenario.probes}
    counted = {one["name"]: [rule["packets"] for rule in one["ingress"]] for one in stats["policies"]}
    denied, passed = counted["security.block"]
    assert denied >= 2  # a -> b twice
    assert passed >= 3
    assert counted["web"][0] >= 2
    assert told == {("default/a", "default/b", "security", 0), ("other/c", "default/b", "default", "end of tier")}
