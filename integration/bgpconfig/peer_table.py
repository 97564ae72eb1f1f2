"""All wanted peers of a node, by what wants them, and of several for one address and port the one that is had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bgp.families import IPAddress
from integration.bgpconfig.peers import PeerFacts, Record
from integration.bgpconfig.problems import Problem
from integration.bgpconfig.sessions import Policies, Session, Sessions

Cell = tuple[str, str, str]
"""BGPPeer or empty (the mesh), what the other end is, and its name: whose change makes the records anew."""
End = tuple[IPAddress, int]


class PeerTable:
    def __init__(self) -> None:
        self._records: dict[Cell, tuple[Record, ...]] = {}
        self._cells: dict[str, set[Cell]] = {}  # by BGPPeer
        self._wanted: dict[End, dict[Cell, Record]] = {}
        self._stale: set[End] = set()
        self._sessions: dict[End, Session] = {}
        self._in_order: list[Session] | None = None

    def put(self, cell: Cell, records: Iterable[Record]) -> None:
        """These are the records of the cell now."""
        after = tuple(records)
        before = self._records.get(cell, ())
        if before == after:
            return
        for record in before:
            wanted = self._wanted[record.end]
            wanted.pop(cell, None)
            self._stale.add(record.end)
        for record in after:
            self._wanted.setdefault(record.end, {})[cell] = record
            self._stale.add(record.end)
        if after:
            self._records[cell] = after
            self._cells.setdefault(cell[0], set()).add(cell)
        elif before:
            del self._records[cell]
            self._cells[cell[0]].discard(cell)

    def forget(self, peer: str, what: str = "") -> None:
        """The BGPPeer (its cells of one kind) wants nobody any more, for now."""
        for cell in list(self._cells.get(peer, ())):
            if not what or cell[1] == what:
                self.put(cell, ())

    def policies_in_use(self) -> set[tuple[int, tuple[str, ...]]]:
        return {(end[0].version, session.record.filters) for end, session in self._sessions.items()}

    def settle(self, sessions: Sessions) -> None:
        """Make sessions of what has changed."""
        for end in self._stale:
            wanted = self._wanted.get(end)
            session = sessions.make(min(wanted.values(), key=lambda record: record.rank)) if wanted else None
            if not wanted:
                self._wanted.pop(end, None)
            if session is None:
                if self._sessions.pop(end, None) is not None:
                    self._in_order = None
            else:
                self._sessions[end] = session
                self._in_order = None
        self._stale.clear()

    def remake_all(self) -> None:
        self._stale.update(self._wanted)

    def remake_protected(self) -> None:
        """Sessions with a password."""
        self._stale.update(end for end, one in self._sessions.items() if one.record.password is not None)

    def use(self, policies: Policies) -> None:
        """Other policies for all; those that stay the same stay the same objects."""
        for end, session in self._sessions.items():
            after = session.with_policies(policies)
            if after is not session:
                self._sessions[end] = after
                self._in_order = None

    def in_order(self) -> list[Session]:
        if self._in_order is None:
            self._in_order = sorted(self._sessions.values(), key=lambda session: session.config.name)
        return self._in_order

    def problems(self) -> Iterator[Problem]:
        for session in self._sessions.values():
            yield from session.problems

    def twice(self, peers: Iterable[PeerFacts]) -> Iterator[Problem]:
        """BGPPeers with an address that are not used here, because another one or the mesh has it."""
        for peer in peers:
            for record in self._records.get((peer.key.name, "address", ""), ()):
                session = self._sessions.get(record.end)
                if session is not None and session.record is not record and session.record != record:
                    first = session.record.origin[0]
                    who = "the mesh" if session.record.scope == "Mesh" else str(first)
                    yield Problem(peer.key, "spec.peerIP", f"{who} has this peer already; this one is not used")
