"""What a kernel has of a table, entered into the books: at the start, and whenever others may have been at it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain
from felix.kernel.nfnetlink import DORMANT, MARK_OCTETS, OWNER, PERSIST, Hooked, NftSocket, SetKind, TableState
from felix.kernel.nft_elements import Key, interface_of, member_keys, members_of
from felix.kernel.nft_expressions import Unencodable
from felix.kernel.nft_monitor import Touched
from felix.kernel.nft_parts import BASE
from felix.kernel.nft_rules import VERDICT_MAP, RuleEncoder, hooked, set_kind
from felix.sync.nft_table import NftTable, VerdictMap, WantedChain, WantedSet

ASK_EACH = 200  # more chains than that are asked about in a thread


class NftReader:
    """Raises OSError."""

    def __init__(self, table: NftTable, name: str, socket: NftSocket) -> None:
        self._table = table
        self._name = name
        self._socket = socket

    @property
    def version(self) -> IPVersion:
        return self._table.version

    # --- at the start ------------------------------------------------------------------------------------------------

    def state(self) -> TableState | None:
        """None: there is no table. Raises OSError if it is another's, too."""
        found = self._socket.table()
        if found is not None and found.flags & OWNER and found.owner != self._socket.port_id:
            raise OSError(errno.EPERM, f"{self._table.what} belongs to another process: does another Felix run here?")
        return found

    async def frame(self) -> tuple[dict[str, Hooked | None], dict[str, SetKind]]:
        """Chains; sets and maps."""
        return await asyncio.to_thread(lambda: (self._socket.chains(), self._socket.sets()))

    def has_alien(self, chains: Mapping[str, Hooked | None], sets: Mapping[str, SetKind]) -> bool:
        """Whether something is in the way that cannot be altered in place: a chain hooked otherwise, a set of another kind."""
        kinds = {one.name: set_kind(self.version, one.members.type) for one in self._table.sets.values()}
        kinds |= dict.fromkeys(self._table.maps, VERDICT_MAP)
        return any(not is_hooked_alike(*one) for one in chains.items()) or any(
            sets[name] != kind for name, kind in kinds.items() if name in sets
        )

    async def adopt(self, chains: Iterable[str], sets: Collection[str]) -> None:
        """Take these for what has been programmed: what is not as wanted is noted as dirty or unsettled."""
        table = self._table
        table.chains_stand({*chains, *BASE})
        table.sets_stand(sets)
        names = sorted(table.known_chains & table.chains.keys())
        for at in range(0, len(names), ASK_EACH):
            chains_ = [table.chains[name] for name in names[at : at + ASK_EACH] if name in table.chains]
            some = [(chain, table.to_write(chain)) for chain in chains_]
            for chain, mark, is_wanted in await asyncio.to_thread(self._compared, some):
                table.marks[chain.name] = mark
                if is_wanted:
                    table.chain_stands(chain, mark)
        await self._compare_all([one for one in table.unsettled.values() if one.is_there])
        for verdicts in table.maps.values():
            if verdicts.is_there:
                self.compare_entries(verdicts)
            else:
                verdicts.stands({})
        table.is_loaded = True

    def _compared(self, chains: Iterable[tuple[WantedChain, Chain]]) -> list[tuple[WantedChain, bytes, bool]]:
        """What their rules were made of, and whether that is what is to be written."""
        found = []
        encoder = RuleEncoder(self.version, self._name)
        for chain, to_write in chains:
            mark = self._socket.marks(chain.name)
            is_wanted = len(mark) == MARK_OCTETS * len(to_write.rules)
            if mark and is_wanted:
                with suppress(Unencodable):
                    encoder.rules(chain.table, to_write)
                is_wanted = encoder.mark == mark
            found.append((chain, mark, is_wanted))
        return found

    def compare_members(self, one: WantedSet) -> None:
        """Note what it lacks and what it has too much."""
        self._enter([one], self._differences(self._asked([one])))

    async def _compare_all(self, sets: Sequence[WantedSet]) -> list[WantedSet]:
        """Those that are not as they were written; in a thread, as much as takes some milliseconds at a time."""
        altered = []
        for at in range(0, len(sets), ASK_EACH):
            some = [one for one in sets[at : at + ASK_EACH] if one.is_there]
            waited = {one.name for one in some if one.pending}
            found = await asyncio.to_thread(self._differences, self._asked(some))
            altered += [one for one, (missing, strays) in zip(some, found, strict=True) if missing or strays]
            self._enter(some, found)
            altered = [one for one in altered if one.name not in waited]  # what waits to be written is no alteration
        return altered

    @staticmethod
    def _asked(sets: Iterable[WantedSet]) -> list[tuple[str, IPSetType, set[str]]]:
        """What is in effect now; what is told from now on comes on top of what the comparison finds."""
        asked = []
        for one in sets:
            one.pending = []
            asked.append((one.name, one.members.type, set(one.members.effective)))
        return asked

    def _differences(self, asked: Iterable[tuple[str, IPSetType, set[str]]]) -> list[tuple[list[str], list[Key]]]:
        """Members that are missing, elements that are too much. Touches no books."""
        found = []
        for name, type, members in asked:
            stand = members_of(self._socket.elements(name))
            wanted = {member_keys(type, member): member for member in members}
            missing = [wanted[keys] for keys in wanted.keys() - stand]
            found.append((missing, [key for keys in stand - wanted.keys() for key in keys]))
        return found

    def _enter(self, sets: Iterable[WantedSet], found: Iterable[tuple[list[str], list[Key]]]) -> None:
        for one, differences in zip(sets, found, strict=True):
            self._table.members_stand(one, *differences)

    def compare_entries(self, verdicts: VerdictMap) -> bool:
        """Whether all lead to where they did when they were written."""
        there = {interface_of(key): target for key, target in self._socket.elements(verdicts.name).items()}
        is_same = there == verdicts.standing
        verdicts.stands(there)
        return is_same

    async def _marks(self, names: Collection[str]) -> dict[str, bytes]:
        """Chain by chain: of a whole table's rules each portion of the answer costs a walk over all before it."""

        def ask() -> dict[str, bytes]:
            return {name: self._socket.marks(name) for name in names}

        return await asyncio.to_thread(ask) if len(names) > ASK_EACH else ask()

    # --- later -------------------------------------------------------------------------------------------------------

    async def is_as_known(self) -> bool:
        """By names: whether anything is missing."""
        chains, sets = await self.frame()
        known = {one.name for one in self._table.sets.values() if one.is_there}
        known |= {one.name for one in self._table.maps.values() if one.is_there}
        return self._table.known_chains <= chains.keys() and known <= sets.keys()

    async def check_touched(self, touched: Touched) -> list[str]:
        """Only what somebody is said to have been at."""
        table = self._table
        found = [f"map {name} was altered" for name in touched.sets & table.maps.keys() if self._is_altered(name)]
        found += self._compare_marks(await self._marks(touched.chains & table.known_chains & table.chains.keys()))
        sets = [one for one in table.sets.values() if one.name in touched.sets]
        return found + [f"members of set {one.id} were altered" for one in await self._compare_all(sets)]

    async def check(self) -> list[str]:
        """Everything. What is missing as such makes the books void."""
        chains, sets = await self.frame()
        table = self._table
        found = self._check_frame(chains, sets)
        if found:
            table.is_loaded = False
            return found
        names = table.known_chains & table.chains.keys()
        found += self._compare_marks(await self._marks(names))
        if foreign := chains.keys() - table.known_chains:
            found.append(f"chains in our table that are not ours: {', '.join(sorted(foreign)[:5])}")
            table.known_chains |= foreign
            table.gone_chains |= foreign
        found += [f"map {name} was altered" for name in table.maps if await asyncio.to_thread(self._is_altered, name)]
        altered = await self._compare_all(list(table.sets.values()))
        found += [f"members of set {one.id} were altered" for one in altered]
        return found

    def _check_frame(self, chains: Mapping[str, Hooked | None], sets: Mapping[str, SetKind]) -> list[str]:
        table = self._table
        if BASE.keys() - chains.keys():
            table.is_breached = True
            return [f"{table.what} was removed or flushed"]
        state = self._socket.table()
        found = [f"{table.what} was made dormant"] if state is not None and state.flags & DORMANT else []
        if removed := table.known_chains - chains.keys():
            table.is_breached = True
            found += [f"{table.what_is(name)} was removed" for name in sorted(removed)]
        policies = {name: hook.policy for name, hook in chains.items() if hook is not None}
        found += [f"the policy of {table.what_is(name)} was altered" for name in BASE if policies[name] != 1]
        alien = [name for name, hook in chains.items() if not is_hooked_alike(name, hook)]
        found += [f"where the kernel calls {table.what_is(name)} was altered" for name in alien]
        found += [f"set {one.id} was removed" for one in table.sets.values() if one.is_there and one.name not in sets]
        found += [f"map {one.name} was removed" for one in table.maps.values() if one.is_there and one.name not in sets]
        return found or (["sets of another kind are in the place of ours"] if self.has_alien({}, sets) else [])

    def _compare_marks(self, marks: Mapping[str, bytes]) -> list[str]:
        table = self._table
        altered = [name for name, mark in marks.items() if mark != table.marks.get(name, b"")]
        table.dirty |= set(altered) & table.chains.keys()
        table.is_breached = table.is_breached or bool(altered)
        return [f"{table.what_is(name)} was altered" for name in altered]

    def _is_altered(self, name: str) -> bool:
        verdicts = self._table.maps[name]
        return verdicts.is_there and not self.compare_entries(verdicts)


def is_owned(state: TableState) -> bool:
    """By this process, or by one that has ended."""
    return bool(state.flags & (OWNER | PERSIST))


def is_hooked_alike(name: str, hook: Hooked | None) -> bool:
    """The policy is not looked at: it can be set."""
    if name not in BASE:
        return hook is None
    return hook is not None and hook[:3] == hooked(*BASE[name])[:3]
