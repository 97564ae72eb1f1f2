"""A node in a network namespace whose programmers are told of its interfaces when the test says so: nothing is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeVar

from felix.dataplane.routes import RouteProgrammer
from felix.desired import Message
from felix.ports import Failure
from tests.netns import Namespace


class Part(Protocol):
    def on_message(self, message: Message) -> None: ...
    async def apply(self, now: float) -> list[Failure]: ...
    async def check(self) -> list[str]: ...
    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None: ...


P = TypeVar("P", bound=Part)


class Node:
    """`parts` apply in their order, as in the dataplane's loop."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.parts: list[Part] = []
        self.now = 1000.0
        self._told: dict[int, str] = {}

    def add(self, make: Callable[[], P]) -> P:
        part = self.namespace.call(make)
        self.parts.append(part)
        return part

    def restart(self) -> None:
        """The next parts are a new process's: they know nothing."""
        self.parts.clear()
        self._told.clear()

    def tell(self, messages: Iterable[Message]) -> None:
        for message in messages:
            for part in self.parts:
                part.on_message(message)

    def look(self) -> None:
        """What the interface monitor would have told by now."""
        there: dict[int, str] = {}
        for link in self.namespace.ip_json("address"):
            index, name = link["ifindex"], link["ifname"]
            there[index] = name
            addresses = frozenset(one["local"] for one in link["addr_info"] if "local" in one)
            state: Literal["up", "down"] = "up" if {"UP", "LOWER_UP"} <= set(link["flags"]) else "down"
            self._tell_interface(name, state, addresses, index)
        for index, name in self._told.items():
            if there.get(index) != name and name not in there.values():
                self._tell_interface(name, "gone", frozenset(), index)
        self._told = there

    def _tell_interface(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], index: int
    ) -> None:
        for part in self.parts:
            part.interface_changed(name, state, addresses, index)

    def apply(self, messages: Iterable[Message] = ()) -> list[Failure]:
        """Messages, then every part, twice: a device that one made is the next one's way out."""
        self.tell(messages)
        for _ in range(2):
            self.look()
            failures: list[Failure] = []
            for part in self.parts:
                failures += asyncio.run(self._applied(part))
        return failures

    async def _applied(self, part: Part) -> list[Failure]:
        failures = await part.apply(self.now)
        if isinstance(part, RouteProgrammer):
            await part.forgetting.done()
        return failures

    def check(self) -> list[str]:
        self.look()
        return [text for part in self.parts for text in asyncio.run(part.check())]
