"""WireGuard between two nodes, on a kernel that has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from felix.dataplane.wireguard import WireguardSettings, WireguardTunnel
from felix.desired import (
    Host,
    HostUpdate,
    IPVersion,
    Message,
    Route,
    RouteRemove,
    RouteType,
    RouteUpdate,
    WireguardPeer,
    WireguardRemove,
    WireguardUpdate,
)
from felix.kernel.wireguard import KernelWireguard
from felix.sync.wireguard import DeviceState
from integration.resources.keys import Key
from tests.felix.dataplane.nodes import Node, Pods, two_nodes
from tests.felix.dataplane.programs import cluster as resources
from tests.felix.dataplane.programs import node_resource, of, pools, programs
from tests.guest.kernels import needs
from tests.netns import Namespace

pytestmark = [pytest.mark.root, needs("wireguard")]
REMOTE = RouteType(is_remote=True, is_workload=True)
DEVICES = {4: "wireguard.cali", 6: "wg-v6.cali"}
OTHER_KEY = "b" * 42 + "A="


class WireguardNode(Node):
    """`keys` are what it told of itself."""

    def __init__(self, namespace: Namespace, number: int, sysctls: Path, version: IPVersion = 4) -> None:
        super().__init__(namespace)
        self.number, self.version, self._sysctls = number, version, sysctls
        self.device = DEVICES[version]
        self.settings = WireguardSettings(
            f"n{number}", is_on=True, device=self.device, port=51820 if version == 4 else 51821, mtu=1420
        )
        self.keys: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.restart()
        self.tunnel = self.add(
            lambda: WireguardTunnel(self.version, self.settings, lambda _, key: self.keys.append(key), self._sysctls)
        )

    def reconfigure(self, **changes: object) -> None:
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        self.tunnel.reconfigure(self.settings)

    def state(self) -> DeviceState:
        def read() -> DeviceState:
            wireguard = KernelWireguard()
            try:
                return wireguard.read(self.namespace.ifindex(self.device))
            finally:
                wireguard.close()

        return self.namespace.call(read)

    def received(self) -> int:
        found: int = self.namespace.ip_json(f"-s link show dev {self.device}")[0]["stats64"]["rx"]["packets"]
        return found

    def rules(self) -> str:
        return self.namespace.ip(f"-{self.version} rule show")

    def table(self, table: int = 1) -> set[str]:
        shown = self.namespace.ip(f"-{self.version} route show table {table}", check=False)
        return {" ".join(line.split()[:4]).removesuffix(" metric") for line in shown.splitlines()}


class Scene(Pods):
    """Both nodes know each other's keys."""

    def __init__(self, pods: Pods, sysctls: Path, version: IPVersion = 4) -> None:
        super().__init__(pods.hosts, pods.pods)
        self.version = version
        self.nodes = {number: WireguardNode(host, number, sysctls, version) for number, host in pods.hosts.items()}
        for number in self.nodes:
            self.tell_all(number)
        self.exchange_keys()

    def tell_all(self, number: int) -> None:
        told: list[Message] = []
        for other in (1, 2):
            told.append(HostUpdate(Host(f"n{other}", f"172.16.0.{other}", f"fd16::{other}")))
            if other != number:
                told += [
                    RouteUpdate(Route(block, REMOTE, "none", f"n{other}"))
                    for block in (f"10.65.{other}.0/26", f"fd65:{other}::/122")
                ]
        assert self.nodes[number].apply(told) == []

    def peer(self, number: int) -> WireguardPeer:
        key = self.nodes[number].keys[-1]
        if self.version == 4:
            return WireguardPeer(f"n{number}", key, f"10.65.{number}.1")
        return WireguardPeer(f"n{number}", public_key_v6=key, address_v6=f"fd65:{number}::1")

    def exchange_keys(self) -> None:
        for node in self.nodes.values():
            assert node.apply([WireguardUpdate(self.peer(number)) for number in self.nodes]) == []


@pytest.fixture
def sysctls(tmp_path: Path) -> Path:
    """In the place of /proc/sys/net, which would be this process's namespace's."""
    (tmp_path / "ipv4/conf/all").mkdir(parents=True)
    (tmp_path / "ipv4/conf/all/src_valid_mark").write_text("0")
    return tmp_path


@pytest.fixture
def scene(sysctls: Path) -> Iterator[Scene]:
    with two_nodes() as pods:
        made = Scene(pods, sysctls)
        yield made
        for node in made.nodes.values():
            node.tunnel.close()


def test_pods_of_two_nodes_reach_each_other_over_wireguard(scene: Scene, sysctls: Path) -> None:
    node = scene.nodes[1]
    assert scene.ping(1, "10.65.2.2")
    assert node.received() > 0
    assert node.table() == {"10.65.2.0/26 dev wireguard.cali proto"}
    assert "99:\tnot from all fwmark 0x200000/0x200000 lookup 1" in node.rules()
    assert node.namespace.ip_json("-4 address show dev wireguard.cali")[0]["addr_info"][0]["local"] == "10.65.1.1"
    assert (node.state().port, node.state().mark) == (51820, 0x200000)
    assert (sysctls / "ipv4/conf/all/src_valid_mark").read_text() == "1"
    assert len(set(node.keys)) == 1
    assert node.check() == []


def test_over_ipv6_too(sysctls: Path) -> None:
    with two_nodes() as pods:
        scene = Scene(pods, sysctls, 6)
        assert scene.ping(1, "fd65:2::2")
        assert scene.nodes[1].received() > 0
        assert scene.nodes[1].check() == []
        for node in scene.nodes.values():
            node.tunnel.close()


def test_a_restart_keeps_key_device_and_peers(scene: Scene) -> None:
    node = scene.nodes[1]
    index, state = node.namespace.ifindex(node.device), node.state()
    node.begin()
    scene.tell_all(1)
    scene.exchange_keys()
    assert node.namespace.ifindex(node.device) == index
    assert node.state() == state
    assert scene.ping(1, "10.65.2.2")


def test_a_deleted_device_comes_back_with_a_new_key_that_the_others_take_over(scene: Scene) -> None:
    node = scene.nodes[1]
    node.namespace.ip("link delete wireguard.cali")
    assert node.apply() == []
    assert node.keys[-1] != node.keys[0]
    scene.exchange_keys()
    assert scene.ping(1, "10.65.2.2")
    assert len(scene.nodes[2].state().peers) == 1


def test_a_key_that_somebody_else_put_in_is_told(scene: Scene) -> None:
    node = scene.nodes[1]

    def rotate() -> None:
        wireguard = KernelWireguard()
        wireguard.write(node.namespace.ifindex(node.device), new_key=True)
        wireguard.close()

    node.namespace.call(rotate)
    node.check()
    assert node.keys[-1] == node.state().public_key != node.keys[0]
    scene.exchange_keys()
    assert scene.ping(2, "10.65.1.2")


@pytest.mark.parametrize(
    "harm",
    [
        "rule del priority 99",
        "route flush table 1",
        "route replace throw 10.65.2.0/26 table 1 proto 80",
        "link set wireguard.cali down",
        "link set wireguard.cali mtu 1300",
        "address flush dev wireguard.cali",
        "rule add priority 50 not fwmark 0x10000/0x10000 lookup 1",
    ],
)
def test_what_others_do_is_put_right(scene: Scene, harm: str) -> None:
    node = scene.nodes[1]
    node.namespace.ip(harm)
    assert node.check() != []
    assert node.apply() == []
    assert node.check() == []
    assert scene.ping(1, "10.65.2.2")
    assert node.rules().count("lookup 1\n") + node.rules().count("lookup 1 ") == 1


def test_rules_and_routes_of_others_in_the_table_are_left_alone(scene: Scene) -> None:
    node = scene.nodes[1]
    node.namespace.ip("rule add priority 50 from 10.9.0.0/16 lookup 1")
    node.namespace.ip("route add 10.9.0.0/16 dev eth0 table 1 proto static")
    assert node.check() == []
    node.reconfigure(is_on=False)
    assert node.apply() == []
    assert "from 10.9.0.0/16 lookup 1" in node.rules()
    assert any("10.9.0.0/16" in line for line in node.table())


def test_switched_off_everything_goes_and_the_key_is_taken_back(scene: Scene) -> None:
    node = scene.nodes[1]
    node.reconfigure(is_on=False)
    assert node.apply() == []
    assert node.namespace.ip("link show wireguard.cali", check=False) == ""
    assert "fwmark" not in node.rules()
    assert node.table() == set()
    assert node.keys[-1] == ""


def test_a_node_without_a_key_is_reached_without_and_one_that_leaves_is_forgotten(scene: Scene) -> None:
    node = scene.nodes[1]
    plain: list[Message] = [
        HostUpdate(Host("n3", "172.16.0.3")),
        RouteUpdate(Route("10.65.3.0/26", REMOTE, "none", "n3")),
    ]
    assert node.apply(plain) == []
    assert "throw 10.65.3.0/26 proto 80" in node.table()
    assert node.apply([WireguardRemove("n2"), RouteRemove("10.65.3.0/26")]) == []
    assert node.table() == {"throw 10.65.2.0/26 proto 80"}
    assert node.state().peers == {}


def test_a_key_that_two_nodes_claim_is_nobodys(scene: Scene) -> None:
    node = scene.nodes[1]
    thief = WireguardPeer("n3", scene.nodes[2].keys[-1], "10.65.3.1")
    assert node.apply([HostUpdate(Host("n3", "172.16.0.3")), WireguardUpdate(thief)]) == []
    assert node.state().peers == {}
    assert node.apply([WireguardRemove("n3")]) == []
    assert len(node.state().peers) == 1


def test_with_host_encryption_the_hosts_themselves_speak_through_it(scene: Scene) -> None:
    for node in scene.nodes.values():
        node.reconfigure(encrypts_host=True)
        assert node.apply() == []
    node = scene.nodes[1]
    before = node.received()
    assert " 0% packet loss" in node.namespace.run("ping", "-c1", "-W2", "172.16.0.2", check=False)
    assert node.received() > before
    assert "172.16.0.2 dev wireguard.cali proto" in node.table()
    assert scene.ping(1, "10.65.2.2")


def test_ports_marks_and_priorities_follow_the_settings(scene: Scene) -> None:
    for node in scene.nodes.values():
        node.reconfigure(port=51900, mark=0x400000, priority=77, keep_alive_s=25)
        assert node.apply() == []
    node = scene.nodes[1]
    (peer,) = node.state().peers.values()
    assert (node.state().port, peer.endpoint, peer.keep_alive_s) == (51900, ("172.16.0.2", 51900), 25)
    assert "77:\tnot from all fwmark 0x400000/0x400000 lookup 1" in node.rules()
    assert "0x200000" not in node.rules()
    assert scene.ping(1, "10.65.2.2")


def test_many_nodes_and_a_node_with_very_many_networks(scene: Scene) -> None:
    node = scene.nodes[1]
    told: list[Message] = []
    for number in range(1000):
        name, address = f"m{number}", f"172.20.{number >> 8}.{number & 255}"
        key = f"{number:042d}A="
        told += [
            HostUpdate(Host(name, address)),
            WireguardUpdate(WireguardPeer(name, key)),
            RouteUpdate(Route(f"10.70.{number >> 2}.{(number & 3) * 64}/26", REMOTE, "none", name)),
        ]
    told += [RouteUpdate(Route(f"10.80.{n >> 8}.{n & 255}/32", REMOTE, "none", "m7")) for n in range(2000)]
    assert node.apply(told) == []
    state = node.state()
    assert len(state.peers) == 1001
    assert len(state.peers[f"{7:042d}A="].allowed) == 2001
    assert len(node.table()) == 3001
    assert node.check() == []


@pytest.mark.timeout(600)
def test_the_whole_program(tmp_path: Path) -> None:
    with programs(tmp_path, within_s=240.0) as both:
        nodes = dict(
            node_resource(number, wireguard={"interfaceIPv4Address": f"10.65.{number}.1"}) for number in (1, 2)
        )
        on = dict([of("FelixConfiguration", "default", {"wireguardEnabled": True})])
        both.write({**resources(1, 2), **nodes, **pools(vxlanMode="Always"), **on})
        for number in (1, 2):
            both.start(number)
        both.until(
            lambda: (
                both.ping(1, "10.65.2.2") and "wireguard.cali" in both.nodes[1].ip("route show table 1", check=False)
            )
        )
        before = both.read(Key("Node", "n1"))["status"]["wireguardPublicKey"]
        both.nodes[1].ip("link delete wireguard.cali")
        both.until(lambda: both.read(Key("Node", "n1"))["status"]["wireguardPublicKey"] != before)
        both.until(lambda: both.ping(2, "10.65.1.2") and both.ping(1, "10.65.2.2"))
        assert both.mtu_file(1) == "1430"
