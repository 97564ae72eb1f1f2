"""`python -m tests.bench.datastore`: compare-and-swap writes a second, how soon a watch tells, how soon a node knows a large cluster.

The local file, and with `--etcd URL` a server as well. Each writer increments counters of its own, so that every write is
one compare-and-swap without a loser; the end checks that all were counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

from integration.bgpconfig import Environment
from integration.datastore.api import Datastore
from integration.datastore.settings import load_settings, open_datastore
from integration.logs import EventLog
from integration.node.datastore_source import DatastoreSource
from integration.resources.keys import Key
from tests.bench.bgpconfig import ME, resources
from tests.bench.daemons import REPOSITORY

NODES, PEERS = 5000, 50
AT_ONCE = 50  # tasks in each process, as a node agent has


def value(number: int) -> dict[str, Any]:
    return {"kind": "BGPPeer", "metadata": {"name": "x"}, "spec": {"peerIP": "192.0.2.1", "asNumber": number}}


async def write(store: Datastore, who: str, seconds: float) -> int:
    """How many writes."""
    end = time.monotonic() + seconds

    async def one(number: int) -> int:
        key, count = Key("BGPPeer", f"{who}-{number}"), 0
        revision = (await store.apply(key, value(0))).revision
        while time.monotonic() < end:
            count += 1
            revision = (await store.update(key, value(count), revision=revision)).revision
        assert (await store.get(key)).value["spec"]["asNumber"] == count
        return count

    return sum(await asyncio.gather(*map(one, range(AT_ONCE))))


async def delays(store: Datastore, other: Datastore, count: int) -> list[float]:
    """Milliseconds from a write's return to the event at another connection; below 0 counts as 0."""
    found: list[float] = []
    written: dict[int, float] = {}
    start = (await store.list("IPPool")).revision

    async def listen() -> None:
        async with aclosing(other.watch("IPPool", revision=start)) as events:
            async for event in events:
                if event.entry is not None and len(found) < count:
                    number = event.entry.value["spec"]["asNumber"]
                    at = time.monotonic()
                    while number not in written:  # noqa: ASYNC110
                        await asyncio.sleep(0)
                    found.append(max(0.0, at - written[number]) * 1000)
                if len(found) == count:
                    return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.3)
    for number in range(count):
        await store.apply(Key("IPPool", "x"), value(number))
        written[number] = time.monotonic()
        await asyncio.sleep(0.01)
    await listening
    return found


async def part(url: str, who: str, seconds: float) -> None:
    store = open_datastore(load_settings(url))
    print(json.dumps(await write(store, who, seconds)))
    await store.close()


async def latency(url: str) -> list[float]:
    stores = [open_datastore(load_settings(url)) for _ in range(2)]
    try:
        return sorted(await delays(stores[0], stores[1], 200))
    finally:
        for store in stores:
            await store.close()


async def resync(url: str) -> float:
    """Seconds from nothing to a node's configuration, in a cluster of 5,000 nodes and 50 BGPPeers."""
    store = open_datastore(load_settings(url))
    for at in range(0, len(given := resources(NODES, PEERS)), 500):
        await asyncio.gather(*(store.apply(key, value) for key, value in given[at : at + 500]))
    log = EventLog(lambda _: None, log_format="json", level="error", colors=False)
    source = DatastoreSource(store, url, ME, Environment(), log, writes_routes=False)
    gc.collect()
    gc.freeze()
    begin = time.monotonic()
    following = asyncio.create_task(source.run())
    await source.in_sync.wait()
    peers = len(source.load().peers)
    took_s = time.monotonic() - begin
    assert peers > NODES
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await store.close()
    return took_s


def measure(url: str, processes: int, seconds: float) -> str:
    command = [sys.executable, "-m", "tests.bench.datastore", "--part", url, "--seconds", str(seconds), "--who"]
    running = [
        subprocess.Popen([*command, str(number)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    writes = sum(int(process.communicate()[0]) for process in running)
    late = asyncio.run(latency(url))
    p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
    kind = url.partition(":")[0]
    return (
        f"{kind}: {writes / seconds:.0f} writes/s from {processes} processes; watch p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
        f"{NODES} nodes and {PEERS} peers to a configuration {asyncio.run(resync(url)):.2f} s"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.datastore", description=__doc__)
    parser.add_argument("--etcd", action="append", default=[], metavar="URL", help="etcd:http://HOST:PORT too")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument("--who", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.part:
        asyncio.run(part(options.part, options.who, options.seconds))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        for url in (f"local:{Path(directory) / 'store.db'}", *options.etcd):
            print(measure(url, options.processes, options.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
