"""Those who say what happens to a probe: the explanation, the rules as values, and a kernel. All start from resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from felix.calc.graph import CalculationGraph
from felix.calc.local import CalculationSettings
from felix.config import FelixConfig, resolve
from felix.desired import Message
from felix.explain.explain import Explanation, explain
from felix.explain.flow import Flow, Surroundings
from felix.explain.settings import explain_settings
from felix.explain.state import DesiredState
from integration.node.felix.settings import calculation_settings
from tests.felix.truth.tables import Probe, Scenario, Verdict, address
from tests.felix.truth.world import HOST_INTERFACES, NEIGHBOURS, NODE, Resources


class Judge(Protocol):
    def verdicts(self, scenario: Scenario) -> Mapping[Probe, Verdict]: ...


class Calculation:
    """Goes from scenario to scenario by what differs, as in a cluster that lives."""

    def __init__(self) -> None:
        self.graph = CalculationGraph(NODE, CalculationSettings())
        self._resources: Resources = {}
        self.is_begun = False

    def go_to(self, resources: Resources, config: FelixConfig | None = None) -> list[Message]:
        self.graph.reconfigure(calculation_settings(config or config_of({})))
        for key in self._resources.keys() - resources.keys():
            self.graph.update(key, None)
        for key, value in resources.items():
            if self._resources.get(key) != value:
                self.graph.update(key, value)
        self._resources = dict(resources)
        if not self.is_begun:
            self.graph.in_sync()
            self.is_begun = True
        return self.graph.flush()


class ExplainingJudge:
    """What `catbird policy explain` says."""

    def __init__(self) -> None:
        self._calculation = Calculation()
        self._state = DesiredState()

    def verdicts(self, scenario: Scenario) -> dict[Probe, Verdict]:
        self._state.fold_all(self._calculation.go_to(scenario.resources, config_of(scenario.felix)))
        return {probe: self.explain(scenario, probe).verdict for probe in scenario.probes}

    def explain(self, scenario: Scenario, probe: Probe) -> Explanation:
        return explain(self._state, flow_of(probe), explain_settings(config_of(scenario.felix)), SURROUNDINGS)


SURROUNDINGS = Surroundings(
    {name: frozenset(addresses) for name, addresses in HOST_INTERFACES.items()}
    | {"lo": frozenset({"127.0.0.1", "::1"})},
    lambda to: next((one.host_side for one in NEIGHBOURS if str(to) in (one.ipv4, one.ipv6)), "eth0"),
)


def flow_of(probe: Probe) -> Flow:
    arrives_by = f"cali{probe.source}" if probe.spoofed else ""
    via = None if probe.via is None else (address(probe.sent_to[0]), probe.sent_to[1])
    return Flow(
        address(probe.source_address),
        address(probe.destination_address),
        probe.protocol,
        probe.source_port,
        probe.port,
        probe.icmp,
        arrives_by,
        before_dnat=via,
    )


def config_of(felix: Mapping[str, str]) -> FelixConfig:
    """Of a scenario's parameters; one that Felix refuses is a mistake in the scenario."""
    config, problems = resolve({}, {}, {}, {}, felix, hostname=NODE)
    if problems:
        raise ValueError("; ".join(map(str, problems)))
    return config


def differences(scenario: Scenario, found: Mapping[Probe, str]) -> list[str]:
    """Every probe as a line of a matrix, the wrong ones marked; empty if none is wrong."""
    if all(found[probe] == probe.expected for probe in scenario.probes):
        return []
    width = max(len(str(probe)) for probe in scenario.probes)
    return [scenario.name] + [
        f"  {probe!s:{width}}  expected {probe.expected:5}  found {found[probe]}"
        + ("" if found[probe] == probe.expected else "   <====")
        for probe in scenario.probes
    ]
