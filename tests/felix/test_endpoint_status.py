"""Whether an endpoint is up, from messages, interfaces and what was programmed."""

from __future__ import annotations

import pytest

from felix.desired import (
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    InSync,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from felix.endpoint_status import EndpointStates, HostEndpointId
from felix.ports import Failure

POD = WorkloadId("k8s", "ns/pod", "eth0")
OTHER = WorkloadId("k8s", "ns/zzz", "eth0")
NONE: frozenset[str] = frozenset()


def pod(id: WorkloadId = POD, interface: str = "cali1", *, is_up: bool = True) -> WorkloadUpdate:
    return WorkloadUpdate(WorkloadEndpoint(id, interface, is_up=is_up, ipv4_nets=("10.0.0.1/32",)))


def with_pod() -> EndpointStates:
    states = EndpointStates()
    states.on_message(pod())
    states.interface_changed("cali1", "up", NONE, 7)
    states.applied([])
    assert states.changes() == {POD: "up"}
    return states


def test_a_workload_is_up_only_after_the_apply_that_has_it() -> None:
    states = EndpointStates()
    states.interface_changed("cali1", "up", NONE, 7)
    states.on_message(pod())
    assert states.changes() == {POD: "down"}
    states.applied([])
    assert states.changes() == {POD: "up"}
    assert states.changes() == {}


def test_what_was_told_while_an_apply_was_under_way_is_not_part_of_it() -> None:
    states = EndpointStates()
    for interface in ("cali1", "cali2"):
        states.interface_changed(interface, "up", NONE, 7)
    states.on_message(InSync())
    states.on_message(pod())
    states.on_message(pod(OTHER, "cali2"))  # after the apply began
    states.applied([], messages=2)
    assert states.changes() == {POD: "up", OTHER: "down"}
    states.applied([], messages=1)
    assert states.changes() == {OTHER: "up"}


@pytest.mark.parametrize("state", ["down", "gone"])
def test_a_workload_is_down_with_its_interface(state: str) -> None:
    states = with_pod()
    states.interface_changed("cali1", state, NONE, 7)  # type: ignore[arg-type]
    assert states.changes() == {POD: "down"}
    states.interface_changed("cali1", "up", NONE, 8)
    assert states.changes() == {POD: "up"}


def test_a_workload_that_is_meant_to_be_down_is() -> None:
    states = with_pod()
    states.on_message(pod(is_up=False))
    assert states.changes() == {POD: "down"}


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("interface cali1", "error"),
        ("chain filter cali-tw-cali1", "error"),
        ("route 10.0.0.1/32", "error"),
        ("interface cali11", None),
        ("chain filter cali-tw-xcali1", None),
        ("route 10.0.0.2/32", None),
    ],
)
def test_a_failure_that_is_about_a_workload_makes_it_an_error_until_it_is_gone(what: str, status: str | None) -> None:
    states = with_pod()
    states.applied([Failure(what, "no")])
    assert states.changes() == ({POD: status} if status else {})
    states.applied([])
    assert states.changes() == ({POD: "up"} if status else {})


def test_a_removed_workload_is_told_once() -> None:
    states = with_pod()
    states.on_message(WorkloadRemove(POD))
    states.on_message(WorkloadRemove(POD))
    assert states.changes() == {POD: None}
    assert states.changes() == {}


def test_what_came_and_went_between_two_looks_is_not_told() -> None:
    states = EndpointStates()
    states.on_message(pod())
    states.on_message(WorkloadRemove(POD))
    states.applied([])
    assert states.changes() == {}


def test_of_two_workloads_on_one_interface_the_lower_is_up_and_the_other_takes_its_place() -> None:
    states = with_pod()
    states.on_message(pod(OTHER))
    states.applied([])
    assert states.changes() == {OTHER: "down"}
    states.on_message(WorkloadRemove(POD))
    assert states.changes() == {POD: None, OTHER: "up"}


def test_a_host_endpoint_without_interface_is_an_error() -> None:
    states = EndpointStates()
    states.on_message(HostEndpointUpdate(HostEndpoint("hep", interface="eth0")))
    states.applied([])
    assert states.changes() == {HostEndpointId("hep"): "error"}
    states.interface_changed("eth0", "down", NONE, 2)
    assert states.changes() == {HostEndpointId("hep"): "down"}
    states.interface_changed("eth0", "up", NONE, 2)
    assert states.changes() == {HostEndpointId("hep"): "up"}
    states.on_message(HostEndpointRemove("hep"))
    assert states.changes() == {HostEndpointId("hep"): None}


def test_a_host_endpoint_finds_its_interface_by_address() -> None:
    states = EndpointStates()
    states.on_message(HostEndpointUpdate(HostEndpoint("hep", expected_ips=("10.0.0.9",))))
    states.interface_changed("eth0", "up", frozenset({"10.0.0.8"}), 2)
    states.applied([])
    assert states.changes() == {HostEndpointId("hep"): "error"}
    states.interface_changed("eth0", "up", frozenset({"10.0.0.8", "10.0.0.9"}), 2)
    assert states.changes() == {HostEndpointId("hep"): "up"}


def test_a_host_endpoint_for_all_interfaces_is_up() -> None:
    states = EndpointStates()
    states.on_message(HostEndpointUpdate(HostEndpoint("all", interface="*")))
    states.applied([])
    assert states.changes() == {HostEndpointId("all"): "up"}
