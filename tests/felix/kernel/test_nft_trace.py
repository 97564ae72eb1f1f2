"""The way of a real packet through our chains, as the kernel tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from felix.desired import IPVersion
from felix.filter_rules import (
    Accept,
    Chain,
    Drop,
    GoToByInterface,
    HookRules,
    Jump,
    Mark,
    Protocol,
    Return,
    Rule,
    SetMark,
)
from felix.kernel.nfnetlink import NftSocket
from felix.kernel.nft_trace import TRACE_TABLE, FlowTrace, TracedFlow, TraceEvent, remove_trace, trace_rules
from felix.kernel.nftables import NftablesFilter
from tests.felix.kernel.nft_scene import inside
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root
ICMP, TCP = 1, 6


@pytest.fixture
def ways() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """a — host — b."""
    with network_namespace() as a, network_namespace() as host, network_namespace() as b:
        for place, end, name in ((1, a, "cali1"), (2, b, "cali2")):
            wire(host, name, end, "eth0")
            host.ip(f"address add 10.0.{place}.1/24 dev {name}")
            end.ip(f"address add 10.0.{place}.2/24 dev eth0")
            end.ip(f"route add default via 10.0.{place}.1")
        host.sysctl("net.ipv4.ip_forward=1")
        yield a, host, b


def want(nft: NftablesFilter) -> None:
    accepted = Rule((Mark(1, 1),), Accept())
    nft.set_chains("filter", [
        Chain("cali-FORWARD", (Rule((), Jump("cali-to")), Rule((), Drop()))),
        Chain("cali-to", (Rule((), GoToByInterface("to", "out")),)),
        Chain("cali-tw-cali2", (Rule((), Jump("cali-pi-x")), accepted, Rule((), Drop()))),
        Chain("cali-pi-x", (Rule((Protocol(ICMP),), SetMark(1, 1)), Rule((Mark(1, 1),), Return()))),
    ])  # fmt: skip
    nft.set_map("filter", "to", {"cali2": "cali-tw-cali2"})
    nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-FORWARD")),)))


async def until_end(events: AsyncIterator[TraceEvent], chain: str) -> list[TraceEvent]:
    """The events of the first packet, to the one that decides in `chain`."""
    found: list[TraceEvent] = []
    async with asyncio.timeout(5):
        async for event in events:
            if not found or event.packet == found[0].packet:
                found.append(event)
            if found[-1].chain == chain and found[-1].verdict in ("accept", "drop"):
                return found
    raise AssertionError(found)


def test_a_packet_s_way_names_each_rule_and_where_it_ended(ways: tuple[Namespace, Namespace, Namespace]) -> None:
    a, host, _ = ways

    async def body(nft: NftablesFilter) -> None:
        want(nft)
        assert await nft.apply() == []
        for protocol, command, end in (
            (ICMP, ("ping", "-c1", "-W1", "10.0.2.2"), "accept"),
            (TCP, ("timeout", "0.5", "bash", "-c", "cat < /dev/tcp/10.0.2.2/80"), "drop"),
        ):
            async with FlowTrace(4, TracedFlow("10.0.1.2", "10.0.2.2", protocol)) as trace:
                sending = asyncio.create_task(asyncio.to_thread(a.run, *command, check=False))
                way = await until_end(trace.events(), "filter-cali-tw-cali2")
                await sending
            assert {event.table for event in way} == {"calico"}
            rules = [event for event in way if event.kind == "rule"]
            handles = {chain: nft._socket.rule_handles(chain).get(chain, []) for chain in {one.chain for one in rules}}
            steps = [(one.chain, handles[one.chain].index(one.rule), one.verdict) for one in rules]
            assert steps[:4] == [
                ("filter-FORWARD", 0, "jump filter-cali-FORWARD"),
                ("filter-cali-FORWARD", 0, "jump filter-cali-to"),
                ("filter-cali-to", 0, "goto filter-cali-tw-cali2"),
                ("filter-cali-tw-cali2", 0, "jump filter-cali-pi-x"),
            ]
            if end == "accept":
                assert steps[4:] == [
                    ("filter-cali-pi-x", 0, "continue"),
                    ("filter-cali-pi-x", 1, "return"),
                    ("filter-cali-tw-cali2", 1, "accept"),
                ]
                assert way[-1].mark == 1
            else:
                assert steps[4:] == [("filter-cali-tw-cali2", 2, "drop")]
            first = next(event for event in way if event.chain == "filter-FORWARD")
            assert (first.in_interface, first.out_interface) == (host.ifindex("cali1"), host.ifindex("cali2"))
            assert "catbird-trace" not in host.run("nft", "list", "ruleset")

    inside(host, body)


def test_other_flows_are_not_told(ways: tuple[Namespace, Namespace, Namespace]) -> None:
    a, host, _ = ways

    async def body(nft: NftablesFilter) -> None:
        want(nft)
        await nft.apply()
        async with FlowTrace(4, TracedFlow("10.0.1.2", "10.0.2.2", TCP, 443)) as trace:
            await asyncio.to_thread(a.run, "ping", "-c1", "-W1", "10.0.2.2", check=False)
            await asyncio.to_thread(a.run, "timeout", "0.2", "bash", "-c", "cat < /dev/tcp/10.0.2.2/80", check=False)
            assert trace.read() == []
            await asyncio.to_thread(a.run, "timeout", "0.2", "bash", "-c", "cat < /dev/tcp/10.0.2.2/443", check=False)
            assert trace.read() != []

    inside(host, body)


FLOWS: tuple[tuple[IPVersion, TracedFlow], ...] = (
    (4, TracedFlow("10.0.0.0/8")),
    (6, TracedFlow(destination="fd00::1", protocol=58, icmp=(128, 0))),
    (4, TracedFlow("10.0.0.1", protocol=TCP, port=80, source_port=4000)),
)


def test_what_a_killed_process_left_behind_goes() -> None:
    with network_namespace() as host:
        for version, flow in FLOWS:

            def leave(version: IPVersion = version, flow: TracedFlow = flow) -> None:
                """As a kernel does that knows no owner."""
                requests = NftSocket(version, TRACE_TABLE)
                assert requests.transaction(trace_rules(version, flow, table_flags=0)) == {}
                requests.close()

            host.call(leave)
            again = host.call(lambda version=version, flow=flow: FlowTrace(version, flow))  # type: ignore[misc]
            assert host.run("nft", "list", "ruleset").count("nftrace set 1") == 2
            again.close()
            assert host.run("nft", "list", "ruleset") == ""
            host.call(leave)
            host.call(lambda version=version: remove_trace(version))  # type: ignore[misc]
            host.call(lambda version=version: remove_trace(version))  # type: ignore[misc]
            assert host.run("nft", "list", "ruleset") == ""


def test_the_table_goes_with_its_socket_and_is_nobody_else_s() -> None:
    with network_namespace() as host:
        trace = host.call(lambda: FlowTrace(4, TracedFlow("10.0.0.0/8")))
        with pytest.raises(OSError, match="Operation not permitted"):
            host.call(lambda: FlowTrace(4, TracedFlow("10.0.0.0/8")))
        assert host.run("nft", "list", "ruleset").count("nftrace set 1") == 2
        trace._requests.close()  # as the kernel does for a process that is killed
        assert host.run("nft", "list", "ruleset") == ""


@pytest.mark.parametrize(
    "flow",
    [
        TracedFlow(port=80),
        TracedFlow("nowhere"),
        TracedFlow("fd00::1"),
        TracedFlow(protocol=256),
        TracedFlow(None, None, TCP, 70000),
        TracedFlow(source_port=80),
        TracedFlow(protocol=1, icmp=(256, 0)),
    ],
)
def test_a_flow_that_cannot_be_is_an_error(flow: TracedFlow) -> None:
    with pytest.raises(ValueError, match=r".+"):
        trace_rules(4, flow)
