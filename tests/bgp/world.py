"""Several speakers in one process, joined by wires without sockets: time and bytes move when the test says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from bgp.config import PeerConfig, SpeakerConfig
from bgp.families import Address, Family, family_of
from bgp.session.session import Session
from bgp.speaker import Speaker
from bgp.toml import loads
from reflector.rules import reflection_of


class Told:
    """An EventSink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for kind, fields in self.events if kind == name]


class Node:
    """One speaker at one address. Implements Transport."""

    def __init__(self, world: World, address: str, config: SpeakerConfig, **parts: Any) -> None:
        self.world = world
        self.address = bytes(map(int, address.split(".")))
        self.told = Told()
        self.far_ends: dict[Session, tuple[Node, Session]] = {}
        self.wants_flush = False
        self.is_cut = False
        self.speaker = Speaker(
            config,
            fib=parts.get("fib"),
            next_hops=parts.get("next_hops"),
            events=self.told,
            rng=random.Random(1),
            now=world.now,
            reflection_of=reflection_of,
        )
        self.speaker.transport = self

    def dial(self, session: Session, config: PeerConfig) -> None:
        assert config.address is not None
        to = config.address.packed
        self.world.post(session, lambda: self.world.connect(self, session, to))

    def send(self, session: Session, buffers: list[bytes | memoryview]) -> int:
        far = self.far_ends.get(session)
        if far is not None:
            data = b"".join(buffers)
            self.world.post(far[1], lambda: far[0].hear(far[1], data))
        return 0

    def hear(self, session: Session, data: bytes) -> None:
        if session in self.far_ends and not self.is_cut:
            self.speaker.receive_data(session, data, self.world.now)

    def close(self, session: Session, abort: bool) -> None:
        far = self.far_ends.pop(session, None)
        if far is not None:
            self.world.post(far[1], lambda: far[0].lose(far[1]))

    def lose(self, session: Session) -> None:
        if self.far_ends.pop(session, None) is not None and not self.is_cut:
            self.speaker.connection_lost(session, "closed by the peer", self.world.now)

    def flush_soon(self) -> None:
        self.wants_flush = True

    def own_addresses(self, session: Session) -> dict[Family, Address]:
        from bgp.families import IPV6

        return {family_of(session.local_address): session.local_address, IPV6: b"\xfd" + bytes(14) + self.address[3:]}

    def routes(self, which: str = "best", **options: Any) -> dict[str, dict[str, Any]]:
        """Prefix → the best path (with `peer`: what it received or sent)."""
        found = self.speaker.routes_view(which=which, **options)  # type: ignore[arg-type]
        return {view["prefix"]: view["paths"][0] for view in found if view is not None}

    def state(self, peer: str) -> str:
        view = self.speaker.peer_view(peer, self.world.now)
        assert view is not None
        return str(view["state"])

    def kill(self) -> None:
        """As kill -9 does: the kernel closes the connections, nobody says anything."""
        self.is_cut = True
        self.world.nodes.pop(self.address)
        for session in list(self.far_ends):
            self.close(session, abort=True)


class World:
    """`rng`: who is heard next is drawn by lot, in order on each connection; without it, who spoke first."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.now = 1000.0
        self.rng = rng
        self.nodes: dict[Address, Node] = {}
        self.queue: list[tuple[Session, Callable[[], None]]] = []  # with the session that hears it

    def node(self, address: str, text: str, **parts: Any) -> Node:
        node = Node(self, address, config_of(address, text), **parts)
        self.nodes[node.address] = node
        return node

    def start(self) -> None:
        for node in list(self.nodes.values()):
            node.speaker.start(self.now)
        self.run(1.0)

    def connect(self, node: Node, session: Session, to: Address) -> None:
        far = self.nodes.get(to)
        if node.is_cut or not node.speaker.is_wanted(session):
            return
        accepted = far.speaker.accept(to, node.address, self.now) if far is not None else None
        if far is None or accepted is None:
            node.speaker.connection_failed(session, "Connection refused", self.now)
            return
        node.far_ends[session] = (far, accepted)
        far.far_ends[accepted] = (node, session)
        far.speaker.accepted(accepted)
        node.speaker.connection_made(session, node.address, to, self.now)

    def settle(self) -> None:
        """Until nobody has anything more to say."""
        if not self.steps(100_000):
            raise AssertionError("the speakers never stop talking")

    def steps(self, most: int) -> bool:
        """So many messages at most. True: nobody has anything more to say."""
        for _ in range(most):
            waiting = [node for node in self.nodes.values() if node.wants_flush]
            if self.rng is not None and waiting and self.rng.random() < 0.2:
                waiting = [self.rng.choice(waiting)]  # in the midst of others' messages
            elif self.queue:
                self.queue.pop(0 if self.rng is None else self._lot(self.rng))[1]()
                continue
            elif not waiting:
                return True
            for node in waiting:
                node.wants_flush = False
                node.speaker.flush(self.now)
        return False

    def _lot(self, rng: random.Random) -> int:
        """The first of what waits for a session drawn by lot."""
        drawn, _ = rng.choice(self.queue)
        return next(at for at, (session, _) in enumerate(self.queue) if session is drawn)

    def post(self, session: Session, what: Callable[[], None]) -> None:
        self.queue.append((session, what))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        self.settle()
        while self.now < until:
            self.now += 0.25
            for node in list(self.nodes.values()):
                node.speaker.handle_timer(self.now)
            self.settle()


def config_of(address: str, text: str) -> SpeakerConfig:
    if "[speaker]" not in text:
        text = f'[speaker]\nasn = 64512\nrouter_id = "{address}"\n' + text
    return loads(text, "test.toml")


def peer(number: int, **options: Any) -> str:
    """A [[peer]] called pN at 10.0.0.N."""
    fields = {"name": f"p{number}", "address": f"10.0.0.{number}", "asn": 64512} | options
    lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
    return "[[peer]]\n" + "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if value.startswith(("[", "{")) else f'"{value}"'
    return str(value)


def originate(*prefixes: str, **options: Any) -> str:
    more = "".join(f"{key} = {_toml(value)}\n" for key, value in options.items())
    return "".join(f'[[originate]]\nprefix = "{prefix}"\n{more}' for prefix in prefixes)
