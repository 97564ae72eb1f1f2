"""What a pod waits for: ADD and DEL by the executed plugin, with a warm agent and without, one by one and all at once.

    python -m tests.bench.cni [--quick]

Needs root. The store is the local file.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.integration.cni.bed import Answer, Node, a_node, a_pod, finished
from tests.netns import Namespace


def timed(node: Node, command: str, pod: Namespace, container: str) -> float:
    began = time.perf_counter()
    answer = node.call(command, pod, container)
    took_s = time.perf_counter() - began
    assert answer.code == 0, answer
    return took_s * 1000


def row(what: str, times_ms: list[float], mark: str) -> list[str]:
    ordered = sorted(times_ms)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return [what, str(len(ordered)), f"{statistics.median(ordered):.1f}", f"{p99:.1f}", f"{ordered[-1]:.1f}", mark]


def one_by_one(node: Node, pods: list[Namespace], label: str, marks: tuple[str, str]) -> list[list[str]]:
    adds = [timed(node, "ADD", pod, f"c{number}") for number, pod in enumerate(pods)]
    dels = [timed(node, "DEL", pod, f"c{number}") for number, pod in enumerate(pods)]
    return [row(f"ADD, {label}", adds, marks[0]), row(f"DEL, {label}", dels, marks[1])]


def all_at_once(node: Node, pods: list[Namespace]) -> list[str]:
    began = time.perf_counter()
    running = [node.start("ADD", pod, f"p{number}") for number, pod in enumerate(pods)]
    answers: list[Answer] = [finished(one, 120) for one in running]
    took_s = time.perf_counter() - began
    assert all(answer.code == 0 for answer in answers), [answer for answer in answers if answer.code][:1]
    assert len({answer.addresses[0] for answer in answers}) == len(pods)
    for one in [node.start("DEL", pod, f"p{number}") for number, pod in enumerate(pods)]:
        assert finished(one, 120).code == 0
    assert node.allocated() == 0
    return [f"{len(pods)} ADDs at once", str(len(pods)), f"{took_s * 1000:.0f} in all", "", "", "8000"]


def own_start(node: Node, times: int) -> list[str]:
    """Interpreter and imports alone: VERSION of an agent that is there."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        answer = node.call("VERSION", None)
        found.append((time.perf_counter() - began) * 1000)
        assert answer.code == 0
    bare = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(node.host.command("true"), check=True)
        bare.append((time.perf_counter() - began) * 1000)
    # Entering the namespace is the bench's, not the plugin's.
    return row("the plugin's start and VERSION, less nsenter", [one - statistics.median(bare) for one in found], "25")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    one, many = (20, 50) if quick else (100, 200)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pods = [stack.enter_context(a_pod()) for _ in range(many)]
        with a_node(Path(folder)) as node:
            timed(node, "ADD", pods[0], "warm")
            timed(node, "DEL", pods[0], "warm")
            rows += one_by_one(node, pods[:one], "warm agent", ("p50 60, p99 200", "40"))
            rows.append(own_start(node, one))
            rows.append(all_at_once(node, pods))
            node.kill_agent(15)
            rows += one_by_one(node, pods[:10], "no agent", ("", ""))
    for cells in [["", "times", "p50 ms", "p99 ms", "worst ms", "mark ms"], *rows]:
        print(f"{cells[0]:<46}" + "".join(f"{cell:>16}" for cell in cells[1:]))


if __name__ == "__main__":
    main()
