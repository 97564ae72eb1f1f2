"""The loads. Each sets up sessions, starts the clock with the first byte, and stops it with the last route that counts.

A scenario is a function (daemon, settings) → `Result`; the tables are made once per process and are the same for all daemons.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from tests.bench import process_stats
from tests.bench.bench_peer import BenchPeer, BenchPeerError
from tests.bench.daemons import Daemon, Running, running
from tests.bench.fib_watch import DAEMON_ADDRESS, PEER_ADDRESS, FibWatch, entered, two_namespaces
from tests.bench.load import Load
from tests.bench.table import Table, competing_tables, full_table
from tests.bench.tally import Expectation, Tally
from tests.bench.topology import DaemonError, PeerSpec, Topology

SPEAKER = "127.9.0.1"
NEXT_HOPS = ("198.18.1.1", "198.18.1.2")  # not the senders' own: some daemons take no loopback address
QUIET_S = 1.0  # no UPDATE for so long and the state complete: finished
STUCK_S = 20.0  # no UPDATE for so long and the state not complete: it never will be


@dataclass(frozen=True, slots=True)
class Settings:
    """`scale` shrinks the tables for a quick look; 1.0 is the real thing. CPUs are None to leave scheduling alone."""

    scale: float = 1.0
    daemon_cpu: int | None = 1
    timeout_s: float = 180.0


@dataclass(slots=True)
class Result:
    """One run. `problems` empty: every route arrived as expected. `figures`: whatever else the scenario measures."""

    scenario: str
    daemon: str
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    idle_mib: float = 0.0
    problems: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


class Meter:
    """Times a load: `start` with the first byte, `stop` when it is over."""

    def __init__(self, running_daemon: Running) -> None:
        self._daemon = running_daemon
        self._pids = running_daemon.pids
        self.idle_mib = process_stats.resident_mib(self._pids)
        self._cpu_s = process_stats.cpu_s(self._pids)
        self.started_at = time.monotonic()

    def result(self, scenario: str, daemon: str, finished_at: float) -> Result:
        self._daemon.check_alive()
        return Result(
            scenario,
            daemon,
            seconds=finished_at - self.started_at,
            cpu_s=process_stats.cpu_s(self._pids) - self._cpu_s,
            peak_mib=process_stats.peak_mib(self._pids),
            idle_mib=self.idle_mib,
        )


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def loopback_topology(peers: list[PeerSpec]) -> Topology:
    return Topology(SPEAKER, free_port(SPEAKER), tuple(peers))


def bench_peers(topology: Topology) -> list[BenchPeer]:
    return [BenchPeer(spec.name, spec.address, spec.asn, spec.hold_time_s) for spec in topology.peers]


def packed(address: str) -> bytes:
    return socket.inet_aton(address)


def until_complete(load: Load, tallies: list[Tally], timeout_s: float) -> None:
    """Run the load until every receiver's state is complete and quiet, or until nothing moves any more."""

    def is_done(now: float) -> bool:
        if load.is_quiet(now, STUCK_S):
            return True
        return load.is_quiet(now, QUIET_S) and all(tally.is_complete for tally in tallies)

    for tally in tallies:
        tally.last_update_at = time.monotonic()
    load.run(is_done, timeout_s)


def settle(load: Load) -> None:
    """What daemons do right after the sessions come up is not part of the load."""
    begin = time.monotonic()
    load.run(lambda now: now - begin > 0.5, 5.0)
    gc.collect()
    gc.freeze()


def receive_table(
    scenario: str,
    daemon: Daemon,
    settings: Settings,
    senders: list[PeerSpec],
    tables: list[Table],
    best: list[int] | None,
) -> Result:
    """Every sender sends its table at once; one iBGP peer must hold the best of all in the end."""
    topology = loopback_topology([*senders, PeerSpec("r1", "127.9.2.1", 64512)])
    expected = Expectation.of(tables, best, frozenset(packed(address) for address in (*NEXT_HOPS, SPEAKER)))
    tally = Tally(expected, is_ibgp=daemon.name != "copy")
    load = Load(bench_peers(topology), {"r1": tally})
    streams = [table.stream for table in tables]
    with running(daemon, topology, settings.daemon_cpu) as process:
        try:
            load.connect(SPEAKER, topology.port, 20.0)
            settle(load)
            meter = Meter(process)
            for peer, stream in zip(load.peers, streams, strict=False):
                load.send(peer, stream)
            until_complete(load, [tally], settings.timeout_s)
        except BenchPeerError as error:
            raise DaemonError(f"{error}\n{process.log_tail()}") from error
        finally:
            load.close()
        result = meter.result(scenario, daemon.name, tally.last_update_at)
    result.problems = tally.verdict()
    result.figures = {"announcements": tally.announcements, "doubled": tally.doubled, "updates": tally.updates}
    return result


@lru_cache(maxsize=1)
def _one_table(scale: float) -> Table:
    return full_table(int(1_000_000 * scale), int(100_000 * scale), 65001, packed(NEXT_HOPS[0]))


@lru_cache(maxsize=1)
def _two_tables(scale: float) -> tuple[list[Table], list[int]]:
    peers = [(65001, packed(NEXT_HOPS[0])), (65002, packed(NEXT_HOPS[1]))]
    return competing_tables(int(1_000_000 * scale), int(100_000 * scale), peers)


def full_table_one_peer(daemon: Daemon, settings: Settings) -> Result:
    """(a) 1,000,000 IPv4 prefixes over 100,000 attribute sets: one eBGP peer → speaker → one iBGP peer."""
    senders = [PeerSpec("s1", "127.9.1.1", 65001, receives=False)]
    return receive_table("a", daemon, settings, senders, [_one_table(settings.scale)], None)


def full_table_two_peers(daemon: Daemon, settings: Settings) -> Result:
    """(b) the same prefixes from two eBGP peers, half of them better from each."""
    tables, best = _two_tables(settings.scale)
    senders = [
        PeerSpec("s1", "127.9.1.1", 65001, receives=False),
        PeerSpec("s2", "127.9.1.2", 65002, receives=False),
    ]
    return receive_table("b", daemon, settings, senders, tables, best)


def kernel_routes(daemon: Daemon, settings: Settings) -> Result:
    """(c) 50,000 IPv4 routes from one eBGP peer into the kernel: until all stand in the FIB."""
    count = int(50_000 * settings.scale)
    table = full_table(count, count // 10, 65001, packed(PEER_ADDRESS), seed=3)
    wanted = {prefix: packed(PEER_ADDRESS) for group in table.groups for prefix in group}
    with two_namespaces() as (daemon_netns, peer_netns):
        watch = FibWatch(daemon_netns)
        peers = (PeerSpec("s1", PEER_ADDRESS, 65001, receives=False),)
        topology = Topology(DAEMON_ADDRESS, 1790, peers, netns=daemon_netns, programs_kernel=True)
        load = Load(bench_peers(topology), {})
        counted_at = 0.0

        def is_done(now: float) -> bool:
            nonlocal counted_at
            before = watch.added
            watch.drain()
            if watch.added > before:
                counted_at = now
            return now - counted_at > (QUIET_S if watch.added >= count else STUCK_S / 2)

        with running(daemon, topology, settings.daemon_cpu) as process:
            try:
                with entered(peer_netns):
                    load.connect(DAEMON_ADDRESS, topology.port, 20.0)
                settle(load)
                watch.drain()
                watch.added = watch.removed = 0
                meter = Meter(process)
                counted_at = meter.started_at
                load.send(load.peers[0], table.stream)
                load.run(is_done, settings.timeout_s, watch.sock.fileno())
                result = meter.result("c", daemon.name, counted_at)
                found = watch.dump()  # while the session still stands
            except BenchPeerError as error:
                raise DaemonError(f"{error}\n{process.log_tail()}") from error
            finally:
                load.close()
                watch.close()
    if missing := wanted.keys() - found.keys():
        result.problems.append(f"{len(missing)} routes not in the kernel")
    if surplus := found.keys() - wanted.keys():
        result.problems.append(f"{len(surplus)} routes in the kernel that nobody sent")
    if wrong := sum(found.get(prefix, gateway) != gateway for prefix, gateway in wanted.items()):
        result.problems.append(f"{wrong} routes through the wrong gateway")
    result.figures = {"added": watch.added, "removed": watch.removed}
    return result


STORM_S = 15.0
STORM_HOLD_TIME_S = 9


def keepalives_under_load(daemon: Daemon, settings: Settings) -> Result:
    """(d) load (a) announced and withdrawn again and again for 15 s: gaps on a bystander's session, hold time 9 s."""
    table = _one_table(settings.scale)
    topology = loopback_topology(
        [
            PeerSpec("s1", "127.9.1.1", 65001, receives=False),
            PeerSpec("bystander", "127.9.3.1", 64512, receives=False, hold_time_s=STORM_HOLD_TIME_S),
            PeerSpec("r1", "127.9.2.1", 64512),
        ]
    )
    expected = Expectation.of([table], None, frozenset(packed(address) for address in (*NEXT_HOPS, SPEAKER)))
    tally = Tally(expected)
    load = Load(bench_peers(topology), {"r1": tally})
    sender, bystander, _ = load.peers
    rounds = [table.stream, table.withdrawals()]
    sent = 0
    with running(daemon, topology, settings.daemon_cpu) as process:
        try:
            load.connect(SPEAKER, topology.port, 20.0)
            settle(load)
            meter = Meter(process)
            bystander.longest_silence_s = 0.0

            def is_over(now: float) -> bool:
                nonlocal sent
                # The next round waits for nothing but the socket: the daemon always has something to read.
                if not sender.has_to_send:
                    if now - meter.started_at > STORM_S and sent % 2:
                        return True
                    load.send(sender, rounds[sent % 2])
                    sent += 1
                return False

            load.run(is_over, settings.timeout_s)
            bystander.longest_silence_s = max(bystander.longest_silence_s, time.monotonic() - bystander.last_heard_at)
            silence = bystander.longest_silence_s
            until_complete(load, [tally], settings.timeout_s)
        except BenchPeerError as error:
            raise DaemonError(f"{error}\n{process.log_tail()}") from error
        finally:
            load.close()
        result = meter.result("d", daemon.name, tally.last_update_at)
    result.problems = tally.verdict()
    if silence >= STORM_HOLD_TIME_S:
        result.problems.append(f"silent for {silence:.1f} s: a peer with a hold time of {STORM_HOLD_TIME_S} s is gone")
    result.figures = {"longest silence s": round(silence, 2), "rounds": sent, "announcements": tally.announcements}
    return result


SPEAKER_SCENARIOS: dict[str, Callable[[Daemon, Settings], Result]] = {
    "a": full_table_one_peer,
    "b": full_table_two_peers,
    "c": kernel_routes,
    "d": keepalives_under_load,
}
