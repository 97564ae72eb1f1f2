"""How fast the real `catbird felix` is: `python -m tests.bench.felix`. Needs root, works in namespaces of its own.

cold     10,000 policies of 5 rules and 10,000 endpoints in the datastore, 100 of them here, every policy (with --sparse
         a few hundred) active here: from the start of the process until all is in the kernel, and its memory then
pod      one pod more on this node: from the datastore's write until the dispatch map in the kernel has its interface
labels   a label that moves 1,000 pods into a set and out: until the kernel's set has it
packets  iperf3 between two pods with 10,000 interfaces in the dispatch maps, see felix_packets.py
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from felix.kernel.nfnetlink import NftSocket
from felix.nft_names import map_name
from integration.datastore.api import Step
from integration.datastore.local.driver import LocalDatastore
from integration.resources.keys import Key
from tests.bench.felix_cluster import Entry, FelixCluster
from tests.bench.felix_packets import measure
from tests.felix.system.node import FelixNode, until
from tests.felix.truth.sockets import Namespace

AT_ONCE = 100
PATIENCE_S = 300.0


@dataclass(frozen=True)
class ActiveCluster(FelixCluster):
    """Each local endpoint is in a namespace of its own as far as they go, so that every policy is active here."""

    namespaces: int = 100
    is_all_needed: bool = True

    def namespace_of(self, at: int) -> str:
        if self.node_of(at) == 0:
            return f"ns-{at // max(1, self.endpoints // self.local) % self.namespaces}"
        return FelixCluster.namespace_of(self, at)


@dataclass(frozen=True, slots=True)
class Figure:
    what: str
    measured: str
    mark: str


def whole(entry: Entry) -> Step:
    """As it is stored: with kind, name and namespace."""
    key, value = entry
    if "spec" not in value:
        return Step(key, value)  # an IPAM block
    metadata = {
        "name": key.name,
        **({"namespace": key.namespace} if key.namespace else {}),
        **value.get("metadata", {}),
    }
    return Step(key, {"apiVersion": "projectcalico.org/v3", "kind": key.kind, **value, "metadata": metadata})


async def fill(store: LocalDatastore, entries: Sequence[Entry]) -> None:
    for at in range(0, len(entries), AT_ONCE):
        await store.transact([whole(entry) for entry in entries[at : at + AT_ONCE]])


def add_interfaces(node: FelixNode, pods: Namespace, names: Sequence[str]) -> None:
    lines = []
    for name in names:
        lines += [f"link add {name} type veth peer name p{name[5:]} netns {pods.path}", f"link set {name} up"]
    node.host.command("ip", "-batch", "-", text="\n".join(lines) + "\n")
    pods.command("ip", "-batch", "-", text="".join(f"link set p{name[5:]} up\n" for name in names))


class Bench:
    def __init__(self, node: FelixNode, store: LocalDatastore, cluster: FelixCluster) -> None:
        self.node, self.store, self.cluster = node, store, cluster
        self.pods = Namespace("pods")
        self.socket = node.host.run(lambda: NftSocket(4, "calico"))
        self.map = map_name("filter", "cali-to-wl-dispatch")

    def interfaces(self) -> int:
        return len(self.socket.elements(self.map))

    async def when(self, holds: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > PATIENCE_S:
                raise SystemExit(f"not within {PATIENCE_S} s\n{self.node.log_file.read_text()[-3000:]}")
            await asyncio.sleep(0.003)  # looking holds up the kernel's own work

    async def put(self, *entry: Any) -> None:
        step = whole(entry)
        assert step.value is not None
        await self.store.apply(step.key, step.value)

    async def cold(self) -> list[Figure]:
        entries = [(Key("Tier", "default"), {"spec": {"order": 1_000_000}}), *self.cluster.entries()]
        await fill(self.store, entries)
        local = [
            value["spec"]["interfaceName"] for key, value in entries if value.get("spec", {}).get("node") == "node-0"
        ]
        del entries
        add_interfaces(self.node, self.pods, local)
        began = time.monotonic()
        self.node.start()
        await until(lambda: self.node.status().get("applied"), "applied", PATIENCE_S, 0.1)
        took = time.monotonic() - began
        cpu_s, status = self.cpu_s(), self.node.status()
        assert self.interfaces() == len(local), f"{self.interfaces()} of {len(local)} interfaces"
        rules = sum(len(one) for one in self.socket.rule_handles().values())
        print(f"failures: {status['failures'][:3]}; policies active: {status['policies']:,}; IPv4 rules: {rules:,}")
        return [
            Figure(
                f"cold: {status['policies']:,} active policies, {len(local)} pods here",
                f"{took:.1f} s, {cpu_s:.1f} s CPU",
                "15 s",
            ),
            Figure("  memory (RSS)", f"{self.memory():.0f} MB, at most {self.memory('VmHWM'):.0f}", "400 MB"),
            Figure("  IPv4 rules (as many of IPv6)", f"{rules:,}", ""),
        ]

    def memory(self, field: str = "VmRSS") -> float:
        assert self.node.process is not None
        for line in Path(f"/proc/{self.node.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1000
        return 0.0

    def cpu_s(self) -> float:
        """Of all its threads, user and kernel: what a busy machine does not change."""
        assert self.node.process is not None
        fields = Path(f"/proc/{self.node.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def restart(self) -> list[Figure]:
        """A new process meets what the former wrote."""
        self.node.kill()
        began = time.monotonic()
        self.node.start()
        await until(lambda: self.node.status().get("applied"), "applied", PATIENCE_S, 0.1)
        took = time.monotonic() - began
        return [Figure("  a new process adopts it", f"{took:.1f} s, {self.cpu_s():.1f} s CPU", "")]

    async def one_pod(self, samples: int) -> list[Figure]:
        spread = max(1, self.cluster.endpoints // self.cluster.local)
        first = (self.cluster.endpoints // spread + 1) * spread
        entries = [self.cluster.endpoint(first + spread * at) for at in range(samples)]
        add_interfaces(self.node, self.pods, [value["spec"]["interfaceName"] for _, value in entries])
        await asyncio.sleep(3)
        times = []
        for key, value in entries:
            await asyncio.sleep(0.2)
            before = self.interfaces()
            began = time.monotonic()
            await self.put(key, value)
            await self.when(lambda: self.interfaces() > before)  # noqa: B023
            times.append(time.monotonic() - began)
        times.sort()
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        return [
            Figure(f"a pod more, {samples} times: p50", f"{p50 * 1000:.0f} ms", "30 ms"),
            Figure("  p99", f"{p99 * 1000:.0f} ms", "150 ms"),
        ]

    def set_sizes(self) -> dict[str, int]:
        return {name: len(self.socket.elements(name)) for name in self.socket.sets()}

    async def labels(self) -> list[Figure]:
        """ns-0 has `big` pods; its team is what some rules' namespaceSelector asks for."""
        sizes = {name: len(self.socket.elements(name)) for name in self.socket.sets() if name.startswith("cali40s")}
        key, value = self.cluster.namespace(0, team="team-x")
        await self.put(key, value)
        await asyncio.sleep(3)
        base = {name: len(self.socket.elements(name)) for name in sizes}
        changed = [name for name in sizes if sizes[name] != base[name]]
        moved = sum(sizes[name] - base[name] for name in changed)
        times = []
        for team, wanted in (("team-0", sizes), ("team-x", base)) * 5:
            await asyncio.sleep(1)
            key, value = self.cluster.namespace(0, team=team)
            began = time.monotonic()
            await self.put(key, value)
            await self.when(lambda: all(len(self.socket.elements(name)) == wanted[name] for name in changed))  # noqa: B023
            times.append(time.monotonic() - began)
        what = f"a namespace's label moves {self.cluster.big:,} pods in {len(changed)} sets ({moved // 2:,} members)"
        return [Figure(what, f"{statistics.median(times) * 1000:.0f} ms, at worst {max(times) * 1000:.0f}", "200 ms")]


async def program(options: argparse.Namespace) -> list[Figure]:
    kind = FelixCluster if options.sparse else ActiveCluster
    cluster = kind(policies=options.policies, endpoints=options.endpoints)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        store = LocalDatastore(folder / "store.db", "normal")
        node = FelixNode(folder, name="node-0", **dict(one.split("=") for one in options.set))
        try:
            bench = Bench(node, store, cluster)
            figures = await bench.cold()
            if "pod" in options.only:
                figures += await bench.one_pod(options.samples)
            if "labels" in options.only:
                figures += await bench.labels()
            if "restart" in options.only:
                figures += await bench.restart()
            if options.wait:
                await asyncio.sleep(options.wait)
            return figures
        finally:
            node.close()
            await store.close()


def share(some: Sequence[float], all_: Sequence[float]) -> str:
    """The ratio of means and its standard error, and that of the fastest tenths, which were disturbed least."""
    ratio = statistics.fmean(some) / statistics.fmean(all_)
    rests = [one - ratio * other for one, other in zip(some, all_, strict=True)]
    error = statistics.stdev(rests) / len(rests) ** 0.5 / statistics.fmean(all_)
    fastest = statistics.quantiles(some, n=10)[-1] / statistics.quantiles(all_, n=10)[-1]
    return f"{ratio:.1%} ± {error:.1%}, fastest tenth {fastest:.1%}"


async def packets(options: argparse.Namespace) -> list[Figure]:
    found = await measure(options.endpoints, options.rounds, seconds=0.3)
    speeds = {name: f"{statistics.fmean(some):.1f} Gbit/s" for name, some in found.items()}
    shares = {name: share(some, found["nothing"]) for name, some in found.items()}
    return [
        Figure("iperf3 without rules", speeds["nothing"], ""),
        Figure("  with connection tracking alone", f"{speeds['tracking']}, {shares['tracking']}", ""),
        Figure(f"  with Felix' rules, {options.endpoints:,} pods here", f"{speeds['felix']}, {shares['felix']}", "95%"),
    ]


def show(figures: Sequence[Figure]) -> None:
    table = Table("what", "measured", "mark")
    for figure in figures:
        table.add_row(figure.what, figure.measured, figure.mark)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.felix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--sparse", action="store_true", help="policies of some pods of a namespace, pods anywhere")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200, help="of iperf3, 0.4 s for each of three")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of Felix")
    parser.add_argument("--only", default="cold,pod,labels,restart,packets")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds at the end, for a profiler")
    options = parser.parse_args()
    figures: list[Figure] = []
    if "cold" in options.only:
        figures += asyncio.run(program(options))
    if "packets" in options.only:
        figures += asyncio.run(packets(options))
    show(figures)


if __name__ == "__main__":
    main()
