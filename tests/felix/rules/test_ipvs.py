"""kube-proxy with IPVS: a packet for a service passes INPUT and OUTPUT, and meets the policies that FORWARD would ask."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.desired import (
    Entity,
    HostEndpoint,
    HostEndpointUpdate,
    Message,
    Policy,
    PolicyRule,
    PolicyUpdate,
    PortRange,
    TierPolicies,
    WorkloadUpdate,
)  # fmt: skip
from felix.rules.ipvs import DEVICE, EndpointMarks, fnv1
from felix.rules.marks import marks_of
from felix.rules.ruleset import RuleProgrammer
from felix.rules.settings import RuleSettings
from tests.felix.rules.packet import Packet, Walk
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.rules.world import HOST, global_id, told, workload

SERVICE, POD_A, POD_B, OUTSIDE, HOST_ETH0 = "10.96.0.10", "10.0.0.1", "10.0.0.2", "192.0.2.9", HOST["eth0"][0]
SETTINGS = RuleSettings(interface_exclude=(re.compile("^kube-ipvs0$"),))
TCP = 6


def tiers(*, ingress: str = "", egress: str = "") -> TierPolicies:
    return TierPolicies(
        "default", "Deny", (global_id(ingress),) if ingress else (), (global_id(egress),) if egress else ()
    )


def to_port(port: int) -> tuple[PolicyRule, ...]:
    return (PolicyRule("allow", protocol=TCP, destination=Entity(ports=(PortRange(port, port),))),)


POLICIES: list[Message] = [
    PolicyUpdate(Policy(global_id("web-in"), "default", inbound=to_port(8080))),
    PolicyUpdate(Policy(global_id("web-out"), "default", outbound=to_port(8080))),
    PolicyUpdate(Policy(global_id("nothing"), "default")),
]


@pytest.fixture(params=[True, False], ids=["nftables", "iptables"])
def filter_(request: pytest.FixtureRequest) -> RecordingFilter:
    return RecordingFilter(4, is_like_nftables=request.param)


def node(filter_: RecordingFilter, *messages: Message) -> RuleProgrammer:
    programmer = told(filter_, SETTINGS, [*POLICIES, *messages])
    programmer.interface_changed(DEVICE, "down", frozenset({SERVICE}), 9)
    programmer.complete()
    return programmer


def through_ipvs(filter_: RecordingFilter, source: str, in_interface: str, out_interface: str, port: int = 8080) -> str:
    """To the service at port 80; IPVS turns to a pod's `port` between INPUT and OUTPUT."""
    walk = Walk(filter_.ruleset, filter_.sets, frozenset({HOST_ETH0, SERVICE}))
    packet = Packet(source, SERVICE, TCP, 40000, 80, None, in_interface)
    for table, hook in (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("filter", "INPUT")):
        if walk._hook(table, hook, packet) == "drop":  # type: ignore[arg-type]
            return "drop"
    # The input interface is not there to be asked in OUTPUT.
    packet.destination, packet.destination_port = POD_B, port
    packet.in_interface, packet.out_interface = "", out_interface
    for table, hook in (("filter", "OUTPUT"), ("mangle", "POSTROUTING")):
        if walk._hook(table, hook, packet) == "drop":  # type: ignore[arg-type]
            return "drop"
    return "accept"


def test_egress_policy_of_the_pod_that_asks_decides_by_the_pod_behind_the_service(filter_: RecordingFilter) -> None:
    node(filter_, WorkloadUpdate(workload("a", tiers(egress="web-out"))))
    assert through_ipvs(filter_, POD_A, "calia", "eth0") == "accept"
    assert through_ipvs(filter_, POD_A, "calia", "eth0", port=8081) == "drop"


def test_ingress_policy_of_the_pod_behind_the_service_decides(filter_: RecordingFilter) -> None:
    node(filter_, WorkloadUpdate(workload("b", tiers(ingress="web-in"))))
    assert through_ipvs(filter_, OUTSIDE, "eth1", "calib") == "accept"
    assert through_ipvs(filter_, OUTSIDE, "eth1", "calib", port=8081) == "drop"


def test_both_policies_decide_between_pods_of_this_node(filter_: RecordingFilter) -> None:
    node(
        filter_,
        WorkloadUpdate(workload("a", tiers(egress="web-out"))),
        WorkloadUpdate(workload("b", tiers(ingress="web-in"))),
        WorkloadUpdate(workload("closed", tiers(ingress="nothing"))),
    )
    assert through_ipvs(filter_, POD_A, "calia", "calib") == "accept"
    assert through_ipvs(filter_, POD_A, "calia", "caliclosed") == "drop"


def test_a_workload_that_nobody_knows_gets_nothing_through(filter_: RecordingFilter) -> None:
    node(filter_, WorkloadUpdate(workload("b", tiers(ingress="web-in"))))
    assert through_ipvs(filter_, POD_A, "caliunknown", "calib") == "drop"


@pytest.mark.parametrize("interface", ["eth0", "*"])
def test_apply_on_forward_of_the_host_endpoint_decides(filter_: RecordingFilter, interface: str) -> None:
    def endpoint(policy: str) -> Message:
        return HostEndpointUpdate(HostEndpoint("h", interface, forward_tiers=(tiers(ingress=policy),)))

    programmer = node(filter_, endpoint("web-in"))
    assert through_ipvs(filter_, OUTSIDE, "eth0", "eth1") == "accept"
    programmer.on_message(endpoint("nothing"))
    programmer.complete()
    assert through_ipvs(filter_, OUTSIDE, "eth0", "eth1") == "drop"


def test_a_packet_to_the_host_itself_is_still_one(filter_: RecordingFilter) -> None:
    node(filter_, WorkloadUpdate(workload("a")))
    walk = Walk(filter_.ruleset, filter_.sets, frozenset({HOST_ETH0}))
    assert walk.verdict(Packet(POD_A, HOST_ETH0, TCP, 40000, 22, None, "calia")) == "drop"  # endpoint to host
    assert walk.verdict(Packet(OUTSIDE, HOST_ETH0, TCP, 40000, 22, None, "eth0")) == "accept"


def test_the_services_addresses_are_not_the_hosts(filter_: RecordingFilter) -> None:
    programmer = node(filter_)
    assert f"{SERVICE}/32" not in filter_.sets["this-host"][1]
    programmer.reconfigure(replace(SETTINGS, interface_exclude=()))
    programmer.complete()
    assert f"{SERVICE}/32" in filter_.sets["this-host"][1]


def test_without_ipvs_nothing_of_it_is_there(filter_: RecordingFilter) -> None:
    fresh = RecordingFilter(4, is_like_nftables=filter_.has_verdict_maps)
    told(fresh, SETTINGS, [*POLICIES, WorkloadUpdate(workload("a"))])
    programmer = node(filter_, WorkloadUpdate(workload("a")))
    assert "cali-sm-calia" in filter_.chains["filter"]
    programmer.interface_changed(DEVICE, "gone", frozenset(), 9)
    programmer.complete()
    assert filter_.chains == fresh.chains


def test_a_mask_without_bits_to_spare_does_without_ipvs(filter_: RecordingFilter) -> None:
    programmer = node(filter_, WorkloadUpdate(workload("a")))
    programmer.reconfigure(replace(SETTINGS, mark_mask=0x3F))
    programmer.complete()
    assert "cali-forward-check" not in filter_.chains["filter"]


# --- bits

MARKS = marks_of(0xFFFF0000)


def test_the_hash_is_fnv_1() -> None:
    # From the algorithm's published vectors.
    assert [fnv1(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0x050C5D7E, 0x31F0B262]


interface_sets = st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), max_size=40)


@given(st.lists(interface_sets, max_size=5))
def test_marks_are_distinct_within_their_bits_and_stay(states: list[set[str]]) -> None:
    marks = EndpointMarks(MARKS)
    before: dict[str, int] = {}
    for interfaces in states:
        now = marks.keep(interfaces)
        assert now.keys() == interfaces
        assert len(set(now.values())) == len(now)
        assert all(bits and bits != MARKS.no_endpoint and bits & ~MARKS.endpoint == 0 for bits in now.values())
        assert all(now[name] == before[name] for name in now.keys() & before.keys())
        before = now


def test_interfaces_beyond_the_last_place_get_none() -> None:
    few = marks_of(0x1FF)  # three bits: seven values, one of which says "none of ours"
    given_ = EndpointMarks(few).keep(f"cali{number}" for number in range(20))
    assert len(given_) == 6
    assert len(set(given_.values())) == 6
