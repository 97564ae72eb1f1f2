"""Somebody else is faster at any step of any operation: nothing is lost, nothing is given twice."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from integration.resources.keys import Key, block_key, cidr_of
from ipam.allocator import Allocator
from ipam.assigning import Request
from ipam.errors import TooManyConflicts
from ipam.handles import handle_key
from ipam.pools import Wish
from ipam.ports import Changed
from ipam.releasing import Release
from ipam.scene import open_tools
from ipam.settings import Settings
from tests.ipam.scenes import allocator, assign, check, configure, held, state_of, store_with
from tests.ipam.store import Clock, MemoryStore, run

Operation = Callable[[Allocator], Any]


def assign_new(made: Allocator) -> None:
    assert len(assign(made, "b", count=3, handle="new")) == 3


def assign_over_two_blocks(made: Allocator) -> None:
    assert len(assign(made, "a", count=20, handle="new")) == 20


def assign_batch(made: Allocator) -> None:
    results = run(made.assign_all([Request("a", handle=f"n{number}") for number in range(5)]))
    assert len({str(each) for result in results for each in result.whole()}) == 5


def assign_exact(made: Allocator) -> None:
    run(made.assign_address(ip_address("10.0.0.77"), "b", "new"))


def release_address(made: Allocator) -> None:
    run(made.release([Release(ip_address(address)) for address in list(held(made.access.store))[:2]])).whole()  # type: ignore[arg-type]


def release_handle(made: Allocator) -> None:
    run(made.release_handle("h"))
    assert "h" not in held(made.access.store).values()  # type: ignore[arg-type]


def release_host(made: Allocator) -> None:
    run(made.release_host("a"))


def release_pool(made: Allocator) -> None:
    run(made.release_pool(ip_network("10.0.0.0/24")))


def claim_range(made: Allocator) -> None:
    run(made.claim_affinity(ip_network("10.0.0.0/26"), "b"))


def take_over(made: Allocator) -> None:
    run(made.release_handles(["h", "i"]))
    made.access.clock.advance(61)  # type: ignore[attr-defined]
    assert len(assign(made, "b", count=125, handle="new", max_blocks=99)) >= 16


def set_settings(made: Allocator) -> None:
    run(made.configure(Settings(strict_affinity=True)))


def ensure(made: Allocator) -> None:
    run(made.ensure_block("b", Wish(4, "Workload")))


OPERATIONS: list[Operation] = [
    assign_new, assign_over_two_blocks, assign_batch, assign_exact, release_address, release_handle, release_host,
    release_pool, claim_range, take_over, set_settings, ensure,
]  # fmt: skip


def prepared() -> MemoryStore:
    store = store_with("10.0.0.0/25")
    made = allocator(store)
    assign(made, "a", count=18, handle="h")
    assign(made, "a", count=2, handle="i")
    configure(store)
    return store


def written_again(store: MemoryStore, what: str, key: Key) -> None:
    """By somebody who changes nothing that matters."""
    if what != "create" and key in store.objects:
        if key.kind == "IPAMBlock":
            value = store.value(key)
            store.put(key, {**value, "sequenceNumber": value["sequenceNumber"] + 1})
        else:
            store.touch(key)


def other_took_an_address(store: MemoryStore, what: str, key: Key) -> None:
    """Another allocator assigns and releases in between, wherever it may."""
    other = allocator(store)
    if what == "update" and key.kind == "IPAMBlock" and store.value(key).get("unallocated"):
        block = ip_network(cidr_of(key))
        run(other.assign_address(block[store.value(key)["unallocated"][0]], "b", "other"))
    elif what == "create" and key.kind == "IPAMBlock" and key not in store.objects:
        run(other.assign_address(ip_network(cidr_of(key))[0], "c", "other"))


def other_released(store: MemoryStore, what: str, key: Key) -> None:
    """The blocks of a host are given up at that moment."""
    if key.kind in ("IPAMBlock", "BlockAffinity"):
        for host in "ab":
            run(allocator(store).release_host(host))


@pytest.mark.parametrize("disturbance", [written_again, other_took_an_address, other_released])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_conflict_at_any_step_is_overcome(
    operation: Operation, disturbance: Callable[[MemoryStore, str, Key], None]
) -> None:
    store = prepared()
    operation(allocator(store))
    check(store)
    # One more than there are: disturbed, an operation has more steps.
    for step in range(len(store.writes)):
        disturbed = prepared()
        begun = len(disturbed.writes)

        def disturb(what: str, key: Key, store: MemoryStore = disturbed, at: int = begun + step) -> None:
            if len(store.writes) == at:
                store.before_write = None
                disturbance(store, what, key)

        disturbed.before_write = disturb
        operation(allocator(disturbed))
        check(disturbed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_that_fails_at_any_step_leaves_handles_that_say_enough(operation: Operation) -> None:
    class Away(Exception):
        pass

    store = prepared()
    operation(allocator(store))
    for step in range(len(store.writes)):
        broken = prepared()
        before = held(broken)
        begun = len(broken.writes)

        def fail(what: str, key: Key, store: MemoryStore = broken, at: int = begun + step) -> None:
            if len(store.writes) >= at:
                raise Away

        broken.before_write = fail
        try:
            operation(allocator(broken))
        except (Away, AssertionError):
            pass
        check(broken, is_quiet=False)
        broken.before_write = None
        # What was assigned and not meant to be released is still there, and all can be brought in order by releases.
        if operation not in (release_address, release_handle, take_over):
            assert before.items() <= held(broken).items()
        names = [key.name for key in broken.keys("IPAMHandle")]
        run(allocator(broken).release_handles(names))
        assert broken.keys("IPAMHandle") == []
        assert held(broken) == {}


def test_a_write_that_was_made_though_it_failed_keeps_its_count() -> None:
    store = prepared()

    class Unknown(Exception):
        pass

    real = store.update

    async def made_and_failed(key: Key, value: Any, revision: str) -> Any:
        await real(key, value, revision)
        if key.kind == "IPAMBlock":
            raise Unknown
        return store.stored(key)

    store.update = made_and_failed  # type: ignore[method-assign]
    result = run(allocator(store).assign(Request("a", handle="new")))
    assert isinstance(result.error, Unknown)
    del store.update
    assert list(held(store).values()).count("new") == 1
    check(store)


@pytest.mark.parametrize("kind", ["IPAMBlock", "IPAMHandle", "BlockAffinity"])
def test_endless_conflicts_end_in_an_error(kind: str) -> None:
    store = prepared()

    def always(what: str, key: Key) -> None:
        if key.kind == kind and what != "create":
            raise Changed

    store.before_write = always
    made = allocator(store)
    result = run(made.assign(Request("a", handle="h")))
    if kind == "IPAMHandle":
        assert isinstance(result.error, TooManyConflicts)
    elif kind == "IPAMBlock":
        assert result.addresses == []
        assert "Max retries hit" in result.notes[0]
    else:
        with pytest.raises(TooManyConflicts, match="Max retries hit"):
            run(made.release_host("a"))
    check(store, is_quiet=False)


def test_a_handle_that_vanishes_while_it_is_counted_up_is_made_again() -> None:
    store = prepared()

    def vanish(what: str, key: Key) -> None:
        if what == "update" and key == handle_key("h") and key in store.objects:
            store.before_write = None
            run(allocator(store).release_handle("h"))

    store.before_write = vanish
    run(allocator(store).assign_address(ip_address("10.0.0.100"), "a", "h"))
    assert block_key("10.0.0.96/28") in store.objects
    check(store)


def test_a_block_that_its_host_takes_back_is_not_given_up() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    run(made.ensure_block("a", Wish(4, "Workload")))

    def taken_back(what: str, key: Key) -> None:
        if what == "delete" and key.kind == "IPAMBlock":
            store.before_write = None
            assert run(allocator(store).ensure_block("a", Wish(4, "Workload"))) == "10.0.0.0/28"

    store.before_write = taken_back
    tools = run(open_tools(made.access))

    async def give_up() -> None:
        affinity = await tools.affinities.get("host:a", "10.0.0.0/28")
        await tools.affinities._give_up(affinity, await tools.blocks.get("10.0.0.0/28"), False, None)

    with pytest.raises(Changed):
        run(give_up())
    assert block_key("10.0.0.0/28") in store.objects
    assert state_of(store, "a", "10.0.0.0/28") == "confirmed"


def test_a_host_that_loses_the_race_for_a_block_leaves_no_affinity() -> None:
    store = store_with("10.0.0.0/27")

    def other_claims(what: str, key: Key) -> None:
        if what == "create" and key.kind == "IPAMBlock":
            store.before_write = None
            run(allocator(store).claim_affinity(ip_network(cidr_of(key)), "b"))

    store.before_write = other_claims
    assert len(assign(allocator(store), "a")) == 1
    assert sorted(key.namespace for key in store.keys("BlockAffinity")) == ["host:a", "host:b"]


def test_an_idle_block_that_is_used_at_that_moment_is_not_taken_over() -> None:
    store, clock = store_with("10.0.0.0/28"), Clock()
    run(allocator(store, clock).ensure_block("a", Wish(4, "Workload")))
    clock.advance(61)
    listed = store.list

    async def list_and_use(kind: str, holder: str = "") -> Any:
        found = await listed(kind, holder)
        if kind == "IPAMBlock" and not held(store):
            assign(allocator(store, clock), "a", handle="meanwhile")
        return found

    store.list = list_and_use  # type: ignore[method-assign]
    assert assign(allocator(store, clock), "b") == ["10.0.0.1"]  # borrowed
    assert store.value(block_key("10.0.0.0/28"))["affinity"] == "host:a"
    check(store)
