"""What the kernel tells, rule by rule, becomes one way a packet."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from felix.desired import PolicyRule
from felix.explain.state import DesiredState
from felix.explain.traced import QUIET_S, Owner, Packets, Step, header_view, traced_lines
from felix.explain.view import View
from tests.felix.explain.worlds import policy, policy_id, state_of
from tests.felix.truth.sockets import udp_packet

STATE = state_of(policy("web", PolicyRule("allow")))
UDP = udp_packet("10.0.0.1", "10.0.0.2", 40000, 53, b"x")
OTHER = udp_packet("10.0.0.1", "10.0.0.2", 40001, 53, b"x")
WEB = Owner(policy_id("web"), "in", 0)


def step(verdict: str, hook: str = "", chain: str = "", header: bytes = b"", **more: object) -> Step:
    made = Step(7, "calico", chain or hook.partition(" ")[2], "rule", 0, verdict, hook, header=header)
    return replace(made, **more)  # type: ignore[arg-type]


def arrives(header: bytes = UDP, packet: int = 7) -> Step:
    return step("accept", "raw PREROUTING", header=header, packet=packet)


def forwarded(verdict: str, header: bytes = UDP, packet: int = 7) -> list[Step]:
    end = step(verdict, chain="cali-pi-web", owner=WEB, packet=packet)
    return [step("jump cali-FORWARD", "filter FORWARD", header=header, packet=packet), end]


def leaves(header: bytes = UDP, packet: int = 7) -> Step:
    return step("accept", "mangle POSTROUTING", header=header, packet=packet)


def told(*steps: Step, state: DesiredState = STATE) -> list[View]:
    packets = Packets(state)
    found = [view for number, one in enumerate(steps) for view in packets.take(one, number * 0.001)]
    return [*found, *packets.rest()]


def verdicts(views: Iterable[View]) -> list[str]:
    return [view["verdict"] for view in views]


def test_a_drop_ends_a_packet_at_once() -> None:
    packets = Packets(STATE)
    assert list(packets.take(arrives(), 0)) == []
    first, last = forwarded("drop")
    assert list(packets.take(first, 0)) == []
    (view,) = packets.take(last, 0)
    assert view["verdict"] == "deny"
    assert view["reason"] == "GlobalNetworkPolicy web in tier default, ingress rule 0: allow"
    assert packets.is_empty


def test_another_packet_ends_after_a_silence() -> None:
    packets = Packets(STATE)
    for one in (arrives(), *forwarded("accept"), leaves()):
        assert list(packets.take(one, 1.0)) == []
    assert list(packets.quiet(1.0 + QUIET_S / 2)) == []
    (view,) = packets.quiet(1.0 + 2 * QUIET_S)
    assert (view["packet"], view["verdict"]) == (1, "allow")
    assert [one["hook"] for one in view["hooks"]] == ["raw PREROUTING", "filter FORWARD", "mangle POSTROUTING"]


def test_what_is_not_seen_again_is_lost_and_not_allowed() -> None:
    (view,) = told(arrives())
    assert view["verdict"] == "lost"
    assert view["reason"].startswith("not seen again after raw PREROUTING")


def test_packets_on_their_way_at_once_are_told_apart() -> None:
    """On two processors: what the kernel tells of the one comes between what it tells of the other."""
    first, second = forwarded("drop"), forwarded("accept", OTHER, 8)
    views = told(arrives(), arrives(OTHER, 8), first[0], second[0], second[1], first[1], leaves(OTHER, 8))
    assert [(view["verdict"], view["flow"]["sourcePort"]) for view in views] == [("deny", 40000), ("allow", 40001)]


def test_the_kernel_may_use_a_number_again() -> None:
    views = told(arrives(), *forwarded("accept"), leaves(), arrives(OTHER), *forwarded("accept", OTHER), leaves(OTHER))
    assert [len(view["hooks"]) for view in views] == [3, 3]


def test_the_same_packet_sent_again_is_another() -> None:
    views = told(arrives(), *forwarded("accept"), leaves(), arrives(), *forwarded("drop"))
    assert verdicts(views) == ["allow", "deny"]


def test_a_translated_packet_stays_the_same() -> None:
    translated = udp_packet("10.0.0.1", "10.0.0.9", 40000, 5353, b"x")
    (view,) = told(arrives(), *forwarded("accept", translated), leaves(translated))
    assert view["flow"]["destination"] == "10.0.0.2"
    assert view["hooks"][1]["flow"]["destination"] == "10.0.0.9"
    assert "flow" not in view["hooks"][2]
    assert "    now udp 10.0.0.1 port 40000 -> 10.0.0.9 port 5353" in list(traced_lines(view))


def test_another_program_s_denial_is_told_as_such() -> None:
    alien = step("drop", chain="fw", header=UDP, table="firewall", rule=None)
    (view,) = told(arrives(), alien)
    assert view["reason"] == "another program's table firewall, chain fw"


def test_of_a_policy_s_rule_one_line_is_shown_and_of_one_without_a_match_too() -> None:
    first, _ = forwarded("drop")
    passed = step("continue", chain="cali-pi-none", owner=WEB._replace(rule=None), kind="end", rule=None)
    steps = [step(word, chain="cali-pi-web", owner=WEB, rule=at) for at, word in enumerate(("continue", "drop"))]
    (view,) = told(first, passed, *steps)
    assert [line.strip() for line in traced_lines(view)][-5:] == [
        "cali-pi-none: GlobalNetworkPolicy web in tier default, ingress",
        "no rule of it matches",
        "cali-pi-web: GlobalNetworkPolicy web in tier default, ingress",
        "0  allow  => drop",
        "",
    ]


def test_a_policy_that_is_gone_by_now_is_told_by_its_name() -> None:
    (view,) = told(*forwarded("drop"), state=DesiredState())
    assert view["hooks"][0]["steps"][-1]["policy"]["name"] == "web"


@given(st.binary(max_size=80))
def test_no_octets_in_a_packet_are_an_error(octets: bytes) -> None:
    header_view(octets)
    for view in told(arrives(octets), *forwarded("accept", octets)):
        list(traced_lines(view))


def test_tcp_flags_are_told() -> None:
    segment = struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x12, 0, 0, 0)
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    assert header_view(packet + segment)["tcpFlags"] == ["SYN", "ACK"]
