"""`catbird demo`: put the parts in order, and take them away again whatever happens."""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from pyroute2 import NetlinkError
from rich.console import Console

from integration.demo import checks, screen
from integration.demo.namespaces import NETNS, Run, processes_in, sweep_dead_runs, why_not_here
from integration.demo.plan import Plan, make_plan
from integration.demo.probe import Prober
from integration.demo.routers import why_missing
from integration.demo.world import World

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked for the end. Not an Exception, so that nothing on the way takes it for an error of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str]) -> int:
    """Exit code: 0 all is well (or the live view was ended), 1 a check failed or it cannot run, 128+n by signal n."""
    arguments = parse_arguments(argv)
    try:
        plan = make_plan(
            arguments.nodes, arguments.tor, arguments.speaker, arguments.reflectors, has_policy=arguments.policy
        )
    except ValueError as error:
        return _fail(str(error), code=2)
    if why := why_not_here():
        return _fail(why)
    for router in plan.routers:
        if why := why_missing(router.kind):
            return _fail(why)
    # Without a terminal nobody watches a live picture: check, and say so.
    is_once = arguments.once or arguments.output == "json" or not sys.stdout.isatty()
    try:
        with _signals_raise():
            return Demo(plan, arguments.output == "json", arguments.keep).run(is_once)
    except Stopped as stopped:
        return 0 if stopped.number == signal.SIGINT and not is_once else 128 + stopped.number
    except (OSError, NetlinkError) as error:
        return _fail(f"{error}")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="catbird demo",
        description="Build nodes and a top-of-rack router in network namespaces, all of catbird on every node (speaker, "
        "Felix, CNI agent) and two workloads from the CNI plugin on each, and watch them reach each other. Needs root. "
        "Removes everything at the end.",
    )
    parser.add_argument("--tor", choices=("catbird", "bird", "frr"), default="catbird", help="what the ToR runs")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="2 to 16 (default 3)")
    parser.add_argument(
        "--reflectors",
        type=int,
        default=0,
        metavar="N",
        help="0 to 4 (default 0): route reflectors in place of the nodes' full mesh",
    )
    parser.add_argument(
        "--policy", action="store_true", help="two tenants, kept apart by policies; the rack may reach one of them"
    )
    parser.add_argument("--once", action="store_true", help="check everything, say what and how long, exit 0 or 1")
    parser.add_argument("--keep", action="store_true", help="leave configuration files and logs behind")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="json implies --once")
    # A control experiment: what the demo says with a speaker that is known to work.
    parser.add_argument("--speaker", choices=("catbird", "bird"), default="catbird", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


class Demo:
    """One run, from making the folder to having removed the last trace."""

    def __init__(self, plan: Plan, is_json: bool, is_kept: bool) -> None:
        self.plan = plan
        self.is_json = is_json
        self.is_kept = is_kept
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ gets a question mark, not a traceback
        self.console = Console(stderr=is_json, highlight=False, soft_wrap=True)
        self.results: list[checks.Result] = []

    def run(self, is_once: bool) -> int:
        if swept := sweep_dead_runs():
            self.console.print(f"removed what a killed run had left: {', '.join(swept)}")
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="catbird-demo-"))
        folder.chmod(0o755)  # FRR's daemons run as another user
        run = Run(folder)
        try:
            with Prober() as prober:
                world = World(self.plan, run, prober)
                try:
                    self._check(world, is_once)
                except BaseException as error:
                    if isinstance(error, Exception):
                        self._show_logs(world)
                    raise
        finally:
            self._clean_up(run)
        if is_once:
            self._conclude(time.monotonic() - began)
        return 0 if all(result.is_ok for result in self.results) else 1

    def _check(self, world: World, is_once: bool) -> None:
        steps = checks.all_steps(world.plan) if is_once else checks.first_steps(world.plan)
        for name, check in steps:
            result = checks.run_check(name, check, world)
            self._add(result)
            if not result.is_ok:
                self._show_logs(world)
                return
        if not is_once:
            screen.watch(world, self.console)

    def _clean_up(self, run: Run) -> None:
        with _signals_wait():
            began = time.monotonic()
            inodes = {namespace.inode for namespace in run.namespaces.values()}
            is_kept = self.is_kept or any(not result.is_ok for result in self.results)
            run.close(keep_folder=is_kept)
            left = [path.name for path in NETNS.glob(f"catbird-{run.name}-*")]
            left += [f"process {pid}" for inode in inodes for pid in processes_in(inode)]
            if not is_kept and run.folder.exists():
                left.append(str(run.folder))
            took_s = time.monotonic() - began
            name, detail = "clean up", "no namespace, process or file left" if not left else f"left: {', '.join(left)}"
            self._add(checks.Result(name, not left, took_s, detail))
            if is_kept:
                self.console.print(f"configuration files and logs: {run.folder}")

    def _add(self, result: checks.Result) -> None:
        self.results.append(result)
        self.console.print(screen.result_line(result))

    def _show_logs(self, world: World) -> None:
        for name, daemon in world.daemons.items():
            self.console.print(f"--- end of {name}'s log", style="dim")
            for line in daemon.log_tail():
                self.console.print(line, markup=False, style="dim")

    def _conclude(self, took_s: float) -> None:
        is_ok = all(result.is_ok for result in self.results)
        if self.is_json:
            value: dict[str, Any] = {"ok": is_ok, "took_s": round(took_s, 2), "checks": []}
            for result in self.results:
                value["checks"].append(asdict(result) | {"took_s": round(result.took_s, 3)})
            print(json.dumps(value, indent=2))
        else:
            verdict = "all checks passed" if is_ok else "FAILED"
            self.console.print(f"{verdict} in {took_s:.1f} s", style="bold green" if is_ok else "bold red")


@contextmanager
def _signals_raise() -> Iterator[None]:
    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Cleaning up is bounded; half of it would be worse than a second more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _fail(text: str, code: int = 1) -> int:
    print(f"catbird demo: {text}", file=sys.stderr)
    return code
