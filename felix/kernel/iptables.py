"""The iptables and ipset PacketFilter: Calico's chains and sets under Calico's names, by the programs of both.

One iptables-restore a table that changes: a transaction. Sets grow before it and shrink after it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain, Hook, HookRules, Table
from felix.ports import Failure, RuleCount
from felix.rules.iptables_text import IptablesText, Rendered, set_name, set_type
from felix.sync.ipsets import IPSetBook, destroyed, is_of_felix, read_saved
from felix.sync.iptables_table import HookWanted, TableBook, read_counters
from felix.sync.iptables_table import read_saved as read_table

TABLES: tuple[Table, ...] = ("raw", "mangle", "nat", "filter")
TIMEOUT_S = 60.0
TRIES, FIRST_PAUSE_S = 10, 0.001
LOCK_WAIT_S = 10
CLOSED = '-m comment --comment "catbird: this chain was refused" --jump DROP'
NO_RULES = ()
_LINE = re.compile(r"line:? ?(\d+)", re.IGNORECASE)
_NO_CHAIN = re.compile(r"Chain '([^']+)' does not exist")


class ProgramMissing(OSError):
    """A program is not installed; the text says what to install."""


class Refused(Exception):
    """The program's complaint. Nothing of the transaction was done."""


async def run(program: str, arguments: Sequence[str], text: str = "") -> str:
    """What it printed. Raises Refused, ProgramMissing."""
    try:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError:
        package = "ipset" if program == "ipset" else "iptables"
        raise ProgramMissing(f"there is no {program}: apt-get install {package}") from None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, complaint = await process.communicate(text.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Refused(f"{program} was not done within {TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        raise Refused(complaint.decode(errors="replace").strip() or f"{program} ended with {process.returncode}")
    return output.decode(errors="replace")


def programs(version: IPVersion, backend: str) -> tuple[str, str]:
    """save and restore of the backend: `nft`, `legacy`, or the one that there is. Raises ProgramMissing."""
    start = "iptables" if version == 4 else "ip6tables"
    for kind in (backend,) if backend in ("nft", "legacy") else ("nft", "legacy"):
        if shutil.which(f"{start}-{kind}-save"):
            return f"{start}-{kind}-save", f"{start}-{kind}-restore"
    if shutil.which(f"{start}-save"):
        return f"{start}-save", f"{start}-restore"
    raise ProgramMissing(f"there is no {start}-save: apt-get install iptables")


class IptablesFilter:
    """Not for several tasks at once. Raises ProgramMissing when made on a machine without iptables and ipset."""

    has_verdict_maps = False
    has_alternatives = False

    def __init__(
        self,
        version: IPVersion,
        backend: str = "auto",
        max_set_size: int = 1048576,
        told: Callable[..., None] = lambda _name, **_fields: None,
    ) -> None:
        self.version: IPVersion = version
        self._save, self._restore = programs(version, backend)
        if shutil.which("ipset") is None:
            raise ProgramMissing("there is no ipset: apt-get install ipset")
        self._max_set_size = max_set_size
        self._told = told
        self._text = IptablesText(version)
        self._tables = {table: TableBook() for table in TABLES}
        self._sets: dict[str, IPSetBook] = {}
        self._stray_sets: set[str] = set()
        self._failed: dict[tuple[Table, str], str] = {}
        self._unexpressed: dict[tuple[Table, str], str] = {}
        self._are_sets_read = False

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        book = self._sets.get(id)
        name = set_name(self.version, id)
        if book is not None and book.type != type:
            raise ValueError(f"set {id} is of type {book.type}: ipset can make no other of it while rules name it")
        if book is None:
            book = self._sets[id] = IPSetBook(name, type, self.version)
            if name in self._stray_sets:  # was to be removed: what stands in it is read anew
                self._stray_sets.discard(name)
                self._are_sets_read = False
        book.replace(members)

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        book = self._sets.get(id)
        if book is not None:
            book.change(added, removed)

    def remove_ip_set(self, id: str) -> None:
        book = self._sets.pop(id, None)
        if book is not None:
            self._stray_sets.add(book.name)

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        for chain in chains:
            key = (table, chain.name)
            self._unexpressed.pop(key, None)
            self._failed.pop(key, None)
            try:
                self._tables[table].want(self._text.chain(chain))
            except ValueError as error:
                self._unexpressed[key] = str(error)
                self._tables[table].want(_closed_chain(chain.name))

    def remove_chains(self, table: Table, names: Iterable[str]) -> None:
        for name in names:
            self._tables[table].forget(name)
            self._failed.pop((table, name), None)
            self._unexpressed.pop((table, name), None)

    def set_hook(self, table: Table, hook: Hook, rules: HookRules) -> None:
        wanted = HookWanted(
            self._text.rules(hook, rules.inserted), self._text.rules(f"{hook}-appended", rules.appended)
        )
        self._tables[table].want_hook(hook, wanted)

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        raise ValueError("iptables has no verdict maps")

    # --- making it so ------------------------------------------------------------------------------------------------

    async def apply(self) -> list[Failure]:
        failures = []
        try:
            if not self._are_sets_read:
                await self._read_sets()
            await self._grow_sets()
        except Refused as error:
            failures.append(Failure("ip sets", first_line(error)))
            self._are_sets_read = False
        for table, book in self._tables.items():
            if book.differs():
                failures += await self._write(table, book)
        try:
            await self._shrink_sets()
        except Refused as error:
            failures.append(Failure("ip sets", first_line(error)))
            self._are_sets_read = False
        failures += [
            Failure(f"chain {t} {name}", why)
            for (t, name), why in sorted({**self._failed, **self._unexpressed}.items())
        ]
        failures += [
            Failure(f"member of set {id}", f"{member!r} is no member")
            for id, book in self._sets.items()
            for member in sorted(book.bad)
        ]
        return failures

    async def _write(self, table: Table, book: TableBook) -> list[Failure]:
        """Until it goes through: what somebody else changed meanwhile is read again, what is refused is closed."""
        closed = {name for t, name in self._failed if t == table}
        pause_s = FIRST_PAUSE_S
        reason = ""
        for _ in range(TRIES + len(book.dirty)):
            if book.standing is None:
                book.take_standing(read_table(await run(self._save, ["-t", table])))
            lines = book.restore(table, closed, CLOSED)
            if not lines.lines:
                book.done(closed)
                return []
            try:
                await run(
                    self._restore,
                    ["--noflush", f"--wait={LOCK_WAIT_S}"] if "legacy" in self._restore else ["--noflush"],
                    "\n".join(lines.lines) + "\n",
                )
            except Refused as error:
                reason = first_line(error)
                owner = _owner_of(reason, lines.owners) or _who_leads_to_nothing(reason, book)
                if owner in book.wanted and owner not in closed:
                    closed.add(owner)
                    self._failed[table, owner] = reason
                else:
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
                    if pause_s > 1:
                        break
                book.standing = None
                continue
            book.done(closed)
            return []
        return [Failure(f"table {table}", reason)]

    async def _read_sets(self) -> None:
        there = read_saved(await run("ipset", ["save"]))
        by_name = {book.name: book for book in self._sets.values()}
        for name, book in by_name.items():
            kind, members = there.get(name, ("", set()))
            book.standing = members if kind == set_type(book.type) else None
            if kind and book.standing is None:
                await run("ipset", ["destroy", name])  # of another type; goes unless rules name it
        self._stray_sets |= {name for name in there if name not in by_name and is_of_felix(name, self.version)}
        self._are_sets_read = True

    async def _grow_sets(self) -> None:
        lines: list[str] = []
        changed = [book for book in self._sets.values() if book.differs]
        for book in changed:
            lines += book.grow(self._max_set_size)
        if lines:
            await run("ipset", ["restore"], "\n".join(lines) + "\n")
        for book in changed:
            book.standing = (book.standing or set()) | book.wanted

    async def _shrink_sets(self) -> None:
        changed = [book for book in self._sets.values() if book.differs and book.standing is not None]
        lines = [line for book in changed for line in book.shrink()]
        if lines:
            await run("ipset", ["restore"], "\n".join(lines) + "\n")
        for book in changed:
            book.standing = set(book.wanted)
        for name in sorted(self._stray_sets):
            try:
                await run("ipset", ["restore"], "\n".join(destroyed([name])) + "\n")
            except Refused as error:
                if "in use" in str(error):  # by a rule that goes with the next apply, or somebody else's
                    continue
            self._stray_sets.discard(name)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        found = []
        for table, book in self._tables.items():
            if book.standing is not None:
                saved = read_table(await run(self._save, ["-t", table]))
                found += [f"{table}: {what}" for what in book.take_standing(saved)]
        if self._are_sets_read:
            there = read_saved(await run("ipset", ["save"]))
            for id, one in self._sets.items():
                if one.name not in there:
                    found.append(f"set {id} was removed")
                    one.standing = None
                elif there[one.name][1] != one.standing:
                    found.append(f"members of set {id} were altered")
                    one.standing = there[one.name][1]
        return found

    async def counts(self, table: Table, chains: Iterable[str]) -> list[RuleCount]:
        saved = await run(self._save, ["-c", "-t", table])
        return [
            RuleCount(table, chain, position, packets, octets)
            for chain, position, packets, octets in read_counters(saved, chains)
        ]

    async def remove_everything(self) -> None:
        for table in TABLES:
            book = TableBook()
            for hook in self._tables[table].hooks:
                empty = self._text.rules(hook, NO_RULES)
                book.want_hook(hook, HookWanted(empty, empty))
            book.take_standing(read_table(await run(self._save, ["-t", table])))
            lines = book.restore(table, set(), CLOSED)
            if lines.lines:
                await run(self._restore, ["--noflush"], "\n".join(lines.lines) + "\n")
            self._tables[table].standing = None
        names = [name for name in read_saved(await run("ipset", ["save"])) if is_of_felix(name, self.version)]
        if names:
            await run("ipset", ["restore"], "\n".join(destroyed(names)) + "\n")
        self._are_sets_read = False


def first_line(error: Refused) -> str:
    """With the line that is meant, without how the program is used."""
    return " ".join(line for line in str(error).splitlines() if line and not line.startswith("Try"))[:300]


def _closed_chain(name: str) -> Rendered:
    return Rendered(name, (CLOSED,), ("closed",), frozenset())


def _who_leads_to_nothing(complaint: str, book: TableBook) -> str:
    """A chain that is jumped to and not there is noticed at the end of the transaction only."""
    found = _NO_CHAIN.search(complaint)
    return next((name for name in sorted(book.dirty) if found and found[1] in book.targets_of(name)), "")


def _owner_of(complaint: str, owners: Sequence[str]) -> str:
    """Whose line iptables-restore complains of."""
    found = _LINE.search(complaint)
    number = int(found[1]) - 1 if found else -1
    return owners[number] if 0 <= number < len(owners) else ""
