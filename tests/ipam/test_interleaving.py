"""Several allocators over one store, interleaved at every access to it, and some that die in the middle."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from integration.resources.fields import Address
from ipam.allocator import Allocator
from ipam.assigning import Request
from ipam.checking import Evidence, find
from ipam.errors import IpamError
from ipam.pools import Wish, read_pools
from ipam.releasing import Release
from ipam.repairing import plan
from tests.ipam.scenes import allocator, check, configure, held, store_with
from tests.ipam.store import Clock, MemoryStore, run

HOSTS = ("a", "b", "c")


@dataclass(eq=False)
class Task:
    work: Coroutine[Any, Any, Any]
    handle: str = ""
    wanted: int = 0


@dataclass
class World:
    """`granted`: address → handle, of assignments that have returned and that nobody began to release."""

    store: MemoryStore = field(default_factory=lambda: store_with("10.0.0.0/28", nodes=HOSTS, block_size=30))
    clock: Clock = field(default_factory=Clock)
    tasks: list[Task] = field(default_factory=list)
    granted: dict[Address, str] = field(default_factory=dict)
    count: int = 0
    crashed: bool = False


class Interleaved(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        # Two processes on each node.
        self.allocators = {(host, n): allocator(self.world.store, self.world.clock) for host in HOSTS for n in (0, 1)}

    def made(self, host: str, number: int) -> Allocator:
        return self.allocators[host, number]

    def new_handle(self) -> str:
        self.world.count += 1
        return f"h{self.world.count}"

    @rule(host=st.sampled_from(HOSTS), process=st.integers(0, 1), count=st.integers(1, 5))
    def begin_to_assign(self, host: str, process: int, count: int) -> None:
        handle = self.new_handle()
        request = Request(host, count=count, handle=handle, attributes={"node": host})
        self.world.tasks.append(Task(self.made(host, process).assign(request), handle, count))

    @rule(host=st.sampled_from(HOSTS), process=st.integers(0, 1), number=st.integers(0, 15))
    def begin_to_assign_one(self, host: str, process: int, number: int) -> None:
        handle, address = self.new_handle(), ip_address("10.0.0.0") + number
        self.world.tasks.append(Task(self.made(host, process).assign_address(address, host, handle), handle, 1))

    def forget(self, handle: str) -> None:
        for address in [address for address, name in self.world.granted.items() if name == handle]:
            del self.world.granted[address]

    @precondition(lambda self: self.world.granted)
    @rule(host=st.sampled_from(HOSTS), process=st.integers(0, 1), which=st.integers(0, 99), by_handle=st.booleans())
    def begin_to_release(self, host: str, process: int, which: int, by_handle: bool) -> None:
        address, handle = list(self.world.granted.items())[which % len(self.world.granted)]
        made = self.made(host, process)
        if by_handle:
            self.forget(handle)
            self.world.tasks.append(Task(made.release_handle(handle)))
        else:
            del self.world.granted[address]
            self.world.tasks.append(Task(made.release([Release(address, handle)])))

    @rule(host=st.sampled_from(HOSTS), process=st.integers(0, 1), must_be_empty=st.booleans())
    def begin_to_release_host(self, host: str, process: int, must_be_empty: bool) -> None:
        self.world.tasks.append(Task(self.made(host, process).release_host(host, must_be_empty=must_be_empty)))

    @rule(host=st.sampled_from(HOSTS))
    def begin_to_ensure_a_block(self, host: str) -> None:
        self.world.tasks.append(Task(self.made(host, 0).ensure_block(host, Wish(4, "Workload"))))

    @rule(host=st.sampled_from(HOSTS))
    def begin_to_claim_a_range(self, host: str) -> None:
        self.world.tasks.append(Task(self.made(host, 1).claim_affinity(ip_network("10.0.0.0/29"), host)))

    @rule()
    def let_a_minute_pass(self) -> None:
        self.world.clock.advance(61)

    @rule(cooldown_s=st.sampled_from([0, 30]), strict=st.booleans())
    def change_settings(self, cooldown_s: int, strict: bool) -> None:
        configure(self.world.store, ipCooldownSeconds=cooldown_s, strict_affinity=strict)

    @precondition(lambda self: self.world.tasks)
    @rule(turns=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 12)), min_size=1, max_size=12))
    def run_some(self, turns: list[tuple[int, int]]) -> None:
        for which, steps in turns:
            if self.world.tasks:
                self.advance(self.world.tasks[which % len(self.world.tasks)], steps)

    @precondition(lambda self: self.world.tasks)
    @rule(which=st.integers(0, 7))
    def kill(self, which: int) -> None:
        task = self.world.tasks.pop(which % len(self.world.tasks))
        task.work.close()
        self.world.crashed = True

    def advance(self, task: Task, steps: int) -> bool:
        for _ in range(steps):
            try:
                task.work.send(None)
            except StopIteration as done:
                self.world.tasks.remove(task)
                self.returned(task, done.value)
                return True
            except IpamError:
                self.world.tasks.remove(task)
                return True
        return False

    def returned(self, task: Task, value: Any) -> None:
        if not task.handle:
            return
        found = [value.ip] if not hasattr(value, "addresses") else [each.ip for each in value.addresses]
        assert len(found) <= task.wanted
        for address in found:
            assert address not in self.world.granted, f"{address} is {self.world.granted.get(address)}'s"
            self.world.granted[address] = task.handle
        assert getattr(value, "error", None) is None or isinstance(value.error, IpamError), repr(value.error)

    @invariant()
    def no_address_is_lost_or_given_twice(self) -> None:
        now = held(self.world.store)
        for address, handle in self.world.granted.items():
            assert now.get(str(address)) == handle
        check(self.world.store, is_quiet=False)

    def teardown(self) -> None:
        world = self.world
        while world.tasks:
            self.advance(world.tasks[0], 10_000)
        self.no_address_is_lost_or_given_twice()
        world.clock.advance(100)
        if not world.crashed:
            check(world.store)
            found = find(evidence_of(world.store, world.clock))
            assert found.void_affinities == []
            assert found.lost_blocks == []
            assert held(world.store) == {str(address): handle for address, handle in world.granted.items()}
        made = allocator(world.store, world.clock)
        evidence = evidence_of(world.store, world.clock)
        for step in plan(made, find(evidence), evidence, is_locked=True, knows_users=False).steps:
            run(step.act())  # type: ignore[arg-type]
        check(world.store)
        assert find(evidence_of(world.store, world.clock)).problems == 0
        run(made.release_handles({str(handle) for handle in held(world.store).values()}))
        for host in HOSTS:
            run(made.release_host(host))
        assert held(world.store) == {}
        assert world.store.keys("IPAMHandle") == []
        assert world.store.keys("BlockAffinity") == []


def evidence_of(store: MemoryStore, clock: Clock) -> Evidence:
    return Evidence(
        run(store.list("IPAMBlock")), run(store.list("BlockAffinity")), run(store.list("IPAMHandle")),
        read_pools(run(store.pools()).found), {ip_address(each): ["workload"] for each in held(store)},
        frozenset(store.nodes), clock(),
    )  # fmt: skip


TestInterleaved = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")(Interleaved.TestCase)
TestInterleaved.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
