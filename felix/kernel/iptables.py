"""The iptables and ipset PacketFilter: Calico's chains and sets under Calico's names, by the programs of both.

One iptables-restore a table that changes: a transaction. Sets grow before all of them and shrink after. A chain that is
refused is found, closed and told, and tried again; the others are written.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain, Hook, HookRules, Table
from felix.kernel.ipset import KernelSets
from felix.kernel.iptables_programs import Programs
from felix.kernel.programs import ProgramMissing, Refused
from felix.ports import Failure, RuleCount
from felix.rules.iptables_text import IptablesText, Rendered
from felix.sync.iptables_saved import Standing, Unreadable, read_counters, read_saved
from felix.sync.iptables_table import HookWanted, Lines, TableBook, trial_removed

TABLES: tuple[Table, ...] = ("raw", "mangle", "nat", "filter")
TRIES, FIRST_PAUSE_S = 10, 0.001
ROUNDS = 200  # so many refused chains one apply finds in one table, if they are refused one by one
TRIALS = 64  # at most, to find in one apply what the kernel does not like
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0  # of chains that were refused
_LINES = re.compile(r"line:? ?(\d+)", re.IGNORECASE)
_NO_SET = re.compile(r"Set (\S+) doesn't exist")


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`backend`: `nft`, `legacy`, or `auto`: what others on this host use. `told`: events, for people."""
        self.version: IPVersion = version
        self._programs = Programs(version, backend.lower(), told)
        self._told = told
        self._clock = clock
        self._text = IptablesText(version)
        self._chains: dict[Table, dict[str, Chain]] = {table: {} for table in TABLES}
        self._tables = {table: TableBook(table, self._closing(table)) for table in TABLES}
        self._sets = KernelSets(version, max_set_size)
        self._retry_at: float | None = None
        self._retry_s = FIRST_RETRY_S
        self._has_new_sets = False
        self._is_tidy = False  # what Calico left with the other backend is gone

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        self._has_new_sets |= self._sets.set(id, type, members)

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        self._sets.change(id, added, removed)

    def remove_ip_set(self, id: str) -> None:
        self._sets.remove(id)

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        book = self._tables[table]
        for chain in chains:
            self._chains[table][chain.name] = chain
            try:
                book.want(self._text.chain(chain))
            except ValueError as error:
                book.want(self._text.closed(chain, drops=True))
                book.close(chain.name, str(error))

    def remove_chains(self, table: Table, names: Iterable[str]) -> None:
        for name in names:
            self._tables[table].forget(name)
            self._chains[table].pop(name, None)

    def set_hook(self, table: Table, hook: Hook, rules: HookRules) -> None:
        """Raises ValueError for what iptables cannot express."""
        wanted = HookWanted(self._text.inserted(hook, rules.inserted), self._text.appended(hook, rules.appended))
        self._tables[table].want_hook(hook, wanted)

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        raise ValueError("iptables has no verdict maps")

    def _closing(self, table: Table) -> Callable[[str], Rendered | None]:
        def closed(name: str) -> Rendered | None:
            """A chain that decides about some packets lets none pass. One that all packets of the host go through, other
            nodes' and people's too, stays as it was; the nat table knows no DROP."""
            book = self._tables[table]
            hooks = book.hooks_of(name)
            if hooks and book.standing is not None and name in book.standing.chains:
                return None
            return self._text.closed(self._chains[table][name], drops=table != "nat" and hooks <= {"FORWARD"})

        return closed

    # --- making it so ------------------------------------------------------------------------------------------------

    async def apply(self) -> list[Failure]:
        failures: list[Failure] = []
        were_in_the_way = self._sets.in_the_way().keys()
        try:
            await self._sets.grow()
        except Refused as error:
            failures.append(Failure("ip sets", short(error)))
        in_the_way = self._sets.in_the_way()
        self._has_new_sets |= bool(were_in_the_way - in_the_way.keys())
        self._retry_refused()
        self._close_users(in_the_way)
        failures += await self._write_tables()
        if in_the_way:
            # No rule names those sets now. Made anew, and the rules again.
            failures = await self._again()
        try:
            await self._sets.shrink()
        except Refused as error:
            failures.append(Failure("ip sets", short(error)))
        self._plan_retry()
        if not failures:
            await self._tidy()
        return failures + self._sets.failures() + self._chain_failures()

    def _close_users(self, in_the_way: Mapping[str, str]) -> None:
        for name, reason in in_the_way.items():
            for book in self._tables.values():
                book.close_users([name], reason)

    async def _again(self) -> list[Failure]:
        try:
            await self._sets.grow()
        except Refused as error:
            return [Failure("ip sets", short(error))]
        for book in self._tables.values():
            self._reopen(book)
        self._close_users(self._sets.in_the_way())  # rules of others name them
        return await self._write_tables()

    async def _write_tables(self) -> list[Failure]:
        failures: list[Failure] = []
        for book in self._tables.values():
            if book.differs():
                failures += await self._write(book)
        return failures

    def _retry_refused(self) -> None:
        """What was refused may be taken now: after some time, or when there are other sets."""
        is_due = self._retry_at is not None and self._clock() >= self._retry_at
        if is_due or self._has_new_sets:
            for book in self._tables.values():
                self._reopen(book)
        if is_due:
            self._retry_at = None
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
        self._has_new_sets = False

    def _plan_retry(self) -> None:
        if not any(book.closed for book in self._tables.values()):
            self._retry_at, self._retry_s = None, FIRST_RETRY_S
        elif self._retry_at is None:
            self._retry_at = self._clock() + self._retry_s

    def _reopen(self, book: TableBook) -> None:
        reasons = dict(book.closed)
        book.reopen()
        self.set_chains(book.table, [self._chains[book.table][name] for name in reasons])  # type: ignore[index,arg-type]

    def _chain_failures(self) -> list[Failure]:
        found = []
        for table, book in self._tables.items():
            found += [Failure(f"chain {table} {name}", why) for name, why in sorted(book.closed.items())]
            found += [
                Failure(f"chain {table} {name}", f"leads to {target}, and there is no such chain")
                for name, target in sorted(book.dangling.items())
                if name not in book.closed
            ]
            found += [
                Failure(f"hook {table} {hook}", f"leads to {missing}, and there is no such chain")
                for hook in sorted(book.hooks)
                if (missing := book.missing_of(hook))
            ]
            found += [Failure(f"removal of chain {table} {n}", why) for n, why in sorted(book.undeletable.items())]
        return found

    async def _write(self, book: TableBook) -> list[Failure]:
        """Until it goes through: what somebody else changed meanwhile is read again, what is refused is closed."""
        pause_s, tries, reason = FIRST_PAUSE_S, 0, ""
        for _ in range(ROUNDS):
            if tries == TRIES:
                break
            is_fresh = book.standing is None
            lines = Lines(book.table)
            try:
                if is_fresh:
                    book.take_standing(await self._read(book))
                lines = book.changes()
                await self._restore(book, lines)
                book.changed()
                await self._remove_gone(book)
                return []
            except Unreadable as error:
                return [Failure(f"table {book.table}", str(error))]
            except Refused as error:
                reason = short(error)
                book.standing = None
                # Only what was refused to somebody who has just looked is wrong; else others changed what we knew.
                if is_fresh and await self._close_refused(book, lines, str(error), may_try=tries > 1):
                    continue
            tries += 1
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return [Failure(f"table {book.table}", reason)]

    async def _restore(self, book: TableBook, lines: Lines) -> None:
        """While it runs, and if it is cancelled, nobody knows what stands there."""
        standing, book.standing = book.standing, None
        if lines:
            await (await self._programs.chosen()).restore(lines.text())
        book.standing = standing

    async def _read(self, book: TableBook) -> Standing:
        programs = await self._programs.chosen()
        try:
            return read_saved(await programs.save(book.table))
        except Refused:
            if book.wanted or book.hooks:
                raise
            return Standing()  # the kernel has no such table, and nobody wants anything in it

    async def _close_refused(self, book: TableBook, lines: Lines, complaint: str, may_try: bool) -> bool:
        """Find whose fault it was. False: nobody's that we know."""
        if found := _NO_SET.search(complaint):
            before = set(book.closed)
            return not before.issuperset(book.close_users([found[1]], short(Refused(complaint))))
        owners = {lines.owner_of(int(number)) for number in _LINES.findall(complaint)}
        guilty = {name: complaint for name in owners if book.is_live(name) and name not in book.closed}
        if not guilty and may_try and "line" in complaint:
            guilty = await self._try(book, lines)
        for name, why in guilty.items():
            book.close(name, short(Refused(why)))
        return bool(guilty)

    async def _try(self, book: TableBook, lines: Lines) -> dict[str, str]:
        """The kernel takes a whole table or nothing, and says not why: half by half, in a chain that nobody uses."""
        guilty: dict[str, str] = {}
        written = {
            owner for owner, line in zip(lines.owners, lines.lines, strict=True) if line.startswith(("-A", "-R"))
        }
        names = sorted(name for name in written if book.is_live(name) and name not in book.closed)
        parts = [names] if names else []
        programs = await self._programs.chosen()
        for _ in range(TRIALS):
            if not parts:
                break
            part = parts.pop()
            try:
                await programs.restore(book.trial(part).text())
            except Refused as error:
                if len(part) == 1:
                    guilty[part[0]] = str(error)
                else:
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
        try:
            await programs.restore(trial_removed(book.table).text())
        except Refused:
            pass  # never made, or removed with the next change
        return guilty

    async def _remove_gone(self, book: TableBook) -> None:
        """All that can be: to some a rule of others may lead."""
        kept: dict[str, str] = {}
        while lines := book.removals():
            try:
                await self._restore(book, lines)
                book.removed(lines)
                return
            except Refused as error:
                book.take_standing(await self._read(book))
                owners = {lines.owner_of(int(number)) for number in _LINES.findall(str(error))}
                # Each time one more at least, else this would have no end.
                kept |= dict.fromkeys(owners & set(lines.owners) or set(lines.owners), short(error))
                book.undeletable = dict(kept)

    async def _tidy(self) -> None:
        """Calico may have used the other backend: its rules there would be in force beside ours."""
        if self._is_tidy:
            return
        self._is_tidy = True
        for one in await self._programs.others():
            for complaint in await one.remove_ours():
                self._told("iptables_leftovers", backend=one.kind, error=complaint)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        found = []
        for table, book in self._tables.items():
            if book.standing is None:
                continue
            try:
                found += [f"{table}: {what}" for what in book.take_standing(await self._read(book))]
            except (Refused, Unreadable) as error:
                book.standing = None  # the next apply reads, and says what it cannot
                found.append(f"{table}: {short(error)}")
        try:
            found += await self._sets.check()
        except Refused as error:
            found.append(f"ip sets: {short(error)}")
        return found

    async def counts(self, table: Table, chains: Iterable[str]) -> list[RuleCount]:
        """Of chains that stand as they are wanted. Raises Refused."""
        book = self._tables[table]
        asked = [name for name in chains if name not in book.closed and name not in book.dangling]
        saved = await (await self._programs.chosen()).save(table, with_counters=True)
        return [
            RuleCount(table, chain, position, packets, octets)
            for chain, position, packets, octets in read_counters(saved, asked)
        ]

    async def remove_everything(self) -> None:
        """Of both backends. Raises Refused, when all that could be removed has been, with what could not."""
        complaints = []
        for programs in [await self._programs.chosen(), *await self._programs.others()]:
            complaints += await programs.remove_ours()
        for book in self._tables.values():
            book.standing = None
        kept = await self._sets.remove_everything()
        complaints += [f"set {name} is in use by rules of others" for name in kept]
        if complaints:
            raise Refused("; ".join(complaints))


def short(error: Exception) -> str:
    """With the line that is meant, without how the program is used."""
    return " ".join(line for line in str(error).splitlines() if line and not line.startswith("Try"))[:300]


__all__ = ["IptablesFilter", "ProgramMissing", "Refused"]
