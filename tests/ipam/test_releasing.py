"""Addresses that are given back, by themselves or by their handle; and blocks that are given up."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from integration.resources.keys import Key, affinity_key, block_key
from ipam.assigning import Request
from ipam.errors import BadHandle, BadSequence, NoPool, NotAssigned, NotEmpty
from ipam.handles import handle_key
from ipam.pools import Wish
from ipam.releasing import Release
from ipam.settings import BadSettings, Settings
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
from tests.ipam.store import Clock, MemoryStore, run


def test_a_released_address_is_the_last_to_be_given_out_again() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    found = assign(made, count=3)
    assert run(made.release([Release(ip_address(found[0]))])).whole() == []
    assert handle_counts(store, "h") == {"10.0.0.0/28": 2}
    assert block_of(store, "10.0.0.0/28").unallocated[-1] == 0
    check(store)


def test_releasing_what_nobody_holds_is_no_error_and_no_write() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    assign(made)
    store.writes.clear()
    wanted = ["10.0.0.5", "10.9.9.9", "10.0.0.5"]
    outcome = run(made.release([Release(ip_address(address)) for address in wanted]))
    assert sorted(map(str, outcome.whole())) == ["10.0.0.5", "10.9.9.9"]
    assert outcome.released == []
    assert store.writes == []


def test_an_address_is_released_only_if_it_is_still_what_was_seen() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    [address] = map(ip_address, assign(made))
    number = block_of(store, "10.0.0.0/28").sequence_of(0)
    with pytest.raises(BadHandle):
        run(made.release([Release(address, "other")])).whole()
    with pytest.raises(BadSequence):
        run(made.release([Release(address, "h", number - 1)])).whole()
    assert run(made.release([Release(address, "h", number)])).released == [address]
    run(made.assign_address(address, "a", "h"))
    with pytest.raises(BadSequence):
        run(made.release([Release(address, "h", number)])).whole()
    check(store)


def test_addresses_whose_pool_is_gone_are_found_and_released() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    [address] = map(ip_address, assign(made))
    store.ip_pools.clear()
    assert run(made.release([Release(address)])).released == [address]
    check(store)


def test_one_broken_block_keeps_no_other_address() -> None:
    store = store_with("10.0.0.0/27")
    made = allocator(store)
    run(made.assign_address(ip_address("10.0.0.1"), "a", "h"))
    store.put(block_key("10.0.0.16/28"), {})
    outcome = run(made.release([Release(ip_address("10.0.0.17")), Release(ip_address("10.0.0.1"))]))
    assert list(map(str, outcome.released)) == ["10.0.0.1"]
    assert list(map(str, outcome.failed)) == ["10.0.0.17"]


def test_a_handle_releases_all_it_holds_and_vanishes() -> None:
    store = store_with()
    made = allocator(store)
    assign(made, count=20)
    assign(made, handle="i")
    assert len(run(made.handle_addresses("h"))) == 20
    run(made.release_handle("h"))
    assert set(held(store).values()) == {"i"}
    assert handle_key("h") not in store.objects
    with pytest.raises(NotAssigned):
        run(made.release_handle("h"))
    with pytest.raises(NotAssigned):
        run(made.handle_addresses("h"))
    check(store)


def test_handles_that_are_released_together_share_one_write_of_the_block() -> None:
    store = store_with()
    made = allocator(store)
    names = [f"h{number}" for number in range(10)]
    run(made.assign_all([Request("a", handle=name) for name in names]))
    store.writes.clear()
    assert list(run(made.release_handles([*names, "unknown"]))) == ["unknown"]
    assert [key.kind for _, key in store.writes].count("IPAMBlock") == 1
    assert held(store) == {}
    check(store)


def test_a_handle_that_says_too_much_is_cleared_by_its_release() -> None:
    # What is left when a node dies between counting the handle up and writing the block.
    store = store_with()
    made = allocator(store)
    assign(made, handle="other")
    [cidr] = blocks_of(store)
    store.put(handle_key("h"), {"block": {cidr: 1, "10.0.0.240/28": 2}})
    run(made.release_handle("h"))
    assert handle_key("h") not in store.objects
    check(store)


def test_who_is_about_to_write_the_block_does_not_lose_the_handle_that_is_cleared() -> None:
    store = store_with()
    made, other = allocator(store), allocator(store)
    assign(made, handle="x")
    fired: list[Key] = []

    def release_meanwhile(what: str, key: Key) -> None:
        if what == "update" and key.kind == "IPAMBlock" and not fired:
            fired.append(key)
            run(other.release_handle("h"))

    store.before_write = release_meanwhile
    assign(made, handle="h")
    assert fired
    check(store)


def test_a_cool_down_keeps_addresses_from_being_used_again() -> None:
    store, clock = store_with("10.0.0.0/28"), Clock()
    configure(store, ipCooldownSeconds=30)
    made = allocator(store, clock)
    assign(made, count=16)
    run(made.release_handle("h"))
    assert held(store) == {}
    assert run(made.assign(Request("a"))).addresses == []
    clock.advance(32)
    assert len(assign(made, count=16, handle="i")) == 16
    check(store)


def test_an_empty_block_that_nobody_holds_is_removed() -> None:
    store = store_with("10.0.0.0/28")
    made = allocator(store)
    assign(made)
    run(made.release_host("a"))
    assert block_of(store, "10.0.0.0/28").affinity is None
    assert store.keys("BlockAffinity") == []
    run(made.release_handle("h"))
    assert blocks_of(store) == {}


def test_a_host_that_is_removed_keeps_its_addresses_in_blocks_of_nobody() -> None:
    store = store_with("10.0.0.0/24", "fd00::/64")
    made = allocator(store)
    assign(made)
    assign(made, version=6, handle="i")
    store.put(Key("IPAMHost", "a"), {})
    run(made.remove_host("a"))
    assert {block.affinity for block in blocks_of(store).values()} == {None}
    assert store.keys("BlockAffinity") == []
    assert store.keys("IPAMHost") == []
    assert len(held(store)) == 2
    check(store)


def test_blocks_in_use_are_kept_when_they_must_be_empty() -> None:
    store = store_with()
    made = allocator(store)
    assign(made)
    run(made.claim_affinity(ip_network("10.0.0.0/27"), "a"))
    count = len(blocks_of(store))
    with pytest.raises(NotEmpty):
        run(made.release_host("a", must_be_empty=True))
    assert 1 == len(blocks_of(store)) < count
    run(made.release_affinity(ip_network("10.0.0.0/24"), "a"))
    assert store.keys("BlockAffinity") == []
    check(store)


def test_claiming_a_range_claims_its_blocks_and_names_those_of_others() -> None:
    store = store_with()
    made = allocator(store)
    run(made.assign_address(ip_address("10.0.0.40"), "b"))
    claimed, failed = run(made.claim_affinity(ip_network("10.0.0.0/26"), "a"))
    assert claimed == ["10.0.0.0/28", "10.0.0.16/28", "10.0.0.48/28"]
    assert failed == ["10.0.0.32/28"]
    assert run(made.claim_affinity(ip_network("10.0.0.0/26"), "a"))[0] == claimed  # again
    for network, why in (("10.9.0.0/24", "not in an enabled pool"), ("10.0.0.0/30", "smaller than a block")):
        with pytest.raises(NoPool, match=why):
            run(made.claim_affinity(ip_network(network), "a"))
    check(store)


def test_releasing_a_pool_releases_every_hosts_affinities_in_it_and_no_other() -> None:
    store = store_with("10.0.0.0/24", "10.1.0.0/24")
    made = allocator(store)
    for host in "ab":
        for pool in ("10.0.0.0/24", "10.1.0.0/24"):
            assign(made, host, pools=(pool,), handle=f"{host}{pool[3]}")
    run(made.release_pool(ip_network("10.0.0.0/24")))
    assert {key.name[:5] for key in store.keys("BlockAffinity")} == {"10.1."}
    assert len(held(store)) == 4
    check(store)


def test_an_affinity_whose_block_is_gone_is_removed() -> None:
    store = store_with()
    made = allocator(store)
    store.put(affinity_key("host:a", "10.0.0.0/28"), {"state": "confirmed"})
    run(made.release_host("a"))
    assert store.keys("BlockAffinity") == []
    tools_error = run(made.release_affinity(ip_network("10.0.0.0/28"), "a"))
    assert tools_error is None


def test_an_affinity_that_lies_is_removed_and_the_block_stays_with_its_host() -> None:
    store = store_with("10.0.0.0/27")
    made = allocator(store)
    run(made.assign_address(ip_address("10.0.0.1"), "b", "h"))
    store.put(affinity_key("host:a", "10.0.0.0/28"), {"state": "confirmed"})
    assert assign(made, "a", handle="i")[0].startswith("10.0.0.16")
    assert [str(key) for key in store.keys("BlockAffinity")] == [
        "BlockAffinity host:b/10.0.0.0-28", "BlockAffinity host:a/10.0.0.16-28"
    ]  # fmt: skip
    check(store)


@pytest.mark.parametrize("state", ["pending", "pendingDeletion"])
def test_an_affinity_left_half_made_is_confirmed_when_its_host_comes_back(state: str) -> None:
    store = store_with("10.0.0.0/28")
    assign(allocator(store))
    store.put(affinity_key("host:a", "10.0.0.0/28"), {"state": state})
    assert assign(allocator(store), handle="i") == ["10.0.0.1"]
    assert state_of(store, "a", "10.0.0.0/28") == "confirmed"


@pytest.mark.parametrize("value", [{}, {"state": ""}])
def test_affinities_of_old_versions_say_no_state_and_are_confirmed(value: dict[str, str]) -> None:
    store = store_with("10.0.0.0/28")
    assign(allocator(store))
    store.put(affinity_key("host:a", "10.0.0.0/28"), value)
    assert assign(allocator(store), handle="i") == ["10.0.0.1"]
    assert store.value(affinity_key("host:a", "10.0.0.0/28")) == value


def test_an_affinity_whose_block_is_missing_makes_the_block_again() -> None:
    store = store_with("10.0.0.0/28")
    store.put(affinity_key("host:a", "10.0.0.0/28"), {"state": "confirmed"})
    assert assign(allocator(store)) == ["10.0.0.0"]
    check(store)


def test_a_block_may_be_held_before_it_is_used() -> None:
    store = store_with()
    made = allocator(store)
    cidr = run(made.ensure_block("a", Wish(4, "Workload")))
    assert run(made.ensure_block("a", Wish(4, "Workload"))) == cidr
    assert list(blocks_of(store)) == [cidr]


def test_settings_are_written_once_and_refused_when_they_exclude_each_other() -> None:
    store = MemoryStore()
    made = allocator(store)
    assert run(made.settings()) == Settings()
    assert run(made.configure(Settings(strict_affinity=True, max_blocks_per_host=4, cooldown_s=7)))
    assert store.value(Key("IPAMConfig", "default")) == {
        "strict_affinity": True, "auto_allocate_blocks": True, "maxBlocksPerHost": 4,
        "kubeVirtVMAddressPersistence": "Enabled", "ipCooldownSeconds": 7,
    }  # fmt: skip
    assert not run(made.configure(run(made.settings())))
    for bad in (Settings(auto_allocate_blocks=False), Settings(max_blocks_per_host=4), Settings(cooldown_s=-1)):
        with pytest.raises(BadSettings):
            run(made.configure(bad))
