"""The numbered steps: who wins, and why the others lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bgp.config import RouteSource
from bgp.ports import Resolution
from bgp.rib.decision import equal_cost, explain, order
from bgp.rib.path import HopState, Path, Source
from bgp.wire import as_path
from bgp.wire.attributes import from_values


def path(
    name: str,
    *,
    kind: RouteSource = "ebgp",
    local_pref: int = 100,
    asns: tuple[int, ...] = (65001, 65002),
    origin: int = 0,
    med: int = 0,
    metric: int = 0,
    reachable: bool = True,
    router_id: int = 1,
    clusters: int = 0,
    address: int = 1,
    stale: bool = False,
) -> Path:
    values = {
        1: bytes([origin]),
        2: as_path.join([(2, asns)]) if asns else b"",
        4: med.to_bytes(4, "big"),
        5: local_pref.to_bytes(4, "big"),
    }
    if clusters:
        values[10] = bytes(4 * clusters)
    hop = HopState(b"\1\2\3\4", Resolution(reachable=reachable, metric=metric))
    source = Source(name, kind, bytes([10, 0, 0, address]), bytes([1, 1, 1, router_id]))
    made = Path(source, from_values(values, b"\1\2\3\4"), hop)
    source.epoch += stale
    return made


@pytest.mark.parametrize(
    ("better", "worse", "step"),
    [
        ({}, {"reachable": False, "local_pref": 900}, "step 1"),
        ({"kind": "kernel"}, {"local_pref": 900}, "step 2"),
        ({"local_pref": 200}, {"asns": (65001,)}, "step 3"),
        ({"asns": (65001,)}, {"origin": 0, "med": 0}, "step 4a"),
        ({"origin": 0, "med": 9}, {"origin": 2}, "step 4b"),
        ({"med": 1, "kind": "ibgp"}, {"med": 2}, "step 4c"),
        ({"metric": 9}, {"kind": "ibgp"}, "step 4d"),
        ({"metric": 1, "router_id": 9}, {"metric": 2}, "step 4e"),
        ({"router_id": 9, "address": 9, "clusters": 9}, {"stale": True}, "step 4e', fresh before stale"),
        ({"router_id": 1, "address": 9}, {"router_id": 2}, "step 4f,"),
        ({"clusters": 1, "address": 9}, {"clusters": 2}, "step 4f',"),
        ({"address": 1}, {"address": 2}, "step 4g"),
        ({"local_pref": 200, "stale": True}, {}, "step 3"),
        ({"metric": 1, "stale": True}, {"metric": 2}, "step 4e,"),
        ({"stale": True}, {"stale": True, "router_id": 2}, "step 4f,"),
    ],
)
def test_each_step_decides_and_is_named(better: dict[str, object], worse: dict[str, object], step: str) -> None:
    winner, loser = path("a", **better), path("b", **worse)  # type: ignore[arg-type]
    for paths in ((winner, loser), (loser, winner)):
        assert order(paths)[0] is winner
        reasons = explain(paths)
        assert step in reasons[id(loser)]
        assert reasons[id(winner)].startswith("best")


def test_med_is_compared_within_a_neighbouring_as_whatever_the_order() -> None:
    a = path("a", asns=(1, 9), med=10, router_id=3)
    b = path("b", asns=(2, 9), med=5, router_id=2)
    c = path("c", asns=(1, 9), med=20, router_id=1)
    for some in itertools.permutations((a, b, c)):
        assert order(some)[0] is b


def test_who_is_stale_is_asked_among_any_number_of_paths() -> None:
    paths = [path(name, router_id=number, address=number, stale=number < 3) for number, name in enumerate("abcde", 1)]
    for some in itertools.permutations(paths):
        assert order(some)[0] is paths[2]
        assert "step 4e', fresh before stale: stale against fresh" in explain(some)[id(paths[0])]
        assert "step 4f, " in explain(some)[id(paths[3])]


def test_med_can_be_compared_across_neighbouring_ases() -> None:
    a = path("a", asns=(1, 9), med=10, router_id=1)
    b = path("b", asns=(2, 9), med=5, router_id=2)
    assert order((a, b))[0] is a
    assert order((a, b), always_compare_med=True)[0] is b
    assert "step 4c" in explain((a, b), always_compare_med=True)[id(a)]


attributes = st.builds(
    path,
    st.sampled_from("abcdef"),
    kind=st.sampled_from(["ebgp", "ibgp"]),
    asns=st.sampled_from([(1, 2), (2, 3), (1,)]),
    med=st.integers(0, 2),
    metric=st.integers(0, 1),
    router_id=st.integers(1, 3),
    reachable=st.booleans(),
    clusters=st.integers(0, 1),
    address=st.integers(1, 9),
    stale=st.booleans(),
)


@given(st.lists(attributes, min_size=1, max_size=5, unique_by=lambda p: p.source.name), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_arrival(paths: list[Path], shuffle: object) -> None:
    best = order(tuple(paths))[0]
    shuffle.shuffle(paths)  # type: ignore[attr-defined]
    assert order(tuple(paths))[0] is best
    reasons = explain(tuple(paths))
    assert set(reasons) == {id(item) for item in paths}
    assert not reasons[id(best)].startswith("lost")


def test_equal_cost_paths_share_up_to_the_limit() -> None:
    paths = order(tuple(path(str(n), router_id=n, address=n, asns=(65000 + n, 9)) for n in range(1, 6)))
    assert len(equal_cost(paths, 3, 1)) == 3
    assert len(equal_cost(paths, 1, 8)) == 1
    assert len(equal_cost((*paths, path("far", metric=5)), 9, 1)) == 5


@given(st.lists(attributes, min_size=1, max_size=5, unique_by=lambda p: p.source.name))
def test_who_shares_the_load_does_not_depend_on_who_is_stale(paths: list[Path]) -> None:
    """A restart takes no path out of use (RFC 4724 §4.2: no difference in forwarding)."""
    sharing = set(equal_cost(order(tuple(paths)), 9, 9))
    for one in paths:
        one.source.epoch = one.epoch
    assert set(equal_cost(order(tuple(paths)), 9, 9)) == sharing


@given(st.lists(attributes, min_size=2, max_size=6, unique_by=lambda p: p.source.name), st.integers(2, 3))
@example([path("a", address=9, stale=True), path("b", clusters=1), path("c", clusters=1, address=2)], 2)
def test_over_the_limit_a_restart_changes_at_most_the_last_place(paths: list[Path], limit: int) -> None:
    """The path in use is always among them: what peers are told is where packets go."""
    sharing = equal_cost(order(tuple(paths)), limit, limit)
    for one in paths:
        one.source.epoch = one.epoch
    before = equal_cost(order(tuple(paths)), limit, limit)
    assert set(sharing) == set(before) or (sharing[0] not in before and sharing[1:] == before[:-1])


def test_stale_paths_keep_their_place_among_those_that_share_the_load() -> None:
    paths = [path(str(n), router_id=n, address=n) for n in range(1, 5)]
    before = set(equal_cost(order(tuple(paths)), 3, 1))
    paths[0].source.epoch += 1
    now = order(tuple(paths))
    assert now[0] is paths[1]
    assert set(equal_cost(now, 3, 1)) == before
