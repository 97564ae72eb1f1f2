"""A kernel takes every rule that can be made, with each renderer: what a rule cannot do, it says only there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from felix.desired import IPVersion
from felix.filter_rules import Ruleset
from felix.kernel.iptables import IptablesFilter
from felix.kernel.nftables import NftablesFilter
from felix.ports import Failure, PacketFilter
from felix.rules.settings import RuleSettings
from tests.felix.rules.world import EVERYTHING, PLAIN, messages, told
from tests.netns import network_namespace

pytestmark = pytest.mark.root

RENDERERS: dict[str, Callable[[IPVersion], PacketFilter]] = {
    "nftables": NftablesFilter,
    "iptables-nft": lambda version: IptablesFilter(version, "nft"),
    "iptables-legacy": lambda version: IptablesFilter(version, "legacy"),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("settings", [EVERYTHING, PLAIN], ids=["everything", "plain"])
def test_the_kernel_takes_every_rule_and_finds_none_to_correct(
    settings: RuleSettings, renderer: str, version: IPVersion
) -> None:
    async def apply() -> tuple[list[Failure], list[str]]:
        programmer = told(RENDERERS[renderer](version), settings, messages())
        if settings is EVERYTHING:
            programmer.interface_changed("kube-ipvs0", "down", frozenset(), 9)
        return await programmer.apply(0.0), await programmer.filter.check()

    def run() -> tuple[list[Failure], list[str]]:
        with asyncio.Runner() as runner:
            asyncio.get_event_loop_policy().set_child_watcher(asyncio.ThreadedChildWatcher())
            return runner.run(apply())

    with network_namespace() as namespace:
        failures, altered = namespace.call(run)
    assert failures == []
    assert altered == []


def test_the_ruleset_of_everything_is_not_empty_by_mistake() -> None:
    from tests.felix.rules.recording_filter import RecordingFilter

    found: Ruleset = (filter_ := RecordingFilter(4, is_like_nftables=True)).ruleset
    told(filter_, EVERYTHING, messages())
    assert {table: len(chains) > 4 for table, chains in found.chains.items()} == dict.fromkeys(
        ("raw", "mangle", "nat", "filter"), True
    )
