"""From any state to any state: what the rules' programmer leaves in the packet filter is what a new one would write."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from felix.desired import (
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    Message,
    PolicyRemove,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from felix.filter_rules import GoTo, Jump
from felix.rules.ruleset import RuleProgrammer
from felix.rules.settings import RuleSettings
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.truth.test_agreement import HOST, Chance

Item = tuple[type, object]
INTERFACES = ("calia", "calib", "calic")


def item_of(message: Message) -> Item | None:
    match message:
        case PolicyUpdate(policy):
            return PolicyRemove, policy.id
        case ProfileUpdate(profile):
            return ProfileRemove, profile.name
        case WorkloadUpdate(endpoint):
            return WorkloadRemove, endpoint.id
        case HostEndpointUpdate(endpoint):
            return HostEndpointRemove, endpoint.name
    return None


def world(seed: int) -> dict[Item, Message]:
    """Policies, profiles, host endpoints, and some workloads that want some interfaces, the same one too."""
    chance = Chance(seed)
    found = {item: message for message in chance.world() if (item := item_of(message)) is not None}
    endpoints = [message.endpoint for message in found.values() if isinstance(message, WorkloadUpdate)]
    found = {item: message for item, message in found.items() if not isinstance(message, WorkloadUpdate)}
    for name in chance.some(["w0", "w1", "w2", "w3"], 4):
        like: WorkloadEndpoint = chance.one(endpoints)
        id = WorkloadId("k8s", f"default/{name}", "eth0")
        found[WorkloadRemove, id] = WorkloadUpdate(replace(like, id=id, interface=chance.one(INTERFACES)))
    by_address = HostEndpoint("h-address", "", ("192.0.2.1", "198.51.100.1"), profiles=("one",))
    if chance.one([True, False]):
        found[HostEndpointRemove, by_address.name] = HostEndpointUpdate(by_address)
    return found


def changes_between(now: Iterable[Message], wanted: Iterable[Message]) -> list[Message]:
    """In the calculation's order: who names comes after what is named, and goes before it."""
    before, after = ({item_of(message): message for message in its} for its in (now, wanted))
    changed = [message for item, message in after.items() if before.get(item) != message]
    changed.sort(
        key=lambda message: [PolicyUpdate, ProfileUpdate, WorkloadUpdate, HostEndpointUpdate].index(type(message))
    )
    gone = [item for item in before if item is not None and item not in after]
    gone.sort(key=lambda item: [HostEndpointRemove, WorkloadRemove, ProfileRemove, PolicyRemove].index(item[0]))
    return changed + [kind(name) for kind, name in gone]


def programmer(*, is_like_nftables: bool) -> tuple[RuleProgrammer, RecordingFilter]:
    filter_ = RecordingFilter(4, is_like_nftables=is_like_nftables)
    made = RuleProgrammer(filter_, RuleSettings())
    for number, (name, addresses) in enumerate(HOST.items(), 1):
        made.interface_changed(name, "up", frozenset(addresses), number)
    return made, filter_


def contents(filter_: RecordingFilter) -> object:
    chains = {table: its for table, its in filter_.chains.items() if its}
    return chains, filter_.hooks, filter_.maps, filter_.sets


def dangling(filter_: RecordingFilter) -> list[str]:
    """Chains that something names and that are not there."""
    missing = []
    for table, chains in filter_.chains.items():
        named = [
            rule.action.chain for one in chains.values() for rule in one.rules if isinstance(rule.action, Jump | GoTo)
        ]
        named += [target for its in filter_.maps.get(table, {}).values() for target in its.values()]
        missing += [f"{table} {name}" for name in named if name not in chains]
    return missing


@pytest.mark.parametrize("is_like_nftables", [True, False], ids=["nftables", "iptables"])
@pytest.mark.parametrize("seed", range(30))
def test_the_way_does_not_matter(seed: int, is_like_nftables: bool) -> None:
    one, its = programmer(is_like_nftables=is_like_nftables)
    order = random.Random(seed)
    now: dict[Item, Message] = {}
    for step in range(6):
        wanted = world(seed * 100 + step)
        for message in changes_between(now.values(), wanted.values()):
            one.on_message(message)
            if isinstance(message, WorkloadUpdate | WorkloadRemove) and order.random() < 0.2:
                one.complete()
                assert dangling(its) == []
        one.complete()
        now = wanted
        fresh, expected = programmer(is_like_nftables=is_like_nftables)
        for message in sorted(wanted.values(), key=lambda message: order.random()):
            fresh.on_message(message)
        fresh.complete()
        assert dangling(its) == []
        assert contents(its) == contents(expected)
