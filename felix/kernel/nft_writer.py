"""From what is wanted of a table to a kernel that has it: in one transaction, or step by step."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from felix.kernel.nfnetlink import NftSocket, Refused
from felix.kernel.nft_expressions import Unencodable
from felix.kernel.nft_parts import Part, Parts, messages_of
from felix.kernel.nft_reader import NftReader
from felix.kernel.nft_transactions import Transactions, is_small
from felix.sync.nft_table import NftTable, Owner, VerdictMap, WantedChain, WantedSet
from felix.sync.set_members import Effect

NO_SUCH_FLAG = frozenset({errno.EOPNOTSUPP, errno.EINVAL})  # Linux before 6.9
RULES_AT_ONCE = 1000  # in a transaction: its cost grows with the square of the nameless sets in it


@dataclass(slots=True)
class Taken:
    """What one transaction is about: taken from the books, and entered into them when the kernel has it."""

    sets: list[tuple[WantedSet, Effect]] = field(default_factory=list)
    entries: list[tuple[VerdictMap, list[str], dict[str, str]]] = field(default_factory=list)
    chains: list[tuple[WantedChain, bytes]] = field(default_factory=list)  # and their rules' mark
    gone_chains: list[str] = field(default_factory=list)
    gone_sets: list[WantedSet] = field(default_factory=list)


class NftWriter:
    """Raises OSError from all of its methods if the kernel is not as the books say."""

    def __init__(self, table: NftTable, parts: Parts, reader: NftReader, socket: NftSocket) -> None:
        self._table = table
        self._parts = parts
        self._reader = reader
        self._transactions = Transactions(socket)

    async def rebuild(self) -> None:
        """An empty table, guarded, in the place of the one that is there."""
        is_there = self._reader.state() is not None
        try:
            await self._transactions.must(self._parts.anew(is_there=is_there))
        except Refused as error:
            if not self._parts.owns or error.errno not in NO_SUCH_FLAG:
                raise
            self._parts.disown()
            await self._transactions.must(self._parts.anew(is_there=is_there))
        self._table.must_rebuild = self._table.is_loaded = False
        self._table.marks.clear()
        self._table.failed.clear()

    async def make_frame(self, missing: Collection[str]) -> None:
        """Table and base chains, and a guard where they are `missing`."""
        await self._transactions.must([*self._parts.base(), *self._parts.guard(missing)])

    async def stand_guard(self) -> None:
        """In the place of what stands in the hooks."""
        messages = list(self._parts.guard(self._parts.guarded))
        if messages and not await self._transactions.send(messages):
            self._table.dirty |= self._parts.guarded & self._table.chains.keys()

    # --- at once -----------------------------------------------------------------------------------------------------

    async def at_once(self) -> bool:
        """A small change in one transaction: the kernel looks through all chains at the end of each.

        What was refused the last time is left out. False: too large or refused; then nothing was done.
        """
        table, parts = self._table, self._parts
        chains = [one for one in self._dirty() if Owner("chain", one.name) not in table.failed]
        if sum(len(one.chain.rules) for one in chains) > RULES_AT_ONCE:
            return False
        try:
            rules = [parts.rules(chain, table.to_write(chain)) for chain in chains]
        except Unencodable:
            return False
        taken = self._take([(chain, part.mark) for chain, part in zip(chains, rules, strict=True)])
        new_sets = [one for one, _ in taken.sets if not one.is_there]
        new_maps = [one for one in table.maps.values() if not one.is_there]
        all_ = [parts.new_set(one) for one in new_sets] + [parts.new_map(one) for one in new_maps]
        all_ += [parts.growth(*one) for one in taken.sets]
        all_ += [parts.new_chain(one.name) for one in chains if one.name not in table.known_chains]
        all_ += rules
        all_ += [parts.entries(*one) for one in taken.entries]
        all_ += [parts.shrinkage(*one) for one in taken.sets]
        all_ += parts.gone(taken.gone_chains, taken.gone_sets)
        messages = messages_of(all_)
        if not is_small(messages) or await self._transactions.send(messages):
            self._put_back(taken)
            return False
        for one in new_sets:
            one.is_there = True
        for verdicts in new_maps:
            verdicts.is_there = True
        self._enter(taken)
        return True

    def _dirty(self) -> list[WantedChain]:
        """New chains first and base chains last: what a chain leads to must be there when packets come."""
        dirty = [self._table.chains[name] for name in self._table.dirty]
        return sorted(dirty, key=lambda one: (one.hook is not None, one.name in self._table.known_chains))

    def _take(self, chains: list[tuple[WantedChain, bytes]]) -> Taken:
        table = self._table
        sets = [one for one in table.unsettled.values() if Owner("set", one.name) not in table.failed]
        entries = self._take_entries({one.name for one, _ in chains})
        gone_chains, gone_sets = self._gone_now()
        return Taken(
            [(one, one.take()) for one in sets],
            entries,
            chains,
            [name for name in gone_chains if Owner("gone chain", name) not in table.failed],
            [one for one in gone_sets if Owner("gone set", one.name) not in table.failed],
        )

    def _take_entries(self, new: Collection[str] = ()) -> list[tuple[VerdictMap, list[str], dict[str, str]]]:
        """`new`: chains that the same transaction makes."""
        found = []
        for one in self._table.maps.values():
            gone, come = one.differences(lambda name: self._can_lead_to(name, new))
            one.unsettled = set()
            if gone or come:
                found.append((one, gone, come))
        return found

    def _can_lead_to(self, name: str, new: Collection[str] = ()) -> bool:
        """Those that are to go are not led to."""
        return name in self._table.chains and (name in self._table.known_chains or name in new)

    def _gone_now(self) -> tuple[list[str], list[WantedSet]]:
        """And those that are in the books alone are struck out."""
        table = self._table
        for one in [one for one in table.gone_sets.values() if not one.is_there]:
            del table.gone_sets[one.name]
        table.gone_chains &= table.known_chains
        return sorted(table.gone_chains), list(table.gone_sets.values())

    @staticmethod
    def _put_back(taken: Taken) -> None:
        for one, effect in taken.sets:
            one.put_back(effect)
        for verdicts, gone, come in taken.entries:
            verdicts.unsettled |= {*gone, *come}

    def _enter(self, taken: Taken) -> None:
        for one, _ in taken.sets:
            self._table.set_is_settled(one)
        for verdicts, gone, come in taken.entries:
            verdicts.written(gone, come)
        for chain, mark in taken.chains:
            self._table.chain_stands(chain, mark)
        for name in taken.gone_chains:
            self._table.chain_is_gone(name)
        for one in taken.gone_sets:
            self._table.set_is_gone(one)

    # --- step by step ------------------------------------------------------------------------------------------------

    async def step_by_step(self) -> None:
        """What is refused costs itself alone. In between, no packet meets less than it should."""
        failed: dict[Owner, str] = {}
        grown = await self._make_and_grow(failed)
        await self._write_chains(failed)
        await self._write_entries(failed)
        await self._shrink(grown, failed)
        await self._remove(failed)
        self._table.failed = failed

    async def _make_and_grow(self, failed: dict[Owner, str]) -> list[tuple[WantedSet, Effect]]:
        """Sets and maps; the sets whose members are all in the kernel, if perhaps more."""
        table, parts = self._table, self._parts
        sets = list(table.unsettled.values())
        new_maps = [one for one in table.maps.values() if not one.is_there]
        new = [parts.new_set(one) for one in sets if not one.is_there] + [parts.new_map(one) for one in new_maps]
        failed |= await self._transactions.carry_out_all(new)
        for verdicts in new_maps:
            verdicts.is_there = Owner("map", verdicts.name) not in failed
        sets = [one for one in sets if Owner("set", one.name) not in failed]
        grown: list[tuple[WantedSet, Effect]] = []
        refused: dict[Owner, str] = {}
        for _ in range(2):
            effects = [(one, one.take()) for one in sets]
            for one in sets:
                one.is_there = True
            refused = await self._transactions.carry_out_all(parts.growth(*one) for one in effects)
            grown += [(one, effect) for one, effect in effects if Owner("set", one.name) not in refused]
            sets = [one for one in sets if Owner("set", one.name) in refused]
            for one in sets:  # it is not as we believed
                self._reader.compare_members(one)
        failed |= refused
        return grown

    async def _write_chains(self, failed: dict[Owner, str]) -> None:
        table = self._table
        dirty = self._dirty()
        new = [one.name for one in dirty if one.name not in table.known_chains]
        failed |= await self._transactions.carry_out_all(self._parts.new_chain(name) for name in new)
        are_new = {name for name in new if Owner("chain", name) not in failed}
        table.known_chains |= are_new
        table.marks |= dict.fromkeys(are_new, b"")
        working: tuple[list[tuple[WantedChain, Part]], Awaitable[Mapping[int, Refused]]] | None = None
        refused: dict[Owner, str] = {}
        for portion in portions(one for one in dirty if one.name in table.known_chains):
            # While the kernel works on one portion the next is put into words.
            rules = self._in_words(portion, refused)
            if working is not None:
                refused |= await self._rules_are_written(*working)
            working = rules, self._transactions.begin(messages_of(part for _, part in rules), in_thread=True)
        if working is not None:
            refused |= await self._rules_are_written(*working)
        await self._close(one for one in dirty if one.name in are_new and Owner("chain", one.name) in refused)
        failed |= refused

    async def _rules_are_written(
        self, rules: Sequence[tuple[WantedChain, Part]], answer: Awaitable[Mapping[int, Refused]]
    ) -> dict[Owner, str]:
        refused = await self._transactions.carry_out([part for _, part in rules], answer)
        for chain, part in rules:
            if part.owner not in refused:
                self._table.chain_stands(chain, part.mark)
        return refused

    def _in_words(self, chains: Iterable[WantedChain], refused: dict[Owner, str]) -> list[tuple[WantedChain, Part]]:
        found = []
        for chain in chains:
            try:
                found.append((chain, self._parts.rules(chain, self._table.to_write(chain))))
            except Unencodable as error:
                refused[Owner("chain", chain.name)] = str(error)
        return found

    async def _close(self, chains: Iterable[WantedChain]) -> None:
        """One that stood there stays as it was; a new one lets nothing pass."""
        open_ = list(chains)
        for keeps_failsafes in (True, False):
            parts = [
                self._parts.closed(one, self._table.hooks_to(one), keeps_failsafes=keeps_failsafes) for one in open_
            ]
            refused = await self._transactions.carry_out_all(parts)
            self._table.marks |= {part.owner.name: part.mark for part in parts if part.owner not in refused}
            open_ = [one for one in open_ if Owner("chain", one.name) in refused]

    async def _write_entries(self, failed: dict[Owner, str]) -> None:
        for verdicts, gone, come in self._take_entries():
            if await self._transactions.carry_out([self._parts.entries(verdicts, gone, come)]):
                await self._write_each(verdicts, failed)
            else:
                verdicts.written(gone, come)

    async def _write_each(self, verdicts: VerdictMap, failed: dict[Owner, str]) -> None:
        self._reader.compare_entries(verdicts)
        gone, come = verdicts.differences(self._can_lead_to)
        verdicts.unsettled = set()
        for interface in {*gone, *come}:
            leaves = [interface] if interface in gone else []
            enters = {interface: come[interface]} if interface in come else {}
            refused = await self._transactions.carry_out([self._parts.entries(verdicts, leaves, enters)])
            if refused:
                verdicts.unsettled.add(interface)
                failed[Owner("entry", f"{verdicts.name} {interface}")] = next(iter(refused.values()))
            else:
                verdicts.written(leaves, enters)

    async def _shrink(self, grown: Sequence[tuple[WantedSet, Effect]], failed: dict[Owner, str]) -> None:
        refused = await self._transactions.carry_out_all(self._parts.shrinkage(*one) for one in grown)
        for one, _ in grown:
            if Owner("set", one.name) in refused:
                self._reader.compare_members(one)
            else:
                self._table.set_is_settled(one)
        failed |= refused

    async def _remove(self, failed: dict[Owner, str]) -> None:
        chains, sets = self._gone_now()
        refused = await self._transactions.carry_out_all(self._parts.gone(chains, sets))
        for name in chains:
            if Owner("gone chain", name) not in refused:
                self._table.chain_is_gone(name)
        for one in sets:
            if Owner("gone set", one.name) not in refused:
                self._table.set_is_gone(one)
        failed |= refused


def portions(chains: Iterable[WantedChain]) -> Iterator[list[WantedChain]]:
    portion: list[WantedChain] = []
    count = 0
    for chain in chains:
        portion.append(chain)
        count += 1 + len(chain.chain.rules)
        if count >= RULES_AT_ONCE:
            yield portion
            portion, count = [], 0
    if portion:
        yield portion
