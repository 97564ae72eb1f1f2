"""What others do to routes and interfaces while `catbird felix` runs, and what that costs it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from felix.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE
from felix.kernel.rtnetlink import AF_INET, RTN_UNICAST, Hop, RouteEncoder, Via
from felix.kernel.sockets import RequestSocket
from integration.datastore.api import Datastore
from integration.resources.keys import Key
from tests.felix.system.node import FelixNode, endpoint_key, felix_node, local_store, policy, put, until
from tests.felix.truth.world import WORKLOADS, resource

pytestmark = pytest.mark.root
POD = WORKLOADS[0]
BIRD, LOOPBACK = 12, Hop(ifindex=1)
Body = Callable[[FelixNode, Datastore], Coroutine[Any, Any, None]]


def play(folder: Path, body: Body, **parameters: str) -> None:
    async def run() -> None:
        async with local_store(folder) as store, felix_node(folder, **parameters) as node:
            node.start()
            await node.ready()
            await body(node, store)

    asyncio.run(run())


def route_to(node: FelixNode) -> str:
    return node.host.command("ip", "route", "show", POD.ipv4).strip()


def cpu_s(node: FelixNode) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_route_that_somebody_deletes_is_back_at_once(tmp_path: Path) -> None:
    async def body(node: FelixNode, store: Datastore) -> None:
        times = []
        for _ in range(20):
            node.host.command("ip", "route", "del", POD.ipv4)
            times.append(await until(lambda: route_to(node), "the route is back"))
        print(
            f"route back, looked at by a process each: best {min(times) * 1000:.0f} ms, worst {max(times) * 1000:.0f} ms"
        )
        assert min(times) < 0.5
        assert node.process is not None
        assert node.process.poll() is None

    play(tmp_path, body)


def replace_routes(count: int, rounds: int) -> None:
    """As a BGP speaker whose table changes: the same prefixes by one way, then by another."""
    kernel = RequestSocket()
    for number in range(rounds):
        via = Via(
            AF_INET, protocol=BIRD, type=RTN_UNICAST, prefsrc=bytes((127, 0, 0, 1 + number % 2)), hops=(LOOPBACK,)
        )
        encoder = RouteEncoder(via)
        for at in range(0, count, 1000):
            first = kernel.sequences(1000)
            prefixes = [b"\x20" + (0x14000000 + at + one).to_bytes(4, "big") for one in range(1000)]
            messages = [encoder.put(p, NLM_F_CREATE | NLM_F_REPLACE, first + n) for n, p in enumerate(prefixes)]
            assert kernel.write(messages, first) == {}
    kernel.close()


def test_routes_that_a_speaker_changes_cost_a_look_each_and_no_reading(tmp_path: Path) -> None:
    async def body(node: FelixNode, store: Datastore) -> None:
        changes = 10 * 10_000
        node.host.run(lambda: replace_routes(10_000, 1))
        before, began = cpu_s(node), time.monotonic()
        await asyncio.to_thread(node.host.run, lambda: replace_routes(10_000, 10))
        node.host.command("ip", "route", "del", POD.ipv4)  # what comes after them is seen when they are done
        await until(lambda: route_to(node), "the route is back")
        spent_s = cpu_s(node) - before
        print(f"{changes} routes replaced in {time.monotonic() - began:.1f} s cost Felix {spent_s:.2f} s of CPU")
        assert spent_s / changes < 50e-6
        assert {event["check"] for event in node.events("dataplane_repaired")} == {"altered routes"}

    play(tmp_path, body)


def delete_route(address: str, for_s: float) -> int:
    """As fast as the kernel takes it; how often there was one to delete."""
    kernel = RequestSocket()
    prefix = b"\x20" + socket.inet_aton(address)
    encoder = RouteEncoder(Via(AF_INET, protocol=3, metric=1024))
    until, deleted = time.monotonic() + for_s, 0
    while time.monotonic() < until:
        first = kernel.sequences(1)
        deleted += not kernel.write([encoder.delete(prefix, first)], first)
    kernel.close()
    return deleted


def test_who_deletes_a_route_again_and_again_gets_it_back_and_harms_nobody_else(tmp_path: Path) -> None:
    async def body(node: FelixNode, store: Datastore) -> None:
        before, for_s = cpu_s(node), 2.0
        fight = asyncio.create_task(asyncio.to_thread(node.host.run, lambda: delete_route(POD.ipv4, for_s)))
        other = WORKLOADS[1]
        await store.delete(endpoint_key(other))
        took_s = await until(
            lambda: not node.host.command("ip", "route", "show", other.ipv4), "the other's route is gone"
        )
        deleted, spent_s = await fight, cpu_s(node) - before
        print(
            f"deleted {deleted} times in {for_s} s: {spent_s:.2f} s of CPU; another's change took {took_s * 1000:.0f} ms"
        )
        assert deleted > 1
        assert spent_s < for_s / 2
        await until(lambda: route_to(node), "the route is back")

    play(tmp_path, body)


def test_a_workload_that_may_peer_with_its_node_finds_it_at_the_configured_address(tmp_path: Path) -> None:
    async def body(node: FelixNode, store: Datastore) -> None:
        spec = {"localWorkloadPeeringIPV4": "169.254.9.1", "localWorkloadPeeringIPV6": "fd00::9:1"}
        await put(store, resource("BGPConfiguration", "default", spec))
        await put(store, policy("out", "app == 'a'", types=["Egress"], egress=[{"action": "Allow"}]))
        await put(store, resource("BGPPeer", "tor", {"localWorkloadSelector": "app == 'a'", "asNumber": 64512}))

        def has_it() -> bool:
            return "169.254.9.1/32" in node.host.command("ip", "address", "show", "dev", POD.host_side)

        await until(has_it, "the address is there")
        assert "fd00::9:1/128" in node.host.command("ip", "address", "show", "dev", POD.host_side)
        assert "169.254.9.1" not in node.host.command("ip", "address", "show", "dev", WORKLOADS[1].host_side)
        node.pods[POD.name].command("ping", "-c1", "-W2", "169.254.9.1")
        await store.delete(Key("BGPPeer", "tor"))
        await until(lambda: not has_it(), "the address is gone")
        assert route_to(node)

    play(tmp_path, body, DefaultEndpointToHostAction="Accept")
