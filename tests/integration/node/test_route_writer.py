from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from bgp.config import KernelConfig
from bgp.families import IPV4, IPV6, Family, Nlri, parse_address, parse_prefix
from bgp.ports import FibRoute, NextHop
from felix.kernel import netlink
from felix.kernel.netlink import KernelError
from felix.kernel.rtnetlink import AF_INET, RTM_NEWROUTE, RouteDecoder, Via
from felix.kernel.state import KernelState
from integration.node.route_writer import ADD, REPLACE, RouteWriter

NET = parse_prefix("10.1.0.0/26")[1]
NET6 = parse_prefix("fd00:1::/64")[1]
A = FibRoute((NextHop(parse_address("10.9.0.2"), 3),))
B = FibRoute((NextHop(parse_address("10.9.0.3"), 3),))
UNREACHABLE = KernelError(errno.ENETUNREACH, "Nexthop has invalid gateway")
EXISTS = KernelError(errno.EEXIST, "File exists")


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        self.told.append((name, fields))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


class Bench:
    """A writer and the little of a kernel that it needs: a table of what was told, errors on demand."""

    def __init__(self, **config: Any) -> None:
        self.state = KernelState((254,))
        self.events = Events()
        self.writer = RouteWriter(KernelConfig(**config), self.state, self.events)
        self.now = 1000.0

    def want(self, changes: dict[Nlri, FibRoute | None], family: Family = IPV4) -> None:
        self.writer.want(family, changes)

    def write(self, errors: dict[int, KernelError] | None = None) -> list[tuple[str, Nlri, Via]]:
        """One batch; what it asked for."""
        batch = self.writer.plan(1000, 1)
        asked = []
        for message in batch.messages:
            ((kind, flags, _, _, start, end),) = netlink.frames(message)
            what, via = RouteDecoder().decode(message, start, end)
            how = {ADD: "add", REPLACE: "replace"}[flags & ~1] if kind == RTM_NEWROUTE else "delete"
            asked.append((how, what, via))
        self.writer.settle(batch, errors or {}, self.now)
        return asked

    def asked(self, errors: dict[int, KernelError] | None = None) -> list[str]:
        return [how for how, _, _ in self.write(errors)]

    def resynced(self, found: dict[tuple[Nlri, int], Via]) -> None:
        async def step() -> None: ...

        asyncio.run(self.writer.resynced(AF_INET, found, step))

    def ours(self, route: FibRoute = A, metric: int = 32) -> Via:
        """Our route as the kernel shows it."""
        hops = self.writer.templates.of(IPV4, route).via.hops
        return Via(AF_INET, protocol=12, metric=metric, hops=hops)


def foreign(metric: int = 32) -> Via:
    return Via(AF_INET, protocol=4, metric=metric)


def test_a_new_route_is_added_only_where_nothing_is_and_changed_in_place() -> None:
    bench = Bench()
    bench.want({NET: A})
    ((how, what, via),) = bench.write()
    assert (how, what) == ("add", NET)
    assert (via.protocol, via.metric, via.table) == (12, 32, 254)
    bench.want({NET: B})
    assert bench.asked() == ["replace"]
    bench.want({NET: None})
    assert bench.asked() == ["delete"]
    assert not bench.writer.has_work


def test_a_route_wanted_again_as_it_is_costs_no_write() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.want({NET: FibRoute((NextHop(parse_address("10.9.0.2"), 3),))})
    assert bench.asked() == []


def test_a_route_wanted_and_given_up_before_its_turn_is_never_written() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.want({NET: None})
    assert bench.asked() == []


def test_another_metric_is_added_before_the_old_one_goes() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.want({NET: FibRoute(A.next_hops, metric=50)})
    assert [(how, via.metric) for how, _, via in bench.write()] == [("add", 50), ("delete", 32)]


def test_a_full_batch_leaves_the_rest_for_the_next() -> None:
    bench = Bench()
    bench.want({bytes([24, 10, 1, number]): A for number in range(5)})
    assert len(bench.writer.plan(3, 1).messages) == 3
    assert bench.writer.pending == 2
    assert len(bench.writer.plan(3, 4).messages) == 2
    assert not bench.writer.has_work


@pytest.mark.parametrize("number", [0, 2, 4])
def test_one_refused_route_harms_no_other_and_is_tried_again_later(number: int) -> None:
    bench = Bench()
    prefixes = [bytes([24, 10, 1, index]) for index in range(5)]
    bench.want(dict.fromkeys(prefixes, A))
    bench.write({number: UNREACHABLE})
    assert bench.events.told == [
        (
            "fib_error",
            {
                "prefix": f"10.1.{number}.0/24",
                "error": "ENETUNREACH: Nexthop has invalid gateway",
                "next_hops": ["10.9.0.2 dev 3"],
            },
        )
    ]
    assert len(bench.writer.families[AF_INET].programmed) == 4
    assert bench.writer.next_retry_at == 1001.0
    bench.writer.retry_due(1000.5)
    assert bench.asked() == []
    bench.writer.retry_due(1001.0)
    assert [what for _, what, _ in bench.write()] == [prefixes[number]]
    assert not bench.writer.families[AF_INET].waiting


def test_a_route_that_fails_again_waits_twice_as_long_and_is_not_told_again() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write({0: UNREACHABLE})
    for expected in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        assert bench.writer.next_retry_at is not None
        bench.now = bench.writer.next_retry_at
        bench.writer.retry_due(bench.now)
        bench.write({0: UNREACHABLE})
        assert bench.writer.next_retry_at == bench.now + expected
    assert bench.events.names == ["fib_error"]


def test_a_change_of_links_retries_what_failed_at_once() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write({0: UNREACHABLE})
    bench.writer.retry_all()
    assert bench.asked() == ["add"]


def test_when_a_change_is_refused_the_outdated_route_goes() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.want({NET: B})
    bench.write({0: UNREACHABLE})
    assert bench.asked() == ["delete"]


def test_a_deletion_of_what_is_gone_is_no_error() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.want({NET: None})
    bench.write({0: KernelError(errno.ESRCH, "No such process")})
    assert bench.events.told == []
    assert not bench.writer.needs_resync


# Other programs' routes


def test_another_programs_route_is_never_written_over() -> None:
    bench = Bench()
    bench.state.tables[AF_INET, 254].load(NET, foreign())
    bench.want({NET: A})
    assert bench.asked() == []
    assert bench.events.names == ["fib_conflict"]
    bench.want({NET: B})
    assert bench.asked() == []
    assert bench.events.names == ["fib_conflict"], "the same conflict is told once"


def test_another_programs_route_at_another_metric_is_no_conflict() -> None:
    bench = Bench()
    bench.state.tables[AF_INET, 254].load(NET, foreign(metric=0))
    bench.want({NET: A})
    assert bench.asked() == ["add"]


def test_when_the_other_programs_route_goes_ours_is_written() -> None:
    bench = Bench()
    bench.state.tables[AF_INET, 254].load(NET, foreign())
    bench.want({NET: A})
    bench.write()
    bench.state.tables[AF_INET, 254].take(NET, foreign())
    bench.writer.foreign_went(NET, AF_INET)
    assert bench.asked() == ["add"]


def test_a_route_there_that_nobody_told_of_makes_us_read_the_table() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write({0: EXISTS})
    assert bench.writer.needs_resync


def test_a_route_of_ours_that_is_deleted_is_put_back_at_once_and_then_with_pauses() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.writer.lost(NET, AF_INET, 32, bench.now, "deleted by another program")
    assert bench.asked() == ["add"]
    for expected in (1.0, 2.0, 4.0):
        bench.writer.lost(NET, AF_INET, 32, bench.now, "deleted by another program")
        assert bench.asked() == []
        assert bench.writer.next_retry_at == bench.now + expected
        bench.now += expected
        bench.writer.retry_due(bench.now)
        assert bench.asked() == ["add"]


def test_a_route_of_ours_that_was_altered_is_written_over() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.writer.seen(NET, bench.ours(B), bench.now)
    assert bench.asked() == ["replace"]


def test_the_loss_of_a_route_that_nobody_wants_is_none() -> None:
    bench = Bench()
    bench.writer.lost(NET, AF_INET, 32, bench.now, "deleted by another program")
    assert not bench.writer.has_work


# What an earlier run left


def test_a_route_left_by_an_earlier_run_is_adopted_without_a_write() -> None:
    bench = Bench()
    bench.resynced({(NET, 32): bench.ours(A)})
    bench.want({NET: A})
    assert bench.asked() == []
    assert bench.writer.counters.adopted == 1
    bench.want({NET: None})
    assert bench.asked() == ["delete"]


def test_a_route_left_by_an_earlier_run_that_leads_elsewhere_is_changed_in_place() -> None:
    bench = Bench()
    bench.resynced({(NET, 32): bench.ours(B)})
    bench.want({NET: A})
    assert bench.asked() == ["replace"]


def test_what_nobody_claims_goes_only_after_convergence() -> None:
    bench = Bench()
    bench.resynced({(NET, 32): bench.ours(A), (NET, 77): bench.ours(A, metric=77)})
    bench.want({NET: A})
    assert bench.asked() == []
    bench.writer.converged()
    assert [(how, via.metric) for how, _, via in bench.write()] == [("delete", 77)]


def test_a_route_explicitly_not_wanted_goes_before_convergence() -> None:
    bench = Bench()
    bench.resynced({(NET, 32): bench.ours(A)})
    bench.want({NET: None})
    assert bench.asked() == ["delete"]


def test_after_reading_anew_what_is_missing_is_written_and_what_is_there_is_not() -> None:
    bench = Bench()
    other = bytes([24, 10, 2, 0])
    bench.want({NET: A, other: A})
    bench.write()
    bench.resynced({(NET, 32): bench.ours(A)})
    assert [what for _, what, _ in bench.write()] == [other]


# Preferred source


def test_a_preferred_source_is_asked_for_only_while_it_is_our_address() -> None:
    source = parse_address("10.0.0.1")
    bench = Bench()
    route = FibRoute(A.next_hops, preferred_source=source)
    bench.want({NET: route})
    assert bench.write()[0][2].prefsrc == b""
    bench.writer.addresses_changed(frozenset([source]))
    ((how, _, via),) = bench.write()
    assert (how, via.prefsrc) == ("replace", source)
    bench.writer.addresses_changed(frozenset())
    assert bench.write()[0][2].prefsrc == b""


def test_an_address_that_is_nobodys_source_changes_nothing() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.writer.addresses_changed(frozenset([parse_address("10.0.0.1")]))
    assert bench.asked() == []


# Changes of configuration


def test_another_protocol_number_is_written_in_place() -> None:
    bench = Bench()
    bench.want({NET: A})
    bench.write()
    bench.writer.reconfigure(KernelConfig(route_protocol=186))
    assert [(how, via.protocol) for how, _, via in bench.write()] == [("replace", 186)]


def test_ipv6_metric_zero_is_the_kernels_1024() -> None:
    bench = Bench(metric=0)
    bench.want({NET6: FibRoute((NextHop(parse_address("fe80::1"), 3),))}, IPV6)
    assert bench.write()[0][2].metric == 1024


def test_one_blackhole_serves_both_families() -> None:
    bench = Bench()
    blackhole = FibRoute(())
    bench.want({NET: blackhole})
    bench.want({NET6: blackhole}, IPV6)
    assert [(what, via.family) for _, what, via in bench.write()] == [(NET, 2), (NET6, 10)]


def test_when_all_go_they_do_not_go_from_the_lowest_up() -> None:
    """There the kernel's trie is slow, by the square of their number."""
    bench = Bench()
    prefixes = [b"\x18\x0a" + number.to_bytes(2, "big") for number in range(500)]
    bench.want(dict.fromkeys(prefixes, A))
    bench.write()
    bench.writer.want_nothing()
    gone = [prefix for how, prefix, _ in bench.write() if how == "delete"]
    assert sorted(gone) == prefixes
    assert gone != prefixes
