"""IP sets: what stands there (ipset save), and what brings them to what is wanted (ipset restore). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from felix.desired import IPSetType, IPVersion
from felix.sync.set_members import is_port_member

# hash:net takes no network of length 0, but its two halves.
HALVES = {"0.0.0.0/0": ("0.0.0.0/1", "128.0.0.0/1"), "::/0": ("::/1", "8000::/1")}


def canonical(type: IPSetType, version: IPVersion, member: str) -> tuple[str, ...]:
    """As `ipset save` shows it; empty for the other IP version. Raises ValueError."""
    if type == "ip,port":
        if not is_port_member(member):
            raise ValueError(f"{member!r} is no address and port")
        address, _, port = member.partition(",")
        parsed = ipaddress.ip_address(address)
        return (f"{parsed},{port}",) if parsed.version == version else ()
    network = ipaddress.ip_network(member, strict=False)
    if network.version != version:
        return ()
    text = str(network)
    if text in HALVES:
        return HALVES[text]
    return (str(network.network_address),) if network.prefixlen == network.max_prefixlen else (text,)


@dataclass(slots=True)
class IPSetBook:
    """One set. `standing` None: it is not there, or has not been read."""

    name: str
    type: IPSetType
    version: IPVersion
    wanted: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)
    standing: set[str] | None = None

    def replace(self, members: Collection[str]) -> None:
        self.wanted.clear()
        self.bad.clear()
        self.change(members, ())

    def change(self, added: Collection[str], removed: Collection[str]) -> None:
        for member in removed:
            self.bad.discard(member)
            try:
                self.wanted.difference_update(canonical(self.type, self.version, member))
            except ValueError:
                pass
        for member in added:
            try:
                self.wanted.update(canonical(self.type, self.version, member))
            except ValueError:
                self.bad.add(member)

    @property
    def differs(self) -> bool:
        return self.standing != self.wanted

    def grow(self, max_size: int) -> Iterator[str]:
        """Create it if need be, and add what is missing."""
        if self.standing is None:
            family = "inet" if self.version == 4 else "inet6"
            kind = "hash:net" if self.type == "net" else "hash:ip,port"
            yield f"create {self.name} {kind} family {family} maxelem {max(max_size, len(self.wanted))}"
        for member in sorted(self.wanted - (self.standing or set())):
            yield f"add {self.name} {member} -exist"

    def shrink(self) -> Iterator[str]:
        for member in sorted((self.standing or set()) - self.wanted):
            yield f"del {self.name} {member} -exist"


def read_saved(text: str) -> dict[str, tuple[str, set[str]]]:
    """Name → type and members, from `ipset save`."""
    found: dict[str, tuple[str, set[str]]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "create":
            found[words[1]] = (words[2], set())
        elif len(words) >= 3 and words[0] == "add" and words[1] in found:
            found[words[1]][1].add(words[2])
    return found


def is_of_felix(name: str, version: IPVersion) -> bool:
    """Ours, Calico's (the same names), or those of its first days."""
    return name.startswith((f"cali{version}", "felix-"))


def destroyed(names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        yield f"destroy {name}"
