"""Sysctls of workloads' interfaces and of the host, in a kernel of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from felix.dataplane.interfaces import SYSCTLS, InterfaceSettings, WorkloadInterfaces
from felix.desired import WorkloadEndpoint, WorkloadId, WorkloadRemove, WorkloadUpdate
from felix.ports import Failure
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root

FOR_A_WORKLOAD = {
    "ipv4/conf/cali1/route_localnet": "1",
    "ipv4/conf/cali1/proxy_arp": "1",
    "ipv4/conf/cali1/forwarding": "1",
    "ipv4/neigh/cali1/proxy_delay": "0",
    "ipv6/conf/cali1/proxy_ndp": "1",
    "ipv6/conf/cali1/forwarding": "1",
    "ipv6/conf/cali1/accept_ra": "0",
}


def workload(number: int, interface: str = "cali1", **changes: object) -> WorkloadEndpoint:
    made = WorkloadEndpoint(WorkloadId("k8s", f"shop/pod-{number}", "eth0"), interface)
    return replace(made, **changes)  # type: ignore[arg-type]


class Host:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.begin(InterfaceSettings())

    def begin(self, settings: InterfaceSettings, root: Path = SYSCTLS) -> None:
        self.part = WorkloadInterfaces(settings, root)

    def apply(self) -> list[Failure]:
        return self.namespace.call(lambda: asyncio.run(self.part.apply(0.0)))

    def check(self) -> list[str]:
        return self.namespace.call(lambda: asyncio.run(self.part.check()))

    def sysctl(self, path: str) -> str:
        return self.namespace.call(lambda: (SYSCTLS / path).read_text().strip())

    def set(self, path: str, value: str) -> None:
        self.namespace.call(lambda: (SYSCTLS / path).write_text(value))

    def interface(self, name: str = "cali1") -> int:
        self.namespace.ip(f"link add {name} type veth peer name p{name}")
        return self.namespace.ifindex(name)

    def up(self, index: int, name: str = "cali1") -> None:
        self.part.interface_changed(name, "up", frozenset(), index)


@pytest.fixture
def host() -> Iterator[Host]:
    with network_namespace() as namespace:
        yield Host(namespace)


def test_a_workloads_interface_is_set_up_once_it_is_up(host: Host) -> None:
    index = host.interface()
    host.part.on_message(WorkloadUpdate(workload(1)))
    assert host.apply() == []
    assert host.sysctl("ipv4/conf/cali1/proxy_arp") == "0"
    host.up(index)
    assert host.apply() == []
    assert {path: host.sysctl(path) for path in FOR_A_WORKLOAD} == FOR_A_WORKLOAD


def test_interfaces_that_are_no_workloads_are_left_alone(host: Host) -> None:
    host.up(host.interface("cali2"), "cali2")
    host.up(host.interface("eth0"), "eth0")
    host.part.on_message(WorkloadUpdate(workload(1)))
    assert host.apply() == []
    assert [host.sysctl(f"ipv4/conf/{name}/proxy_arp") for name in ("cali2", "eth0")] == ["0", "0"]


def test_an_interface_that_comes_again_is_set_up_again(host: Host) -> None:
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.up(host.interface())
    host.apply()
    host.namespace.ip("link delete cali1")
    host.up(host.interface())
    assert host.apply() == []
    assert host.sysctl("ipv4/conf/cali1/proxy_arp") == "1"


def test_an_interface_that_went_before_its_settings_were_written_is_a_failure_until_that_is_known(host: Host) -> None:
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.up(77)
    assert {one.what for one in host.apply()} == {"interface cali1"}
    host.part.interface_changed("cali1", "gone", frozenset(), 77)
    assert host.apply() == []


@pytest.mark.parametrize("default", ["0", "1", "2"])
def test_reverse_path_filtering_is_what_the_host_has_by_default(host: Host, default: str) -> None:
    host.set("ipv4/conf/default/rp_filter", "0")
    index = host.interface()
    host.set("ipv4/conf/default/rp_filter", default)
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.up(index)
    host.apply()
    assert host.sysctl("ipv4/conf/cali1/rp_filter") == default


def test_a_workload_that_may_send_with_others_addresses_is_not_filtered_by_reverse_path(host: Host) -> None:
    host.begin(InterfaceSettings(allows_spoofing=True))
    index = host.interface()
    host.set("ipv4/conf/default/rp_filter", "1")
    host.part.on_message(WorkloadUpdate(workload(1, allowed_source_prefixes=("203.0.113.0/24",))))
    host.up(index)
    host.apply()
    assert host.sysctl("ipv4/conf/cali1/rp_filter") == "0"
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.apply()
    assert host.sysctl("ipv4/conf/cali1/rp_filter") == "1"


def test_the_host_forwards(host: Host) -> None:
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.set(path, "0")
    assert host.apply() == []
    assert (host.sysctl("ipv4/ip_forward"), host.sysctl("ipv6/conf/all/forwarding")) == ("1", "1")


def test_the_host_does_not_forward_where_that_is_configured_and_ipv6_is_left_alone_without_it(host: Host) -> None:
    host.begin(InterfaceSettings(forwards=False, has_ipv6=False))
    host.set("ipv4/ip_forward", "0")
    index = host.interface()
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.up(index)
    assert host.apply() == []
    assert host.sysctl("ipv4/ip_forward") == "0"
    assert host.sysctl("ipv6/conf/cali1/proxy_ndp") == "0"
    host.part.reconfigure(InterfaceSettings())
    assert host.apply() == []
    assert (host.sysctl("ipv4/ip_forward"), host.sysctl("ipv6/conf/cali1/proxy_ndp")) == ("1", "1")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ipv4/conf/cali1/proxy_arp", "interface cali1: ipv4/conf/cali1/proxy_arp"),
        ("ipv6/conf/cali1/forwarding", "interface cali1: ipv6/conf/cali1/forwarding"),
        ("ipv4/ip_forward", "host: ipv4/ip_forward"),
    ],
)
def test_what_others_set_otherwise_is_found_and_put_right(host: Host, path: str, said: str) -> None:
    index = host.interface()
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.up(index)
    host.apply()
    assert host.check() == []
    host.set(path, "0")
    found = host.check()
    assert any(one.startswith(said) for one in found)
    assert host.apply() == []
    assert host.sysctl(path) == "1"
    assert host.check() == []


def test_the_next_claimant_of_an_interface_has_it_set_up_by_its_own_right(host: Host) -> None:
    host.begin(InterfaceSettings(allows_spoofing=True))
    index = host.interface()
    host.set("ipv4/conf/default/rp_filter", "1")
    host.part.on_message(WorkloadUpdate(workload(2, allowed_source_prefixes=("203.0.113.0/24",))))
    host.part.on_message(WorkloadUpdate(workload(1)))
    host.up(index)
    host.apply()
    assert host.sysctl("ipv4/conf/cali1/rp_filter") == "1"
    host.part.on_message(WorkloadRemove(workload(1).id))
    host.apply()
    assert host.sysctl("ipv4/conf/cali1/rp_filter") == "0"


def test_a_host_that_lets_nobody_write_is_told_as_it_is(host: Host, tmp_path: Path) -> None:
    host.begin(InterfaceSettings(), tmp_path)
    failures = host.apply()
    assert [one.what for one in failures] == ["host"]
    assert failures[0].reason.startswith("net/ipv4/ip_forward = 1: ")
