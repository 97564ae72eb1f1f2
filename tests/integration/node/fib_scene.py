"""A node in a namespace with an adapter on it, and a listener and an event sink that remember."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any

from bgp.config import KernelConfig
from bgp.families import IPV4, IPV6, Address, Family, Nlri, address_text, parse_address, parse_prefix
from bgp.ports import FibRoute, LearnedRoute, NextHop, Resolution
from integration.node.fib_adapter import FibAdapter
from tests.netns import Namespace, network_namespace, wire

DEADLINE_S = 10.0


class Listener:
    def __init__(self) -> None:
        self.learned: dict[Family, dict[Nlri, LearnedRoute]] = {IPV4: {}, IPV6: {}}
        self.calls: list[tuple[int, int]] = []  # announced and withdrawn, how many
        self.resolutions: dict[Address, Resolution] = {}
        self.addresses: frozenset[Address] = frozenset()

    def fib_changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None:
        announced, withdrawn = list(announced), list(withdrawn)
        self.calls.append((len(announced), len(withdrawn)))
        self.learned[family].update(announced)
        for prefix in withdrawn:
            del self.learned[family][prefix]  # KeyError: withdrawn what was never announced

    def next_hops_changed(self, changed: Mapping[Address, Resolution]) -> None:
        self.resolutions.update(changed)

    def local_addresses_changed(self, addresses: frozenset[Address]) -> None:
        self.addresses = addresses

    def has(self, text: str) -> bool:
        family, prefix = parse_prefix(text)
        return prefix in self.learned[family]


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        self.told.append((name, fields))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for told, fields in self.told if told == name]


class Scene:
    """eth0 has 10.9.0.1/24 and fd09::1/64, eth1 has 10.8.0.1/24 and fd08::1/64; the other ends are p0 and p1."""

    def __init__(self, node: Namespace) -> None:
        self.node = node
        self.listener = Listener()
        self.events = Events()
        self.adapter: FibAdapter
        self.eth0, self.eth1 = node.ifindex("eth0"), node.ifindex("eth1")

    @contextlib.asynccontextmanager
    async def running(self, config: KernelConfig | None = None, **options: Any) -> AsyncIterator[FibAdapter]:
        """An adapter, closed as a killed process would leave it: nothing removed."""
        self.listener, self.events = Listener(), Events()
        self.adapter = FibAdapter(
            config or KernelConfig(), self.listener, self.events, netlink=self.node.netlink, **options
        )
        await self.adapter.start()
        try:
            yield self.adapter
        finally:
            await self.adapter.close(remove=False)

    def want(self, routes: Mapping[str, FibRoute | None]) -> None:
        by_family: dict[Family, dict[Nlri, FibRoute | None]] = {}
        for text, route in routes.items():
            family, prefix = parse_prefix(text)
            by_family.setdefault(family, {})[prefix] = route
        for family, changes in by_family.items():
            self.adapter.apply(family, changes)

    def via(self, *gateways: str, on_link: bool = False) -> FibRoute:
        """Gateways in 10.9/fd09 and fe80 are over eth0, those in 10.8/fd08 over eth1."""
        hops = [
            NextHop(parse_address(text), self.eth1 if text.startswith(("10.8.", "fd08:")) else self.eth0, on_link)
            for text in gateways
        ]
        return FibRoute(tuple(hops))

    def ours(self, family: int = 4, protocol: str = "bird") -> dict[str, dict[str, Any]]:
        """Our routes as `ip` shows them, by prefix."""
        return {row["dst"]: row for row in self.node.ip_json(f"-{family} route show proto {protocol}")}

    def foreign(self) -> str:
        """Everybody else's, word for word."""
        rows = self.node.ip_json("-4 -d route show table all") + self.node.ip_json("-6 -d route show table all")
        return repr([row for row in rows if row.get("protocol") != "bird"])

    async def until(self, holds: Callable[[], object], why: str = "") -> None:
        """Wait for it, and fail when it does not come."""
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline, (
                f"{why or 'it'} did not come: {self.adapter.counters} {self.events.told}"
            )
            await asyncio.sleep(0.02)

    async def settled(self) -> None:
        """All that was wanted is in the kernel, or was refused."""
        await self.until(lambda: not self.adapter.has_work, "an end of writing")

    def is_reachable(self, text: str) -> bool | None:
        """What the listener was last told of a next hop; None: nothing."""
        resolution = self.listener.resolutions.get(parse_address(text))
        return resolution.reachable if resolution is not None else None

    def resolved(self, text: str) -> list[str]:
        """The gateways that the listener was last told for a next hop."""
        resolution = self.listener.resolutions.get(parse_address(text))
        return [address_text(hop.address) for hop in resolution.hops] if resolution is not None else []


def play(scenario: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    """Run it in a fresh namespace."""
    with network_namespace() as node:
        wire(node, "eth0", node, "p0")
        wire(node, "eth1", node, "p1")
        node.ip_batch(
            "address add 10.9.0.1/24 dev eth0\naddress add fd09::1/64 dev eth0\n"
            "address add 10.8.0.1/24 dev eth1\naddress add fd08::1/64 dev eth1\n"
        )
        asyncio.run(scenario(Scene(node)))
