"""Forgetting the connections of an address, in a kernel that tracks some."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from felix.kernel import connections
from felix.kernel.connections import Connections, open_netfilter
from felix.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkFormatError, attribute, message
from felix.kernel.sockets import RequestSocket
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root

Flow = tuple[str, str, str, str]  # source, destination, source and destination of the answers
RULES = (
    "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ct state new accept"
)


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | 0x8000, value)


def half(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    family, first = (socket.AF_INET6, 3) if ":" in source else (socket.AF_INET, 1)
    addresses = attribute(first, socket.inet_pton(family, source))
    addresses += attribute(first + 1, socket.inet_pton(family, destination))
    udp = attribute(1, b"\x11") + attribute(2, struct.pack("!H", ports[0])) + attribute(3, struct.pack("!H", ports[1]))
    return nested(1, addresses) + nested(2, udp)


def track(flows: Iterable[Flow]) -> None:
    """UDP's, one port each."""
    kernel = RequestSocket(open_netfilter)
    messages = []
    all_flows = list(flows)
    first = kernel.sequences(len(all_flows))
    for at, flow in enumerate(all_flows):
        port = 1024 + at
        body = struct.pack("=BBH", socket.AF_INET6 if ":" in flow[0] else socket.AF_INET, 0, 0)
        body += nested(1, half(flow[0], flow[1], (port, 53))) + nested(2, half(flow[2], flow[3], (53, port)))
        body += attribute(3, struct.pack("!I", 0xE)) + attribute(7, struct.pack("!I", 600))
        messages.append(message(1 << 8, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, first + at, body))
    errors = kernel.write(messages, first)
    kernel.close()
    assert not errors, next(iter(errors.values()))


def plain(source: str, destination: str) -> Flow:
    return source, destination, destination, source


class Tracked:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.told: list[dict[str, Any]] = []
        self.connections = namespace.call(
            lambda: Connections(lambda name, **said: self.told.append({"event": name, **said}))
        )

    def track(self, *flows: Flow) -> None:
        self.namespace.call(lambda: track(flows))

    def forget(self, *addresses: str) -> None:
        async def all_at_once() -> None:
            await asyncio.gather(*(self.connections.forget(one) for one in addresses))

        asyncio.run(all_at_once())

    def left(self) -> set[tuple[str, str]]:
        """Source and destination of the original direction."""
        found = set()
        for family in ("ipv4", "ipv6"):
            for line in self.namespace.run("conntrack", "-L", "-f", family, check=False).splitlines():
                words = line.split()
                found.add(tuple(next(one[4:] for one in words if one.startswith(which)) for which in ("src=", "dst=")))
        return found  # type: ignore[return-value]


@pytest.fixture
def tracked() -> Iterator[Tracked]:
    with network_namespace() as namespace:
        namespace.run("nft", RULES)
        made = Tracked(namespace)
        yield made
        made.connections.close()


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        (plain("10.65.0.1", "10.0.0.9"), "it began it"),
        (plain("10.0.0.9", "10.65.0.1"), "it was called"),
        (("10.0.0.9", "10.96.0.10", "10.65.0.1", "10.0.0.9"), "a service led to it"),
        (("10.64.0.1", "192.0.2.1", "192.0.2.1", "10.65.0.1"), "it is what a source was translated to"),
    ],
)
def test_every_connection_that_an_address_takes_part_in_is_forgotten(tracked: Tracked, flow: Flow, why: str) -> None:
    other = plain("10.65.0.10", "10.0.0.9")
    tracked.track(flow, other)
    assert len(tracked.left()) == 2
    tracked.forget("10.65.0.1")
    assert tracked.left() == {other[:2]}, why
    assert tracked.told == []


def test_ipv6_and_ipv4_are_told_apart(tracked: Tracked) -> None:
    flows = [plain("fd65::1", "fd00::9"), plain("fd65::2", "fd00::9"), plain("10.65.0.1", "10.0.0.9")]
    tracked.track(*flows)
    tracked.forget("fd65::1", "10.65.0.1")
    assert tracked.left() == {("fd65::2", "fd00::9")}


def test_an_address_without_connections_is_forgotten_easily(tracked: Tracked) -> None:
    tracked.track(plain("10.65.0.2", "10.0.0.9"))
    tracked.forget("10.65.0.1", "fd65::1")
    assert len(tracked.left()) == 1
    assert tracked.told == []


def test_real_packets_begin_anew(tracked: Tracked) -> None:
    node = tracked.namespace
    with network_namespace() as pod:
        wire(node, "cali1", pod, "eth0")
        node.ip("address add 10.65.0.254/24 dev cali1")
        pod.ip("address add 10.65.0.1/24 dev eth0")
        assert " 0% packet loss" in pod.run("ping", "-c1", "-W5", "10.65.0.254")
        assert tracked.left() == {("10.65.0.1", "10.65.0.254")}
        tracked.forget("10.65.0.1")
        assert tracked.left() == set()


def test_a_hundred_addresses_at_once_cost_two_readings(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has its own, all that wait meanwhile share one."""
    readings = []
    dump = connections.dump_connections

    def counted(sequence: int, family: int) -> bytes:
        readings.append(family)
        return dump(sequence, family)

    monkeypatch.setattr(connections, "dump_connections", counted)
    tracked.track(*(plain(f"10.65.{n % 100}.1", "10.0.0.9") for n in range(1000)), plain("10.1.0.1", "10.0.0.9"))
    tracked.forget(*(f"10.65.{n}.1" for n in range(100)))
    assert tracked.left() == {("10.1.0.1", "10.0.0.9")}
    assert len(readings) == 2


def test_a_table_that_cannot_be_read_is_told_and_the_next_one_is_tried(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.track(plain("10.65.0.1", "10.0.0.9"))
    with monkeypatch.context() as patched:
        patched.setattr(connections, "GET", 15 << 8)  # a part of netfilter that does not exist
        tracked.forget("10.65.0.1")
    assert [(one["event"], one["addresses"]) for one in tracked.told] == [("connections_not_forgotten", ["10.65.0.1"])]
    tracked.forget("10.65.0.1")
    assert tracked.left() == set()


def test_nonsense_is_refused() -> None:
    header = struct.pack("=BBH", socket.AF_INET, 0, 0)
    with pytest.raises(NetlinkFormatError):
        connections.deletion(header + b"\x03\0\1\0", 0, 8, {b"\0" * 4})
    assert connections.deletion(header, 0, 4, {b"\0" * 4}) is None
