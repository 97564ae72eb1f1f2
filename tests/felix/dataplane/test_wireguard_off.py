"""WireGuard switched off; switched on it needs a kernel that has it: tests/guest/test_wireguard.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from felix.dataplane.wireguard import WireguardSettings, WireguardTunnel
from felix.desired import Route, RouteType, RouteUpdate, WireguardPeer, WireguardUpdate
from felix.kernel.tunnels import KernelDevices, Made
from tests.netns import network_namespace

pytestmark = pytest.mark.root


def test_switched_off_it_looks_at_the_kernel_once_and_when_its_key_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a route for each block and borrowed address, each would cost 2 ms."""
    looks: list[str] = []
    remove = KernelDevices.remove

    def noted(devices: KernelDevices, name: str, kind: str) -> Made:
        looks.append(name)
        return remove(devices, name, kind)

    monkeypatch.setattr(KernelDevices, "remove", noted)
    told: list[str] = []
    route = Route("10.65.1.0/26", RouteType(is_remote=True, is_workload=True), node="n2")
    with network_namespace() as host:

        def run() -> None:
            tunnel = WireguardTunnel(4, WireguardSettings("n1"), lambda _version, key: told.append(key), tmp_path)
            for message in (None, RouteUpdate(route), RouteUpdate(route)):
                if message is not None:
                    tunnel.on_message(message)
                assert asyncio.run(tunnel.apply(0.0)) == []
            assert looks == ["wireguard.cali"]
            tunnel.on_message(WireguardUpdate(WireguardPeer("n1", public_key="A" * 43 + "=")))
            assert asyncio.run(tunnel.apply(0.0)) == []
            assert told == [""]
            tunnel.close()

        host.call(run)
