"""Which address a node gets, and why it gets none."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from integration.resources.keys import block_key
from ipam.assigning import PartlyAssigned, Request
from ipam.block import HostReservation
from ipam.errors import (
    AddressTaken,
    BlockLimit,
    ClaimConflict,
    NoNode,
    NoPool,
    NoQualifiedPool,
    TooManyForHandle,
    UnknownPool,
)
from ipam.pools import Wish
from ipam.search import fnv1_32
from tests.ipam.scenes import (
    allocator,
    assign,
    block_of,
    blocks_of,
    check,
    configure,
    handle_counts,
    held,
    state_of,
    store_with,
)
from tests.ipam.store import Clock, run


def test_the_first_address_claims_a_block_and_the_next_come_from_it() -> None:
    store = store_with()
    made = allocator(store)
    first = assign(made)
    [(cidr, block)] = blocks_of(store).items()
    assert first == [str(ip_network(cidr)[0])]
    assert block.affinity == "host:a"
    assert state_of(store, "a", cidr) == "confirmed"
    assert handle_counts(store, "h") == {cidr: 1}
    assert assign(made, handle="i") == [str(ip_network(cidr)[1])]
    assert len(blocks_of(store)) == 1
    check(store)


def test_an_address_from_an_own_block_costs_two_writes() -> None:
    store = store_with()
    made = allocator(store)
    assign(made)
    store.writes.clear()
    assign(made, handle="i")
    assert [(what, key.kind) for what, key in store.writes] == [("create", "IPAMHandle"), ("update", "IPAMBlock")]


def test_addresses_have_the_prefix_length_of_their_block() -> None:
    assignment = run(allocator(store_with()).assign(Request("a", count=2)))
    assert {each.network.prefixlen for each in assignment.whole()} == {28}


def test_many_addresses_come_from_several_blocks() -> None:
    store = store_with()
    found = assign(allocator(store), count=40)
    assert len(set(found)) == 40
    assert len(blocks_of(store)) == 3
    check(store)


def test_both_families_are_served() -> None:
    store = store_with("10.0.0.0/24", "fd00:1::/64")
    made = allocator(store)
    assert ":" in assign(made, version=6)[0]
    assert ":" not in assign(made)[0]
    check(store)


def test_requests_that_wait_together_share_one_write_of_the_block() -> None:
    store = store_with()
    made = allocator(store)
    assign(made, handle="first")
    store.writes.clear()
    requests = [Request("a", handle=f"h{number}", attributes={"pod": str(number)}) for number in range(10)]
    results = run(made.assign_all(requests))
    assert len({str(each) for result in results for each in result.whole()}) == 10
    assert [key.kind for _, key in store.writes].count("IPAMBlock") == 1
    assert held(store)[str(results[3].addresses[0].ip)] == "h3"
    check(store)


def test_a_request_that_cannot_be_served_harms_no_other() -> None:
    store = store_with()
    made = allocator(store)
    results = run(
        made.assign_all([Request("a", handle="h"), Request("nobody"), Request("a", pools=("1.0.0.0/8",)), Request("b")])
    )
    assert [type(result.error) for result in results] == [type(None), NoNode, UnknownPool, type(None)]
    assert len(results[0].addresses) == len(results[3].addresses) == 1


def test_hosts_begin_at_places_of_their_own() -> None:
    store = store_with("10.0.0.0/16", nodes=[f"n{number}" for number in range(8)])
    made = allocator(store)
    found = [assign(made, host) for host in store.nodes]
    assert len({address for [address] in found}) == 8
    assert len(blocks_of(store)) == 8
    assert fnv1_32("foobar") == 0x31F0B262  # a known answer of FNV's authors


def test_reserved_addresses_are_never_assigned_unless_asked_for() -> None:
    store = store_with("10.0.0.0/27")
    store.reserve("10.0.0.0/28", "10.0.0.17", "bad")
    made = allocator(store)
    assert assign(made, count=20) == [f"10.0.0.{number}" for number in (16, *range(18, 32))]
    assert str(run(made.assign_address(ip_address("10.0.0.3"), "a"))) == "10.0.0.3/28"


def test_other_hosts_blocks_are_borrowed_when_none_is_free() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    assign(made, "a")
    assert assign(made, "b", handle="i") == ["10.0.0.1"]
    assert block_of(store, "10.0.0.0/28").affinity == "host:a"
    check(store)


def test_with_strict_affinity_nothing_is_borrowed() -> None:
    store = store_with("10.0.0.0/28")
    configure(store, strict_affinity=True)
    made = allocator(store)
    assign(made, "a")
    result = run(made.assign(Request("b", handle="i")))
    with pytest.raises(
        PartlyAssigned, match="Assigned 0 out of 1 requested IPv4 addresses; No more free affine blocks"
    ):
        result.whole()
    with pytest.raises(ClaimConflict, match="strict affinity"):
        run(made.assign_address(ip_address("10.0.0.9"), "b"))
    check(store)


def test_a_host_that_may_claim_no_blocks_borrows() -> None:
    store = store_with("fd00::/64")
    made = allocator(store)
    assign(made, "a", version=6)
    configure(store, auto_allocate_blocks=False)
    assert len(assign(made, "b", version=6, handle="i")) == 1
    assert len(blocks_of(store)) == 1


def test_the_limit_of_blocks_ends_an_assignment_without_borrowing() -> None:
    store = store_with()
    made = allocator(store)
    result = run(made.assign(Request("a", count=40, handle="h", max_blocks=2)))
    assert len(result.addresses) == 32
    assert isinstance(result.error, BlockLimit)
    with pytest.raises(PartlyAssigned, match="may hold 2"):
        result.whole()
    configure(store, strict_affinity=True, maxBlocksPerHost=1)
    assert isinstance(run(made.assign(Request("b", count=20))).error, BlockLimit)
    check(store)


def test_twenty_blocks_are_the_limit_where_nobody_says_one() -> None:
    store = store_with("10.0.0.0/16", block_size=31)
    result = run(allocator(store).assign(Request("a", count=50)))
    assert len(result.addresses) == 40


def test_a_full_pool_leaves_the_rest_unassigned_and_says_so() -> None:
    store = store_with("10.0.0.0/28")
    result = run(allocator(store).assign(Request("a", count=20, handle="h")))
    assert len(result.addresses) == 16
    with pytest.raises(PartlyAssigned, match=r"16 out of 20.*No IPs available in pools: \[10.0.0.0/28\]"):
        result.whole()
    check(store)


def test_an_empty_block_of_another_host_is_taken_over_once_it_is_old() -> None:
    store, clock = store_with("10.0.0.0/28"), Clock()
    configure(store, strict_affinity=True)
    made = allocator(store, clock)
    run(made.ensure_block("a", Wish(4, "Workload")))
    assert run(made.assign(Request("b"))).addresses == []
    clock.advance(61)
    assert assign(made, "b") == ["10.0.0.0"]
    assert block_of(store, "10.0.0.0/28").affinity == "host:b"
    assert [key.namespace for key in store.keys("BlockAffinity")] == ["host:b"]
    check(store)


def test_an_empty_block_that_nobody_points_at_is_taken_too() -> None:
    store, clock = store_with("10.0.0.0/28"), Clock()
    made = allocator(store, clock)
    run(made.ensure_block("b", Wish(4, "Workload")))
    for key in store.keys("BlockAffinity"):
        del store.objects[key]
    clock.advance(61)
    configure(store, strict_affinity=True)
    assert assign(made, "a", handle="i") == ["10.0.0.0"]
    check(store)


def test_a_block_whose_affinity_was_lost_is_found_again() -> None:
    store = store_with("10.0.0.0/24")
    made = allocator(store)
    [first] = assign(made)
    for key in store.keys("BlockAffinity"):
        del store.objects[key]
    [second] = assign(made, handle="i")
    assert ip_address(second) == ip_address(first) + 1
    assert len(blocks_of(store)) == 1


def test_blocks_of_another_size_bar_the_place_they_overlap() -> None:
    store = store_with("10.0.0.0/27")
    other = allocator(store_with("10.0.0.0/29", block_size=29))
    assign(other)
    value = other.access.store.value(block_key("10.0.0.0/29"))  # type: ignore[attr-defined]
    store.put(block_key("10.0.0.0/29"), value)
    assert set(assign(allocator(store), count=20)) == {f"10.0.0.{number}" for number in range(16, 32)}
    with pytest.raises(ClaimConflict, match="another size"):
        run(allocator(store).assign_address(ip_address("10.0.0.12"), "a"))


@pytest.mark.parametrize("rubbish", [{}, {"cidr": "10.0.0.0/28", "allocations": "x"}, {"unallocated": [1]}])
def test_a_broken_block_stops_nobody(rubbish: dict[str, object]) -> None:
    store = store_with("10.0.0.0/27")
    store.put(block_key("10.0.0.0/28"), rubbish)
    assert len(assign(allocator(store), count=16)) == 16


def test_a_host_without_a_node_gets_nothing() -> None:
    with pytest.raises(NoNode, match="there is no Node c"):
        assign(allocator(store_with()), "c")


def test_pools_are_chosen_by_node_and_namespace() -> None:
    store = store_with("10.0.0.0/24")
    store.ip_pools.clear()
    store.add_pool("10.1.0.0/24", nodeSelector="name == 'a'", namespaceSelector="team == 'red'")
    store.add_pool("10.2.0.0/24", nodeSelector="name == 'b'")
    store.add_pool("10.3.0.0/24", nodeSelector="name == 'a'")
    store.add_pool("10.4.0.0/24", nodeSelector="!!!")
    made = allocator(store)
    assert assign(made, "a", namespace_labels=(("team", "red"),))[0].startswith("10.1.")
    assert assign(made, "a")[0].startswith("10.3.")
    assert assign(made, "b")[0].startswith("10.2.")
    assert assign(made, "a", pools=("10.2.0.0/24",))[0].startswith("10.2.")  # who names a pool gets it
    store.nodes["c"] = {}
    with pytest.raises(NoPool, match="no configured Calico pools for node c"):
        assign(made, "c")


def test_uses_and_modes_exclude_pools() -> None:
    store = store_with("10.0.0.0/24")
    store.ip_pools.clear()
    store.add_pool("10.1.0.0/24", assignmentMode="Manual")
    store.add_pool("10.2.0.0/24", allowedUses=["Tunnel"])
    store.add_pool("10.3.0.0/24", disabled=True)
    made = allocator(store)
    with pytest.raises(NoQualifiedPool, match="is for Workload"):
        assign(made)
    assert assign(made, use="Tunnel")[0].startswith("10.2.")
    assert assign(made, pools=("10.1.0.0/24",))[0].startswith("10.1.")
    with pytest.raises(UnknownPool, match="does not exist, or is not enabled"):
        assign(made, pools=("10.3.0.0/24",))
    with pytest.raises(NoPool):
        run(made.assign_address(ip_address("10.3.0.1"), "a"))
    with pytest.raises(NoQualifiedPool):
        run(made.assign_address(ip_address("10.2.0.1"), "a", use="Workload"))


def test_blocks_too_small_for_the_hosts_own_addresses_are_no_use() -> None:
    store = store_with("10.0.0.0/24", block_size=31)
    with pytest.raises(NoQualifiedPool, match="/29 or larger"):
        assign(allocator(store), reservation=HostReservation(3, 1))


def test_load_balancers_hold_blocks_of_their_own() -> None:
    store = store_with()
    store.ip_pools.clear()
    store.add_pool("10.9.0.0/24", allowedUses=["LoadBalancer"])
    assign(allocator(store), "whatever", use="LoadBalancer")
    assert [key.namespace for key in store.keys("BlockAffinity")] == ["virtual:load-balancer"]
    check(store)


def test_a_handle_may_be_bounded() -> None:
    store = store_with()
    made = allocator(store)
    assert len(assign(made, handle="vm", max_for_handle=1)) == 1
    with pytest.raises(TooManyForHandle):
        assign(made, handle="vm", max_for_handle=1)
    check(store)


def test_an_address_that_is_asked_for_is_given_once() -> None:
    store = store_with()
    made = allocator(store)
    assert str(run(made.assign_address(ip_address("10.0.0.77"), "a", "h", {"pod": "x"}))) == "10.0.0.77/28"
    assert state_of(store, "a", "10.0.0.64/28") == "confirmed"
    with pytest.raises(AddressTaken):
        run(made.assign_address(ip_address("10.0.0.77"), "b", "i"))
    assert str(run(made.assign_address(ip_address("10.0.0.78"), "b", "i"))) == "10.0.0.78/28"  # borrowed
    with pytest.raises(NoPool):
        run(made.assign_address(ip_address("10.7.0.1"), "b", "i"))
    assert run(made.attribute(ip_address("10.0.0.77"))) == {"handle_id": "h", "secondary": {"pod": "x"}}
    check(store)


def test_a_pool_that_selects_the_node_no_more_gets_its_empty_blocks_back() -> None:
    store = store_with("10.0.0.0/24", "10.1.0.0/24")
    made = allocator(store)
    assign(made, pools=("10.0.0.0/24",), handle="h")
    assign(made, pools=("10.1.0.0/24",), handle="i")
    store.add_pool("10.0.0.0/24", "pool-0", blockSize=28, nodeSelector="name == 'b'")
    run(made.release_handle("h"))
    assert all(cidr.startswith("10.1.") for cidr in blocks_of(store))
    assert len(store.keys("BlockAffinity")) == 1
    check(store)
