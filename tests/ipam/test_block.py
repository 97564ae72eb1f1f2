"""Blocks as values: what is free, what is held, and the form that Calico stores."""

from __future__ import annotations

import copy
import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.block import HostReservation, new_block, read_block
from ipam.errors import AddressTaken, BrokenBlock
from ipam.moments import go_text_of, ns_of, text_of
from ipam.reserved import Reserved
from tests.ipam.store import START_NS

NOTHING = Reserved()
SECOND = 1_000_000_000
# As Calico's nodes write it.
CALICO = {
    "cidr": "10.65.79.0/30",
    "affinity": "host:node1",
    "affinity_claim_time": "2026-08-01T10:00:00Z",
    "allocations": [0, None, 1, None],
    "unallocated": [3, 1],
    "attributes": [
        {"handle_id": "ipip-tunnel-addr-node1", "secondary": {"node": "node1", "type": "ipipTunnelAddress"}},
        {"handle_id": "k8s-pod-network.abc", "secondary": {"node": "node1", "pod": "web-0", "namespace": "default"}},
    ],
    "sequenceNumber": 1754042400000000123,
    "sequenceNumberForAllocation": {"0": 1754042400000000000, "2": 1754042400000000122},
    "deleted": False,
}


def fresh(cidr: str = "10.0.0.0/29") -> Any:
    return new_block(ip_network(cidr), "host:a", START_NS)


def test_calicos_form_survives_reading_and_writing() -> None:
    value = {**CALICO, "ofANewerVersion": {"x": 1}}
    written = read_block(copy.deepcopy(value), "10.65.79.0/30").to_json()
    assert written == {**value, "sequenceNumber": CALICO["sequenceNumber"] + 1}  # type: ignore[operator]
    assert list(written)[:4] == ["cidr", "affinity", "affinity_claim_time", "allocations"]


def test_a_new_block_is_as_calico_makes_it() -> None:
    value = new_block(ip_network("fd00::10/126"), "host:a", START_NS).to_json()
    assert value == {
        "cidr": "fd00::10/126",
        "affinity": "host:a",
        "affinity_claim_time": "2027-01-15T08:00:00Z",
        "allocations": [None] * 4,
        "unallocated": [0, 1, 2, 3],
        "attributes": [],
        "sequenceNumber": START_NS + 1,
        "sequenceNumberForAllocation": {},
        "deleted": False,
    }
    json.dumps(value)


def test_addresses_are_given_out_in_the_order_in_which_they_became_free() -> None:
    block = fresh()
    assert block.assign_some(3, "h", {}, NOTHING) == [0, 1, 2]
    block.release([1], START_NS)
    block.collect(START_NS, 0)
    assert block.unallocated == [3, 4, 5, 6, 7, 1]
    assert block.assign_some(6, "h", {}, NOTHING) == [3, 4, 5, 6, 7, 1]
    assert block.assign_some(1, "h", {}, NOTHING) == []


def test_an_allocation_remembers_the_blocks_number_before_the_write() -> None:
    block = fresh()
    block.assign_some(1, "h", {}, NOTHING)
    value = block.to_json()
    assert value["sequenceNumberForAllocation"] == {"0": START_NS}
    assert value["sequenceNumber"] == START_NS + 1


def test_identical_attributes_are_stored_once_and_forgotten_with_the_last_address() -> None:
    block = fresh()
    block.assign_some(2, "h", {"node": "a"}, NOTHING)
    block.assign_some(1, "i", {"node": "a"}, NOTHING)
    block.assign_some(1, "h", {"node": "a"}, NOTHING)
    assert block.allocations[:4] == [0, 0, 1, 0]
    block.release([0, 1, 3], START_NS)
    block.collect(START_NS + 2 * SECOND, 0)
    assert block.attributes == [{"handle_id": "i", "secondary": {"node": "a"}}]
    assert block.allocations[2] == 0


def test_reserved_addresses_are_passed_over_and_keep_their_place() -> None:
    block = fresh()
    reserved = Reserved([ip_network("10.0.0.0/31"), ip_network("10.0.0.4/32")])
    assert block.free_count(reserved) == 5
    assert block.assign_some(9, "h", {}, reserved) == [2, 3, 5, 6, 7]
    assert block.unallocated == [0, 1, 4]
    block.assign(1, "h", {})  # by its name it may be had
    with pytest.raises(AddressTaken, match=r"10\.0\.0\.1 is assigned already"):
        block.assign(1, "h", {})


def test_a_released_address_rests_before_it_is_free() -> None:
    block = fresh()
    block.assign_some(1, "h", {}, NOTHING)
    assert block.release([0], START_NS) == {"h": 1}
    assert block.attribute(0) == {"releasedAt": text_of(START_NS)}
    assert not block.is_empty()
    with pytest.raises(AddressTaken, match="cools down"):
        block.assign(0, "h", {})
    # The stored time has whole seconds: it may be a second early, so one more is waited.
    assert block.collect(START_NS + 10 * SECOND - 200_000_000, 10) == 0
    assert block.collect(START_NS + 11 * SECOND, 10) == 1
    assert block.is_empty()
    assert block.sequence_numbers == {}


def test_without_a_cool_down_no_clock_matters() -> None:
    block = fresh()
    block.assign_some(1, "h", {}, NOTHING)
    block.release([0], START_NS + 3600 * SECOND)  # by a node whose clock is ahead
    assert block.collect(START_NS, 0) == 1


def test_releasing_by_address_makes_the_old_sequence_number_useless() -> None:
    block = fresh()
    block.assign_some(2, "h", {}, NOTHING)
    block.to_json()
    block.release([0], START_NS)
    block.release([1], START_NS, by_handle=True)
    assert block.sequence_numbers == {"0": START_NS + 1, "1": START_NS}


def test_a_windows_node_sets_addresses_aside() -> None:
    block = new_block(ip_network("10.0.0.0/29"), "host:w", START_NS, HostReservation(3, 1))
    assert block.unallocated == [3, 4, 5, 6]
    assert block.is_empty()
    assert block.attributes[0]["handle_id"] == "windows-reserved-ipam-handle"
    block.assign_some(1, "h", {}, NOTHING)
    assert not block.is_empty()


@pytest.mark.parametrize(("change", "why"), [
    ({"allocations": [None] * 3}, "it has not 4 allocations"),
    ({"allocations": [0, None, 7, None]}, "attribute 7, which is not there"),
    ({"allocations": [0, None, True, None]}, "attribute True"),
    ({"allocations": None}, "it has not 4 allocations"),
    ({"cidr": "10.65.80.0/30"}, "says of itself"),
    ({"cidr": "10.65.79.0/33"}, "prefix length"),
    ({"cidr": None}, "NoneType"),
    ({"attributes": ["x", "y"]}, "no object"),
    ({"attributes": [{"handle_id": 7}, {}]}, "shape"),
    ({"sequenceNumber": "x"}, "invalid literal"),
    ({"unallocated": "x"}, "no list"),
])  # fmt: skip
def test_what_is_no_block_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(BrokenBlock, match=why):
        read_block({**copy.deepcopy(CALICO), **change}, "10.65.79.0/30")


def test_a_block_that_claims_to_be_huge_costs_nothing() -> None:
    with pytest.raises(BrokenBlock):
        read_block({"cidr": "10.0.0.0/8", "allocations": []}, "10.0.0.0/8")
    with pytest.raises(BrokenBlock, match="larger than any block"):
        read_block({"cidr": "fd00::/64", "allocations": []}, "fd00::/64")


@pytest.mark.parametrize("unallocated", [[0, 1, 3], [3, 3, 1], [3], [], [3, 1, 99, -1], ["x", 3]])
def test_an_address_that_somebody_holds_is_never_free_whatever_the_list_says(unallocated: list[Any]) -> None:
    block = read_block({**copy.deepcopy(CALICO), "unallocated": unallocated}, "10.65.79.0/30")
    assert sorted(block.unallocated) == [1, 3]


def test_a_handle_ends_at_a_carriage_return() -> None:
    value = copy.deepcopy(CALICO)
    value["attributes"][1]["handle_id"] = "vxlan-tunnel-addr-w\r\nx"  # type: ignore[index]
    assert read_block(value, "10.65.79.0/30").ordinals_of("vxlan-tunnel-addr-w") == [2]


def test_the_affinity_of_old_versions_is_understood() -> None:
    value = {**copy.deepcopy(CALICO), "affinity": None, "hostAffinity": "node1"}
    assert read_block(value, "10.65.79.0/30").affinity == "host:node1"


def test_addresses_of_low_ipv6_blocks_are_ipv6() -> None:
    block = new_block(ip_network("::8/125"), "host:a", START_NS)
    assert str(block.interface(1)) == "::9/125"
    assert block.ordinal(ip_address("::9")) == 1


def test_times_are_written_as_go_writes_them() -> None:
    assert text_of(START_NS) == "2027-01-15T08:00:00Z"
    assert ns_of("2027-01-15T09:00:00.5+01:00") == 1_800_000_000_500_000_000
    assert go_text_of(START_NS) == "2027-01-15 08:00:00.123456789 +0000 UTC"
    assert go_text_of(1_800_000_000_500_000_000) == "2027-01-15 08:00:00.5 +0000 UTC"
    with pytest.raises(ValueError, match="no RFC 3339"):
        ns_of("yesterday")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.sampled_from(["h", "i", None]), st.integers(0, 4))))
def test_addresses_are_free_or_held_and_never_both(steps: list[tuple[bool, int, str | None, int]]) -> None:
    block, now = fresh("10.0.0.0/28"), START_NS
    held: dict[int, str | None] = {}
    for is_assigning, count, handle, seconds in steps:
        now += seconds * SECOND
        block.collect(now, 2)
        if is_assigning:
            taken = block.assign_some(count, handle, {"n": str(count)}, NOTHING)
            assert not set(taken) & held.keys()
            held |= dict.fromkeys(taken, handle)
        else:
            given = [ordinal for ordinal in sorted(held) if held[ordinal] == handle][:count]
            assert block.release(given, now) == ({handle: len(given)} if given and handle else {})
            for ordinal in given:
                del held[ordinal]
        block = read_block(json.loads(json.dumps(block.to_json())), "10.0.0.0/28")
        resting = {ordinal for ordinal in range(16) if block.is_cooling(ordinal)}
        assert sorted([*block.unallocated, *held, *resting]) == list(range(16))
        assert all(set(block.ordinals_of(each)) == {o for o in held if held[o] == each} for each in ("h", "i"))
