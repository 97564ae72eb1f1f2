"""Twenty pods come, are checked and go at random, by plugins at the same time, while the agent is killed again and again."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from integration.ipam.survey import survey
from ipam.checking import Findings, find
from tests.integration.cni.bed import Answer, Node, a_node, a_pod
from tests.netns import Namespace

PODS, RUNTIMES = 20, 5
COMMANDS = ("ADD", "CHECK", "DEL")
DURATION_S = float(os.environ.get("CATBIRD_STORM_S", "8"))
MOST_S = DURATION_S + 45


@dataclass
class Runtime:
    """One thread of a container runtime with pods of its own: it never does two things to one container at once."""

    node: Node
    pods: Sequence[Namespace]
    seed: int
    results: dict[int, dict[str, Any]] = field(default_factory=dict)  # what ADD answered for who is attached now
    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    generation: int = 0
    containers: dict[int, str] = field(default_factory=dict)

    def work(self, over: threading.Event) -> None:
        chance = random.Random(self.seed)
        while not over.is_set():
            number = chance.randrange(len(self.pods))
            if number not in self.results:
                self.add(number)
            elif chance.random() < 0.3:
                self.expect("CHECK", number, {"prevResult": self.results[number]})
            else:
                self.delete(number)
                if chance.random() < 0.2:
                    self.delete(number)  # runtimes do it twice

    def add(self, number: int) -> None:
        self.generation += 1
        self.containers[number] = f"c{self.seed}x{number}x{self.generation}"
        answer = self.expect("ADD", number)
        if answer.code == 0:
            self.results[number] = answer.json
        else:
            self.delete(number)

    def delete(self, number: int) -> None:
        self.results.pop(number, None)
        self.expect("DEL", number)

    def expect(self, command: str, number: int, config: dict[str, Any] | None = None) -> Answer:
        answer = self.node.call(command, self.pods[number], self.containers[number], config)
        self.counts[command] += 1
        if answer.code != 0:
            self.complaints.append(f"{command} {self.containers[number]}: {answer.text} {answer.complaint}")
        return answer


def checked(node: Node) -> Findings:
    async def look(datastore: Any) -> Findings:
        return find((await survey(datastore)).evidence)

    return node.store(look)


class Killer:
    """The agent lives a moment, dies with whatever it was doing, and comes back."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.kills = 0

    def work(self, over: threading.Event) -> None:
        chance = random.Random(1)
        while not over.wait(chance.uniform(0.3, 1.5)):
            dead = self.node.socket.stat().st_ino
            self.node.kill_agent(9)
            self.kills += 1
            over.wait(chance.uniform(0.0, 0.4))
            self.node.start_agent()
            self._wait_for_another(dead)

    def _wait_for_another(self, dead: int) -> None:
        """The dead one's socket lies there until it is replaced."""
        ends_at = time.monotonic() + 20
        while self.node.socket.stat().st_ino == dead:
            assert time.monotonic() < ends_at, "the agent does not listen"
            time.sleep(0.01)


@pytest.mark.root
def test_nothing_is_left_of_pods_that_came_and_went_while_the_agent_died(tmp_path: Path) -> None:
    with ExitStack() as stack:
        node = stack.enter_context(a_node(tmp_path))
        node.config["ipam_lock_file"] = str(tmp_path / "ipam.lock")
        pods = [stack.enter_context(a_pod()) for _ in range(PODS)]
        runtimes = [Runtime(node, pods[first::RUNTIMES], first) for first in range(RUNTIMES)]
        pool = stack.enter_context(ThreadPoolExecutor(RUNTIMES + 1))
        over, killer = threading.Event(), Killer(node)
        workers = [pool.submit(work, over) for work in (killer.work, *(one.work for one in runtimes))]
        counts = Counter[str]()
        try:
            # A slow machine gets more time, not a smaller storm.
            began_at = time.monotonic()
            while (after_s := time.monotonic() - began_at) < MOST_S:
                counts = sum((runtime.counts for runtime in runtimes), Counter[str]())
                if after_s > DURATION_S and killer.kills >= 3 and min(counts[one] for one in COMMANDS) >= 5:
                    break
                wait(workers, timeout=0.2, return_when=FIRST_EXCEPTION)
                if any(worker.done() for worker in workers):
                    break
        finally:
            over.set()
        for worker in workers:
            worker.result()
        print(dict(counts), "kills", killer.kills)

        # While pods run: each has its addresses for itself, and nothing else is given out.
        attached = [answer for runtime in runtimes for answer in runtime.results.values()]
        addresses = [one["address"] for answer in attached for one in answer["ips"]]
        assert [one for runtime in runtimes for one in runtime.complaints] == []
        assert len(set(addresses)) == len(addresses) == 2 * len(attached)
        assert len(node.all("WorkloadEndpoint")) == len(attached)
        assert node.allocated() == len(addresses)
        assert checked(node).problems == 0, checked(node)

        for runtime in runtimes:
            for number in list(runtime.results):
                runtime.delete(number)
        assert [one for runtime in runtimes for one in runtime.complaints] == []
        assert node.allocated() == 0
        assert node.all("WorkloadEndpoint") == {}
        assert node.all("IPAMHandle") == {}
        assert checked(node).problems == 0, checked(node)
        assert [one["ifname"] for one in node.host.ip_json("link show type veth")] == ["eth0"]
        assert all(pod.ip_json("link show type veth") == [] for pod in pods)
        assert killer.kills >= 3
        assert min(counts[one] for one in COMMANDS) >= 5
