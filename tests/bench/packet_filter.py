"""The packet filters by themselves: `python -m tests.bench.packet_filter [--filter nftables,iptables] [--chains 10000]`.

Needs root, makes its own namespace. No calculation, no datastore: what `PacketFilter.apply` takes for

cold      so many policy chains of 5 rules (every 20th with a list of networks), 100 pods, from an empty table
pod       one pod more: 4 chains, 1 changed chain, a member of each of 3 sets, an entry of each of 2 verdict maps; and its end
members   1,000 members into a set of 10,000 and out of it
restart   a new process finds what the former wrote
check     all is compared with the kernel, and found equal
counts    the counters of 10 chains
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as Shown

from felix.desired import PortRange
from felix.filter_rules import (
    Accept,
    Chain,
    Conntrack,
    Drop,
    GoTo,
    GoToByInterface,
    HookRules,
    InInterface,
    InSet,
    Jump,
    Mark,
    Net,
    NetAnyOf,
    OutInterface,
    Ports,
    Protocol,
    Return,
    Rule,
    SetMark,
)
from felix.ports import PacketFilter
from tests.netns import network_namespace

ACCEPTED = 0x10000
PODS, PODS_MORE, SETS, POLICIES_OF_A_POD = 100, 50, 100, 5
LARGE_SET = "s:large"
_accept = SetMark(ACCEPTED, ACCEPTED)
_ends = Rule((Mark(ACCEPTED, ACCEPTED),), Return())


def policy(packet_filter: PacketFilter, at: int) -> Chain:
    nets = tuple(f"192.0.2.{16 * n + at % 16}/32" for n in range(6 if at % 20 == 0 else 1))
    listed: Any = NetAnyOf("source", nets) if packet_filter.has_alternatives else Net("source", nets[0])
    rules = (
        Rule((Protocol(6), InSet("source", f"s:{at % SETS}"), Ports("destination", (PortRange(80, 80),))), _accept),
        Rule((Protocol(17), Ports("destination", (PortRange(53, 53),))), _accept),
        Rule((listed,), _accept),
        Rule((Net("source", f"10.{at >> 8 & 255}.{at & 255}.0/24"),), _accept),
        _ends,
    )
    return Chain(f"cali-pi-{at:06}", rules)


def pod_chains(at: int, policies: int) -> list[Chain]:
    known = Rule((Conntrack(frozenset({"ESTABLISHED", "RELATED"})),), Accept())
    jumps = [Rule((), Jump(f"cali-pi-{(at * POLICIES_OF_A_POD + n) % policies:06}")) for n in range(POLICIES_OF_A_POD)]
    ends = Rule((), Drop(), ("Drop if no policies passed packet",))
    chains = [Chain(f"cali-{way}-cali{at:06}", (known, *jumps, _ends, ends)) for way in ("tw", "fw")]
    return chains + [Chain(f"cali-pr{way}-cali{at:06}", (_ends,)) for way in ("i", "o")]


class World:
    """What is wanted; pods come and go."""

    def __init__(self, packet_filter: PacketFilter, policies: int) -> None:
        self.filter, self.policies = packet_filter, policies
        self.pods = list(range(PODS))

    def want(self) -> None:
        for at in range(SETS):
            self.filter.set_ip_set(f"s:{at}", "net", {f"10.{at}.0.{n}/32" for n in range(100)})
        self.filter.set_ip_set(LARGE_SET, "net", {f"10.200.{n >> 8}.{n & 255}/32" for n in range(10_000)})
        self.filter.set_chains("filter", [policy(self.filter, at) for at in range(self.policies)])
        self.filter.set_chains("filter", [chain for at in self.pods for chain in pod_chains(at, self.policies)])
        self.filter.set_chains("filter", [Chain("cali-large", (Rule((InSet("source", LARGE_SET),), Drop()),))])
        self._want_dispatch()
        jumps = (Rule((), Jump("cali-from-wl-dispatch")), Rule((), Jump("cali-to-wl-dispatch")))
        self.filter.set_hook("filter", "FORWARD", HookRules(jumps))

    def _want_dispatch(self) -> None:
        for chain, way, direction in (
            ("cali-from-wl-dispatch", "fw", "in"),
            ("cali-to-wl-dispatch", "tw", "out"),
        ):
            if self.filter.has_verdict_maps:
                targets = {f"cali{at:06}": f"cali-{way}-cali{at:06}" for at in self.pods}
                self.filter.set_map("filter", chain, targets)
                rules: list[Rule] = [Rule((), GoToByInterface(chain, direction))]  # type: ignore[arg-type]
            else:
                side: Any = InInterface if direction == "in" else OutInterface
                rules = [Rule((side(f"cali{at:06}"),), GoTo(f"cali-{way}-cali{at:06}")) for at in self.pods]
            self.filter.set_chains("filter", [Chain(chain, (*rules, Rule((), Drop())))])

    def pod_comes(self, at: int) -> None:
        self.pods.append(at)
        for n in range(3):
            self.filter.change_ip_set(f"s:{n}", {f"10.{n}.9.{at % 250}/32"}, ())
        self.filter.set_chains("filter", pod_chains(at, self.policies))
        self.filter.set_chains("filter", [policy(self.filter, at % self.policies)])
        self._want_dispatch()

    def pod_goes(self, at: int) -> None:
        self.pods.remove(at)
        for n in range(3):
            self.filter.change_ip_set(f"s:{n}", (), {f"10.{n}.9.{at % 250}/32"})
        self.filter.remove_chains("filter", [chain.name for chain in pod_chains(at, self.policies)])
        self._want_dispatch()


async def took_ms(does: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await does()
    return (time.perf_counter() - began) * 1000


async def applied_ms(packet_filter: PacketFilter) -> float:
    async def apply() -> None:
        failures = await packet_filter.apply()
        assert not failures, failures[:3]

    return await took_ms(apply)


def spread(times: Sequence[float]) -> str:
    return f"p50 {statistics.median(times):.1f} ms, worst {max(times):.1f}"


async def measure(make: Callable[[], PacketFilter], policies: int) -> list[tuple[str, str, str]]:
    world = World(make(), policies)
    world.want()
    rows = [("cold", f"{await applied_ms(world.filter) / 1000:.2f} s", "4 s")]
    come, go = [], []
    for at in range(PODS, PODS + PODS_MORE):
        began = time.perf_counter()
        world.pod_comes(at)
        noted_ms = (time.perf_counter() - began) * 1000
        come.append(noted_ms + await applied_ms(world.filter))
    for at in range(PODS, PODS + PODS_MORE):
        world.pod_goes(at)
        go.append(await applied_ms(world.filter))
    rows += [("pod: comes", spread(come), "10 ms"), ("pod: goes", spread(go), "")]
    moved = [f"10.201.{n >> 8}.{n & 255}/32" for n in range(1000)]
    world.filter.change_ip_set(LARGE_SET, moved, ())
    rows.append(("members: 1,000 in", f"{await applied_ms(world.filter):.1f} ms", "60 ms"))
    world.filter.change_ip_set(LARGE_SET, (), moved)
    rows.append(("members: 1,000 out", f"{await applied_ms(world.filter):.1f} ms", "60 ms"))
    chains = [f"cali-pi-{at:06}" for at in range(10)]
    rows.append(("counts: 10 chains", f"{await took_ms(lambda: world.filter.counts('filter', chains)):.1f} ms", "5 ms"))
    rows.append(("check", f"{await took_ms(world.filter.check) / 1000:.2f} s", ""))
    again = World(make(), policies)
    again.want()
    rows.append(("restart", f"{await applied_ms(again.filter) / 1000:.2f} s", ""))
    found = await again.filter.check()
    assert found == [], found
    return rows


def nftables() -> PacketFilter:
    from felix.kernel.nftables import NftablesFilter

    return NftablesFilter(4)


def iptables(backend: str) -> Callable[[], PacketFilter]:
    def make() -> PacketFilter:
        from felix.kernel.iptables import IptablesFilter

        return IptablesFilter(4, backend)

    return make


FILTERS: dict[str, Callable[[], PacketFilter]] = {
    "nftables": nftables,
    "iptables-nft": iptables("nft"),
    "iptables-legacy": iptables("legacy"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.packet_filter", description=__doc__)
    parser.add_argument("--filter", default="nftables", help=f"comma-separated, of {', '.join(FILTERS)}")
    parser.add_argument("--chains", type=int, default=10_000)
    options = parser.parse_args()
    shown = Shown("filter", "what", "measured", "mark")
    for name in options.filter.split(","):
        with network_namespace() as host:
            make = FILTERS[name]
            for row in host.call(lambda make=make: asyncio.run(measure(make, options.chains))):  # type: ignore[misc]
                shown.add_row(name, *row)
    Console().print(shown)


if __name__ == "__main__":
    main()
