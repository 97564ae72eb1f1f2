"""A PacketFilter that only remembers: what it was told is a Ruleset."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain, Hook, HookRules, Net, NetAnyOf, Ports, Rule, Ruleset, Table
from felix.ports import Failure, RuleCount


def _refuse_alternatives(rule: Rule) -> None:
    slots = [
        sum(1 + (one.last > one.first) for one in ports.ranges) for ports in rule.criteria if isinstance(ports, Ports)
    ]
    sides = [one.side for one in rule.criteria if isinstance(one, Net)]
    if (
        any(isinstance(one, NetAnyOf) for one in rule.criteria)
        or max(slots, default=0) > 15
        or len(set(sides)) < len(sides)
    ):
        raise ValueError(f"iptables has no such rule: {rule}")


class RecordingFilter:
    """With alternatives and verdict maps as nftables has them, or without, as iptables."""

    def __init__(self, version: IPVersion, *, is_like_nftables: bool) -> None:
        self.version: IPVersion = version
        self.has_verdict_maps = self.has_alternatives = is_like_nftables
        self.sets: dict[str, tuple[IPSetType, set[str]]] = {}
        self.chains: dict[Table, dict[str, Chain]] = {}
        self.hooks: dict[tuple[Table, Hook], HookRules] = {}
        self.maps: dict[Table, dict[str, dict[str, str]]] = {}

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        self.sets[id] = type, set(members)

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        self.sets[id][1].update(added)
        self.sets[id][1].difference_update(removed)

    def remove_ip_set(self, id: str) -> None:
        self.sets.pop(id, None)

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        """Raises ValueError for what iptables cannot express, if it is like that."""
        chains = list(chains)
        if not self.has_alternatives:
            for rule in (rule for chain in chains for rule in chain.rules):
                _refuse_alternatives(rule)
        self.chains.setdefault(table, {}).update({chain.name: chain for chain in chains})

    def remove_chains(self, table: Table, names: Iterable[str]) -> None:
        for name in names:
            self.chains.get(table, {}).pop(name, None)

    def set_hook(self, table: Table, hook: Hook, rules: HookRules) -> None:
        self.hooks[table, hook] = rules

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        self.maps.setdefault(table, {})[name] = dict(targets)

    async def apply(self) -> list[Failure]:
        return []

    async def check(self) -> list[str]:
        return []

    async def counts(self, table: Table, chains: Iterable[str]) -> list[RuleCount]:
        return []

    async def remove_everything(self) -> None:
        self.sets, self.chains, self.hooks, self.maps = {}, {}, {}, {}

    @property
    def ruleset(self) -> Ruleset:
        return Ruleset(self.version, self.chains, self.hooks, self.maps)
