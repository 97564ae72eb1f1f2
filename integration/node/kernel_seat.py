"""The kernel's place at the engine: stays while the FIB adapter behind it is changed for one with other rules.

The adapter and the speaker each want the other first; the seat is there before both.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from bgp.config import KernelConfig
from bgp.families import FAMILIES, Address, Family, Nlri, parse_prefix
from bgp.ports import EventSink, FibRoute, LearnedRoute, Resolution
from bgp.speaker import Speaker
from integration.node.fib_adapter import FibAdapter


class KernelSeat:
    """Fib and NextHopTracker to the speaker, FibListener to the adapter. `speaker` is set before start()."""

    speaker: Speaker

    def __init__(self, config: KernelConfig, events: EventSink) -> None:
        self._config = config
        self._events = events
        self._adapter = FibAdapter(config, self, events)
        self._is_open = True  # False: between two adapters, wishes come again to the next one
        self._tracked: set[Address] = set()
        self._learned: dict[Family, set[Nlri]] = {family: set() for family in FAMILIES}

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

    async def replace(self, config: KernelConfig) -> None:
        """Go on with other rules. Sessions never notice, nor do routes that stay. Raises OSError: the old rules stay."""
        if config == self._config:
            return
        before = self._learned
        self._learned = {family: set() for family in FAMILIES}
        self._is_open = False
        try:
            await self._change_adapter(config)
        finally:
            self._is_open = True
            for family, gone in ((family, before[family] - self._learned[family]) for family in FAMILIES):
                if gone:
                    self.speaker.fib_changed(family, (), gone)
            self.speaker.next_hops_changed({address: self._adapter.track(address) for address in self._tracked})
            for rib in self.speaker.ribs.values():
                rib.dirty.update(rib.table)
            self.speaker.flush(time.monotonic())
            if self.speaker.is_converged:
                self._adapter.converged()

    async def _change_adapter(self, config: KernelConfig) -> None:
        old = self._config
        moves = (old.route_protocol, old.table) != (config.route_protocol, config.table)
        # A route under another protocol number or in another table is nobody's afterwards; others are adopted.
        await self._adapter.close(remove=moves or (old.program and not config.program))
        self._adapter = FibAdapter(config, self, self._events)
        try:
            await self._adapter.start()
        except OSError:
            self._adapter = FibAdapter(old, self, self._events)
            await self._adapter.start()
            raise
        self._config = config

    # Fib and NextHopTracker

    def apply(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        if self._is_open:
            self._adapter.apply(family, changes)

    def converged(self) -> None:
        if self._is_open:
            self._adapter.converged()

    def track(self, address: Address) -> Resolution:
        self._tracked.add(address)
        return self._adapter.track(address)

    def forget(self, address: Address) -> None:
        self._tracked.discard(address)
        self._adapter.forget(address)

    # FibListener

    def fib_changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None:
        new, gone = list(announced), list(withdrawn)
        self._learned[family].difference_update(gone)
        self._learned[family].update(nlri for nlri, _ in new)
        self.speaker.fib_changed(family, new, gone)

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
