"""The truth tables judged by a kernel: resources, calculation, rules, nftables or iptables, and packets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import pytest

from tests.felix.truth.bed import Bed
from tests.felix.truth.judges import Calculation, config_of, differences
from tests.felix.truth.node import LEGACY, RENDERERS, NodeProcess
from tests.felix.truth.tables import Scenario, ports_of, scenarios

pytestmark = pytest.mark.root


async def judge(bed: Bed, node: NodeProcess, calculation: Calculation, scenario: Scenario) -> list[str]:
    """What is wrong; empty if nothing is."""
    config = config_of(scenario.felix)
    applied = node.apply(config, calculation.go_to(scenario.resources, config))
    if applied.failures:
        return [f"{scenario.name}: {failure.what}: {failure.reason}" for failure in applied.failures]
    bed.translate(scenario.probes)
    bed.forget_connections()
    return differences(scenario, await bed.verdicts(scenario.probes))


async def judge_all(renderer: str, order: Sequence[Scenario]) -> list[str]:
    wrong: list[str] = []
    async with Bed(ports_of(order, 6), ports_of(order, 17)) as bed:
        node, calculation = NodeProcess(bed.host, renderer), Calculation()
        try:
            for scenario in order:
                wrong += await judge(bed, node, calculation, scenario)
        finally:
            node.close()
    return wrong


@pytest.mark.parametrize("renderer", RENDERERS)
def test_packets_go_where_the_tables_say(renderer: str) -> None:
    began = time.monotonic()
    wrong = asyncio.run(judge_all(renderer, scenarios()))
    assert wrong == [], f"after {time.monotonic() - began:.0f} s\n" + "\n".join(wrong)


@pytest.mark.parametrize("renderer", [*RENDERERS, LEGACY])
def test_the_way_from_scenario_to_scenario_leaves_nothing_behind_in_the_kernel(renderer: str) -> None:
    order = list(scenarios())
    random.Random(11).shuffle(order)
    wrong = asyncio.run(judge_all(renderer, order[:24]))
    assert wrong == [], "\n".join(wrong)
