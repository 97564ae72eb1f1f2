"""The truth tables judged by the explanation alone: resources, calculation, explanation."""

from __future__ import annotations

import random

import pytest

from felix.explain.view import explanation_lines, explanation_view
from tests.felix.truth.judges import ExplainingJudge, differences
from tests.felix.truth.tables import Scenario, scenarios

EXPLAINED = [one for one in scenarios() if one.only != "packets"]


@pytest.mark.parametrize("scenario", EXPLAINED, ids=str)
def test_the_explanation_says_what_the_table_says(scenario: Scenario) -> None:
    judge = ExplainingJudge()
    found = judge.verdicts(scenario)
    lines = differences(scenario, found)
    for probe in scenario.probes:
        if found[probe] != probe.expected:
            lines += ["", *explanation_lines(explanation_view(judge.explain(scenario, probe)))]
    assert lines == [], "\n".join(lines)


def test_the_way_from_scenario_to_scenario_leaves_nothing_behind() -> None:
    judge = ExplainingJudge()
    order = list(EXPLAINED)
    random.Random(4).shuffle(order)
    wrong = [line for scenario in order for line in differences(scenario, judge.verdicts(scenario))]
    assert wrong == [], "\n".join(wrong)
