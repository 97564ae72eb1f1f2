from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.explain.denied import DeniedBy, DeniedFlow, DeniedFlows, denied_by, denied_flow, with_endpoint
from tests.felix.explain.worlds import host_endpoint, ingress, policy, state_of, workload
from tests.felix.truth.sockets import udp_packet

PREFIX = "D|default/web|2|in"
UDP = udp_packet("10.0.0.1", "10.0.0.2", 40000, 53, b"x")


def ipv6_packet(protocol: int, rest: bytes) -> bytes:
    addresses = ipaddress.ip_address("fd00::1").packed + ipaddress.ip_address("fd00::2").packed
    return struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64) + addresses + rest


@pytest.mark.parametrize(
    ("prefix", "by"),
    [
        ("D|default/web|2|in", DeniedBy("default", "web", 2, "in")),
        ("D|default/ns/web|end-of-tier|out ", DeniedBy("default", "ns/web", None, "out")),
        ("D|security/none|end-of-tier|in", DeniedBy("security", "none", None, "in")),
        ("D|default/web|2", None),
        ("D|default/web|2|sideways", None),
        ("X|default/web|2|in", None),
        ("calico-packet", None),
    ],
)
def test_the_prefix_says_what_denied(prefix: str, by: DeniedBy | None) -> None:
    assert denied_by(prefix) == by


def test_a_udp_packet() -> None:
    flow = denied_flow(PREFIX, UDP, "calia", "calib")
    assert flow is not None
    assert flow.view() == {
        "source": "10.0.0.1",
        "destination": "10.0.0.2",
        "protocol": "udp",
        "source_port": 40000,
        "destination_port": 53,
        "direction": "ingress",
        "endpoint": "calia",
        "tier": "default",
        "policy": "web",
        "rule": 2,
    }


@pytest.mark.parametrize(
    ("prefix", "view"),
    [
        ("D|default|end-of-tier|in", {"tier": "default", "rule": "end of tier"}),
        ("D|profile/kns.default|1|in", {"profile": "kns.default", "rule": 1}),
        ("D|profile|no-match|out", {"rule": "no profile allowed it"}),
    ],
)
def test_what_denied_in_words(prefix: str, view: dict[str, object]) -> None:
    flow = denied_flow(prefix, UDP)
    assert flow is not None
    found = flow.view()
    assert {name: found[name] for name in ("tier", "policy", "profile", "rule") if name in found} == view


def test_a_later_fragment_has_no_ports() -> None:
    fragment = UDP[:6] + struct.pack("!H", 100) + UDP[8:]
    flow = denied_flow(PREFIX, fragment)
    assert flow is not None
    assert (flow.protocol, flow.destination_port) == (17, None)


def test_ports_behind_extension_headers_of_ipv6() -> None:
    tcp = struct.pack("!HH", 40000, 443)
    hop_by_hop, destination = bytes([60, 0]) + b"\0" * 6, bytes([6, 1]) + b"\0" * 14
    flow = denied_flow(PREFIX, ipv6_packet(0, hop_by_hop + destination + tcp))
    assert flow is not None
    assert (flow.source, flow.protocol, flow.destination_port) == ("fd00::1", 6, 443)


def test_icmpv6() -> None:
    flow = denied_flow(PREFIX, ipv6_packet(58, bytes([128, 0, 0, 0])))
    assert flow is not None
    assert flow.icmp == (128, 0)


@given(st.binary(max_size=80))
def test_octets_from_anywhere_raise_nothing(data: bytes) -> None:
    flow = denied_flow(PREFIX, data)
    assert flow is None or flow.view()["tier"] == "default"


@given(st.integers(0, len(UDP)))
def test_a_packet_that_was_cut_is_told_as_far_as_it_is_there(octets: int) -> None:
    flow = denied_flow(PREFIX, UDP[:octets])
    assert (flow is not None) is (octets >= 20)
    assert flow is None or (flow.destination_port == 53) is (octets >= 24)


def test_whose_policy_it_was() -> None:
    state = state_of(
        policy("web"),
        policy("guard"),
        workload("b", "10.0.0.2", ingress("web")),
        host_endpoint(forward_tiers=(ingress("guard"),)),
    )
    flow = denied_flow(PREFIX, UDP, "eth0", "calib")
    assert flow is not None

    def none(_interface: str) -> frozenset[str]:
        return frozenset()

    assert with_endpoint(flow, state, none).endpoint == "default/b"
    guarded = replace(flow, by=DeniedBy("default", "guard", 0, "in"))
    assert with_endpoint(guarded, state, none).endpoint == "host endpoint eth0"
    assert with_endpoint(replace(guarded, out_interface=""), state, none).endpoint == "host endpoint eth0"
    assert with_endpoint(replace(flow, in_interface="eth9", out_interface="eth8"), state, none).endpoint == ""


FLOW = DeniedFlow("10.0.0.1", "10.0.0.2", 6, DeniedBy("default", "web", 0, "in"), 40000, 80)


def test_the_first_packet_is_told_and_the_rest_is_a_number() -> None:
    flows = DeniedFlows(summary_s=30)
    assert flows.note(FLOW, 100.0) == FLOW
    assert [flows.note(replace(FLOW, source_port=port), 101.0) for port in (40001, 40002)] == [None, None]
    assert list(flows.due(129.9)) == []
    (repeated,) = flows.due(130.0)
    assert (repeated.count, repeated.flow.source_port, repeated.last_at) == (3, 40000, 101.0)
    assert flows.note(FLOW, 131.0) == FLOW


def test_a_scan_of_all_ports_is_told_in_part_and_counted_whole() -> None:
    flows = DeniedFlows(events_per_s=20)
    told = [flows.note(replace(FLOW, destination_port=port), 100.0) for port in range(1, 1001)]
    assert sum(one is not None for one in told) == 20
    assert (flows.total, flows.untold) == (1000, 980)
    assert flows.by_policy == {("default", "web", "in"): 1000}
    assert flows.note(replace(FLOW, destination_port=2000), 101.0) is not None


def test_what_is_remembered_is_bounded() -> None:
    counted: Counter[tuple[str, str, str]] = Counter()
    flows = DeniedFlows(most_kinds=10, events_per_s=1e9, counted=lambda *key: counted.update([key]))
    for number in range(100):
        flows.note(replace(FLOW, destination_port=number, by=DeniedBy("default", f"p{number}", 0, "in")), float(number))
    assert flows.total == 100
    assert len(flows.by_policy) == 11
    assert flows.by_policy["", "others", "in"] == 90
    assert counted == flows.by_policy
