"""What a table cannot say: connections that outlive a change, limits, restarts, and denials that are told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from felix.calc.graph import CalculationGraph
from felix.desired import Message
from felix.explain.denied import DeniedFlow, denied_flow, with_endpoint
from felix.explain.state import DesiredState
from felix.kernel.nflog import LoggedPacket, NFLogReader, open_group
from integration.node.felix.settings import DENIED_GROUP
from tests.felix.truth.bed import Bed
from tests.felix.truth.judges import Calculation, config_of
from tests.felix.truth.node import RENDERERS, NodeProcess
from tests.felix.truth.tables import Probe, probes_of
from tests.felix.truth.world import NODE, PARTIES, Resources, base_resources, resource, with_changes

pytestmark = [pytest.mark.root, pytest.mark.parametrize("renderer", RENDERERS)]
PORTS = {80, 81}, {53}


def policy(name: str, selector: str, order: int = 100, **spec: Any) -> dict[str, Any]:
    return resource("GlobalNetworkPolicy", name, {"selector": selector, "order": order, "types": ["Ingress"], **spec})


def with_policies(*policies: dict[str, Any], **workloads: Any) -> Resources:
    return with_changes(base_resources(), policies, workloads)


ALLOW_80 = policy("web", "app == 'b'", ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}])
DENY_ALL = policy("closed", "app == 'b'", 1, ingress=[{"action": "Deny"}])


@dataclass
class Scene:
    bed: Bed
    node: NodeProcess
    calculation: Calculation
    told: list[Message]

    async def apply(self, messages: list[Message]) -> None:
        """Without holding up the probes."""
        applied = await in_thread(lambda: self.node.apply(config_of({}), messages))
        assert applied.failures == []

    def go_to(self, resources: Resources) -> None:
        messages = self.calculation.go_to(resources)
        self.told += messages
        applied = self.node.apply(config_of({}), messages)
        assert applied.failures == []

    async def verdicts(self, table: str) -> dict[str, str]:
        return {str(probe): found for probe, found in (await self.bed.verdicts(list(probes_of(table)))).items()}

    def connected(self, source: str, destination: str, port: int) -> socket.socket:
        """A TCP socket of `source`, which may be connected from outside its namespace. Blocks at most a second."""
        made = self.bed.namespaces[source].socket(socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(1.0)
        made.bind((PARTIES[source].ipv4, 0))
        made.connect((PARTIES[destination].ipv4, port))
        return made


@asynccontextmanager
async def scene(renderer: str) -> AsyncIterator[Scene]:
    async with Bed(*PORTS) as bed:
        node = NodeProcess(bed.host, renderer)
        try:
            yield Scene(bed, node, Calculation(), [])
        finally:
            node.close()


class Echo:
    """A server on a port of its own, which keeps its connections, unlike the bed's."""

    def __init__(self, bed: Bed, name: str, port: int) -> None:
        self._listening = bed.namespaces[name].socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listening.bind(("", port))
        self._listening.listen(16)
        self._open: list[socket.socket] = []
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        accepted, _ = self._listening.accept()
        accepted.setblocking(False)
        self._open.append(accepted)
        asyncio.get_running_loop().add_reader(accepted, self._echo, accepted)

    def _echo(self, one: socket.socket) -> None:
        data = one.recv(100)
        if data:
            one.send(data)
        else:
            asyncio.get_running_loop().remove_reader(one)
            self._open.remove(one)
            one.close()

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for one in (self._listening, *self._open):
            loop.remove_reader(one)
            one.close()


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def say(one: socket.socket, word: bytes) -> bytes:
    one.sendall(word)
    return one.recv(100)


def test_a_connection_goes_on_when_a_policy_comes_that_would_not_let_it_begin(renderer: str) -> None:
    async def run() -> None:
        async with scene(renderer) as s:
            s.go_to(with_policies(ALLOW_80))
            echo = Echo(s.bed, "b", 8000)
            s.go_to(with_policies())
            one = await in_thread(lambda: s.connected("a", "b", 8000))
            assert await in_thread(lambda: say(one, b"before")) == b"before"
            s.go_to(with_policies(DENY_ALL))
            assert await in_thread(lambda: say(one, b"after")) == b"after"
            assert await s.verdicts("a -> b tcp 80 deny") == {"a -> b tcp 80": "deny"}
            one.close()
            echo.close()

    asyncio.run(run())


def until_connected(connect: Callable[[], socket.socket]) -> socket.socket:
    """The kernel sees a little later that a connection has ended."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return connect()
        except OSError:
            if time.monotonic() > deadline:
                raise


def test_no_more_connections_than_the_limit(renderer: str) -> None:
    async def run() -> None:
        async with scene(renderer) as s:
            s.go_to(with_policies(b={"qosControls": {"ingressMaxConnections": 2}}))
            echo = Echo(s.bed, "b", 8000)
            held = [await in_thread(lambda: s.connected("a", "b", 8000)) for _ in range(2)]
            with pytest.raises((ConnectionRefusedError, TimeoutError)):
                await in_thread(lambda: s.connected("c", "b", 8000))
            assert await in_thread(lambda: say(held[0], b"goes on")) == b"goes on"
            assert await s.verdicts("a -> c tcp 80 allow") == {"a -> c tcp 80": "allow"}
            held.pop().close()
            held.append(await in_thread(lambda: until_connected(lambda: s.connected("c", "b", 8000))))
            for one in held:
                one.close()
            echo.close()

    asyncio.run(run())


def test_a_denied_packet_is_told_with_policy_rule_and_endpoint(renderer: str) -> None:
    async def run() -> list[DeniedFlow]:
        flows: list[DeniedFlow] = []
        are_there = asyncio.Event()
        async with scene(renderer) as s:
            rules = [{"action": "Allow", "protocol": "TCP"}, {"action": "Deny", "protocol": "UDP"}]
            s.go_to(
                with_policies(policy("guard", "app == 'b'", ingress=rules), policy("end", "app == 'c'", ingress=[]))
            )
            state = DesiredState()
            state.fold_all(s.told)
            names = dict(s.bed.host.run(socket.if_nameindex))

            def received(packet: LoggedPacket) -> None:
                flow = denied_flow(
                    packet.prefix,
                    packet.payload,
                    names.get(packet.in_interface, ""),
                    names.get(packet.out_interface, ""),
                )
                if flow is not None:
                    flows.append(with_endpoint(flow, state, lambda _name: frozenset()))
                if len(flows) >= 2:
                    are_there.set()

            reader = NFLogReader([s.bed.host.run(lambda: open_group(DENIED_GROUP))], received)
            await s.verdicts("a -> b udp 53 deny\nout -> c tcp 80 deny\na -> b tcp 80 allow")
            await asyncio.wait_for(are_there.wait(), 5)
            reader.close()
        return flows

    found = sorted((flow.view() for flow in asyncio.run(run())), key=lambda view: str(view["endpoint"]))[:2]
    assert [(one["endpoint"], one["protocol"], one["destination_port"], one["tier"], one["rule"]) for one in found] == [
        ("default/b", "udp", 53, "default", 1),
        ("other/c", "tcp", 80, "default", "end of tier"),
    ]
    assert "guard" in found[0]["policy"]


def test_while_felix_restarts_nothing_is_cut_and_nothing_gets_through(renderer: str) -> None:
    """Packets all the time: of a flow that is allowed before and after, and of one that never is."""

    async def run() -> None:
        async with scene(renderer) as s:
            s.go_to(with_policies(ALLOW_80, DENY_UDP_EGRESS))
            watched = Watch(s.bed)
            for _ in range(3):
                s.node.close()
                s.node = NodeProcess(s.bed.host, renderer)
                graph = CalculationGraph(NODE)
                for key, value in with_policies(ALLOW_80, DENY_UDP_EGRESS).items():
                    graph.update(key, value)
                graph.in_sync()
                await s.apply(graph.flush())
            await watched.check()

    asyncio.run(run())


def test_while_policies_change_nothing_else_is_cut_and_nothing_gets_through(renderer: str) -> None:
    async def run() -> None:
        async with scene(renderer) as s:
            worlds = [
                with_policies(ALLOW_80, DENY_UDP_EGRESS, policy(f"more-{number}", "all()", 50 + number, ingress=rules))
                for number, rules in enumerate(
                    ([{"action": "Pass", "source": {"nets": ["203.0.113.0/24"]}}], [{"action": "Log"}], [])
                )
            ]
            # `all()` policies end the tier for c and d as well: only what is said of b and of a's egress is watched.
            s.go_to(worlds[0])
            watched = Watch(s.bed)
            changes = 0
            while changes < 12 or not watched.has_seen_enough():
                changes += 1
                await s.apply(s.calculation.go_to(worlds[changes % 3]))
            await watched.check()

    asyncio.run(run())


DENY_UDP_EGRESS = resource(
    "GlobalNetworkPolicy",
    "no-udp",
    {
        "selector": "app == 'a'",
        "order": 1,
        "types": ["Egress"],
        "egress": [{"action": "Deny", "protocol": "UDP"}, {"action": "Allow"}],
    },
)


class Watch:
    """Asks two things again and again in the background, until `check`."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._allowed, self._denied = probes_of("out -> b tcp 80 allow\na -> out udp 53 deny")
        self._found: dict[Probe, list[str]] = {self._allowed: [], self._denied: []}
        self._tasks = [asyncio.create_task(self._ask(one)) for one in self._found for _ in range(4)]

    async def _ask(self, probe: Probe) -> None:
        while True:
            self._found[probe] += (await self._bed.verdicts([probe])).values()

    def has_seen_enough(self) -> bool:
        return all(len(found) >= 12 for found in self._found.values())

    async def check(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for probe, found in self._found.items():
            assert len(found) > 3
            assert set(found) == {probe.expected}, f"{probe}: {count(found)}"


def count(found: Sequence[str]) -> dict[str, int]:
    return {one: found.count(one) for one in set(found)}
