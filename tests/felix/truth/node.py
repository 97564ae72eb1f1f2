"""node1's Felix as far as packets are concerned, in a process of its own inside node1's namespace.

Reads steps on stdin (settings and messages), programs them, and answers on stdout with what the kernel refused. Pickle
both ways: the two ends are one program.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from felix.config import FelixConfig
from felix.desired import EncapsulationUpdate, IPVersion, Message
from felix.ports import Failure, PacketFilter
from felix.rules.ruleset import RuleProgrammer
from felix.rules.settings import RuleSettings
from integration.node.felix.settings import rule_settings
from tests.felix.truth.sockets import Namespace
from tests.felix.truth.world import HOST_INTERFACES

RENDERERS = ("nftables", "iptables")
LEGACY = "iptables-legacy"


@dataclass(frozen=True)
class Step:
    """`is_restarted`: a new Felix that knows nothing but what is in the kernel gets the messages."""

    config: FelixConfig
    messages: list[Message]
    is_restarted: bool = False


@dataclass(frozen=True)
class Applied:
    failures: list[Failure]
    took_s: float


def packet_filter(renderer: str, version: IPVersion) -> PacketFilter:
    if renderer == "nftables":
        from felix.kernel.nftables import NftablesFilter

        return NftablesFilter(version)
    from felix.kernel.iptables import IptablesFilter

    return IptablesFilter(version, "legacy" if renderer == LEGACY else "nft")


def programmers(renderer: str) -> list[RuleProgrammer]:
    made = [RuleProgrammer(packet_filter(renderer, version), RuleSettings()) for version in (4, 6)]
    for programmer in made:
        for number, (name, addresses) in enumerate({"lo": ("127.0.0.1", "::1"), **HOST_INTERFACES}.items(), 1):
            programmer.interface_changed(name, "up", frozenset(addresses), number)
    return made


async def serve(renderer: str) -> None:
    these = programmers(renderer)
    while (step := read(sys.stdin.buffer)) is not None:
        began = time.monotonic()
        if step.is_restarted:
            these = programmers(renderer)
        failures: list[Failure] = []
        for one in these:
            if one.settings != (wanted := rule_settings(step.config, EncapsulationUpdate())):
                one.reconfigure(wanted)
            for message in step.messages:
                one.on_message(message)
            failures += await one.apply(began)
        write(sys.stdout.buffer, Applied(failures, time.monotonic() - began))


def read(stream: IO[bytes]) -> Any:
    """None at the end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    return pickle.loads(stream.read(struct.unpack("!I", head)[0]))


def write(stream: IO[bytes], value: object) -> None:
    data = pickle.dumps(value)
    stream.write(struct.pack("!I", len(data)) + data)
    stream.flush()


class NodeProcess:
    """The other end: `apply` waits until it is in the kernel."""

    def __init__(self, host: Namespace, renderer: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()", renderer],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=host.child_setup(),  # noqa: PLW1509 (two system calls, no lock)
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout

    def apply(self, config: FelixConfig, messages: Sequence[Message], *, is_restarted: bool = False) -> Applied:
        """Raises RuntimeError if Felix died of it: its traceback is on stderr."""
        write(self._in, Step(config, list(messages), is_restarted))
        answer = read(self._out)
        if answer is None:
            raise RuntimeError("Felix ended")
        assert isinstance(answer, Applied)
        return answer

    def close(self) -> None:
        self._in.close()
        self._out.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    asyncio.run(serve(sys.argv[1]))
