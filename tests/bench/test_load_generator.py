"""The judge of the benchmarks must itself be right: what it has to notice, on small tables."""

from __future__ import annotations

import random
import socket

import pytest

from bgp.families import IPV4
from bgp.wire.nlri import split_nlri
from tests.bench.daemons import DAEMONS
from tests.bench.report import summarise
from tests.bench.scenarios import Result, Settings, full_table_one_peer
from tests.bench.table import (
    Table,
    competing_tables,
    full_table,
    identity_of,
    make_attribute_sets,
    make_prefixes,
    make_table,
)
from tests.bench.tally import SPLIT_IPV4, Expectation, Tally

NEXT_HOP = socket.inet_aton("198.18.1.1")


@pytest.fixture(scope="module")
def table() -> Table:
    return full_table(200, 20, 65001, NEXT_HOP)


def fed(table: Table, updates: list[bytes], expected: Expectation | None = None) -> Tally:
    tally = Tally(expected or Expectation.of([table], None, frozenset({NEXT_HOP})), is_ibgp=False)
    tally.feed(b"".join(updates), 1.0)
    return tally


def with_octet(update: bytes, at: int, value: int) -> bytes:
    return update[:at] + bytes([value]) + update[at + 1 :]


def test_the_whole_table_is_right(table: Table) -> None:
    tally = fed(table, table.updates)
    assert (tally.verdict(), tally.is_complete, tally.doubled, tally.announcements) == ([], True, 0, 200)


def test_any_cut_of_the_stream_gives_the_same(table: Table) -> None:
    tally = Tally(Expectation.of([table]), is_ibgp=False)
    for octet in table.stream:
        tally.feed(bytes([octet]), 2.0)
    assert (tally.is_complete, tally.last_update_at) == (True, 2.0)


def test_a_lost_update_is_seen(table: Table) -> None:
    assert "10 prefixes lost" in fed(table, table.updates[1:]).verdict()[0]


def test_a_doubled_update_is_counted(table: Table) -> None:
    assert fed(table, [*table.updates, table.updates[3]]).doubled == 10


def test_a_prefix_that_nobody_sent_is_seen(table: Table) -> None:
    stranger = full_table(220, 20, 65001, NEXT_HOP, seed=9)
    verdict = fed(stranger, stranger.updates, Expectation.of([table])).verdict()
    assert any("nobody sent" in line for line in verdict)


def test_another_routes_attributes_are_seen() -> None:
    prefixes = make_prefixes(40)
    groups = [prefixes[:20], prefixes[20:]]
    sets = make_attribute_sets(2, 65001, [3, 4], seed=1)
    swapped = make_table(groups, sets[::-1], NEXT_HOP)
    tally = fed(swapped, swapped.updates, Expectation.of([make_table(groups, sets, NEXT_HOP)]))
    assert tally.verdict() == ["40 prefixes with another route's attributes"]


def test_one_altered_octet_of_an_as_path_is_seen(table: Table) -> None:
    at = table.updates[0].index(b"\x40\x02") + 12
    altered = with_octet(table.updates[0], at, table.updates[0][at] ^ 1)
    assert "10 prefixes with altered attributes" in fed(table, [altered, *table.updates[1:]]).verdict()[0]


def test_a_foreign_next_hop_is_seen(table: Table) -> None:
    at = table.updates[0].index(NEXT_HOP)
    verdict = fed(table, [with_octet(table.updates[0], at, 10), *table.updates[1:]]).verdict()
    assert verdict[0].startswith("next hop 0a120101")


def test_a_missing_local_pref_is_seen_on_ibgp(table: Table) -> None:
    tally = Tally(Expectation.of([table]))
    tally.feed(table.stream, 1.0)
    assert tally.verdict()[0].startswith("LOCAL_PREF ''")


def test_the_withdrawal_of_everything_leaves_nothing(table: Table) -> None:
    tally = fed(table, [*table.updates, table.withdrawals()])
    assert (tally.routes, tally.withdrawals) == ({}, 200)


def test_order_of_attributes_and_communities_is_not_identity() -> None:
    one = bytes.fromhex("400101004002060201000000014003040a000001c008080000000200000001")
    two = bytes.fromhex("d0080008000000010000000240010100400206020100000001")
    assert identity_of(one)[0] == identity_of(two)[0]


def test_the_best_of_two_tables_is_what_is_expected() -> None:
    peers = [(65001, NEXT_HOP), (65002, socket.inet_aton("198.18.1.2"))]
    tables, best = competing_tables(200, 20, peers)
    expected = Expectation.of(tables, best)
    assert sorted(best) == [0] * 10 + [1] * 10
    for i, winner in enumerate(best):
        paths = [len(identity_of(table.blocks[i])[0].split(b"|")[1]) for table in tables]
        assert paths[winner] < paths[1 - winner]
        assert {expected.routes[prefix] for prefix in tables[0].groups[i]} == {winner * 20 + i}
    assert {frozenset(map(bytes, group)) for group in tables[0].groups} == {frozenset(g) for g in tables[1].groups}


def test_prefixes_are_canonical_distinct_and_cut_as_the_engine_cuts_them() -> None:
    prefixes = make_prefixes(5000, seed=7)
    run = b"".join(prefixes)
    assert len(set(prefixes)) == 5000
    assert SPLIT_IPV4(run) == prefixes == split_nlri(run, IPV4)


def test_attribute_sets_have_the_path_lengths_asked_for() -> None:
    lengths = [random.Random(1).randint(3, 6) for _ in range(50)]
    sets = make_attribute_sets(50, 65001, lengths, seed=1)
    assert [len(each.as_path) for each in sets] == lengths
    assert len({identity_of(each.encode(NEXT_HOP))[0] for each in sets}) == 50


def test_a_table_goes_through_a_process_that_copies_bytes() -> None:
    result = full_table_one_peer(DAEMONS["copy"], Settings(scale=0.001, daemon_cpu=None, timeout_s=30))
    assert (result.problems, result.figures["announcements"]) == ([], 1000)
    assert result.peak_mib > 1


def test_a_failed_run_does_not_spoil_the_median() -> None:
    runs = [Result("a", "x", seconds=2.0), Result("a", "x", problems=["died"]), Result("a", "x", seconds=4.0)]
    (summary,) = summarise(runs)
    assert (summary.seconds, summary.runs, summary.problems) == (3.0, 3, ["died"])
