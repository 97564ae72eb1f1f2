"""Where chains need not be Calico's (nftables), what most packets meet is short, and opens nothing that was closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from felix.desired import (
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    Message,
    QoS,
    WorkloadRemove,
    WorkloadUpdate,
)
from felix.filter_rules import HookRules
from felix.rules.ruleset import RuleProgrammer
from felix.rules.settings import RuleSettings
from tests.felix.rules.packet import Packet, Verdict, Walk
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.rules.world import PLAIN, told, workload, workload_id

A, B = workload("a", ipv4_nets=("10.0.0.1/32",)), workload("b", ipv4_nets=("10.0.0.2/32",))


class Node:
    def __init__(self, *more: Message, settings: RuleSettings = PLAIN, is_like_nftables: bool = True) -> None:
        self.filter = RecordingFilter(4, is_like_nftables=is_like_nftables)
        self.programmer: RuleProgrammer = told(self.filter, settings, [WorkloadUpdate(A), WorkloadUpdate(B), *more])

    def tell(self, *these: Message) -> None:
        for one in these:
            self.programmer.on_message(one)
        self.programmer.complete()

    def send(
        self, *, by: str = "calia", known: bool = True, mark: int = 0, spoofed: bool = False, port: int = 80
    ) -> tuple[Verdict, int]:
        """The verdict on a packet from a to b, and how many rules counted it."""
        packet = Packet(
            "10.0.0.1", "10.0.0.2", 17, destination_port=port, in_interface=by, out_interface="calib", mark=mark,
            conntrack="ESTABLISHED" if known else "NEW", is_reverse_path_wrong=spoofed,
        )  # fmt: skip
        return Walk(self.filter.ruleset, self.filter.sets, frozenset()).verdict(packet), len(packet.met)

    def mangles(self) -> bool:
        return any(rules != HookRules() for (table, _), rules in self.filter.hooks.items() if table == "mangle")


def test_a_packet_of_a_known_connection_meets_two_rules() -> None:
    assert Node().send() == ("accept", 2)  # to what workloads' packets meet, and known
    assert Node(is_like_nftables=False).send()[1] > 10  # Calico's order


def test_new_connections_and_spoofed_packets_are_judged_as_ever() -> None:
    node = Node()
    assert node.send(known=False)[0] == "drop"  # neither policy nor profile
    assert node.send(spoofed=True)[0] == "drop"
    assert node.send(known=False, mark=PLAIN.mark_mask)[0] == "drop"  # what others left in our bits accepts nothing


def test_an_endpoint_that_is_down_stops_known_connections() -> None:
    node = Node()
    node.tell(WorkloadUpdate(replace(A, is_up=False)))
    assert node.send()[0] == "drop"
    node.tell(WorkloadUpdate(A))
    assert node.send() == ("accept", 2)
    node.tell(WorkloadUpdate(replace(A, is_up=False)))
    node.tell(WorkloadRemove(workload_id("a")))
    assert node.send(by="calib") == ("accept", 2)


@pytest.mark.parametrize("qos", [QoS(ingress_packet_rate=10), QoS(egress_packet_rate=10)])
def test_a_packet_rate_counts_the_packets_of_known_connections(qos: QoS) -> None:
    node = Node()
    node.tell(WorkloadUpdate(replace(A, qos=qos)))
    assert node.send()[1] > 3
    node.tell(WorkloadUpdate(replace(A, qos=QoS(ingress_max_connections=5))))
    assert node.send()[1] == 2


def test_who_returns_what_it_accepts_leaves_known_connections_to_others_rules() -> None:
    assert Node(settings=replace(PLAIN, filter_allow="RETURN")).send()[1] > 3


def test_where_routes_may_outlast_endpoints_known_connections_ask_who_is_there() -> None:
    node = Node(settings=replace(PLAIN, leaves_routes=True))
    assert node.send()[0] == "accept"
    node.tell(WorkloadRemove(workload_id("a")), WorkloadRemove(workload_id("b")))
    assert node.send()[0] == "drop"


def test_workloads_tunnel_packets_belong_to_no_known_connection() -> None:
    node = Node(settings=replace(PLAIN, has_vxlan=True))
    assert node.send(port=4789)[0] == "drop"


def test_mangle_is_hooked_while_it_has_something_to_do() -> None:
    node = Node()
    assert not node.mangles()
    node.tell(HostEndpointUpdate(HostEndpoint("eth0", "eth0")))
    assert node.mangles()
    node.tell(HostEndpointRemove("eth0"))
    assert not node.mangles()
    node.tell(WorkloadUpdate(replace(A, qos=QoS(dscp=46))))
    assert node.mangles()
    node.tell(WorkloadUpdate(A))
    assert not node.mangles()
    assert Node(is_like_nftables=False).mangles()
