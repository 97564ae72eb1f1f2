"""Every file the demo writes is one that its reader accepts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bgp.toml import load
from integration.demo.configs import bird_config, catbird_config, frr_config, sessions_of
from integration.demo.plan import make_plan


@pytest.mark.parametrize("reflectors", [0, 2])
def test_catbird_accepts_every_routers_file(reflectors: int, tmp_path: Path) -> None:
    plan = make_plan(nodes=4, reflectors=reflectors)
    for router in plan.routers:
        path = tmp_path / f"{router.name}.toml"
        path.write_text(catbird_config(plan, router, tmp_path))
        config = load(str(path))
        assert config.asn == router.asn
        sessions = {name: other for name, _, other in sessions_of(plan, router)}
        assert {peer.name for peer in config.peers} == set(sessions)
        clients = {peer.name for peer in config.peers if peer.client}
        assert clients == {name for name, other in sessions.items() if router.is_reflector and not other.is_reflector}
        assert (config.kernel is None) == router.is_reflector
        assert {entry.network for entry in config.originate} == (set(router.aggregates) if router.is_tor else set())


@pytest.mark.interop
def test_bird_accepts_every_routers_file(tmp_path: Path) -> None:
    plan = make_plan()
    for router in plan.routers:
        path = tmp_path / "bird.conf"
        path.write_text(bird_config(plan, router, tmp_path / "log"))
        done = subprocess.run(["/usr/sbin/bird", "-p", "-c", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.interop
def test_frr_accepts_every_routers_file(tmp_path: Path) -> None:
    plan = make_plan()
    tmp_path.chmod(0o755)
    for router in plan.routers:
        path = tmp_path / "bgpd.conf"
        path.write_text(frr_config(plan, router, tmp_path / "log"))
        done = subprocess.run(["/usr/bin/vtysh", "-C", "-f", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
