"""`python -m tests.bench.workers`: would several reflector processes behind one address pay?

1,000 clients × 10 routes through one process, and through two that share the clients and are peers of each other, as
`workers = 2` would have them (reflector/DESIGN.md). All may use every CPU, as they would. Each client must have got the
octets of all routes of the others, no more and no less.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import process_stats
from tests.bench.bench_peer import BenchPeer
from tests.bench.daemons import REPOSITORY
from tests.bench.fleet import Fleet
from tests.bench.population import ASN, HOLD_TIME_S, Population, client_address, nodes
from tests.bench.scenarios import free_port

HOSTS = ("127.9.0.1", "127.9.0.2")
REFLECTED_OCTETS = 14  # ORIGINATOR_ID and CLUSTER_LIST of one reflector
SECOND_CLUSTER_OCTETS = 4
QUIET_S = 1.0
TIMEOUT_S = 60.0


class SharedFleet(Fleet):
    """Client i dials the worker i modulo their number."""

    def __init__(self, hosts: tuple[str, ...], port: int) -> None:
        super().__init__(hosts[0], port, {})
        self._hosts = hosts

    def _dial(self, client: BenchPeer) -> None:
        self.host = self._hosts[int(client.name[1:]) % len(self._hosts)]
        super()._dial(client)


def configuration(number: int, workers: int, port: int, clients: int, directory: Path) -> Path:
    lines = [
        f'[speaker]\nasn = {ASN}\nrouter_id = "{HOSTS[number]}"\nlisten = ["{HOSTS[number]}"]\nport = {port}',
        f'control = "{directory}/{number}.sock"',
    ]
    for other in range(workers):
        if other != number:
            dials = "false" if number < other else "true"
            lines.append(
                f'[[peer]]\nname = "w{other}"\naddress = "{HOSTS[other]}"\nasn = {ASN}\nport = {port}\n'
                f'source = "{HOSTS[number]}"\npassive = {dials}\nconnect_retry_s = 1'
            )
    for client in range(number, clients, workers):
        lines.append(
            f'[[peer]]\nname = "c{client}"\naddress = "{client_address(client)}"\nasn = {ASN}\npassive = true\n'
            f"hold_time_s = {HOLD_TIME_S}\nclient = true"
        )
    path = directory / f"{number}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def expected_octets(population: Population, client: int, workers: int) -> int:
    total = 0
    for number in range(population.count):
        if number != client:
            far = number % workers != client % workers
            total += len(population.sources[f"c{number}"].stream) + REFLECTED_OCTETS + SECOND_CLUSTER_OCTETS * far
    return total


def measure(workers: int, clients: int) -> tuple[float, float, float]:
    """Seconds until the last client had all, CPU seconds and MiB of all workers. Raises SystemExit if one did not."""
    population = nodes(clients, 10)
    port = free_port(HOSTS[0])
    with tempfile.TemporaryDirectory() as directory:
        processes = []
        for number in range(workers):
            path = configuration(number, workers, port, clients, Path(directory))
            command = [sys.executable, "-m", "integration.catbird", "reflector", "-c", str(path)]
            processes.append(
                subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        fleet = SharedFleet(HOSTS[:workers], port)
        try:
            time.sleep(2.0 + clients / 1000)  # the fleet dials again anyway; this is for the workers' own session
            peers = population.clients()
            fleet.connect(peers, 64, TIMEOUT_S)
            begin = time.monotonic()
            fleet.run(lambda now: now - begin > 3.0, 10.0)
            pids = [process.pid for process in processes]
            before = {peer.name: peer.octets_received for peer in peers}
            cpu_s, started_at = process_stats.cpu_s(pids), time.monotonic()
            for peer in peers:
                fleet.send(peer, population.sources[peer.name].stream)
            fleet.run(lambda now: now - max(started_at, fleet.last_data_at) > QUIET_S, TIMEOUT_S)
            for number, peer in enumerate(peers):
                got, wanted = peer.octets_received - before[peer.name], expected_octets(population, number, workers)
                if got != wanted:
                    raise SystemExit(f"{peer.name} got {got} octets, not {wanted}")
            return (
                fleet.last_data_at - started_at,
                process_stats.cpu_s(pids) - cpu_s,
                sum(process_stats.peak_mib([pid]) for pid in pids),
            )
        finally:
            fleet.close()
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{options.clients} clients × 10 routes, {len(os.sched_getaffinity(0))} CPUs, medians of {options.runs}")
    for workers in (1, 2):
        runs = [measure(workers, options.clients) for _ in range(options.runs)]
        seconds, cpu_s, mib = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{workers} worker{'s' * (workers > 1)}: {seconds:.3f} s, CPU {cpu_s:.3f} s, {mib:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
