"""What one nftables table must hold, against what it holds. Pure: it neither encodes nor sends.

Chains, sets and maps go by their names in the kernel. Whoever writes takes what is unsettled and says afterwards what stands;
what is told in the meantime is unsettled again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from felix.desired import IPSetType, IPVersion
from felix.filter_rules import Chain, Criterion, Drop, GoTo, Hook, HookRules, InPortSet, InSet, Jump, Rule, Table
from felix.nft_names import BASE_CHAINS, FAMILIES, chain_name, map_name, set_name
from felix.ports import Failure
from felix.sync.set_members import Effect, SetMembers

MAX_INTERFACE_OCTETS = 15
CLOSED = "catbird-closed"
CLOSED_RULES = (Rule((), Drop(), ("catbird: what should decide here was refused",)),)
# The kernel looks for a set by going through the names of all, several times a set and once a rule that asks for it, and
# through all rules at each change. Of one IP version most sets of most clusters are empty: until they get a member, rules
# that ask for one are not written, and where a rule wants none one empty set stands in.
EMPTY: Mapping[IPSetType, str] = {"net": "catbird-empty-net", "ip,port": "catbird-empty-port"}


class Owner(NamedTuple):
    """Whose a part of a transaction is: what is refused, and tried again, alone."""

    kind: Literal["chain", "set", "map", "gone chain", "gone set", "entry"]
    name: str


@dataclass(slots=True)
class WantedChain:
    """`what` is for people; `hook`: the kernel calls it."""

    name: str
    what: str
    table: Table
    chain: Chain
    hook: Hook | None = None


@dataclass(slots=True)
class WantedSet:
    name: str
    id: str
    members: SetMembers
    pending: list[Effect] = field(default_factory=list)
    is_there: bool = False
    is_made: bool = False  # it has, or once had, a member: rules may name it
    strays: list[bytes] = field(default_factory=list)  # keys of elements in the kernel that nobody wants

    def take(self) -> Effect:
        """All that is to be done; to be put back if it is refused."""
        effect = merged(self.pending) if self.is_there else Effect(added=set(self.members.effective))
        self.pending = []
        return effect

    def put_back(self, effect: Effect) -> None:
        self.pending.insert(0, effect)


@dataclass(slots=True)
class VerdictMap:
    """Interface → chain. An interface whose chain is not there leads to the closed one."""

    name: str
    table: Table
    is_there: bool = False
    wanted: dict[str, str] = field(default_factory=dict)
    standing: dict[str, str] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    astray: set[str] = field(default_factory=set)  # whose chain nobody has told of
    nameless: set[str] = field(default_factory=set)  # no interface can be called so
    _told: dict[str, str] = field(default_factory=dict)

    def tell(self, targets: Mapping[str, str]) -> None:
        now = dict(targets)
        for interface, _ in now.items() ^ self._told.items():
            if len(interface.encode(errors="surrogateescape")) > MAX_INTERFACE_OCTETS or not interface:
                (self.nameless.add if interface in now else self.nameless.discard)(interface)
                continue
            self.unsettled.add(interface)
            if interface in now:
                self.wanted[interface] = chain_name(self.table, now[interface])
            else:
                self.wanted.pop(interface, None)
                self.astray.discard(interface)
        self._told = now

    def stands(self, entries: Mapping[str, str]) -> None:
        self.standing = dict(entries)
        self.unsettled = {one for one, _ in self.standing.items() ^ self.wanted.items()} | self.astray

    def recheck(self, gone: Collection[str]) -> None:
        """Chains are gone, or may have come."""
        self.unsettled |= self.astray
        if gone:
            self.unsettled |= {one for one, target in self.wanted.items() if target in gone}

    def differences(self, is_there: Callable[[str], bool]) -> tuple[list[str], dict[str, str]]:
        """Of what is unsettled: interfaces to remove, and entries to add behind that. `is_there`: a chain to lead to."""
        gone: list[str] = []
        come: dict[str, str] = {}
        closed = chain_name(self.table, CLOSED)
        for interface in self.unsettled:
            target = self.wanted.get(interface)
            if target is not None and not is_there(target):
                self.astray.add(interface)
                target = closed
            else:
                self.astray.discard(interface)
            former = self.standing.get(interface)
            if former != target:
                if interface in self.standing:
                    gone.append(interface)
                if target is not None:
                    come[interface] = target
        return gone, come

    def written(self, gone: Iterable[str], come: Mapping[str, str]) -> None:
        for interface in gone:
            self.standing.pop(interface, None)
        self.standing |= come


class NftTable:
    """What is wanted of one IP version's table, and how far the kernel has it."""

    def __init__(self, version: IPVersion, table: str) -> None:
        self.version: IPVersion = version
        self.what = f"table {FAMILIES[version]} {table}"
        self.chains: dict[str, WantedChain] = {}
        self.dirty: set[str] = set()  # chains
        self.known_chains: set[str] = set()
        self.marks: dict[str, bytes] = {}  # of all known chains: what their rules were made of
        self.gone_chains: set[str] = set()
        self.sets: dict[str, WantedSet] = {}  # by Felix's id
        self.unsettled: dict[str, WantedSet] = {}
        self.gone_sets: dict[str, WantedSet] = {}
        self.maps: dict[str, VerdictMap] = {}
        self.failed: dict[Owner, str] = {}
        self.must_rebuild = False
        self.is_loaded = False  # the books say what the kernel has
        self.is_breached = False  # others have removed or altered chains
        self._with_bad: set[str] = set()  # ids of sets that were given what is no member
        self._unmade: set[str] = set()  # ids of sets
        self._are_held = False  # no set is to be made
        self._written_without: dict[str, set[str]] = {}  # an unmade set's id → chains
        self._left_out: dict[str, set[int]] = {}  # chain → places of its rules that are not written
        for type, id in EMPTY.items():
            self.set_ip_set(id, type, ())
            self._make(self.sets[id])
        for table_, hook in BASE_CHAINS:
            self.set_hook(table_, hook, HookRules())

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        name = set_name(self.version, id)
        wanted = self.sets.get(id) or self.gone_sets.pop(name, None)
        if wanted is not None and wanted.members.type != type:
            # One of the same name and another type is in the way until no rule names it.
            self.must_rebuild = self.must_rebuild or wanted.is_there
            wanted = None
        if wanted is None:
            wanted = WantedSet(name, id, SetMembers(type, self.version))
            self._unmade.add(id)
        self.sets[id] = wanted
        wanted.pending.append(wanted.members.replace(members))
        self._members_changed(wanted)

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        wanted = self.sets.get(id)
        if wanted is not None:
            wanted.pending.append(wanted.members.change(added, removed))
            self._members_changed(wanted)

    def _members_changed(self, wanted: WantedSet) -> None:
        if wanted.is_made:
            self.unsettled[wanted.name] = wanted
        elif wanted.members.effective and not self._are_held:
            self._make(wanted)
        else:
            wanted.pending.clear()
        (self._with_bad.add if wanted.members.bad else self._with_bad.discard)(wanted.id)

    def _make(self, wanted: WantedSet) -> None:
        wanted.is_made = True
        self._unmade.discard(wanted.id)
        self.unsettled[wanted.name] = wanted
        self._write_again(wanted.id)

    def _write_again(self, id: str) -> None:
        """The chains that were written without this unmade set."""
        for name in self._written_without.pop(id, set()) & self.chains.keys():
            self.chains[name] = replace(self.chains[name])  # what is being written now is no more what is wanted
            self.dirty.add(name)

    def remove_ip_set(self, id: str) -> None:
        wanted = self.sets.pop(id, None)
        if wanted is not None:
            self.unsettled.pop(wanted.name, None)
            self._with_bad.discard(id)
            if not self._are_held:
                self._unmade.discard(id)
            self._write_again(id)  # it may come back, made, before these chains are written
            self.failed.pop(Owner("set", wanted.name), None)
            if wanted.is_made:
                self.gone_sets[wanted.name] = wanted

    @contextmanager
    def sets_held(self) -> Iterator[None]:
        """While all is written as it is wanted now: a set that gets its first member meanwhile, or goes, counts as unmade, and
        is made for the next time."""
        self._are_held = True
        try:
            yield
        finally:
            self._are_held = False
            self._unmade &= self.sets.keys()
            for id in [id for id in self._unmade if self.sets[id].members.effective]:
                self._make(self.sets[id])

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        for chain in chains:
            self.want(WantedChain(chain_name(table, chain.name), f"chain {table} {chain.name}", table, chain))

    def want(self, chain: WantedChain) -> None:
        """Told again as it is, it keeps its counters."""
        if self.chains.get(chain.name) == chain:
            return
        self.chains[chain.name] = chain
        self.gone_chains.discard(chain.name)
        self.failed.pop(Owner("gone chain", chain.name), None)
        self.dirty.add(chain.name)

    def remove_chains(self, table: Table, names: Iterable[str]) -> None:
        for name in (chain_name(table, one) for one in names):
            if self.chains.pop(name, None) is not None:
                self.dirty.discard(name)
                self._left_out.pop(name, None)
                self.failed.pop(Owner("chain", name), None)
                self.gone_chains.add(name)

    def set_hook(self, table: Table, hook: Hook, rules: HookRules) -> None:
        chain = Chain(hook, (*rules.inserted, *rules.appended))
        self.want(WantedChain(chain_name(table, hook), f"hook {table} {hook}", table, chain, hook))

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        named = map_name(table, name)
        if named not in self.maps:
            self.maps[named] = VerdictMap(named, table)
        self.maps[named].tell(targets)

    def to_write(self, chain: WantedChain) -> Chain:
        """Its rules but for those that ask for members of a set that has not been made. Told when one is, it is dirty again."""
        self._left_out.pop(chain.name, None)
        if not self._unmade:
            return chain.chain
        found, left_out = [], set()
        for at, rule in enumerate(chain.chain.rules):
            of = [one for one in rule.criteria if isinstance(one, InSet | InPortSet) and one.id in self._unmade]
            for one in of:
                self._written_without.setdefault(one.id, set()).add(chain.name)
            if all(one.negated for one in of):
                found.append(replace(rule, criteria=tuple(map(self._stand_in, rule.criteria))) if of else rule)
            else:
                left_out.add(at)
        if left_out:
            self._left_out[chain.name] = left_out
        return Chain(chain.chain.name, tuple(found))

    def _stand_in(self, one: Criterion) -> Criterion:
        if isinstance(one, InSet | InPortSet) and one.id in self._unmade:
            return replace(one, id=EMPTY["net" if isinstance(one, InSet) else "ip,port"])
        return one

    def written(self, name: str) -> list[int]:
        """Of each of a chain's rules that stand in the kernel its place among all of the chain's."""
        left_out = self._left_out.get(name, ())
        return [at for at in range(len(self.chains[name].chain.rules)) if at not in left_out]

    # --- what is to be done ------------------------------------------------------------------------------------------

    def prepare_maps(self) -> None:
        """Before anything is written: entries that lead nowhere get somewhere to lead to."""
        for one in self.maps.values():
            one.recheck(self.gone_chains)
            if any(one.wanted.get(interface, "") not in self.chains for interface in one.unsettled & one.wanted.keys()):
                closed = chain_name(one.table, CLOSED)
                if closed not in self.chains:
                    self.want(
                        WantedChain(closed, f"chain {one.table} {CLOSED}", one.table, Chain(CLOSED, CLOSED_RULES))
                    )

    def what_is(self, name: str) -> str:
        chain = self.chains.get(name)
        return chain.what if chain is not None else name

    def hooks_to(self, chain: WantedChain) -> set[Hook]:
        """The hooks whose rules lead to it directly."""
        return {
            one.hook
            for table, hook in BASE_CHAINS
            if table == chain.table and (one := self.chains[chain_name(table, hook)]).hook is not None
            for rule in one.chain.rules
            if isinstance(rule.action, Jump | GoTo) and rule.action.chain == chain.chain.name
        }

    def failures(self) -> list[Failure]:
        found = [Failure(self._what_failed(owner), reason) for owner, reason in sorted(self.failed.items())]
        for id in sorted(self._with_bad):
            bad = sorted(self.sets[id].members.bad)
            found += [Failure(f"member of set {id}", f"{one!r} is no member") for one in bad]
        for one in self.maps.values():
            found += [
                Failure(f"interface {interface}", f"its chain {one.wanted[interface]} is not there: closed")
                for interface in sorted(one.astray)
            ]
            found += [
                Failure(f"interface {interface}", "no interface can be called so") for interface in sorted(one.nameless)
            ]
        return found

    def _what_failed(self, owner: Owner) -> str:
        match owner.kind:
            case "chain":
                return self.what_is(owner.name)
            case "set":
                return f"set {next((id for id, one in self.sets.items() if one.name == owner.name), owner.name)}"
            case _:
                return f"{owner.kind} {owner.name}"

    # --- what stands -------------------------------------------------------------------------------------------------

    def chains_stand(self, names: Iterable[str]) -> None:
        """All that is in the kernel, of whatever content."""
        self.known_chains = set(names)
        self.dirty = set(self.chains)
        self.gone_chains = self.known_chains - self.chains.keys()

    def sets_stand(self, names: Collection[str]) -> None:
        """Sets and maps. Those that nobody wants are to go; maps of former processes too."""
        for id in self._unmade & self.sets.keys():
            if self.sets[id].name in names:
                self._make(self.sets[id])
        self.unsettled = {one.name: one for one in self.sets.values() if one.is_made}
        self.gone_sets = {
            name: WantedSet(name, name, SetMembers("net", self.version), is_there=True, is_made=True)
            for name in set(names) - self.unsettled.keys() - self.maps.keys()
        }
        for one in self.unsettled.values():
            one.pending, one.strays, one.is_there = [], [], one.name in names
        for verdicts in self.maps.values():
            verdicts.is_there = verdicts.name in names
            verdicts.stands({})

    def members_stand(self, one: WantedSet, missing: Iterable[str], strays: Sequence[bytes]) -> None:
        """Against what was in effect when `pending` was emptied; what has been told since is still in it."""
        one.strays = list(strays)
        added = set(missing)
        if added:
            # What is too much may lie where something is missing: both in one transaction.
            one.put_back(Effect(added=added, must_be_one=True))
        if one.pending or strays:
            self.unsettled[one.name] = one
        else:
            self.unsettled.pop(one.name, None)

    def chain_stands(self, written: WantedChain, mark: bytes) -> None:
        """As wanted, unless something else has been wanted in the meantime."""
        self.known_chains.add(written.name)
        self.marks[written.name] = mark
        if self.chains.get(written.name) is written:
            self.dirty.discard(written.name)

    def chain_is_gone(self, name: str) -> None:
        self.known_chains.discard(name)
        self.gone_chains.discard(name)
        self.marks.pop(name, None)

    def set_is_settled(self, one: WantedSet) -> None:
        one.strays = []
        if not one.pending and self.unsettled.get(one.name) is one:
            del self.unsettled[one.name]

    def set_is_gone(self, one: WantedSet) -> None:
        one.is_there, one.strays = False, []
        self.gone_sets.pop(one.name, None)


def merged(effects: Sequence[Effect]) -> Effect:
    """Several changes in a row as one."""
    added: set[str] = set()
    removed: set[str] = set()
    for effect in effects:
        back, gone = removed & effect.added, added & effect.removed
        added = (added - gone) | (effect.added - back)
        removed = (removed - back) | (effect.removed - gone)
    # Of networks of different lengths one may lie in the other: the kernel takes none into a set beside the other.
    may_overlap = bool(added and removed) and len({text.partition("/")[2] for text in added | removed}) > 1
    must_be_one = may_overlap or any(effect.must_be_one for effect in effects)
    return Effect(added, removed, must_be_one)
