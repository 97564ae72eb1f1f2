"""What a node writes before its speaker runs, in a real store; the machine's interfaces are the test's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.client import ResourceClient
from integration.datastore.errors import Unavailable
from integration.datastore.local.driver import LocalDatastore
from integration.node.logs import EventLog
from integration.node.startup.autodetection import DetectionError, Interface, detect
from integration.node.startup.start_up import StartUp, StartUpError, node_name
from integration.resources.models.ipam import IPPool
from integration.resources.models.nodes import ClusterInformation, Node

KNOWN = (
    Interface(1, "lo", (ip_interface("127.0.0.1/8"), ip_interface("::1/128"))),
    Interface(2, "eth0", (ip_interface("10.0.0.5/24"), ip_interface("fd00::5/64"), ip_interface("fe80::1/64"))),
    Interface(3, "eth1", (ip_interface("192.168.7.5/20"),)),
    Interface(4, "docker0", (ip_interface("172.17.0.1/16"),)),
    Interface(5, "cali123", (ip_interface("169.254.1.1/32"),)),
)


@pytest.mark.parametrize(
    ("method", "version", "found"),
    [
        ("", 4, "192.168.7.5/20"),  # the last interface comes first, as in Calico
        ("first-found", 6, "fd00::5/64"),
        ("interface=eth0", 4, "10.0.0.5/24"),
        ("interface=eth.*,lo", 4, "192.168.7.5/20"),
        ("interface=docker", 4, "172.17.0.1/16"),  # asked for by name, nothing is excluded
        ("interface=ens", 4, None),
        ("skip-interface=eth1", 4, "10.0.0.5/24"),
        ("cidr=10.0.0.0/8", 4, "10.0.0.5/24"),
        ("cidr=172.16.0.0/12,fd00::/8", 6, "fd00::5/64"),
        ("cidr=203.0.113.0/24", 4, None),
        ("kubernetes-internal-ip", 4, "10.0.0.5/24"),
    ],
)
def test_methods_find_what_calicos_find(method: str, version: int, found: str | None) -> None:
    made = detect(method, version, KNOWN, [ip_address("10.0.0.5")])
    assert (None if made is None else str(made)) == found


@pytest.mark.parametrize(
    "method", ["eth0", "interface=", "interface=(", "cidr=no", "cidr=", "can-reach=", "first-found=x"]
)
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(DetectionError, match=re.escape(repr(method))):
        detect(method, 4, KNOWN)


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, line: str) -> None:
        self.text += line


Play = Callable[..., Any]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def play(tmp_path: Path, lines: Lines) -> Play:
    """Start a node with this environment; then ask the store."""

    def main(
        environment: Mapping[str, str],
        *,
        name: str = "n1",
        known: Sequence[Interface] = KNOWN,
        before: Sequence[Any] = (),
    ) -> dict[str, Any]:
        async def body() -> dict[str, Any]:
            store = LocalDatastore(tmp_path / "store.db")
            client = ResourceClient(store)
            try:
                for resource in before:
                    await client.apply(resource)
                log = EventLog(lines.write, log_format="json", level="info", colors=False)
                await StartUp(client, name, environment, log, known=lambda: known).run()
                return {
                    "node": await client.get(Node, name),
                    "pools": {pool.metadata.name: pool.spec for pool in await client.list(IPPool)},
                    "cluster": await client.get(ClusterInformation, "default"),
                }
            finally:
                await store.close()

        return asyncio.run(body())

    return main


def test_a_first_node_makes_a_cluster(play: Play) -> None:
    made = play({"CLUSTER_TYPE": "k8s,bgp", "AS": "1.10", "CALICO_K8S_NODE_REF": "node-1.example"})
    bgp = made["node"].spec.bgp
    assert (bgp.ipv4_address, bgp.ipv6_address, bgp.as_number) == ("192.168.7.5/20", "", 65546)
    assert [(one.node_name, one.orchestrator) for one in made["node"].spec.orch_refs] == [("node-1.example", "k8s")]
    # 192.168.0.0/16 holds an address of this machine, 172.17.0.0/16 too.
    assert {name: pool.cidr for name, pool in made["pools"].items()} == {"default-ipv4-ippool": "172.16.0.0/16"}
    spec = made["cluster"].spec
    assert re.fullmatch("[0-9a-f]{32}", spec.cluster_guid)
    assert (spec.cluster_type, spec.datastore_ready) == ("k8s,bgp", True)


def test_starting_again_changes_nothing(play: Play) -> None:
    first = play({"IP": "autodetect"})
    again = play({"IP": "autodetect"})
    assert again["node"] == first["node"]
    assert again["cluster"] == first["cluster"]
    assert again["pools"] == first["pools"]


def test_a_stored_address_stays_unless_asked_to_detect(play: Play) -> None:
    held = Node.from_json(
        {"metadata": {"name": "n1"}, "spec": {"bgp": {"ipv4Address": "10.9.9.9/24", "asNumber": 65009}}}
    )
    assert play({}, before=[held])["node"].spec.bgp.ipv4_address == "10.9.9.9/24"
    made = play({"IP": "autodetect"})["node"].spec.bgp
    assert (made.ipv4_address, made.as_number) == ("192.168.7.5/20", 65009)
    # What cannot be found any more is kept.
    assert play({"IP": "autodetect"}, known=KNOWN[:1])["node"].spec.bgp.ipv4_address == "192.168.7.5/20"


@pytest.mark.parametrize(
    ("environment", "ipv4", "ipv6"),
    [
        ({"IP": "10.0.0.5"}, "10.0.0.5/24", ""),  # with the length of the interface that has it
        ({"IP": "10.0.0.77"}, "10.0.0.77", ""),
        ({"IP": "10.0.0.77/22"}, "10.0.0.77/22", ""),
        ({"IP": "none", "IP6": "autodetect"}, "", "fd00::5/64"),
        ({"IP6": "fd00::9/64", "IP_AUTODETECTION_METHOD": "cidr=10.0.0.0/8"}, "10.0.0.5/24", "fd00::9/64"),
    ],
)
def test_addresses_as_they_are_given(play: Play, environment: dict[str, str], ipv4: str, ipv6: str) -> None:
    bgp = play(environment)["node"].spec.bgp
    assert (bgp.ipv4_address, bgp.ipv6_address) == (ipv4, ipv6)


def test_pools_as_they_are_wished(play: Play) -> None:
    pools = play(
        {
            "IP6": "autodetect",
            "CALICO_IPV4POOL_CIDR": "10.244.0.0/16",
            "CALICO_IPV4POOL_IPIP": "CrossSubnet",
            "CALICO_IPV4POOL_BLOCK_SIZE": "27",
            "CALICO_IPV4POOL_NODE_SELECTOR": "has(rack)",
            "CALICO_IPV4POOL_NAT_OUTGOING": "false",
            "CALICO_IPV4POOL_DISABLE_BGP_EXPORT": "true",
        }
    )["pools"]
    pool = pools["default-ipv4-ippool"]
    assert (pool.cidr, pool.ipip_mode, pool.block_size, pool.node_selector) == (
        "10.244.0.0/16",
        "CrossSubnet",
        27,
        "has(rack)",
    )
    assert (pool.nat_outgoing, pool.disable_bgp_export) == (False, True)
    assert re.fullmatch(r"fd[0-9a-f:]+::/48", pools["default-ipv6-ippool"].cidr)


@pytest.mark.parametrize("environment", [{"NO_DEFAULT_POOLS": "true"}, {"CALICO_IPV4POOL_CIDR": "none"}])
def test_no_pools_where_none_are_wished(play: Play, environment: dict[str, str]) -> None:
    assert play(environment)["pools"] == {}


def test_a_pool_that_is_there_is_enough(play: Play) -> None:
    mine = IPPool.from_json({"metadata": {"name": "mine"}, "spec": {"cidr": "10.1.0.0/16"}})
    assert set(play({}, before=[mine])["pools"]) == {"mine"}


OTHER = Node.from_json({"metadata": {"name": "n2"}, "spec": {"bgp": {"ipv4Address": "192.168.7.5/24"}}})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"IP": "nonsense"}, "IP: 'nonsense'"),
        ({"IP": "fd00::1"}, "not of IPv4"),
        ({"IP": "none"}, "has no address"),
        ({"IP_AUTODETECTION_METHOD": "interface=ens"}, "IP_AUTODETECTION_METHOD=interface=ens finds no IPv4 address"),
        ({"IP_AUTODETECTION_METHOD": "best"}, "is no autodetection method; one of first-found"),
        ({"AS": "0"}, "AS is '0'"),
        ({"AS": "1.70000"}, "AS is '1.70000'"),
        ({"CALICO_IPV4POOL_CIDR": "10.0.0.0/40"}, "spec.cidr"),
        ({"CALICO_IPV4POOL_BLOCK_SIZE": "big"}, "CALICO_IPV4POOL_BLOCK_SIZE is 'big'"),
        ({"CALICO_IPV4POOL_NAT_OUTGOING": "maybe"}, "CALICO_IPV4POOL_NAT_OUTGOING is 'maybe'"),
    ],
)
def test_what_cannot_be_meant_names_the_variable(play: Play, environment: dict[str, str], words: str) -> None:
    with pytest.raises(StartUpError, match=re.escape(words)):
        play(environment)


def test_an_address_of_another_node_stops_us_unless_told_otherwise(play: Play) -> None:
    with pytest.raises(StartUpError, match="node n2 too"):
        play({}, before=[OTHER])
    assert play({"DISABLE_NODE_IP_CHECK": "true"})["node"].spec.bgp.ipv4_address == "192.168.7.5/20"


def test_a_datastore_that_is_away_is_waited_for(tmp_path: Path, lines: Lines) -> None:
    class Away(LocalDatastore):
        left = 3

        async def list(self, kind: str, **options: Any) -> Any:
            self.left -= 1
            if self.left > 0:
                raise Unavailable("no route to host")
            return await super().list(kind, **options)

    async def body() -> Node:
        store = Away(tmp_path / "store.db")
        client = ResourceClient(store)
        try:
            log = EventLog(lines.write, log_format="json", level="info", colors=False)
            await StartUp(client, "n1", {}, log, known=lambda: KNOWN).run()
            return await client.get(Node, "n1")
        finally:
            await store.close()

    assert asyncio.run(body()).spec.bgp is not None
    assert lines.text.count("datastore_waited_for") == 1


@pytest.mark.parametrize(
    ("environment", "written", "wanted"),
    [
        ({"NODENAME": "Given"}, "stored", "Given"),
        ({}, "stored\n", "stored"),
        ({"HOSTNAME": "Host-1"}, "", "host-1"),
    ],
)
def test_the_nodes_name(tmp_path: Path, environment: dict[str, str], written: str, wanted: str) -> None:
    file = tmp_path / "nodename"
    if written:
        file.write_text(written)
    assert node_name(environment, file) == wanted
