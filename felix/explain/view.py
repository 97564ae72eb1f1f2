"""An explanation as JSON for programs, and that JSON as lines for people.

Lines are made from the JSON, not from the values: whoever asked over a socket shows the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from felix.explain.decide import Decision, PolicyStep, ProfileStep, RuleStep, TierStep
from felix.explain.explain import Explanation, Stage
from felix.explain.flow import Flow, protocol_name

View = dict[str, Any]
_SAID = {"allow": "allows", "deny": "denies", "pass": "passes", "none": "says nothing"}


def explanation_view(explanation: Explanation) -> View:
    """`{flow, way, verdict, reason, stages: [{place, interface, direction, outcome, reason, tiers, profiles}], notes}`."""
    return {
        "flow": flow_view(explanation.flow),
        "way": explanation.way,
        "verdict": explanation.verdict,
        "reason": explanation.reason,
        "stages": [_stage_view(stage) for stage in explanation.stages],
        "notes": list(explanation.notes),
    }


def flow_view(flow: Flow) -> View:
    view: View = {
        "source": str(flow.source),
        "destination": str(flow.destination),
        "protocol": protocol_name(flow.protocol),
        "sourcePort": flow.source_port,
        "destinationPort": flow.destination_port,
        "icmp": None if flow.icmp is None else {"type": flow.icmp[0], "code": flow.icmp[1]},
        "arrivesBy": flow.arrives_by,
        "leavesBy": flow.leaves_by,
        "conntrack": flow.conntrack,
    }
    return {name: value for name, value in view.items() if value not in (None, "")}


def _stage_view(stage: Stage) -> View:
    view: View = {
        "place": stage.place,
        "interface": stage.interface,
        "direction": "ingress" if stage.direction == "in" else "egress",
        "outcome": stage.outcome,
        "reason": stage.reason,
    }
    return view | (_decision_view(stage.decision) if stage.decision else {})


def _decision_view(decision: Decision) -> View:
    return {
        "by": decision.by,
        "rule": decision.rule,
        "tiers": [_tier_view(tier) for tier in decision.tiers],
        "profiles": [_profile_view(profile) for profile in decision.profiles],
    }


def _tier_view(tier: TierStep) -> View:
    return {
        "name": tier.name,
        "outcome": tier.outcome,
        "endOfTier": tier.is_end_of_tier,
        "policies": [_policy_view(policy) for policy in tier.policies],
    }


def _policy_view(policy: PolicyStep) -> View:
    return {
        "kind": policy.id.kind,
        "namespace": policy.id.namespace,
        "name": policy.id.name,
        "staged": policy.id.is_staged,
        "reached": policy.is_reached,
        "known": policy.is_known,
        "outcome": policy.outcome,
        "rules": [_rule_view(rule) for rule in policy.rules],
    }


def _profile_view(profile: ProfileStep) -> View:
    rules = [_rule_view(rule) for rule in profile.rules]
    return {"name": profile.name, "known": profile.is_known, "outcome": profile.outcome, "rules": rules}


def _rule_view(rule: RuleStep) -> View:
    return {"index": rule.index, "action": rule.action, "text": rule.text, "matches": not rule.why_not, "whyNot": rule.why_not}  # fmt: skip


# --- lines


def explanation_lines(view: Mapping[str, Any]) -> Iterator[str]:
    """Of `explanation_view`'s JSON: the verdict first, then the way there."""
    flow = view["flow"]
    yield f"{view['verdict'].upper()}  {flow_text(flow)}  ({view['way']})"
    yield f"       {view['reason']}"
    for number, stage in enumerate(view["stages"], 1):
        yield ""
        yield f"{number}. {stage['place']} on {stage['interface'] or 'no interface'}: {stage['outcome'].upper()}"
        if not stage.get("tiers") and not stage.get("profiles"):
            yield f"   {stage['reason']}"
        for tier in stage.get("tiers", ()):
            yield from _tier_lines(tier)
        for profile in stage.get("profiles", ()):
            yield from _profile_lines(profile)
        if stage.get("by") == "default":
            yield f"   {stage['reason']}: denied"
    for note in view["notes"]:
        yield ""
        yield f"note: {note}"


def flow_text(flow: Mapping[str, Any]) -> str:
    what = flow["protocol"]
    if icmp := flow.get("icmp"):
        what += f" type {icmp['type']} code {icmp['code']}"
    port = f" port {flow['destinationPort']}" if "destinationPort" in flow else ""
    source_port = f" port {flow['sourcePort']}" if "sourcePort" in flow else ""
    return f"{what} {flow['source']}{source_port} -> {flow['destination']}{port}"


def _tier_lines(tier: Mapping[str, Any]) -> Iterator[str]:
    yield f"   tier {tier['name']}"
    for policy in tier["policies"]:
        yield from _policy_lines(policy)
    if tier["endOfTier"]:
        yield "     end of tier: denied, no policy of it decided"
    elif tier["outcome"] == "pass" and not any(
        one["outcome"] == "pass" and not one["staged"] for one in tier["policies"]
    ):
        yield "     end of tier: on to the next (default action Pass)"


def _policy_lines(policy: Mapping[str, Any]) -> Iterator[str]:
    name = f"{policy['namespace']}/{policy['name']}" if policy["namespace"] else policy["name"]
    said = _SAID[policy["outcome"]]
    if policy["staged"]:
        said = f"staged, not enforced; it would {_would(policy['outcome'])}"
    if not policy["reached"]:
        said = "not reached"
    elif not policy["known"]:
        said = "not known yet"
    yield f"     {policy['kind']} {name}: {said}"
    yield from _rule_lines(policy["rules"], indent=7)


def _would(outcome: str) -> str:
    return {"none": "not match", "allow": "allow", "deny": "deny", "pass": "pass"}[outcome]


def _profile_lines(profile: Mapping[str, Any]) -> Iterator[str]:
    yield f"   profile {profile['name']}: {_SAID[profile['outcome']] if profile['known'] else 'does not exist: denied'}"
    yield from _rule_lines(profile["rules"], indent=5)


def _rule_lines(rules: list[Mapping[str, Any]], indent: int) -> Iterator[str]:
    for rule in rules:
        mark, tail = ("=>", "") if rule["matches"] else ("  ", f"   [{rule['whyNot']}]")
        yield f"{' ' * indent}{mark} {rule['index']}: {rule['text']}{tail}"
