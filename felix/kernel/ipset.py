"""The sets of one IP version in the kernel, by `ipset restore`. What ipset refuses is left out and told; the rest is done.

`ipset restore` is no transaction: of what it was given it has done all lines before the one that it complains of.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from felix.desired import IPSetType, IPVersion
from felix.kernel.programs import ProgramMissing, Refused, find, run
from felix.ports import Failure
from felix.rules.iptables_text import set_name
from felix.sync.ipsets import IPSetBook, destroyed, is_of_felix, read_saved

MAX_COMPLAINTS = 100  # in one apply; then what is left waits for the next one
_LINE = re.compile(r"Error in line (\d+): (.*)", re.DOTALL)
IN_USE = "in use"
OF_THE_SET = ("is full", "name does not exist")  # not the member's fault: others were at it
MEMBERS = ("add", "remove")


@dataclass(frozen=True, slots=True)
class Step:
    line: str
    book: IPSetBook
    does: Literal["make", "swap", "add", "remove", "tidy"]
    member: str = ""
    size: int = 0


class KernelSets:
    """Raises ProgramMissing when made on a machine without ipset."""

    def __init__(self, version: IPVersion, max_size: int) -> None:
        program = find("ipset")
        if program is None:
            raise ProgramMissing("there is no ipset: apt-get install ipset")
        self._ipset = program
        self.version: IPVersion = version
        self._max_size = max_size
        self._books: dict[str, IPSetBook] = {}
        self._changed: set[str] = set()  # ids
        self._strays: set[str] = set()  # names in the kernel that nobody wants
        self._mistyped: set[str] = set()  # names in the kernel that are in the way of a set of another type
        self._is_read = False
        self._temporary = 0
        self._failures: list[Failure] = []

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def set(self, id: str, type: IPSetType, members: Collection[str]) -> bool:
        """Whether there was none of that name and type."""
        book = self._books.get(id)
        if book is None or book.type != type:
            new = IPSetBook(id, set_name(self.version, id), type, self.version)
            if book is not None or new.name in self._strays:  # what stands under that name is read anew
                self._strays.discard(new.name)
                self._is_read = False
            book = self._books[id] = new
        book.replace(members)
        self._changed.add(id)
        return not book.is_there

    def change(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        book = self._books.get(id)
        if book is not None:
            book.change(added, removed)
            self._changed.add(id)

    def remove(self, id: str) -> None:
        book = self._books.pop(id, None)
        if book is not None:
            self._changed.discard(id)
            self._mistyped.discard(book.name)
            self._strays.add(book.name)

    # --- making it so ------------------------------------------------------------------------------------------------

    async def grow(self) -> None:
        """Make what is missing, add what comes. Raises Refused if nothing can be done at all."""
        self._failures = []
        if not self._is_read:
            await self._read()
        if self._mistyped:
            self._mistyped = set(await self._destroy(self._mistyped))
        changed = [self._books[id] for id in sorted(self._changed)]
        await self._do([step for book in changed if book.name not in self._mistyped for step in self._grown(book)])

    def in_the_way(self) -> dict[str, str]:
        """Names of sets that could not be made because rules name one of another type: those rules must go first."""
        return dict.fromkeys(self._mistyped, "a set of that name and another type is in use")

    async def shrink(self) -> None:
        """Remove members that are gone, and sets. Call it when no rule needs them any more. Raises Refused."""
        changed = [self._books[id] for id in sorted(self._changed)]
        await self._do([
            Step(line, book, "remove", member)
            for book in changed if book.is_there for member, line in book.deletions()
        ])  # fmt: skip
        self._changed = {book.id for book in changed if book.differs}
        if self._strays:
            self._strays = set(await self._destroy(self._strays))

    def failures(self) -> list[Failure]:
        """What `grow` and `shrink` could not do."""
        found = list(self._failures)
        for id, book in self._books.items():
            found += [Failure(f"member of set {id}", f"{member!r} is no member") for member in sorted(book.bad)]
            found += [Failure(f"member {member} of set {id}", why) for member, why in sorted(book.refused.items())]
        return found

    async def _read(self) -> None:
        there = read_saved(await run(self._ipset, ["save"]), self.version)
        by_name = {book.name: book for book in self._books.values()}
        self._mistyped = {name for name, book in by_name.items() if not book.adopt(there.get(name))}
        self._strays = there.keys() - by_name.keys()
        self._changed = {book.id for book in self._books.values() if book.differs}
        self._is_read = True

    def _grown(self, book: IPSetBook) -> list[Step]:
        size = book.room(self._max_size)
        if not book.needs_room():
            steps = [] if book.is_there else [Step(book.create(size), book, "make", size=size)]
            return steps + [Step(line, book, "add", member) for member, line in book.additions()]
        # Full: a larger one takes its name, and the rules that point at it.
        other = self._unused_name()
        return [
            Step(book.create(size, other), book, "tidy"),
            *(Step(line, book, "add", member) for member, line in book.additions(other)),
            Step(f"swap {book.name} {other}", book, "swap", size=size),
            Step(f"destroy {other}", book, "tidy"),
        ]

    def _unused_name(self) -> str:
        while True:
            self._temporary += 1
            name = f"cali{self.version}t{self._temporary}"
            if name not in self._strays:
                return name

    async def _do(self, steps: list[Step]) -> None:
        """All but what is refused."""
        complaints, was_refused = 0, not self._is_read
        self._is_read = self._is_read and not steps
        while steps:
            try:
                await run(self._ipset, ["restore"], "\n".join(step.line for step in steps) + "\n")
            except Refused as error:
                complaints += 1
                found = _LINE.search(str(error))
                at = int(found[1]) - 1 if found else len(steps)
                if at >= len(steps) or complaints > MAX_COMPLAINTS:
                    raise
                why = found[2].strip() if found else ""
                is_member = steps[at].does in MEMBERS and not any(one in why for one in OF_THE_SET)
                was_refused |= not is_member
                # Members are sent in bundles, and before a line that it cannot parse ipset sends none of its bundle.
                sent = next((n for n in range(at, 0, -1) if steps[n - 1].does not in MEMBERS), 0)
                for step in steps[:sent]:
                    _done(step)
                if is_member:
                    _refuse(steps[at], why)
                    steps = [*steps[sent:at], *steps[at + 1 :]]
                else:
                    book = steps[at].book
                    self._failures.append(Failure(f"set {book.id}", why))
                    steps = [step for step in [*steps[sent:at], *steps[at + 1 :]] if step.book is not book]
                continue
            for step in steps:
                _done(step)
            break
        self._is_read = not was_refused  # else we look what stands there

    async def _destroy(self, names: Collection[str]) -> list[str]:
        """Those that are still in use. Raises Refused."""
        kept: list[str] = []
        left = sorted(names)
        while left:
            try:
                await run(self._ipset, ["restore"], "\n".join(destroyed(left)) + "\n")
                return kept
            except Refused as error:
                found = _LINE.search(str(error))
                at = int(found[1]) - 1 if found else len(left)
                if at >= len(left):
                    raise
                if IN_USE in str(error):
                    kept.append(left[at])
                left = left[at + 1 :]
        return kept

    # --- looking -----------------------------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """What others altered. Raises Refused."""
        if not self._is_read:
            return []
        there = read_saved(await run(self._ipset, ["save"]), self.version)
        found = []
        self._mistyped.clear()
        for id, book in self._books.items():
            saved = there.get(book.name)
            if book.is_there and saved is None:
                found.append(f"set {id} was removed")
            elif saved is not None and saved.members != book.standing():
                found.append(f"members of set {id} were altered")
            book.refused.clear()
            if not book.adopt(saved):
                self._mistyped.add(book.name)
            if book.differs:
                self._changed.add(id)
        self._strays = there.keys() - {book.name for book in self._books.values()}
        return found

    async def remove_everything(self) -> list[str]:
        """Returns the names of those that rules of others still name. Raises Refused."""
        there = read_saved(await run(self._ipset, ["save"]), self.version)
        self._is_read = False
        for book in self._books.values():
            book.is_there = False
        return await self._destroy([name for name in there if is_of_felix(name, self.version)])


def _done(step: Step) -> None:
    book = step.book
    if step.does == "add":
        book.to_add.discard(step.member)
    elif step.does == "remove":
        book.to_remove.discard(step.member)
    elif step.does in ("make", "swap"):
        book.is_there, book.size = True, step.size


def _refuse(step: Step, why: str) -> None:
    """The kernel will not like it better next time; it is tried again after a check."""
    step.book.refused[step.member] = why
    step.book.to_add.discard(step.member)
    step.book.to_remove.discard(step.member)
