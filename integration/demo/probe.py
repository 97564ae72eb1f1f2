"""Real packets between workloads: ICMP echo from sockets that were opened inside the workloads' namespaces.

The other side's kernel answers, so that a reply proves both ways through every router between. No process has to live in
a workload: a socket stays in the namespace where it was opened, so one thread can hold them all.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from bgp.families import IPAddress
from integration.demo.namespaces import Namespace
from integration.demo.plan import Workload

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
IDENTIFIER = os.getpid() & 0xFFFF
PAYLOAD = b"catbird demo".ljust(48, b".")
IPV6_ONLY_ECHO_REPLIES = struct.pack("8I", *[0xFFFFFFFF] * 4, 0xFFFFFFFD, *[0xFFFFFFFF] * 3)
ICMP6_FILTER = 1  # RFC 3542 §3.2; Python's socket module does not name it


@dataclass(frozen=True, slots=True)
class Reply:
    round_trip_ms: float
    hops: int  # routers that the reply passed


Pair = tuple[Workload, Workload, int]  # from, to, IP version


class Prober:
    """Holds an ICMP socket for each workload and IP version. Not for two threads at once."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._sequence = itertools.count(1)
        self._calls = itertools.count(1)

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for opened in self._sockets.values():
            opened.close()

    def open(self, workload: Workload, namespace: Namespace) -> None:
        """Also again, when its addresses have been away: a socket stays bound to what is no more."""
        for address in workload.addresses:
            if before := self._sockets.pop((workload.name, address.version), None):
                before.close()
            self._sockets[workload.name, address.version] = namespace.run(lambda at=address: _open(at))  # type: ignore[misc]

    def ping(self, pairs: Iterable[Pair], timeout_s: float = 1.0) -> dict[Pair, Reply | None]:
        """One packet for each pair, all at once; None = no reply within `timeout_s`.

        To conntrack each call is a flow of its own: one that was allowed once would go on when policies forbid it.
        """
        identifier = (IDENTIFIER + next(self._calls)) & 0xFFFF
        answers: dict[Pair, Reply | None] = dict.fromkeys(pairs)
        sent: dict[int, tuple[Pair, float]] = {}
        for pair in answers:
            number = next(self._sequence) & 0xFFFF
            sent[number] = pair, time.monotonic()
            self.send(pair, number, identifier)
        deadline = time.monotonic() + timeout_s
        while sent and (left := deadline - time.monotonic()) > 0:
            for number, hops, at in self.receive(left):
                if number in sent:
                    pair, sent_at = sent.pop(number)
                    answers[pair] = Reply((at - sent_at) * 1000, hops)
        return answers

    def send(self, pair: Pair, number: int, identifier: int = IDENTIFIER) -> bool:
        """False if this side's kernel already says that there is no way."""
        source, to, version = pair
        destination: IPAddress = to.ipv4 if version == 4 else to.ipv6
        try:
            self._sockets[source.name, version].sendto(
                _echo_request(version, number, identifier), (str(destination), 0)
            )
        except OSError:
            return False
        return True

    def receive(self, timeout_s: float) -> list[tuple[int, int, float]]:
        """Replies to our packets: number, hops, when (monotonic). Empty after `timeout_s`."""
        ready, _, _ = select.select(list(self._sockets.values()), [], [], timeout_s)
        replies = []
        for opened in ready:
            at = time.monotonic()
            data, ancillary, _, _ = opened.recvmsg(2048, 64)
            version = 4 if opened.family == socket.AF_INET else 6
            found = _echo_reply(version, data, ancillary)
            if found:
                replies.append((*found, at))
        return replies


@dataclass(slots=True)
class Losses:
    sent: int = 0
    lost: int = 0
    longest_gap_s: float = 0.0
    per_pair: dict[str, int] = field(default_factory=dict)


class Stream:
    """Sends a packet along each of a few pairs every `interval_s`, in a thread, until stopped."""

    def __init__(self, prober: Prober, pairs: Iterable[Pair], interval_s: float = 0.01) -> None:
        self._prober = prober
        self._pairs = tuple(pairs)
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._unanswered: dict[int, tuple[Pair, float]] = {}
        self._losses = Losses()
        self._answered_at: dict[Pair, float] = {}
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._send_all, name="packet stream")

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 1.0) -> Losses:
        """End sending, wait `patience_s` for the last replies, and count. Raises what ended the sending early."""
        self._stop.set()
        self._thread.join()
        if self._failure:
            raise self._failure
        deadline = time.monotonic() + patience_s
        while self._unanswered and (left := deadline - time.monotonic()) > 0:
            self._take(left)
        self._losses.lost += len(self._unanswered)
        for pair, _ in self._unanswered.values():
            name = f"{pair[0].name}→{pair[1].name} IPv{pair[2]}"
            self._losses.per_pair[name] = self._losses.per_pair.get(name, 0) + 1
        return self._losses

    def _send_all(self) -> None:
        try:
            self._work()
        except Exception as failure:
            self._failure = failure

    def _work(self) -> None:
        numbers = itertools.cycle(range(1, 0x10000))
        due = time.monotonic()
        while not self._stop.is_set():
            for pair in self._pairs:
                number = next(numbers)
                self._unanswered[number] = pair, time.monotonic()
                self._losses.sent += 1
                self._prober.send(pair, number)
            due += self._interval_s
            while (left := due - time.monotonic()) > 0:
                self._take(left)

    def _take(self, timeout_s: float) -> None:
        for number, _, at in self._prober.receive(timeout_s):
            answered = self._unanswered.pop(number, None)
            if answered:
                before = self._answered_at.get(answered[0], at)
                self._losses.longest_gap_s = max(self._losses.longest_gap_s, at - before)
                self._answered_at[answered[0]] = at


def _open(address: IPAddress) -> socket.socket:
    if address.version == 4:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    else:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, IPV6_ONLY_ECHO_REPLIES)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    made.bind((str(address), 0))
    return made


def _echo_request(version: int, number: int, identifier: int = IDENTIFIER) -> bytes:
    """RFC 792 and RFC 4443 §4.1. The kernel fills in ICMPv6's checksum, not ICMP's."""
    head = struct.pack("!BBHHH", ECHO_REQUEST[version], 0, 0, identifier, number)
    checksum = _checksum(head + PAYLOAD) if version == 4 else 0
    return struct.pack("!BBHHH", ECHO_REQUEST[version], 0, checksum, identifier, number) + PAYLOAD


def _echo_reply(version: int, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int] | None:
    """Number and hops if this is a reply to one of ours. A raw IPv4 socket shows the IP header too, an IPv6 one not."""
    if version == 4:
        hop_limit = data[8]
        data = data[(data[0] & 0x0F) * 4 :]
    else:
        hop_limit = next(
            (struct.unpack("i", value)[0] for _, kind, value in ancillary if kind == socket.IPV6_HOPLIMIT), 0
        )
    if len(data) < 8:
        return None
    kind, _, _, _, number = struct.unpack_from("!BBHHH", data)
    if kind != ECHO_REPLY[version] or data[8:] != PAYLOAD:
        return None
    return number, 64 - hop_limit


def _checksum(data: bytes) -> int:
    """RFC 1071; `data` has an even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
