"""The kernel's place at the engine: the FIB adapter and the speaker each want the other first; the seat is there before both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bgp.config import KernelConfig
from bgp.families import Address, Family, Nlri, parse_prefix
from bgp.ports import EventSink, FibRoute, LearnedRoute, Resolution
from bgp.speaker import Speaker
from integration.node.fib_adapter import FibAdapter


class KernelSeat:
    """Fib and NextHopTracker to the speaker, FibListener to the adapter. `speaker` is set before start()."""

    speaker: Speaker

    def __init__(self, config: KernelConfig, events: EventSink) -> None:
        self._adapter = FibAdapter(config, self, events)

    async def start(self) -> None:
        """Raises OSError."""
        await self._adapter.start()

    async def close(self) -> None:
        await self._adapter.close()

    @property
    def left(self) -> int:
        return self._adapter.left

    def freeze(self) -> None:
        self._adapter.freeze()

    async def reconfigure(self, config: KernelConfig) -> None:
        """Go on with other rules. Sessions never notice, and no route is missing meanwhile."""
        await self._adapter.reconfigure(config)

    # Fib and NextHopTracker

    def apply(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        self._adapter.apply(family, changes)

    def converged(self) -> None:
        self._adapter.converged()

    def track(self, address: Address) -> Resolution:
        return self._adapter.track(address)

    def forget(self, address: Address) -> None:
        self._adapter.forget(address)

    # FibListener

    def fib_changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None:
        self.speaker.fib_changed(family, announced, withdrawn)

    def next_hops_changed(self, changed: Mapping[Address, Resolution]) -> None:
        self.speaker.next_hops_changed(changed)

    def local_addresses_changed(self, addresses: frozenset[Address]) -> None:
        self.speaker.local_addresses_changed(addresses)

    # For people

    @property
    def counters(self) -> Mapping[str, Any]:
        return self._adapter.counters

    def explain(self, prefix: str) -> Mapping[str, Any]:
        return self._adapter.explain(*parse_prefix(prefix))
