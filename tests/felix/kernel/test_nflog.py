"""The reader of log groups, on packets that a real rule logs."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.explain.denied import denied_flow
from felix.kernel.netlink import NetlinkFormatError
from felix.kernel.nflog import GroupRefused, LoggedPacket, NFLogReader, bind_messages, decode, open_group
from tests.felix.truth.sockets import Namespace

RULES = """
table inet t {
    chain in {
        type filter hook input priority 0;
        ip daddr 127.0.0.2 udp dport 53 log group 7 prefix "D|default/web|2|in" drop
        ip6 daddr ::1 tcp dport 80 log group 7 prefix "D|default/web|end-of-tier|in" reject with tcp reset
    }
}
"""


@given(st.binary(max_size=200))
def test_octets_from_anywhere_raise_nothing_but_a_format_error(data: bytes) -> None:
    try:
        list(decode(data))
    except NetlinkFormatError:
        pass


def test_a_request_is_no_packet() -> None:
    assert [list(decode(one)) for one in bind_messages(7)] == [[], []]


@pytest.mark.root
def test_what_a_rule_logs_arrives_with_prefix_interface_and_packet() -> None:
    namespace = Namespace("log")
    namespace.command("ip", "link", "set", "lo", "up")
    namespace.command("nft", "-f", "-", text=RULES)

    async def run() -> list[LoggedPacket]:
        packets: list[LoggedPacket] = []
        is_there = asyncio.Event()

        def received(packet: LoggedPacket) -> None:
            packets.append(packet)
            if len(packets) == 2:
                is_there.set()

        reader = NFLogReader([namespace.run(lambda: open_group(7))], received)
        try:
            with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.sendto(b"hello", ("127.0.0.2", 53))
            with namespace.socket(socket.AF_INET6, socket.SOCK_STREAM) as tcp, pytest.raises(ConnectionRefusedError):
                await asyncio.get_running_loop().sock_connect(tcp, ("::1", 80))
            await asyncio.wait_for(is_there.wait(), 5)
            assert (reader.lost, reader.malformed) == (0, 0)
        finally:
            reader.close()
        return packets

    packets = asyncio.run(run())
    flows = [denied_flow(packet.prefix, packet.payload) for packet in packets]
    assert [
        (flow.source, flow.destination, flow.protocol, flow.destination_port, flow.by.rule) for flow in flows if flow
    ] == [
        ("127.0.0.1", "127.0.0.2", 17, 53, 2),
        ("::1", "::1", 6, 80, None),
    ]
    assert [(packet.group, packet.in_interface, packet.out_interface) for packet in packets] == [(7, 1, 0), (7, 1, 0)]
    namespace.close()


@pytest.mark.root
def test_a_group_that_another_reads_is_said_to_be_taken() -> None:
    namespace = Namespace("log")

    first = namespace.run(lambda: open_group(9))
    with pytest.raises(GroupRefused, match="log group 9"):
        namespace.run(lambda: open_group(9))
    first.close()
    namespace.run(lambda: open_group(9)).close()
    namespace.close()
