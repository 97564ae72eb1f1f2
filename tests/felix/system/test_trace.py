"""`catbird policy explain --trace`: real packets of pods, followed through the rules that a running Felix has written."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.cli.client import SpeakerError
from tests.felix.system.node import ROOT, FelixNode, felix_node, local_store, policy, put, until
from tests.felix.system.traffic import Echo, connects
from tests.felix.truth.world import PARTIES, resource

pytestmark = pytest.mark.root

TIER = resource("Tier", "security", {"order": 10, "defaultAction": "Deny"})
BLOCK = policy(
    "security.block", "app == 'b'", tier="security",
    ingress=[{"action": "Pass", "source": {"selector": "app == 'a'"}}, {"action": "Deny", "protocol": "TCP", "destination": {"ports": [80]}}],
)  # fmt: skip
WEB = policy("web", "app == 'b'", ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}])
A, B, C = PARTIES["a"].ipv4, PARTIES["b"].ipv4, PARTIES["c"].ipv4


class Command:
    """`catbird policy explain --trace`, begun: the kernel is tracing when `begun` returns."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def begun(cls, node: FelixNode, *words: str) -> Command:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "integration.catbird", "policy", "explain", "--trace", "--socket", str(node.control),
            *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.readline(), 20)
        assert b"tracing" in said, said + await process.stderr.read()
        return cls(process)

    async def packet(self) -> dict[str, Any]:
        """With `-o json`: the next one."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 10))
        return found

    async def interrupted(self) -> tuple[int, str, str]:
        """Exit code and what else it said after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> tuple[int, str, str]:
        out, err = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@contextmanager
def echo_of(node: FelixNode) -> Iterator[None]:
    echo = Echo(node, PARTIES["b"], 80)
    try:
        yield
    finally:
        echo.close()


def is_tracing(node: FelixNode) -> bool:
    return "catbird-trace" in node.nft("list", "tables")


async def nothing_is_left(node: FelixNode) -> None:
    await until(lambda: not is_tracing(node), "the trace's table is gone", within_s=3)


def steps_of(packet: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Policy or profile, its direction, and which rule of it: everyone that was asked, in order."""
    found = []
    for hook in packet["hooks"]:
        for step in hook["steps"]:
            if "policy" in step:
                one = step["policy"]
                found.append((one.get("name") or one["profile"], one["direction"], one["rule"]))
    return list(dict.fromkeys(found))


def test_an_allowed_and_a_denied_connection_are_followed_to_the_rule_that_decides(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path) as node:
            await put(store, TIER, BLOCK, WEB)
            node.start()
            await node.ready()
            with echo_of(node):
                trace = await Command.begun(
                    node, "--from", "default/a", "--to", "default/b", "--port", "80", "-o", "json"
                )
                assert is_tracing(node)
                assert await connects(node, "a", "b", 80)
                first = await trace.packet()
                assert (await trace.interrupted())[0] == 0
                await nothing_is_left(node)

                trace = await Command.begun(
                    node, "--from", "other/c", "--to", "default/b", "--port", "80", "-o", "json"
                )
                assert not await connects(node, "c", "b", 80)
                second = await trace.packet()
                assert (await trace.interrupted())[0] == 0
                await nothing_is_left(node)
        assert first["verdict"] == "allow"
        assert first["flow"] | {"sourcePort": 0} == {
            "source": A, "destination": B, "protocol": "tcp", "sourcePort": 0, "destinationPort": 80, "tcpFlags": ["SYN"],
        }  # fmt: skip
        assert [(one["hook"], one["verdict"]) for one in first["hooks"]] == [
            ("raw PREROUTING", "accept"), ("mangle PREROUTING", "accept"), ("nat PREROUTING", "accept"),
            ("filter FORWARD", "accept"), ("mangle POSTROUTING", "accept"), ("nat POSTROUTING", "accept"),
        ]  # fmt: skip
        assert (first["hooks"][3]["in"], first["hooks"][3]["out"]) == ("calia", "calib")
        assert steps_of(first) == [
            ("kns.default", "egress", 0), ("security.block", "ingress", 0), ("web", "ingress", 0)
        ]  # fmt: skip
        assert first["reason"].endswith("GlobalNetworkPolicy web in tier default, ingress rule 0: allow tcp to port 80")

        assert (second["verdict"], second["hooks"][-1]["hook"]) == ("deny", "filter FORWARD")
        assert steps_of(second)[:2] == [("kns.other", "egress", 0), ("security.block", "ingress", 1)]
        assert second["reason"] == (
            "GlobalNetworkPolicy security.block in tier security, ingress rule 1: deny tcp to port 80"
        )
        last = second["hooks"][-1]["steps"][-1]
        assert (last["verdict"], last["policy"]["name"], last["policy"]["tier"]) == (
            "drop",
            "security.block",
            "security",
        )

    asyncio.run(scenario())


def test_the_text_says_verdict_and_way_and_the_exit_code_whether_it_was_expected(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path) as store, felix_node(tmp_path) as node:
            await put(store, WEB)
            node.start()
            await node.ready()
            flow = ("--from", PARTIES["a"].ipv6, "--to", "default/b")
            trace = await Command.begun(node, *flow, "--port", "81", "--expect", "allow", "--for", "1s")
            assert not await connects(node, "a", "b", 81)  # another IP version: not told
            code, out, err = await trace.ended()
            assert (code, out) == (1, "")
            assert "0 packets of this flow" in err

            trace = await Command.begun(node, *flow, "--protocol", "icmp", "--expect", "deny", "--for", "1s")
            ping = ("ping", "-6", "-c1", "-W1", PARTIES["b"].ipv6)
            await asyncio.to_thread(node.pods["a"].command, "sh", "-c", " ".join(ping) + " || true")
            code, out, err = await trace.ended()
            assert code == 0, out + err
            lines = out.splitlines()
            assert lines[0] == f"packet 1: DENIED  icmpv6 type 128 code 0 {PARTIES['a'].ipv6} -> {PARTIES['b'].ipv6}"
            assert "End of tier default" in lines[1]
            assert "  filter FORWARD in calia out calib: DROP" in lines
            assert "    cali-pi-gnp/web: GlobalNetworkPolicy web in tier default, ingress" in lines
            assert "          no rule of it matches" in lines
            assert "1 packet: 1 denied" in err
            await nothing_is_left(node)

    asyncio.run(scenario())


def test_a_service_s_translation_by_another_program_is_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path), felix_node(tmp_path) as node:
            node.start()
            await node.ready()
            dnat = f"ip daddr 10.96.0.1 tcp dport 8080 dnat to {B}:80"
            node.host.command(
                "nft", "-f", "-",
                text=f"table ip proxy {{\nchain pre {{\n type nat hook prerouting priority dstnat; {dnat}\n}}\n}}\n",
            )  # fmt: skip
            flow = ("--from", "default/a", "--to", "default/b", "--port", "80", "--sent-to", "10.96.0.1:8080")
            with echo_of(node):
                trace = await Command.begun(node, *flow, "-o", "json")
                command = "exec 3<>/dev/tcp/10.96.0.1/8080"
                await asyncio.to_thread(node.pods["a"].command, "timeout", "3", "bash", "-c", command)
                packet = await trace.packet()
                await trace.interrupted()
            assert (packet["verdict"], packet["flow"]["destination"]) == ("allow", "10.96.0.1")
            hooks = {(one["table"], one["hook"]): one for one in packet["hooks"]}
            assert hooks["proxy", "pre"]["steps"][0]["verdict"] == "accept"
            forward = hooks["calico", "filter FORWARD"]
            assert (forward["flow"]["destination"], forward["flow"]["destinationPort"]) == (B, 80)

    asyncio.run(scenario())


def test_one_trace_at_a_time_and_none_outlives_felix(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path), felix_node(tmp_path) as node:
            node.start()
            await node.ready()
            asked = {"from": "default/a", "to": "default/b", "port": 80}
            flow = ("--from", "default/a", "--to", "default/b", "--port", "80", "--for", "5m")
            trace = await Command.begun(node, *flow)
            with pytest.raises(SpeakerError, match="another trace is running"):
                node.ask.post("policy", "trace", arguments=asked)
            trace.process.kill()  # without a word
            await trace.ended()
            await nothing_is_left(node)

            trace = await Command.begun(node, *flow)
            assert node.stop() == 0
            assert not is_tracing(node)
            await trace.ended()

            node.start()
            await node.ready()
            trace = await Command.begun(node, *flow)
            node.kill()
            await nothing_is_left(node)
            assert (await trace.ended())[0] == 1
            node.start()
            await node.ready()
            assert not is_tracing(node)
            rows = list(node.ask.post_for_rows("policy", "trace", arguments=asked | {"seconds": 0.1}))
            assert rows == []
            await nothing_is_left(node)

    asyncio.run(scenario())


def test_with_iptables_it_says_what_a_trace_needs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local_store(tmp_path), felix_node(tmp_path, NFTablesMode="Disabled") as node:
            node.start()
            await node.ready()
            with pytest.raises(SpeakerError, match="a trace needs the nftables renderer"):
                node.ask.post("policy", "trace", arguments={"from": "default/a", "to": "default/b", "port": 80})
            assert not is_tracing(node)

    asyncio.run(scenario())
