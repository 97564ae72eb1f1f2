"""Resources that somebody has made to break us."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.graph import CalculationGraph
from integration.resources.keys import Key
from tests.felix.calc.cluster import Cluster, allow, pod, policy
from tests.felix.calc.dataplane import Dataplane
from tests.felix.calc.states import UNIVERSE

JUNK: tuple[Any, ...] = (None, True, 7, -1, 1.5, float("nan"), float("inf"), 10**40, "", "x", "\x00", "\ud800", [], [None], [[]], {}, {"x": 1},
        {"type": 300}, "a" * 10_000, "'", "10.0.0.0/8", "{}", [7], ["x"], [{}])  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Container and key of everything within."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def spoiled(draw: Random, value: dict[str, Any]) -> dict[str, Any]:
    for _ in range(draw.randint(1, 2)):
        spots = list(places(value))
        if spots:
            container, key = draw.choice(spots)
            container[key] = deepcopy(draw.choice(JUNK))
    return value


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0))
def test_no_resource_breaks_the_calculation_whatever_is_in_it(seed: int) -> None:
    draw = Random(seed)
    graph, dataplane = CalculationGraph("n1"), Dataplane()
    graph.in_sync()
    for _ in range(3):
        for key, make in UNIVERSE.items():
            graph.update(key, spoiled(draw, make(draw)))
        dataplane.take(graph.flush())
    for key in UNIVERSE:
        graph.update(key, None)
    dataplane.take(graph.flush())
    assert not graph.problems
    assert {key[0] for key in dataplane.things} == {"config", "cidrs", "peering", "encapsulation", "in-sync"}
    assert not dataplane.sets


@pytest.mark.parametrize(
    "value", [{}, {"spec": None}, {"spec": []}, {"spec": "x"}, {"metadata": []}, {"spec": {"x": 1}}]
)
def test_an_empty_or_shapeless_resource_is_reported_or_harmless(value: dict[str, Any]) -> None:
    graph = CalculationGraph("n1")
    for key in UNIVERSE:
        graph.update(key, value)
    graph.in_sync()
    Dataplane().take(graph.flush())


def test_an_invalid_resource_takes_its_valid_former_self_with_it_and_no_other() -> None:
    cluster = Cluster(pod("p1"), policy("p", allow()), policy("q", allow()))
    key, value = policy("p", allow())
    cluster.add((key, {"spec": {**value["spec"], "selector": "&&"}}))
    assert [id.name for id in cluster.dataplane.of("policy")] == ["q"]
    assert list(cluster.graph.problems) == [key]
    assert "spec.selector = '&&'" in cluster.graph.problems[key]
    cluster.remove(key)
    assert not cluster.graph.problems


def test_a_rule_nested_beyond_reason_is_one_policys_problem() -> None:
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    cluster = Cluster(pod("p1"), policy("p", allow()), policy("deep", {"action": deep}))
    assert [id.name for id in cluster.dataplane.of("policy")] == ["p"]
    assert list(cluster.graph.problems) == [Key("NetworkPolicy", "deep", "a")]


def test_a_name_with_a_quote_does_not_escape_its_selector() -> None:
    name = "a' || all() || x == 'a"
    cluster = Cluster(pod("p1"), (Key("NetworkPolicy", "p", name), policy("p", allow())[1]))
    assert not cluster.dataplane.of("policy")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"interfaceName": "cali1; flush ruleset"}, "spec.interfaceName"),
        ({"interfaceName": "much-too-long-name"}, "spec.interfaceName"),
        ({"mac": "ee:ee:ee:ee:ee"}, "spec.mac"),
        ({"profiles": ["kns.a", "../x"]}, "spec.profiles[1]"),
        ({"serviceAccountName": "\ud800"}, "spec.serviceAccountName"),
        ({"ports": [{"name": "x", "protocol": "ICMP", "port": 1}]}, "spec.ports[0].protocol"),
        ({"ipNetworks": ["10.0.0.0/30"]}, "spec.ipNetworks[0]"),
        ({"qosControls": {"dscp": 64}}, "spec.qosControls.dscp"),
        ({"ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "fd00::1"}]}, "spec.ipNATs[0].externalIP"),
    ],
)
def test_an_endpoint_that_cannot_be_programmed_is_reported_by_field(spec: dict[str, Any], field: str) -> None:
    key, value = pod("p1")
    cluster = Cluster((key, {**value, "spec": {**value["spec"], **spec}}))
    assert not cluster.dataplane.of("workload")
    assert cluster.graph.problems[key].startswith(field + " ")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "a\n", "ü", "a" * 254])
def test_a_name_that_could_not_name_a_chain_or_a_file_is_no_name(name: str) -> None:
    cluster = Cluster(pod("p1"), policy(name, allow()), policy("good", allow()))
    assert [id.name for id in cluster.dataplane.of("policy")] == ["good"]


def test_a_service_whose_name_cannot_be_encoded_is_that_policys_problem() -> None:
    cluster = Cluster(pod("p1"), policy("p", allow({"services": {"name": "\ud800"}})), policy("good", allow()))
    assert [id.name for id in cluster.dataplane.of("policy")] == ["good"]
    assert list(cluster.graph.problems) == [Key("NetworkPolicy", "p", "a")]


def test_a_kind_that_says_nothing_to_felix_is_ignored() -> None:
    assert Cluster().add((Key("Secret", "s", "a"), {"data": {}}), (Key("Nonsense", "x"), {})) == []


def test_an_endpoint_with_a_name_that_is_none_is_reported() -> None:
    key, value = pod("p1")
    cluster = Cluster((Key(key.kind, "n1-k8s", "a"), value))
    assert "metadata.name" in cluster.graph.problems[Key(key.kind, "n1-k8s", "a")]
