"""RFC 4456 §6 and §8 by themselves: who is told, and what is added to a block."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.wire.attributes import attribute, build, split_block
from reflector.rules import Reflector

CLUSTER, ORIGINATOR = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 7])


@pytest.mark.parametrize(
    ("from_client", "to_client", "meshed_clients", "passes"),
    [
        (True, True, False, True),
        (True, True, True, False),  # they tell each other
        (True, False, False, True),
        (False, True, False, True),
        (False, False, False, False),  # that is what the full mesh of non-clients is for
    ],
)
def test_who_is_told(from_client: bool, to_client: bool, meshed_clients: bool, passes: bool) -> None:
    reflector = Reflector(CLUSTER, client_to_client=not meshed_clients)
    assert reflector.passes(from_client=from_client, to_client=to_client) is passes


def test_the_first_reflector_names_originator_and_cluster_in_ascending_order() -> None:
    block = build(next_hop=b"\xc0\0\2\1", local_pref=100, extended_communities=bytes(8)).block
    made = split_block(Reflector(CLUSTER).reflected(block, ORIGINATOR))
    assert [code for _, code, _ in made] == [1, 2, 3, 5, 9, 10, 16]
    assert {code: (flags, value) for flags, code, value in made if code in (9, 10)} == {
        9: (0x80, ORIGINATOR),
        10: (0x80, CLUSTER),
    }


def test_the_next_one_keeps_the_originator_and_puts_its_cluster_in_front() -> None:
    block = build(next_hop=b"\xc0\0\2\1", local_pref=100).block
    once = Reflector(CLUSTER).reflected(block, ORIGINATOR)
    twice = Reflector(bytes([10, 0, 0, 2])).reflected(once, bytes([10, 0, 0, 1]))
    values = {code: value for _, code, value in split_block(twice)}
    assert values[9] == ORIGINATOR
    assert values[10] == bytes([10, 0, 0, 2]) + CLUSTER


def test_a_cluster_list_that_outgrows_one_octet_of_length_stays_whole() -> None:
    clusters = bytes([10, 1, 1, 1]) * 63
    block = attribute(0x40, 1, b"\0") + attribute(0x40, 2, b"") + attribute(0x80, 10, clusters)
    made = Reflector(CLUSTER).reflected(block, ORIGINATOR)
    assert [(code, len(value)) for _, code, value in split_block(made)] == [(1, 1), (2, 0), (9, 4), (10, 256)]


attributes = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 4, 5, 8, 9, 10, 16, 32, 200]), st.integers(1, 70)),
    unique_by=lambda pair: pair[0],
).map(lambda some: b"".join(attribute(0xC0, code, bytes([code]) * 4 * size) for code, size in some))


@given(attributes)
def test_all_else_stays_octet_for_octet_and_in_order(block: bytes) -> None:
    made = split_block(Reflector(CLUSTER).reflected(block, ORIGINATOR))
    before = split_block(block)
    assert [item for item in made if item[1] not in (9, 10)] == [item for item in before if item[1] not in (9, 10)]
    had = {code: value for _, code, value in before}
    values = {code: value for _, code, value in made}
    assert len(values) == len(made)
    assert values[9] == had.get(9, ORIGINATOR)
    assert values[10] == CLUSTER + had.get(10, b"")
