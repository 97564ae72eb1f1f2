"""`catbird felix` from its start to its end, as an operator meets it."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from felix.figures import HELP
from integration.resources.keys import Key
from tests.felix.system.node import (
    FelixNode,
    endpoint_key,
    felix_configuration,
    felix_node,
    local_store,
    policy,
    put,
    until,
)
from tests.felix.system.traffic import Echo, Stream, connects
from tests.felix.truth.world import PARTIES, WORKLOADS, endpoint_of

pytestmark = pytest.mark.root

ALLOW_A = policy(
    "web", "app == 'b'", ingress=[{"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'a'"}, "destination": {"ports": [80]}}],
)  # fmt: skip


def get(node: FelixNode, url: str) -> tuple[int, str]:
    """Status and text of an HTTP port of Felix; 0 if nobody listens."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    return node.host.run(ask)


async def connects_soon(node: FelixNode, source: str, destination: str, *, is_expected: bool) -> None:
    async with asyncio.timeout(10):
        while await connects(node, source, destination, 80) is not is_expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_felix_starts_lets_pass_what_policy_allows_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = {"HealthEnabled": "true", "PrometheusMetricsEnabled": "true"}
        async with local_store(tmp_path) as store, felix_node(tmp_path, **ports) as node:
            await put(store, ALLOW_A)
            echo = Echo(node, PARTIES["b"], 80)
            assert not await connects(node, "a", "b", 80)
            node.start()
            await node.ready()
            assert await connects(node, "a", "b", 80)
            assert not await connects(node, "c", "b", 80)
            assert {route["dst"] for route in node.routes() if route.get("dev") == "calia"} >= {
                PARTIES["a"].ipv4, PARTIES["a"].ipv6,
            }  # fmt: skip
            assert node.setting("ipv4/conf/calia/proxy_arp") == "1"
            assert node.setting("ipv4/ip_forward") == "1"
            await files_are(node, {party.name for party in WORKLOADS})
            assert get(node, "http://localhost:9099/readiness")[0] == 200
            assert get(node, "http://localhost:9099/liveness")[0] == 200
            metrics = get(node, "http://localhost:9091/metrics")[1]
            assert "felix_active_local_endpoints 4" in metrics
            told = {line.split()[2] for line in metrics.splitlines() if line.startswith("# TYPE felix_")}
            assert told | {"felix_denied_packets"} == set(HELP)
            assert 'felix_iptables_chains{ip_version="4",table="filter"} ' in metrics
            assert "felix_route_table_num_routes 8" in metrics
            assert "felix_resync_state 3" in metrics
            await it_explains_and_counts(node)
            metrics = get(node, "http://localhost:9091/metrics")[1]
            assert "# TYPE felix_denied_packets counter" in metrics
            assert re.search(
                r'^felix_denied_packets\{direction="ingress",policy="none",tier="default"\} [1-9]',
                metrics,
                re.MULTILINE,
            ), metrics
            echo.close()

    asyncio.run(scenario())


async def it_explains_and_counts(node: FelixNode) -> None:
    asked = {"from": "other/c", "to": "default/b", "protocol": "tcp", "port": 80}
    assert node.ask.post("policy", "explain", arguments=asked)["verdict"] == "deny"
    assert node.ask.post("policy", "explain", arguments=asked | {"from": "default/a"})["verdict"] == "allow"
    met: dict[str, Any] = node.ask.get("policy", "stats")
    assert [one["packets"] for one in met["policies"] if one["name"] == "web"] == [1]
    await until(lambda: node.events("denied"), "a denial in the log")
    denied = node.events("denied")[0]
    assert (denied["source"], denied["destination"], denied["destination_port"]) == (
        PARTIES["c"].ipv4, PARTIES["b"].ipv4, 80,
    )  # fmt: skip


async def files_are(node: FelixNode, pods: set[str]) -> None:
    folder = node.folder / "endpoint-status"

    def written() -> set[str]:
        """One that is being written is called otherwise."""
        return {one.name.split("%2F")[1].split()[0] for one in folder.iterdir() if "%2F" in one.name}

    await until(lambda: written() == pods, f"files of {pods}")


def test_policies_and_endpoints_follow_the_datastore(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path) as node:
            echo = Echo(node, PARTIES["b"], 80)
            node.start()
            await node.ready()
            assert await connects(node, "c", "b", 80)
            await put(store, ALLOW_A)
            await connects_soon(node, "c", "b", is_expected=False)
            assert await connects(node, "a", "b", 80)
            await store.delete(Key("GlobalNetworkPolicy", "web"))
            await connects_soon(node, "c", "b", is_expected=True)

            await store.delete(endpoint_key(PARTIES["c"]))
            await connects_soon(node, "c", "b", is_expected=False)
            await until(lambda: PARTIES["c"].ipv4 not in {route["dst"] for route in node.routes()}, "its route goes")
            await files_are(node, {"a", "b", "d"})
            await put(store, endpoint_of(PARTIES["c"]))
            await connects_soon(node, "c", "b", is_expected=True)
            await files_are(node, {"a", "b", "c", "d"})

            # Its interface goes and comes, with another index.
            node.remove_pod(PARTIES["c"])
            await files_are(node, {"a", "b", "d"})
            node.add_pod(PARTIES["c"])
            await connects_soon(node, "c", "b", is_expected=True)
            await files_are(node, {"a", "b", "c", "d"})
            echo.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("parameters", [{}, {"NFTablesMode": "Disabled"}], ids=["nftables", "iptables"])
def test_a_workload_that_goes_sends_nothing_more_even_on_known_connections(
    tmp_path: Path, parameters: dict[str, str]
) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path, **parameters) as node:
            echo = Echo(node, PARTIES["b"], 80)
            node.start()
            await node.ready()
            stream = Stream(node, "a", "b", 80)
            task = asyncio.create_task(stream.run())
            await until(lambda: stream.received > 10, "the stream runs")
            await store.delete(endpoint_key(PARTIES["a"]))
            await until(lambda: stream.sent - stream.received > 20, "its packets are no longer answered")
            stalled_at = stream.received
            await until(lambda: stream.sent - stalled_at > 60, "it goes on sending")
            assert stream.received == stalled_at
            await put(store, endpoint_of(PARTIES["a"]))
            await connects_soon(node, "a", "b", is_expected=True)
            task.cancel()
            echo.close()

    asyncio.run(scenario())


def test_the_configuration_changes_live_or_asks_for_a_new_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path) as node:
            node.host.command("ip", "addr", "add", "192.0.2.9/32", "dev", "lo")
            node.start()
            await node.ready()
            assert get(node, "http://localhost:9091/metrics")[0] == 0
            await put(store, felix_configuration(prometheusMetricsEnabled=True, deviceRouteSourceAddress="192.0.2.9"))
            await until(lambda: get(node, "http://localhost:9091/metrics")[0] == 200, "the port opens")
            sources = [(party.ipv4, "192.0.2.9") for party in WORKLOADS]
            await until(
                lambda: [(one["dst"], one.get("prefsrc")) for one in node.routes() if ":" not in one["dst"]] == sources,
                "routes get their source address",
            )
            before = node.rules()
            await put(store, felix_configuration(interfacePrefix="cali,tap"))
            assert await node.ended() == 129
            assert node.events("felix_restarts")[0]["because"] == ["interface_prefixes"]
            assert node.rules() == before
            node.start()
            await node.ready()
            assert "tap*" in node.rules()

    asyncio.run(scenario())


def test_what_is_in_the_kernel_stays_when_felix_ends_and_is_adopted_by_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path) as node:
            await put(store, ALLOW_A)
            echo = Echo(node, PARTIES["b"], 80)
            node.start()
            await node.ready()
            rules, routes = node.rules(), node.routes()
            stream = Stream(node, "a", "b", 80)
            running = asyncio.create_task(stream.run())
            assert node.stop() == 0
            assert not node.control.exists()
            assert (node.rules(), node.routes()) == (rules, routes)
            assert await connects(node, "a", "b", 80)
            assert not await connects(node, "c", "b", 80)
            # Meanwhile the datastore changes: d may as well, and a pod is gone.
            await put(store, {**ALLOW_A, "spec": {**ALLOW_A["spec"], "selector": "app in {'b', 'd'}"}})
            await store.delete(endpoint_key(PARTIES["c"]))
            node.start()
            await node.ready()
            assert await connects(node, "a", "b", 80)
            assert '"calic"' not in node.rules()  # its route stays for ten seconds: a CNI plugin may just have made it
            received = stream.received
            await until(lambda: stream.received > received + 10, "the stream flows")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert stream.broke is None
            echo.close()

    asyncio.run(scenario())


def test_a_datastore_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with felix_node(tmp_path, url="nothing:at-all") as node:
            node.start()
            assert await node.ended() == 1
            lines = node.log_file.read_text().splitlines()
            assert len(lines) == 1
            assert "nothing" in lines[0]
            assert node.rules() == ""

    asyncio.run(scenario())


def test_a_change_of_the_renderer_leaves_nothing_of_the_former(tmp_path: Path) -> None:
    """The flow that is allowed goes on, what is denied stays so, and only one packet filter decides in the end."""

    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path) as node:
            await put(store, ALLOW_A)
            echo = Echo(node, PARTIES["b"], 80)
            node.start(NFTABLESMODE="Disabled")
            await node.ready()
            stream = Stream(node, "a", "b", 80)
            running = asyncio.create_task(stream.run())
            for mode, ours, theirs in (
                ("Enabled", has_nftables, has_iptables),
                ("Disabled", has_iptables, has_nftables),
            ):
                assert node.stop() == 0
                node.start(NFTABLESMODE=mode)
                await node.ready()
                await until(partial(is_rid_of, theirs, node), f"the former renderer's rules are gone, mode {mode}")
                assert ours(node)
                assert await connects(node, "a", "b", 80)
                assert not await connects(node, "c", "b", 80)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert stream.broke is None
            echo.close()

    asyncio.run(scenario())


def is_rid_of(has: Callable[[FelixNode], bool], node: FelixNode) -> bool:
    return not has(node)


def has_nftables(node: FelixNode) -> bool:
    return "table ip calico" in node.host.command("nft", "list", "tables")


def has_iptables(node: FelixNode) -> bool:
    return "cali-" in node.host.command("iptables-nft-save") or "cali40" in node.host.command("ipset", "list", "-name")
