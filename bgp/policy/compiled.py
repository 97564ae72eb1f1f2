"""A policy made fast: compiled when the configuration is read, asked per path and run of prefixes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

from bgp.config import ACCEPT_ALL, REJECT_ALL, Policy, PolicyRule, PrefixMatch, RouteSetting
from bgp.families import FAMILIES, Family, Nlri
from bgp.policy.index import Mask, indexes, prefix_index
from bgp.policy.rules import RouteView, conditions_text, explain_policy, rule_name, setting_text

Direction = Literal["import", "export"]
Verdict = RouteSetting | None
"""None: rejected. Else what to change; `EMPTY_SETTING` itself if nothing."""

EMPTY_SETTING = RouteSetting()


def compile_policy(
    policy: Policy | None, *, direction: Direction, is_ebgp: bool, ebgp_requires_policy: bool = True
) -> CompiledPolicy:
    """Make a policy ready for the sessions of one peer.

    None is no policy: an iBGP peer gives and takes all; an eBGP peer nothing (RFC 8212), unless `ebgp_requires_policy`
    is off. Equal arguments give one and the same object, so callers may compare by identity.
    """
    if policy is None:
        return _no_policy(direction, is_ebgp, is_ebgp and ebgp_requires_policy)
    key = (id(policy), direction, is_ebgp)
    known = _by_identity.get(key)
    if known is not None and known[0] is policy:
        return known[1]
    labels = (policy.label, *(rule.label for rule in policy.rules))
    compiled = _compiled(policy, labels, direction, is_ebgp)
    if len(_by_identity) >= _REMEMBERED:
        _by_identity.clear()
    _by_identity[key] = policy, compiled
    return compiled


# Equal policies, also of an earlier configuration, are one object: peers are grouped by the identity of their export
# policy, thousands may share one, and a dynamic peer may come back every second. Labels count, explain() shows them.
# By identity first, for hashing ten thousand rules costs as much as compiling them.
_REMEMBERED = 512
_by_identity: dict[tuple[int, Direction, bool], tuple[Policy, CompiledPolicy]] = {}


@lru_cache(maxsize=_REMEMBERED)
def _compiled(policy: Policy, labels: tuple[str, ...], direction: Direction, is_ebgp: bool) -> CompiledPolicy:
    del labels  # part of the key, which a policy's own comparison leaves out
    return CompiledPolicy(policy, is_ebgp=is_ebgp, subject=f"the {direction} policy")


@lru_cache
def _no_policy(direction: Direction, is_ebgp: bool, is_closed: bool) -> CompiledPolicy:
    kind = f"{'eBGP' if is_ebgp else 'iBGP'} without {direction} policy"
    if is_closed:
        return CompiledPolicy(REJECT_ALL, is_ebgp=is_ebgp, subject=f"{kind} (RFC 8212: nothing passes)")
    return CompiledPolicy(ACCEPT_ALL, is_ebgp=is_ebgp, subject=f"{kind} (all passes)")


class CompiledPolicy:
    """What `policy` says on a session of this type.

    `accepts_all`: every route passes unchanged. `rejects_all`: none passes. `needs_prefix`: two prefixes of one path
    may get different verdicts. `needs_interface`: a route may get another verdict when it leaves by another interface.
    Immutable but for caches; one may serve any number of peers of the same type.
    """

    __slots__ = (
        "_groups",
        "_has_negation",
        "_indexes",
        "_is_ebgp",
        "_prefix_free",
        "_prefixes",
        "_rule_count",
        "_subject",
        "_verdicts",
        "accepts_all",
        "needs_interface",
        "needs_prefix",
        "policy",
        "rejects_all",
    )

    def __init__(self, policy: Policy, *, is_ebgp: bool, subject: str) -> None:
        self.policy = policy
        self._is_ebgp = is_ebgp
        self._subject = subject
        settings: dict[RouteSetting, RouteSetting] = {EMPTY_SETTING: EMPTY_SETTING}  # equal ones are one, see judge_all
        rules, last = _reachable(policy, is_ebgp=is_ebgp)
        # verdicts[n] is that of rule n, counted from 1
        verdicts = [
            settings.setdefault(rule.setting, rule.setting) if rule.action == "accept" else None
            for rule in (last, *rules)
        ]

        self.accepts_all = all(verdict is EMPTY_SETTING for verdict in verdicts)
        self.rejects_all = all(verdict is None for verdict in verdicts)
        self.needs_prefix = any(rule.prefixes for rule in rules)
        self.needs_interface = any(rule.interfaces for rule in rules)

        self._rule_count = len(rules)
        self._indexes = indexes(rules)
        self._prefixes = {family: prefix_index(family, [rule.prefixes for rule in rules]) for family in FAMILIES}
        self._prefix_free: Mask = sum(1 << number for number, rule in enumerate(rules) if not rule.prefixes)
        self._has_negation = any(match.negate for rule in rules for match in rule.prefixes)

        distinct = list(dict.fromkeys(verdicts))
        self._verdicts = distinct
        self._groups = [distinct.index(verdict) for verdict in verdicts]  # rule number, from 1; 0 is the default

    def judge(self, route: RouteView, nlri: Nlri | None, family: Family) -> Verdict:
        """The verdict on one prefix. `nlri` may be None if `needs_prefix` is False; ValueError otherwise.

        `family` is the prefix's: 08 20 is 32.0.0.0/8 or 2000::/8.
        """
        mask = self._standing(route)
        if self.needs_prefix and mask:
            if nlri is None:
                raise ValueError("this policy looks at prefixes: needs_prefix is True")
            prefixes = self._prefixes[family].mask(nlri)
            if self._has_negation:
                prefixes &= ~(prefixes >> self._rule_count)
            mask &= prefixes
        return self._verdicts[self._groups[(mask & -mask).bit_length()]]

    def judge_all(self, route: RouteView, family: Family, nlris: list[Nlri]) -> list[tuple[Verdict, list[Nlri]]]:
        """Sort a run of prefixes of one path by verdict. Every prefix is in one group; no group is empty; order is kept.

        The list itself comes back, not a copy, if one verdict holds for all.
        """
        if not nlris:
            return []
        standing = self._standing(route)
        first = standing & -standing
        if not standing or first & self._prefix_free:
            return [(self._verdicts[self._groups[first.bit_length()]], nlris)]
        sorted_: list[list[Nlri]] = [[] for _ in self._verdicts]
        self._sort(standing, family, nlris, sorted_)
        return [(verdict, group) for verdict, group in zip(self._verdicts, sorted_, strict=True) if group]

    def _sort(self, standing: Mask, family: Family, nlris: list[Nlri], into: list[list[Nlri]]) -> None:
        """PrefixIndex.mask written out: a call per prefix would cost as much as the look-ups."""
        index = self._prefixes[family]
        by_length, free = index.levels, index.free
        groups, from_bytes = self._groups, int.from_bytes
        rule_count = self._rule_count if self._has_negation else 0
        for nlri in nlris:
            levels = by_length[nlri[0]]
            if levels is None:
                levels = index.build(nlri[0])
            value = from_bytes(nlri, "big")
            mask = free
            for shift, masks in levels:
                mask |= masks.get(value >> shift, 0)
            if rule_count:
                mask &= ~(mask >> rule_count)
            mask &= standing
            into[groups[(mask & -mask).bit_length()]].append(nlri)

    def _standing(self, route: RouteView) -> Mask:
        """The rules whose conditions on the path hold."""
        mask = (1 << self._rule_count) - 1
        for index in self._indexes:
            if not mask:
                break
            mask &= index(route)
        return mask

    def explain(self, route: RouteView, nlri: Nlri | None, family: Family) -> str:
        """What decides about this route, for people: `accepted by rule 3 of tor-import: prefix in 10.0.0.0/8`."""
        return explain_policy(self.policy, route, family, nlri, is_ebgp=self._is_ebgp, subject=self._subject)

    def describe(self) -> list[str]:
        """The whole policy in words, a line a rule and one for the default."""
        lines = []
        for number, rule in enumerate(self.policy.rules):
            sets = setting_text(rule.setting)
            line = f"{rule_name(self.policy, number)}: {rule.action} if {conditions_text(rule)}"
            lines.append(line + (f"; sets {sets}" if sets and rule.action == "accept" else ""))
        return [*lines, f"default of {self.policy.label or self._subject}: {self.policy.default}"]


def _reachable(policy: Policy, *, is_ebgp: bool) -> tuple[list[PolicyRule], PolicyRule]:
    """The rules that can make a difference on this session, and the one for all that they leave.

    Neighbours that differ only in their prefixes are joined, so that a list written rule by rule costs one bit.
    """
    peer_type = "ebgp" if is_ebgp else "ibgp"
    last = PolicyRule(action=policy.default)
    kept: list[tuple[PolicyRule, list[PrefixMatch], bool]] = []  # a rule without its prefixes, those, may it grow
    for rule in policy.rules:
        if rule.peer_type not in (None, peer_type):
            continue
        setting = rule.setting if rule.action == "accept" else EMPTY_SETTING
        bare = replace(rule, prefixes=(), peer_type=None, setting=setting)
        joinable = bool(rule.prefixes) and not any(match.negate for match in rule.prefixes)
        if not rule.prefixes and bare == PolicyRule(action=bare.action, setting=setting):
            last = bare  # it always matches
            break
        if kept and kept[-1][0] == bare and kept[-1][2] and joinable:
            kept[-1][1].extend(rule.prefixes)
        else:
            kept.append((bare, list(rule.prefixes), joinable))
    while kept and (kept[-1][0].action, kept[-1][0].setting) == (last.action, last.setting):
        kept.pop()
    return [replace(bare, prefixes=tuple(prefixes)) for bare, prefixes, _ in kept], last
