"""Members of an update group that are not told at once: they are being sent a table, or do not take what they are sent.

One log for all of them, of which prefixes changed, with a cursor per member. A member that comes to an entry is told how
things stand then, so that whatever was superseded while it waited costs nothing, and one that never reads holds up nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bgp.families import Family, Nlri
from bgp.rib.batch import Buffer
from bgp.rib.loc_rib import Change, LocRib
from bgp.rib.path import Source

Piece = tuple[list[Buffer], int]  # buffers, UPDATE messages in them
LATE_OCTETS = 1 << 22  # so much unsent in a connection: the member is late
_PIECE_PREFIXES = 5000
_PIECES_A_TURN = 4
_LOG_PREFIXES = 200_000  # in the log, before it is looked through for what it says twice


class Member:
    """One Established peer. `send` returns how many octets wait in its connection; `transfers` are tables being sent.

    `is_blocked`: something waits there; whoever owns the connection clears it.
    """

    __slots__ = ("_send", "cursor", "is_blocked", "news_from", "source", "transfers")

    def __init__(self, source: Source, send: Callable[[list[Buffer], int], int]) -> None:
        self.source = source
        self._send = send
        self.is_blocked = False
        self.transfers: list[Iterator[Piece]] = []  # few; a deque takes 600 octets empty
        self.cursor: int | None = None  # None: told at once
        self.news_from: dict[Family, int] = {}  # what the log says before this position was in the table it was sent

    def tell(self, buffers: list[Buffer], count: int) -> int:
        waiting = self._send(buffers, count)
        self.is_blocked = waiting > 0
        return waiting

    @property
    def is_late(self) -> bool:
        return self.cursor is not None


class CatchUp:
    """`now`: how things stand for a member, as messages; the group's business."""

    def __init__(self, now: Callable[[Family, LocRib, list[Nlri], Source], list[bytes]]) -> None:
        self.late: dict[Source, Member] = {}
        self._now = now
        self._log: list[tuple[Family, list[Nlri]]] = []
        self._begin = 0  # the position of the log's first entry
        self._prefixes = 0

    def hold(self, member: Member) -> None:
        """From here on it is not told at once."""
        if member.cursor is None:
            member.cursor = self._begin + len(self._log)
            self.late[member.source] = member

    def forget(self, member: Member) -> None:
        self.late.pop(member.source, None)
        member.cursor = None
        member.news_from.clear()
        self._trim()

    def table_is_read(self, source: Source, family: Family) -> None:
        """A member that knows nothing is sent the table as it is now: the log up to here is no news to it."""
        if source in self.late:
            self.late[source].news_from[family] = self._begin + len(self._log)

    def note(self, family: Family, log: list[Change], rib: LocRib) -> None:
        """What changed, for those that are late."""
        if self.late:
            for _, _, nlris in log:
                self._log.append((family, nlris))
                self._prefixes += len(nlris)
            if self._prefixes > max(_LOG_PREFIXES, 2 * len(rib.table)):
                self.compact()

    def missed(self, member: Member) -> list[tuple[Family, list[Nlri]]]:
        return [] if member.cursor is None else self._log[member.cursor - self._begin :]

    def put_back(self, member: Member, missed: list[tuple[Family, list[Nlri]]]) -> None:
        """It comes from another group, where it had not been told of these."""
        self.hold(member)
        self._log += missed
        self._prefixes += sum(len(nlris) for _, nlris in missed)

    def advance(self, member: Member, ribs: Mapping[Family, LocRib]) -> bool:
        """Send a bounded part of what it lacks. True: call again soon. False: it is up to date, or its connection is full.

        What is in the tables' logs must have been noted here.
        """
        buffers: list[Buffer] = []
        count = 0
        for _ in range(0 if member.is_blocked else _PIECES_A_TURN):
            piece = self._next(member, ribs)
            if piece is None:
                self.forget(member)
                break
            buffers += piece[0]
            count += piece[1]
        if buffers:
            member.tell(buffers, count)
        return member.is_late and not member.is_blocked

    def _next(self, member: Member, ribs: Mapping[Family, LocRib]) -> Piece | None:
        while member.transfers:
            piece = next(member.transfers[0], None)
            if piece is not None:
                return piece
            del member.transfers[0]
        if member.cursor is None:
            return None
        at, count = member.cursor - self._begin, 0
        if at >= len(self._log):
            return None
        wanted: dict[Family, dict[Nlri, None]] = {}
        while at < len(self._log) and count < _PIECE_PREFIXES:
            family, nlris = self._log[at]
            at += 1
            if self._begin + at <= member.news_from.get(family, 0):
                continue
            wanted.setdefault(family, {}).update(dict.fromkeys(nlris))
            count += len(nlris)
        member.cursor = self._begin + at
        messages = [
            message
            for family, nlris in wanted.items()
            for message in self._now(family, ribs[family], list(nlris), member.source)
        ]
        return ([b"".join(messages)] if messages else [], len(messages))

    def _trim(self) -> None:
        """Drop what no late member needs; not each time, or it would cost the square of their number."""
        if not self.late:
            self._begin += len(self._log)
            self._log, self._prefixes = [], 0

    def compact(self) -> None:
        """Every prefix once, each late member at the beginning: it is told some things twice at worst."""
        cursors = [member.cursor for member in self.late.values() if member.cursor is not None]
        merged: dict[Family, dict[Nlri, None]] = {}
        for family, nlris in self._log[min(cursors) - self._begin :]:
            merged.setdefault(family, {}).update(dict.fromkeys(nlris))
        self._begin += len(self._log)
        self._log, self._prefixes = [], 0
        for family, unique in merged.items():
            run = list(unique)
            self._log += [(family, run[at : at + 1000]) for at in range(0, len(run), 1000)]
            self._prefixes += len(run)
        for member in self.late.values():
            member.cursor = self._begin
