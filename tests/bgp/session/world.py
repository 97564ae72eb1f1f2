"""Two peers and the connections between them, without sockets or clocks: outputs of one are inputs of the other."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bgp.session.negotiation import Negotiated
from bgp.session.outputs import CloseConnection, OpenConnection, Output, SendBytes
from bgp.session.peer import Peer
from bgp.session.session import OnMalformed, Session, UpdateParserProtocol
from bgp.session.settings import SessionSettings

LEFT_ADDRESS, RIGHT_ADDRESS = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
LEFT = SessionSettings(local_asn=65001, peer_asn=65002, router_id=bytes([10, 0, 0, 1]))
RIGHT = SessionSettings(local_asn=65002, peer_asn=65001, router_id=bytes([10, 0, 0, 2]))


class RecordingParser:
    """Stands for bgp.wire.update: every UPDATE body is one change; bodies in `broken` raise what they map to."""

    def __init__(self, broken: dict[bytes, Exception] | None = None, on_malformed: OnMalformed | None = None) -> None:
        self.broken = broken or {}
        self.on_malformed = on_malformed

    def parse(self, data: bytes, start: int, end: int, changes: list[Any]) -> None:
        body = data[start:end]
        if body in self.broken:
            raise self.broken[body]
        changes.append(("update", body))


def make_parser(_: Negotiated, on_malformed: OnMalformed) -> UpdateParserProtocol:
    return RecordingParser(on_malformed=on_malformed)


def make_peer(
    settings: SessionSettings,
    *,
    name: str = "peer",
    seed: int = 1,
    now: float = 0.0,
    parser: Callable[[Negotiated, OnMalformed], UpdateParserProtocol] = make_parser,
    is_restarting: bool = False,
) -> Peer:
    return Peer(settings, name=name, rng=random.Random(seed), now=now, make_parser=parser, is_restarting=is_restarting)


@dataclass(eq=False)
class Connection:
    """`ends`: the session of each side, None before it has one. `queued`: octets on their way to that side."""

    ends: list[Session | None] = field(default_factory=lambda: [None, None])
    queued: list[bytes] = field(default_factory=lambda: [b"", b""])
    is_closed: bool = False


class World:
    """`run` moves what there is to move, at one moment, until nothing moves any more."""

    def __init__(self, left: Peer, right: Peer, now: float = 0.0) -> None:
        self.peers = [left, right]
        self.now = now
        self.connections: list[Connection] = []
        self.dials: list[tuple[int, Session]] = []
        self.seen: list[list[Output]] = [[], []]
        self.reachable = True

    def outputs(self, side: int, kind: type[Any]) -> list[Any]:
        return [output for output in self.seen[side] if isinstance(output, kind)]

    def collect(self) -> bool:
        moved = False
        for side, peer in enumerate(self.peers):
            for output in peer.take_outputs():
                moved = True
                self.seen[side].append(output)
                if isinstance(output, OpenConnection):
                    self.dials.append((side, output.session))
                elif isinstance(output, SendBytes):
                    self._queue(side, output)
                elif isinstance(output, CloseConnection):
                    self._close(side, output.session)
        return moved

    def _of(self, side: int, session: Session) -> Connection | None:
        return next((c for c in self.connections if c.ends[side] is session and not c.is_closed), None)

    def _queue(self, side: int, output: SendBytes) -> None:
        connection = self._of(side, output.session)
        if connection is not None:
            connection.queued[1 - side] += output.data

    def _close(self, side: int, session: Session) -> None:
        self.dials = [dial for dial in self.dials if dial[1] is not session]
        connection = self._of(side, session)
        if connection is not None:
            connection.is_closed = True
            other = connection.ends[1 - side]
            if other is not None:
                if connection.queued[1 - side]:
                    self.peers[1 - side].receive_data(other, connection.queued[1 - side], self.now)
                self.peers[1 - side].connection_lost(other, self.now, "closed by peer")

    def connect(self) -> bool:
        """Let every dial under way come through."""
        dials, self.dials = self.dials, []
        for side, session in dials:
            addresses = (LEFT_ADDRESS, RIGHT_ADDRESS) if side == 0 else (RIGHT_ADDRESS, LEFT_ADDRESS)
            if not self.reachable:
                self.peers[side].connection_failed(session, self.now, "connection refused")
                continue
            connection = Connection()
            connection.ends[side] = session
            self.connections.append(connection)
            self.peers[side].connection_made(session, self.now, *addresses)
            self._accept(connection, 1 - side, addresses)
        return bool(dials)

    def _accept(self, connection: Connection, side: int, addresses: tuple[bytes, bytes]) -> None:
        peer = self.peers[side]
        session = peer.incoming(self.now, addresses[1], addresses[0])
        connection.ends[side] = session

    def deliver(self) -> bool:
        moved = False
        for connection in list(self.connections):
            for side in (0, 1):
                data, connection.queued[side] = connection.queued[side], b""
                session = connection.ends[side]
                if data and session is not None and not connection.is_closed:
                    moved = True
                    self.peers[side].receive_data(session, data, self.now)
        return moved

    def run(self) -> None:
        for _ in range(200):
            moved = self.collect()
            moved |= self.connect()
            moved |= self.collect()
            moved |= self.deliver()
            if not moved:
                return
        raise AssertionError("the two peers never come to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until = self.now + seconds
        while True:
            due = [at for peer in self.peers if (at := peer.next_timer_at()) is not None and at <= until]
            self.now = max(self.now, min(due)) if due else until
            for peer in self.peers:
                peer.handle_timer(self.now)
            self.run()
            if not due:
                return

    def start(self) -> None:
        for peer in self.peers:
            peer.start(self.now)
        self.run()
