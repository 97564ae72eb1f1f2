"""Judges what route-reflector clients got, a thousand of them at once: every prefix, with the right attributes, once.

Many clients are told the same bytes. A message is taken apart once and remembered, so that judging one more copy of it
costs a look-up and a dictionary update in C. As in `Tally`, nothing of this happens before a socket is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bgp.families import Nlri
from tests.bench.table import MARKER, attribute_values, identity_of
from tests.bench.tally import ALTERED, SPLIT_IPV4

# One alternative per number of address octets, the longest first.
SPLIT_IPV6 = re.compile(
    b"|".join(b"[\\x%02x-\\x%02x].{%d}" % (8 * n - 7, 8 * n, n) for n in range(16, 0, -1)) + b"|\\x00",
    re.DOTALL,
).findall

REMEMBERED_MESSAGES = 300_000


class Effect(NamedTuple):
    """What one UPDATE says: the set number of each announced prefix, always the same one, and what is gone."""

    announced: dict[Nlri, int]
    withdrawn: list[Nlri]
    number: int = ALTERED


NOTHING = Effect({}, [])


def whole_messages(data: bytes) -> int:
    """How many octets at the beginning are whole messages. No message may contain 16 times 0xff but as its marker."""
    last = data.rfind(MARKER)
    if len(data) < last + 18:
        return max(last, 0)
    end = last + int.from_bytes(data[last + 16 : last + 18], "big")
    return end if end <= len(data) else last


def route_key(identity_and_next_hop: bytes, originator: bytes) -> bytes:
    return identity_and_next_hop + b"|" + originator


@dataclass(slots=True)
class Verifier:
    """What must have arrived in the end, and the memory of messages. `sets`: by `route_key`, the number of a set.

    `cluster_id` None: nothing is reflected, the bytes come as they were sent.
    """

    routes: dict[Nlri, int]
    sets: dict[bytes, int]
    cluster_id: bytes | None
    problems: list[str] = field(default_factory=list)
    _effects: dict[bytes, Effect] = field(default_factory=dict)

    def effect(self, piece: bytes) -> Effect:
        """Of a message without its marker, as `bytes.split` cuts it."""
        found = self._effects.get(piece)
        if found is None:
            if len(self._effects) >= REMEMBERED_MESSAGES:
                self._effects.clear()
            try:
                found = self._read(piece)
            except (IndexError, KeyError):
                self.problem(f"unreadable message {piece.hex()}")
                found = NOTHING
            self._effects[piece] = found
        return found

    def _read(self, piece: bytes) -> Effect:
        # A body that ends in 0xff lost these octets to the marker's search: they stand before the next length.
        data = piece.lstrip(b"\xff")
        data = data.ljust(int.from_bytes(data[:2], "big") - 16, b"\xff")
        if data[2] == 3:
            self.problem(f"NOTIFICATION {data[3]}/{data[4]} {data[5:60]!r}")
        if data[2] != 2 or len(data) <= 7:
            return NOTHING
        withdrawn_end = 5 + int.from_bytes(data[3:5], "big")
        attributes_end = withdrawn_end + 2 + int.from_bytes(data[withdrawn_end : withdrawn_end + 2], "big")
        gone: list[Nlri] = SPLIT_IPV4(data, 5, withdrawn_end)
        announced: list[Nlri] = SPLIT_IPV4(data, attributes_end)
        block = data[withdrawn_end + 2 : attributes_end]
        next_hop = b""
        values = attribute_values(block)
        if unreach := values.get(15):
            gone = gone + SPLIT_IPV6(unreach, 3)
        if reach := values.get(14):
            next_hop = reach[4 : 4 + reach[3]][:16]
            announced = announced + SPLIT_IPV6(reach, 5 + reach[3])
        if not announced:
            return Effect({}, gone)
        number = self._number_of(block, next_hop)
        return Effect(dict.fromkeys(announced, number), gone, number)

    def _number_of(self, block: bytes, next_hop: bytes) -> int:
        identity, others = identity_of(block)
        next_hop = others.pop(3, b"") or next_hop
        local_pref = others.pop(5, b"")
        originator, clusters = others.pop(9, b""), others.pop(10, b"")
        others.pop(14, None)
        others.pop(15, None)
        if local_pref != b"\0\0\0\x64":
            self.problem(f"LOCAL_PREF '{local_pref.hex()}' in {block.hex()}")
        if others:
            self.problem(f"attributes {sorted(others)} added in {block.hex()}")
        if self.cluster_id is not None and clusters != self.cluster_id:
            self.problem(f"CLUSTER_LIST '{clusters.hex()}' in {block.hex()}")
        number = self.sets.get(route_key(identity + b"|" + next_hop, originator), ALTERED)
        if number == ALTERED:
            self.problem(f"nobody sent this, from ORIGINATOR_ID '{originator.hex()}': {block.hex()}")
        return number

    def problem(self, text: str) -> None:
        if len(self.problems) < 10:
            self.problems.append(text)


@dataclass(slots=True, eq=False)
class Judge:
    """The routes one client holds. `own` are those it announces itself: told back to it or not, it ignores them.

    `due` is how many announcements it needs; more than these, its own apart, are doubled.
    """

    verifier: Verifier
    own: dict[Nlri, int]
    due: int = field(init=False)
    routes: dict[Nlri, int] = field(init=False)
    announcements: int = 0
    echoed: int = 0
    withdrawals: int = 0
    updates: int = 0
    last_update_at: float = 0.0
    _own_numbers: frozenset[int] = field(init=False)
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self.routes = dict(self.own)
        self.due = len(self.verifier.routes) - len(self.own)
        self._own_numbers = frozenset(self.own.values())

    def feed(self, data: bytes, arrived_at: float) -> None:
        """Take what one read gave."""
        if self._rest:
            data = self._rest + data
        end = whole_messages(data)
        self._rest = data[end:]
        effect_of, routes, own_numbers = self.verifier.effect, self.routes, self._own_numbers
        for piece in data[:end].split(MARKER)[1:]:
            announced, withdrawn, number = effect_of(piece)
            if withdrawn:
                self.withdrawals += len(withdrawn)
                for prefix in withdrawn:
                    routes.pop(prefix, None)
            elif not announced:
                continue
            self.updates += 1
            self.last_update_at = arrived_at
            if number in own_numbers:
                self.echoed += len(announced)
            else:
                self.announcements += len(announced)
                routes.update(announced)

    def new_phase(self, due: int) -> None:
        """Counts begin again; the routes stay."""
        self.due = due
        self.announcements = self.echoed = self.withdrawals = self.updates = 0

    @property
    def is_complete(self) -> bool:
        self.routes.update(self.own)
        return self.routes == self.verifier.routes

    @property
    def doubled(self) -> int:
        return max(0, self.announcements - self.due)

    def verdict(self) -> list[str]:
        """What is wrong with the final state; empty is right."""
        if self.is_complete:
            return []
        wanted, have = self.verifier.routes, self.routes
        found = []
        if missing := wanted.keys() - have.keys():
            found.append(f"{len(missing)} prefixes lost, one is {min(missing).hex()}")
        if surplus := have.keys() - wanted.keys():
            found.append(f"{len(surplus)} prefixes too many, one is {min(surplus).hex()}")
        if wrong := [prefix for prefix, number in have.items() if wanted.get(prefix, number) != number]:
            found.append(f"{len(wrong)} prefixes with other attributes, one is {wrong[0].hex()}")
        return found


def verdicts(judges: Mapping[str, Judge], verifier: Verifier, *, may_double: bool) -> list[str]:
    """Of all clients together, a few lines. `may_double`: announcements beyond one per prefix are no fault."""
    wrong = {name: lines for name, judge in judges.items() if (lines := judge.verdict())}
    found = list(verifier.problems)
    if wrong:
        name = next(iter(wrong))
        found.append(f"{len(wrong)} of {len(judges)} clients hold the wrong routes; {name}: {', '.join(wrong[name])}")
    if not may_double and (count := sum(judge.doubled for judge in judges.values())):
        found.append(f"{count} announcements of what the client had been told already")
    return found
