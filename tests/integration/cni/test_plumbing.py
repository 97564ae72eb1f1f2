"""A pod's network in a real kernel: what ADD lays, what CHECK finds, what DEL leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest

from integration.cni.errors import CNIError
from integration.cni.plumbing import HOST_MAC, LINK_LOCAL, Wiring, lay, open_namespace, problems_of, remove
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root
T = TypeVar("T")

WIRING = Wiring(
    host_interface="cali0123456789a",
    interface="eth0",
    mtu=1450,
    addresses=("10.65.0.2/32", "fd00:65::2/128"),
    routes=("0.0.0.0/0", "::/0"),
)


@dataclass
class Place:
    """A host whose default route leads out, and a pod's empty namespace."""

    host: Namespace
    pod: Namespace
    outside: Namespace

    def on_host(self, work: Callable[[int], T]) -> T:
        fd = open_namespace(str(self.pod.path))
        assert fd is not None
        try:
            return self.host.call(lambda: work(fd))
        finally:
            os.close(fd)


@contextmanager
def a_place() -> Iterator[Place]:
    with network_namespace() as host, network_namespace() as pod, network_namespace() as outside:
        wire(host, "eth0", outside, "eth0")
        host.ip_batch(
            "address add 192.0.2.1/24 dev eth0\nroute add default via 192.0.2.254\naddress add fd00:99::1/64 dev eth0\n"
        )
        yield Place(host, pod, outside)


def test_a_pod_reaches_its_host_over_both_versions() -> None:
    with a_place() as place:
        container = place.on_host(lambda fd: lay(WIRING, fd))
        assert (container.name, container.mtu, container.is_up) == ("eth0", 1450, True)
        for address in ("192.0.2.1", "fd00:99::1"):
            place.pod.run("ping", "-c1", "-W2", address)
        for address in ("10.65.0.2", "fd00:65::2"):
            place.host.run("ping", "-c1", "-W2", address)


def test_the_pods_side_is_laid_as_calico_lays_it() -> None:
    with a_place() as place:
        place.on_host(lambda fd: lay(replace(WIRING, mac="02:00:00:00:00:07"), fd))
        assert [(one["dst"], one.get("gateway"), one.get("scope")) for one in place.pod.ip_json("route")] == [
            ("default", "169.254.1.1", None),
            ("169.254.1.1", None, "link"),
        ]
        (default6,) = [one for one in place.pod.ip_json("-6 route") if one["dst"] == "default"]
        assert default6["gateway"] == LINK_LOCAL
        (link,) = place.pod.ip_json("address show dev eth0")
        assert link["address"] == "02:00:00:00:00:07"
        assert {(one["local"], one["prefixlen"]) for one in link["addr_info"] if one["scope"] == "global"} == {
            ("10.65.0.2", 32),
            ("fd00:65::2", 128),
        }
        assert place.pod.run("sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"


def test_the_hosts_side_is_laid_as_calico_lays_it() -> None:
    with a_place() as place:
        place.on_host(lambda fd: lay(WIRING, fd))
        (link,) = place.host.ip_json(f"link show dev {WIRING.host_interface}")
        assert (link["address"], link["mtu"]) == (HOST_MAC, 1450)
        (route,) = place.host.ip_json("route show 10.65.0.2")
        assert (route["dev"], route["scope"]) == (WIRING.host_interface, "link")
        for name, value in (
            ("ipv4.conf", "proxy_arp"), ("ipv4.conf", "forwarding"), ("ipv4.conf", "route_localnet"),
            ("ipv6.conf", "proxy_ndp"), ("ipv6.conf", "forwarding"),
        ):  # fmt: skip
            path = f"net.{name}.{WIRING.host_interface}.{value}"
            assert place.host.run("sysctl", "-n", path).strip() == "1", path


def test_laying_again_replaces_a_stale_pair_of_that_name() -> None:
    with a_place() as place, network_namespace() as former:
        fd = open_namespace(str(former.path))
        assert fd is not None
        place.host.call(lambda: lay(WIRING, fd))
        os.close(fd)
        place.on_host(lambda fd: lay(WIRING, fd))
        place.host.run("ping", "-c1", "-W2", "10.65.0.2")
        assert former.ip_json("link show type veth") == []


def test_an_interface_that_the_container_has_is_refused_and_left() -> None:
    with a_place() as place:
        place.pod.ip("link add eth0 type bridge")
        with pytest.raises(CNIError, match="already has an interface eth0"):
            place.on_host(lambda fd: lay(WIRING, fd))
        assert place.host.ip_json("link show type veth") == place.host.ip_json("link show dev eth0")
        assert len(place.pod.ip_json("link show dev eth0")) == 1


def test_an_address_that_another_interface_has_is_refused_and_nothing_is_left() -> None:
    with a_place() as place:
        place.host.ip("route add 10.65.0.2/32 dev eth0")
        with pytest.raises(CNIError, match=r"10\.65\.0\.2/32 through eth0"):
            place.on_host(lambda fd: lay(WIRING, fd))
        assert place.pod.ip_json("link show type veth") == []
        assert [one["ifname"] for one in place.host.ip_json("link show type veth")] == ["eth0"]


def test_a_route_that_felix_wrote_first_is_fine() -> None:
    with a_place() as place:
        place.on_host(lambda fd: lay(replace(WIRING, has_host_routes=False), fd))
        assert "no route to 10.65.0.2/32" in " ".join(place.on_host(lambda fd: problems_of(WIRING, fd)))
        place.host.ip(f"route add 10.65.0.2/32 dev {WIRING.host_interface} scope link proto boot")
        place.host.ip(f"route add fd00:65::2/128 dev {WIRING.host_interface} proto boot")
        assert place.on_host(lambda fd: problems_of(WIRING, fd)) == []


@pytest.mark.parametrize(
    ("side", "command", "problem"),
    [
        ("pod", "address del 10.65.0.2/32 dev eth0", "eth0 lacks the address 10.65.0.2/32"),
        ("pod", "route del default", "the container lacks the route 0.0.0.0/0"),
        ("pod", "link set eth0 down", "eth0 is down"),
        ("host", f"link set {WIRING.host_interface} down", f"{WIRING.host_interface} is down"),
        ("host", f"link del {WIRING.host_interface}", f"the host has no interface {WIRING.host_interface}"),
        ("host", "route del 10.65.0.2", "the host has no route to 10.65.0.2/32"),
    ],
)
def test_check_finds_what_somebody_broke(side: str, command: str, problem: str) -> None:
    with a_place() as place:
        place.on_host(lambda fd: lay(WIRING, fd))
        assert place.on_host(lambda fd: problems_of(WIRING, fd)) == []
        (place.pod if side == "pod" else place.host).ip(command)
        assert problem in " ".join(place.on_host(lambda fd: problems_of(WIRING, fd)))


def test_removing_leaves_nothing_and_may_be_repeated() -> None:
    with a_place() as place:
        place.on_host(lambda fd: lay(WIRING, fd))
        for _ in range(2):
            place.on_host(lambda fd: remove("eth0", WIRING.host_interface, fd))
        assert place.pod.ip_json("link show type veth") == []
        assert place.host.ip_json("route show 10.65.0.2") == []


def test_a_pod_whose_namespace_is_gone_is_removed_from_the_hosts_side() -> None:
    with a_place() as place:
        place.on_host(lambda fd: lay(WIRING, fd))
        place.host.call(lambda: remove("eth0", WIRING.host_interface, None))
        assert [one["ifname"] for one in place.host.ip_json("link show type veth")] == ["eth0"]
