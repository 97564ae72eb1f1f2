"""What is wrong in a store is found, said, and put right without harm to what is right."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from integration.resources.fields import Address
from integration.resources.keys import affinity_key, block_key
from ipam.allocator import Allocator
from ipam.checking import Evidence, Findings, find
from ipam.handles import handle_key
from ipam.moments import SECOND_NS, go_text_of
from ipam.pools import read_pools
from ipam.ports import Listed
from ipam.repairing import Plan, plan
from ipam.usage import usage
from tests.ipam.scenes import allocator, assign, block_of, blocks_of, check, configure, held, state_of, store_with
from tests.ipam.store import START_NS, MemoryStore, run

BLOCK = "10.0.0.0/28"


def evidence_of(store: MemoryStore, in_use: dict[str, str] | None = None, **more: Any) -> Evidence:
    used: dict[Address, list[str]] = {ip_address(address): [who] for address, who in (in_use or {}).items()}
    return Evidence(
        run(store.list("IPAMBlock")), run(store.list("BlockAffinity")), run(store.list("IPAMHandle")),
        [pool for pool in read_pools(run(store.pools()).found) if pool.is_enabled], used,
        frozenset(store.nodes), START_NS + 10**9 * SECOND_NS if "now_ns" not in more else more["now_ns"],
    )  # fmt: skip


def used_by_all(store: MemoryStore) -> dict[str, str]:
    return dict.fromkeys(held(store), "workload")


def found_in(store: MemoryStore) -> Findings:
    return find(evidence_of(store, used_by_all(store)))


def planned(store: MemoryStore, in_use: dict[str, str] | None = None, *, locked: bool = True, knows: bool = True,
            **more: Any) -> tuple[Allocator, Plan]:  # fmt: skip
    made = allocator(store)
    evidence = evidence_of(store, used_by_all(store) if in_use is None else in_use, **more)
    return made, plan(made, find(evidence), evidence, is_locked=locked, knows_users=knows)


def repair(store: MemoryStore, in_use: dict[str, str] | None = None) -> list[str]:
    _, made = planned(store, in_use)
    return [run(step.act()) for step in made.steps]  # type: ignore[arg-type]


def in_use_store() -> MemoryStore:
    store = store_with()
    made = allocator(store)
    run(made.assign_address(ip_address("10.0.0.1"), "a", "h", {"node": "a", "pod": "p", "namespace": "d"}))
    run(made.assign_address(ip_address("10.0.0.17"), "b", "i", {"node": "b", "pod": "q", "namespace": "d"}))
    return store


def test_a_store_in_order_has_no_problem_and_needs_no_repair() -> None:
    store = in_use_store()
    findings = found_in(store)
    assert findings.problems == 0
    assert (findings.block_count, len(findings.allocations), findings.used_handles) == (2, 2, 2)
    assert planned(store)[1] == Plan([], [])


def change_block(store: MemoryStore, **fields: Any) -> None:
    store.put(block_key(BLOCK), {**store.value(block_key(BLOCK)), **fields})


DAMAGES: list[tuple[str, Callable[[MemoryStore], object]]] = [
    ("handle without addresses", lambda s: s.put(handle_key("x"), {"block": {BLOCK: 1}})),
    ("handle that says nothing", lambda s: s.put(handle_key("x"), {"block": {}})),
    ("handle that counts too many", lambda s: s.put(handle_key("h"), {"block": {BLOCK: 5, "10.9.0.0/28": 1}})),
    ("handle that counts too few", lambda s: s.put(handle_key("h"), {"block": {"10.0.0.16/28": 1}})),
    ("handle of another shape", lambda s: s.put(handle_key("h"), {"block": [1]})),
    ("affinity without block", lambda s: s.put(affinity_key("host:a", "10.0.0.64/28"), {"state": "confirmed"})),
    ("affinity that is pending for ever", lambda s: s.put(affinity_key("host:b", "10.0.0.64/28"), {"state": "pending"})),
    ("affinity for another's block", lambda s: s.put(affinity_key("host:b", BLOCK), {"state": "confirmed"})),
    ("affinity for no block at all", lambda s: s.put(affinity_key("host:b", "x"), {"state": "confirmed"})),
    ("block whose affinity is lost", lambda s: s.objects.pop(affinity_key("host:a", BLOCK))),
    ("free address in the list twice", lambda s: change_block(s, unallocated=[0, 0, *range(2, 16)])),
    ("held address in the list of free ones", lambda s: change_block(s, unallocated=[0, *range(1, 16)])),
    ("free addresses that are lost", lambda s: change_block(s, unallocated=[0, 2])),
    ("ordinal of another block", lambda s: change_block(s, unallocated=[0, *range(2, 16), 99])),
    ("attribute that nobody has", lambda s: change_block(
        s, attributes=[*s.value(block_key(BLOCK))["attributes"], {"handle_id": "z"}])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=[name for name, _ in DAMAGES])
def test_damage_is_found_and_repaired_and_nothing_else_is_touched(
    name: str, damage: Callable[[MemoryStore], object]
) -> None:
    store = in_use_store()
    before = held(store)
    damage(store)
    findings = found_in(store)
    assert findings.problems > 0
    repair(store)
    assert held(store) == before
    assert found_in(store).problems == 0
    check(store)


def test_a_missing_handle_is_told_but_not_counted_and_made_again() -> None:
    store = in_use_store()
    del store.objects[handle_key("h")]
    findings = found_in(store)
    assert findings.problems == 0  # as calicoctl counts
    assert list(findings.missing_handles) == ["h"]
    repair(store)
    check(store)


def test_an_empty_block_of_nobody_is_removed() -> None:
    store = in_use_store()
    change_block(store, affinity=None)
    run(allocator(store).release_host("a"))
    store.put(block_key("10.0.0.32/28"), {**store.value(block_key(BLOCK)), "cidr": "10.0.0.32/28", "attributes": [],
              "allocations": [None] * 16, "unallocated": list(range(16)), "affinity": None})  # fmt: skip
    assert repair(store) == ["removed"]
    assert list(blocks_of(store)) == [BLOCK, "10.0.0.16/28"]


def test_a_block_of_a_node_that_is_gone_is_given_up() -> None:
    store = in_use_store()
    del store.objects[affinity_key("host:a", BLOCK)]
    del store.nodes["a"]
    assert repair(store) == ["given up"]
    assert block_of(store, BLOCK).affinity is None
    assert list(held(store)) == ["10.0.0.1", "10.0.0.17"]


def test_a_lost_affinity_is_confirmed_again() -> None:
    store = in_use_store()
    del store.objects[affinity_key("host:a", BLOCK)]
    assert repair(store) == ["confirmed"]
    assert state_of(store, "a", BLOCK) == "confirmed"


def test_leaked_addresses_are_released_and_used_ones_kept() -> None:
    store = in_use_store()
    findings = find(evidence_of(store, {"10.0.0.17": "workload d/q"}))
    assert [str(one.address) for one in findings.leaked] == ["10.0.0.1"]
    assert repair(store, {"10.0.0.17": "workload d/q"}) == ["released"]
    assert list(held(store)) == ["10.0.0.17"]
    check(store)


@pytest.mark.parametrize(("attributes", "locked", "knows", "age_s", "why"), [
    ({"pod": "p", "namespace": "d"}, False, True, 0, "does not say since when"),
    ({"pod": "p", "namespace": "d"}, True, False, 0, "not all workloads could be read"),
    ({"note": "mine"}, True, True, 0, "no pod's nor tunnel's"),
    ({"pod": "p", "namespace": "d", "timestamp": go_text_of(START_NS)}, False, True, 10, "only 10 s old"),
    ({"pod": "p", "namespace": "d", "timestamp": go_text_of(START_NS)}, False, True, 301, ""),
    ({"type": "ipipTunnelAddress", "node": "gone"}, False, True, 0, ""),
    ({"type": "ipipTunnelAddress", "node": "a"}, False, True, 0, "does not say since when"),
])  # fmt: skip
def test_an_address_is_called_leaked_only_where_that_is_sure(
    attributes: dict[str, str], locked: bool, knows: bool, age_s: int, why: str
) -> None:
    store = store_with()
    run(allocator(store).assign_address(ip_address("10.0.0.1"), "a", "h", attributes))
    _, made = planned(store, {}, locked=locked, knows=knows, now_ns=START_NS + age_s * SECOND_NS)
    if why:
        assert made.steps == []
        assert why in made.left[0][1]
    else:
        assert [step.what for step in made.steps] == ["release it"]


def test_an_address_that_was_assigned_anew_since_the_check_is_not_released() -> None:
    store = in_use_store()
    made, todo = planned(store, {"10.0.0.17": "x"})
    run(made.release_handle("h"))
    run(made.assign_address(ip_address("10.0.0.1"), "a", "h", {"pod": "new", "namespace": "d"}))
    done: list[str] = [run(step.act()) for step in todo.steps]  # type: ignore[arg-type]
    assert done[0].startswith("kept: 10.0.0.1 was assigned anew")
    assert "10.0.0.1" in held(store)


def test_a_handle_that_is_used_again_since_the_check_is_kept() -> None:
    store = in_use_store()
    store.put(handle_key("x"), {"block": {BLOCK: 1}})
    made, todo = planned(store)
    run(made.assign_address(ip_address("10.0.0.2"), "a", "x"))
    for step in todo.steps:
        run(step.act())  # type: ignore[arg-type]
    check(store)


def test_addresses_in_use_that_ipam_knows_nothing_of_are_told() -> None:
    store = in_use_store()
    findings = find(evidence_of(store, used_by_all(store) | {"10.0.0.99": "x", "172.16.0.1": "y"}))
    assert list(map(str, findings.not_allocated)) == ["10.0.0.99"]
    assert list(map(str, findings.outside_pools)) == ["172.16.0.1"]
    assert findings.problems == 2
    _, made = planned(store, used_by_all(store) | {"10.0.0.99": "x", "172.16.0.1": "y"})
    assert (made.steps, len(made.left)) == ([], 2)


def test_addresses_that_cool_down_are_not_leaked() -> None:
    store = in_use_store()
    configure(store, ipCooldownSeconds=60)
    run(allocator(store).release_handle("h"))
    findings = find(evidence_of(store, {"10.0.0.17": "x"}))
    assert findings.problems == 0
    assert findings.allocations[ip_address("10.0.0.1")][0].is_cooling


def test_what_cannot_be_read_is_told_and_left() -> None:
    store = in_use_store()
    store.put(block_key("10.0.0.32/28"), {"cidr": 7})
    store.put(handle_key("x"), {"block": {"10.0.0.32/28": 1}})  # may be right
    evidence = evidence_of(store, used_by_all_but_broken(store))
    evidence = Evidence(
        evidence.blocks, evidence.affinities, Listed(evidence.handles.found, [(handle_key("z"), "no JSON")]),
        evidence.pools, evidence.in_use, evidence.nodes, evidence.now_ns,
    )  # fmt: skip
    findings = find(evidence)
    assert list(findings.bad_blocks) == ["10.0.0.32/28"]
    assert findings.idle_handles == []
    made = plan(allocator(store), findings, evidence, is_locked=True, knows_users=True)
    assert made.steps == []
    assert [subject for subject, _ in made.left] == ["block 10.0.0.32/28", "IPAMHandle z"]


def used_by_all_but_broken(store: MemoryStore) -> dict[str, str]:
    return {"10.0.0.1": "x", "10.0.0.17": "y"}


def test_usage_counts_every_address_of_a_pool_once() -> None:
    store = in_use_store()
    store.reserve("10.0.0.0/30", "10.0.0.240/28")
    assign(allocator(store_with()))
    found = run(usage(allocator(store).access))
    [pool] = found.pools
    assert (pool.capacity, pool.in_use, pool.reserved, pool.free) == (256, 2, 3 + 16, 256 - 2 - 19)
    assert [(block.cidr, block.in_use, block.reserved, block.free) for block in pool.blocks] == [
        (BLOCK, 1, 3, 12), ("10.0.0.16/28", 1, 0, 15)
    ]  # fmt: skip
    store.ip_pools.clear()
    [orphans] = run(usage(allocator(store).access)).pools
    assert (orphans.name, len(orphans.blocks)) == ("", 2)
    assert list(run(usage(allocator(store).access, ["other"])).pools) == []


def test_the_usage_of_a_huge_pool_is_exact() -> None:
    store = store_with("fd00::/48")
    assign(allocator(store), version=6, count=3)
    [pool] = run(usage(allocator(store).access)).pools
    assert pool.free == ip_network("fd00::/48").num_addresses - 3
