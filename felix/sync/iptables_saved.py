"""What `iptables-save -t TABLE` says: our chains by the hashes of their rules, and our rules in the chains of others. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

OURS = ("cali", "felix-")  # what Calico's chains begin with, today and in its first days
FOREIGN = ""  # in place of a hash
HISTORIC = "historic"  # in place of a hash: no hash of ours, but it leads to a chain of ours
_HASH = re.compile(r'--comment "?cali:([A-Za-z0-9_-]+)"?')
_LEADS_TO_OURS = re.compile(r"(?:-j|--jump|-g|--goto) (?:cali|felix-)")
_COUNTED = re.compile(r"\[(\d+):(\d+)\] -A (\S+)")
_INCOMPATIBLE = re.compile(r"# Table `[^']*' is incompatible, use 'nft' tool")


class Unreadable(Exception):
    """iptables cannot show this table: somebody put rules into it that only nft knows. Says so."""


@dataclass(slots=True)
class Standing:
    """What is in the kernel. Hashes in order; FOREIGN for rules of others."""

    chains: dict[str, list[str]] = field(default_factory=dict)  # ours
    hooks: dict[str, list[str]] = field(default_factory=dict)  # the kernel's own
    texts: dict[str, list[str]] = field(default_factory=dict)  # chain of others → our rules in it, as shown


def read_saved(text: str) -> Standing:
    """Raises Unreadable."""
    standing = Standing()
    for line in text.splitlines():
        if line.startswith("-A "):
            _take_rule(standing, line)
        elif line.startswith(":"):
            name, _, policy = line[1:].partition(" ")
            if not policy.startswith("-"):
                standing.hooks[name] = []
            elif name.startswith(OURS):
                standing.chains[name] = []
        elif _INCOMPATIBLE.match(line):
            # iptables-nft-save ends with 0 all the same.
            raise Unreadable("the table has rules that only nft can show; remove them (`nft list ruleset`)")
    return standing


def _take_rule(standing: Standing, line: str) -> None:
    name, _, rule = line[3:].partition(" ")
    if name.startswith(OURS):
        found = _HASH.search(rule)
        standing.chains.setdefault(name, []).append(found[1] if found else FOREIGN)
        return
    mark = FOREIGN
    if "cali" in rule or "felix-" in rule:
        if found := _HASH.search(rule):
            mark = found[1]
        elif _LEADS_TO_OURS.search(rule):
            mark = HISTORIC
    if mark != FOREIGN:
        standing.texts.setdefault(name, []).append(rule)
    if name in standing.hooks:
        standing.hooks[name].append(mark)


def read_counters(text: str, chains: Iterable[str]) -> list[tuple[str, int, int, int]]:
    """Chain, position, packets, octets, from `iptables-save -c`."""
    wanted = set(chains)
    found = []
    position: dict[str, int] = {}
    for line in text.splitlines():
        counted = _COUNTED.match(line)
        if counted and counted[3] in wanted:
            name = counted[3]
            found.append((name, position.get(name, 0), int(counted[1]), int(counted[2])))
            position[name] = position.get(name, 0) + 1
    return found


def count_rules(text: str) -> int:
    """Of a whole `iptables-save`."""
    return sum(1 for line in text.splitlines() if line.startswith("-"))
