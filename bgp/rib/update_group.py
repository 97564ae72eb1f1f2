"""Adj-RIB-Out: peers that must be told the same share one, and one set of bytes.

Nothing is stored per prefix: what a member has been told follows from the best path and the group's rules, which is why
every change carries the best path of before. A member never hears its own paths back; when its path takes the place of
another's that it had been told, it alone is told the withdrawal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bgp.config import NextHopMode, RouteSetting
from bgp.families import IPV4, Address, Family, Nlri
from bgp.policy.compiled import EMPTY_SETTING, CompiledPolicy
from bgp.rib import rewrite
from bgp.rib.loc_rib import Change, LocRib
from bgp.rib.path import Path, PathView, Source
from bgp.wire import update

Buffer = bytes | memoryview
Block = tuple[bytes, Address]  # attribute block, next hop for MP_REACH_NLRI (empty: it is in the block)
_CACHE_LIMIT = 32768
_CHUNK_OCTETS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRules:
    """All that decides what a peer is told. Equal rules, same group. Equal policies are one object, compiled."""

    is_ebgp: bool
    local_asn: int
    families: tuple[Family, ...]
    four_octet_asn: bool
    max_octets: int
    extended_next_hop: frozenset[Family]
    next_hop: NextHopMode
    own_addresses: tuple[tuple[Family, Address], ...]  # for next hop self, by next hop family
    policy: CompiledPolicy
    graceful_shutdown: bool
    default_local_pref: int


class Member:
    """One Established peer in a group. `backlog`: the table as it was at joining, still to be sent; `waiting` comes after."""

    __slots__ = ("backlog", "send", "source", "waiting")

    def __init__(self, source: Source, send: Callable[[list[Buffer], int], None]) -> None:
        self.source = source
        self.send = send  # (buffers, UPDATE messages in them)
        self.backlog: Iterator[tuple[bytes, int]] | None = None
        self.waiting: list[tuple[list[Buffer], int]] = []

    def tell(self, buffers: list[Buffer], count: int) -> None:
        if self.backlog is None:
            self.send(buffers, count)
        else:
            self.waiting.append((buffers, count))

    def advance(self) -> bool:
        """Send one more piece of the backlog; True if there is more to come."""
        if self.backlog is not None:
            piece = next(self.backlog, None)
            if piece is not None:
                self.send([piece[0]], piece[1])
                return True
            self.backlog = None
            waiting, self.waiting = self.waiting, []
            for buffers, count in waiting:
                self.send(buffers, count)
        return False


class UpdateGroup:
    def __init__(self, rules: ExportRules, too_large: Callable[[Path], None]) -> None:
        self.rules = rules
        self.members: dict[Source, Member] = {}
        self._too_large = too_large
        self.told_counts: dict[Family, tuple[int, dict[Source, int]]] = {}  # an earlier count, with the table's version
        own = dict(rules.own_addresses)
        self._own: dict[Family, Address] = {}
        for family in rules.families:
            other = next((address for kind, address in own.items() if kind is not family), b"")
            self._own[family] = own.get(family) or (other if family in rules.extended_next_hop else b"")
        self._local_pref = b"\x40\x05\x04" + rules.default_local_pref.to_bytes(4, "big")
        # By (path, family, id of the setting, which lives as long as the policy); two generations bound it.
        self._young: dict[tuple[Path, Family, int], Block | None] = {}
        self._old: dict[tuple[Path, Family, int], Block | None] = {}

    # --- what may leave, and how ------------------------------------------------------------------------------------

    def parts(self, family: Family, path: Path | None, nlris: list[Nlri]) -> list[tuple[Block | None, list[Nlri]]]:
        """The prefixes of a best path, by what members are told of them; None: nothing."""
        policy = self.rules.policy
        if path is None or policy.rejects_all or family not in self.rules.families:
            return [(None, nlris)]
        if policy.accepts_all:
            return [(self._block(path, family, EMPTY_SETTING), nlris)]
        if not policy.needs_prefix:
            return [(self._block(path, family, policy.judge(PathView(path), None, family)), nlris)]
        found = policy.judge_all(PathView(path), family, nlris)
        return [(self._block(path, family, verdict), run) for verdict, run in found]

    def _block(self, path: Path, family: Family, setting: RouteSetting | None) -> Block | None:
        if setting is None:
            return None
        key = (path, family, id(setting))
        young = self._young
        if key in young:
            return young[key]
        block = self._old[key] if key in self._old else self._made(path, family, setting)
        if len(young) >= _CACHE_LIMIT:
            self._old, self._young = young, {}
        self._young[key] = block
        return block

    def _made(self, path: Path, family: Family, setting: RouteSetting) -> Block | None:
        rules, source, attributes = self.rules, path.source, path.attributes
        if not self._may_leave(path):
            return None
        next_hop = self._next_hop(path, family, setting)
        if not next_hop:
            return None
        block = self._patched(path, family, setting, next_hop) or rewrite.outgoing(
            attributes,
            setting,
            family=family,
            next_hop=next_hop,
            is_ebgp=rules.is_ebgp,
            local_asn=rules.local_asn,
            is_local=source.is_local,
            default_local_pref=rules.default_local_pref,
            four_octet_asn=rules.four_octet_asn,
            graceful_shutdown=rules.graceful_shutdown,
        )
        if not update.fits(family, block[0], block[1], rules.max_octets):
            self._too_large(path)
            return None
        return block

    def _may_leave(self, path: Path) -> bool:
        """What no policy can allow: internal to internal, and the well-known communities of RFC 1997."""
        rules, attributes = self.rules, path.attributes
        if path.source.kind == "ibgp" and not rules.is_ebgp:
            return False  # RFC 4271 §9.2: that is what reflectors are for
        if b"\xff\xff\xff" not in attributes.block:
            return True
        communities = attributes.fields.communities
        if rewrite.has_community(communities, rewrite.NO_ADVERTISE):
            return False
        return not rules.is_ebgp or not (
            rewrite.has_community(communities, rewrite.NO_EXPORT)
            or rewrite.has_community(communities, rewrite.NO_EXPORT_SUBCONFED)
        )

    def count_told(self, family: Family, rib: LocRib) -> dict[Source, int]:
        """How many prefixes members are told, by whose they are; without encoding anything."""
        policy = self.rules.policy
        counts: dict[Source, int] = {}
        if policy.rejects_all:
            return counts
        if policy.needs_prefix:
            told = (
                (
                    path,
                    sum(
                        len(run)
                        for verdict, run in policy.judge_all(PathView(path), family, nlris)
                        if verdict is not None
                    ),
                )
                for path, nlris in rib.by_best().items()
                if self._may_leave(path)
            )
        else:
            told = (
                (path, count)
                for path, count in rib.count_by_best().items()
                if self._may_leave(path)
                and (policy.accepts_all or policy.judge(PathView(path), None, family) is not None)
            )
        for path, count in told:
            counts[path.source] = counts.get(path.source, 0) + count
        return counts

    def _patched(self, path: Path, family: Family, setting: RouteSetting, next_hop: Address) -> Block | None:
        """The commonest case by patching bytes: an external route goes on to an internal peer, LOCAL_PREF put in."""
        rules, attributes = self.rules, path.attributes
        if (
            rules.is_ebgp
            or setting is not EMPTY_SETTING
            or rules.graceful_shutdown
            or not rules.four_octet_asn
            or family is not IPV4
            or len(next_hop) != 4
            or next_hop != attributes.next_hop
            or attributes.seen >> 3 & 1 == 0
        ):
            return None
        block = attributes.block
        if attributes.seen >> 5 & 1:
            return block, b""
        at = 0
        while at < len(block) and block[at + 1] < 5:
            at += 4 + (block[at + 2] << 8 | block[at + 3]) if block[at] & 0x10 else 3 + block[at + 2]
        return block[:at] + self._local_pref + block[at:], b""

    def _next_hop(self, path: Path, family: Family, setting: RouteSetting) -> Address:
        """Packed, or b'' if there is none that this peer could use."""
        rules = self.rules
        wanted = setting.next_hop or rules.next_hop
        if isinstance(wanted, bytes):
            return wanted if self._usable(family, wanted) else b""
        if wanted == "auto":
            wanted = "self" if rules.is_ebgp else "keep"
        if wanted == "keep" and not path.source.is_local:
            kept = path.attributes.next_hop
            if self._usable(family, kept):
                # A link-local next hop means nothing beyond the link that it came from (RFC 2545 §3).
                return kept[:16]
        return self._own[family]

    def _usable(self, family: Family, next_hop: Address) -> bool:
        if next_hop[:2] == b"\xfe\x80":
            return False
        return (len(next_hop) == 4) is (family is IPV4) or (bool(next_hop) and family in self.rules.extended_next_hop)

    # --- telling ----------------------------------------------------------------------------------------------------

    def flush(self, family: Family, log: list[Change]) -> None:
        """Tell all members what changed, in order, with one set of bytes."""
        if not self.members or family not in self.rules.families:
            return
        shared = _Shared()
        members = self.members
        only = next(iter(members)) if len(members) == 1 else None
        for now, was, nlris in log:
            owner = now.source if now is not None and now.source in members else None
            was_owner = was.source if was is not None and was.source in members else None
            for block, run in self.parts(family, now, nlris):
                if block is not None:
                    if owner is None or owner is not only:
                        shared.add(self._announce(family, block, run), owner)
                    if owner is not None and was is not None and was_owner is not owner:
                        shared.add_private(owner, self._withdraw(family, self._told(family, was, run)))
                elif was is not None:
                    gone = self._told(family, was, run)
                    if gone and was_owner is not None and was_owner is only:
                        continue
                    shared.add(self._withdraw(family, gone), was_owner)
        shared.deliver(members)

    def _told(self, family: Family, was: Path, nlris: list[Nlri]) -> list[Nlri]:
        """Of these prefixes, those that members had been told."""
        told: list[Nlri] = []
        for block, run in self.parts(family, was, nlris):
            if block is not None:
                told.extend(run)
        return told

    def _announce(self, family: Family, block: Block, nlris: list[Nlri]) -> list[bytes]:
        attributes, next_hop = block
        if not next_hop:
            run = b"".join(nlris)
            size = 23 + len(attributes) + len(run)
            if size <= self.rules.max_octets:
                return [update.header(size) + b"\0\0" + len(attributes).to_bytes(2, "big") + attributes + run]
        return list(update.announcements(family, attributes, next_hop, nlris, self.rules.max_octets))

    def _withdraw(self, family: Family, nlris: list[Nlri]) -> list[bytes]:
        return list(update.withdrawals(family, nlris, self.rules.max_octets)) if nlris else []

    def table(self, family: Family, rib: LocRib, member: Source) -> Iterator[tuple[bytes, int]]:
        """All that a member is to be told now, in pieces of bounded size, with the number of messages in each.

        The table is read at the first piece; what changes later comes by `flush`.
        """
        pieces: list[bytes] = []
        size = 0
        for path, nlris in rib.by_best().items():
            if path.source is member:
                continue
            for block, run in self.parts(family, path, nlris):
                if block is not None:
                    messages = self._announce(family, block, run)
                    pieces += messages
                    size += sum(map(len, messages))
            if size >= _CHUNK_OCTETS:
                yield b"".join(pieces), len(pieces)
                pieces, size = [], 0
        if pieces:
            yield b"".join(pieces), len(pieces)

    def difference(
        self, before: UpdateGroup, family: Family, rib: LocRib, member: Source
    ) -> Iterator[tuple[bytes, int]]:
        """What a member that moves here from another group must be told: only what differs."""
        for path, nlris in rib.by_best().items():
            if path.source is member:
                continue
            old = {nlri: block for block, run in before.parts(family, path, nlris) for nlri in run}
            messages: list[bytes] = []
            for block, run in self.parts(family, path, nlris):
                changed = [nlri for nlri in run if old[nlri] != block]
                if block is not None and changed:
                    messages += self._announce(family, block, changed)
                elif changed:
                    messages += self._withdraw(family, changed)
            if messages:
                yield b"".join(messages), len(messages)


class _Shared:
    """Messages of one flush: one run of bytes for all, with the slices that single members skip or get alone."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._size = 0
        # member → (start, end, count of messages, what it gets instead)
        self._special: dict[Source, list[tuple[int, int, int, list[bytes]]]] = {}

    def add(self, messages: Iterable[bytes], skipped_by: Source | None) -> None:
        start, count = self._size, len(self._messages)
        for message in messages:
            self._messages.append(message)
            self._size += len(message)
        if skipped_by is not None and self._size > start:
            self._special.setdefault(skipped_by, []).append((start, self._size, len(self._messages) - count, []))

    def add_private(self, member: Source, messages: list[bytes]) -> None:
        if messages:
            self._special.setdefault(member, []).append((self._size, self._size, 0, messages))

    def deliver(self, members: dict[Source, Member]) -> None:
        if not self._messages and not self._special:
            return
        whole = b"".join(self._messages)
        count = len(self._messages)
        view = memoryview(whole)
        for source, member in list(members.items()):
            special = self._special.get(source)
            if special is None:
                if whole:
                    member.tell([whole], count)
                continue
            buffers: list[Buffer] = []
            at, left = 0, count
            for start, end, skipped, instead in special:
                if start > at:
                    buffers.append(view[at:start])
                buffers += instead
                left += len(instead) - skipped
                at = end
            if at < len(whole):
                buffers.append(view[at:])
            if buffers:
                member.tell(buffers, left)
