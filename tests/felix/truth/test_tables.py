"""The scenarios themselves: every resource is one that would be accepted, every table says something both ways."""

from __future__ import annotations

import pytest

from integration.resources.documents import DocumentError, read
from integration.resources.yaml_text import dump_all
from tests.felix.truth.tables import Scenario, probes_of, scenarios
from tests.felix.truth.world import base_resources


def test_there_are_at_least_forty_scenarios_with_names_of_their_own() -> None:
    names = [one.name for one in scenarios()]
    assert len(names) >= 40
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_every_resource_would_be_accepted(scenario: Scenario) -> None:
    resources = [value for key, value in scenario.resources.items() if key.kind not in ("Service", "EndpointSlice")]
    try:
        documents = read(dump_all(resources), scenario.name)
    except DocumentError as error:
        pytest.fail(str(error))
    assert [str(problem) for document in documents for problem in document.problems()] == []


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_no_probe_is_asked_twice(scenario: Scenario) -> None:
    asked = [str(probe) for probe in scenario.probes]
    assert sorted(asked) == sorted(set(asked))


def test_scenarios_do_not_share_what_they_change() -> None:
    before = base_resources()
    assert scenarios()[0].resources == before


def test_a_line_stands_for_many_probes() -> None:
    probes = list(probes_of("a,out -> b tcp6 80,81 allow  # both"))
    assert [str(one) for one in probes] == [f"{who} -> b tcp6 {port}" for who in ("a", "out") for port in (80, 81)]
    assert probes[0].source_address == "fd00:65::1"


@pytest.mark.parametrize(
    "line", ["a -> b tcp 80", "a => b tcp 80 allow", "a -> nobody tcp 80 allow", "a -> b tcp x allow"]
)
def test_a_wrong_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=line[:6]):
        list(probes_of(line))
