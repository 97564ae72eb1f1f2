"""A node in a network namespace whose programmers are told of its interfaces when the test says so: nothing is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from felix.dataplane.routes import RouteProgrammer
from felix.desired import Message
from felix.ports import Failure
from tests.netns import Namespace, network_namespace, wire


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


@dataclass
class Pods:
    """Two hosts on one wire, 172.16.0.N and fd16::N on eth0, and behind cali1 of each a pod, 10.65.N.2 and fd65:N::2."""

    hosts: dict[int, Namespace]
    pods: dict[int, Namespace]

    def ping(self, one: int, address: str) -> bool:
        return " 0% packet loss" in self.pods[one].run("ping", "-c1", "-W2", address, check=False)


@contextlib.contextmanager
def two_nodes() -> Iterator[Pods]:
    with network_namespace() as a, network_namespace() as b, network_namespace() as pod_a, network_namespace() as pod_b:
        made = Pods({1: a, 2: b}, {1: pod_a, 2: pod_b})
        wire(a, "eth0", b, "eth0")
        for number, host in made.hosts.items():
            host.sysctl("net.ipv4.ip_forward=1")
            host.sysctl("net.ipv6.conf.all.forwarding=1")
            host.ip(f"address add 172.16.0.{number}/24 dev eth0")
            host.ip(f"address add fd16::{number}/64 dev eth0 nodad")
            _lay_pod(host, made.pods[number], number)
        yield made


def _lay_pod(host: Namespace, pod: Namespace, number: int) -> None:
    wire(host, "cali1", pod, "eth0")
    host.ip_batch(
        f"address add 169.254.1.1/32 dev cali1\naddress add fe80::1/64 dev cali1 nodad\n"
        f"route add 10.65.{number}.2 dev cali1 proto 3\nroute add fd65:{number}::2 dev cali1\n"
    )
    pod.ip_batch(
        f"address add 10.65.{number}.2/32 dev eth0\naddress add fd65:{number}::2/128 dev eth0 nodad\n"
        "route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1 dev eth0\nroute add default via fe80::1 dev eth0\n"
    )
