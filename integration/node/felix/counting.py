"""The packet filter's counters as counts of policies' rules."""

from __future__ import annotations

from collections.abc import Iterable

from felix.desired import Policy, Profile
from felix.explain.decide import Direction
from felix.explain.stats import RuleOf
from felix.filter_rules import Table
from felix.rules import names
from felix.rules.policies import DIRECTIONS, indexed_rules
from felix.rules.ruleset import RuleProgrammer


async def counted(rulesets: Iterable[RuleProgrammer]) -> list[tuple[RuleOf, int, int]]:
    """Whose rule, packets, octets; several of one rule are to be summed."""
    found = []
    for rules in rulesets:
        owners = _owners(rules)
        by_table: dict[Table, list[str]] = {}
        for table, chain in owners:
            by_table.setdefault(table, []).append(chain)
        for table, chains in by_table.items():
            for count in await rules.filter.counts(table, chains):
                positions = owners[table, count.chain]
                rule = positions[count.position] if count.position < len(positions) else None
                if rule is not None:
                    found.append((rule, count.packets, count.octets))
    return found


def _owners(rules: RuleProgrammer) -> dict[tuple[Table, str], list[RuleOf | None]]:
    """Of each chain the rules by place."""
    found: dict[tuple[Table, str], list[RuleOf | None]] = {}
    owners: list[Policy | Profile] = [*rules.policies.values(), *rules.profiles.values()]
    for owner in owners:
        for direction in DIRECTIONS:
            way: Direction = "in" if direction == "inbound" else "out"
            indexes = [index for _, index in indexed_rules(owner, direction, rules.dialect)]
            if isinstance(owner, Policy):
                chain = names.policy_chain(owner.id, direction)
                of = [None if at is None else RuleOf(owner.id, "", way, at) for at in indexes]
            else:
                chain = names.profile_chain(owner.name, direction)
                of = [None if at is None else RuleOf(None, owner.name, way, at) for at in indexes]
            for table in rules.tables_of(owner):
                found[table, chain] = of
    return found
