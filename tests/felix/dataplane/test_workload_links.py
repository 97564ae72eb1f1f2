"""Addresses and permanent neighbours on workloads' interfaces, on a real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from felix.dataplane.routes import RouteProgrammer, RouteSettings
from felix.dataplane.workload_links import WorkloadLinks, WorkloadLinkSettings
from felix.desired import WorkloadEndpoint, WorkloadId, WorkloadPeeringUpdate, WorkloadRemove, WorkloadUpdate
from tests.felix.dataplane.nodes import Node
from tests.netns import network_namespace

pytestmark = pytest.mark.root

PEERING = WorkloadPeeringUpdate("169.254.9.1", "fd00::9:1")
MAC, OTHER_MAC = "0a:00:00:00:00:01", "0a:00:00:00:00:02"


def pod(number: int, **changes: object) -> WorkloadEndpoint:
    id = WorkloadId("k8s", f"shop/pod-{number}", "eth0")
    made = WorkloadEndpoint(
        id, f"cali{number}", mac=MAC, ipv4_nets=(f"10.65.0.{number}/32",), ipv6_nets=(f"fd65::{number}/128",)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def nothing_to_forget(_address: str) -> None: ...


class LinkNode(Node):
    def begin(self, *, knows_neighbours: bool = False) -> None:
        """As a new process."""
        self.restart()
        self.links = self.add(lambda: WorkloadLinks(WorkloadLinkSettings(knows_neighbours)))

    def interface(self, name: str) -> None:
        self.namespace.ip_batch(
            f"link add {name} type veth peer name p{name}\nlink set {name} up\nlink set p{name} up\n"
        )

    def addresses(self, name: str) -> set[str]:
        return {
            f"{one['local']}/{one['prefixlen']}"
            for one in self.namespace.ip_json(f"address show dev {name}")[0]["addr_info"]
            if not one["local"].startswith("fe80")
        }

    def neighbours(self, name: str) -> dict[str, str]:
        """Permanent ones."""
        found = self.namespace.ip_json(f"neighbour show dev {name}")
        return {one["dst"]: one["lladdr"] for one in found if "PERMANENT" in one["state"] and "." in one["dst"]}


@pytest.fixture
def node() -> Iterator[LinkNode]:
    with network_namespace() as namespace:
        made = LinkNode(namespace)
        for name in ("eth0", "cali1", "cali2"):
            made.interface(name)
        made.begin()
        yield made
        made.links.close()


def test_a_workload_that_peers_finds_its_node_at_the_configured_addresses(node: LinkNode) -> None:
    assert node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor")), WorkloadUpdate(pod(2))]) == []
    assert node.addresses("cali1") == {"169.254.9.1/32", "fd00::9:1/128"}
    assert node.addresses("cali2") == set()
    shown = node.namespace.ip_json("-4 address show dev cali1")[0]["addr_info"][0]
    assert shown["scope"] == "link"
    assert node.check() == []


def test_addresses_follow_the_configuration_and_the_selector(node: LinkNode) -> None:
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    assert node.apply([WorkloadPeeringUpdate("169.254.9.2")]) == []
    assert node.addresses("cali1") == {"169.254.9.2/32"}
    assert node.apply([WorkloadUpdate(pod(1))]) == []
    assert node.addresses("cali1") == set()


def test_a_workload_that_peers_no_more_keeps_its_route_and_its_neighbour(node: LinkNode) -> None:
    """The kernel drops both with the last address of a link, and says nothing."""
    node.restart()
    routes = node.namespace.call(lambda: RouteProgrammer(RouteSettings("n1"), nothing_to_forget))
    links = node.add(lambda: WorkloadLinks(WorkloadLinkSettings(knows_neighbours=True), routes.routes_dropped))
    node.parts.append(routes)
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    node.tell([WorkloadUpdate(pod(1))])
    assert asyncio.run(links.apply(node.now)) == []
    assert node.namespace.ip("route show 10.65.0.1") == ""
    assert asyncio.run(routes.apply(node.now)) == []  # in the same turn, nobody has told of the interface
    assert "dev cali1" in node.namespace.ip("route show 10.65.0.1")
    assert node.neighbours("cali1") == {"10.65.0.1": MAC}
    assert node.addresses("cali1") == set()
    routes.close()
    links.close()


def test_others_addresses_on_a_workloads_interface_stay(node: LinkNode) -> None:
    node.namespace.ip("address add 10.8.0.1/24 dev cali1")
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    node.apply([WorkloadRemove(pod(1).id)])
    assert node.addresses("cali1") == {"10.8.0.1/24"}


def test_a_restart_knows_what_the_former_process_has_left(node: LinkNode) -> None:
    node.begin(knows_neighbours=True)
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor")), WorkloadUpdate(pod(2, bgp_peer="tor"))])
    node.links.close()
    node.begin(knows_neighbours=True)
    assert node.apply([PEERING, WorkloadUpdate(pod(2, bgp_peer="tor"))]) == []
    assert (node.addresses("cali1"), node.neighbours("cali1")) == (set(), {})
    assert (len(node.addresses("cali2")), node.neighbours("cali2")) == (2, {"10.65.0.2": MAC})


def test_what_others_remove_is_put_back(node: LinkNode) -> None:
    node.begin(knows_neighbours=True)
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    node.namespace.ip("address delete 169.254.9.1/32 dev cali1")  # takes the neighbours along, being the last one
    assert node.check() == ["address 169.254.9.1 was missing", f"neighbour 10.65.0.1 at {MAC} was missing"]
    assert len(node.addresses("cali1")) == 2
    assert node.neighbours("cali1") == {"10.65.0.1": MAC}
    assert node.check() == []


def test_a_link_that_was_down_gets_everything_again(node: LinkNode) -> None:
    node.begin(knows_neighbours=True)
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    node.namespace.ip("link set cali1 down")
    node.apply()
    assert node.neighbours("cali1") == {}
    node.namespace.ip("link set cali1 up")
    assert node.apply() == []
    assert node.addresses("cali1") == {"169.254.9.1/32", "fd00::9:1/128"}
    assert node.neighbours("cali1") == {"10.65.0.1": MAC}


def test_a_link_that_is_made_anew_gets_everything_too(node: LinkNode) -> None:
    node.begin(knows_neighbours=True)
    node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    node.namespace.ip("link delete cali1")
    node.interface("cali1")
    assert node.apply() == []
    assert len(node.addresses("cali1")) == 2
    assert node.neighbours("cali1") == {"10.65.0.1": MAC}


def test_neighbours_are_entered_only_where_that_is_asked_for(node: LinkNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    assert node.neighbours("cali1") == {}
    node.links.reconfigure(WorkloadLinkSettings(knows_neighbours=True))
    assert node.apply() == []
    assert node.neighbours("cali1") == {"10.65.0.1": MAC}
    node.links.reconfigure(WorkloadLinkSettings())
    assert node.apply() == []
    assert node.neighbours("cali1") == {}


def test_a_neighbour_follows_its_mac_and_its_address(node: LinkNode) -> None:
    node.begin(knows_neighbours=True)
    node.apply([WorkloadUpdate(pod(1))])
    assert node.apply([WorkloadUpdate(pod(1, mac=OTHER_MAC.upper()))]) == []
    assert node.neighbours("cali1") == {"10.65.0.1": OTHER_MAC}
    node.apply([WorkloadUpdate(pod(1, ipv4_nets=("10.65.0.9/32", "10.66.0.0/24")))])
    assert node.neighbours("cali1") == {"10.65.0.9": MAC}


@pytest.mark.parametrize(
    "changes", [{"is_up": False}, {"live_migration": "target"}, {"mac": ""}, {"mac": "ff:ff:ff:ff:ff:ff"}]
)
def test_nobody_is_entered_who_is_not_there_yet_or_has_no_mac(node: LinkNode, changes: dict[str, object]) -> None:
    node.begin(knows_neighbours=True)
    node.apply([WorkloadUpdate(pod(1))])
    assert node.apply([WorkloadUpdate(pod(1, **changes))]) == []
    assert node.neighbours("cali1") == {}


def test_others_neighbours_stay_and_a_permanent_one_in_the_way_is_replaced(node: LinkNode) -> None:
    node.begin(knows_neighbours=True)
    node.namespace.ip(f"neighbour add 10.65.0.1 lladdr {OTHER_MAC} dev cali1 nud permanent")
    node.namespace.ip(f"neighbour add 10.65.0.77 lladdr {OTHER_MAC} dev cali1 nud permanent")
    assert node.apply([WorkloadUpdate(pod(1))]) == []
    assert node.neighbours("cali1") == {"10.65.0.1": MAC, "10.65.0.77": OTHER_MAC}


def test_what_the_kernel_refuses_is_told_and_tried_again(node: LinkNode) -> None:
    node.namespace.sysctl("net.ipv6.conf.cali1.disable_ipv6=1")
    failures = node.apply([PEERING, WorkloadUpdate(pod(1, bgp_peer="tor"))])
    assert [one.what for one in failures] == ["interface cali1 address fd00::9:1"]
    assert node.addresses("cali1") == {"169.254.9.1/32"}
    node.namespace.sysctl("net.ipv6.conf.cali1.disable_ipv6=0")
    assert node.apply() == []
    assert len(node.addresses("cali1")) == 2
