"""The packet filter's counters as counts of policies' rules."""

from __future__ import annotations

from collections.abc import Iterable

from felix.explain.decide import Direction
from felix.explain.stats import RuleOf
from felix.filter_rules import Table
from felix.rules.policies import OwnedChain
from felix.rules.ruleset import RuleProgrammer


async def counted(rulesets: Iterable[RuleProgrammer]) -> list[tuple[RuleOf, int, int]]:
    """Whose rule, packets, octets; several of one rule are to be summed."""
    found = []
    for rules in rulesets:
        by_table: dict[Table, dict[str, OwnedChain]] = {}
        for table, one in rules.owned_chains():
            by_table.setdefault(table, {})[one.chain.name] = one
        for table, chains in by_table.items():
            for count in await rules.filter.counts(table, chains):
                rule = _rule_at(chains[count.chain], count.position)
                if rule is not None:
                    found.append((rule, count.packets, count.octets))
    return found


def _rule_at(one: OwnedChain, position: int) -> RuleOf | None:
    index = one.counts[position] if position < len(one.counts) else None
    if index is None:
        return None
    way: Direction = "in" if one.direction == "inbound" else "out"
    if isinstance(one.owner, str):
        return RuleOf(None, one.owner, way, index)
    return RuleOf(one.owner, "", way, index)
