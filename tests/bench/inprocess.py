"""`python -m tests.bench.inprocess`: the engine's hot path without sockets, stage by stage, on load (a)'s bytes.

Each stage runs in this process on the same input and is timed alone; `--profile STAGE` prints where its time goes.
Figures are CPU time, the best of `--runs`, since whatever else the machine does can only add.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

from bgp.families import IPV4
from bgp.wire import framing
from bgp.wire.attributes import Fields, scan_usual
from bgp.wire.nlri import split_nlri
from bgp.wire.update import RouteChange, UpdateParser
from felix.kernel.rtnetlink import Hop, RouteEncoder, Via
from tests.bench.engine import Engine
from tests.bench.table import Table, competing_tables, full_table

NEXT_HOPS = (socket.inet_aton("198.18.1.1"), socket.inet_aton("198.18.1.2"))

READ_OCTETS = 1 << 18  # what one read of a busy socket gives

Load = Callable[[], object]
"""Does the work once; what it returns is kept until the clock has stopped."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`prepare` makes a fresh `Load` for each run, outside the clock."""

    name: str
    what: str
    prepare: Callable[[Table], Load]


def reads(table: Table) -> list[bytes]:
    """The stream in reads, each of whole messages, as a session sees them after joining what was cut."""
    found, run, size = [], list[bytes](), 0
    for update in table.updates:
        run.append(update)
        size += len(update)
        if size >= READ_OCTETS:
            found.append(b"".join(run))
            run, size = [], 0
    return [*found, b"".join(run)]


def cut(table: Table) -> Load:
    chunks = reads(table)
    return lambda: [framing.cut(chunk, 0, 4096) for chunk in chunks]


def split(table: Table) -> Load:
    runs = [b"".join(group) for group in table.groups]
    return lambda: [split_nlri(run, IPV4) for run in runs]


def scan(table: Table) -> Load:
    return lambda: [scan_usual(block, True) for block in table.blocks]


def fields(table: Table) -> Load:
    return lambda: [Fields(block) for block in table.blocks]


def parser_of() -> UpdateParser:
    return UpdateParser(families=[IPV4], is_ebgp=True, passes="none", first_asn=65001)


def parse_all(chunks: list[bytes], parser: UpdateParser) -> list[list[RouteChange]]:
    """As `Session._take_established` does it."""
    kept = []
    for chunk in chunks:
        changes: list[RouteChange] = []
        bounds, _ = framing.cut(chunk, 0, 4096)
        at = 0
        for end in bounds[1:]:
            if chunk[at + 18] == framing.UPDATE:
                parser.parse(chunk, at + 19, end, changes)
            at = end
        kept.append(changes)
    return kept


def parse(table: Table) -> Load:
    chunks = reads(table)
    return lambda: parse_all(chunks, parser_of())


def parse_again(table: Table) -> Load:
    """All sets known: the table must be within the parser's interning bound, or this measures first sight."""
    chunks = reads(table)
    parser = parser_of()
    parse_all(chunks, parser)
    return lambda: parse_all(chunks, parser)


def netlink(table: Table) -> Load:
    """RTM_NEWROUTE messages for 50,000 of the prefixes."""
    encoder = RouteEncoder(Via(2, protocol=12, metric=32, hops=(Hop(socket.inet_aton("10.9.0.2"), 2),)))
    prefixes = [prefix for group in table.groups for prefix in group][:50_000]
    return lambda: [encoder.put(prefix, 0x500, number) for number, prefix in enumerate(prefixes)]


def intake(table: Table) -> Load:
    """Session, parser, import and Loc-RIB; the log of changes is left to grow."""
    chunks, engine = reads(table), Engine(1)

    def load() -> Engine:
        for chunk in chunks:
            engine.feed("s1", chunk)
        return engine

    return load


def encode(table: Table) -> Load:
    """One update group with one member: Loc-RIB's log → UPDATE bytes."""
    engine = Engine(1)
    for chunk in reads(table):
        engine.feed("s1", chunk)

    def load() -> Engine:
        engine.flush()
        return engine

    return load


def whole(table: Table) -> Load:
    """Load (a): read, flush, read, flush; as an event loop with one busy socket does it."""
    return _pumped(Engine(1), [("s1", reads(table))])


def whole_to_ten(table: Table) -> Load:
    return _pumped(Engine(1, 10), [("s1", reads(table))])


def reflected(table: Table) -> Load:
    """Load S4: one client's table to another."""
    own = full_table(table.prefix_count, len(table.groups), 65001, NEXT_HOPS[0], local_pref=100)
    return _pumped(Engine(1, 1, reflects=True), [("s1", reads(own))])


def reflected_twice(table: Table) -> Load:
    """Load S5, at the size of the other loads: two clients with the same prefixes."""
    peers = [(65001, NEXT_HOPS[0]), (65002, NEXT_HOPS[1])]
    tables, _ = competing_tables(table.prefix_count, len(table.groups), peers, local_pref=100)
    return _pumped(Engine(2, 1, reflects=True), [(f"s{i}", reads(each)) for i, each in enumerate(tables, 1)])


def whole_twice(table: Table) -> Load:
    """Load (b)."""
    tables, _ = competing_tables(table.prefix_count, len(table.groups), [(65001, NEXT_HOPS[0]), (65002, NEXT_HOPS[1])])
    return _pumped(Engine(2), [(f"s{i}", reads(each)) for i, each in enumerate(tables, 1)])


def whole_with_kernel(table: Table) -> Load:
    """Load (c) up to Fib.apply."""
    return _pumped(
        Engine(1, 0, has_kernel=True), [("s1", reads(full_table(50_000, 5_000, 65001, NEXT_HOPS[0], seed=3)))]
    )


def withdraw_all(table: Table) -> Load:
    engine = Engine(1)
    _pumped(engine, [("s1", reads(table))])()
    data = table.withdrawals()
    return _pumped(engine, [("s1", [data])])


def _pumped(engine: Engine, streams: list[tuple[str, list[bytes]]]) -> Load:
    def load() -> Engine:
        for turn in zip_longest(*(chunks for _, chunks in streams)):
            for (name, _), chunk in zip(streams, turn, strict=True):
                if chunk is not None:
                    engine.feed(name, chunk)
            engine.flush()
        return engine

    return load


STAGES = [
    Stage("cut", "framing.cut over whole reads", cut),
    Stage("split", "split_nlri of every run", split),
    Stage("scan", "scan_usual of every attribute set", scan),
    Stage("fields", "Fields: decoding every set, as competition or a policy needs it", fields),
    Stage("parse", "cut + UpdateParser.parse, every set seen for the first time", parse),
    Stage("parse-again", "the same UPDATEs once more, sets interned", parse_again),
    Stage("intake", "Speaker.receive_data of everything, nothing flushed", intake),
    Stage("encode", "Speaker.flush of everything, to one iBGP peer", encode),
    Stage("a", "load (a): receive and flush in turn", whole),
    Stage("a-10", "the same to ten iBGP peers", whole_to_ten),
    Stage("S4", "a client's table reflected to another", reflected),
    Stage("S5", "two clients' tables reflected to a third", reflected_twice),
    Stage("b", "load (b): two senders, best path chosen", whole_twice),
    Stage("c", "load (c) up to Fib.apply: 50,000 prefixes, 5,000 UPDATEs", whole_with_kernel),
    Stage("withdraw", "the whole table withdrawn, 800 prefixes an UPDATE", withdraw_all),
    Stage("netlink", "50,000 RTM_NEWROUTE messages encoded", netlink),
]


def resident_mib() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(stage: Stage, table: Table, runs: int) -> tuple[float, float]:
    """Best CPU time in seconds, and MiB that the first run's result holds."""
    best, held = float("inf"), 0.0
    for number in range(runs):
        load = stage.prepare(table)
        gc.collect()
        gc.disable()
        before = resident_mib()
        begin = time.process_time()
        result = load()
        best = min(best, time.process_time() - begin)
        if number == 0:
            held = resident_mib() - before
        gc.enable()
        del result, load
    return best, held


def profiled(stage: Stage, table: Table) -> None:
    load = stage.prepare(table)
    profile = cProfile.Profile()
    profile.enable()
    load()
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.inprocess", description=__doc__)
    parser.add_argument("--stage", default=",".join(stage.name for stage in STAGES))
    parser.add_argument("--scale", type=float, default=1.0, help="part of 1,000,000 prefixes over 100,000 sets")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="cProfile of each chosen stage instead of times")
    options = parser.parse_args(argv)
    table = full_table(
        int(1_000_000 * options.scale), int(100_000 * options.scale), 65001, socket.inet_aton("198.18.1.1")
    )
    names = options.stage.split(",")
    if unknown := set(names) - {stage.name for stage in STAGES}:
        parser.error(f"unknown stage {', '.join(sorted(unknown))}")
    print(f"{table.prefix_count:,} prefixes, {len(table.updates):,} UPDATEs, {len(table.stream) / 2**20:.1f} MiB")
    for stage in STAGES:
        if stage.name not in names:
            continue
        if options.profile:
            print(f"--- {stage.name}: {stage.what}")
            profiled(stage, table)
            continue
        seconds, held = timed(stage, table, options.runs)
        each = seconds / len(table.updates) * 1e6
        print(f"{stage.name:12} {seconds:7.3f} s {each:7.2f} µs/UPDATE {held:7.1f} MiB held   {stage.what}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
