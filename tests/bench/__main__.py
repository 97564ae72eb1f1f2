"""`python -m tests.bench`: the same loads for several daemons in one run, one after the other, alternating."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict

from rich.console import Console

from tests.bench.daemons import DAEMONS, Daemon, DaemonError, command_daemon
from tests.bench.report import print_tables, summarise
from tests.bench.scenarios import SCENARIOS, Result, Settings

REFERENCE = "bird2"


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--scenario", default="a,b,c,d", help="comma-separated: " + ", ".join(SCENARIOS))
    parser.add_argument("--daemons", default="copy,bird2,catbird", help="comma-separated: " + ", ".join(DAEMONS))
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another speaker; {config} is replaced by a JSON file with the sessions",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full tables, for a quick look")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one load")
    parser.add_argument(
        "--no-pin", action="store_true", help="leave both CPUs to all (default: daemon on CPU 1, load on CPU 0)"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser.parse_args(argv)


def chosen_daemons(options: argparse.Namespace) -> list[Daemon]:
    names = [name for name in options.daemons.split(",") if name]
    unknown = [name for name in names if name not in DAEMONS]
    if unknown:
        raise SystemExit(f"unknown daemon {', '.join(unknown)}: choose from {', '.join(DAEMONS)}")
    return [DAEMONS[name] for name in names] + [command_daemon(text) for text in options.also]


def run_all(options: argparse.Namespace, daemons: list[Daemon], settings: Settings) -> list[Result]:
    """Every scenario, every run, every daemon; daemons alternate so that a busy machine harms all alike."""
    results = []
    for scenario in options.scenario.split(","):
        if scenario not in SCENARIOS:
            raise SystemExit(f"unknown scenario {scenario}: choose from {', '.join(SCENARIOS)}")
        able = [daemon for daemon in daemons if scenario in daemon.scenarios]
        for number in range(options.runs):
            for daemon in able:
                head = f"[{scenario} {number + 1}/{options.runs}] {daemon.name}"
                print(f"{head} …", end="\r", file=sys.stderr, flush=True)
                try:
                    result = SCENARIOS[scenario](daemon, settings)
                except DaemonError as error:
                    result = Result(scenario, daemon.name, problems=[str(error)])
                note = "; ".join(result.problems) or f"{result.seconds:.3f} s, {result.peak_mib:.0f} MiB"
                print(f"{head}: {note}", file=sys.stderr, flush=True)
                results.append(result)
    return results


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
    cpus = sorted(os.sched_getaffinity(0))
    pin = not options.no_pin and len(cpus) > 1
    if pin:
        os.sched_setaffinity(0, {cpus[0]})
    settings = Settings(options.scale, cpus[1] if pin else None, options.timeout)
    daemons = chosen_daemons(options)
    results = run_all(options, daemons, settings)
    summaries = summarise(results)
    if options.output == "json":
        print(
            json.dumps(
                {"machine": facts, "runs": [asdict(r) for r in results], "medians": [asdict(s) for s in summaries]},
                indent=1,
            )
        )
    else:
        titles = {name: (function.__doc__ or name).splitlines()[0] for name, function in SCENARIOS.items()}
        # A fixed width when piped: a table cut to 80 columns loses its figures.
        console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
        print_tables(console, summaries, titles, {d.name: d.settings for d in daemons}, REFERENCE)
        console.print("Machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    return 1 if any(result.problems for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
