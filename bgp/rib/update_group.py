"""Adj-RIB-Out: peers that must be told the same share one, and one set of bytes.

Nothing is stored per prefix: what a member has been told follows from the best path and the group's rules, which is why
every change carries the best path of before. A member never hears its own paths back; when its path takes the place of
another's that it had been told, it alone is told the withdrawal. Members that do not keep up: `catch_up.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bgp.config import NextHopMode, RouteSetting
from bgp.families import IPV4, Address, Family, Nlri
from bgp.policy.compiled import EMPTY_SETTING, CompiledPolicy
from bgp.ports import Reflection
from bgp.rib import rewrite
from bgp.rib.batch import Batch
from bgp.rib.catch_up import LATE_OCTETS, CatchUp, Member, Piece
from bgp.rib.loc_rib import Change, LocRib
from bgp.rib.path import Path, PathView, Source, best_of
from bgp.wire import update
from bgp.wire.attributes import NEXT_HOP

# What stands before the prefixes in the message's body, and b""; or the attributes, and MP_REACH_NLRI up to its prefixes.
Block = tuple[bytes, bytes]
_CACHE_LIMIT = 32768
_CHUNK_OCTETS = 1 << 18
_Blocks = dict[Path, Block | None]


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
    to_client: bool = False
    reflection: Reflection | None = None  # None for external peers too


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
        # Nothing of a set changes but what an internal session asks for: LOCAL_PREF, or what RFC 4456 adds.
        self._leaves_sets_alone = (
            not rules.is_ebgp
            and rules.four_octet_asn
            and not rules.graceful_shutdown
            and rules.next_hop in ("auto", "keep")
        )
        # By family and id of the setting, which lives as long as the policy; two generations bound it.
        self._young: dict[tuple[Family, int], _Blocks] = {}
        self._old: dict[tuple[Family, int], _Blocks] = {}
        self._young_count = 0
        self.catch_up = CatchUp(self.now)
        self._snapshots: dict[Family, tuple[int, _Pieces]] = {}  # with the table's version

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
        young = self._blocks(family, setting)
        return young[path] if path in young else self._first_sight(path, family, setting, young)

    def _blocks(self, family: Family, setting: RouteSetting) -> _Blocks:
        return self._young.setdefault((family, id(setting)), {})

    def _first_sight(self, path: Path, family: Family, setting: RouteSetting, young: _Blocks) -> Block | None:
        old = self._old.get((family, id(setting)), young)
        block = young[path] = old[path] if path in old else self._made(path, family, setting)
        self._young_count += 1
        if self._young_count >= _CACHE_LIMIT:
            self._old, self._young, self._young_count = self._young, {}, 0
        return block

    def _made(self, path: Path, family: Family, setting: RouteSetting) -> Block | None:
        rules, source, attributes = self.rules, path.source, path.attributes
        reflection = rules.reflection if source.kind == "ibgp" else None
        block, next_hop, added = attributes.block, b"", b""
        at = attributes.reflect_at if reflection else attributes.local_pref_at if source.kind == "ebgp" else 0
        if (
            at
            and self._leaves_sets_alone
            and setting is EMPTY_SETTING
            and (block.startswith(b"\x40\x03", block[6] + 7) or self._usable(family, next_hop := attributes.next_hop))
            and b"\xff\xff\xff" not in block
            and (not reflection or reflection.passes(from_client=source.is_client, to_client=rules.to_client))
        ):
            # The usual set; NEXT_HOP stands behind AS_PATH unless it came in MP_REACH_NLRI.
            added = reflection.added(source.router_id) if reflection else self._local_pref
            block, next_hop = block[:at] + added + block[at:], next_hop[:16]
        elif not self._may_leave(path) or not (next_hop := self._next_hop(path, family, setting)):
            return None
        elif (
            reflection
            and self._leaves_sets_alone
            and setting is EMPTY_SETTING
            and next_hop == attributes.next_hop
            and (is_classic := family is IPV4 and len(next_hop) == 4) == bool(attributes.seen >> NEXT_HOP & 1)
        ):
            next_hop = b"" if is_classic else next_hop
        else:
            block, next_hop = rewrite.outgoing(
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
        if reflection and not added:
            block = reflection.reflected(block, source.router_id)
        if not update.fits(family, block, next_hop, rules.max_octets):
            self._too_large(path)
            return None
        if next_hop:
            return block, update.reach(family, next_hop)
        return b"\0\0" + len(block).to_bytes(2, "big") + block, b""

    def _may_leave(self, path: Path) -> bool:
        """What no policy can allow: internal to internal, and the well-known communities of RFC 1997."""
        rules, source, attributes = self.rules, path.source, path.attributes
        if source.kind == "ibgp" and not rules.is_ebgp:
            reflection = rules.reflection  # None: RFC 4271 §9.2
            if reflection is None or not reflection.passes(from_client=source.is_client, to_client=rules.to_client):
                return False
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

    def join(self, member: Member) -> None:
        self.members[member.source] = member

    def leave(self, member: Member) -> None:
        self.members.pop(member.source, None)
        self.catch_up.forget(member)
        if not self.catch_up.late:
            self._snapshots.clear()

    def send_later(self, member: Member, pieces: Iterator[Piece]) -> None:
        """It is told nothing else until it has these."""
        self.catch_up.hold(member)
        member.transfers.append(pieces)

    def advance(self, member: Member, ribs: Mapping[Family, LocRib]) -> bool:
        """See CatchUp.advance."""
        more = self.catch_up.advance(member, ribs)
        if not self.catch_up.late:
            self._snapshots.clear()
        return more

    def flush(self, family: Family, log: list[Change], rib: LocRib) -> None:
        """Tell all members what changed, in order, with one set of bytes; those that are late later."""
        if not self.members or family not in self.rules.families:
            return
        late = self.catch_up.late
        self.catch_up.note(family, log, rib)
        members = {s: m for s, m in self.members.items() if m.cursor is None} if late else dict(self.members)
        if not members:
            return
        shared = Batch()
        headers, max_octets = update.HEADERS, min(self.rules.max_octets, 4096)
        only = next(iter(members)) if len(members) == 1 else None
        accepts_all = self.rules.policy.accepts_all
        young = self._blocks(family, EMPTY_SETTING)
        gone: list[Nlri] = []  # for all members; leaves before what is announced behind it
        for now, was, nlris in log:
            owner = now.source if now is not None and now.source in members else None
            if accepts_all and now is not None:
                block = young[now] if now in young else self._first_sight(now, family, EMPTY_SETTING, young)
                parts = [(block, nlris)]
            else:
                parts = self.parts(family, now, nlris)
            for block, run in parts:
                if block is not None:
                    if gone:
                        shared.add(self._withdraw(family, gone))
                        gone = []
                    if owner is None or owner is not only:
                        head, reach = block
                        octets = b"".join(run)
                        if reach:
                            head, octets = update.multiprotocol(head, reach, octets)
                        size = update.HEADER_OCTETS + len(head) + len(octets)
                        if size <= max_octets:  # nearly always, and once an UPDATE: no call for it
                            if owner is not None:
                                shared.skip(owner, size)
                            shared.parts += (headers[size], head, octets)
                            shared.size += size
                            shared.count += 1
                        else:
                            shared.add(self._announce(family, block, run), owner)
                    if owner is not None and was is not None and was.source is not owner:
                        shared.add_private(owner, self._withdraw(family, self._told(family, was, run)))
                elif was is not None:
                    told = self._told(family, was, run)
                    was_owner = was.source if was.source in members else None
                    if was_owner is None:
                        gone += told
                    elif was_owner is not only:
                        shared.add(self._withdraw(family, told), was_owner)
        if gone:
            shared.add(self._withdraw(family, gone))
        for source, member in members.items():
            buffers, count = shared.buffers_for(source)
            if buffers and member.tell(buffers, count) > LATE_OCTETS:
                self.catch_up.hold(member)

    def _told(self, family: Family, was: Path, nlris: list[Nlri]) -> list[Nlri]:
        """Of these prefixes, those that members had been told."""
        told: list[Nlri] = []
        for block, run in self.parts(family, was, nlris):
            if block is not None:
                told.extend(run)
        return told

    def _announce(self, family: Family, block: Block, nlris: list[Nlri]) -> list[bytes]:
        attributes, reach = block
        if not reach:
            attributes = attributes[4:]
        return list(update.announcements(family, attributes, reach[4:-1], nlris, self.rules.max_octets))

    def _withdraw(self, family: Family, nlris: list[Nlri]) -> list[bytes]:
        return list(update.withdrawals(family, nlris, self.rules.max_octets)) if nlris else []

    def table(self, family: Family, rib: LocRib, member: Source, *, is_first: bool = False) -> Iterator[Piece]:
        """All that a member is to be told now, in pieces of bounded size. `is_first`: it has not been told anything yet.

        The table is read at the first piece; what changes later comes by `flush`. Members that begin while it stays the
        same share the bytes.
        """
        version, pieces = self._snapshots.get(family, (-1, _Pieces(iter(()))))
        if version != rib.version or rib.log:
            pieces = _Pieces(self._batches(family, rib.by_best()))
            self._snapshots[family] = rib.version, pieces
        if is_first:
            self.catch_up.table_is_read(member, family)
        for batch in pieces:
            yield batch.buffers_for(member)

    def _batches(self, family: Family, runs: dict[Path, list[Nlri]]) -> Iterator[Batch]:
        batch = Batch()
        for path, nlris in runs.items():
            for block, run in self.parts(family, path, nlris):
                if block is not None:
                    batch.add(self._announce(family, block, run), path.source)
            if batch.size >= _CHUNK_OCTETS:
                yield batch
                batch = Batch()
        if batch.size:
            yield batch

    def now(self, family: Family, rib: LocRib, nlris: list[Nlri], member: Source) -> list[bytes]:
        """How these prefixes stand for a member, whatever it was told before."""
        get = rib.table.get
        runs: dict[Path | None, list[Nlri]] = {}
        for nlri in nlris:
            best = best_of(get(nlri))
            runs.setdefault(None if best is not None and best.source is member else best, []).append(nlri)
        gone = runs.pop(None, [])
        messages: list[bytes] = []
        for path, some in runs.items():
            for block, run in self.parts(family, path, some):
                if block is None:
                    gone = gone + run
                else:
                    messages += self._announce(family, block, run)
        return self._withdraw(family, gone) + messages

    def difference(self, before: UpdateGroup, family: Family, rib: LocRib, member: Source) -> Iterator[Piece]:
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
                yield [b"".join(messages)], len(messages)


class _Pieces:
    """Made as the first of its readers comes to them, kept for the others."""

    def __init__(self, source: Iterator[Batch]) -> None:
        self._source = source
        self._made: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        at = 0
        while at < len(self._made) or self._make():
            yield self._made[at]
            at += 1

    def _make(self) -> bool:
        batch = next(self._source, None)
        if batch is not None:
            self._made.append(batch)
        return batch is not None


def end_of_rib_piece(family: Family) -> Piece:
    return [update.end_of_rib(family)], 1
