"""The members of IP sets: by selector, by named port, by service. Each member counts its reasons."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from felix.calc.endpoints import Addressed
from felix.calc.label_index import LabelIndex, discard
from felix.calc.rules import Definitions, IPSetDefinition
from felix.calc.services import Slice
from felix.desired import IPSetDelta, IPSetRemove, IPSetUpdate, Message


class IPSet:
    """`added` and `removed` are relative to what was told."""

    __slots__ = ("added", "id", "is_told", "members", "port", "removed", "service", "type", "users")

    def __init__(self, definition: IPSetDefinition) -> None:
        self.id, self.type, self.port = definition.id, definition.type, definition.port
        self.service = definition.service
        self.users = 0
        self.members: dict[str, int] = {}  # member → reasons
        self.is_told = False
        self.added: set[str] = set()
        self.removed: set[str] = set()

    def add(self, member: str) -> bool:
        """Is there now something to tell?"""
        count = self.members.get(member, 0)
        self.members[member] = count + 1
        if count or not self.is_told:
            return False
        if member in self.removed:
            self.removed.discard(member)
        else:
            self.added.add(member)
        return True

    def remove(self, member: str) -> bool:
        count = self.members[member] - 1
        if count:
            self.members[member] = count
            return False
        del self.members[member]
        if not self.is_told:
            return False
        if member in self.added:
            self.added.discard(member)
        else:
            self.removed.add(member)
        return True

    def members_of(self, item: Addressed) -> Iterable[str]:
        """What an item that its selector matches has to give."""
        if self.port is None:
            return item.nets
        protocol, name = self.port
        return [
            f"{net.partition('/')[0]},{port.protocol}:{port.number}"
            for port in item.ports
            if port.name == name and protocol in (port.protocol, "any")
            for net in item.nets
        ]


class IPSets:
    """Sets exist while somebody uses them. `flush` says what became of them since the last time."""

    def __init__(self) -> None:
        self._index: LabelIndex[str] = LabelIndex(self._started, self._stopped)
        self._items: dict[str, Addressed] = {}
        self._sets: dict[str, IPSet] = {}
        self._used: dict[Hashable, tuple[str, ...]] = {}
        self._slices: dict[str, Slice] = {}
        self._slices_of: dict[str, set[str]] = {}  # service → slices
        self._sets_of: dict[str, set[str]] = {}  # service → sets
        self._changed: set[str] = set()  # sets with something to tell
        self._unused: set[str] = set()  # may be taken up again before the next flush

    def __len__(self) -> int:
        return len(self._sets)

    # --- who is in --------------------------------------------------------------------------------------------------

    def set_profile(self, name: str, labels: Mapping[str, str]) -> None:
        self._index.set_parent(name, labels)

    def set_item(self, name: str, new: Addressed | None) -> None:
        """An endpoint or network set; None: gone."""
        old = self._items.get(name)
        if new is None:
            if old is not None:
                self._index.remove_item(name)
                del self._items[name]
            return
        self._items[name] = new
        if old is not None and (old.nets, old.ports) != (new.nets, new.ports):
            for id in list(self._index.matching(name)):
                for member in self._sets[id].members_of(new):  # first in, then out: what stays is not told
                    self._add(id, member)
                for member in self._sets[id].members_of(old):
                    self._remove(id, member)
        self._index.set_item(name, new.labels, new.profiles)

    def set_slice(self, name: str, new: Slice | None) -> None:
        old = self._slices.pop(name, None)
        if new is not None:
            self._slices[name] = new
            self._slices_of.setdefault(new.service, set()).add(name)
            for id in self._sets_of.get(new.service, ()):
                for member in new.members(with_ports=self._sets[id].type == "ip,port"):
                    self._add(id, member)
        if old is not None:
            if new is None or new.service != old.service:
                discard(self._slices_of, old.service, name)
            for id in self._sets_of.get(old.service, ()):
                for member in old.members(with_ports=self._sets[id].type == "ip,port"):
                    self._remove(id, member)

    def _started(self, id: str, item: str) -> None:
        for member in self._sets[id].members_of(self._items[item]):
            self._add(id, member)

    def _stopped(self, id: str, item: str) -> None:
        for member in self._sets[id].members_of(self._items[item]):
            self._remove(id, member)

    def _add(self, id: str, member: str) -> None:
        if self._sets[id].add(member):
            self._changed.add(id)

    def _remove(self, id: str, member: str) -> None:
        if self._sets[id].remove(member):
            self._changed.add(id)

    # --- which sets there are ---------------------------------------------------------------------------------------

    def use(self, user: Hashable, definitions: Definitions) -> None:
        """All that `user` needs from now on; none: nothing any more."""
        before = self._used.pop(user, ())
        if definitions:
            self._used[user] = tuple(definitions)
        for id, definition in definitions.items():
            ip_set = self._sets.get(id) or self._make(definition)
            ip_set.users += 1
            self._unused.discard(id)
        for id in before:
            self._sets[id].users -= 1
            if not self._sets[id].users:
                self._unused.add(id)

    def _make(self, definition: IPSetDefinition) -> IPSet:
        ip_set = self._sets[definition.id] = IPSet(definition)
        self._changed.add(ip_set.id)
        if definition.selector is not None:
            self._index.set_selector(ip_set.id, definition.selector)
        else:
            self._sets_of.setdefault(ip_set.service, set()).add(ip_set.id)
            for name in self._slices_of.get(ip_set.service, ()):
                for member in self._slices[name].members(with_ports=ip_set.type == "ip,port"):
                    ip_set.add(member)
        return ip_set

    def _drop(self, ip_set: IPSet) -> None:
        del self._sets[ip_set.id]
        self._changed.discard(ip_set.id)
        if ip_set.service:
            discard(self._sets_of, ip_set.service, ip_set.id)
        else:
            self._index.remove_selector(ip_set.id)

    def flush(self, out: list[Message]) -> None:
        for id in sorted(self._unused):
            if self._sets[id].is_told:
                out.append(IPSetRemove(id))
            self._drop(self._sets[id])
        self._unused.clear()
        for id in sorted(self._changed):
            ip_set = self._sets[id]
            if not ip_set.is_told:
                out.append(IPSetUpdate(id, ip_set.type, frozenset(ip_set.members)))
                ip_set.is_told = True
            elif ip_set.added or ip_set.removed:
                out.append(IPSetDelta(id, frozenset(ip_set.added), frozenset(ip_set.removed)))
                ip_set.added, ip_set.removed = set(), set()
        self._changed.clear()
