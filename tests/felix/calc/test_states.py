"""From any state to any state, whatever the order and the batches: what was said adds up to what a fresh start says."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.graph import CalculationGraph
from felix.calc.local import CalculationSettings
from felix.desired import InSync
from tests.felix.calc.dataplane import Dataplane
from tests.felix.calc.states import State, random_state, steps


def fresh(state: State, settings: CalculationSettings) -> tuple[CalculationGraph, Dataplane]:
    graph, dataplane = CalculationGraph("n1", settings), Dataplane()
    for key, value in state.items():
        graph.update(key, value)
    graph.in_sync()
    dataplane.take(graph.flush())
    return graph, dataplane


def go(draw: Random, graph: CalculationGraph, dataplane: Dataplane, before: State, after: State) -> None:
    for key, value in steps(draw, before, after):
        graph.update(key, value)
        if draw.random() < 0.2:
            dataplane.take(graph.flush())
    dataplane.take(graph.flush())


def check_walk(seed: int) -> None:
    draw = Random(seed)
    options = CalculationSettings(
        has_floating_ips=draw.random() < 0.5, route_source=draw.choice(("CalicoIPAM", "WorkloadIPs"))
    )
    before: State = {}
    graph, dataplane = fresh(before, options)
    for _ in range(4):
        after = random_state(draw, draw.choice((0.0, 0.3, 0.6, 0.9)))
        go(draw, graph, dataplane, before, after)
        expected_graph, expected = fresh(after, options)
        assert dataplane.things == expected.things
        assert dataplane.sets == expected.sets
        assert dict(graph.problems) == dict(expected_graph.problems)
        assert graph.statistics() == expected_graph.statistics()
        assert graph.flush() == []
        before = after


@pytest.mark.parametrize("seed", range(40))
def test_any_walk_ends_where_a_fresh_start_would(seed: int) -> None:
    check_walk(seed)


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=1000))
def test_any_drawn_walk_ends_where_a_fresh_start_would(seed: int) -> None:
    check_walk(seed)


@pytest.mark.parametrize("seed", range(5))
def test_settings_change_as_if_they_had_always_been_so(seed: int) -> None:
    draw = Random(seed)
    state = random_state(draw)
    first, second = CalculationSettings(), CalculationSettings(has_floating_ips=True, route_source="WorkloadIPs")
    graph, dataplane = fresh(state, first)
    graph.reconfigure(second)
    dataplane.take(graph.flush())
    assert dataplane == fresh(state, second)[1]
    graph.reconfigure(first)
    dataplane.take(graph.flush())
    assert dataplane == fresh(state, first)[1]


def test_two_fresh_starts_say_the_same_in_the_same_order() -> None:
    state = random_state(Random(1))
    said = []
    for entries in (list(state.items()), list(reversed(state.items()))):
        graph = CalculationGraph("n1")
        for key, value in entries:
            graph.update(key, value)
        graph.in_sync()
        said.append(graph.flush())
    assert said[0] == said[1]


def test_nothing_is_said_before_everything_is_known_and_in_sync_once() -> None:
    graph = CalculationGraph("n1")
    for key, value in random_state(Random(2)).items():
        graph.update(key, value)
    assert graph.flush() == []
    graph.in_sync()
    assert graph.flush()[-1] == InSync()
    graph.in_sync()
    assert graph.flush() == []


def test_when_all_is_gone_nothing_is_left_over() -> None:
    draw = Random(3)
    state = random_state(draw, 1.0)
    graph, dataplane = fresh(state, CalculationSettings())
    assert len(dataplane.sets) > 10
    go(draw, graph, dataplane, state, {})
    assert dataplane == fresh({}, CalculationSettings())[1]
    assert {key[0] for key in dataplane.things} == {"config", "cidrs", "peering", "encapsulation", "in-sync"}
