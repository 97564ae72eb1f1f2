"""`python -m tests.bench`: the same loads for several daemons in one run, one after the other, alternating."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tests.bench.daemons import DAEMONS, Daemon, command_daemon
from tests.bench.reflection import REFLECTION
from tests.bench.report import print_tables, summarise
from tests.bench.scenarios import SPEAKER_SCENARIOS, Result, Settings
from tests.bench.topology import DaemonError

REFERENCE = "bird2"
SCENARIOS = SPEAKER_SCENARIOS | REFLECTION
QUICK_SCALE = 0.1
CANNOT = "cannot take part in this one"


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--scenario", default=",".join(SCENARIOS), help="comma-separated; default: %(default)s")
    parser.add_argument("--daemons", default=",".join(DAEMONS), help="comma-separated; default: %(default)s")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another speaker; {config} is replaced by a JSON file with the sessions",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full tables and of the clients")
    parser.add_argument("--quick", action="store_true", help="one run of each at a tenth of its size: a few minutes")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one load")
    parser.add_argument(
        "--no-pin", action="store_true", help="leave both CPUs to all (default: daemon on CPU 1, load on CPU 0)"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write PNG plots there (needs the extra `bench`)")
    options = parser.parse_args(argv)
    if options.quick:
        options.runs, options.scale = 1, QUICK_SCALE
    return options


def chosen_daemons(options: argparse.Namespace) -> list[Daemon]:
    names = [name for name in options.daemons.split(",") if name]
    unknown = [name for name in names if name not in DAEMONS]
    if unknown:
        raise SystemExit(f"unknown daemon {', '.join(unknown)}: choose from {', '.join(DAEMONS)}")
    return [DAEMONS[name] for name in names] + [command_daemon(text) for text in options.also]


def run_all(options: argparse.Namespace, daemons: list[Daemon], settings: Settings) -> list[Result]:
    """Every scenario, every run, every daemon; daemons alternate so that a busy machine harms all alike.

    What failed once is not tried again: a daemon that runs into the time bound would do so for every run.
    """
    results = []
    names = options.scenario.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise SystemExit(f"unknown scenario {', '.join(unknown)}: choose from {', '.join(SCENARIOS)}")
    for scenario in names:
        failed = {daemon.name for daemon in daemons if scenario in daemon.cannot}
        results += [Result(scenario, name, problems=[CANNOT]) for name in sorted(failed)]
        for number in range(options.runs):
            for daemon in daemons:
                if daemon.name in failed:
                    continue
                result = run_one(scenario, daemon, settings, f"[{scenario} {number + 1}/{options.runs}] {daemon.name}")
                results.append(result)
                if result.problems:
                    failed.add(daemon.name)
    return results


def run_one(scenario: str, daemon: Daemon, settings: Settings, head: str) -> Result:
    print(f"{head} …", end="\r", file=sys.stderr, flush=True)
    try:
        result = SCENARIOS[scenario](daemon, settings)
    except DaemonError as error:
        result = Result(scenario, daemon.name, problems=[str(error)])
    note = "; ".join(result.problems) or f"{result.seconds:.3f} s, {result.peak_mib:.0f} MiB"
    print(f"{head}: {note}", file=sys.stderr, flush=True)
    return result


def machine(options: argparse.Namespace) -> dict[str, object]:
    """What the figures depend on beside the daemons."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "scale": options.scale,
        "runs": options.runs,
    }


def main(argv: list[str]) -> int:
    options = arguments(argv)
    facts = machine(options)
    # Two sockets a client would not fit into the usual 1,024; the daemons inherit this.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    cpus = sorted(os.sched_getaffinity(0))
    pin = not options.no_pin and len(cpus) > 1
    if pin:
        os.sched_setaffinity(0, {cpus[0]})
    settings = Settings(options.scale, cpus[1] if pin else None, options.timeout)
    daemons = chosen_daemons(options)
    results = run_all(options, daemons, settings)
    summaries = summarise(results)
    titles = {name: (function.__doc__ or name).splitlines()[0] for name, function in SCENARIOS.items()}
    if options.output == "json":
        print(
            json.dumps(
                {"machine": facts, "runs": [asdict(r) for r in results], "medians": [asdict(s) for s in summaries]},
                indent=1,
            )
        )
    else:
        # A fixed width when piped: a table cut to 80 columns loses its figures.
        console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
        print_tables(console, summaries, titles, {d.name: d.settings for d in daemons}, REFERENCE)
        console.print("Machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    if options.plots:
        from tests.bench.plots import write_plots  # matplotlib is installed for the benchmarks only

        for path in write_plots(options.plots, summaries, titles):
            print(f"plot: {path}", file=sys.stderr)
        if options.output == "table":
            print(f"Plots: {options.plots}")
    return 1 if any(result.problems not in ([], [CANNOT]) for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
