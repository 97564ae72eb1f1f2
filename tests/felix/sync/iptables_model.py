"""As much of iptables-save and iptables-restore --noflush as our lines use. One transaction a call: all of it or nothing."""

from __future__ import annotations

import copy
import re

_TARGET = re.compile(r"(?:-j|--jump|-g|--goto) (\S+)")
BUILT_IN = {"ACCEPT", "DROP", "RETURN"}


class Wrong(Exception):
    """The kernel, or the program, would refuse it."""


class ModelTable:
    def __init__(self, name: str, hooks: list[str]) -> None:
        self.name = name
        self.hooks = hooks
        self.chains: dict[str, list[str]] = {hook: [] for hook in hooks}

    def saved(self) -> str:
        declared = [f":{name} {'ACCEPT' if name in self.hooks else '-'} [0:0]" for name in self.chains]
        rules = [f"-A {name} {rule}" for name, those in self.chains.items() for rule in those]
        return "\n".join([f"*{self.name}", *declared, *rules, "COMMIT", ""])

    def restore(self, text: str) -> None:
        first, *lines, last = text.splitlines()
        assert (first, last) == (f"*{self.name}", "COMMIT")
        before = copy.deepcopy(self.chains)
        try:
            for line in lines:
                self._do(line)
            for rules in self.chains.values():
                for rule in rules:
                    self._check(rule)
        except Wrong:
            self.chains = before
            raise

    def _check(self, rule: str) -> None:
        found = _TARGET.search(rule)
        if found and found[1] not in self.chains and found[1] not in BUILT_IN:
            raise Wrong(f"no chain {found[1]}")

    def _do(self, line: str) -> None:
        if line.startswith(":"):
            self.chains[line[1:].split(maxsplit=1)[0]] = []
            return
        option, name, *words = line.split(" ")
        if name not in self.chains:
            raise Wrong(f"no chain {name}")
        rules, rest = self.chains[name], " ".join(words)
        match option:
            case "-A":
                rules.append(rest)
            case "-I":
                rules.insert(int(words[0]) - 1, " ".join(words[1:]))
            case "-R":
                self._at(rules, words[0])
                rules[int(words[0]) - 1] = " ".join(words[1:])
            case "-D" if rest.isdigit():
                self._at(rules, rest)
                del rules[int(rest) - 1]
            case "-D":
                if rest not in rules:
                    raise Wrong("no such rule")
                rules.remove(rest)
            case "--flush":
                rules.clear()
            case "--delete-chain":
                self._delete(name)
            case _:
                raise Wrong(line)

    @staticmethod
    def _at(rules: list[str], number: str) -> None:
        if not 1 <= int(number) <= len(rules):
            raise Wrong("no such rule")

    def _delete(self, name: str) -> None:
        everything = [rule for rules in self.chains.values() for rule in rules]
        if self.chains[name] or any((found := _TARGET.search(rule)) and found[1] == name for rule in everything):
            raise Wrong(f"{name} is in use")
        del self.chains[name]
