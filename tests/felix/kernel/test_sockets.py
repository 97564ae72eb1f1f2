"""The netlink sockets against a real kernel."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from felix.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL
from felix.kernel.rtnetlink import AF_INET, Hop, RouteDecoder, RouteEncoder, Via, dump_routes
from felix.kernel.sockets import MonitorSocket, RepliesLost, RequestSocket
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root

GATEWAY, NOWHERE = b"\x0a\x09\0\2", b"\xac\x10\0\1"


@pytest.fixture(scope="module")
def node() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        wire(namespace, "eth0", namespace, "p0")
        namespace.ip("address add 10.9.0.1/24 dev eth0")
        yield namespace


@pytest.fixture
def requests(node: Namespace) -> Iterator[RequestSocket]:
    opened = RequestSocket(node.netlink)
    yield opened
    opened.close()
    node.ip("route flush table 100", check=False)


def put(requests: RequestSocket, gateways: list[bytes], protocol: int = 12) -> dict[int, str]:
    """10.1.N.0/24 in table 100, one for each gateway; returns what failed by its place."""
    first = requests.sequences(len(gateways))
    messages = [
        RouteEncoder(Via(AF_INET, table=100, protocol=protocol, hops=(Hop(gateway, 0),))).put(
            bytes([24, 10, 1, place]), NLM_F_CREATE | NLM_F_EXCL, first + place
        )
        for place, gateway in enumerate(gateways)
    ]
    return {place: error.name for place, error in requests.write(messages, first).items()}


def read(requests: RequestSocket, table: int = 100, protocol: int = 0) -> list[bytes]:
    decoder = RouteDecoder()
    return [
        decoder.decode(data, start, end)[0]
        for data, frames in requests.dump(lambda sequence: dump_routes(AF_INET, table, protocol, sequence))
        for _, _, _, _, start, end in frames
    ]


@pytest.mark.parametrize("bad", [[0], [2], [4], [0, 1, 2, 3, 4], []])
def test_of_a_batch_exactly_the_bad_ones_fail(requests: RequestSocket, bad: list[int]) -> None:
    gateways = [NOWHERE if place in bad else GATEWAY for place in range(5)]
    assert put(requests, gateways) == dict.fromkeys(bad, "ENETUNREACH")
    assert read(requests) == [bytes([24, 10, 1, place]) for place in range(5) if place not in bad]


def test_a_batch_of_failures_larger_than_any_buffer_of_old_is_answered_in_full(requests: RequestSocket) -> None:
    first = requests.sequences(3000)
    encoder = RouteEncoder(Via(AF_INET, table=100, protocol=12, hops=(Hop(NOWHERE, 0),)))
    messages = [
        encoder.put(bytes([32, 20, 0]) + number.to_bytes(2, "big"), NLM_F_CREATE, first + number)
        for number in range(3000)
    ]
    assert len(requests.write(messages, first)) == 3000


def test_answers_that_did_not_fit_are_said_to_be_lost_and_the_next_exchange_is_sound(node: Namespace) -> None:
    requests = RequestSocket(node.netlink)
    requests._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with pytest.raises(RepliesLost):
        put(requests, [NOWHERE] * 200)
    assert put(requests, [NOWHERE]) == {0: "ENETUNREACH"}
    requests.close()


def test_the_kernel_filters_by_table_and_protocol(requests: RequestSocket) -> None:
    put(requests, [GATEWAY] * 3)
    put(requests, [GATEWAY] * 5, protocol=80)  # two of them new
    assert len(read(requests)) == 5
    assert len(read(requests, protocol=80)) == 2
    assert read(requests, table=4242) == []


def test_a_large_table_is_read_whole(requests: RequestSocket) -> None:
    first = requests.sequences(5000)
    encoder = RouteEncoder(Via(AF_INET, table=100, protocol=12, type=6))
    prefixes = [bytes([32, 20, 0]) + number.to_bytes(2, "big") for number in range(5000)]
    messages = [encoder.put(prefix, NLM_F_CREATE, first + number) for number, prefix in enumerate(prefixes)]
    for start in range(0, 5000, 1000):
        assert requests.write(messages[start : start + 1000], first + start) == {}
    assert read(requests) == prefixes


def test_the_monitor_hears_others_but_not_us_and_only_of_its_tables(node: Namespace, requests: RequestSocket) -> None:
    monitor = MonitorSocket(requests.port_id, [100], node.netlink)
    put(requests, [GATEWAY] * 3)
    node.ip("route add 10.7.0.0/24 via 10.9.0.2 table 99")
    node.ip("route add 10.8.0.0/24 via 10.9.0.2 table 100")
    decoder = RouteDecoder()
    told = [decoder.decode(data, frame[4], frame[5])[0] for data, frame in monitor.read(100)]
    assert told == [bytes([24, 10, 8, 0])]
    monitor.close()
    node.ip("route delete 10.7.0.0/24 table 99")


def test_the_monitor_says_when_it_lost_something(node: Namespace, requests: RequestSocket) -> None:
    monitor = MonitorSocket(0, [100], node.netlink, buffer_octets=4096)
    put(requests, [GATEWAY] * 200)
    with pytest.raises(OSError) as lost:
        monitor.read(1000)
    assert lost.value.errno == errno.ENOBUFS
    monitor.close()
