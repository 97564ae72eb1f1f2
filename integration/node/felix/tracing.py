"""The kernel's trace of one flow, told in the words of policies. One at a time; nothing is left in the kernel behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from bgp.ports import EventSink
from felix.desired import IPVersion
from felix.explain.flow import Flow
from felix.explain.state import DesiredState
from felix.explain.traced import OURS, QUIET_S, Owner, Packets, Step
from felix.explain.view import View
from felix.filter_rules import Rule, Table
from felix.kernel.nft_trace import FlowTrace, TracedFlow, TraceEvent, remove_trace
from felix.kernel.nftables import NftablesFilter
from felix.nft_names import chain_name
from felix.rules import names
from felix.rules.nft_text import NftText
from felix.rules.policies import OwnedChain
from felix.rules.ruleset import RuleProgrammer
from felix.sync.nft_table import WantedChain
from integration.node.http_server import HttpError, LiveStream

VERSIONS: tuple[IPVersion, ...] = (4, 6)
PREFIXES: tuple[tuple[Table, str, str, bool], ...] = (
    ("filter", "cali-tw-", "ingress of", True),
    ("filter", "cali-fw-", "egress of", True),
    ("filter", "cali-th-", "egress of", False),
    ("filter", "cali-fh-", "ingress of", False),
    ("filter", "cali-thfw-", "forwarded egress of", False),
    ("filter", "cali-fhfw-", "forwarded ingress of", False),
    ("raw", "cali-th-", "untracked egress of", False),
    ("raw", "cali-fh-", "untracked ingress of", False),
    ("mangle", "cali-th-", "egress of", False),
    ("mangle", "cali-fh-", "pre-DNAT ingress of", False),
)


class Tracing:
    """What the control socket asks for. `rules` and `interfaces` (names by index) are asked anew for each trace."""

    def __init__(
        self,
        state: DesiredState,
        rules: Callable[[], Mapping[IPVersion, RuleProgrammer]],
        interfaces: Callable[[], Mapping[int, str]],
    ) -> None:
        self._state, self._rules, self._interfaces = state, rules, interfaces
        self._running: FlowTrace | None = None

    def start(self, flow: Flow, seconds: float) -> LiveStream:
        """One row a packet. Raises HttpError if it cannot be, or another trace is running."""
        if self._running is not None:
            raise HttpError(409, "another trace is running", "one at a time: wait until it ends, or end its client")
        version: IPVersion = 6 if flow.version == 6 else 4
        rules = self._rules().get(version)
        if rules is None or not isinstance(rules.filter, NftablesFilter):
            raise HttpError(501, f"no IPv{version} rules of nftables here to trace")
        try:
            trace = self._running = FlowTrace(version, traced(flow))
        except OSError as error:
            raise HttpError(503, f"the kernel does not trace: {error}") from None
        except ValueError as error:
            raise HttpError(400, str(error)) from None
        chains = ChainsToldOf(rules, rules.filter, self._state, self._interfaces)

        def close() -> None:
            if self._running is trace:
                self._running = None
                trace.close()

        return LiveStream(rows(trace, chains, Packets(self._state), seconds), close)


def traced(flow: Flow) -> TracedFlow:
    """As the packet is before this node translates anything."""
    sent = flow.as_sent()
    return TracedFlow(
        str(sent.source), str(sent.destination), sent.protocol, sent.destination_port, sent.source_port, sent.icmp
    )


async def rows(trace: FlowTrace, chains: ChainsToldOf, packets: Packets, seconds: float) -> AsyncIterator[View]:
    """Until the time is over."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    until = time.monotonic() + seconds
    loop.add_reader(trace, is_readable.set)
    try:
        while (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left if packets.is_empty else min(left, QUIET_S)):
                    await is_readable.wait()
            is_readable.clear()
            now = time.monotonic()
            for event in trace.read():
                for done in packets.take(chains.step(event), now):
                    yield done
            for done in packets.quiet(now):
                yield done
        for done in packets.rest():
            yield done
    finally:
        loop.remove_reader(trace)


@dataclass(slots=True)
class ChainsToldOf:
    """From what the kernel tells to whose rule it is."""

    rules: RuleProgrammer
    filter: NftablesFilter
    state: DesiredState
    interfaces: Callable[[], Mapping[int, str]]
    _handles: dict[str, dict[int, int]] = field(default_factory=dict)
    _owned: dict[str, OwnedChain] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)
    _text: NftText = field(init=False)

    def __post_init__(self) -> None:
        self._text = NftText(self.filter.version)

    def step(self, event: TraceEvent) -> Step:
        interfaces = self.interfaces()
        known = self.filter.chains.get(event.chain) if event.table == OURS else None
        step = Step(
            event.packet, event.table, event.chain if known is None else known.chain.name, event.kind,
            event.rule or None, self._verdict(event), in_interface=_interface(interfaces, event.in_interface),
            out_interface=_interface(interfaces, event.out_interface), header=event.header,
        )  # fmt: skip
        return step if known is None else self._known(step, event, known)

    def _known(self, step: Step, event: TraceEvent, chain: WantedChain) -> Step:
        at = self._place_of(event) if event.kind == "rule" else None
        rule = chain.chain.rules[at] if at is not None and at < len(chain.chain.rules) else None
        return Step(
            step.packet, step.table, step.chain, step.kind, at, step.verdict,
            f"{chain.table} {chain.hook}" if chain.hook else "", self._place(event.chain),
            "" if rule is None else self._rule_text(chain.table, rule),
            self._owner(event, chain, at), step.in_interface, step.out_interface, step.header,
        )  # fmt: skip

    def _place_of(self, event: TraceEvent) -> int | None:
        """None: the chain is being rewritten, or has been since."""
        if event.rule not in self._handles.get(event.chain, ()):
            try:
                self._handles[event.chain] = self.filter.handles(event.chain)
            except OSError:
                return None
        return self._handles[event.chain].get(event.rule)

    def _verdict(self, event: TraceEvent) -> str:
        word, _, target = event.verdict.partition(" ")
        known = self.filter.chains.get(target) if event.table == OURS else None
        return event.verdict if known is None else f"{word} {known.chain.name}"

    def _rule_text(self, table: Table, rule: Rule) -> str:
        if rule.comments:
            return "; ".join(rule.comments)
        try:
            return self._text.rule(table, Rule(rule.criteria)).replace("counter", "").strip()
        except ValueError:
            return ""

    def _owner(self, event: TraceEvent, wanted: WantedChain, at: int | None) -> Owner | None:
        name = event.chain
        if not wanted.chain.name.startswith(("cali-pi-", "cali-po-", "cali-pri-", "cali-pro-")):
            return None
        one = self._owned.get(name)
        if one is None or one.chain != wanted.chain:
            self._owned = {chain_name(table, one.chain.name): one for table, one in self.rules.owned_chains()}
            one = self._owned.get(name)
        if one is None:
            return None
        index = None if at is None or at >= len(one.counts) else one.counts[at]
        if at is not None and event.verdict != "continue":
            # What a matching rule does with a packet may be in rules behind it, which do not count.
            index = next((found for found in reversed(one.counts[: at + 1]) if found is not None), None)
        return Owner(one.owner, "in" if one.direction == "inbound" else "out", index)

    def _place(self, name: str) -> str:
        """Whose an endpoint's chain is."""
        if "-cali-t" not in name and "-cali-f" not in name:
            return ""
        if name not in self._places:
            self._places = dict(self._all_places())
            self._places.setdefault(name, "")
        return self._places[name]

    def _all_places(self) -> Iterator[tuple[str, str]]:
        for table, prefix, what, is_workload in PREFIXES:
            if is_workload:
                for id in sorted(self.state.workloads, reverse=True):  # of several on one interface the lowest has it
                    interface = self.state.workloads[id].interface
                    chain = names.endpoint_chain(prefix, interface)
                    yield chain_name(table, chain), f"{what} workload {id.workload} on {interface}"
            else:
                for interface, host in self.rules.hosts.on.items():
                    chain = names.endpoint_chain(prefix, interface)
                    yield chain_name(table, chain), f"{what} host endpoint {host.name}"


def _interface(names: Mapping[int, str], index: int) -> str:
    return names.get(index, f"index {index}") if index else ""


def remove_left_trace(log: EventSink) -> None:
    """What a killed Felix was tracing."""
    for version in VERSIONS:
        try:
            remove_trace(version)
        except OSError as error:
            log.event("trace_left", level="warning", version=version, error=str(error))
