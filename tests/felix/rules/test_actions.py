"""How Felix accepts and denies, and which bits it uses, decides no packet: any settings of these give one verdict."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from felix.desired import IPVersion, Message, WorkloadUpdate
from felix.rules.settings import Failsafe, RuleSettings
from tests.felix.rules.packet import Walk
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.rules.world import told
from tests.felix.truth.test_agreement import FAILSAFES, HOST, Chance

PORTS = tuple(Failsafe(*one) for one in FAILSAFES)
USUAL = RuleSettings(failsafe_in=PORTS, failsafe_out=PORTS)
OTHERS = {
    "returns": replace(USUAL, filter_allow="RETURN", mangle_allow="RETURN"),
    "rejects": replace(USUAL, deny="REJECT"),
    "tells": replace(USUAL, denied_group=2),
    "other bits": replace(USUAL, mark_mask=0x1F),
    "behind others": replace(USUAL, inserts=False),
}


def walk(settings: RuleSettings, messages: list[Message], version: IPVersion, is_like_nftables: bool) -> Walk:
    filter_ = RecordingFilter(version, is_like_nftables=is_like_nftables)
    programmer = told(filter_, settings, messages)
    for number, (name, addresses) in enumerate(HOST.items(), 1):
        programmer.interface_changed(name, "up", frozenset(addresses), number)
    programmer.complete()
    return Walk(filter_.ruleset, filter_.sets, frozenset(name for its in HOST.values() for name in its))


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("is_like_nftables", [True, False], ids=["nftables", "iptables"])
def test_the_verdict_does_not_depend_on_how_it_is_said(other: str, is_like_nftables: bool) -> None:
    chance = Chance(len(other))
    verdicts = set()
    for _ in range(12):
        # A known connection is accepted by the first endpoint, and if that returns by each of them: all must be up.
        world = [
            WorkloadUpdate(replace(one.endpoint, is_up=True)) if isinstance(one, WorkloadUpdate) else one
            for one in chance.world()
        ]
        walks = {
            (settings, version): walk(settings, world, version, is_like_nftables)
            for settings in (USUAL, OTHERS[other])
            for version in (4, 6)
        }
        for _ in range(40):
            flow, packet = chance.question()
            packets = [copy.deepcopy(packet) for _ in range(2)]
            found = [
                walks[settings, flow.version].verdict(one)
                for settings, one in zip((USUAL, OTHERS[other]), packets, strict=True)
            ]
            assert found[0] == found[1], "\n".join([str(packet), *(" > ".join(one.path) for one in packets)])
            verdicts.add(found[0])
    assert verdicts == {"accept", "drop"}
