"""What is wanted of a table as parts of a transaction. Pure: it only encodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from felix.desired import IPVersion
from felix.filter_rules import Chain, Hook, Jump, Rule, Table
from felix.kernel.nfnetlink import MAX_ELEMENTS, OWNER, PERSIST, Message
from felix.kernel.nft_elements import encode_key, encode_member, interface_element, verdict_element
from felix.kernel.nft_rules import RuleEncoder
from felix.nft_names import BASE_CHAINS, chain_name
from felix.rules.names import FAILSAFE_IN, FAILSAFE_OUT
from felix.sync.nft_table import CLOSED_RULES, Owner, VerdictMap, WantedChain, WantedSet
from felix.sync.set_members import Effect

BASE: Mapping[str, tuple[Table, Hook]] = {chain_name(*one): one for one in BASE_CHAINS}
OWNED = OWNER | PERSIST
Guard: TypeAlias = Mapping[tuple[Table, Hook], Sequence[Rule]]


@dataclass(frozen=True, slots=True)
class Part:
    """Messages that stand or fall together with all others of the same owner."""

    owner: Owner
    messages: Sequence[Message]
    mark: bytes = b""  # of rules


def messages_of(parts: Iterable[Part]) -> list[Message]:
    return [message for part in parts for message in part.messages]


def closed_form(chain: WantedChain, hooks: Collection[Hook], *, keeps_failsafes: bool) -> Chain:
    """It decides about packets that nobody else looks at: none may pass but what never may be cut off.

    All packets of the host, people's SSH among them, go through what a hook leads to: this lets them pass, except in FORWARD.
    Without translations connections fail or not, but dropping them helps nobody.
    """
    name, failsafes = chain.chain.name, (FAILSAFE_IN, FAILSAFE_OUT)
    if chain.table == "nat" or name in failsafes or (hooks and "FORWARD" not in hooks):
        return Chain(name)
    kept = [
        rule
        for rule in chain.chain.rules
        if keeps_failsafes and isinstance(rule.action, Jump) and rule.action.chain in failsafes
    ]
    return Chain(name, (*kept, *CLOSED_RULES))


class Parts:
    """For one IP version's table. `guard`: what stands in these hooks until all rules are there; `owns`: nobody but this
    process may alter it."""

    def __init__(self, version: IPVersion, table: str, guard: Guard | None = None, *, owns: bool = False) -> None:
        self.encoder = RuleEncoder(version, table, OWNED if owns else 0)
        self._guard = dict(guard or {})

    # --- the frame ---------------------------------------------------------------------------------------------------

    def base(self) -> list[Message]:
        return [self.encoder.new_table(), *(self.encoder.base_chain(*one) for one in BASE.values())]

    def guard(self, hooks: Collection[str]) -> Iterator[Message]:
        for (table, hook), rules in self._guard.items():
            name = chain_name(table, hook)
            if name in hooks:
                yield self.encoder.flush_chain(name)
                yield from self.encoder.rules(table, Chain(hook, tuple(rules)))

    @property
    def guarded(self) -> set[str]:
        return {chain_name(*one) for one in self._guard}

    @property
    def owns(self) -> bool:
        return bool(self.encoder.table_flags)

    def disown(self) -> None:
        self.encoder.table_flags = 0

    def anew(self, *, is_there: bool) -> list[Message]:
        """An empty table, guarded, in the place of the one that is there."""
        gone = [self.encoder.delete_table()] if is_there else []
        return [*gone, *self.base(), *self.guard(BASE.keys())]

    # --- sets --------------------------------------------------------------------------------------------------------

    def new_set(self, one: WantedSet) -> Part:
        return Part(Owner("set", one.name), [self.encoder.new_set(one.name, one.members.type)])

    def growth(self, one: WantedSet, effect: Effect) -> Part:
        """What comes before the rules: members to add, and with them those that they overlap with to remove."""
        changes = self._members("add", one, effect.added)
        if effect.must_be_one:
            changes = [*self._strays(one), *self._members("delete", one, effect.removed), *changes]
        return Part(Owner("set", one.name), changes)

    def shrinkage(self, one: WantedSet, effect: Effect) -> Part:
        """What goes behind the rules."""
        changes = []
        if not effect.must_be_one:
            changes = [*self._strays(one), *self._members("delete", one, effect.removed)]
        return Part(Owner("set", one.name), changes)

    def _strays(self, one: WantedSet) -> list[Message]:
        return self._elements("delete", one.name, map(encode_key, one.strays))

    def _members(self, what: Literal["add", "delete"], one: WantedSet, members: Iterable[str]) -> list[Message]:
        encoded = (part for member in members for part in encode_member(one.members.type, member))
        return self._elements(what, one.name, encoded)

    def _elements(self, what: Literal["add", "delete"], name: str, elements: Iterable[bytes]) -> list[Message]:
        all_ = list(elements)
        portions = (all_[at : at + MAX_ELEMENTS] for at in range(0, len(all_), MAX_ELEMENTS))
        return [self.encoder.elements(what, name, portion) for portion in portions]

    # --- chains ------------------------------------------------------------------------------------------------------

    def new_chain(self, name: str) -> Part:
        return Part(Owner("chain", name), [self.encoder.new_chain(name)])

    def rules(self, chain: WantedChain, to_write: Chain) -> Part:
        """Raises Unencodable."""
        rules = self.encoder.rules(chain.table, to_write)
        return Part(Owner("chain", chain.name), [self.encoder.flush_chain(chain.name), *rules], self.encoder.mark)

    def closed(self, chain: WantedChain, hooks: Collection[Hook], *, keeps_failsafes: bool) -> Part:
        """What a new chain that was refused holds instead; `hooks`: that lead to it."""
        rules = self.encoder.rules(chain.table, closed_form(chain, hooks, keeps_failsafes=keeps_failsafes))
        return Part(Owner("chain", chain.name), [self.encoder.flush_chain(chain.name), *rules], self.encoder.mark)

    # --- maps --------------------------------------------------------------------------------------------------------

    def new_map(self, one: VerdictMap) -> Part:
        return Part(Owner("map", one.name), [self.encoder.new_map(one.name)])

    def entries(self, one: VerdictMap, gone: Iterable[str], come: Mapping[str, str]) -> Part:
        changes = self._elements("delete", one.name, map(interface_element, gone))
        changes += self._elements("add", one.name, (verdict_element(*entry) for entry in come.items()))
        return Part(Owner("map", one.name), changes)

    # --- what is gone ------------------------------------------------------------------------------------------------

    def gone(self, chains: Iterable[str], sets: Iterable[WantedSet]) -> list[Part]:
        """All chains are emptied first: they may lead to one another."""
        names = list(chains)
        parts = [Part(Owner("gone chain", name), [self.encoder.flush_chain(name)]) for name in names]
        parts += [Part(Owner("gone chain", name), [self.encoder.delete_chain(name)]) for name in names]
        return parts + [Part(Owner("gone set", one.name), [self.encoder.delete_set(one.name)]) for one in sets]
