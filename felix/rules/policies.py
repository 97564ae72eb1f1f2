"""Policies and profiles as chains. Pure.

A chain's verdict is in the mark: accept, or pass to the next tier, with a return; what is denied ends there. A staged
policy's chain counts and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from felix.desired import IPVersion, Policy, PolicyId, PolicyRule, Profile
from felix.filter_rules import Action, Chain, Drop, GoTo, Log, NFLog, Reject, Return, Rule, Table
from felix.rules import names
from felix.rules.marks import Marks, is_set, put
from felix.rules.matching import find
from felix.rules.names import Direction
from felix.rules.settings import RuleSettings

PROFILE = "profile/"  # in the place of a tier
MAX_COMMENT = 256
DIRECTIONS: tuple[Direction, Direction] = ("inbound", "outbound")
MAX_PREFIX = 63  # NFLOG's, without its end


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the rules are built for."""

    version: IPVersion
    has_alternatives: bool
    has_verdict_maps: bool
    settings: RuleSettings
    marks: Marks
    table: Table = "filter"
    has_ipvs: bool = False

    def within(self, table: Table) -> Dialect:
        return self if table == self.table else replace(self, table=table)

    @property
    def is_short(self) -> bool:
        """Chains may leave Calico's order where that spares packets or the kernel work. Those of iptables may not: a Felix of
        Calico's takes them over, and others' tools look at them."""
        return self.has_verdict_maps

    @property
    def rejects(self) -> bool:
        """Only where the kernel can: neither raw nor mangle may answer (Calico asks for it, and iptables refuses)."""
        return self.settings.deny == "REJECT" and self.table == "filter"

    @property
    def deny(self) -> Action:
        return Reject() if self.rejects else Drop()

    @property
    def deny_word(self) -> str:
        """For comments."""
        return "Reject" if self.rejects else "Drop"

    def denials(self, who: str, rule: str, direction: Direction) -> Iterator[Action]:
        """To report a packet and end it."""
        if self.settings.denied_group:
            prefix = denied_prefix(who, rule, direction)
            settings = self.settings
            yield NFLog(settings.denied_group, prefix, settings.denied_rate, settings.denied_burst)
        yield self.deny


def denied_prefix(who: str, rule: str, direction: Direction) -> str:
    """`D|TIER/POLICY|RULE|in`: what denied. A long name is cut in its middle: both ends tell more than one."""
    tail = f"|{rule}|{'in' if direction == 'inbound' else 'out'}"
    room = MAX_PREFIX - len("D|") - len(tail)
    if len(who) > room:
        who = f"{who[: room // 2 - 1]}..{who[len(who) - (room - room // 2 - 1) :]}"
    return f"D|{who}{tail}"


@dataclass(frozen=True, slots=True)
class OwnedChain:
    """A policy's or profile's chain of one direction; `counts` says of each of its rules which of the owner's it counts."""

    owner: PolicyId | str  # a profile by its name
    direction: Direction
    chain: Chain
    counts: tuple[int | None, ...]


def policy_chains(policy: Policy, dialect: Dialect) -> list[OwnedChain]:
    """Ingress and egress."""
    place = "/".join(filter(None, (policy.id.namespace, policy.id.name)))
    who = f"{policy.tier}/{names.policy_name(policy.id)}"
    title = f"{policy.id.kind} {place}"
    return [
        _chain(policy.id, direction, names.policy_chain(policy.id, direction), title, _rules(
            policy.inbound if direction == "inbound" else policy.outbound,
            direction, who, dialect, decides=not policy.id.is_staged,
        ))
        for direction in DIRECTIONS
    ]  # fmt: skip


def profile_chains(profile: Profile, dialect: Dialect) -> list[OwnedChain]:
    return [
        _chain(profile.name, direction, names.profile_chain(profile.name, direction), f"Profile {profile.name}", _rules(
            profile.inbound if direction == "inbound" else profile.outbound,
            direction, f"{PROFILE}{profile.name}", dialect, decides=True,
        ))
        for direction in DIRECTIONS
    ]  # fmt: skip


def _chain(
    owner: PolicyId | str, direction: Direction, name: str, title: str, found: list[tuple[Rule, int | None]]
) -> OwnedChain:
    """A return at the end says nothing, unless it counts; an empty chain gets a rule that only counts."""
    while found and isinstance(found[-1][0].action, Return) and found[-1][1] is None:
        found.pop()
    if not found:
        found = [(Rule(), None)]
    first, index = found[0]
    comment = f"{title} {'ingress' if direction == 'inbound' else 'egress'}"
    found[0] = Rule(first.criteria, first.action, (comment, *first.comments)), index
    return OwnedChain(
        owner, direction, Chain(name, tuple(rule for rule, _ in found)), tuple(index for _, index in found)
    )


def _rules(
    rules: Sequence[PolicyRule], direction: Direction, who: str, dialect: Dialect, *, decides: bool
) -> list[tuple[Rule, int | None]]:
    """Each with the index of the policy's rule whose packets its counter counts, if it does."""
    found: list[tuple[Rule, int | None]] = []
    for index, rule in enumerate(rules):
        finder = find(rule, dialect.version, dialect.marks, has_alternatives=dialect.has_alternatives)
        if finder is None or (rule.action == "log" and not decides):
            continue
        comments = tuple(f"{key}={value}"[:MAX_COMMENT] for key, value in rule.annotations)
        # A staged rule's first match is counted, and ends its chain.
        act, then = _act(rule, direction, who, index, dialect) if decides else (Return(), [])
        if not isinstance(act, Return | GoTo):
            finder = finder.in_one_way(dialect.marks)
        found += [(Rule(one.criteria, one.action, comments), None) for one in finder.before]
        found += [(Rule(way, act, comments), index) for way in finder.ways]
        found += [(Rule(one.criteria, one.action, comments), None) for one in then]
    return found


def _act(rule: PolicyRule, direction: Direction, who: str, index: int, dialect: Dialect) -> tuple[Action, list[Rule]]:
    """What a packet that is found gets, and the rules after it that look at the mark alone."""
    marks, settings = dialect.marks, dialect.settings
    match rule.action:
        case "log":
            return Log(_log_prefix(settings.log_prefix, who), settings.log_rate, settings.log_burst), []
        case "deny":
            ends = dialect.denials(who, str(index), direction)
            return put(marks.drop), [Rule((is_set(marks.drop),), one) for one in ends]
        case "pass" if who.startswith(PROFILE):
            # On to the next profile. Not by the mark: the last tier's policies may have left it set, and then a rule
            # that asks for it would end the chain for packets that it does not match.
            return Return(), []
    bits, chain = (
        (marks.next_tier, names.POLICY_PASSED) if rule.action == "pass" else (marks.accept, names.POLICY_ACCEPTED)
    )
    if dialect.is_short:
        return GoTo(chain), []
    return put(bits), [Rule((is_set(bits),), Return())]


def verdict_chains(dialect: Dialect) -> list[Chain]:
    """What a policy's rule goes to for its verdict, so that the rule itself is short; they return to who asked the policy."""
    if not dialect.is_short:
        return []
    verdicts = ((names.POLICY_ACCEPTED, dialect.marks.accept), (names.POLICY_PASSED, dialect.marks.next_tier))
    return [Chain(name, (Rule((), put(bits)),)) for name, bits in verdicts]


def _log_prefix(prefix: str, who: str) -> str:
    """`%t` tier (or `profile`), `%k` kind, `%n` name, `%p` kind and name."""
    tier, _, policy = who.partition("/")
    kind, _, name = policy.partition("/")
    if tier == "profile":
        kind, name = "pro", policy
    for sign, value in (("%t", tier), ("%k", kind), ("%n", name or kind), ("%p", policy)):
        prefix = prefix.replace(sign, value)
    return f"{prefix}: "
