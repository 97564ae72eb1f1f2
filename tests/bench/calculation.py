"""How long Felix' calculation takes: `python -m tests.bench.calculation`. Figures go to standard output."""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections import Counter
from typing import Any

from felix.calc.graph import CalculationGraph
from felix.desired import IPSetDelta
from tests.bench.felix_cluster import Entry, FelixCluster


def measure(cluster: FelixCluster, title: str) -> None:
    entries = list(cluster.entries())
    gc.collect()
    before = current_megabytes()
    started = time.perf_counter()
    graph = CalculationGraph("node-0")
    for key, value in entries:
        graph.update(key, value)
    read = time.perf_counter()
    graph.in_sync()
    messages = graph.flush()
    done = time.perf_counter()
    kinds = Counter(type(message).__name__ for message in messages)
    print(f"{title}: {len(entries):,} resources")
    print(f"  cold: {done - started:.2f} s (reading {read - started:.2f}, calculating {done - read:.2f})")
    del messages
    gc.collect()
    print(
        f"  memory: {current_megabytes() - before:.0f} MB (the resources themselves not counted), {graph.statistics()}"
    )
    print(f"  said: {dict(kinds)}")
    print(
        f"  one pod more: {worst(graph, [cluster.endpoint(cluster.endpoints + at) for at in range(50)]):.1f} ms at worst"
    )
    moves = [cluster.namespace(0, team=f"team-{at % 10}") for at in range(1, 7)]
    print(f"  a namespace's label, {cluster.big} pods: {worst(graph, moves):.1f} ms at worst")
    policy, spec = cluster.policy(0)
    changed: list[Entry] = [
        (policy, {**spec, "spec": {**spec["spec"], "order": float(at)}}) for at in range(1000, 1010)
    ]
    print(f"  a policy's order: {worst(graph, changed):.1f} ms at worst")


def worst(graph: CalculationGraph, changes: list[Entry]) -> float:
    """Milliseconds of the slowest of these, one at a time."""
    slowest = 0.0
    moved = 0
    for key, value in changes:
        started = time.perf_counter()
        graph.update(key, value)
        said = graph.flush()
        slowest = max(slowest, time.perf_counter() - started)
        moved += sum(len(each.added) + len(each.removed) for each in said if isinstance(each, IPSetDelta))
    print(f"    ({moved / len(changes):.0f} members in and out each)")
    return slowest * 1000


def current_megabytes() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    sizes: dict[str, Any] = vars(parser.parse_args())
    measure(FelixCluster(**sizes), "policies of some pods")
    measure(FelixCluster(**sizes, is_all_needed=True), "policies of whole namespaces")


if __name__ == "__main__":
    main()
