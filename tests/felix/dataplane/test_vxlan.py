"""VXLAN on a real kernel: two nodes on a wire, each with a pod, each in a namespace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from felix.dataplane.routes import RouteProgrammer, RouteSettings
from felix.dataplane.vxlan import VxlanSettings, VxlanTunnel
from felix.desired import (
    VTEP,
    Host,
    HostUpdate,
    IPVersion,
    Message,
    Route,
    RouteRemove,
    RouteType,
    RouteUpdate,
    VTEPRemove,
    VTEPUpdate,
)
from tests.felix.dataplane.nodes import Node, Pods, two_nodes
from tests.netns import Namespace

pytestmark = pytest.mark.root
REMOTE, LOCAL = RouteType(is_remote=True, is_workload=True), RouteType(is_local=True, is_workload=True)


async def nothing_to_forget(_address: str) -> None: ...


def vtep(number: int) -> VTEP:
    return VTEP(
        f"n{number}", f"10.65.{number}.0", f"66:00:00:00:00:0{number}", f"172.16.0.{number}",
        f"fd65:{number}::", f"66:00:00:00:06:0{number}", f"fd16::{number}",
    )  # fmt: skip


def cluster(me: int, *numbers: int, same_subnet: bool = False) -> list[Message]:
    """What the calculation tells node `me` of the nodes."""
    told: list[Message] = []
    for number in numbers:
        told.append(
            HostUpdate(Host(f"n{number}", f"172.16.0.{number}", f"fd16::{number}", "172.16.0.0/24", "fd16::/64"))
        )
        told.append(VTEPUpdate(vtep(number)))
        for block, address in (
            (f"10.65.{number}.0/26", f"172.16.0.{number}"),
            (f"fd65:{number}::/122", f"fd16::{number}"),
        ):
            kind = LOCAL if number == me else REMOTE
            told.append(RouteUpdate(Route(block, kind, "vxlan", f"n{number}", address, same_subnet)))
    return told


class VxlanNode(Node):
    """With eth0, a pod behind cali1, and the programmers of a fresh process."""

    def __init__(self, namespace: Namespace, number: int) -> None:
        super().__init__(namespace)
        self.number = number
        self.settings = VxlanSettings(f"n{number}", is_on=True, mtu=1430)
        self.begin()

    def begin(self) -> None:
        self.restart()
        self.tunnels = {version: self._tunnel(version) for version in (4, 6)}
        self.routes = self.add(
            lambda: RouteProgrammer(RouteSettings(f"n{self.number}"), nothing_to_forget, clock=lambda: self.now)
        )

    def _tunnel(self, version: int) -> VxlanTunnel:
        of: IPVersion = 4 if version == 4 else 6
        return self.add(lambda: VxlanTunnel(of, self.settings))

    def reconfigure(self, **changes: object) -> None:
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        for tunnel in self.tunnels.values():
            tunnel.reconfigure(self.settings)

    def device(self, name: str = "vxlan.calico") -> dict[str, object]:
        found = self.namespace.ip_json("-d link show")
        return next((one for one in found if one["ifname"] == name), {})

    def fdb(self) -> set[tuple[str, str]]:
        lines = self.namespace.run("bridge", "fdb", "show", "dev", "vxlan.calico").splitlines()
        return {(line.split()[0], line.split()[2]) for line in lines}

    def neighbours(self, device: str = "vxlan.calico") -> set[tuple[str, str]]:
        found = self.namespace.ip_json(f"neigh show dev {device} nud permanent")
        return {(one["dst"], one["lladdr"]) for one in found}

    def route(self, to: str) -> str:
        return self.namespace.ip(f"{'-6 ' if ':' in to else ''}route show {to}").strip()


class Scene(Pods):
    """The two nodes' programmers."""

    def __init__(self, pods: Pods) -> None:
        super().__init__(pods.hosts, pods.pods)
        self.nodes = {number: VxlanNode(host, number) for number, host in pods.hosts.items()}


@pytest.fixture
def scene() -> Iterator[Scene]:
    with two_nodes() as pods:
        made = Scene(pods)
        yield made
        for node in made.nodes.values():
            for tunnel in node.tunnels.values():
                tunnel.close()
            node.routes.close()


def test_pods_of_two_nodes_reach_each_other_over_vxlan_in_both_versions(scene: Scene) -> None:
    for number, node in scene.nodes.items():
        assert node.apply(cluster(number, 1, 2)) == []
    assert scene.ping(1, "10.65.2.2")
    assert scene.ping(1, "fd65:2::2")
    assert scene.ping(2, "10.65.1.2")
    assert "via 10.65.2.0 dev vxlan.calico proto 80 onlink" in scene.nodes[1].route("10.65.2.0/26")
    assert "via fd65:2:: dev vxlan-v6.calico proto 80" in scene.nodes[1].route("fd65:2::/122")
    assert scene.nodes[1].route("10.65.1.0/26").startswith("blackhole")


def test_the_device_is_as_calico_makes_it(scene: Scene) -> None:
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2))
    device = node.device()
    assert device["mtu"] == 1430
    assert device["address"] == "66:00:00:00:00:01"
    info = device["linkinfo"]["info_data"]  # type: ignore[index]
    assert (info["id"], info["port"], info["local"], info["link"]) == (4096, 4789, "172.16.0.1", "eth0")
    assert info["learning"] is False
    assert node.namespace.ip_json("-4 address show dev vxlan.calico")[0]["addr_info"][0]["local"] == "10.65.1.0"
    info = node.device("vxlan-v6.calico")["linkinfo"]["info_data"]  # type: ignore[index]
    assert (info["id"], info["port"], info["local6"]) == (4096, 4789, "fd16::1")


def test_across_subnets_only_means_no_tunnel_within_one(scene: Scene) -> None:
    for number, node in scene.nodes.items():
        assert node.apply(cluster(number, 1, 2, same_subnet=True)) == []
    assert "via 172.16.0.2 dev eth0 proto 80" in scene.nodes[1].route("10.65.2.0/26")
    assert scene.ping(1, "10.65.2.2")
    assert scene.ping(1, "fd65:2::2")


def test_a_node_that_leaves_takes_its_neighbour_forwarding_entry_and_route_along(scene: Scene) -> None:
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2, 3))
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.2"), ("66:00:00:00:00:03", "172.16.0.3")}
    assert node.neighbours() == {("10.65.2.0", "66:00:00:00:00:02"), ("10.65.3.0", "66:00:00:00:00:03")}
    assert node.apply([VTEPRemove("n3"), RouteRemove("10.65.3.0/26")]) == []
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.2")}
    assert node.neighbours() == {("10.65.2.0", "66:00:00:00:00:02")}
    assert node.neighbours("vxlan-v6.calico") == {("fd65:2::", "66:00:00:00:06:02")}
    assert node.route("10.65.3.0/26") == ""


def test_a_node_that_moves_is_followed(scene: Scene) -> None:
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2))
    moved = replace(vtep(2), parent_ipv4="172.16.0.9")
    assert node.apply([VTEPUpdate(moved)]) == []
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.9")}
    assert node.apply([VTEPUpdate(replace(moved, mac="66:00:00:00:00:99"))]) == []
    assert node.fdb() == {("66:00:00:00:00:99", "172.16.0.9")}
    assert node.neighbours() == {("10.65.2.0", "66:00:00:00:00:99")}


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ("link delete vxlan.calico", "vxlan.calico: made"),
        ("link set vxlan.calico down", "vxlan.calico: up"),
        ("link set vxlan.calico mtu 1200", "vxlan.calico: MTU 1430"),
        ("link set vxlan.calico address 02:00:00:00:00:01", "vxlan.calico: MAC address 66:00:00:00:00:01"),
        ("address flush dev vxlan.calico", "vxlan.calico: address 10.65.1.0/32"),
        ("address add 10.99.0.1/16 dev vxlan.calico", "vxlan.calico: no address 10.99.0.1/16"),
        ("address add 10.99.0.1 peer 10.99.0.2 dev vxlan.calico", "vxlan.calico: no address 10.99.0.1/32"),
        ("neigh flush dev vxlan.calico nud permanent", "vxlan.calico: entry 10.65.2.0 → 66:00:00:00:00:02"),
        ("neigh replace 10.65.2.0 lladdr 02:00:00:00:00:01 dev vxlan.calico nud permanent", "vxlan.calico: entry 10.65.2.0 → 66:00:00:00:00:02"),
    ],
)  # fmt: skip
def test_what_others_do_to_the_device_is_put_right(scene: Scene, harm: str, found: str) -> None:
    for number, node in scene.nodes.items():
        node.apply(cluster(number, 1, 2))
    node = scene.nodes[1]
    node.namespace.ip(harm)
    assert found in node.check()
    assert node.apply() == []
    assert node.check() == []
    assert scene.ping(1, "10.65.2.2")


def test_forwarding_entries_of_others_go_and_ours_come_back(scene: Scene) -> None:
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2))
    for words in (
        "del 66:00:00:00:00:02",
        "add 66:00:00:00:00:07 dst 172.16.0.7 permanent",
        "append 00:00:00:00:00:00 dst 172.16.0.8 permanent",
    ):
        verb, *rest = words.split()
        node.namespace.run("bridge", "fdb", verb, *rest, "dev", "vxlan.calico", "self")
    assert len(node.check()) == 3
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.2")}


def test_a_device_with_other_parameters_is_replaced(scene: Scene) -> None:
    node = scene.nodes[1]
    node.namespace.ip("link add vxlan.calico type vxlan id 7 dstport 8472 local 172.16.0.1 dev eth0")
    assert node.apply(cluster(1, 1, 2)) == []
    info = node.device()["linkinfo"]["info_data"]  # type: ignore[index]
    assert (info["id"], info["port"], info["learning"]) == (4096, 4789, False)
    node.reconfigure(vni=4097, port=4790)
    assert node.apply() == []
    info = node.device()["linkinfo"]["info_data"]  # type: ignore[index]
    assert (info["id"], info["port"]) == (4097, 4790)
    assert "dev vxlan.calico" in node.route("10.65.2.0/26")


def test_a_restart_adopts_the_device_and_writes_nothing(scene: Scene) -> None:
    for number, node in scene.nodes.items():
        node.apply(cluster(number, 1, 2))
    node = scene.nodes[1]
    before = node.namespace.ifindex("vxlan.calico")
    node.begin()
    assert node.apply(cluster(1, 1, 2)) == []
    assert node.namespace.ifindex("vxlan.calico") == before
    assert node.check() == []


def test_switched_off_the_devices_go_and_switched_on_they_come_back(scene: Scene) -> None:
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2))
    node.reconfigure(is_on=False)
    assert node.apply() == []
    assert node.device() == {}
    assert node.device("vxlan-v6.calico") == {}
    node.reconfigure(is_on=True)
    assert node.apply() == []
    assert "dev vxlan.calico" in node.route("10.65.2.0/26")


def test_switched_off_a_device_of_our_name_that_is_none_of_vxlan_is_left_alone(scene: Scene) -> None:
    node = scene.nodes[1]
    node.namespace.ip("link add vxlan.calico type bridge")
    node.reconfigure(is_on=False)
    assert node.apply() == []
    assert node.device() != {}


def test_the_node_address_that_moves_to_another_interface_takes_the_tunnel_along(scene: Scene) -> None:
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2))
    node.namespace.ip("link add br0 type bridge")
    node.namespace.ip("link set br0 up")
    node.namespace.ip("link set eth0 master br0")
    node.namespace.ip("address flush dev eth0")
    for address in ("172.16.0.1/24", "fd16::1/64 nodad"):
        node.namespace.ip(
            f"address add {address.replace(' ', ' dev br0 ') if ' ' in address else address + ' dev br0'}"
        )
    assert node.apply() == []
    assert node.device()["linkinfo"]["info_data"]["link"] == "br0"  # type: ignore[index]
    scene.nodes[2].apply(cluster(2, 1, 2))
    assert scene.ping(1, "10.65.2.2")


def test_without_an_interface_that_has_the_node_address_it_says_so_and_waits(scene: Scene) -> None:
    node = scene.nodes[1]
    node.namespace.ip("address del 172.16.0.1/24 dev eth0")
    failures = node.apply(cluster(1, 1, 2))
    assert [(one.what, one.reason) for one in failures] == [
        ("device vxlan.calico", "no interface has this node's address 172.16.0.1")
    ]
    node.namespace.ip("address add 172.16.0.1/24 dev eth0")
    assert node.apply() == []
    assert node.device() != {}


def test_an_address_of_the_node_on_the_loopback_too_does_not_confuse(scene: Scene) -> None:
    node = scene.nodes[1]
    node.namespace.ip("address add 172.16.0.1/32 dev lo")
    assert node.apply(cluster(1, 1, 2)) == []
    assert node.device()["linkinfo"]["info_data"]["link"] == "eth0"  # type: ignore[index]


def test_what_the_kernel_refuses_for_one_node_harms_no_other(scene: Scene) -> None:
    node = scene.nodes[1]
    bad = VTEP("n0", "224.0.0.1", "01:00:5e:00:00:01", "0.0.0.0")
    node.apply([*cluster(1, 1, 2), VTEPUpdate(bad)])
    assert ("66:00:00:00:00:02", "172.16.0.2") in node.fdb()
    assert ("10.65.2.0", "66:00:00:00:00:02") in node.neighbours()


@pytest.mark.parametrize("mac", ["00:00:00:00:00:00", "01:00:5e:00:00:01", "FF-FF-FF-FF-FF-FF"])
def test_a_mac_that_no_device_can_have_is_no_nodes(scene: Scene, mac: str) -> None:
    node = scene.nodes[1]
    assert node.apply([*cluster(1, 1, 2), VTEPUpdate(replace(vtep(3), mac=mac))]) == []
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.2")}


def test_a_mac_may_be_written_with_hyphens(scene: Scene) -> None:
    node = scene.nodes[1]
    hyphens = [VTEPUpdate(replace(vtep(n), mac=vtep(n).mac.replace("66", "6A").replace(":", "-"))) for n in (1, 2)]
    assert node.apply([*cluster(1, 1, 2), *hyphens]) == []
    assert node.fdb() == {("6a:00:00:00:00:02", "172.16.0.2")}
    assert node.device()["address"] == "6a:00:00:00:00:01"
    assert node.check() == []


def test_of_two_nodes_with_one_address_or_mac_the_first_by_name_has_it(scene: Scene) -> None:
    node = scene.nodes[1]
    thief = replace(vtep(2), node="n9", parent_ipv4="172.16.0.9", parent_ipv6="fd16::9")
    node.apply([VTEPUpdate(thief), *cluster(1, 1, 2)])
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.2")}
    node.apply([VTEPRemove("n2")])
    assert node.fdb() == {("66:00:00:00:00:02", "172.16.0.9")}


def test_three_thousand_nodes_come_and_go(scene: Scene) -> None:
    node = scene.nodes[1]
    many = [
        VTEP(
            f"m{n}",
            f"10.70.{n >> 8}.{n & 255}",
            f"66:00:00:01:{n >> 8:02x}:{n & 255:02x}",
            f"172.20.{n >> 8}.{n & 255}",
        )
        for n in range(1, 3001)
    ]
    assert node.apply([*cluster(1, 1), *map(VTEPUpdate, many)]) == []
    assert len(node.fdb()) == 3000
    assert node.apply([VTEPRemove(one.node) for one in many]) == []
    assert node.fdb() == set()


def test_a_host_reaches_another_nodes_pods_by_its_tunnel_address(scene: Scene) -> None:
    for number, node in scene.nodes.items():
        node.apply(cluster(number, 1, 2))
    for address, source in (("10.65.2.2", "10.65.1.0"), ("fd65:2::2", "fd65:1::")):
        host = scene.nodes[1].namespace
        assert " 0% packet loss" in host.run("ping", "-c1", "-W2", address, check=False)
        assert f"src {source}" in host.ip(f"route get {address}")


def test_a_tunnel_address_outside_its_nodes_blocks_has_a_route_of_its_own(scene: Scene) -> None:
    """Where a node had to borrow it: the gateway is then the destination itself."""
    borrowed = replace(vtep(2), ipv4="10.65.77.7")
    for number, node in scene.nodes.items():
        tunnel = RouteType(is_local=number == 2, is_remote=number != 2, is_workload=True, is_tunnel=True)
        route = Route("10.65.77.7/32", tunnel, "vxlan", "n2", "172.16.0.2", is_borrowed=True)
        assert node.apply([*cluster(number, 1, 2), VTEPUpdate(borrowed), RouteUpdate(route)]) == []
    assert " 0% packet loss" in scene.nodes[1].namespace.run("ping", "-c1", "-W2", "10.65.77.7", check=False)
    assert scene.ping(1, "10.65.2.2")


def test_while_pods_come_and_go_everything_is_still_read(scene: Scene) -> None:
    """The kernel marks a reading during which its tables change; it is repeated, and else told as a failure."""
    node = scene.nodes[1]
    node.apply(cluster(1, 1, 2))
    lines = "".join(f"link add t{n} type bridge\nlink delete t{n}\n" for n in range(100))
    churn = threading.Thread(target=node.namespace.ip_batch, args=(lines,))
    churn.start()
    try:
        found = [text for _ in range(20) for tunnel in node.tunnels.values() for text in asyncio.run(tunnel.check())]
    finally:
        churn.join()
    assert [text for text in found if "changed while it was read" not in text] == []
