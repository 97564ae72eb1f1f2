"""`python -m tests.bench.hostile`: what one hostile client costs the others, by catbird alone.

40 clients with 4 routes each stand; one more misbehaves. Meanwhile one prefix is withdrawn and announced again, over and over:
milliseconds until the last of the others has it, beside the daemon's memory and CPU time, and whether what the others hold
is whole afterwards.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from rich.console import Console
from rich.table import Table as TextTable

from tests.bench import process_stats
from tests.bench.bench_peer import KEEPALIVE, BenchPeer
from tests.bench.daemons import DAEMONS
from tests.bench.population import client_address, next_hop_of, nodes
from tests.bench.reflection import Bed, bed
from tests.bench.scenarios import Settings
from tests.bench.table import MARKER, announcement, full_table, withdrawal

CLIENTS = 40
FLIP_S = 90.0
MASS_ROUTES = 2_000_000

Offence = Callable[[str, int], None]
"""Runs in a process of its own until it is ended: (host, port) of the reflector."""


def offender() -> BenchPeer:
    return BenchPeer("offender", client_address(CLIENTS), 64512)


def _established(host: str, port: int) -> socket.socket:
    peer = offender()
    peer.connect(host, port, time.monotonic() + 30)
    assert peer.sock is not None
    peer.sock.setblocking(True)
    return peer.sock


def nothing(host: str, port: int) -> None:
    time.sleep(600)


def stops_reading(host: str, port: int) -> None:
    """Established, and from then on only keepalives go out."""
    sock = _established(host, port)
    while True:
        sock.sendall(KEEPALIVE)
        time.sleep(10)


@lru_cache
def masses() -> bytes:
    return full_table(MASS_ROUTES, MASS_ROUTES // 10, 65001, next_hop_of(CLIENTS, "ipv4"), local_pref=100).stream


def sends_masses(host: str, port: int) -> None:
    sock = _established(host, port)
    sock.sendall(masses())
    _read_for_ever(sock)


def flaps(host: str, port: int) -> None:
    """One prefix, withdrawn and announced 1,000 times a second."""
    sock = _established(host, port)
    sock.setblocking(False)
    prefix = b"\x18\xc6\x33\x64"
    next_hop = next_hop_of(CLIENTS, "ipv4")
    block = full_table(1, 1, 65001, next_hop, local_pref=100).blocks[0]
    messages = (announcement(block, [prefix], next_hop), withdrawal([prefix]))
    begin, count = time.monotonic(), 0
    while True:
        count += 1
        sock.sendall(messages[count % 2])
        try:
            sock.recv(1 << 20)
        except BlockingIOError:
            pass
        time.sleep(max(0.0, begin + count / 1000 - time.monotonic()))


def talks_garbage(host: str, port: int) -> None:
    """Connects again as soon as it is thrown out: a good OPEN, then UPDATEs of random octets."""
    rng = random.Random(1)
    while True:
        try:
            sock = _established(host, port)
            while True:
                body = rng.randbytes(rng.randint(4, 4000))
                sock.sendall(MARKER + (19 + len(body)).to_bytes(2, "big") + b"\x02" + body)
                if rng.random() < 0.2:
                    sock.sendall(rng.randbytes(50))
        except Exception:
            time.sleep(0.001)


def connects_for_nothing(host: str, port: int) -> None:
    """Opens connections as fast as it can, says nothing, and closes them."""
    while True:
        sock = socket.socket()
        sock.bind((client_address(CLIENTS), 0))
        try:
            sock.connect((host, port))
        except OSError:
            time.sleep(0.001)
        sock.close()


def _read_for_ever(sock: socket.socket) -> None:
    sock.settimeout(10.0)
    while True:
        try:
            if not sock.recv(1 << 20):
                return
        except TimeoutError:
            sock.sendall(KEEPALIVE)


OFFENCES: dict[str, Offence] = {
    "nobody": nothing,
    "stops reading": stops_reading,
    "2,000,000 routes": sends_masses,
    "flaps 1,000/s": flaps,
    "garbage in a loop": talks_garbage,
    "connects in a loop": connects_for_nothing,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    offence: str
    p50_ms: float
    p99_ms: float
    worst_ms: float
    before_mib: float
    peak_mib: float
    cpu_share: float
    problems: list[str]


def measure(offence: str, seconds: float) -> Outcome:
    population = nodes(CLIENTS + 1, 4)
    names = [f"c{number}" for number in range(CLIENTS)]
    if OFFENCES[offence] is sends_masses:
        masses()  # the process that sends them has them from here
    with bed(DAEMONS["catbird"], Settings(), population, names) as world:
        world.clients.pop()
        world.connect(world.clients, announce=False)
        for client in world.clients:
            world.announce(client)
        world.settle()
        world.fleet.forget_unjudged()
        pids = world.process.pids
        before_mib, cpu_s, begin = process_stats.resident_mib(pids), process_stats.cpu_s(pids), time.monotonic()
        process = multiprocessing.Process(
            target=OFFENCES[offence], args=(world.fleet.host, world.fleet.port), daemon=True
        )
        process.start()
        latencies: list[float] = []
        problems: list[str] = []
        churn = b"".join(population.one_prefix("c1", p) for p in population.sources["c1"].prefixes[0]) * 2000
        while time.monotonic() - begin < seconds:
            if offence == "stops reading" and len(latencies) % 20 == 0:
                world.fleet.send(world.clients[1], churn)  # something for it to miss
            latencies += _flip(world, problems)
            if problems:
                break
        took_s = time.monotonic() - begin
        peak_mib = process_stats.peak_mib(pids)
        cpu_share = (process_stats.cpu_s(pids) - cpu_s) / took_s
        process.kill()
        process.join()
        world.process.check_alive()
        down = [client.name for client in world.clients if client.name not in world.fleet.up]
        problems += [f"{', '.join(down)} lost their sessions"] if down else []
        latencies = sorted(latencies) or [math.inf]
        p99 = latencies[int(len(latencies) * 0.99)]
        p50 = statistics.median(latencies)
        return Outcome(offence, p50, p99, latencies[-1], before_mib, peak_mib, cpu_share, problems)


def _flip(world: Bed, problems: list[str]) -> list[float]:
    """Withdraw and announce one prefix of c0: milliseconds of each."""
    prefix = world.population.sources["c0"].prefixes[0][0]
    found = []
    for message in (withdrawal([prefix]), world.population.one_prefix("c0", prefix)):
        waiting = {id(judge) for name, judge in world.judges.items() if name != "c0"}
        begin = last_at = time.monotonic()
        world.fleet.send(world.clients[0], message)

        def all_heard(waiting: set[int] = waiting) -> bool:
            nonlocal last_at
            for judge, arrived_at, data in world.fleet.unjudged:
                if id(judge) in waiting and prefix in data:
                    waiting.discard(id(judge))
                    last_at = arrived_at
            world.fleet.forget_unjudged()
            return not waiting

        if not world.fleet.run(lambda _: False, FLIP_S, all_heard):
            problems.append(f"{len(waiting)} clients had not heard of a flip after {FLIP_S:.0f} s")
            break
        found.append((last_at - begin) * 1000)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hostile", description=__doc__)
    parser.add_argument("--offence", action="append", choices=list(OFFENCES), help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each")
    options = parser.parse_args(argv)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = TextTable("offender", "p50 ms", "p99 ms", "worst ms", "MiB before", "peak MiB", "CPU", "others", box=None)
    failed = False
    for name in options.offence or OFFENCES:
        out = measure(name, options.seconds)
        failed |= bool(out.problems)
        table.add_row(
            name, *(f"{value:.2f}" for value in (out.p50_ms, out.p99_ms, out.worst_ms)),
            f"{out.before_mib:.0f}", f"{out.peak_mib:.0f}", f"{out.cpu_share:.0%}", "; ".join(out.problems) or "untouched",
        )  # fmt: skip
    Console(width=120).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
