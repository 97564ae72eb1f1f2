"""IPIP between two nodes, on a kernel that has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from felix.dataplane.ipip import IpipSettings, IpipTunnel
from felix.dataplane.routes import RouteProgrammer, RouteSettings
from felix.desired import Host, HostUpdate, Message, Route, RouteRemove, RouteType, RouteUpdate
from tests.felix.dataplane.nodes import Node, Pods, two_nodes
from tests.felix.dataplane.programs import cluster as resources
from tests.felix.dataplane.programs import node_resource, pools, programs
from tests.guest.kernels import needs
from tests.netns import Namespace

pytestmark = [pytest.mark.root, needs("ipip")]
REMOTE, LOCAL = RouteType(is_remote=True, is_workload=True), RouteType(is_local=True, is_workload=True)


async def nothing_to_forget(_address: str) -> None: ...


def cluster(me: int, *numbers: int, same_subnet: bool = False) -> list[Message]:
    told: list[Message] = []
    for number in numbers:
        address = f"172.16.0.{number}"
        told.append(HostUpdate(Host(f"n{number}", address, ipip_address=f"10.65.{number}.0")))
        kind = LOCAL if number == me else REMOTE
        told.append(RouteUpdate(Route(f"10.65.{number}.0/26", kind, "ipip", f"n{number}", address, same_subnet)))
    return told


class IpipNode(Node):
    def __init__(self, namespace: Namespace, number: int) -> None:
        super().__init__(namespace)
        self.number = number
        self.settings = IpipSettings(f"n{number}", is_on=True, mtu=1440)
        self.begin()

    def begin(self) -> None:
        self.restart()
        self.tunnel = self.add(lambda: IpipTunnel(self.settings))
        self.routes = self.add(
            lambda: RouteProgrammer(RouteSettings(f"n{self.number}"), nothing_to_forget, clock=lambda: self.now)
        )

    def addresses(self) -> list[str]:
        found = self.namespace.ip_json("-4 address show dev tunl0")
        return [one["local"] for each in found for one in each.get("addr_info", [])]


class Scene(Pods):
    def __init__(self, pods: Pods) -> None:
        super().__init__(pods.hosts, pods.pods)
        self.nodes = {number: IpipNode(host, number) for number, host in pods.hosts.items()}
        for number, node in self.nodes.items():
            assert node.apply(cluster(number, 1, 2)) == []


@pytest.fixture
def scene() -> Iterator[Scene]:
    with two_nodes() as pods:
        made = Scene(pods)
        yield made
        for node in made.nodes.values():
            node.tunnel.close()
            node.routes.close()


def test_pods_of_two_nodes_reach_each_other_over_ipip(scene: Scene) -> None:
    node = scene.nodes[1]
    assert scene.ping(1, "10.65.2.2")
    assert "via 172.16.0.2 dev tunl0 proto 80 onlink" in node.namespace.ip("route show 10.65.2.0/26")
    link = node.namespace.ip_json("-s link show dev tunl0")[0]
    assert link["mtu"] == 1440
    assert link["stats64"]["rx"]["packets"] > 0
    assert node.addresses() == ["10.65.1.0"]
    assert node.check() == []


def test_within_one_subnet_there_is_no_tunnel(scene: Scene) -> None:
    for number, node in scene.nodes.items():
        assert node.apply(cluster(number, 1, 2, same_subnet=True)) == []
    assert "via 172.16.0.2 dev eth0 proto 80" in scene.nodes[1].namespace.ip("route show 10.65.2.0/26")
    assert scene.ping(1, "10.65.2.2")


@pytest.mark.parametrize(
    "harm",
    [
        "link set tunl0 down",
        "link set tunl0 mtu 1200",
        "address flush dev tunl0",
        "address add 10.99.0.1/16 dev tunl0",
        "route del 10.65.2.0/26",
        "route replace 10.65.2.0/26 via 172.16.0.9 dev tunl0 onlink proto 80",
    ],
)
def test_what_others_do_to_it_is_put_right(scene: Scene, harm: str) -> None:
    node = scene.nodes[1]
    node.namespace.ip(harm)
    assert node.check() != []
    assert node.apply() == []
    assert node.check() == []
    assert node.addresses() == ["10.65.1.0"]
    assert scene.ping(1, "10.65.2.2")


def test_a_tunnel_that_somebody_pointed_elsewhere_still_carries_ours(scene: Scene) -> None:
    """A foreign device of our name: replaced if it can be deleted."""
    node = scene.nodes[1]
    node.namespace.ip("link add other0 type ipip local 172.16.0.1 remote 172.16.0.77")
    node.namespace.ip("link set other0 up")
    assert node.check() == []
    assert scene.ping(1, "10.65.2.2")


def test_switched_off_it_loses_its_address_and_a_new_process_does_so_too(scene: Scene) -> None:
    node = scene.nodes[1]
    node.settings = replace(node.settings, is_on=False)
    node.begin()
    assert node.apply() == []
    assert node.addresses() == []


def test_a_restart_and_a_node_that_leaves(scene: Scene) -> None:
    node = scene.nodes[1]
    before = node.namespace.ifindex("tunl0")
    node.begin()
    assert node.apply(cluster(1, 1, 2, 3)) == []
    assert (node.namespace.ifindex("tunl0"), node.check()) == (before, [])
    assert node.apply([RouteRemove("10.65.3.0/26")]) == []
    assert node.namespace.ip("route show 10.65.3.0/26") == ""
    assert scene.ping(1, "10.65.2.2")


@pytest.mark.timeout(600)
def test_the_whole_program(tmp_path: Path) -> None:
    with programs(tmp_path, within_s=240.0) as both:
        nodes = dict(node_resource(number, bgp={"ipv4IPIPTunnelAddr": f"10.65.{number}.0"}) for number in (1, 2))
        both.write({**resources(1, 2), **nodes, **pools(ipipMode="Always")})
        for number in (1, 2):
            both.start(number)
        both.until(lambda: both.ping(1, "10.65.2.2"))
        node = both.nodes[1]
        assert "dev tunl0" in node.ip("route show 10.65.2.0/26")
        assert node.ip_json("link show dev tunl0")[0]["mtu"] == 1480
        assert both.mtu_file(1) == "1480"
        both.write({**pools(ipipMode="CrossSubnet")})
        both.until(lambda: "dev eth0" in node.ip("route show 10.65.2.0/26"))
        both.until(lambda: both.ping(1, "10.65.2.2"))
