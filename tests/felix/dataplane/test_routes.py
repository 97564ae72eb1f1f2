"""Workload routes and blackholes on a real kernel: whose route is whose, and what the kernel does without saying so."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest

from felix.dataplane.routes import RouteProgrammer, RouteSettings
from felix.desired import (
    Host,
    HostUpdate,
    Route,
    RouteRemove,
    RouteType,
    RouteUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from felix.kernel.routes import KernelRoutes
from felix.kernel.sockets import DumpInterrupted
from felix.ports import Failure
from felix.sync.routes import GRACE_S, KernelRoute
from tests.felix.dataplane.nodes import Node
from tests.netns import network_namespace

pytestmark = pytest.mark.root
LOCAL, REMOTE = RouteType(is_local=True, is_workload=True), RouteType(is_remote=True, is_workload=True)


def pod(number: int, interface: str = "", **changes: object) -> WorkloadEndpoint:
    id = WorkloadId("k8s", f"shop/pod-{number}", "eth0")
    made = WorkloadEndpoint(
        id, interface or f"cali{number}", ipv4_nets=(f"10.65.0.{number}/32",), ipv6_nets=(f"fd65::{number}/128",)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class RouteNode(Node):
    """eth0 and two workloads' interfaces; who was forgotten."""

    def begin(self, **settings: object) -> None:
        self.restart()
        self.forgotten: list[str] = []

        async def forget(address: str) -> None:
            self.forgotten.append(address)

        self.settings = replace(RouteSettings("n1"), **settings)  # type: ignore[arg-type]
        self.routes = self.add(lambda: RouteProgrammer(self.settings, forget, clock=lambda: self.now))

    def interface(self, name: str) -> None:
        self.namespace.ip(f"link add {name} type veth peer name p{name}")
        self.namespace.ip(f"link set {name} up")
        self.namespace.ip(f"link set p{name} up")

    def route(self, to: str) -> str:
        return self.namespace.ip(f"{'-6 ' if ':' in to else ''}route show {to}").strip()

    def pods(self) -> list[str]:
        return [line.strip() for line in self.namespace.ip("route show proto boot").splitlines()]


@pytest.fixture
def node() -> Iterator[RouteNode]:
    with network_namespace() as namespace:
        made = RouteNode(namespace)
        made.interface("eth0")
        namespace.ip("address add 172.16.0.1/24 dev eth0")
        made.interface("cali1")
        made.interface("cali2")
        made.begin()
        yield made
        made.routes.close()


def test_a_workload_has_a_route_to_each_of_its_addresses(node: RouteNode) -> None:
    assert node.apply([WorkloadUpdate(pod(1)), WorkloadUpdate(pod(2, nats=(("10.65.0.2", "203.0.113.2"),)))]) == []
    assert node.route("10.65.0.1") == "10.65.0.1 dev cali1 scope link metric 1024"
    assert node.route("203.0.113.2") == "203.0.113.2 dev cali2 scope link metric 1024"
    assert "fd65::1 dev cali1 metric 1024" in node.route("fd65::1")
    assert node.check() == []


def test_a_workload_that_goes_takes_its_routes_along_and_its_connections_are_forgotten(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1)), WorkloadUpdate(pod(2))])
    assert node.apply([WorkloadRemove(pod(1).id)]) == []
    assert node.pods() == ["10.65.0.2 dev cali2 scope link metric 1024"]
    assert sorted(node.forgotten) == ["10.65.0.1", "fd65::1"]


def test_connections_are_forgotten_when_the_interface_goes_before_the_workload_does(node: RouteNode) -> None:
    """As it is when a pod is deleted: its veth goes first, and its routes with it."""
    node.apply([WorkloadUpdate(pod(1))])
    node.namespace.ip("link delete cali1")
    node.apply()
    assert node.forgotten == []
    node.apply([WorkloadRemove(pod(1).id)])
    assert sorted(node.forgotten) == ["10.65.0.1", "fd65::1"]


def test_an_address_that_moves_to_another_interface_is_forgotten_too(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    assert node.apply([WorkloadUpdate(pod(1, "cali2"))]) == []
    assert node.route("10.65.0.1") == "10.65.0.1 dev cali2 scope link metric 1024"
    assert "dev cali2" in node.route("fd65::1")
    assert sorted(node.forgotten) == ["10.65.0.1", "fd65::1"]


def test_metrics_protocol_and_source_follow_the_settings(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.settings = replace(
        node.settings, device_protocol=98, metrics=(7, 8), sources=("172.16.0.1", ""), elevated_metrics=(3, 4)
    )
    node.routes.reconfigure(node.settings)
    assert node.apply() == []
    assert node.route("10.65.0.1") == "10.65.0.1 dev cali1 proto 98 scope link src 172.16.0.1 metric 7"
    assert "metric 8" in node.route("fd65::1")
    assert node.apply([WorkloadUpdate(pod(1, live_migration="live"))]) == []
    assert node.route("10.65.0.1").endswith("metric 3")
    assert node.apply([WorkloadUpdate(pod(1, live_migration="target"))]) == []
    assert node.route("10.65.0.1") == ""


def test_a_workload_that_is_administratively_down_has_no_routes(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.apply([WorkloadUpdate(pod(1, is_up=False))])
    assert node.pods() == []


def test_an_interface_that_comes_later_gets_its_routes_then(node: RouteNode) -> None:
    assert node.apply([WorkloadUpdate(pod(3))]) == []
    assert node.route("10.65.0.3") == ""
    node.interface("cali3")
    assert node.apply() == []
    assert "dev cali3" in node.route("10.65.0.3")


def test_routes_come_back_after_the_link_was_down_although_the_kernel_said_nothing_of_them(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.namespace.ip("link set cali1 down")
    node.apply()
    assert node.route("10.65.0.1") == ""
    node.namespace.ip("link set cali1 up")
    assert node.apply() == []
    assert "dev cali1" in node.route("10.65.0.1")
    assert "dev cali1" in node.route("fd65::1")


def test_routes_come_back_when_the_last_address_of_their_link_went(node: RouteNode) -> None:
    """The kernel then drops all IPv4 routes of the link, and does not say so either."""
    node.namespace.ip("address add 10.8.0.1/24 dev cali1")
    node.apply([WorkloadUpdate(pod(1))])
    node.namespace.ip("address delete 10.8.0.1/24 dev cali1")
    assert node.route("10.65.0.1") == ""
    assert node.apply() == []
    assert "dev cali1" in node.route("10.65.0.1")


def test_an_interface_that_is_renamed_is_another_one(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1)), WorkloadUpdate(pod(3))])
    node.namespace.ip("link set cali1 down")
    node.namespace.ip("link set cali1 name cali3")
    node.namespace.ip("link set cali3 up")
    assert node.apply() == []
    assert node.route("10.65.0.1") == ""
    assert "dev cali3" in node.route("10.65.0.3")


def test_an_interface_that_went_and_came_back_between_two_looks_gets_its_routes(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.namespace.ip("link delete cali1")
    node.interface("cali1")
    assert node.apply() == []
    assert "dev cali1" in node.route("10.65.0.1")


def test_two_that_claim_one_interface_the_first_by_id_has_it_and_then_the_next(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(2, "cali1")), WorkloadUpdate(pod(1, "cali1"))])
    assert node.pods() == ["10.65.0.1 dev cali1 scope link metric 1024"]
    node.apply([WorkloadRemove(pod(1).id)])
    assert node.pods() == ["10.65.0.2 dev cali1 scope link metric 1024"]


# --- whose a route is


@pytest.mark.parametrize(
    "route",
    [
        "10.9.0.0/16 via 172.16.0.7 dev eth0",
        "10.9.0.0/16 via 172.16.0.7 dev eth0 proto static",
        "10.9.0.0/16 via 172.16.0.7 dev eth0 proto bird metric 32",
        "blackhole 10.9.0.0/16 proto static",
        "10.9.0.0/16 dev cali1 proto bird",  # what a speaker learned from a pod
        "10.9.0.0/16 dev eth0 table 7 proto 80",
        "fd09::/64 dev eth0 proto static",
    ],
)
def test_others_routes_are_left_alone(node: RouteNode, route: str) -> None:
    six = "-6 " if "fd" in route else ""
    node.namespace.ip(f"{six}route add {route}")
    node.apply([WorkloadUpdate(pod(1))])
    node.now += GRACE_S
    assert node.check() == []
    node.apply([WorkloadRemove(pod(1).id)])
    shown = node.namespace.ip(f"{six}route show table all to {'fd09::/64' if six else '10.9.0.0/16'}")
    assert "/" in shown


def test_the_kernels_own_routes_over_a_workloads_interface_stay(node: RouteNode) -> None:
    node.namespace.ip("address add 10.8.0.1/24 dev cali1")
    before = node.route("fe80::/64"), node.route("10.8.0.0/24")
    node.apply([WorkloadUpdate(pod(1))])
    node.now += GRACE_S
    assert node.check() == []
    assert (node.route("fe80::/64"), node.route("10.8.0.0/24")) == before
    assert "cali1" in before[0]


def test_routes_of_others_over_a_workloads_interface_go(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.now += GRACE_S
    node.namespace.ip("route add 10.9.0.0/16 dev cali1 proto static")
    node.namespace.ip("route add 10.65.0.1 dev cali1 metric 3 proto static")
    assert sorted(node.check()) == ["route 10.65.0.1/32 was not ours", "route 10.9.0.0/16 was not ours"]
    assert node.route("10.9.0.0/16") == ""
    assert node.route("10.65.0.1") == "10.65.0.1 dev cali1 scope link metric 1024"


def test_they_stay_where_that_is_configured(node: RouteNode) -> None:
    node.begin(removes_external=False)
    node.apply([WorkloadUpdate(pod(1))])
    node.now += GRACE_S
    node.namespace.ip("route add 10.9.0.0/16 dev cali1 proto static")
    assert node.check() == []


def test_what_a_cni_plugin_wrote_stays_until_the_datastore_has_had_time_to_tell(node: RouteNode) -> None:
    node.apply()
    node.interface("cali3")
    node.namespace.ip("route add 10.65.0.3 dev cali3")
    node.apply()
    assert node.check() == []
    assert node.routes.look_again_at == node.now + GRACE_S
    node.now += GRACE_S - 1
    node.apply()
    assert node.route("10.65.0.3") != ""
    node.now += 1
    node.apply()
    assert node.route("10.65.0.3") == ""


def test_a_check_that_comes_before_the_apply_knows_a_new_interface_too(node: RouteNode) -> None:
    node.apply()
    node.interface("cali3")
    node.namespace.ip("route add 10.65.0.3 dev cali3")
    assert node.check() == []
    assert node.route("10.65.0.3") != ""


@pytest.mark.parametrize(
    "harm",
    [
        "route del 10.65.0.1",
        "route replace 10.65.0.1 dev cali2 metric 1024",
        "route replace 10.65.0.1 via 172.16.0.9 metric 1024 proto static",
        "route replace blackhole 10.65.0.1 metric 1024",
        "route append 10.65.0.1 dev cali2 metric 1024",
        "-6 route del fd65::1",
        "-6 route replace fd65::1 dev cali2",
        "-6 route append fd65::1 via fe80::9 dev cali2 metric 1024",
    ],
)
def test_a_workloads_route_that_others_alter_is_put_right(node: RouteNode, harm: str) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    before = node.route("10.65.0.1"), node.route("fd65::1")
    node.namespace.ip(harm)
    node.now += GRACE_S
    assert node.check() != []
    node.check()
    assert (node.route("10.65.0.1"), node.route("fd65::1")) == before
    assert node.check() == []


# --- what others are seen to do


def kernel_route(to: str, index: int, **changes: object) -> KernelRoute:
    return replace(KernelRoute(to, index, "", 3, 1024), **changes)  # type: ignore[arg-type]


def put_right(node: RouteNode) -> list[str]:
    return asyncio.run(node.routes.put_right())


def test_a_route_that_was_deleted_is_back_without_reading_the_table(
    node: RouteNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.namespace.ip("route del 10.65.0.1")
    monkeypatch.setattr(KernelRoutes, "read", lambda *_: pytest.fail("the table was read"))
    gone = kernel_route("10.65.0.1/32", node.namespace.ifindex("cali1"))
    assert node.routes.route_changed(gone, is_gone=True, is_replacement=False)
    assert put_right(node) == ["route 10.65.0.1/32 was missing or altered"]
    assert "dev cali1" in node.route("10.65.0.1")
    assert put_right(node) == []


def test_routes_that_a_speaker_changes_are_of_no_concern(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    theirs = kernel_route("20.0.0.0/24", node.namespace.ifindex("eth0"), gateway="172.16.0.7", protocol=12)
    assert not node.routes.route_changed(theirs, is_gone=False, is_replacement=True)
    assert not node.routes.route_changed(theirs, is_gone=False, is_replacement=False)
    assert not node.routes.route_changed(theirs, is_gone=True, is_replacement=False)


def test_a_route_that_was_replaced_is_taken_back(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.namespace.ip("route replace 10.65.0.1 via 172.16.0.9 metric 1024 proto bird")
    new = kernel_route("10.65.0.1/32", node.namespace.ifindex("eth0"), gateway="172.16.0.9", protocol=12)
    assert node.routes.route_changed(new, is_gone=False, is_replacement=True)
    assert put_right(node) == ["route 10.65.0.1/32 was missing or altered"]
    assert node.route("10.65.0.1") == "10.65.0.1 dev cali1 scope link metric 1024"


def test_a_stranger_beside_our_route_goes_and_ours_stays(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    node.now += GRACE_S
    node.namespace.ip("route append 10.65.0.1 dev cali2 metric 1024")
    stranger = kernel_route("10.65.0.1/32", node.namespace.ifindex("cali2"))
    assert node.routes.route_changed(stranger, is_gone=False, is_replacement=False)
    assert put_right(node) == ["route 10.65.0.1/32 was not ours"]
    assert node.route("10.65.0.1") == "10.65.0.1 dev cali1 scope link metric 1024"


def test_what_a_cni_plugin_is_seen_to_write_has_its_grace_and_is_adopted(node: RouteNode) -> None:
    node.apply()
    node.interface("cali3")
    node.apply()
    node.namespace.ip("route add 10.65.0.3 dev cali3")
    written = kernel_route("10.65.0.3/32", node.namespace.ifindex("cali3"), metric=0)
    assert node.routes.route_changed(written, is_gone=False, is_replacement=False)
    assert put_right(node) == []
    assert node.route("10.65.0.3") == "10.65.0.3 dev cali3 scope link"
    assert node.apply([WorkloadUpdate(pod(3))]) == []
    assert node.route("10.65.0.3") == "10.65.0.3 dev cali3 scope link metric 1024"
    node.now += GRACE_S
    assert node.check() == []


def test_a_route_that_is_deleted_while_others_are_written_comes_back(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    gone = kernel_route("10.65.0.1/32", node.namespace.ifindex("cali1"))
    blocks = [block(f"10.{number >> 8}.{number & 255}.0/26") for number in range(20000, 22000)]

    async def meanwhile() -> None:
        writing = asyncio.create_task(node.routes.apply(node.now))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not writing.done()
        node.namespace.ip("route del 10.65.0.1")
        assert node.routes.route_changed(gone, is_gone=True, is_replacement=False)
        assert await writing == []

    node.tell(blocks)
    asyncio.run(meanwhile())
    assert node.apply() == []
    assert "dev cali1" in node.route("10.65.0.1")


def test_a_route_that_is_deleted_again_and_again_is_left_so_for_a_moment(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1))])
    gone = kernel_route("10.65.0.1/32", node.namespace.ifindex("cali1"))
    due = []
    for _ in range(3):
        node.namespace.ip("route del 10.65.0.1")
        at = node.routes.route_changed(gone, is_gone=True, is_replacement=False)
        assert at is not None
        due.append(at - node.now)
        if at > node.now:
            assert put_right(node) == []
            assert node.route("10.65.0.1") == ""
            node.now = at
        assert put_right(node) == ["route 10.65.0.1/32 was missing or altered"]
        assert "dev cali1" in node.route("10.65.0.1")
    assert due[0] == 0 < due[1] < due[2]


def test_a_table_that_cannot_be_read_is_a_failure_and_read_again(
    node: RouteNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise DumpInterrupted(errno.EINTR, "the table changed while it was read")

    with monkeypatch.context() as patched:
        patched.setattr(KernelRoutes, "read", refused)
        assert node.apply([WorkloadUpdate(pod(1))]) == [Failure("routes", "the table changed while it was read")]
    assert node.route("10.65.0.1") == ""
    assert node.apply() == []
    assert "dev cali1" in node.route("10.65.0.1")


# --- blocks


def block(cidr: str, kind: RouteType = LOCAL, **changes: object) -> RouteUpdate:
    return RouteUpdate(replace(Route(cidr, kind, "ipip", "n1", "172.16.0.1"), **changes))  # type: ignore[arg-type]


def test_local_blocks_are_blackholes_and_single_addresses_are_none(node: RouteNode) -> None:
    node.apply([block("10.65.0.0/26"), block("10.65.9.9/32"), block("fd65::/122")])
    assert node.route("10.65.0.0/26") == "blackhole 10.65.0.0/26 proto 80"
    assert node.route("fd65::/122").startswith("blackhole fd65::/122 dev lo proto 80")
    assert node.route("10.65.9.9") == ""
    node.apply([RouteRemove("10.65.0.0/26")])
    assert node.route("10.65.0.0/26") == ""


def test_a_block_that_changes_hands_is_replaced_in_place_and_stays(node: RouteNode) -> None:
    node.apply([HostUpdate(Host("n1", "172.16.0.1")), block("10.65.0.0/26")])
    theirs = {"node": "n2", "node_ip": "172.16.0.2", "same_subnet": True}
    assert node.apply([block("10.65.0.0/26", REMOTE, **theirs)]) == []
    assert node.route("10.65.0.0/26") == "10.65.0.0/26 via 172.16.0.2 dev eth0 proto 80"
    assert node.apply([block("10.65.0.0/26", REMOTE, **theirs | {"node_ip": "172.16.0.3"})]) == []
    assert node.route("10.65.0.0/26") == "10.65.0.0/26 via 172.16.0.3 dev eth0 proto 80"
    assert node.apply([block("10.65.0.0/26")]) == []
    assert node.route("10.65.0.0/26") == "blackhole 10.65.0.0/26 proto 80"


def test_pools_that_the_speaker_serves_are_not_ours(node: RouteNode) -> None:
    node.apply([block("10.65.0.0/26", pool="none"), block("10.66.0.0/26")])
    assert node.route("10.65.0.0/26") == ""
    node.settings = replace(node.settings, programs=frozenset({"none"}))
    node.routes.reconfigure(node.settings)
    assert node.apply() == []
    assert node.route("10.65.0.0/26") == "blackhole 10.65.0.0/26 proto 80"
    assert node.route("10.66.0.0/26") == ""


def test_a_restart_adopts_everything_and_removes_what_is_wanted_no_more(node: RouteNode) -> None:
    node.apply([WorkloadUpdate(pod(1)), WorkloadUpdate(pod(2)), block("10.65.0.0/26"), block("10.66.0.0/26")])
    node.begin()
    assert node.apply([WorkloadUpdate(pod(1)), block("10.65.0.0/26")]) == []
    assert node.route("10.66.0.0/26") == ""
    assert len(node.pods()) == 2  # the CNI plugin might just have written it
    node.now += GRACE_S
    node.apply()
    assert node.pods() == ["10.65.0.1 dev cali1 scope link metric 1024"]
    assert sorted(node.forgotten) == ["10.65.0.2", "fd65::2"]


def test_an_ipv6_address_that_the_c_library_writes_otherwise_is_written_once(node: RouteNode) -> None:
    one = pod(1, ipv6_nets=("::102:304/128", "64:ff9b::102:304/128"))
    assert node.apply([WorkloadUpdate(one)]) == []
    node.now += GRACE_S
    assert node.check() == []


def test_switched_off_nothing_is_touched(node: RouteNode) -> None:
    node.begin(is_disabled=True)
    node.namespace.ip("route add 10.9.0.0/16 dev cali1 proto 80")
    assert node.apply([WorkloadUpdate(pod(1))]) == []
    assert node.check() == []
    assert node.pods() == []
    assert node.route("10.9.0.0/16") != ""


def test_a_check_writes_nothing_that_no_apply_has_written_and_removes_nothing_before_the_first(node: RouteNode) -> None:
    """A route to a new pod must not come before the pod's rules, and a check comes before the rules' apply."""
    node.apply([WorkloadUpdate(pod(1)), block("10.66.0.0/26")])
    node.begin()
    node.tell([WorkloadUpdate(pod(1)), WorkloadUpdate(pod(2)), block("10.66.0.0/26")])
    node.now += GRACE_S
    assert node.check() == []
    assert put_right(node) == []
    assert node.pods() == ["10.65.0.1 dev cali1 scope link metric 1024"]
    assert node.apply() == []
    node.tell([WorkloadRemove(pod(2).id), WorkloadUpdate(pod(3, "cali2"))])
    assert node.check() == []
    assert node.route("10.65.0.3") == ""
    assert node.apply() == []
    assert "dev cali2" in node.route("10.65.0.3")
    assert node.route("10.66.0.0/26") != ""


def test_what_the_kernel_refuses_is_told_and_harms_no_other(node: RouteNode) -> None:
    node.begin(sources=("198.51.100.1", ""))
    failures = node.apply([WorkloadUpdate(pod(1)), block("10.66.0.0/26")])
    assert [one.what for one in failures] == ["route 10.65.0.1/32"]
    assert node.route("10.66.0.0/26") != ""
    assert "dev cali1" in node.route("fd65::1")
