"""`catbird node` itself, in a network namespace of its own: a tunnel's address comes and goes with the pool."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.datastore.api import Value
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DoesNotExist
from integration.datastore.local.driver import LocalDatastore
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool

ROOT = Path(__file__).parents[3]
NODE = Key("Node", "n1")


async def spec_when(datastore: LocalDatastore, holds: Callable[[Value], bool]) -> Value:
    async with asyncio.timeout(20):
        while True:
            try:
                spec: Value = (await datastore.get(NODE)).value.get("spec") or {}
                if holds(spec):
                    return spec
            except DoesNotExist:
                pass
            await asyncio.sleep(0.05)


async def story(datastore: LocalDatastore) -> None:
    client = ResourceClient(datastore)

    async def pool(**modes: str) -> None:
        spec = {"cidr": "10.65.0.0/24", **modes}
        await client.apply(IPPool.from_json({"metadata": {"name": "p"}, "spec": spec}))

    await pool(vxlanMode="Always")
    spec = await spec_when(datastore, lambda spec: "ipv4VXLANTunnelAddr" in spec)
    assert spec["ipv4VXLANTunnelAddr"].startswith("10.65.0.")
    assert spec["bgp"]["ipv4Address"] == "192.0.2.1/24"
    await pool(ipipMode="Always")
    moved = await spec_when(datastore, lambda spec: "ipv4VXLANTunnelAddr" not in spec)
    assert moved["bgp"]["ipv4IPIPTunnelAddr"].startswith("10.65.0.")


@pytest.mark.root
def test_a_nodes_tunnel_address_follows_the_pool(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    command = [
        "unshare", "--net", sys.executable, "-m", "integration.catbird", "node", "--datastore", f"local:{store}",
        "--node", "n1", "--without", "felix", "--without", "cni", "--control", str(tmp_path / "ctl"),
    ]  # fmt: skip
    variables = {"IP": "192.0.2.1/24", "IP6": "none", "NO_DEFAULT_POOLS": "true", "PYTHONPATH": str(ROOT)}

    async def main() -> None:
        datastore = LocalDatastore(store)
        try:
            await story(datastore)
        finally:
            await datastore.close()

    with (tmp_path / "log").open("wb") as log:
        node = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, stdout=log, stderr=log)
        try:
            asyncio.run(main())
            node.send_signal(signal.SIGTERM)
            assert node.wait(20) == 0
        finally:
            node.kill()
            node.wait()
