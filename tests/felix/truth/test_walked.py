"""The truth tables judged by the rules as values, in the shapes of both dialects."""

from __future__ import annotations

import random

import pytest

from tests.felix.truth.judges import differences
from tests.felix.truth.tables import Scenario, scenarios
from tests.felix.truth.walker import WalkingJudge


@pytest.mark.parametrize("is_like_nftables", [True, False], ids=["nftables", "iptables"])
@pytest.mark.parametrize("scenario", [one for one in scenarios() if one.only != "real"], ids=str)
def test_the_rules_do_what_the_table_says(scenario: Scenario, is_like_nftables: bool) -> None:
    judge = WalkingJudge(is_like_nftables=is_like_nftables)
    found = judge.verdicts(scenario)
    lines = differences(scenario, found)
    for probe in scenario.probes:
        if found[probe] != probe.expected:
            lines += ["", str(probe), "  " + " > ".join(judge.walk(probe)[1])]
    assert lines == [], "\n".join(lines)


@pytest.mark.parametrize("is_like_nftables", [True, False], ids=["nftables", "iptables"])
def test_the_way_from_scenario_to_scenario_leaves_nothing_behind_in_the_rules(is_like_nftables: bool) -> None:
    judge = WalkingJudge(is_like_nftables=is_like_nftables)
    order = list(scenarios())
    random.Random(7).shuffle(order)
    wrong = [line for scenario in order for line in differences(scenario, judge.verdicts(scenario))]
    assert wrong == [], "\n".join(wrong)
