"""`policy-stats`: how many packets each rule has met, by policy, as JSON; and that as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from felix.desired import Policy, PolicyId, PolicyRule
from felix.explain.decide import Direction
from felix.explain.matching import rule_text
from felix.explain.state import DesiredState
from felix.explain.view import View


class RuleOf(NamedTuple):
    """Whose rule a rule of the packet filter is: a policy's, or a profile's (`policy` None). `rule` counts from 0."""

    policy: PolicyId | None
    profile: str
    direction: Direction
    rule: int


@dataclass(slots=True)
class Count:
    packets: int = 0
    octets: int = 0

    def add(self, packets: int, octets: int) -> None:
        self.packets += packets
        self.octets += octets


Counted = Iterable[tuple[RuleOf, int, int]]  # whose rule, packets, octets; several of one rule are summed


def statistics_view(state: DesiredState, counted: Counted) -> View:
    """`{policies: [{kind, namespace, name, tier, staged, packets, bytes, ingress, egress}], profiles: [...]}`.

    `ingress` and `egress` are lists of `{index, text, packets, bytes}`, with every rule of the policy. Tiers by name,
    policies by name; packets of connections that are known already meet no rule, and so are not counted.
    """
    counts: dict[RuleOf, Count] = {}
    for rule, packets, octets in counted:
        counts.setdefault(rule, Count()).add(packets, octets)
    policies = sorted(state.policies.values(), key=lambda one: (one.tier, one.id.name, one.id.namespace, one.id.kind))
    profiles = sorted(state.profiles.values(), key=lambda one: one.name)
    return {
        "policies": [_policy_view(policy, counts) for policy in policies],
        "profiles": [
            {"name": one.name} | _rules_view(one.inbound, one.outbound, None, one.name, counts) for one in profiles
        ],
    }


def _policy_view(policy: Policy, counts: Mapping[RuleOf, Count]) -> View:
    id = policy.id
    head = {"kind": id.kind, "namespace": id.namespace, "name": id.name, "tier": policy.tier, "staged": id.is_staged}
    return head | _rules_view(policy.inbound, policy.outbound, id, "", counts)


def _rules_view(
    inbound: tuple[PolicyRule, ...],
    outbound: tuple[PolicyRule, ...],
    policy: PolicyId | None,
    profile: str,
    counts: Mapping[RuleOf, Count],
) -> View:
    total = Count()
    lists: dict[str, list[View]] = {}
    sides: tuple[tuple[str, Direction, tuple[PolicyRule, ...]], ...] = (
        ("ingress", "in", inbound),
        ("egress", "out", outbound),
    )
    for name, direction, rules in sides:
        lists[name] = []
        for index, rule in enumerate(rules):
            count = counts.get(RuleOf(policy, profile, direction, index), Count())
            total.add(count.packets, count.octets)
            lists[name].append(
                {"index": index, "text": rule_text(rule), "packets": count.packets, "bytes": count.octets}
            )
    return {"packets": total.packets, "bytes": total.octets, **lists}


def statistics_lines(view: Mapping[str, Any], *, only_met: bool = False) -> Iterator[str]:
    """A line a policy or profile, and below it one a rule. `only_met`: those alone that a packet has met."""
    yield f"{'PACKETS':>12} {'BYTES':>14}  POLICY"
    for one in view["policies"]:
        name = f"{one['namespace']}/{one['name']}" if one["namespace"] else one["name"]
        staged = ", staged: counted, not enforced" if one["staged"] else ""
        yield from _lines(one, f"{one['kind']} {name} (tier {one['tier']}{staged})", only_met)
    for one in view["profiles"]:
        yield from _lines(one, f"Profile {one['name']}", only_met)


def _lines(one: Mapping[str, Any], title: str, only_met: bool) -> Iterator[str]:
    if only_met and not one["packets"]:
        return
    yield f"{one['packets']:>12} {one['bytes']:>14}  {title}"
    for side in ("ingress", "egress"):
        for rule in one[side]:
            if rule["packets"] or not only_met:
                yield f"{rule['packets']:>12} {rule['bytes']:>14}    {side} {rule['index']}: {rule['text']}"
