"""Policies, tiers and profiles: what is kept of each. The rules of a policy are compiled only where it is needed.

Of ten thousand policies a node needs some; the others are kept as packed JSON.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from felix.calc.reading import NOTHING, Invalid, Json, checked_name, flag, labels, one_of, order, part, text, texts
from felix.calc.rules import Definitions, compile_rules, read_types
from felix.calc.selectors import policy_selector
from felix.desired import Policy, PolicyId, PolicyRule, Profile
from integration.resources.keys import Key
from integration.resources.network_policies import spec_of_network_policy
from integration.resources.selector import Selector
from integration.resources.validation.policies import RESERVED_TIERS

DEFAULT_TIER = "default"
DEFAULT_ALLOW = "projectcalico-default-allow"
NEEDED_EVERYWHERE = "AssumeNeededOnEveryNode"
STAGED_ACTIONS = {"": "", "Set": "", "Learn": "", "Delete": "ignored", "Ignore": "ignored"}


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    id: PolicyId
    tier: str
    rank: tuple[float, str]  # order, and the text that decides where two have one
    selector: Selector
    packed_rules: bytes
    is_ingress: bool
    is_egress: bool
    is_untracked: bool = False
    is_pre_dnat: bool = False
    applies_on_forward: bool = False
    is_needed_everywhere: bool = False

    def place(self) -> tuple[object, ...]:
        """All that decides where, and in which lists, an endpoint has it."""
        return (
            self.tier, self.rank, self.is_ingress, self.is_egress,
            self.is_untracked, self.is_pre_dnat, self.applies_on_forward,
        )  # fmt: skip


def read_policy(key: Key, value: Json) -> PolicyRecord | None:
    """None: a staged policy that asks for nothing (the deletion of another). Raises Invalid."""
    spec = part(value, "spec", "")
    if key.kind.startswith("Staged") and one_of(spec, "stagedAction", "spec.", STAGED_ACTIONS):
        return None
    if key.kind == "StagedKubernetesNetworkPolicy":
        spec = converted(spec)
    is_global = "Global" in key.kind
    if bool(key.namespace) == is_global:
        raise Invalid("metadata.namespace", key.namespace or None, "is not possible" if is_global else "is required")
    untracked, pre_dnat = flag(spec, "doNotTrack", "spec."), flag(spec, "preDNAT", "spec.")
    if untracked and pre_dnat and is_global:
        raise Invalid("spec.preDNAT", True, "cannot be set together with doNotTrack")
    ingress, egress = read_types(spec, "spec.")
    return PolicyRecord(
        PolicyId(key.kind, key.namespace, key.name),
        checked_name(text(spec, "tier", "spec.") or DEFAULT_TIER, "spec.tier"),
        (order(spec, "order", "spec."), f"{key.name}/{key.namespace}/{key.kind}"),
        policy_selector(
            key.namespace,
            text(spec, "selector", "spec."),
            text(spec, "namespaceSelector", "spec.") if is_global else "",
            text(spec, "serviceAccountSelector", "spec."),
            "spec.",
        ),
        packed({direction: spec[direction] for direction in ("ingress", "egress") if spec.get(direction)}),
        ingress,
        egress,
        untracked and is_global,
        pre_dnat and is_global,
        flag(spec, "applyOnForward", "spec.") or not is_global,
        NEEDED_EVERYWHERE in texts(spec, "performanceHints", "spec."),
    )


def packed(rules: dict[str, Any]) -> bytes:
    try:
        return marshal.dumps(rules) if rules else b""
    except ValueError:
        raise Invalid("spec", None, "is nested too deeply, or holds what is not JSON") from None


def unpacked(rules: bytes) -> Json:
    found: Json = marshal.loads(rules) if rules else NOTHING  # our own octets
    return found


def converted(spec: Json) -> Json:
    try:
        return spec_of_network_policy(spec)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid("spec", None, f"is not a Kubernetes NetworkPolicy's: {error!r}") from None


def compile_policy(record: PolicyRecord, sets: Definitions) -> Policy:
    """With its rules; what they need is added to `sets`. Raises Invalid."""
    rules = unpacked(record.packed_rules)
    # What a policy is not for, it has no rules for, as far as a packet can tell.
    inbound = compile_rules(rules, "ingress", record.id.namespace, sets) if record.is_ingress else ()
    outbound = compile_rules(rules, "egress", record.id.namespace, sets) if record.is_egress else ()
    return Policy(
        record.id,
        record.tier,
        inbound,
        outbound,
        record.selector.canonical,
        record.is_untracked,
        record.is_pre_dnat,
        record.applies_on_forward,
    )


class Tier(NamedTuple):
    order: float
    default_action: str


# They are there even before anybody has made them, or policies in them would count for nothing.
OWN_TIERS: Mapping[str, Tier] = {name: Tier(order, action) for name, (order, action) in RESERVED_TIERS.items()}
MISSING_TIER = Tier(float("inf"), "Deny")


def read_tier(key: Key, value: Json) -> Tier:
    spec = part(value, "spec", "")
    action = "Pass" if text(spec, "defaultAction", "spec.") == "Pass" else "Deny"
    if key.name in OWN_TIERS and spec.get("order") is None:
        return Tier(
            OWN_TIERS[key.name].order, action if spec.get("defaultAction") else OWN_TIERS[key.name].default_action
        )
    return Tier(order(spec, "order", "spec."), action)


@dataclass(frozen=True, slots=True)
class ProfileRecord:
    labels: Mapping[str, str]
    profile: Profile
    sets: Definitions


def read_profile(key: Key, value: Json) -> ProfileRecord:
    spec = part(value, "spec", "")
    sets: Definitions = {}
    inbound = compile_rules(spec, "ingress", "", sets)
    outbound = compile_rules(spec, "egress", "", sets)
    return ProfileRecord(labels(spec, "labelsToApply", "spec."), Profile(key.name, inbound, outbound), sets)


def missing_profile(name: str) -> ProfileRecord:
    """Denies: nobody knows what it would have allowed."""
    deny = (PolicyRule("deny"),)
    return ProfileRecord({}, Profile(name, deny, deny), {})
