"""Which rules a packet of one flow meets in the kernel: nftables' own trace, switched on for that flow alone.

A table of its own marks some of the flow's packets each second before any other rule sees them; the kernel then tells each rule
that matches, each return and the end. The table belongs to the trace's socket and goes with it, even if the process is killed. Kernels
before Linux 5.12 know no owner: what a killed process leaves there costs a little, and is replaced by the next trace, or
removed by `remove_trace`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from felix.desired import IPVersion, PortRange
from felix.filter_rules import ICMP, Net, Ports, Protocol, Side
from felix.kernel.netlink import attribute, attributes, frames
from felix.kernel.nfnetlink import (
    FAMILY_NUMBERS,
    NEW_CHAIN,
    NEW_RULE,
    OWNER,
    SOL_NETLINK,
    SUBSYSTEM,
    Message,
    NftSocket,
    open_nfnetlink,
)
from felix.kernel.nft_elements import named, nested, text
from felix.kernel.nft_expressions import CODES, REGISTER, Unencodable, be32, expression, immediate, limit
from felix.kernel.nft_rules import CRITERIA, RuleEncoder

TRACE_TABLE = "catbird-trace"
MESSAGE, GROUP, ADD_MEMBERSHIP = 17, 9, 1  # NFT_MSG_TRACE, NFNLGRP_NFTRACE
BEFORE_ALL = -301
HOOKS = {"prerouting": 0, "output": 3}
META_TRACE, ACCEPT = 12, 1
WITH_PORTS = (6, 17, 132)
PACKETS_A_SECOND = 5
WORDS = {code: word for word, code in CODES.items()} | {0xFFFFFFFF: "continue", 0xFFFFFFFE: "break", 3: "queue"}

Kind = Literal["rule", "return", "policy", "end"]
KINDS: dict[int, Kind] = {1: "policy", 2: "return", 3: "rule"}


@dataclass(frozen=True, slots=True)
class TracedFlow:
    """What is None may be anything. `port` is the destination's; both ports need a protocol that has some.

    `icmp` is type and code. All as the packet has it when it comes, before any translation.
    """

    source: str | None = None
    destination: str | None = None
    protocol: int | None = None
    port: int | None = None
    source_port: int | None = None
    icmp: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """`packet` is the same in all events of one packet on its way through one hook after the other; a later one may get it too.

    `kind`: a rule that matched, the kernel's mark at a chain's end (no more rule of it matches), a return, or what the hook
    does by default. `rule` is a rule's handle in `chain` (`NftSocket.rule_handles` has them in order), otherwise 0.
    `verdict`: `accept`, `drop`, `continue`, `return`, `jump CHAIN`, `goto CHAIN`. Interfaces by index, 0: none, or
    told in the hook's first event. `header`: the first octets of the packet from its IP header on, in a hook's first event.
    """

    packet: int
    kind: Kind
    table: str
    chain: str
    rule: int
    verdict: str
    in_interface: int
    out_interface: int
    mark: int
    header: bytes = b""


def trace_rules(version: IPVersion, flow: TracedFlow, table_flags: int = OWNER) -> list[Message]:
    """The table, its two chains and their rules. Raises ValueError for a flow that cannot be."""
    encoder = RuleEncoder(version, TRACE_TABLE, table_flags=table_flags)
    said = _criteria(encoder, flow) + limit(f"{PACKETS_A_SECOND}/second", PACKETS_A_SECOND)
    said += immediate(REGISTER, b"\1") + expression("meta", be32(2, META_TRACE) + be32(3, REGISTER))
    messages = [encoder.new_table()]
    for name, hook in HOOKS.items():
        at = be32(1, hook) + attribute(2, struct.pack("!i", BEFORE_ALL))
        chain = text(1, TRACE_TABLE) + text(3, name) + nested(4, at) + be32(5, ACCEPT) + text(7, "filter")
        messages.append((NEW_CHAIN, chain))
        messages.append((NEW_RULE, text(1, TRACE_TABLE) + text(2, name) + nested(4, said)))
    return messages


def _criteria(encoder: RuleEncoder, flow: TracedFlow) -> bytes:
    ports: tuple[tuple[Side, int | None], ...] = (("source", flow.source_port), ("destination", flow.port))
    if any(port is not None for _, port in ports) and flow.protocol not in WITH_PORTS:
        raise Unencodable("a port needs a protocol that has ports")
    wanted: list[Protocol | Net | Ports | ICMP] = []
    if flow.protocol is not None:
        wanted.append(Protocol(flow.protocol))
    if flow.source is not None:
        wanted.append(Net("source", str(ipaddress.ip_network(flow.source))))
    if flow.destination is not None:
        wanted.append(Net("destination", str(ipaddress.ip_network(flow.destination))))
    wanted += [Ports(side, (PortRange(port, port),)) for side, port in ports if port is not None]
    if flow.icmp is not None:
        wanted.append(ICMP(*flow.icmp))
    try:
        return b"".join(CRITERIA[type(one)](encoder, one) for one in wanted)
    except struct.error as error:
        raise Unencodable(f"no such flow: {error}") from None


class FlowTrace:
    """Opened at once. `async with` or `close` ends it. Raises OSError where the kernel does not let us, ValueError as `trace_rules`."""

    def __init__(
        self, version: IPVersion, flow: TracedFlow, factory: Callable[[], socket.socket] = open_nfnetlink
    ) -> None:
        ways = [trace_rules(version, flow, flags) for flags in (OWNER, 0)]
        self._family = FAMILY_NUMBERS[version]
        self._encoder = RuleEncoder(version, TRACE_TABLE)
        self._requests = NftSocket(version, TRACE_TABLE, factory)
        self._told = factory()
        try:
            self._told.setblocking(False)
            self._told.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP)
            self._begin(*ways)
        except BaseException:
            self._told.close()
            self._requests.close()
            raise

    def _begin(self, owned: list[Message], unowned: list[Message]) -> None:
        """What a killed process left behind goes in the same transaction."""
        before = [self._encoder.new_table(), self._encoder.delete_table()]
        refused = self._requests.transaction([*before, *owned])
        if any(error.errno in (errno.EOPNOTSUPP, errno.EINVAL) for error in refused.values()):
            refused = self._requests.transaction([*before, *unowned])
        for error in refused.values():
            raise error

    async def __aenter__(self) -> FlowTrace:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left in the kernel."""
        self._requests.transaction([self._encoder.delete_table()])
        self._requests.close()
        self._told.close()

    def fileno(self) -> int:
        return self._told.fileno()

    def read(self) -> list[TraceEvent]:
        """What has been told since the last time; without the rule that switches the trace on. Never waits."""
        found: list[TraceEvent] = []
        while True:
            try:
                received = self._told.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # some are lost
            for kind, _, _, _, start, end in frames(received):
                if kind == SUBSYSTEM | MESSAGE:
                    event = decode_event(received, start, end, self._family)
                    if event is not None and event.table != TRACE_TABLE:
                        found.append(event)

    async def events(self) -> AsyncIterator[TraceEvent]:
        """Until it is cancelled or closed."""
        loop = asyncio.get_running_loop()
        is_readable = asyncio.Event()
        loop.add_reader(self._told, is_readable.set)
        try:
            while True:
                await is_readable.wait()
                is_readable.clear()
                for event in self.read():
                    yield event
        finally:
            loop.remove_reader(self._told)


def decode_event(received: bytes, start: int, end: int, family: int) -> TraceEvent | None:
    """None: of another family."""
    if received[start] != family:
        return None
    found = {kind: received[a:b] for kind, a, b in attributes(received, start + 4, end)}

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), "big")

    kind = KINDS.get(number(4), "rule")
    if kind == "rule" and not number(3):
        kind = "end"
    code, target = number(16) if kind == "policy" else 0, ""
    if 5 in found:
        said = {one: found[5][a:b] for one, a, b in attributes(found[5], 0, len(found[5]))}
        code, target = int.from_bytes(said.get(1, b""), "big"), named(said.get(2, b""))
    word = WORDS.get(code, str(code))
    return TraceEvent(
        number(6), kind, named(found.get(1, b"")), named(found.get(2, b"")), number(3),
        f"{word} {target}" if target else word, number(10), number(12), number(14),
        found.get(8, b"") + found.get(9, b""),
    )  # fmt: skip


def remove_trace(version: IPVersion, factory: Callable[[], socket.socket] = open_nfnetlink) -> None:
    """What a killed process left behind. Raises OSError."""
    requests = NftSocket(version, TRACE_TABLE, factory)
    try:
        for error in requests.transaction([RuleEncoder(version, TRACE_TABLE).delete_table()]).values():
            if error.errno != errno.ENOENT:
                raise error
    finally:
        requests.close()
