"""What a start leaves behind in the datastore, in a real network namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.client import ResourceClient
from integration.datastore.errors import Unavailable
from integration.datastore.local.driver import LocalDatastore
from integration.node.startup import StartUpError, monitor_addresses, node_name, start_up
from integration.resources.keys import Key
from integration.version import VERSION
from tests.bgp.world import Told
from tests.integration.node.startup.world import World
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with network_namespace() as inside, network_namespace() as outside:
        wire(inside, "eth0", outside, "eth0")
        wire(inside, "cali1", outside, "cali1")
        inside.ip("address add 10.1.0.1/24 dev eth0")
        inside.ip("address add 2001:db8::1/64 dev eth0")
        yield inside


@pytest.fixture
def world(tmp_path: Path, namespace: Namespace) -> World:
    return World(tmp_path, namespace)


def test_a_first_start_makes_the_node_and_the_cluster(world: World) -> None:
    assert world.start(AS="65001", CLUSTER_TYPE="k8s,bgp") == "n1"
    assert world.bgp() == {"ipv4Address": "10.1.0.1/24", "asNumber": 65001}
    information = world.spec("ClusterInformation", "default")
    assert len(bytes.fromhex(information.pop("clusterGUID"))) == 16
    assert information == {"datastoreReady": True, "calicoVersion": f"v{VERSION}", "clusterType": "k8s,bgp"}
    v4, v6 = (world.spec("IPPool", f"default-ipv{version}-ippool") for version in (4, 6))
    assert v4 == {
        "cidr": "192.168.0.0/16", "vxlanMode": "Never", "ipipMode": "Never", "natOutgoing": True, "blockSize": 26,
        "nodeSelector": "all()", "disableBGPExport": False, "allowedUses": ["Workload", "Tunnel"],
        "assignmentMode": "Automatic",
    }  # fmt: skip
    assert v6["cidr"].startswith("fd")
    assert v6["cidr"].endswith("::/48")
    assert (v6["natOutgoing"], v6["blockSize"]) == (False, 122)
    assert world.spec("FelixConfiguration", "default") == {"reportingInterval": "0s", "logSeverityScreen": "Info"}
    # Nothing that would overrule what `default` comes to say.
    assert world.spec("FelixConfiguration", "node.n1") == {"defaultEndpointToHostAction": "Return"}
    assert world.names("BGPConfiguration") == ["default"]
    assert world.names("Tier") == ["default", "kube-admin", "kube-baseline"]
    assert world.name_file.read_text() == "n1"


def test_a_second_start_writes_nothing(world: World) -> None:
    world.start(IP="autodetect", IP6="autodetect")
    kinds = {
        "Node": "n1",
        "ClusterInformation": "default",
        "IPPool": "default-ipv6-ippool",
        "FelixConfiguration": "default",
    }
    before = {kind: world.value(kind, name) for kind, name in kinds.items()}
    world.log.events.clear()
    world.start(IP="autodetect", IP6="autodetect")
    assert {kind: world.value(kind, name) for kind, name in kinds.items()} == before
    assert [name for name, _ in world.log.events] == ["node_ready"]


def test_what_others_wrote_stays(world: World) -> None:
    world.put("Node", "n1", {"bgp": {"ipv4Address": "10.9.9.9/24", "asNumber": 7, "routeReflectorClusterID": "1.0.0.1"},
                             "fromTheFuture": 1}, labels={"rack": "a"})  # fmt: skip
    world.put("ClusterInformation", "default", {"clusterGUID": "ab" * 16, "calicoVersion": "v3.30.0",
              "datastoreReady": False, "clusterType": "k8s"})  # fmt: skip
    world.put("IPPool", "mine", {"cidr": "10.200.0.0/16"})
    world.put("IPPool", "broken", {"cidr": 5})
    world.put("Node", "broken", {"bgp": {"asNumber": "what?"}})
    world.put("FelixConfiguration", "default", {"logSeverityScreen": "Debug"})
    world.start(CLUSTER_TYPE="k8s,bgp")
    node = world.value("Node", "n1")
    assert node["spec"]["bgp"] == {"ipv4Address": "10.9.9.9/24", "asNumber": 7, "routeReflectorClusterID": "1.0.0.1"}
    assert node["spec"]["fromTheFuture"] == 1
    assert node["metadata"]["labels"] == {"rack": "a"}
    assert world.spec("ClusterInformation", "default") == {
        "clusterGUID": "ab" * 16, "calicoVersion": "v3.30.0", "datastoreReady": False, "clusterType": "k8s,bgp"
    }  # fmt: skip
    assert world.names("IPPool") == ["broken", "default-ipv6-ippool", "mine"]
    assert world.spec("FelixConfiguration", "default") == {"logSeverityScreen": "Debug", "reportingInterval": "0s"}
    # An address that is not here is kept, and told.
    assert world.log.named("node_address_elsewhere")[0]["address"] == "10.9.9.9/24"


@pytest.mark.parametrize(
    ("variables", "stored", "expected"),
    [
        ({"IP": "10.1.0.1"}, {}, {"ipv4Address": "10.1.0.1/24"}),
        ({"IP": "10.1.0.1/28"}, {}, {"ipv4Address": "10.1.0.1/28"}),
        ({"IP": "192.0.2.7"}, {}, {"ipv4Address": "192.0.2.7/32"}),
        ({"IP": "autodetect"}, {"ipv4Address": "10.9.0.1/24"}, {"ipv4Address": "10.1.0.1/24"}),
        ({"IP": ""}, {"ipv4Address": "10.9.0.1/24"}, {"ipv4Address": "10.9.0.1/24"}),
        ({"IP": "none"}, {"ipv4Address": "10.9.0.1/24"}, {"ipv4Address": "10.9.0.1/24"}),
        ({"IP": "none", "IP6": "autodetect"}, {}, {"ipv6Address": "2001:db8::1/64"}),
        ({"IP6": "2001:db8::1"}, {}, {"ipv4Address": "10.1.0.1/24", "ipv6Address": "2001:db8::1/64"}),
        ({"AS": "1.1"}, {"asNumber": 5}, {"ipv4Address": "10.1.0.1/24", "asNumber": 65537}),
        # Interfaces come and go; a detection that fails keeps what there is.
        (
            {"IP": "autodetect", "IP_AUTODETECTION_METHOD": "interface=eth9"},
            {"ipv4Address": "10.1.0.1/24"},
            {"ipv4Address": "10.1.0.1/24"},
        ),
        ({"CALICO_NETWORKING_BACKEND": "none", "AS": "x", "IP": "x"}, {}, {}),
    ],
)
def test_the_nodes_address(
    world: World, variables: dict[str, str], stored: dict[str, Any], expected: dict[str, Any]
) -> None:
    if stored:
        world.put("Node", "n1", {"bgp": stored})
    world.start(**variables)
    assert world.bgp() == expected


def test_interfaces_are_listed_for_the_families_in_use(world: World) -> None:
    world.start(IP="autodetect")
    assert world.spec("Node", "n1")["interfaces"] == [{"name": "eth0", "addresses": ["10.1.0.1"]}]
    world.start(IP="autodetect", IP6="autodetect")
    (listed,) = world.spec("Node", "n1")["interfaces"]
    assert listed["addresses"][:2] == ["10.1.0.1", "2001:db8::1"]  # and the link-local one


def test_pools_as_the_variables_say(world: World) -> None:
    world.start(
        CALICO_IPV4POOL_CIDR="10.244.0.0/16", CALICO_IPV4POOL_BLOCK_SIZE="24", CALICO_IPV4POOL_IPIP="cross-subnet",
        CALICO_IPV4POOL_NAT_OUTGOING="false", CALICO_IPV4POOL_NODE_SELECTOR="rack == 'a'",
        CALICO_IPV4POOL_DISABLE_BGP_EXPORT="true", CALICO_IPV6POOL_CIDR="fd00:1::/64", CALICO_IPV6POOL_VXLAN="Always",
        CALICO_IPV6POOL_NAT_OUTGOING="true", CALICO_IPV6POOL_BLOCK_SIZE="120",
    )  # fmt: skip
    v4, v6 = (world.spec("IPPool", f"default-ipv{version}-ippool") for version in (4, 6))
    told = ("cidr", "blockSize", "ipipMode", "vxlanMode", "natOutgoing", "nodeSelector", "disableBGPExport")
    assert [v4[name] for name in told] == ["10.244.0.0/16", 24, "CrossSubnet", "Never", False, "rack == 'a'", True]
    assert [v6[name] for name in told] == ["fd00:1::/64", 120, "Never", "Always", True, "all()", False]


def test_no_pools_where_none_are_wanted(world: World) -> None:
    world.start(NO_DEFAULT_POOLS="true")
    assert world.names("IPPool") == []
    world.start(CALICO_IPV4POOL_CIDR="none", FELIX_IPV6SUPPORT="false")
    assert world.names("IPPool") == []


def test_the_default_pool_holds_no_address_of_the_node(tmp_path: Path) -> None:
    with network_namespace() as namespace:
        wire(namespace, "eth0", namespace, "far")
        namespace.ip("address add 192.168.3.1/24 dev eth0")
        namespace.ip("address add 172.16.0.1/24 dev eth0")
        world = World(tmp_path, namespace)
        world.start()
        assert world.spec("IPPool", "default-ipv4-ippool")["cidr"] == "172.17.0.0/16"


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "variable", "words"),
    [
        ({"NODENAME": "under_score"}, "NODENAME", "'under_score' cannot be the name of a node; set NODENAME to"),
        ({"IP": "10.0.0"}, "IP", "'10.0.0' is not an IP address; give an IPv4 address"),
        ({"IP6": "10.0.0.1"}, "IP6", "is not an IPv6 address"),
        ({"IP": "none"}, "IP", "neither an IPv4 nor an IPv6 address; set IP or IP6"),
        ({"IP_AUTODETECTION_METHOD": "interface=eth9"}, "IP_AUTODETECTION_METHOD", "(interfaces here: lo, "),
        ({"IP6": "autodetect", "IP6_AUTODETECTION_METHOD": "cidr=2001:db8:9::/48"}, "IP6_AUTODETECTION_METHOD",
         "finds nothing: no interface in these networks has a global IPv6 address"),
        ({"AS": "many"}, "AS", "'many' is not an AS number"),
        ({"AS": "0"}, "AS", "RFC 7607"),
        ({"NO_DEFAULT_POOLS": "true", "CALICO_IPV4POOL_CIDR": "10.0.0.0/16"}, "NO_DEFAULT_POOLS",
         "unset NO_DEFAULT_POOLS or CALICO_IPV4POOL_CIDR"),
        ({"CALICO_IPV4POOL_CIDR": "10.0.0.0"}, "CALICO_IPV4POOL_CIDR", "has no prefix length; give an IPv4 CIDR"),
        ({"CALICO_IPV6POOL_CIDR": "10.0.0.0/16"}, "CALICO_IPV6POOL_CIDR", "is not an IPv6 address"),
        ({"CALICO_IPV4POOL_CIDR": "10.0.0.0/28"}, "CALICO_IPV4POOL_CIDR", "smaller than a block (/26)"),
        ({"CALICO_IPV4POOL_BLOCK_SIZE": "33"}, "CALICO_IPV4POOL_BLOCK_SIZE", "give 20 to 32"),
        ({"CALICO_IPV6POOL_BLOCK_SIZE": "64"}, "CALICO_IPV6POOL_BLOCK_SIZE", "give 116 to 128"),
        ({"CALICO_IPV4POOL_NODE_SELECTOR": "rack =="}, "CALICO_IPV4POOL_NODE_SELECTOR", "write a selector such as"),
        ({"CALICO_IPV4POOL_IPIP": "sometimes"}, "CALICO_IPV4POOL_IPIP", "set Never, Always or CrossSubnet"),
        ({"CALICO_IPV6POOL_VXLAN": "on"}, "CALICO_IPV6POOL_VXLAN", "set Never, Always or CrossSubnet"),
        ({"CALICO_IPV4POOL_IPIP": "Always", "CALICO_IPV4POOL_VXLAN": "Always"}, "CALICO_IPV4POOL_IPIP",
         "set one of the two to Never"),
        ({"CALICO_IPV4POOL_NAT_OUTGOING": "off"}, "CALICO_IPV4POOL_NAT_OUTGOING", "neither true nor false"),
        ({"DISABLE_NODE_IP_CHECK": "maybe"}, "DISABLE_NODE_IP_CHECK", "set DISABLE_NODE_IP_CHECK=true or"),
        ({"AUTODETECT_POLL_INTERVAL": "soon"}, "AUTODETECT_POLL_INTERVAL", "is not a duration; give a duration"),
        ({"KUBECONFIG": "/nonexistent/kubeconfig"}, "DATASTORE_TYPE", "the access to Kubernetes is not usable"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_names_the_variable_and_the_fix(
    world: World, variables: dict[str, str], variable: str, words: str
) -> None:
    with pytest.raises(StartUpError) as refused:
        world.start(**variables)
    assert refused.value.variable == variable
    assert str(refused.value).startswith(f"{variable}: ")
    assert words in str(refused.value)
    assert not world.name_file.exists()


def test_a_name_file_that_cannot_be_written_or_read_names_its_variable(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartUpError, match=r"^CALICO_NODENAME_FILE: .* cannot be written: File exists; .* set"):
        world.start(CALICO_NODENAME_FILE=str(tmp_path / "file" / "nodename"), NODENAME="n1")
    with pytest.raises(StartUpError, match=r"^CALICO_NODENAME_FILE: .* cannot be read: .*; .* set NODENAME"):
        world.start(CALICO_NODENAME_FILE=str(tmp_path), NODENAME="")


def test_the_name_is_taken_from_the_first_that_says_one(world: World) -> None:
    assert world.start(NODENAME="Node-A.Example", HOSTNAME="other") == "node-a.example"
    assert world.start(NODENAME="", HOSTNAME="other") == "node-a.example"  # remembered
    world.name_file.unlink()
    assert world.start(NODENAME="", HOSTNAME="Other", DISABLE_NODE_IP_CHECK="true") == "other"
    assert world.name_file.read_text() == "other"


def test_without_calicos_folder_no_name_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_name, "DEFAULT_NAME_FILE", str(world.name_file.parent / "lib" / "nodename"))
    world.start(CALICO_NODENAME_FILE="")
    assert world.log.named("node_name_not_written")
    (world.name_file.parent / "lib").mkdir()
    world.start(CALICO_NODENAME_FILE="")
    assert (world.name_file.parent / "lib" / "nodename").read_text() == "n1"


def test_an_address_of_another_node_is_refused(world: World) -> None:
    world.put("Node", "n2", {"bgp": {"ipv4Address": "10.1.0.1/16"}})
    with pytest.raises(StartUpError) as refused:
        world.start()
    assert str(refused.value) == (
        "IP: 10.1.0.1 of node n1 is also the address of node n2; give one of them another address, "
        "delete the Node n2 if it is gone, or set DISABLE_NODE_IP_CHECK=true"
    )
    assert world.names("Node") == ["n2"]
    world.start(DISABLE_NODE_IP_CHECK="true")
    assert world.bgp()["ipv4Address"] == "10.1.0.1/24"


def test_a_detected_address_that_another_node_has_leaves_ours_without_one(world: World) -> None:
    world.put("Node", "n1", {"bgp": {"ipv4Address": "10.9.0.1/24"}})
    world.put("Node", "n2", {"bgp": {"ipv4Address": "10.1.0.1/24"}})
    with pytest.raises(StartUpError, match="also the address of node n2"):
        world.start(IP="autodetect")
    assert world.bgp() == {}
    assert world.log.named("node_address_changed")[0]["now"] == "10.1.0.1"


# --- the datastore's absence ------------------------------------------------------------------------------------------


class Flaky(LocalDatastore):
    """Away for its first `absences` requests."""

    absences = 0

    def come_back_later(self) -> None:
        if self.absences > 0:
            self.absences -= 1
            raise Unavailable("nobody listens there")

    async def check(self) -> None:
        self.come_back_later()
        await super().check()

    async def list(self, *args: Any, **named: Any) -> Any:
        self.come_back_later()
        return await super().list(*args, **named)


def start_flaky(world: World, absences: int, **variables: str) -> str:
    async def main() -> str:
        datastore = Flaky(world.store)
        datastore.absences = absences
        try:
            return await start_up(ResourceClient(datastore), world.environment(**variables), world.log, patience_s=0.2)
        finally:
            await datastore.close()

    assert world.namespace
    return world.namespace.call(lambda: asyncio.run(main()))


def test_a_datastore_that_is_away_is_waited_for(world: World) -> None:
    assert start_flaky(world, 5, WAIT_FOR_DATASTORE="true") == "n1"
    assert world.log.named("datastore_away") == [{"level": "warning", "error": "nobody listens there"}]
    assert world.log.named("datastore_back")


def test_without_wait_for_datastore_patience_ends(world: World) -> None:
    with pytest.raises(StartUpError) as refused:
        start_flaky(world, 1000)
    assert str(refused.value) == (
        "WAIT_FOR_DATASTORE: the datastore did not answer for 0.2 s: nobody listens there; start it, "
        "correct DATASTORE_TYPE and its address, or set WAIT_FOR_DATASTORE=true to wait"
    )


def test_nodes_that_start_at_once_make_one_cluster(world: World) -> None:
    async def story(client: ResourceClient) -> list[str]:
        def start(number: int) -> Any:
            environment = world.environment(
                NODENAME=f"n{number}", IP=f"10.1.0.{number}", CLUSTER_TYPE=f"kind{number}",
                CALICO_NODENAME_FILE=str(world.name_file.with_name(f"name{number}")),
            )  # fmt: skip
            return start_up(client, environment, world.log)

        return list(await asyncio.gather(*(start(number) for number in range(1, 9))))

    assert world.play(story) == [f"n{number}" for number in range(1, 9)]
    assert len(world.names("Node")) == 8
    assert len(world.names("IPPool")) == 2
    types = world.spec("ClusterInformation", "default")["clusterType"]
    assert sorted(types.split(",")) == [f"kind{number}" for number in range(1, 9)]


# --- addresses that change --------------------------------------------------------------------------------------------


def monitored(tmp_path: Path, ips: str, other: str = "") -> tuple[World, BaseException | None]:
    """A node that starts with 10.1.0.1/24; then `ip` commands are run, and the Node is awaited to change."""
    with network_namespace() as namespace:
        wire(namespace, "eth0", namespace, "far")
        namespace.ip("address add 10.1.0.1/24 dev eth0")
        world = World(tmp_path, namespace)
        environment = world.environment(IP="autodetect", AUTODETECT_POLL_INTERVAL="50ms")
        world.start(IP="autodetect")
        if other:
            world.put("Node", "n2", {"bgp": {"ipv4Address": other}})

        async def story(client: ResourceClient) -> BaseException | None:
            before = (await client.datastore.get(Key("Node", "n1"))).revision
            watch = client.datastore.watch("Node", revision=(await client.datastore.list("Node")).revision)
            monitor = asyncio.create_task(monitor_addresses(client, environment, "n1", world.log))
            await asyncio.to_thread(namespace.ip_batch, ips)
            async with asyncio.timeout(10):
                async for event in watch:
                    if event.entry and event.entry.key.name == "n1" and event.entry.revision != before:
                        break
            await watch.aclose()
            await asyncio.wait([monitor], timeout=5 if other else 0)
            monitor.cancel()
            with suppress(asyncio.CancelledError, StartUpError):
                await monitor
            return None if monitor.cancelled() else monitor.exception()

        return world, world.play(story)


def test_a_changed_address_is_found_again(tmp_path: Path) -> None:
    with_change = "address add 10.2.0.1/24 dev eth0\naddress del 10.1.0.1/24 dev eth0\n"
    world, error = monitored(tmp_path, with_change)
    assert error is None
    world.namespace = None
    assert world.bgp() == {"ipv4Address": "10.2.0.1/24"}


def test_a_changed_address_that_another_node_has_ends_the_node(tmp_path: Path) -> None:
    world, error = monitored(
        tmp_path, "address add 10.2.0.1/24 dev eth0\naddress del 10.1.0.1/24 dev eth0\n", other="10.2.0.1/24"
    )
    assert isinstance(error, StartUpError)
    assert "also the address of node n2" in str(error)
    world.namespace = None
    assert world.bgp() == {}


def test_nothing_is_monitored_where_nothing_is_detected(tmp_path: Path) -> None:
    world = World(tmp_path)
    log = Told()
    world.play(
        lambda client: asyncio.wait_for(monitor_addresses(client, world.environment(IP="10.0.0.1"), "n1", log), 5)
    )
    world.play(
        lambda client: asyncio.wait_for(
            monitor_addresses(client, world.environment(IP="autodetect", AUTODETECT_POLL_INTERVAL="0"), "n1", log), 5
        )
    )
    assert log.events == []
