"""One table of iptables: what brings it from what stands there to what is wanted, as input for iptables-restore. Pure.

Ours are all chains that begin with `cali`, and in the chains of others the rules that have our hash or lead to ours. All
else is neither changed nor moved but to stay behind or before ours. A chain that no hook leads to is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from felix.sync.iptables_saved import FOREIGN, Standing

TRIAL = "cali-trial"  # a chain that nothing leads to, in which rules are tried


class Wanted(Protocol):
    """felix.rules.iptables_text.Rendered as this module sees it."""

    @property
    def name(self) -> str: ...
    @property
    def rules(self) -> tuple[str, ...]: ...
    @property
    def hashes(self) -> tuple[str, ...]: ...
    @property
    def targets(self) -> frozenset[str]: ...
    @property
    def sets(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class HookWanted:
    """Our rules in one of the kernel's chains: before, and after, all of others."""

    inserted: Wanted
    appended: Wanted

    @property
    def targets(self) -> frozenset[str]:
        return self.inserted.targets | self.appended.targets


@dataclass(slots=True)
class Lines:
    """Input for iptables-restore, one transaction, and whose each line is. False if it does nothing."""

    table: str
    lines: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)

    def add(self, owner: str, line: str) -> None:
        self.lines.append(line)
        self.owners.append(owner)

    def __bool__(self) -> bool:
        return bool(self.lines)

    def text(self) -> str:
        return "\n".join([f"*{self.table}", *self.lines, "COMMIT", ""])

    def owner_of(self, number: int) -> str:
        """Whose is line `number` of the text, counted from 1; empty if it is nobody's."""
        return self.owners[number - 2] if 0 <= number - 2 < len(self.owners) else ""


class TableBook:
    """Wanted and standing chains of one table."""

    def __init__(self, table: str, closed: Callable[[str], Wanted | None]) -> None:
        """`closed`: what stands in the place of a refused chain; None: what stood there already."""
        self.table = table
        self._closed_form = closed
        self.wanted: dict[str, Wanted] = {}
        self.hooks: dict[str, HookWanted] = {}
        self.standing: Standing | None = None  # None: to be read
        self.dirty: set[str] = set()
        self.dirty_hooks: set[str] = set()
        self.closed: dict[str, str] = {}  # refused chains, with the reason
        self.dangling: dict[str, str] = {}  # chains that lead to one that nobody wants, and that one
        self.undeletable: dict[str, str] = {}
        self._uses: dict[str, int] = {}  # by hooks and by chains that are used themselves

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def want(self, chain: Wanted) -> None:
        name = chain.name
        before = self.wanted.get(name)
        is_open = self.closed.pop(name, None) is None
        if before is not None and before.hashes == chain.hashes and is_open:
            return
        self.wanted[name] = chain
        self.dirty.add(name)
        if name in self._uses:
            self._refer(chain.targets)
            self._unrefer(before.targets if before else ())

    def forget(self, name: str) -> None:
        before = self.wanted.pop(name, None)
        if before is not None:
            self.closed.pop(name, None)
            self.dirty.add(name)
            if name in self._uses:
                self._unrefer(before.targets)

    def want_hook(self, hook: str, rules: HookWanted) -> None:
        before = self.hooks.get(hook)
        self.hooks[hook] = rules
        self.dirty_hooks.add(hook)
        self._refer(rules.targets)
        self._unrefer(before.targets if before else ())

    def _refer(self, names: Iterable[str]) -> None:
        for name in names:
            self._uses[name] = self._uses.get(name, 0) + 1
            if self._uses[name] == 1:
                self.dirty.add(name)
                self._refer(self.wanted[name].targets if name in self.wanted else ())

    def _unrefer(self, names: Iterable[str]) -> None:
        for name in names:
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._uses[name]
                self.dirty.add(name)
                self._unrefer(self.wanted[name].targets if name in self.wanted else ())

    def is_live(self, name: str) -> bool:
        return name in self.wanted and name in self._uses

    def hooks_of(self, name: str) -> set[str]:
        return {hook for hook, rules in self.hooks.items() if name in rules.targets}

    def close(self, name: str, reason: str) -> None:
        """It was refused: something closed stands in its place until it is wanted otherwise, or reopened."""
        self.closed[name] = reason
        self.dirty.add(name)

    def close_users(self, sets: Collection[str], reason: str) -> list[str]:
        """Of these sets."""
        users = [name for name, chain in self.wanted.items() if name in self._uses and not chain.sets.isdisjoint(sets)]
        for name in users:
            self.close(name, reason)
        return users

    def reopen(self) -> None:
        self.dirty |= self.closed.keys()
        self.closed.clear()

    def form(self, name: str) -> Wanted | None:
        """What is to stand under the name; None: what stands there."""
        if name in self.closed or name in self.dangling:
            return self._closed_form(name)
        return self.wanted[name]

    # --- what stands there -------------------------------------------------------------------------------------------

    def differs(self) -> bool:
        return self.standing is None or bool(self.dirty or self.dirty_hooks)

    def take_standing(self, standing: Standing) -> list[str]:
        """What has been read; says what of ours is not as it was written."""
        before, self.standing = self.standing, standing
        self.undeletable.clear()
        self._find_dangling()
        wrong = [name for name in self._live() if not self._is_right(name)]
        stray = [name for name in standing.chains if not self.is_live(name)]
        hooks = [hook for hook in self.hooks.keys() | standing.texts.keys() if not self._is_hook_right(hook)]
        said = [f"chain {name} was altered" for name in wrong if name not in self.dirty]
        said += [f"chain {name} was added" for name in stray if name not in self.dirty]
        said += [f"hook {hook} was altered" for hook in hooks if hook not in self.dirty_hooks]
        self.dirty |= {*wrong, *stray}
        self.dirty_hooks |= set(hooks)
        return [] if before is None else sorted(said)

    def _live(self) -> list[str]:
        return [name for name in self.wanted if name in self._uses]

    def _is_right(self, name: str) -> bool:
        assert self.standing is not None
        form, there = self.form(name), self.standing.chains.get(name)
        return there is not None and (form is None or there == list(form.hashes))

    def _is_hook_right(self, hook: str) -> bool:
        """Ours first, others' in between, ours last; in the chains of others that are not the kernel's, none."""
        assert self.standing is not None
        rules = self.hooks.get(hook)
        if rules is None:
            return hook not in self.standing.texts
        there = self.standing.hooks.get(hook, [])
        first, last = list(rules.inserted.hashes), list(rules.appended.hashes)
        is_at_end = there[len(there) - len(last) :] == last
        ours = [one for one in there if one != FOREIGN]
        return ours == first + last and there[: len(first)] == first and is_at_end

    # --- what brings it there ----------------------------------------------------------------------------------------

    def changes(self) -> Lines:
        """All but removing chains, which may fail without harm. Call `changed` when it went through."""
        assert self.standing is not None
        self._find_dangling()
        found = Lines(self.table)
        forms = [self.form(name) for name in sorted(self.dirty) if self.is_live(name)]
        written = [form for form in forms if form is not None and not self._is_right(form.name)]
        for form in written:
            there = self.standing.chains.get(form.name)
            if there is None or (there and there[:1] != list(form.hashes[:1])):
                found.add(form.name, f":{form.name} - -")  # makes it, or empties it
        for form in written:
            self._rewrite(form, found)
        for hook in sorted(self.dirty_hooks):
            if not self._is_hook_right(hook) and not self.missing_of(hook):
                self._rewrite_hook(hook, found)
        return found

    def _find_dangling(self) -> None:
        absent = self._uses.keys() - self.wanted.keys()
        before = self.dangling.keys()
        self.dangling = {
            name: min(self.wanted[name].targets & absent)
            for name in (self._live() if absent else ())
            if not self.wanted[name].targets.isdisjoint(absent)
        }
        self.dirty |= self.dangling.keys() ^ before

    def missing_of(self, hook: str) -> str:
        """A chain that the hook leads to and nobody wants; then the hook stays as it is."""
        rules = self.hooks.get(hook)
        return min((rules.targets if rules else frozenset()) - self.wanted.keys(), default="")

    def _rewrite(self, form: Wanted, found: Lines) -> None:
        """Rule by rule, so that those before the first difference keep their counters."""
        assert self.standing is not None
        name = form.name
        there = self.standing.chains.get(name, [])
        if there[:1] != list(form.hashes[:1]):
            there = []
        for position, (rule, hash_) in enumerate(zip(form.rules, form.hashes, strict=True)):
            if position >= len(there):
                found.add(name, f"-A {name} {rule}")
            elif there[position] != hash_:
                found.add(name, f"-R {name} {position + 1} {rule}")
        for number in range(len(there), len(form.rules), -1):
            found.add(name, f"-D {name} {number}")

    def _rewrite_hook(self, hook: str, found: Lines) -> None:
        """Away with all of ours, and in again. By their text: others may have moved them since we looked."""
        assert self.standing is not None
        for rule in self.standing.texts.get(hook, ()):
            found.add(hook, f"-D {hook} {rule}")
        rules = self.hooks.get(hook)
        if rules is not None:
            for rule in reversed(rules.inserted.rules):
                found.add(hook, f"-I {hook} 1 {rule}")
            for rule in rules.appended.rules:
                found.add(hook, f"-A {hook} {rule}")

    def changed(self) -> None:
        """The transaction has gone through."""
        assert self.standing is not None
        for name in self.dirty:
            form = self.form(name) if self.is_live(name) else None
            if form is not None:
                self.standing.chains[name] = list(form.hashes)
        for hook in self.dirty_hooks:
            if not self.missing_of(hook):
                self._hook_changed(hook)
        self.dirty.clear()
        self.dirty_hooks = {hook for hook in self.dirty_hooks if self.missing_of(hook)}

    def _hook_changed(self, hook: str) -> None:
        assert self.standing is not None
        rules = self.hooks.get(hook)
        foreign = [one for one in self.standing.hooks.get(hook, []) if one == FOREIGN]
        if rules is None:
            self.standing.texts.pop(hook, None)
            self.standing.hooks[hook] = foreign
        else:
            self.standing.hooks[hook] = [*rules.inserted.hashes, *foreign, *rules.appended.hashes]
            self.standing.texts[hook] = [*rules.inserted.rules, *rules.appended.rules]

    def removals(self) -> Lines:
        """Of our chains that nothing of ours leads to any more. Call `removed` when it went through."""
        assert self.standing is not None
        found = Lines(self.table)
        gone = sorted(name for name in self.standing.chains if not self.is_live(name) and name not in self.undeletable)
        for name in gone:
            found.add(name, f"--flush {name}")
        for name in gone:
            found.add(name, f"--delete-chain {name}")
        return found

    def removed(self, lines: Lines) -> None:
        assert self.standing is not None
        for name in set(lines.owners):
            self.standing.chains.pop(name, None)

    def trial(self, names: Sequence[str]) -> Lines:
        """The rules of these chains where they do no harm: whether the kernel takes them. Leads nowhere."""
        found = Lines(self.table)
        found.add(TRIAL, f":{TRIAL} - -")
        for name in names:
            form = self.form(name)
            for rule in form.rules if form is not None else ():
                found.add(name, f"-A {TRIAL} {_leading_nowhere(rule, form.targets if form else ())}")
        return found


def _leading_nowhere(rule: str, targets: Collection[str]) -> str:
    body, _, last = rule.rpartition(" ")
    return f"{body.removesuffix('--jump').removesuffix('--goto')}--jump RETURN" if last in targets else rule


def trial_removed(table: str) -> Lines:
    found = Lines(table)
    found.add(TRIAL, f"--flush {TRIAL}")
    found.add(TRIAL, f"--delete-chain {TRIAL}")
    return found
