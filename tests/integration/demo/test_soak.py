"""The demo's world for a long time, with something happening to it all the time: `./dev test soak`."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.demo.checks import ROUTES_TIMEOUT_S, everybody_reaches_everybody, sessions_established
from integration.demo.namespaces import Run
from integration.demo.plan import make_plan
from integration.demo.probe import Prober
from integration.demo.routers import wait_until
from integration.demo.world import World

pytestmark = [pytest.mark.root, pytest.mark.slow]

DURATION_S = float(os.environ.get("CATBIRD_SOAK_S", "600"))
SEED = int(os.environ.get("CATBIRD_SOAK_SEED", "1"))
SETTLED_S = 90  # a session that fails again and again is damped, for up to a minute
MAX_GROWTH_OCTETS = 8 << 20  # of a speaker that was never restarted, whatever happened around it


@pytest.fixture
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="catbird-demo-"))
    folder.chmod(0o755)
    run = Run(folder)
    try:
        with Prober() as prober:
            made = World(make_plan(nodes=4), run, prober)
            made.build()
            made.start()
            yield made
    finally:
        run.close()


def test_whatever_happens_the_kernels_come_right_and_memory_stays(world: World) -> None:
    chance = random.Random(SEED)
    witness = world.daemons["node4"].processes[0]
    settle(world, "start")
    at_start = 0
    happened = 0
    end = time.monotonic() + DURATION_S
    while time.monotonic() < end:
        what = chance.choice([churn, kill_and_restart, stop_and_restart, pull_the_cable])
        settle(world, what(world, chance))
        happened += 1
        if happened == 10:  # allocators and caches have found their size by now
            at_start = memory_octets(witness.pid)
    assert witness.poll() is None
    print(f"{happened} events in {DURATION_S:.0f} s, seed {SEED}")
    assert happened > 10
    assert memory_octets(witness.pid) - at_start < MAX_GROWTH_OCTETS


def memory_octets(pid: int) -> int:
    """Resident set."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settle(world: World, after: str) -> None:
    sessions_established(world, SETTLED_S)
    kernels_right: Callable[[], bool] = lambda: all(state.is_right for state in world.kernels().values())  # noqa: E731
    assert wait_until(kernels_right, ROUTES_TIMEOUT_S), (
        f"after {after} (seed {SEED}): { {name: str(state) for name, state in world.kernels().items()} }"
    )
    everybody_reaches_everybody(world)


def churn(world: World, chance: random.Random) -> str:
    """Workloads go and others return."""
    candidates = [workload for node in world.plan.nodes for workload in node.workloads]
    chosen = chance.sample(candidates, 3)
    for workload in chosen:
        if workload in world.absent:
            world.put_back(workload)
        else:
            world.take_away(workload)
    return f"change of {', '.join(workload.name for workload in chosen)}"


def kill_and_restart(world: World, chance: random.Random) -> str:
    return _restart(world, chance, lambda name: world.daemons[name].kill(), "kill -9")


def stop_and_restart(world: World, chance: random.Random) -> str:
    def stop(name: str) -> None:
        assert world.daemons[name].stop() == [0]

    return _restart(world, chance, stop, "SIGTERM")


def _restart(world: World, chance: random.Random, end: Callable[[str], None], how: str) -> str:
    name = chance.choice(["node1", "node2", "tor"])
    end(name)
    time.sleep(chance.random() * 3)
    world.daemons[name].start()
    return f"{how} of {name}"


def pull_the_cable(world: World, chance: random.Random) -> str:
    """Long enough for the hold timer or not, as chance has it."""
    name = chance.choice(["node1", "node2", "node3"])
    fabric = world.run.namespaces["fabric"]
    fabric.run(lambda: _set_link(name, "down"))
    time.sleep(chance.choice([0.2, 2, 12]))
    fabric.run(lambda: _set_link(name, "up"))
    return f"cable of {name}"


def _set_link(interface: str, state: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=interface)[0], state=state)
