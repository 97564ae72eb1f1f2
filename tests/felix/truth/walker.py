"""The judge that asks the rules as values: calculation, chains, and a packet's walk through them."""

from __future__ import annotations

from felix.desired import EncapsulationUpdate, IPVersion
from felix.rules.ruleset import RuleProgrammer
from felix.rules.settings import RuleSettings
from integration.node.felix.settings import rule_settings
from tests.felix.rules.packet import Packet, Walk
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.truth.judges import SURROUNDINGS, Calculation, config_of, flow_of
from tests.felix.truth.tables import Probe, Scenario, Verdict
from tests.felix.truth.world import HOST_INTERFACES, NEIGHBOURS, WORKLOADS

VERSIONS: tuple[IPVersion, ...] = (4, 6)


class WalkingJudge:
    """With chains as nftables gets them, or as iptables does."""

    def __init__(self, *, is_like_nftables: bool) -> None:
        self._calculation = Calculation()
        self._programmers: dict[int, RuleProgrammer] = {}
        self._filters: dict[int, RecordingFilter] = {}
        for version in VERSIONS:
            self._filters[version] = filter_ = RecordingFilter(version, is_like_nftables=is_like_nftables)
            self._programmers[version] = programmer = RuleProgrammer(filter_, RuleSettings())
            for number, (name, addresses) in enumerate({"lo": ("127.0.0.1", "::1"), **HOST_INTERFACES}.items(), 1):
                programmer.interface_changed(name, "up", frozenset(addresses), number)

    def verdicts(self, scenario: Scenario) -> dict[Probe, Verdict]:
        config = config_of(scenario.felix)
        messages = self._calculation.go_to(scenario.resources, config)
        settings = rule_settings(config, EncapsulationUpdate())
        for programmer in self._programmers.values():
            if programmer.settings != settings:
                programmer.reconfigure(settings)
            for message in messages:
                programmer.on_message(message)
            programmer.complete()
        return {probe: self.walk(probe)[0] for probe in scenario.probes}

    def walk(self, probe: Probe) -> tuple[Verdict, list[str]]:
        """The verdict, and the way there."""
        filter_ = self._filters[probe.version]
        packet = packet_of(probe)
        locals = frozenset(name for its in SURROUNDINGS.interfaces.values() for name in its)
        found = Walk(filter_.ruleset, filter_.sets, locals).verdict(packet)
        return ("allow" if found == "accept" else "deny"), packet.path


def packet_of(probe: Probe) -> Packet:
    flow = flow_of(probe)
    in_interface = "" if probe.source == "host" else flow.arrives_by or _interface(probe.source)
    return Packet(
        str(flow.source),
        str(flow.destination),
        flow.protocol,
        flow.source_port or 40000,
        flow.destination_port or 0,
        flow.icmp,
        in_interface,
        "" if probe.destination == "host" else _interface(probe.destination),
        is_reverse_path_wrong=bool(probe.spoofed),
        before_dnat=(str(flow.before_dnat[0]), flow.before_dnat[1] or 0) if flow.before_dnat else None,
    )


def _interface(name: str) -> str:
    return next(one.host_side for one in (*WORKLOADS, *NEIGHBOURS) if one.name == name)
