"""One table of iptables: what stands there (iptables-save), and what brings it to what is wanted (iptables-restore). Pure.

Ours are all chains that begin with `cali`, and in the kernel's own chains the rules whose comment has our hash. All else
is others', and is neither changed nor moved but to stay behind or before ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

OURS = ("cali", "felix-")
_HASH = re.compile(r'--comment "?cali:([A-Za-z0-9_-]{16})"?')
_DECLARED = re.compile(r":(\S+) (\S+)")
_APPENDED = re.compile(r"(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)")
FOREIGN = ""  # in place of a hash


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


@dataclass(slots=True)
class Standing:
    """What is in the kernel: our chains, and the kernel's chains, each as the hashes of its rules."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    hooks: dict[str, list[str]] = field(default_factory=dict)


def read_saved(text: str) -> Standing:
    """The output of `iptables-save -t TABLE`."""
    standing = Standing()
    for line in text.splitlines():
        if declared := _DECLARED.match(line):
            name, policy = declared.groups()
            if policy != "-":
                standing.hooks[name] = []
            elif name.startswith(OURS):
                standing.chains[name] = []
        elif appended := _APPENDED.match(line):
            _, _, name, rule = appended.groups()
            of = standing.hooks.get(name, standing.chains.get(name))
            if of is not None:
                found = _HASH.search(rule)
                of.append(found[1] if found else FOREIGN)
    return standing


def read_counters(text: str, chains: Iterable[str]) -> list[tuple[str, int, int, int]]:
    """Chain, position, packets, octets, from `iptables-save -c`."""
    wanted = set(chains)
    found = []
    position: dict[str, int] = {}
    for line in text.splitlines():
        appended = _APPENDED.match(line)
        if appended and appended[3] in wanted and appended[1] is not None:
            name = appended[3]
            found.append((name, position.get(name, 0), int(appended[1]), int(appended[2])))
            position[name] = position.get(name, 0) + 1
    return found


@dataclass(frozen=True, slots=True)
class HookWanted:
    """The rules of one of the kernel's chains that are ours; `hashes` of both, in order."""

    inserted: Wanted
    appended: Wanted


@dataclass(slots=True)
class Lines:
    """Input for iptables-restore, and whose each line is."""

    lines: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)

    def add(self, owner: str, line: str) -> None:
        self.lines.append(line)
        self.owners.append(owner)


class TableBook:
    """Wanted and standing chains of one table. A chain that nothing leads to is not written."""

    def __init__(self) -> None:
        self.wanted: dict[str, Wanted] = {}
        self.hooks: dict[str, HookWanted] = {}
        self._uses: dict[str, int] = {}
        self.standing: Standing | None = None  # None: to be read
        self.dirty: set[str] = set()
        self.dirty_hooks: set[str] = set()

    def want(self, chain: Wanted) -> None:
        before = self.wanted.get(chain.name)
        self.wanted[chain.name] = chain
        self._count(before.targets if before else frozenset(), chain.targets)
        self.dirty.add(chain.name)

    def forget(self, name: str) -> None:
        before = self.wanted.pop(name, None)
        if before is not None:
            self._count(before.targets, frozenset())
            self.dirty.add(name)

    def want_hook(self, hook: str, rules: HookWanted) -> None:
        before = self.hooks.get(hook)
        targets = rules.inserted.targets | rules.appended.targets
        self._count((before.inserted.targets | before.appended.targets) if before else frozenset(), targets)
        self.hooks[hook] = rules
        self.dirty_hooks.add(hook)

    def _count(self, before: frozenset[str], after: frozenset[str]) -> None:
        for name in after - before:
            self._uses[name] = self._uses.get(name, 0) + 1
            self.dirty.add(name)
        for name in before - after:
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._uses[name]
                self.dirty.add(name)

    def is_used(self, name: str) -> bool:
        """Reached from a hook. Counting suffices: our chains call in no circles."""
        return name in self._uses

    def targets_of(self, name: str) -> frozenset[str]:
        return self.wanted[name].targets if name in self.wanted else frozenset()

    def differs(self) -> bool:
        return self.standing is None or bool(self.dirty or self.dirty_hooks)

    def take_standing(self, standing: Standing) -> list[str]:
        """What has been read; says which of ours differ from what was written."""
        before, self.standing = self.standing, standing
        wrong = [name for name in self._live() if standing.chains.get(name) != list(self.wanted[name].hashes)]
        stray = [name for name in standing.chains if name not in self.wanted or not self._is_live(name)]
        hooks = [hook for hook, rules in self.hooks.items() if not _stands(standing.hooks.get(hook, []), rules)]
        self.dirty |= {*wrong, *stray}
        self.dirty_hooks |= set(hooks)
        if before is None:
            return []
        return [f"chain {name} was altered" for name in wrong] + [f"hook {hook} was altered" for hook in hooks]

    def _live(self) -> list[str]:
        return [name for name in self.wanted if self._is_live(name)]

    def _is_live(self, name: str) -> bool:
        return name in self.wanted and self.is_used(name)

    def restore(self, table: str, closed: set[str], closed_rule: str) -> Lines:
        """From standing to wanted in one transaction; of the `closed` chains only a rule that drops. Empty: nothing to do."""
        assert self.standing is not None
        found = Lines()
        there = self.standing.chains
        new = [name for name in sorted(self.dirty) if self._is_live(name) and name not in there]
        # Chains that are led to must be there before the rule that leads to them.
        needed = {target for name in self.dirty if self._is_live(name) for target in self.wanted[name].targets}
        needed |= {
            target
            for hook in self.dirty_hooks
            for target in self.hooks[hook].inserted.targets | self.hooks[hook].appended.targets
        }
        for name in new + sorted(needed - there.keys() - set(new)):
            found.add(name, f":{name} - -")
        for name in sorted(self.dirty):
            if self._is_live(name):
                self._rewrite(name, found, closed, closed_rule)
        for hook in sorted(self.dirty_hooks):
            self._rewrite_hook(hook, found)
        gone = [name for name in sorted(self.dirty) if name in there and not self._is_live(name)]
        for name in gone:
            found.add(name, f"--flush {name}")
        for name in gone:
            found.add(name, f"--delete-chain {name}")
        if found.lines:
            found.lines = [f"*{table}", *found.lines, "COMMIT"]
            found.owners = ["", *found.owners, ""]
        return found

    def _rewrite(self, name: str, found: Lines, closed: set[str], closed_rule: str) -> None:
        """Rule by rule, so that counters of those that stay are kept."""
        assert self.standing is not None
        there = self.standing.chains.get(name, [])
        if name in closed:
            for number in range(len(there), 0, -1):
                found.add(name, f"-D {name} {number}")
            found.add(name, f"-A {name} {closed_rule}")
            return
        wanted = self.wanted[name]
        for position, (rule, hash_) in enumerate(zip(wanted.rules, wanted.hashes, strict=True)):
            if position >= len(there):
                found.add(name, f"-A {name} {rule}")
            elif there[position] != hash_:
                found.add(name, f"-R {name} {position + 1} {rule}")
        for number in range(len(there), len(wanted.rules), -1):
            found.add(name, f"-D {name} {number}")

    def _rewrite_hook(self, hook: str, found: Lines) -> None:
        assert self.standing is not None
        there = self.standing.hooks.get(hook, [])
        rules = self.hooks[hook]
        if _stands(there, rules):
            return
        for number in range(len(there), 0, -1):
            if there[number - 1] != FOREIGN:
                found.add(hook, f"-D {hook} {number}")
        for rule in reversed(rules.inserted.rules):
            found.add(hook, f"-I {hook} 1 {rule}")
        for rule in rules.appended.rules:
            found.add(hook, f"-A {hook} {rule}")

    def done(self, closed: set[str]) -> None:
        """The transaction has gone through."""
        assert self.standing is not None
        for name in self.dirty:
            if self._is_live(name):
                self.standing.chains[name] = ["closed"] if name in closed else list(self.wanted[name].hashes)
            else:
                self.standing.chains.pop(name, None)
        for hook in self.dirty_hooks:
            rules = self.hooks[hook]
            foreign = [one for one in self.standing.hooks.get(hook, []) if one == FOREIGN]
            self.standing.hooks[hook] = [*rules.inserted.hashes, *foreign, *rules.appended.hashes]
        self.dirty = {name for name in closed if name in self.wanted}
        self.dirty_hooks.clear()


def _stands(there: Sequence[str], rules: HookWanted) -> bool:
    """Ours first, others' in between, ours last."""
    first, last = list(rules.inserted.hashes), list(rules.appended.hashes)
    ours = [one for one in there if one != FOREIGN]
    at_top = list(there[: len(first)]) == first
    at_end = list(there[len(there) - len(last) :]) == last if last else True
    return ours == first + last and at_top and at_end
