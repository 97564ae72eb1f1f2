"""One endpoint's policies on one packet: tier by tier, policy by policy, rule by rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from felix.desired import Policy, PolicyId, PolicyRule, TierPolicies
from felix.explain.flow import Flow
from felix.explain.matching import rule_text, why_not
from felix.explain.state import DesiredState

Direction = Literal["in", "out"]
Outcome = Literal["allow", "deny", "pass", "none"]
"""`none`: nothing was decided. `pass`: the rest of the tier was skipped."""


@dataclass(frozen=True, slots=True)
class RuleStep:
    """A rule that was looked at. `why_not` empty: it matched. `index` counts from 0 within its direction."""

    index: int
    action: str
    text: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """`outcome` of a staged policy is what it would say if it were enforced. `is_reached` False: decided before."""

    id: PolicyId
    outcome: Outcome
    rules: tuple[RuleStep, ...] = ()
    is_reached: bool = True
    is_known: bool = True

    @property
    def deciding(self) -> RuleStep | None:
        """The rule that decided, if one did."""
        return self.rules[-1] if self.outcome != "none" and self.rules else None


@dataclass(frozen=True, slots=True)
class ProfileStep:
    name: str
    outcome: Outcome
    rules: tuple[RuleStep, ...] = ()
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class TierStep:
    name: str
    outcome: Outcome
    policies: tuple[PolicyStep, ...]
    is_end_of_tier: bool = False  # denied, because no policy of the tier decided


@dataclass(frozen=True, slots=True)
class Decision:
    """What an endpoint's policies and profiles say. `by` names what decided, `rule` its index, None at an end."""

    outcome: Outcome
    reason: str
    by: str = ""
    rule: int | None = None
    tiers: tuple[TierStep, ...] = ()
    profiles: tuple[ProfileStep, ...] = ()


@dataclass(slots=True)
class Judge:
    """Asks the policies of one state about packets in one direction."""

    state: DesiredState
    direction: Direction
    _words: dict[str, str] = field(default_factory=lambda: {"in": "ingress", "out": "egress"})

    def decide(
        self, flow: Flow, tiers: Sequence[TierPolicies], profiles: Sequence[str] | None, *, ends_deny: bool = True
    ) -> Decision:
        """`profiles` None: there is none to ask, and at the end nothing is decided (forward, untracked, pre-DNAT).

        `ends_deny` False: a tier's end decides nothing (untracked, pre-DNAT).
        """
        steps: list[TierStep] = []
        for tier in tiers:
            if not self._policies_of(tier):
                continue
            step = self._tier(flow, tier, ends_deny)
            steps.append(step)
            if step.outcome in ("allow", "deny"):
                return self._decided_by_tier(step, tuple(steps))
        if profiles is None:
            return Decision("none", "no policy decided", tiers=tuple(steps))
        return self._by_profiles(flow, profiles, tuple(steps))

    def _policies_of(self, tier: TierPolicies) -> tuple[PolicyId, ...]:
        return tier.ingress if self.direction == "in" else tier.egress

    def _tier(self, flow: Flow, tier: TierPolicies, ends_deny: bool) -> TierStep:
        outcome: Outcome = "none"
        steps = []
        for id in self._policies_of(tier):
            # A staged policy is counted as long as nothing before it decided: what is behind is never reached.
            step = self._policy(flow, id) if outcome == "none" else PolicyStep(id, "none", is_reached=False)
            steps.append(step)
            if not id.is_staged and step.outcome != "none":
                outcome = step.outcome
        if outcome != "none":
            return TierStep(tier.name, outcome, tuple(steps))
        enforced = any(not id.is_staged for id in self._policies_of(tier))
        if ends_deny and enforced and tier.default_action != "Pass":
            return TierStep(tier.name, "deny", tuple(steps), is_end_of_tier=True)
        return TierStep(tier.name, "pass" if enforced and tier.default_action == "Pass" else "none", tuple(steps))

    def _policy(self, flow: Flow, id: PolicyId) -> PolicyStep:
        policy = self.state.policies.get(id)
        if policy is None:
            return PolicyStep(id, "none", is_known=False)
        outcome, steps = self._rules(flow, self._rules_of(policy))
        return PolicyStep(id, outcome, steps)

    def _rules_of(self, policy: Policy) -> tuple[PolicyRule, ...]:
        return policy.inbound if self.direction == "in" else policy.outbound

    def _rules(self, flow: Flow, rules: Iterable[PolicyRule]) -> tuple[Outcome, tuple[RuleStep, ...]]:
        """Up to the first that matches and is not `log`."""
        steps = []
        for index, rule in enumerate(rules):
            misfit = why_not(rule, flow, self.state.ip_sets)
            steps.append(RuleStep(index, rule.action, rule_text(rule), misfit))
            if not misfit and rule.action != "log":
                return rule.action, tuple(steps)
        return "none", tuple(steps)

    def _decided_by_tier(self, step: TierStep, steps: tuple[TierStep, ...]) -> Decision:
        if step.is_end_of_tier:
            return Decision(
                "deny", f"end of tier {step.name}: no policy of it decided", f"tier {step.name}", tiers=steps
            )
        deciding = next(one for one in step.policies if not one.id.is_staged and one.outcome == step.outcome)
        rule = deciding.deciding
        assert rule is not None
        by = f"{policy_name(deciding.id)} in tier {step.name}"
        reason = f"{by}, {self._words[self.direction]} rule {rule.index}: {rule.text}"
        return Decision(step.outcome, reason, by, rule.index, steps)

    def _by_profiles(self, flow: Flow, names: Sequence[str], tiers: tuple[TierStep, ...]) -> Decision:
        steps = []
        for name in names:
            profile = self.state.profiles.get(name)
            if profile is None:
                steps.append(ProfileStep(name, "deny", is_known=False))
                return Decision("deny", f"profile {name} does not exist", f"profile {name}", None, tiers, tuple(steps))
            outcome, rules = self._rules(flow, profile.inbound if self.direction == "in" else profile.outbound)
            steps.append(ProfileStep(name, outcome, rules))
            if outcome in ("allow", "deny"):
                reason = f"profile {name}, {self._words[self.direction]} rule {rules[-1].index}: {rules[-1].text}"
                return Decision(outcome, reason, f"profile {name}", rules[-1].index, tiers, tuple(steps))
        return Decision("deny", "no profile allowed it" if names else "no policy, no profile", "default", None, tiers, tuple(steps))  # fmt: skip


def policy_name(id: PolicyId) -> str:
    """`NetworkPolicy default/allow-web`."""
    return f"{id.kind} {id.namespace}/{id.name}" if id.namespace else f"{id.kind} {id.name}"
