"""Random worlds in a kernel: what the rules' text and the sets' elements say there, against the explanation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from felix.config import FelixConfig
from felix.desired import HostEndpointUpdate, Message
from felix.explain.explain import explain
from felix.explain.flow import Flow
from felix.explain.settings import explain_settings
from felix.explain.state import DesiredState
from felix.explain.view import explanation_lines, explanation_view
from tests.felix.rules.packet import Packet
from tests.felix.rules.test_any_state import changes_between, item_of
from tests.felix.truth.bed import Bed
from tests.felix.truth.judges import config_of
from tests.felix.truth.node import LEGACY, RENDERERS, NodeProcess
from tests.felix.truth.tables import Probe
from tests.felix.truth.test_agreement import PORTS, SETS, SURROUNDINGS, Chance
from tests.felix.truth.world import PARTIES

pytestmark = pytest.mark.root
SEEDS, PROBES = range(10), 40
NAMES = {party.host_side: party.name for party in PARTIES.values()} | {"": "host"}


def tracked(message: Message) -> Message:
    """Answers to what an untracked policy allows are judged on their own: probes would say nothing about the first packet."""
    if isinstance(message, HostEndpointUpdate):
        return HostEndpointUpdate(replace(message.endpoint, untracked_tiers=()))
    return message


def probe_of(flow: Flow, packet: Packet, expected: str) -> Probe:
    return Probe(
        NAMES[packet.in_interface],
        NAMES[packet.out_interface],
        flow.protocol,
        flow.version,
        flow.destination_port,
        "allow" if expected == "allow" else "deny",
        # A fixed port for one connection at a time: only UDP's and SCTP's packets of several probes do not meet.
        flow.source_port if flow.protocol in (17, 132) else None,
        flow.icmp,
    )


def questions(chance: Chance, state: DesiredState, config: FelixConfig) -> dict[Probe, Flow]:
    """Probes with what the explanation expects. TCP comes from a port of the kernel's choice, 0 to the explanation."""
    found: dict[Probe, Flow] = {}
    for _ in range(PROBES):
        flow, packet = chance.question(is_real=True)
        if flow.protocol == 6:
            flow = Flow(flow.source, flow.destination, 6, None, flow.destination_port)
        explanation = explain(state, flow, explain_settings(config), SURROUNDINGS)
        if not any("answers are denied" in note for note in explanation.notes):
            found[probe_of(flow, packet, explanation.verdict)] = flow
    return found


async def judge(bed: Bed, node: NodeProcess, seeds: Sequence[int]) -> list[str]:
    wrong: list[str] = []
    now: list[Message] = []
    for seed in seeds:
        chance = Chance(seed)
        world = [tracked(message) for message in chance.world() if item_of(message) is not None]
        config = config_of({"DefaultEndpointToHostAction": chance.one(["DROP", "RETURN", "ACCEPT"])})
        applied = node.apply(config, [*([] if now else SETS), *changes_between(now, world)])
        if applied.failures:
            return [f"seed {seed}: {failure.what}: {failure.reason}" for failure in applied.failures]
        now = world
        state = DesiredState()
        state.fold_all([*SETS, *world])
        asked = questions(chance, state, config)
        bed.forget_connections()
        found = await bed.verdicts(list(asked))
        for probe, flow in asked.items():
            if found[probe] != probe.expected:
                explanation = explain(state, flow, explain_settings(config), SURROUNDINGS)
                wrong += [
                    f"seed {seed}: {probe}: found {found[probe]}",
                    *explanation_lines(explanation_view(explanation)),
                    "",
                ]
    return wrong


@pytest.mark.parametrize("renderer", [*RENDERERS, LEGACY])
def test_packets_go_where_the_explanation_says(renderer: str) -> None:
    async def run() -> list[str]:
        async with Bed(PORTS, PORTS) as bed:
            node = NodeProcess(bed.host, renderer)
            try:
                return await judge(bed, node, SEEDS)
            finally:
                node.close()

    wrong = asyncio.run(run())
    assert wrong == [], "\n".join(wrong)
