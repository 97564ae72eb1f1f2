"""The nftables PacketFilter: one table `calico` of one IP version, kept as wanted.

Chains go in nft's text, a transaction each time: libnftables in this process for small changes, the program `nft` for
large ones (its memory is its own). Members of sets and of verdict maps go by our own netlink messages. In order: new
sets, members that come, chains, map entries, and last what is gone: in between, no packet meets less than it should.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain, Hook, HookRules, Table
from felix.kernel.libnftables import LibNftables, NftMissing, NftRefused
from felix.kernel.nfnetlink import (
    ElementChange,
    ElementsRefused,
    NftSocket,
    element_key,
    encode_member,
    interface_element,
    verdict_element,
)
from felix.ports import Failure, RuleCount
from felix.rules.nft_text import BASE_CHAINS, TABLE_NAME, NftText, chain_name, map_name, set_name
from felix.sync.set_members import Effect, SetMembers

LARGE_OCTETS = 1 << 17  # then the program nft does it, while our event loop turns
RUN_TIMEOUT_S = 60.0
ASK_EACH = 200  # more changed chains than that: ask for all rules at once
_LINE = re.compile(r"(?:/dev/stdin|internal|<cmdline>|-):(\d+):")
CLOSED = 'counter drop comment "catbird: this chain was refused"'


@dataclass(slots=True)
class WantedChain:
    """By its name in the kernel. `what` is for people."""

    name: str
    what: str
    rules: list[str]
    declaration: str = ""  # of a base chain
    reason: str = ""  # why it could not be put into text


@dataclass(slots=True)
class WantedSet:
    name: str
    id: str
    members: SetMembers
    pending: list[Effect] = field(default_factory=list)
    is_there: bool = False


class NftablesFilter:
    """Not thread-safe; `apply` and `check` one after the other. Raises NftMissing when made on a machine without nft."""

    has_verdict_maps = True
    has_alternatives = True

    def __init__(self, version: IPVersion, table: str = TABLE_NAME) -> None:
        self.version: IPVersion = version
        self._text = NftText(version)
        self._nft = LibNftables()
        self._socket = NftSocket(version, table)
        self._chains: dict[str, WantedChain] = {}
        self._sets: dict[str, WantedSet] = {}
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

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        wanted = self._sets.get(id)
        if wanted is not None:
            wanted.pending.append(wanted.members.change(added, removed))

    def remove_ip_set(self, id: str) -> None:
        wanted = self._sets.pop(id, None)
        if wanted is not None:
            self._gone_sets[wanted.name] = wanted

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        for chain in chains:
            name = chain_name(table, chain.name)
            self._want(self._in_text(table, chain, name, f"chain {table} {chain.name}"))

    def _in_text(self, table: Table, chain: Chain, name: str, what: str, declaration: str = "") -> WantedChain:
        try:
            return WantedChain(name, what, self._text.chain_rules(table, chain), declaration)
        except ValueError as error:
            return WantedChain(name, what, [CLOSED], declaration, str(error))

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
        self._want(self._in_text(table, chain, name, f"hook {table} {hook}", self._text.base_chain(table, hook)))

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        self._maps[map_name(table, name)] = {one: chain_name(table, target) for one, target in targets.items()}

    # --- making it so ------------------------------------------------------------------------------------------------

    async def apply(self) -> list[Failure]:
        # A set of the same name and another type is in the way until no rule names it: all anew, in one transaction.
        changed_type = self._gone_sets.keys() & {one.name for one in self._sets.values()}
        if self._is_loaded and not changed_type:
            try:
                await self._change()
            except (ElementsRefused, NftRefused):
                await self._load()  # the kernel is not as we believed
        else:
            await self._load()
        bad = [
            Failure(f"member of set {one.id}", f"{m!r} is no member")
            for one in self._sets.values()
            for m in one.members.bad
        ]
        return [Failure(self._what(name), reason) for name, reason in sorted(self._failed.items())] + bad

    def _what(self, name: str) -> str:
        chain = self._chains.get(name)
        return chain.what if chain is not None else name

    async def _load(self) -> None:
        """Whatever stands there is replaced in one transaction: a packet meets the former rules or the new ones."""
        self._failed.clear()
        closed: set[str] = set()
        while True:
            lines, places = self._whole(closed)
            try:
                await self._run_program("\n".join(lines) + "\n")
                break
            except NftRefused as error:
                found = _LINE.search(str(error))
                name = places.get(int(found[1]) - 1, "") if found else ""
                if not name or name in closed:
                    raise
                closed.add(name)
                self._failed[name] = _short(error)
        self._is_loaded = True
        self._known_chains = set(self._chains)
        self._known_maps = {name: dict(targets) for name, targets in self._maps.items()}
        for wanted in self._sets.values():
            wanted.is_there = True
            wanted.pending.clear()
        self._failed |= {chain.name: chain.reason for chain in self._chains.values() if chain.reason}
        self._dirty = set(closed)
        self._gone_chains.clear()
        self._gone_sets.clear()
        self._handles = await asyncio.to_thread(self._socket.rule_handles)

    def _whole(self, closed: set[str]) -> tuple[list[str], dict[int, str]]:
        """Statements that make the table anew, and which chain each line of rules belongs to."""
        text = self._text
        lines = [f"add table {text.table}", f"delete table {text.table}", f"add table {text.table}"]
        for wanted in self._sets.values():
            lines.append(text.add_set(wanted.name, wanted.members.type))
            members = sorted(wanted.members.effective)
            for at in range(0, len(members), 1000):
                some = members[at : at + 1000]
                if wanted.members.type != "net":
                    some = [concatenation(one) for one in some]
                lines.append(text.add_elements(wanted.name, some))
        lines += [text.add_map(name) for name in self._maps]
        lines += [chain.declaration or text.add_chain(chain.name) for chain in self._chains.values()]
        places: dict[int, str] = {}
        for chain in self._chains.values():
            for rule in text.add_rules(chain.name, [CLOSED] if chain.name in closed else chain.rules):
                places[len(lines)] = chain.name
                lines.append(rule)
        for name, targets in self._maps.items():
            if targets:
                lines.append(text.add_elements(name, (f'"{one}" : goto {to}' for one, to in targets.items())))
        return lines, places

    async def _change(self) -> None:
        self._failed = {
            name: why for name, why in self._failed.items() if name in self._chains and name not in self._dirty
        }
        self._make_sets()
        self._change_elements(first=True)
        changed = await self._change_chains()
        self._change_maps()
        self._change_elements(first=False)
        await self._remove_gone()
        await self._learn(changed)

    def _make_sets(self) -> None:
        lines = [self._text.add_set(one.name, one.members.type) for one in self._sets.values() if not one.is_there]
        lines += [self._text.add_map(name) for name in self._maps if name not in self._known_maps]
        if not lines:
            return
        self._run("\n".join(lines))
        for wanted in self._sets.values():
            if not wanted.is_there:
                wanted.is_there = True
                wanted.pending = [Effect(added=set(wanted.members.effective))]
        for name in self._maps:
            self._known_maps.setdefault(name, {})

    def _change_elements(self, *, first: bool) -> None:
        """What is added before the chains, what is removed after them; what overlaps in one step."""
        changes: list[ElementChange] = []
        touched = []
        for wanted in self._sets.values():
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
        dirty = [self._chains[name] for name in self._dirty if name in self._chains]
        if not dirty:
            return []
        new = [chain for chain in dirty if chain.name not in self._known_chains]
        text = self._text
        if new:
            self._run("\n".join(chain.declaration or text.add_chain(chain.name) for chain in new))
            self._known_chains |= {chain.name for chain in new}
        are_new = {chain.name for chain in new}
        changed = [name async for name in self._try(dirty, are_new)]
        self._dirty -= set(changed)
        self._failed |= {chain.name: chain.reason for chain in dirty if chain.reason}
        return changed

    async def _try(self, chains: Sequence[WantedChain], are_new: set[str]) -> AsyncIterator[str]:
        """All in one transaction; if that is refused, each half by itself, so that one chain's fault stays its own."""
        text = self._text
        lines = [
            line
            for chain in chains
            for line in (text.flush_chain(chain.name), *text.add_rules(chain.name, chain.rules))
        ]
        try:
            await self._run_somewhere("\n".join(lines))
        except NftRefused as error:
            if len(chains) > 1:
                middle = len(chains) // 2
                for half in (chains[:middle], chains[middle:]):
                    async for name in self._try(half, are_new):
                        yield name
                return
            chain = chains[0]
            self._failed[chain.name] = _short(error)
            if chain.name in are_new:
                # It decides about packets that nobody else looks at: nothing may pass.
                await self._run_somewhere("\n".join(text.add_rules(chain.name, [CLOSED])))
            return
        for chain in chains:
            yield chain.name

    def _change_maps(self) -> None:
        changes = []
        for name, targets in self._maps.items():
            known = self._known_maps.get(name, {})
            gone = [one for one, target in known.items() if targets.get(one) != target]
            come = [(one, target) for one, target in targets.items() if known.get(one) != target]
            if gone:
                changes.append(ElementChange("delete", name, [interface_element(one) for one in gone]))
            if come:
                changes.append(ElementChange("add", name, [verdict_element(*one) for one in come]))
        self._socket.change(changes)
        self._known_maps |= {name: dict(targets) for name, targets in self._maps.items()}

    async def _remove_gone(self) -> None:
        chains = sorted(self._gone_chains & self._known_chains)
        sets = [one for one in self._gone_sets.values() if one.is_there]
        lines = [self._text.flush_chain(name) for name in chains]
        lines += [self._text.delete_chain(name) for name in chains]
        lines += [self._text.delete_set(one.name) for one in sets]
        if lines:
            await self._run_somewhere("\n".join(lines))
        self._known_chains -= set(chains)
        for name in chains:
            self._handles.pop(name, None)
        self._gone_chains.clear()
        self._gone_sets.clear()

    async def _learn(self, changed: Sequence[str]) -> None:
        """Remember our rules' handles, by which a change of others is seen."""
        if len(changed) > ASK_EACH:
            self._handles = await asyncio.to_thread(self._socket.rule_handles)
            return
        for name in changed:
            self._handles[name] = self._socket.rule_handles(name).get(name, [])

    # --- running -----------------------------------------------------------------------------------------------------

    def _run(self, statements: str) -> None:
        self._own_pids.add(threading.get_native_id())
        self._nft.run(statements)

    async def _run_somewhere(self, statements: str) -> None:
        if len(statements) < LARGE_OCTETS:
            self._run(statements)
        else:
            await self._run_program(statements)

    async def _run_program(self, statements: str) -> None:
        """Raises NftRefused, NftMissing."""
        try:
            process = await asyncio.create_subprocess_exec(
                "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError:
            raise NftMissing("there is no nft: apt-get install nftables") from None
        self._own_pids.add(process.pid)
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                _, complaint = await process.communicate(statements.encode())
        except TimeoutError:
            process.kill()
            await process.wait()
            raise NftRefused(f"nft was not done within {RUN_TIMEOUT_S:.0f} s") from None
        if process.returncode != 0:
            raise NftRefused(complaint.decode(errors="replace").strip() or f"nft ended with {process.returncode}")

    def is_own(self, pid: int) -> bool:
        """Whether a change was made by us: the kernel names the thread or the process."""
        return pid in self._own_pids or pid == os.getpid()

    # --- looking -----------------------------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        if not self._is_loaded:
            return []
        chains = await asyncio.to_thread(self._socket.chains)
        if not set(BASE_CHAINS_NAMES) <= chains:
            self._is_loaded = False
            return [f"table {self._text.table} was removed or flushed"]
        handles = await asyncio.to_thread(self._socket.rule_handles)
        found = []
        for name in self._known_chains - chains:
            found.append(f"{self._what(name)} was removed")
            self._is_loaded = False
        for name in self._known_chains & chains & self._chains.keys():
            if handles.get(name, []) != self._handles.get(name, []):
                found.append(f"{self._what(name)} was altered")
                self._dirty.add(name)
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
                continue
            if wanted.pending or not wanted.is_there:
                continue
            # Where intervals begin; nft writes one end more than it needs.
            ours = {element_key(encode_member(wanted.members.type, one)[0]) for one in wanted.members.effective}
            if {one for one in self._socket.elements(wanted.name) if not one[0]} != ours:
                found.append(f"members of set {wanted.id} were altered")
                self._is_loaded = False
        for name, targets in self._known_maps.items():
            if name not in there or {key[1:].rstrip(b"\0").decode() for key in self._socket.elements(name)} != set(
                targets
            ):
                found.append(f"map {name} was altered")
                self._is_loaded = False
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


def concatenation(member: str) -> str:
    """`10.0.0.1,tcp:80` as nft writes it."""
    address, _, rest = member.partition(",")
    return f"{address} . {rest.replace(':', ' . ')}"


def _short(error: Exception) -> str:
    """Without the statement, which may be long."""
    return str(error).split("\n")[0][:300]


__all__ = ["NftMissing", "NftablesFilter"]
