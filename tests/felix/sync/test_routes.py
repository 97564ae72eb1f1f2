"""From any routes to any others: what is in the kernel after the step, whatever was there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from felix.sync.routes import (
    FELIX_PROTOCOL,
    GRACE_S,
    KernelRoute,
    Ownership,
    RouteBook,
    RouteClass,
    Step,
    WantedRoute,
    fits,
    shown_metric,
)

NAMES = {1: "lo", 2: "eth0", 3: "cali1", 4: "cali2", 5: "vxlan.calico"}
INDEXES = {name: index for index, name in NAMES.items()}
OWNERSHIP = Ownership(tunnel_devices=frozenset({"vxlan.calico"}))
DESTINATIONS = ["10.65.0.1/32", "10.65.0.2/32", "10.65.1.0/26", "fd65::1/128"]

wanted = st.builds(
    WantedRoute,
    st.sampled_from(DESTINATIONS),
    st.sampled_from(RouteClass),
    st.sampled_from(["", "eth0", "cali1", "cali2", "cali9", "vxlan.calico"]),
    st.sampled_from(["", "172.16.0.2"]),
    protocol=st.sampled_from([3, FELIX_PROTOCOL]),
    metric=st.sampled_from([0, 1024]),
)
there = st.builds(
    KernelRoute,
    st.sampled_from(DESTINATIONS),
    st.sampled_from([0, 2, 3, 4, 5]),
    st.sampled_from(["", "172.16.0.2"]),
    st.sampled_from([2, 3, 4, 12, FELIX_PROTOCOL]),
    st.sampled_from([0, 20, 1024]),
)


def key(one: KernelRoute) -> tuple[str, int]:
    return one.destination, one.metric


def written(kernel: list[KernelRoute], step: Step) -> list[KernelRoute]:
    """As the kernel does it: a put replaces the first of its destination and metric, a deletion names the way out."""
    kernel = list(kernel)
    for put in step.puts:
        new = KernelRoute(
            put.destination, INDEXES[put.interface] if put.interface else 0, put.gateway, put.protocol, shown_metric(put),
            put.source, put.is_onlink,
        )  # fmt: skip
        at = next((place for place, one in enumerate(kernel) if key(one) == key(new)), None)
        if at is None:
            kernel.append(new)
        else:
            kernel[at] = new
    for gone in step.deletes:
        if gone in kernel:
            kernel.remove(gone)
    return kernel


def name_of(index: int) -> str:
    return NAMES.get(index, "")


def step_of(book: RouteBook, kernel: list[KernelRoute], now: float) -> Step:
    """After a reading; what is to be written is taken for written."""
    book.begin_reading()
    book.read(
        [
            one
            for one in kernel
            if one.destination in book.wanted or OWNERSHIP.is_ours(one.protocol, name_of(one.interface_index))
        ]
    )
    step = book.step(INDEXES, OWNERSHIP, name_of, now)
    book.wrote(step, INDEXES, ())
    return step


@given(
    st.lists(wanted, max_size=6),
    st.lists(wanted, max_size=3),
    st.lists(there, max_size=6, unique_by=lambda one: (*key(one), one.interface_index, one.gateway)),
)
def test_afterwards_what_is_wanted_is_there_and_nothing_else_of_ours(
    workloads: list[WantedRoute], cluster: list[WantedRoute], kernel: list[KernelRoute]
) -> None:
    book = RouteBook()
    book.want("workloads", workloads)
    book.want("cluster", cluster)
    others = [one for one in kernel if not OWNERSHIP.is_ours(one.protocol, name_of(one.interface_index))]
    for _ in range(2):  # a second one may find what a replacement had hidden
        kernel = written(kernel, step_of(book, kernel, 100.0))
    final = step_of(book, kernel, 100.0)
    assert (final.puts, final.deletes) == ([], [])
    for destination, want in book.wanted.items():
        assert (want.interface and want.interface not in INDEXES) or any(
            one.destination == destination and fits(want, one, INDEXES) for one in kernel
        )
    replaced = {(one.destination, shown_metric(one)) for one in book.wanted.values()}
    assert [one for one in others if key(one) not in replaced] == [
        one for one in kernel if one in others and key(one) not in replaced
    ]


def test_unknown_routes_of_a_new_interface_have_their_grace_and_known_ones_none() -> None:
    book = RouteBook()
    book.interface_appeared(3, 100.0)
    unknown, known = KernelRoute("10.65.0.1/32", 3, "", 3, 0), KernelRoute("10.65.0.2/32", 3, "", 3, 0)
    book.want("workloads", [WantedRoute("10.65.0.2/32", RouteClass.LOCAL_WORKLOAD, "cali1", protocol=3)])
    step_of(book, [unknown, known], 100.0)
    book.want("workloads", [])
    step = step_of(book, [unknown, known], 101.0)
    assert (step.deletes, book.look_again_at()) == ([known], 100.0 + GRACE_S)
    assert step_of(book, [unknown], 100.0 + GRACE_S).deletes == [unknown]


def test_what_has_no_interface_yet_waits_and_what_is_there_for_it_stays() -> None:
    book = RouteBook()
    book.want("cluster", [WantedRoute("10.65.1.0/26", RouteClass.VXLAN_TUNNEL, "cali9", "10.65.1.0")])
    old = KernelRoute("10.65.1.0/26", 2, "172.16.0.2", FELIX_PROTOCOL, 0)
    step = step_of(book, [old], 100.0)
    assert (step.puts, step.deletes, len(step.waiting)) == ([], [], 1)


def test_of_two_wishes_for_one_destination_the_lower_class_has_it_and_then_the_other() -> None:
    book = RouteBook()
    here = WantedRoute("10.65.0.1/32", RouteClass.LOCAL_WORKLOAD, "cali1")
    elsewhere = WantedRoute("10.65.0.1/32", RouteClass.VXLAN_TUNNEL, "vxlan.calico", "10.65.1.0")
    book.want("cluster", [elsewhere])
    book.want("workloads", [here])
    assert book.wanted == {"10.65.0.1/32": here}
    book.want("workloads", [])
    assert book.wanted == {"10.65.0.1/32": elsewhere}
    book.want("cluster", [])
    assert book.wanted == {}
