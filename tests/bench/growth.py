"""`python -m tests.bench.growth`: how a reflector's cost grows with its clients, in this process, without sockets.

Per point: N clients are Established, each announces R routes, and everybody is told everything: N·(N-1)·R announcements
leave, so work per announcement would be an exponent of 2, work per route of 1. Clients are heard a batch at a time, as an
event loop hears the sockets that are ready, and what one of them is told is judged.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bgp.config import ACCEPT_ALL, PeerConfig, SpeakerConfig
from bgp.families import IPV4, parse_address
from bgp.session.session import Session
from bgp.speaker import Speaker
from reflector.rules import reflection_of
from tests.bench.bench_peer import KEEPALIVE, BenchPeer
from tests.bench.engine import SPEAKER, Sink, Wire
from tests.bench.population import ASN, HOLD_TIME_S, nodes

CLUSTER_ID = "10.255.0.1"


class CountingWire(Wire):
    """Counts what is sent, and keeps it for the session in `watched` only."""

    def __init__(self) -> None:
        super().__init__()
        self.octets = 0
        self.watched: Any = None

    def send(self, session: Any, buffers: list[bytes | memoryview]) -> int:
        self.octets += sum(map(len, buffers))
        if session is self.watched:
            super().send(session, buffers)
        return 0


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement; `up_s` is for the sessions, `seconds` and `cpu_s` from the first UPDATE on."""

    clients: int
    up_s: float
    seconds: float
    cpu_s: float
    peak_mib: float
    octets: int
    problems: list[str]


def measure(clients: int, routes_each: int, batch: int) -> Point:
    population = nodes(clients, routes_each)
    began = time.monotonic()
    speaker, wire, sessions = _established(population.clients())
    up_s = time.monotonic() - began
    streams = [population.sources[f"c{number}"].stream for number in range(clients)]
    wire.watched, wire.octets = sessions[-1], 0
    wall, cpu = time.monotonic(), time.process_time()
    for start in range(0, clients, batch):
        for session, stream in zip(sessions[start : start + batch], streams[start : start + batch], strict=True):
            speaker.receive_data(session, stream, 1.0)
        _flush(speaker, wire)
    seconds, cpu_s = time.monotonic() - wall, time.process_time() - cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    verifier = population.verifier(CLUSTER_ID)
    judge = population.judge(f"c{clients - 1}", verifier)
    judge.feed(b"".join(wire.sent.get(wire.watched, [])), seconds)
    return Point(clients, up_s, seconds, cpu_s, peak_mib, wire.octets, verifier.problems + judge.verdict())


def _established(clients: list[BenchPeer]) -> tuple[Speaker, CountingWire, list[Session]]:
    peers = tuple(
        PeerConfig(
            name=client.name,
            address=ipaddress.ip_address(client.address),
            asn=ASN,
            passive=True,
            client=True,
            families=(IPV4,),
            hold_time_s=HOLD_TIME_S,
            import_policy=ACCEPT_ALL,
            export_policy=ACCEPT_ALL,
        )
        for client in clients
    )
    address = ipaddress.IPv4Address(CLUSTER_ID)
    config = SpeakerConfig(asn=ASN, router_id=address, cluster_id=address, listen=(), peers=peers)
    speaker = Speaker(
        config, fib=None, next_hops=None, events=Sink(), rng=random.Random(1), now=0.0, reflection_of=reflection_of
    )
    wire = CountingWire()
    speaker.transport = wire
    speaker.start(0.0)
    sessions = []
    for client in clients:
        session = speaker.accept(parse_address(SPEAKER), parse_address(client.address), 0.0)
        assert session is not None
        speaker.accepted(session)
        speaker.receive_data(session, client.open_message() + KEEPALIVE, 0.0)
        assert session.parser is not None, f"{client.name} is not Established"
        sessions.append(session)
    _flush(speaker, wire)
    return speaker, wire, sessions


def _flush(speaker: Speaker, wire: Wire) -> None:
    while True:
        wire.is_flush_due = False
        speaker.flush(1.0)
        if not wire.is_flush_due:
            return


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The e of cost = c·size^e that fits best: the slope of a line through the logarithms."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(cost, 1e-6)) for cost in costs]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--clients", default="100,200,500,1000,2000,5000", help="comma-separated; default: %(default)s")
    parser.add_argument("--routes", type=int, default=20, help="each client announces; default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="clients heard in one turn; default: %(default)s")
    options = parser.parse_args(argv)
    sizes = [int(text) for text in options.clients.split(",")]
    print("clients  announcements    sessions s    time s     CPU s  ns/announcement  peak MiB    MiB sent")
    points = []
    # A process for each point: memory of one would hide in that of the one before.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in sizes:
            point = pool.apply(measure, (size, options.routes, options.batch))
            points.append(point)
            told = size * (size - 1) * options.routes
            print(
                f"{size:7,} {told:14,} {point.up_s:13.3f} {point.seconds:9.3f} {point.cpu_s:9.3f} "
                f"{point.cpu_s / told * 1e9:16.1f} {point.peak_mib:9.0f} {point.octets / 2**20:11.1f}",
                flush=True,
            )
            for problem in point.problems:
                print(f"        FAILED: {problem}", flush=True)
    if len(points) > 1:
        sessions = exponent(sizes, [point.up_s for point in points])
        cpu = exponent(sizes, [point.cpu_s for point in points])
        memory = exponent(sizes, [point.peak_mib for point in points])
        print(f"exponents over clients: sessions {sessions:.2f}, CPU {cpu:.2f}, memory {memory:.2f}")
    return 1 if any(point.problems for point in points) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
