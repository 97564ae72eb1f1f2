"""From the routes that stand in the kernel to those that are wanted."""

from __future__ import annotations

from collections.abc import Mapping

from felix.sync.routes import GRACE_S, KernelRoute, Ownership, RouteBook, RouteClass, Step, WantedRoute

WANTED = WantedRoute("10.0.0.1/32", RouteClass.LOCAL_WORKLOAD, "calia", protocol=3)
THERE = KernelRoute("10.0.0.1/32", 7, "", 3, 0)


def step(
    book: RouteBook, *there: KernelRoute, now: float, up: Mapping[str, int] | None = None, name: str = "calia"
) -> Step:
    """After a reading; everything that is to be written is written."""
    up = {"calia": 7} if up is None else up
    book.begin_reading()
    book.read(there)
    found = book.step(up, Ownership(), lambda _index: name, now)
    book.wrote(found, up, ())
    return found


def test_a_new_interfaces_routes_stay_until_the_datastore_has_had_its_time() -> None:
    book = RouteBook()
    book.interface_appeared(7, now=100.0)
    early = step(book, THERE, now=101.0)
    assert (early.deletes, book.look_again_at()) == ([], 100.0 + GRACE_S)
    assert step(book, THERE, now=100.0 + GRACE_S).deletes == [THERE]


def test_a_route_of_ours_goes_at_once_when_nobody_wants_it_any_more() -> None:
    book = RouteBook()
    book.interface_appeared(7, now=100.0)
    book.want("workloads", [WANTED])
    assert step(book, now=100.0).puts == [WANTED]
    book.want("workloads", [])
    assert step(book, THERE, now=101.0).deletes == [THERE]


def test_an_interface_of_the_same_name_that_came_since_has_its_grace() -> None:
    book = RouteBook()
    book.want("workloads", [WANTED])
    step(book, now=100.0)
    book.want("workloads", [])
    book.interface_appeared(8, now=101.0)
    renewed = KernelRoute("10.0.0.1/32", 8, "", 3, 0)
    assert step(book, renewed, now=101.0, up={"calia": 8}).deletes == []


def test_an_altered_route_is_replaced_not_deleted_after_its_replacement() -> None:
    """A deletion knows destination, protocol and metric: it would meet the new one."""
    book = RouteBook()
    book.want("workloads", [WANTED])
    altered = KernelRoute("10.0.0.1/32", 7, "", 3, 0, source="192.0.2.1")
    found = step(book, altered, now=100.0)
    assert (found.puts, found.deletes) == ([WANTED], [])
    elsewhere = KernelRoute("10.0.0.1/32", 7, "", 3, 50)
    found = step(book, elsewhere, now=100.0)
    assert (found.puts, found.deletes) == ([WANTED], [elsewhere])


def test_a_route_over_an_interface_that_was_renamed_goes_and_comes_back_with_the_name() -> None:
    book = RouteBook()
    book.want("workloads", [WANTED])
    step(book, now=100.0)
    book.interface_changed("calia", 7)
    renamed = step(book, THERE, now=101.0, up={"away": 7}, name="away")
    assert (renamed.puts, renamed.deletes) == ([], [THERE])
    book.interface_changed("calia", 7)
    assert step(book, now=102.0).puts == [WANTED]


def test_a_route_that_waits_for_its_interface_leaves_what_stands_there() -> None:
    book = RouteBook()
    book.want("workloads", [WANTED])
    foreign = KernelRoute("10.0.0.1/32", 9, "", 3, 0)
    assert step(book, foreign, now=100.0, up={}, name="eth0").deletes == []
