"""The route-reflector loads, S1 to S9: all clients are internal, the daemon reflects between them (RFC 4456).

Each function (daemon, settings) → `Result`. The clock stops with the last UPDATE that the last client got; that all of it
was right is found out afterwards, and a result with `problems` is not a result.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

from tests.bench.bench_peer import BenchPeer, BenchPeerError
from tests.bench.daemons import Daemon, Running, running
from tests.bench.fleet import Fleet
from tests.bench.judge import Judge, Verifier, verdicts
from tests.bench.population import LOCAL_PREF, Population, next_hop_of, nodes, upstreams
from tests.bench.scenarios import QUIET_S, SPEAKER, STUCK_S, Meter, Result, Settings, free_port
from tests.bench.table import competing_tables, full_table, withdrawal
from tests.bench.topology import DaemonError

CONNECT_S = 120.0
FLIPS = 200
FLIP_S = 5.0
RACK = 0.1  # of the clients


@dataclass(slots=True)
class Bed:
    """A running reflector and its clients."""

    daemon: Daemon
    settings: Settings
    population: Population
    process: Running
    fleet: Fleet
    clients: list[BenchPeer]
    verifier: Verifier
    judges: dict[str, Judge]

    def connect(self, clients: list[BenchPeer], *, announce: bool) -> None:
        """`announce`: each says what it has as soon as it is up."""
        when_up = self.announce if announce else lambda _: None
        self.fleet.connect(clients, self.daemon.connect_window, CONNECT_S, when_up)

    def announce(self, client: BenchPeer) -> None:
        if source := self.population.sources.get(client.name):
            self.fleet.send(client, source.stream)

    def announce_all(self) -> None:
        for client in self.clients:
            self.announce(client)

    def new_judge(self, client: BenchPeer) -> None:
        """A client that begins anew knows nothing."""
        if client.name in self.judges:
            self.judges[client.name] = self.population.judge(client.name, self.verifier)

    def settle(self) -> None:
        """What daemons do right after the sessions come up is not part of the load."""
        begin = time.monotonic()
        self.fleet.run(lambda now: now - begin > 0.5, 5.0)
        gc.collect()
        gc.freeze()

    def until_complete(self, judges: dict[str, Judge]) -> list[str]:
        """Wait until these clients hold what `verifier` has, or nothing moves any more. What kept them, if anything."""
        waiting = list(judges.values())
        begin = time.monotonic()

        def is_done(now: float) -> bool:
            quiet_s = now - max(begin, self.fleet.last_data_at)
            if quiet_s < QUIET_S or self.fleet.is_sending:
                return False
            while waiting and waiting[-1].is_complete:
                waiting.pop()
            return not waiting or quiet_s > STUCK_S

        timeout_s = self.settings.timeout_s
        if self.fleet.run(is_done, timeout_s):
            return []
        done = sum(judge.is_complete for judge in judges.values())
        return [f"not finished after {timeout_s:.0f} s: {done} of {len(judges)} clients hold everything"]


@contextmanager
def bed(daemon: Daemon, settings: Settings, population: Population, judged: list[str]) -> Iterator[Bed]:
    """Raises DaemonError whatever goes wrong with a session."""
    topology = population.topology(SPEAKER, free_port(SPEAKER))
    verifier = population.verifier(None if daemon.name == "copy" else topology.cluster_id)
    judges = {name: population.judge(name, verifier) for name in judged}
    with running(daemon, topology, settings.daemon_cpu) as process:
        fleet = Fleet(SPEAKER, topology.port, judges)
        try:
            process.wait_until_listening(60.0)
            yield Bed(daemon, settings, population, process, fleet, population.clients(), verifier, judges)
        except (BenchPeerError, FileNotFoundError) as error:
            raise DaemonError(f"{error}\n{process.log_tail()}") from error
        finally:
            fleet.close()
            gc.unfreeze()


def last_update_at(judges: dict[str, Judge]) -> float:
    return max(judge.last_update_at for judge in judges.values())


def finished(scenario: str, bed: Bed, meter: Meter, load_cpu_s: float, problems: list[str], may_double: bool) -> Result:
    result = meter.result(scenario, bed.daemon.name, last_update_at(bed.judges))
    judges = bed.judges.values()
    result.figures = {
        "announcements": sum(judge.announcements for judge in judges),
        "updates": sum(judge.updates for judge in judges),
        "echoed": sum(judge.echoed for judge in judges),
        "doubled": sum(judge.doubled for judge in judges),
        "load CPU s": round(time.process_time() - load_cpu_s, 2),
    }
    result.problems = problems + verdicts(bed.judges, bed.verifier, may_double=may_double)
    return result


def reflect(
    scenario: str,
    make: Callable[[float], Population],
    daemon: Daemon,
    settings: Settings,
    *,
    first_judged: int = 0,
    is_cold: bool = False,
    may_double: bool = False,
) -> Result:
    """All announce at once; done when every client from `first_judged` on holds everything.

    `is_cold`: nobody is connected before the clock starts, and each announces as soon as it is up.
    """
    population = make(settings.scale)
    judged = [f"c{number}" for number in range(first_judged, population.count)]
    with bed(daemon, settings, population, judged) as world:
        if not is_cold:
            world.connect(world.clients, announce=False)
            world.settle()
        load_cpu_s, meter = time.process_time(), Meter(world.process)
        if is_cold:
            world.connect(world.clients, announce=True)
            meter.started_at = world.fleet.first_connected_at
        else:
            world.announce_all()
        problems = world.until_complete(world.judges)
        return finished(scenario, world, meter, load_cpu_s, problems, may_double)


def scaled(count: int, scale: float, minimum: int = 10) -> int:
    return max(minimum, round(count * scale))


@lru_cache(maxsize=2)
def fifty(scale: float) -> Population:
    return nodes(scaled(50, scale), 4)


@lru_cache(maxsize=2)
def two_hundred(scale: float, family: str = "ipv4") -> Population:
    return nodes(scaled(200, scale), 20, family)


@lru_cache(maxsize=2)
def thousand(scale: float) -> Population:
    return nodes(scaled(1000, scale), 10)


@lru_cache(maxsize=1)
def one_full_table(scale: float, receivers: int, family: str = "ipv4") -> Population:
    next_hop = next_hop_of(0, family)
    count = int(1_000_000 * scale)
    table = full_table(count, count // 10, 65001, next_hop, local_pref=LOCAL_PREF)
    return upstreams([table], [next_hop], None, receivers)


@lru_cache(maxsize=1)
def two_upstreams(scale: float) -> Population:
    next_hops = [next_hop_of(number, "ipv4") for number in (0, 1)]
    count = int(200_000 * scale)
    peers = [(65001 + number, next_hop) for number, next_hop in enumerate(next_hops)]
    tables, best = competing_tables(count, count // 10, peers, local_pref=LOCAL_PREF)
    return upstreams(tables, next_hops, best, 20)


def flips(daemon: Daemon, settings: Settings) -> Result:
    """S6: S2 loaded, one prefix withdrawn and announced again, 200 times: until the last client has it."""
    population = two_hundred(settings.scale)
    with bed(daemon, settings, population, list(population.sources)) as world:
        world.connect(world.clients, announce=False)
        world.announce_all()
        if problems := world.until_complete(world.judges) + verdicts(world.judges, world.verifier, may_double=True):
            return Result("S6", daemon.name, problems=["before the flips: " + "; ".join(problems)])
        world.settle()
        for judge in world.judges.values():
            judge.new_phase(due=0)
        load_cpu_s, meter = time.process_time(), Meter(world.process)
        gone_ms, back_ms = [], []
        for number in range(scaled(FLIPS, settings.scale)):
            client = world.clients[number % len(world.clients)]
            prefixes = population.sources[client.name].prefixes[0]
            prefix = prefixes[number // len(world.clients) % len(prefixes)]
            gone_ms.append(_one_flip(world, client, withdrawal([prefix]), prefix))
            back_ms.append(_one_flip(world, client, population.one_prefix(client.name, prefix), prefix))
            for judge in world.judges.values():
                judge.due += judge is not world.judges[client.name]
        world.settle()
        result = finished("S6", world, meter, load_cpu_s, [], may_double=False)
        result.seconds = statistics.median(back_ms) / 1000
    for name, values in (("withdraw", gone_ms), ("announce", back_ms)):
        result.figures[f"{name} p50 ms"] = round(statistics.median(values), 2)
        result.figures[f"{name} p99 ms"] = round(sorted(values)[int(len(values) * 0.99)], 2)
    return result


def _one_flip(world: Bed, client: BenchPeer, message: bytes, prefix: bytes) -> float:
    """Milliseconds until the last other client has heard of it. Raises BenchPeerError after FLIP_S."""
    begin = time.monotonic()
    waiting = {id(judge) for name, judge in world.judges.items() if name != client.name}
    last_at = begin
    world.fleet.send(client, message)

    def is_done(_: float) -> bool:
        return not waiting

    def look() -> None:
        nonlocal last_at
        for judge, arrived_at, data in world.fleet.unjudged:
            if id(judge) in waiting and prefix in data:
                waiting.discard(id(judge))
                last_at = arrived_at

    if not world.fleet.run(is_done, FLIP_S, look):
        raise BenchPeerError(f"{len(waiting)} clients had not heard of a flip of {prefix.hex()} after {FLIP_S:.0f} s")
    return (last_at - begin) * 1000


def rack_restart(daemon: Daemon, settings: Settings) -> Result:
    """S7: S3 loaded, 100 of the 1,000 clients gone at once, then back: until all others know, until all have all."""
    population = thousand(settings.scale)
    everything = dict(population.winners)
    with bed(daemon, settings, population, list(population.sources)) as world:
        world.connect(world.clients, announce=False)
        world.announce_all()
        if problems := world.until_complete(world.judges) + verdicts(world.judges, world.verifier, may_double=True):
            return Result("S7", daemon.name, problems=["before the restart: " + "; ".join(problems)])
        world.settle()
        rack = world.clients[: scaled(population.count, RACK, minimum=1)]
        names = {client.name for client in rack}
        others = {name: judge for name, judge in world.judges.items() if name not in names}
        lost = {prefix for name in names for prefix in population.sources[name].routes}
        load_cpu_s, meter = time.process_time(), Meter(world.process)

        world.verifier.routes = {prefix: n for prefix, n in everything.items() if prefix not in lost}
        world.fleet.drop(rack)
        problems = world.until_complete(others)
        problems += verdicts(others, world.verifier, may_double=True)
        gone_s = last_update_at(others) - meter.started_at

        world.verifier.routes = everything
        for client in rack:
            world.new_judge(client)
        for judge in others.values():
            judge.new_phase(due=len(lost))
        begin = time.monotonic()
        world.connect(rack, announce=True)
        problems += world.until_complete(world.judges)
        back_s = last_update_at(world.judges) - begin
        result = finished("S7", world, meter, load_cpu_s, problems, may_double=True)
    result.seconds = gone_s + back_s
    result.figures |= {"gone s": round(gone_s, 3), "back s": round(back_s, 3), "redials": world.fleet.redials}
    return result


def reflector_restart(daemon: Daemon, settings: Settings) -> Result:
    """S9: the reflector of S3 killed and started again, all reconnect and announce: from the first connection on."""
    population = thousand(settings.scale)
    with bed(daemon, settings, population, list(population.sources)) as world:
        world.connect(world.clients, announce=True)
        if problems := world.until_complete(world.judges) + verdicts(world.judges, world.verifier, may_double=True):
            return Result("S9", daemon.name, problems=["before the restart: " + "; ".join(problems)])
        killed_at = time.monotonic()
        world.process.kill()
        world.fleet.drop(world.clients)
        world.fleet.unjudged.clear()
        for client in world.clients:
            world.new_judge(client)
        world.process.start()
        world.process.wait_until_listening(60.0)
        load_cpu_s, meter = time.process_time(), Meter(world.process)
        world.connect(world.clients, announce=True)
        meter.started_at = world.fleet.first_connected_at
        problems = world.until_complete(world.judges)
        result = finished("S9", world, meter, load_cpu_s, problems, may_double=True)
    result.figures["kill to first connection s"] = round(meter.started_at - killed_at, 3)
    return result


def _named(name: str, title: str, run: Callable[[Daemon, Settings], Result]) -> Callable[[Daemon, Settings], Result]:
    def scenario(daemon: Daemon, settings: Settings) -> Result:
        return run(daemon, settings)

    scenario.__doc__ = f"{name}: {title}"
    return scenario


REFLECTION: dict[str, Callable[[Daemon, Settings], Result]] = {
    name: _named(name, title, run)
    for name, title, run in (
        ("S1", "50 clients announce 4 routes each, all at once", partial(reflect, "S1", fifty)),
        ("S2", "200 clients announce 20 routes each, all at once", partial(reflect, "S2", two_hundred)),
        ("S3", "1,000 clients announce 10 routes each, all at once", partial(reflect, "S3", thousand)),
        (
            "S3cold",
            "the same, each announces as soon as it is up; from the first connection on",
            partial(reflect, "S3cold", thousand, is_cold=True, may_double=True),
        ),
        (
            "S4",
            "1,000,000 routes over 100,000 attribute sets from one client to one",
            partial(reflect, "S4", partial(one_full_table, receivers=1), first_judged=1),
        ),
        (
            "S4x10",
            "the same to ten clients",
            partial(reflect, "S4x10", partial(one_full_table, receivers=10), first_judged=1),
        ),
        (
            "S5",
            "200,000 prefixes from two clients, half of them better from each, to 20 clients",
            partial(reflect, "S5", two_upstreams, first_judged=2, may_double=True),
        ),
        ("S6", "S2 loaded, one prefix withdrawn and announced again, 200 times (time: announce p50)", flips),
        ("S7", "S3 loaded, 100 of its clients gone at once and back (time: both together)", rack_restart),
        ("S8", "S2 with IPv6", partial(reflect, "S8", partial(two_hundred, family="ipv6"))),
        (
            "S8full",
            "S4 with IPv6",
            partial(reflect, "S8full", partial(one_full_table, receivers=1, family="ipv6"), first_judged=1),
        ),
        ("S9", "S3's reflector killed and started again, all reconnect and announce", reflector_restart),
    )
}
