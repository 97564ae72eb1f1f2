"""What has been handed to a packet filter, so that only what differs is handed over again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from felix.filter_rules import Chain, Table
from felix.ports import PacketFilter

Section: TypeAlias = tuple[str, ...]
"""Who made some chains: ("policy", …), ("workload", …), ("dispatch",)."""


class Sections:
    """Chains by who made them. A chain has one maker at a time."""

    def __init__(self, packet_filter: PacketFilter) -> None:
        self._filter = packet_filter
        self._given: dict[Section, dict[tuple[Table, str], Chain]] = {}
        self.chains: Counter[Table] = Counter()  # how many
        self.rules: Counter[Table] = Counter()

    def put(self, section: Section, chains: Mapping[Table, Iterable[Chain]]) -> None:
        """These are now the section's chains; others that it had are gone."""
        now = {(table, chain.name): chain for table, some in chains.items() for chain in some}
        before = self._given.get(section, {})
        changed: dict[Table, list[Chain]] = {}
        for (table, _), chain in now.items():
            if before.get((table, chain.name)) != chain:
                changed.setdefault(table, []).append(chain)
        for table, some in changed.items():
            self._filter.set_chains(table, some)
        gone: dict[Table, list[str]] = {}
        for table, name in before.keys() - now.keys():
            gone.setdefault(table, []).append(name)
        for table, names in gone.items():
            self._filter.remove_chains(table, sorted(names))
        for those, sign in ((before, -1), (now, 1)):
            for (table, _), chain in those.items():
                self.chains[table] += sign
                self.rules[table] += sign * len(chain.rules)
        if now:
            self._given[section] = now
        else:
            self._given.pop(section, None)

    def drop(self, section: Section) -> None:
        self.put(section, {})

    def of_kind(self, kind: str) -> list[Section]:
        return [section for section in self._given if section[0] == kind]


class SharedChains:
    """Chains that several sections jump to, kept as long as one does. Their names say what is in them."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._users: dict[tuple[Table, str], int] = {}
        self._of: dict[Section, frozenset[tuple[Table, str]]] = {}

    def put(
        self, section: Section, chains: Mapping[Table, Iterable[Chain]], shared: Mapping[Table, Mapping[str, Chain]]
    ) -> None:
        """These are now the section's chains, and what they jump to."""
        self._use(section, shared)
        self._sections.put(section, chains)

    def drop(self, section: Section) -> None:
        self.put(section, {}, {})

    def _use(self, user: Section, chains: Mapping[Table, Mapping[str, Chain]]) -> None:
        now = {(table, name): chain for table, some in chains.items() for name, chain in some.items()}
        before = self._of.pop(user, frozenset())
        for key, chain in now.items():
            # Even one that is known: with another mark mask it is another chain.
            self._sections.put(("shared", *key), {key[0]: [chain]})
        for key in now.keys() - before:
            self._users[key] = self._users.get(key, 0) + 1
        for key in before - now.keys():
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
                self._sections.drop(("shared", *key))
        if now:
            self._of[user] = frozenset(now)
