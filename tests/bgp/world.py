"""Several speakers in one process, joined by wires without sockets: time and bytes move when the test says so."""

from __future__ import annotations

import random
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
        self.world.queue.append(lambda: self.world.connect(self, session, config.address.packed))

    def send(self, session: Session, buffers: list[bytes | memoryview]) -> None:
        far = self.far_ends.get(session)
        if far is not None:
            data = b"".join(buffers)
            self.world.queue.append(lambda: far[0].hear(far[1], data))
            self.world.queue.append(lambda: self.speaker.drained(session, self.world.now))

    def hear(self, session: Session, data: bytes) -> None:
        if session in self.far_ends and not self.is_cut:
            self.speaker.receive_data(session, data, self.world.now)

    def close(self, session: Session, abort: bool) -> None:
        far = self.far_ends.pop(session, None)
        if far is not None:
            self.world.queue.append(lambda: far[0].lose(far[1]))

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
    def __init__(self) -> None:
        self.now = 1000.0
        self.nodes: dict[Address, Node] = {}
        self.queue: list[Any] = []

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
        for _ in range(100_000):
            if self.queue:
                self.queue.pop(0)()
                continue
            waiting = [node for node in self.nodes.values() if node.wants_flush]
            if not waiting:
                return
            for node in waiting:
                node.wants_flush = False
                node.speaker.flush(self.now)
        raise AssertionError("the speakers never stop talking")

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
