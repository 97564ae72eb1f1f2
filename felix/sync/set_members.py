"""What of a set's members must be in the kernel: no interval within another, none of the other IP version. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field

from felix.desired import IPSetType, IPVersion


@dataclass(slots=True)
class Effect:
    """Members to add and to remove; `must_be_one`: some replace others that they overlap with, in one transaction."""

    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    must_be_one: bool = False


class SetMembers:
    """The members wanted, and those in effect: networks that lie in no other member. `bad` are none."""

    def __init__(self, type: IPSetType, version: IPVersion) -> None:
        self.type = type
        self.version = version
        self.effective: set[str] = set()
        self.bad: set[str] = set()
        self._wanted: dict[str, tuple[int, int]] = {}  # text → address, length
        self._by_length: dict[int, set[int]] = {}
        self._bits = 32 if version == 4 else 128
        self._has_odd_spellings = False

    def replace(self, members: Collection[str]) -> Effect:
        now = set(members)
        return self.change(now - self._wanted.keys(), self._wanted.keys() - now)

    def change(self, added: Collection[str], removed: Collection[str]) -> Effect:
        if self.type != "net":
            return self._change_ports(added, removed)
        touched: set[tuple[int, int]] = set()
        for member in removed:
            self._remove(member, touched)
        for member in added:
            self._add(member, touched)
        # A change of one shows or hides what lies within it.
        touched |= {inner for address, length in touched for inner in self._inside(address, length)}
        effect = Effect()
        for address, length in touched:
            text = self._text(address, length)
            is_there = address in self._by_length.get(length, ()) and not self._is_covered(address, length)
            if is_there and text not in self.effective:
                effect.added.add(text)
            elif not is_there and text in self.effective:
                effect.removed.add(text)
        self.effective = (self.effective - effect.removed) | effect.added
        lengths = {text.partition("/")[2] for text in effect.added | effect.removed}
        effect.must_be_one = bool(effect.added and effect.removed) and len(lengths) > 1
        return effect

    def _change_ports(self, added: Collection[str], removed: Collection[str]) -> Effect:
        ours = {one for one in added if (":" in one.partition(",")[0]) == (self.version == 6)}
        effect = Effect(ours - self.effective, self.effective & set(removed))
        for member in list(effect.added):
            if not is_port_member(member):
                effect.added.discard(member)
                self.bad.add(member)
        self.bad -= set(removed)
        self.effective = (self.effective - effect.removed) | effect.added
        for member in effect.removed:
            self._wanted.pop(member, None)
        self._wanted.update(dict.fromkeys(effect.added, (0, 0)))
        return effect

    def _parse(self, member: str) -> tuple[int, int] | None:
        try:
            network = ipaddress.ip_network(member, strict=False)
        except ValueError:
            self.bad.add(member)
            return None
        return (int(network.network_address), network.prefixlen) if network.version == self.version else None

    def _add(self, member: str, touched: set[tuple[int, int]]) -> None:
        parsed = self._parse(member)
        if parsed is None or member in self._wanted:
            return
        self._wanted[member] = parsed
        address, length = parsed
        self._has_odd_spellings = self._has_odd_spellings or member != self._text(address, length)
        self._by_length.setdefault(length, set()).add(address)
        touched.add(parsed)

    def _remove(self, member: str, touched: set[tuple[int, int]]) -> None:
        self.bad.discard(member)
        parsed = self._wanted.pop(member, None)
        if parsed is None or self._is_spelt_otherwise(member, parsed):
            return
        address, length = parsed
        same = self._by_length[length]
        same.discard(address)
        if not same:
            del self._by_length[length]
        touched.add(parsed)

    def _is_spelt_otherwise(self, member: str, parsed: tuple[int, int]) -> bool:
        """Canonical members have no twins; a look through all is for others only."""
        if member == self._text(*parsed) and not self._has_odd_spellings:
            return False
        return any(one == parsed for one in self._wanted.values())

    def _is_covered(self, address: int, length: int) -> bool:
        return any(
            shorter < length and address >> (self._bits - shorter) << (self._bits - shorter) in there
            for shorter, there in self._by_length.items()
        )

    def _inside(self, address: int, length: int) -> set[tuple[int, int]]:
        """The members within a network, itself not."""
        shift = self._bits - length
        return {
            (inner, longer)
            for longer, there in self._by_length.items()
            if longer > length
            for inner in there
            if inner >> shift == address >> shift
        }

    def _text(self, address: int, length: int) -> str:
        if self.version == 4:
            return f"{ipaddress.IPv4Address(address)}/{length}"
        return f"{ipaddress.IPv6Address(address)}/{length}"


def is_port_member(member: str) -> bool:
    address, _, rest = member.partition(",")
    protocol, _, port = rest.partition(":")
    try:
        ipaddress.ip_address(address)
        return protocol in ("tcp", "udp", "sctp") and 0 <= int(port) <= 65535
    except ValueError:
        return False
