"""The whole engine without sockets or a kernel: a `Speaker` whose transport and FIB only take what they are given."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping
from typing import Any

from bgp.config import ACCEPT_ALL, REJECT_ALL, KernelConfig, PeerConfig, SpeakerConfig
from bgp.families import IPV4, Address, Family, Nlri, parse_address
from bgp.ports import FibRoute
from bgp.session.session import Session
from bgp.speaker import Speaker
from reflector.rules import reflection_of
from tests.bench.bench_peer import KEEPALIVE, BenchPeer

SPEAKER = "127.9.0.1"


class Wire:
    """Keeps what is sent. `is_flush_due`: the speaker has asked for `flush`."""

    def __init__(self) -> None:
        self.sent: dict[Any, list[bytes | memoryview]] = {}
        self.is_flush_due = False

    def dial(self, session: Any, config: Any) -> None: ...

    def send(self, session: Any, buffers: list[bytes | memoryview]) -> int:
        self.sent.setdefault(session, []).extend(buffers)
        return 0

    def close(self, session: Any, abort: bool) -> None: ...

    def flush_soon(self) -> None:
        self.is_flush_due = True

    def own_addresses(self, session: Any) -> dict[Family, Address]:
        return {IPV4: parse_address(SPEAKER)}


class Sink:
    """Both remaining ports: a FIB that counts, and nobody who listens to events."""

    def __init__(self) -> None:
        self.routes = 0

    def apply(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        self.routes += len(changes)

    def converged(self) -> None: ...

    def event(self, name: str, **fields: Any) -> None: ...


class Engine:
    """Senders s1, s2, … (AS 65001, 65002, …, told nothing) and `receivers` iBGP peers, all Established.

    `reflects`: all of them are iBGP peers and clients, told everything.
    """

    def __init__(self, senders: int, receivers: int = 1, *, has_kernel: bool = False, reflects: bool = False) -> None:
        self._reflects = reflects
        peers = [
            PeerConfig(
                name=peer.name,
                address=ipaddress.ip_address(peer.address),
                asn=peer.asn,
                passive=True,
                import_policy=ACCEPT_ALL,
                export_policy=REJECT_ALL if peer.asn != 64512 else ACCEPT_ALL,
                client=reflects,
            )
            for peer in self._peers(senders, receivers)
        ]
        kernel = KernelConfig(learn=()) if has_kernel else None
        config = SpeakerConfig(
            asn=64512, router_id=ipaddress.ip_address("10.255.0.1"), listen=(), peers=tuple(peers), kernel=kernel
        )
        self.wire, self.sink = Wire(), Sink()
        fib = self.sink if has_kernel else None
        self.speaker = Speaker(
            config,
            fib=fib,
            next_hops=None,
            events=self.sink,
            rng=random.Random(1),
            now=0.0,
            reflection_of=reflection_of,
        )
        self.speaker.transport = self.wire
        self.speaker.start(0.0)
        self.sessions = {peer.name: self._establish(peer) for peer in self._peers(senders, receivers)}
        self.flush()

    def _peers(self, senders: int, receivers: int) -> list[BenchPeer]:
        asns = [64512 if self._reflects else 65000 + i for i in range(1, senders + 1)]
        found = [BenchPeer(f"s{i}", f"127.9.1.{i}", asn) for i, asn in enumerate(asns, 1)]
        return found + [BenchPeer(f"r{i}", f"127.9.2.{i}", 64512) for i in range(1, receivers + 1)]

    def _establish(self, peer: BenchPeer) -> Session:
        session = self.speaker.accept(parse_address(SPEAKER), parse_address(peer.address), 0.0)
        assert session is not None
        self.speaker.accepted(session)
        self.speaker.receive_data(session, peer.open_message() + KEEPALIVE, 0.0)
        assert session.parser is not None, f"{peer.name} is not Established"
        return session

    def feed(self, name: str, data: bytes) -> None:
        self.speaker.receive_data(self.sessions[name], data, 1.0)

    def flush(self) -> None:
        self.wire.is_flush_due = False
        self.speaker.flush(1.0)

    def sent_to(self, name: str) -> bytes:
        return b"".join(self.wire.sent.get(self.sessions[name], []))
