"""How fast the FIB adapter writes, adopts and removes routes: `python -m tests.bench.fib_routes [COUNT]`, as root.

`time_routes` is what a comparison with another daemon calls; the namespace may be anybody's with a gateway on eth0.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bgp.config import KernelConfig
from bgp.families import IPV4, Address, Family, Nlri, parse_address
from bgp.ports import FibRoute, LearnedRoute, Resolution
from integration.node.fib_adapter import FibAdapter
from tests.netns import Namespace, network_namespace, wire


class Silent:
    """A listener and an event sink that want to know nothing."""

    def fib_changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None: ...
    def next_hops_changed(self, changed: Mapping[Address, Resolution]) -> None: ...
    def local_addresses_changed(self, addresses: frozenset[Address]) -> None: ...
    def event(self, name: str, **fields: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; `longest_turn_s` is how long the event loop was away from everything else."""

    write_s: float
    adopt_s: float
    remove_s: float
    longest_turn_s: float


async def _until_done(adapter: FibAdapter) -> float:
    longest, before = 0.0, time.perf_counter()
    while adapter.has_work:
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest


async def time_routes(node: Namespace, count: int, gateways: tuple[str, ...]) -> Timing:
    """Write `count` IPv4 /24 over the gateways in turn, leave them, adopt them in a new adapter, remove them."""
    silent, config = Silent(), KernelConfig(learn=())
    adapter = FibAdapter(config, silent, silent, netlink=node.netlink)
    await adapter.start()
    forms = [FibRoute(adapter.track(parse_address(gateway)).hops) for gateway in gateways]
    prefixes = [bytes([24]) + (0x140000 + number).to_bytes(3, "big") for number in range(count)]
    wanted: dict[Nlri, FibRoute | None] = {p: forms[n % len(forms)] for n, p in enumerate(prefixes)}
    began_at = time.perf_counter()
    adapter.apply(IPV4, wanted)
    longest = await _until_done(adapter)
    write_s = time.perf_counter() - began_at
    assert adapter.counters["routes"]["ipv4"] == count
    await adapter.close(remove=False)

    adapter = FibAdapter(config, silent, silent, netlink=node.netlink)
    began_at = time.perf_counter()
    await adapter.start()
    adapter.apply(IPV4, wanted)
    adapter.converged()
    longest = max(longest, await _until_done(adapter))
    adopt_s = time.perf_counter() - began_at
    assert adapter.counters["writes"] == 0
    began_at = time.perf_counter()
    adapter.apply(IPV4, dict.fromkeys(wanted))
    longest = max(longest, await _until_done(adapter))
    remove_s = time.perf_counter() - began_at
    await adapter.close()
    return Timing(write_s, adopt_s, remove_s, longest)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with network_namespace() as node:
        wire(node, "eth0", node, "p0")
        node.ip("address add 10.9.0.1/24 dev eth0")
        for _ in range(3):
            timing = asyncio.run(time_routes(node, count, tuple(f"10.9.0.{last}" for last in range(2, 12))))
            print(
                f"{count} routes: written in {timing.write_s:.3f} s ({count / timing.write_s:,.0f}/s), "
                f"adopted after a restart in {timing.adopt_s:.3f} s, removed in {timing.remove_s:.3f} s, "
                f"longest turn {timing.longest_turn_s * 1000:.0f} ms"
            )


if __name__ == "__main__":
    main()
