"""The nftables PacketFilter: one table `calico` of one IP version, kept as wanted.

By our own netlink messages (nft_rules.py); what only nft's text can say, translations for the most part, goes through
libnftables. In order: new sets, members that come, chains, map entries, and last what is gone: in between, no packet
meets less than it should. A former process's table is taken over in the same way, chain by chain.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain, Drop, Hook, HookRules, Rule, Table
from felix.kernel.libnftables import LibNftables, NftMissing, NftRefused
from felix.kernel.nfnetlink import (
    MANY_CHAINS,
    ElementChange,
    ElementsRefused,
    NftSocket,
    Touched,
    element_key,
    encode_key,
    encode_member,
    interface_element,
    verdict_element,
)
from felix.kernel.nft_rules import RuleEncoder, Unencodable
from felix.ports import Failure, RuleCount
from felix.rules.nft_text import BASE_CHAINS, TABLE_NAME, NftText, chain_name, map_name, set_name
from felix.sync.set_members import Effect, SetMembers

RULES_AT_ONCE = 1000  # in a transaction: its cost grows with the square of the nameless sets in it
LARGE = 200  # messages; from there on in a thread, while our event loop turns
ASK_EACH = 200  # more changed chains than that are asked about in a thread
CLOSED = Chain("closed", (Rule((), Drop(), ("catbird: this chain was refused",)),))


@dataclass(slots=True)
class WantedChain:
    """By its name in the kernel. `what` is for people, `declaration` a base chain's."""

    name: str
    what: str
    table: Table
    chain: Chain
    declaration: str = ""
    reason: str = ""  # why it could not be put into words


@dataclass(slots=True)
class WantedSet:
    name: str
    id: str
    members: SetMembers
    pending: list[Effect] = field(default_factory=list)
    is_there: bool = False
    strays: list[bytes] = field(default_factory=list)  # elements in the kernel that nobody wants


@dataclass(slots=True)
class Portion:
    """Chains as one transaction's messages; `owners`: whose each is. Those `in_text` are not among them."""

    chains: list[WantedChain]
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    in_text: set[str] = field(default_factory=set)


Sent: TypeAlias = "tuple[Portion, Awaitable[Mapping[int, Exception]]]"


class NftablesFilter:
    """Not thread-safe; `apply` and `check` one after the other. Raises NftMissing when made on a machine without nft."""

    has_verdict_maps = True
    has_alternatives = True

    def __init__(
        self,
        version: IPVersion,
        table: str = TABLE_NAME,
        guard: Mapping[tuple[Table, Hook], Sequence[Rule]] | None = None,
    ) -> None:
        """`guard`: what stands in these hooks while all of ours is written anew, because there was nothing or others
        have been at it."""
        self.version: IPVersion = version
        self._guard = dict(guard or {})
        self._is_breached = False  # others have removed or altered chains
        self._text = NftText(version)
        self._nft = LibNftables()
        self._socket = NftSocket(version, table)
        self._encoder = RuleEncoder(version, table)
        self._chains: dict[str, WantedChain] = {}
        self._sets: dict[str, WantedSet] = {}
        self._unsettled: dict[str, WantedSet] = {}  # by kernel name: those that may differ from the kernel's
        self._with_bad: set[str] = set()  # ids of sets that were given what is no member
        self._maps: dict[str, dict[str, str]] = {}  # kernel name → interface → kernel chain
        self._known_maps: dict[str, dict[str, str]] = {}
        self._known_chains: set[str] = set()
        self._handles: dict[str, list[int]] = {}
        self._dirty: set[str] = set()
        self._gone_chains: set[str] = set()
        self._gone_sets: dict[str, WantedSet] = {}
        self._failed: dict[str, str] = {}
        self._is_loaded = False
        self._own_pids: set[int] = set()
        self._stray_keys: dict[str, set[bytes]] = {}
        self._suspects = Touched()
        for table_, hook in BASE_CHAINS:
            self.set_hook(table_, hook, HookRules())

    def close(self) -> None:
        self._nft.close()
        self._socket.close()

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        wanted = self._sets.get(id)
        if wanted is None or wanted.members.type != type:
            if wanted is not None:
                self._gone_sets[wanted.name] = wanted
            wanted = self._gone_sets.pop(set_name(self.version, id), None) if wanted is None else None
            if wanted is None or wanted.members.type != type:
                wanted = WantedSet(set_name(self.version, id), id, SetMembers(type, self.version))
            self._sets[id] = wanted
        wanted.pending.append(wanted.members.replace(members))
        self._members_changed(wanted)

    def _members_changed(self, wanted: WantedSet) -> None:
        self._unsettled[wanted.name] = wanted
        if wanted.members.bad:
            self._with_bad.add(wanted.id)
        else:
            self._with_bad.discard(wanted.id)

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        wanted = self._sets.get(id)
        if wanted is not None:
            wanted.pending.append(wanted.members.change(added, removed))
            self._members_changed(wanted)

    def remove_ip_set(self, id: str) -> None:
        wanted = self._sets.pop(id, None)
        if wanted is not None:
            self._unsettled.pop(wanted.name, None)
            self._with_bad.discard(id)
            self._gone_sets[wanted.name] = wanted

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        for chain in chains:
            name = chain_name(table, chain.name)
            self._want(WantedChain(name, f"chain {table} {chain.name}", table, chain))

    def _want(self, chain: WantedChain) -> None:
        self._chains[chain.name] = chain
        self._gone_chains.discard(chain.name)
        self._dirty.add(chain.name)

    def remove_chains(self, table: Table, names: Iterable[str]) -> None:
        for name in (chain_name(table, one) for one in names):
            if self._chains.pop(name, None) is not None:
                self._dirty.discard(name)
                self._failed.pop(name, None)
                self._gone_chains.add(name)

    def set_hook(self, table: Table, hook: Hook, rules: HookRules) -> None:
        name = chain_name(table, hook)
        chain = Chain(hook, (*rules.inserted, *rules.appended))
        self._want(WantedChain(name, f"hook {table} {hook}", table, chain, self._text.base_chain(table, hook)))

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        self._maps[map_name(table, name)] = {one: chain_name(table, target) for one, target in targets.items()}

    # --- making it so ------------------------------------------------------------------------------------------------

    async def apply(self) -> list[Failure]:
        changed_type = [one for one in self._sets.values() if one.name in self._gone_sets] if self._gone_sets else []
        if changed_type:
            # Sets of the same name and another type are in the way until no rule names them.
            self._run(f"add table {self._text.table}\ndelete table {self._text.table}")
            self._is_loaded = False
        if not self._is_loaded:
            await self._adopt()
        try:
            await self._change()
        except (ElementsRefused, NftRefused):
            # The kernel is not as we believed: once more from what it says, and if that does not do, all anew.
            await self._adopt()
            try:
                await self._change()
            except (ElementsRefused, NftRefused):
                self._run(f"add table {self._text.table}\ndelete table {self._text.table}")
                await self._adopt()
                await self._change()
        failures = [Failure(self._what(name), reason) for name, reason in sorted(self._failed.items())]
        for id in sorted(self._with_bad):
            bad = sorted(self._sets[id].members.bad)
            failures += [Failure(f"member of set {id}", f"{one!r} is no member") for one in bad]
        return failures

    def _what(self, name: str) -> str:
        chain = self._chains.get(name)
        return chain.what if chain is not None else name

    async def _adopt(self) -> None:
        """Take what stands in the table for what has been programmed; all of ours is compared, or written again."""
        hooks = [chain.declaration for chain in self._chains.values() if chain.declaration]
        missing = BASE_CHAINS_NAMES - self._socket.chains()
        self._run("\n".join([f"add table {self._text.table}", *hooks, *self._guard_text(missing)]))
        chains, sets = await asyncio.to_thread(lambda: (self._socket.chains(), self._socket.sets()))
        self._known_chains = chains
        self._dirty = set(self._chains)
        self._gone_chains = chains - self._chains.keys()
        wanted_sets = {one.name: one for one in self._sets.values()}
        self._unsettled = dict(wanted_sets)
        self._gone_sets = {
            name: WantedSet(name, name, SetMembers("net", self.version), is_there=True)
            for name in sets - wanted_sets.keys() - self._maps.keys()
            if not name.startswith(MAP_NAMES)
        }
        self._known_maps = {name: {} for name in self._maps if name in sets}
        self._stray_keys = {name: self._socket.elements(name) for name in self._known_maps}
        for name, one in wanted_sets.items():
            one.pending, one.strays, one.is_there = [], [], name in sets
            if one.is_there:
                self._compare(one)
        self._is_loaded = True

    def _guard_text(self, names: Collection[str]) -> Iterator[str]:
        for (table, hook), rules in self._guard.items():
            name = chain_name(table, hook)
            if name in names:
                yield self._text.flush_chain(name)
                yield from self._text.add_rules(name, self._text.chain_rules(table, Chain(hook, tuple(rules))))

    def _stand_guard(self) -> None:
        if text := list(self._guard_text(BASE_CHAINS_NAMES)):
            self._run("\n".join(text))
            self._dirty |= {chain_name(*hook) for hook in self._guard}

    def _compare(self, one: WantedSet) -> None:
        """A set that stands there: what it lacks, and what it has too much."""
        there = self._socket.elements(one.name)
        wanted: dict[bytes, str] = {}
        keys: set[bytes] = set()
        for member in one.members.effective:
            elements = encode_member(one.members.type, member)
            wanted[element_key(elements[0])] = member
            keys |= {element_key(element) for element in elements}
        missing = {member for key, member in wanted.items() if key not in there}
        one.pending = [Effect(added=missing)] if missing else []
        # nft's own first end of all intervals harms nobody.
        one.strays = [encode_key(key) for key in there - keys if key[1:].strip(b"\0") or not key[0]]

    async def _change(self) -> None:
        self._failed = {
            name: why for name, why in self._failed.items() if name in self._chains and name not in self._dirty
        }
        if not await self._change_at_once():
            if self._is_breached:
                self._stand_guard()
            await self._make_sets()
            self._change_elements(first=True)
            changed = await self._change_chains()
            self._change_maps()
            self._change_elements(first=False)
            await self._remove_gone()
            await self._learn(changed)
            self._unsettled.clear()
        self._is_breached = False

    async def _change_at_once(self) -> bool:
        """A small change in one transaction: the kernel looks through all chains at the end of each.

        False: too large, only in text, or refused; then nothing was done, and step by step it is found out what is wrong.
        """
        dirty = [self._chains[name] for name in self._dirty if name in self._chains]
        if sum(len(one.chain.rules) for one in dirty) > RULES_AT_ONCE or any(one.name in self._failed for one in dirty):
            return False
        if any(name not in self._known_maps for name in self._maps):
            return False
        encoder = self._encoder
        new_sets = [one for one in self._unsettled.values() if not one.is_there]
        for one in new_sets:
            one.pending = [Effect(added=set(one.members.effective))]
        messages = [encoder.new_set(one.name, one.members.type) for one in new_sets]
        grown = [(one, merged(one.pending)) for one in self._unsettled.values() if one.pending]
        messages += self._socket.encoded(
            self._elements("add", one, effect.added) for one, effect in grown if not effect.must_be_one
        )
        for one, effect in grown:
            if effect.must_be_one:
                both = [self._elements("delete", one, effect.removed), self._elements("add", one, effect.added)]
                messages += self._socket.encoded(both)
        messages += [encoder.new_chain(one.name) for one in dirty if one.name not in self._known_chains]
        try:
            for chain in dirty:
                messages += [encoder.flush_chain(chain.name), *encoder.rules(chain.table, chain.chain)]
        except Unencodable:
            return False
        messages += self._socket.encoded(self._map_changes())
        messages += self._socket.encoded(
            self._elements("delete", one, effect.removed) for one, effect in grown if not effect.must_be_one
        )
        strays = [ElementChange("delete", one.name, one.strays) for one in self._unsettled.values() if one.strays]
        messages += self._socket.encoded(strays)
        gone = sorted(self._gone_chains & self._known_chains)
        messages += [encoder.flush_chain(name) for name in gone] + [encoder.delete_chain(name) for name in gone]
        messages += [encoder.delete_set(one.name) for one in self._gone_sets.values() if one.is_there]
        if len(messages) > 2 * RULES_AT_ONCE or await self._try(messages):
            return False
        for one in new_sets:
            one.is_there = True
        for one in self._unsettled.values():
            one.pending, one.strays = [], []
        self._unsettled.clear()
        self._known_chains |= {one.name for one in dirty}
        self._maps_are_written()
        self._chains_are_gone(gone)
        self._dirty.clear()
        await self._learn([one.name for one in dirty])
        return True

    async def _make_sets(self) -> None:
        new = [one for one in self._unsettled.values() if not one.is_there]
        await self._send([self._encoder.new_set(one.name, one.members.type) for one in new])
        for one in new:
            one.is_there = True
            one.pending = [Effect(added=set(one.members.effective))]
        if maps := [self._text.add_map(name) for name in self._maps if name not in self._known_maps]:
            self._run("\n".join(maps))
        for name in self._maps:
            self._known_maps.setdefault(name, {})

    def _change_elements(self, *, first: bool) -> None:
        """What is added before the chains, what is removed after them; what overlaps in one step."""
        changes: list[ElementChange] = []
        touched = []
        for wanted in self._unsettled.values():
            if wanted.strays and not first:
                changes.append(ElementChange("delete", wanted.name, wanted.strays))
                wanted.strays = []
            if not wanted.pending:
                continue
            effect = merged(wanted.pending)
            if first and effect.must_be_one:
                changes += [
                    self._elements("delete", wanted, effect.removed),
                    self._elements("add", wanted, effect.added),
                ]
                effect = Effect()
            elif first and effect.added:
                changes.append(self._elements("add", wanted, effect.added))
                effect = Effect(removed=effect.removed)
            elif not first:
                changes.append(self._elements("delete", wanted, effect.removed))
                effect = Effect()
            touched.append((wanted, effect))
        self._socket.change(change for change in changes if change.elements)
        for wanted, effect in touched:
            wanted.pending = [effect] if effect.added or effect.removed else []

    @staticmethod
    def _elements(what: str, wanted: WantedSet, members: Iterable[str]) -> ElementChange:
        encoded = [part for member in members for part in encode_member(wanted.members.type, member)]
        return ElementChange(what, wanted.name, encoded)  # type: ignore[arg-type]

    async def _change_chains(self) -> list[str]:
        """Those that were written. Base chains last: what they lead to must be there when packets come."""
        dirty = sorted(
            (self._chains[name] for name in self._dirty if name in self._chains), key=lambda one: bool(one.declaration)
        )
        new = [chain.name for chain in dirty if chain.name not in self._known_chains]
        await self._send([self._encoder.new_chain(name) for name in new])
        are_new = set(new)
        self._known_chains |= are_new
        written: list[str] = []
        sent: Sent | None = None
        for some in self._in_portions(dirty):
            # While the kernel works on one portion the next is put into words.
            try:
                portion = self._encoded(some)
            except Exception:
                if sent is not None:
                    await asyncio.wait([asyncio.ensure_future(sent[1])])  # the socket serves one at a time
                raise
            if sent is not None:
                written += await self._settle(*sent, are_new)
            sent = portion, self._begin(portion.messages)
        if sent is not None:
            written += await self._settle(*sent, are_new)
        self._dirty -= set(written)
        return written

    def _in_portions(self, chains: Sequence[WantedChain]) -> Iterator[list[WantedChain]]:
        portion: list[WantedChain] = []
        count = 0
        for chain in chains:
            portion.append(chain)
            count += len(chain.chain.rules)
            if count >= RULES_AT_ONCE:
                yield portion
                portion, count = [], 0
        if portion:
            yield portion

    def _encoded(self, chains: Sequence[WantedChain]) -> Portion:
        portion = Portion(list(chains))
        for chain in chains:
            try:
                rules = self._encoder.rules(chain.table, chain.chain)
            except Unencodable:
                portion.in_text.add(chain.name)
                continue
            encoded = [self._encoder.flush_chain(chain.name), *rules]
            portion.messages += encoded
            portion.owners += [chain.name] * len(encoded)
        return portion

    def _begin(self, messages: Sequence[tuple[int, bytes]]) -> Awaitable[Mapping[int, Exception]]:
        return asyncio.get_running_loop().run_in_executor(None, self._socket.transaction, messages)

    async def _settle(
        self, portion: Portion, answer: Awaitable[Mapping[int, Exception]], are_new: set[str]
    ) -> list[str]:
        """Those that are in the kernel. What it refuses is left out, and closed if it is new."""
        while refused := await answer:
            bad = {portion.owners[place]: str(error) for place, error in refused.items()}
            for chain in portion.chains:
                if chain.name in bad:
                    self._close(chain, bad[chain.name], are_new)
            portion = self._encoded([one for one in portion.chains if one.name not in bad])
            answer = self._begin(portion.messages)
        return [one.name for one in portion.chains if one.name not in portion.in_text or self._write_text(one, are_new)]

    def _write_text(self, chain: WantedChain, are_new: set[str]) -> bool:
        text = self._text
        try:
            rules = text.add_rules(chain.name, text.chain_rules(chain.table, chain.chain))
            self._run("\n".join([text.flush_chain(chain.name), *rules]))
        except (ValueError, NftRefused) as error:
            self._close(chain, _short(error), are_new)
            return False
        return True

    def _close(self, chain: WantedChain, reason: str, are_new: set[str]) -> None:
        """One that stood there stays as it was. A new one decides about packets that nobody else looks at: none may pass."""
        self._failed[chain.name] = reason
        if chain.name in are_new:
            closed = Chain(chain.chain.name, CLOSED.rules)
            self._socket.transaction([self._encoder.flush_chain(chain.name), *self._encoder.rules(chain.table, closed)])

    async def _try(self, messages: Sequence[tuple[int, bytes]]) -> Mapping[int, Exception]:
        if len(messages) < LARGE:
            return self._socket.transaction(messages)
        return await asyncio.to_thread(self._socket.transaction, messages)

    async def _send(self, messages: Sequence[tuple[int, bytes]]) -> None:
        """In portions. Raises ElementsRefused."""
        for at in range(0, len(messages), RULES_AT_ONCE):
            for error in (await self._try(messages[at : at + RULES_AT_ONCE])).values():
                raise error

    def _change_maps(self) -> None:
        self._socket.change(self._map_changes())
        self._maps_are_written()

    def _map_changes(self) -> Iterator[ElementChange]:
        for name, targets in self._maps.items():
            known = self._known_maps.get(name, {})
            gone = [one for one, target in known.items() if targets.get(one) != target]
            come = [(one, target) for one, target in targets.items() if known.get(one) != target]
            strays = [encode_key(key) for key in self._stray_keys.get(name, ())]
            if gone or strays:
                yield ElementChange("delete", name, [*strays, *(interface_element(one) for one in gone)])
            if come:
                yield ElementChange("add", name, [verdict_element(*one) for one in come])

    def _maps_are_written(self) -> None:
        self._stray_keys.clear()
        self._known_maps |= {name: dict(targets) for name, targets in self._maps.items()}

    async def _remove_gone(self) -> None:
        chains = sorted(self._gone_chains & self._known_chains)
        await self._send([self._encoder.flush_chain(name) for name in chains])
        await self._send([self._encoder.delete_chain(name) for name in chains])
        await self._send([self._encoder.delete_set(one.name) for one in self._gone_sets.values() if one.is_there])
        self._chains_are_gone(chains)

    def _chains_are_gone(self, chains: Sequence[str]) -> None:
        self._known_chains -= set(chains)
        for name in chains:
            self._handles.pop(name, None)
        self._gone_chains.clear()
        self._gone_sets.clear()

    async def _learn(self, changed: Sequence[str]) -> None:
        """Remember our rules' handles, by which a change of others is seen."""
        if len(changed) > ASK_EACH:
            self._handles |= await asyncio.to_thread(self._handles_of, changed)
        else:
            self._handles |= self._handles_of(changed)

    def _handles_of(self, chains: Iterable[str]) -> dict[str, list[int]]:
        """Chain by chain: of a whole table's rules each portion of the answer costs a walk over all before it."""
        return {name: self._socket.rule_handles(name).get(name, []) for name in chains}

    @property
    def port_ids(self) -> set[int]:
        """By which the kernel's notifications of our own writes are known, but for those in nft's text."""
        return {self._socket.port_id}

    # --- running -----------------------------------------------------------------------------------------------------

    def _run(self, statements: str) -> None:
        """In nft's text. Raises NftRefused."""
        self._own_pids.add(threading.get_native_id())
        self._nft.run(statements)

    def is_own(self, pid: int) -> bool:
        """Whether a change was made by us: the kernel names the thread or the process."""
        return pid in self._own_pids or pid in self._socket.senders or pid == os.getpid()

    # --- looking -----------------------------------------------------------------------------------------------------

    def suspect(self, touched: Touched) -> None:
        """Somebody else has been at these: the next `check` looks at them alone."""
        self._suspects.add(touched)

    async def check(self) -> list[str]:
        suspects, self._suspects = self._suspects, Touched()
        if not self._is_loaded:
            return []
        if len(suspects.chains) >= MANY_CHAINS:
            # What is the matter takes long to find out.
            with suppress(NftRefused):
                self._stand_guard()
        found = self._check_touched_maps(suspects.sets & self._known_maps.keys())
        if suspects.is_more or not (suspects.chains or suspects.sets):
            return found + await self._check_all()
        found += self._check_handles(self._handles_of(suspects.chains & self._known_chains & self._chains.keys()))
        touched = [one for one in self._sets.values() if one.name in suspects.sets]
        return found + [what for one in touched for what in self._check_members(one)]

    def _check_handles(self, handles: Mapping[str, list[int]]) -> list[str]:
        altered = [name for name, numbers in handles.items() if numbers != self._handles.get(name, [])]
        self._dirty |= set(altered)
        self._is_breached = self._is_breached or bool(altered)
        return [f"{self._what(name)} was altered" for name in altered]

    async def _check_all(self) -> list[str]:
        chains = await asyncio.to_thread(self._socket.chains)
        if BASE_CHAINS_NAMES - chains:
            self._is_loaded, self._is_breached = False, True
            return [f"table {self._text.table} was removed or flushed"]
        handles = await asyncio.to_thread(self._handles_of, self._known_chains & chains & self._chains.keys())
        removed = self._known_chains - chains
        if removed:
            self._is_loaded, self._is_breached = False, True
        found = [f"{self._what(name)} was removed" for name in removed] + self._check_handles(handles)
        foreign = chains - self._known_chains
        if foreign:
            found.append(f"chains in our table that are not ours: {', '.join(sorted(foreign)[:5])}")
            self._known_chains |= foreign
            self._gone_chains |= foreign
        found += await asyncio.to_thread(self._check_sets)
        return found

    def _check_sets(self) -> list[str]:
        found = []
        there = self._socket.sets()
        for wanted in self._sets.values():
            if wanted.is_there and wanted.name not in there:
                found.append(f"set {wanted.id} was removed")
                self._is_loaded = False
            else:
                found += self._check_members(wanted)
        for name, targets in self._known_maps.items():
            if name not in there:
                found.append(f"map {name} was removed")
                self._is_loaded = False
            elif {key[1:].rstrip(b"\0").decode() for key in self._socket.elements(name)} != set(targets):
                found += self._check_touched_maps([name])
        return found

    def _check_members(self, wanted: WantedSet) -> list[str]:
        if wanted.pending or not wanted.is_there:
            return []
        # Where intervals begin; nft writes one end more than it needs.
        ours = {element_key(encode_member(wanted.members.type, one)[0]) for one in wanted.members.effective}
        if {one for one in self._socket.elements(wanted.name) if not one[0]} == ours:
            return []
        self._compare(wanted)
        self._unsettled[wanted.name] = wanted
        return [f"members of set {wanted.id} were altered"]

    def _check_touched_maps(self, names: Iterable[str]) -> list[str]:
        """Where an element leads does not show in its key: all are written again, in one transaction."""
        found = []
        for name in names:
            self._stray_keys[name] = self._socket.elements(name)
            self._known_maps[name] = {}
            found.append(f"map {name} was altered")
        return found

    async def counts(self, table: Table, chains: Iterable[str]) -> list[RuleCount]:
        found = []
        for chain in chains:
            name = chain_name(table, chain)
            if name in self._known_chains:
                counters = self._socket.counters(name)
                found += [RuleCount(table, chain, at, packets, octets) for at, (packets, octets) in enumerate(counters)]
        return found

    async def remove_everything(self) -> None:
        self._run(f"add table {self._text.table}\ndelete table {self._text.table}")
        self._is_loaded = False


MAP_NAMES = tuple(f"{table}-" for table in ("raw", "mangle", "nat", "filter"))
BASE_CHAINS_NAMES = frozenset(chain_name(table, hook) for table, hook in BASE_CHAINS)


def merged(effects: Sequence[Effect]) -> Effect:
    """Several changes in a row as one."""
    added: set[str] = set()
    removed: set[str] = set()
    for effect in effects:
        back, gone = removed & effect.added, added & effect.removed
        added = (added - gone) | (effect.added - back)
        removed = (removed - back) | (effect.removed - gone)
    must_be_one = any(effect.must_be_one for effect in effects)
    return Effect(added, removed, must_be_one)


def _short(error: Exception) -> str:
    """Without the statement, which may be long."""
    return str(error).split("\n")[0][:300]


__all__ = ["NftMissing", "NftablesFilter"]
