"""IP sets: what stands there (`ipset save`), and what brings them to what is wanted (`ipset restore`). Pure.

Members are written as `ipset save` shows them: `10.0.0.1`, not `10.0.0.1/32`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from felix.desired import IPSetType, IPVersion
from felix.sync.set_members import is_port_member

# hash:net takes no network of length 0, but its two halves.
HALVES = {"0.0.0.0/0": ("0.0.0.0/1", "128.0.0.0/1"), "::/0": ("::/1", "8000::/1")}
KINDS: dict[IPSetType, str] = {"net": "hash:net", "ip,port": "hash:ip,port"}
FAMILIES = {4: "inet", 6: "inet6"}


def canonical(type: IPSetType, version: IPVersion, member: str) -> tuple[str, ...]:
    """As `ipset save` shows it; empty for the other IP version. Raises ValueError."""
    if "%" in member:
        raise ValueError(f"{member!r} has a zone")
    if type == "ip,port":
        if not is_port_member(member):
            raise ValueError(f"{member!r} is no address and port")
        address, _, rest = member.partition(",")
        protocol, _, port = rest.partition(":")
        parsed = ipaddress.ip_address(address)
        return (f"{parsed},{protocol}:{int(port)}",) if parsed.version == version else ()
    network = ipaddress.ip_network(member, strict=False)
    if network.version != version:
        return ()
    text = str(network)
    if text in HALVES:
        return HALVES[text]
    return (str(network.network_address),) if network.prefixlen == network.max_prefixlen else (text,)


def is_plain(type: IPSetType, member: str, shown: tuple[str, ...]) -> bool:
    """Spelt as Felix spells, one for one with what is shown."""
    if len(shown) != 1:
        return not shown
    return member == shown[0] if type == "ip,port" or "/" in shown[0] else member.startswith(f"{shown[0]}/")


@dataclass(frozen=True, slots=True)
class SavedSet:
    """A set of ours in the kernel."""

    kind: str  # `hash:net`
    family: str  # `inet`
    size: int  # how many members it can have; 0 for kinds without a limit
    members: frozenset[str]


_LINES = re.compile(r"^(create|add) ((?:cali[46]|felix-)\S*) (\S+)(.*)$", re.MULTILINE)
_SIZE = re.compile(r" maxelem (\d+)")
_FAMILY = re.compile(r" family (\S+)")


def read_saved(text: str, version: IPVersion) -> dict[str, SavedSet]:
    """Name → ours, Calico's (the same names) and those of its first days, from `ipset save` of all sets."""
    found: dict[str, tuple[str, str, int, set[str]]] = {}
    for what, name, first, rest in _LINES.findall(text):
        if not is_of_felix(name, version):
            continue
        if what == "create":
            size, family = _SIZE.search(rest), _FAMILY.search(rest)
            found[name] = (first, family[1] if family else "", int(size[1]) if size else 0, set())
        elif name in found:
            found[name][3].add(first)
    return {name: SavedSet(*one[:3], frozenset(one[3])) for name, one in found.items()}


def is_of_felix(name: str, version: IPVersion) -> bool:
    return name.startswith((f"cali{version}", "felix-"))


@dataclass(slots=True)
class IPSetBook:
    """One set: its members wanted, and what differs from those that stand there."""

    id: str
    name: str
    type: IPSetType
    version: IPVersion
    wanted: set[str] = field(default_factory=set)
    odd: dict[str, tuple[str, ...]] = field(default_factory=dict)  # spelt otherwise, or shown as several
    bad: set[str] = field(default_factory=set)  # no members at all
    refused: dict[str, str] = field(default_factory=dict)  # by ipset, with its reason; not tried again before a check
    is_there: bool = False
    size: int = 0
    to_add: set[str] = field(default_factory=set)
    to_remove: set[str] = field(default_factory=set)

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def replace(self, members: Collection[str]) -> None:
        standing = self.standing()
        self.wanted, self.odd, self.bad = set(), {}, set()
        self.refused.clear()
        for member in members:
            self._take(member)
        everything = self.everything()
        self.to_add, self.to_remove = everything - standing, standing - everything

    def change(self, added: Collection[str], removed: Collection[str]) -> None:
        for member in removed:
            self._drop(member)
        for member in added:
            for one in self._take(member):
                self.to_remove.discard(one) if one in self.to_remove else self.to_add.add(one)

    def _take(self, member: str) -> tuple[str, ...]:
        """Those that are new by it."""
        try:
            shown = canonical(self.type, self.version, member)
        except ValueError:
            self.bad.add(member)
            return ()
        new = tuple(one for one in shown if not self._is_wanted(one))
        if is_plain(self.type, member, shown):
            self.wanted.update(shown)
        else:
            self.odd[member] = shown
        return new

    def _drop(self, member: str) -> None:
        self.bad.discard(member)
        try:
            shown = canonical(self.type, self.version, member)
        except ValueError:
            return
        before = [one for one in shown if self._is_wanted(one)]
        if is_plain(self.type, member, shown):
            self.wanted.difference_update(shown)
        else:
            self.odd.pop(member, None)
        for one in before:
            if self._is_wanted(one) or self.refused.pop(one, None) is not None:
                continue
            self.to_add.discard(one) if one in self.to_add else self.to_remove.add(one)

    def _is_wanted(self, shown: str) -> bool:
        return shown in self.wanted or any(shown in one for one in self.odd.values())

    def everything(self) -> set[str]:
        return self.wanted.union(*self.odd.values()) if self.odd else self.wanted

    # --- what stands there -------------------------------------------------------------------------------------------

    def standing(self) -> set[str]:
        if not self.is_there:
            return set()
        return (self.everything() - self.to_add - self.refused.keys()) | self.to_remove

    def adopt(self, saved: SavedSet | None) -> bool:
        """Take what has been read for what stands there. False: it is of another kind, and in the way."""
        fits = saved is not None and saved.kind == KINDS[self.type] and saved.family == FAMILIES[self.version]
        self.is_there = fits
        self.size = saved.size if saved is not None and fits else 0
        there = saved.members if saved is not None and fits else frozenset()
        everything = self.everything()
        self.to_add, self.to_remove = everything - there - self.refused.keys(), set(there - everything)
        return fits or saved is None

    @property
    def differs(self) -> bool:
        return not self.is_there or bool(self.to_add or self.to_remove)

    # --- what brings it there ----------------------------------------------------------------------------------------

    def needs_room(self) -> bool:
        return self.is_there and bool(self.to_add) and len(self.everything()) + len(self.to_remove) > self.size

    def room(self, max_size: int) -> int:
        """More than was asked for, if there is so much: half a set would be worse."""
        return max(max_size, len(self.everything()) + len(self.to_remove))

    def create(self, size: int, name: str = "") -> str:
        return f"create {name or self.name} {KINDS[self.type]} family {FAMILIES[self.version]} maxelem {size}"

    def additions(self, name: str = "") -> Iterator[tuple[str, str]]:
        """Member and line. With a name: all of them, into a set that takes this one's place."""
        members = self.to_add | (self.standing() if name else set())
        for member in sorted(members):
            yield member, f"add {name or self.name} {member} -exist"

    def deletions(self) -> Iterator[tuple[str, str]]:
        for member in sorted(self.to_remove):
            yield member, f"del {self.name} {member} -exist"


def destroyed(names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        yield f"destroy {name}"
