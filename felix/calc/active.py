"""Which policies local endpoints are under, in which order, and so which rules and IP sets this node needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from felix.calc.endpoints import Addressed
from felix.calc.ip_sets import IPSets
from felix.calc.label_index import LabelIndex, Labels, discard
from felix.calc.outbox import Told
from felix.calc.policies import (
    MISSING_TIER,
    OWN_TIERS,
    PolicyRecord,
    ProfileRecord,
    Tier,
    compile_policy,
    missing_profile,
)
from felix.calc.reading import UNREADABLE
from felix.calc.rules import Definitions
from felix.desired import (
    Message,
    Policy,
    PolicyId,
    PolicyRemove,
    PolicyUpdate,
    Profile,
    ProfileRemove,
    ProfileUpdate,
    TierPolicies,
)

Kind = Callable[[PolicyRecord], bool]


class ActivePolicies:
    """Endpoints, policies, tiers and profiles in; `flush` compiles what is needed and says it.

    `problem(id, reason)` is told of policies whose rules cannot be used: such a policy is treated as absent. Rules are
    looked at only where the policy is needed.
    """

    def __init__(self, ip_sets: IPSets, problem: Callable[[PolicyId, str | None], None]) -> None:
        self._ip_sets, self._problem = ip_sets, problem
        self._index: LabelIndex[PolicyId] = LabelIndex(self._started, self._stopped)
        self.records: dict[PolicyId, PolicyRecord] = {}
        self._policies_of: dict[str, set[PolicyId]] = {}
        self._tiers: dict[str, Tier] = {}
        self._profiles: dict[str, ProfileRecord] = {}
        self._profiles_of: dict[str, tuple[str, ...]] = {}
        self._under: dict[str, set[str]] = {}  # profile → endpoints
        self._compiled: dict[PolicyId, PolicyRecord] = {}  # of usable ones, what they were compiled from
        self._dirty_policies: set[PolicyId] = set()
        self._dirty_profiles: set[str] = set()
        self.dirty_endpoints: set[str] = set()
        self._tiers_of: dict[frozenset[PolicyId], AllTiers] = {}  # while endpoints are said
        self.policies: Told[PolicyId, Policy] = Told(PolicyUpdate, PolicyRemove)
        self.profiles: Told[str, Profile] = Told(ProfileUpdate, ProfileRemove)

    def labels(self, endpoint: str) -> Labels:
        return self._index.labels(endpoint)

    # --- what there is ----------------------------------------------------------------------------------------------

    def set_endpoint(self, name: str, endpoint: Addressed | None) -> None:
        """A local one."""
        self.dirty_endpoints.add(name)
        before = self._profiles_of.pop(name, ())
        after = endpoint.profiles if endpoint else ()
        for profile in before:
            if profile not in after:
                discard(self._under, profile, name)
                self._dirty_profiles.add(profile)
        for profile in after:
            if profile not in before:
                self._under.setdefault(profile, set()).add(name)
                self._dirty_profiles.add(profile)
        if endpoint is None:
            self._index.remove_item(name)
            self._policies_of.pop(name, None)
        else:
            self._profiles_of[name] = after
            self._index.set_item(name, endpoint.labels, after)

    def set_profile(self, name: str, record: ProfileRecord | None) -> None:
        if record is None:
            self._profiles.pop(name, None)
        else:
            self._profiles[name] = record
        self._dirty_profiles.add(name)
        self._index.set_parent(name, record.labels if record else {})
        self.dirty_endpoints |= self._under.get(name, set())  # their messages have the labels

    def set_tier(self, name: str, tier: Tier | None) -> None:
        if self._tiers.get(name) == tier:
            return
        if tier is None:
            del self._tiers[name]
        else:
            self._tiers[name] = tier
        self.dirty_endpoints |= {
            endpoint
            for endpoint, policies in self._policies_of.items()
            if any(self.records[policy].tier == name for policy in policies)
        }

    def set_policy(self, id: PolicyId, record: PolicyRecord | None) -> None:
        old = self.records.get(id)
        if record == old:
            return
        if record is None:
            for endpoint in self._index.remove_selector(id):
                self._stopped(id, endpoint)
            del self.records[id]
        else:
            self.records[id] = record
            if old is None or old.selector != record.selector:
                self._index.set_selector(id, record.selector)
            if old is not None and old.place() != record.place():
                self.dirty_endpoints |= self._index.items(id)
        self._dirty_policies.add(id)

    def _started(self, id: PolicyId, endpoint: str) -> None:
        self._policies_of.setdefault(endpoint, set()).add(id)
        self._dirty_policies.add(id)
        self.dirty_endpoints.add(endpoint)

    def _stopped(self, id: PolicyId, endpoint: str) -> None:
        discard(self._policies_of, endpoint, id)
        self._dirty_policies.add(id)
        self.dirty_endpoints.add(endpoint)

    # --- what is needed ---------------------------------------------------------------------------------------------

    def flush(self, out: list[Message]) -> None:
        """Policies and profiles. After it `tiers` says the truth, and `dirty_endpoints` who must be told anew."""
        for id in sorted(self._dirty_policies):
            record = self.records.get(id)
            if record is not None and (record.is_needed_everywhere or self._index.items(id)):
                if self._compiled.get(id) is not record:
                    self._compile(out, record)
            else:
                self._problem(id, None)
                self._dismiss(out, id)
        self._dirty_policies.clear()
        for name in sorted(self._dirty_profiles):
            if name in self._under:
                profile = self._profiles.get(name) or missing_profile(name)
                self._ip_sets.use(("profile", name), profile.sets)
                self.profiles.say(out, name, profile.profile)
            else:
                self._ip_sets.use(("profile", name), {})
                self.profiles.say(out, name, None)
        self._dirty_profiles.clear()

    def _compile(self, out: list[Message], record: PolicyRecord) -> None:
        sets: Definitions = {}
        try:
            policy = compile_policy(record, sets)
        except UNREADABLE as error:
            self._problem(record.id, str(error) or f"cannot be read: {error!r}")
            self._dismiss(out, record.id)
            return
        self._problem(record.id, None)
        if record.id not in self._compiled:
            self.dirty_endpoints |= self._index.items(record.id)
        self._compiled[record.id] = record
        self._ip_sets.use(record.id, sets)
        self.policies.say(out, record.id, policy)

    def _dismiss(self, out: list[Message], id: PolicyId) -> None:
        if self._compiled.pop(id, None) is not None:
            self._ip_sets.use(id, {})
            self.policies.say(out, id, None)
            self.dirty_endpoints |= self._index.items(id)

    # --- what an endpoint is under ----------------------------------------------------------------------------------

    def tiers(self, endpoint: str) -> AllTiers:
        """Its tiers for each purpose, without those that have nothing to say. Endpoints under the same policies share them."""
        policies = frozenset(self._policies_of.get(endpoint, ()))
        if policies not in self._tiers_of:
            self._tiers_of[policies] = self._sorted(policies)
        return self._tiers_of[policies]

    def endpoints_said(self) -> None:
        self._tiers_of.clear()

    def _sorted(self, policies: Iterable[PolicyId]) -> AllTiers:
        usable = [record for id in policies if (record := self._compiled.get(id))]
        usable.sort(key=lambda record: (*self._tier_rank(record.tier), record.rank))
        groups = [(name, list(group)) for name, group in groupby(usable, key=lambda record: record.tier)]
        return AllTiers(
            self._listed(groups, lambda record: not record.is_untracked and not record.is_pre_dnat),
            self._listed(groups, lambda record: record.is_untracked),
            self._listed(groups, lambda record: record.is_pre_dnat),
            self._listed(
                groups,
                lambda record: record.applies_on_forward and not record.is_untracked and not record.is_pre_dnat,
            ),
        )

    def _tier(self, name: str) -> Tier | None:
        return self._tiers.get(name) or OWN_TIERS.get(name)

    def _tier_rank(self, name: str) -> tuple[bool, float, str]:
        """Tiers that do not exist come last, and deny."""
        tier = self._tier(name)
        return (tier is None, tier.order if tier else 0.0, name)

    def _listed(self, groups: list[tuple[str, list[PolicyRecord]]], kind: Kind) -> tuple[TierPolicies, ...]:
        found = []
        for name, records in groups:
            ingress = tuple(record.id for record in records if record.is_ingress and kind(record))
            egress = tuple(
                record.id for record in records if record.is_egress and not record.is_pre_dnat and kind(record)
            )
            if ingress or egress:
                tier = self._tier(name) or MISSING_TIER
                found.append(TierPolicies(name, tier.default_action, ingress, egress))  # type: ignore[arg-type]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class AllTiers:
    normal: tuple[TierPolicies, ...]
    untracked: tuple[TierPolicies, ...]
    pre_dnat: tuple[TierPolicies, ...]
    forward: tuple[TierPolicies, ...]
