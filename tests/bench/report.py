"""Runs → medians, ratios and a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from tests.bench.scenarios import Result


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one daemon in one scenario. Times in seconds, memory in MiB; medians."""

    scenario: str
    daemon: str
    runs: int
    seconds: float
    seconds_min: float
    seconds_max: float
    cpu_s: float
    peak_mib: float
    idle_mib: float
    figures: dict[str, float]
    problems: list[str]


def summarise(results: Sequence[Result]) -> list[Summary]:
    """One summary per scenario and daemon, in the order of their first run. Runs that failed count as problems only."""
    kept: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        kept.setdefault((result.scenario, result.daemon), []).append(result)
    summaries = []
    for (scenario, daemon), runs in kept.items():
        good = [run for run in runs if run.seconds] or runs
        times = [run.seconds for run in good]
        figures = {name: statistics.median(run.figures.get(name, 0.0) for run in good) for name in good[0].figures}
        summaries.append(
            Summary(
                scenario,
                daemon,
                len(runs),
                statistics.median(times),
                min(times),
                max(times),
                statistics.median(run.cpu_s for run in good),
                max(run.peak_mib for run in good),
                statistics.median(run.idle_mib for run in good),
                figures,
                [problem for run in runs for problem in run.problems],
            )
        )
    return summaries


def ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}×" if reference else "–"


def print_tables(
    console: Console, summaries: Sequence[Summary], titles: dict[str, str], settings: dict[str, str], reference: str
) -> None:
    """One table per scenario; ratios are against `reference` in the same scenario."""
    for scenario in dict.fromkeys(summary.scenario for summary in summaries):
        rows = [summary for summary in summaries if summary.scenario == scenario]
        base = next((row for row in rows if row.daemon == reference), None)
        table = RichTable(title=titles.get(scenario, scenario), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("daemon")
        for heading in ("time s", "min–max", "CPU s", "idle MiB", "peak MiB", f"time/{reference}", "CPU", "memory"):
            table.add_column(heading, justify="right")
        for row in rows:
            if not row.seconds:
                table.add_row(row.daemon, "none")
                continue
            table.add_row(
                row.daemon,
                f"{row.seconds:.3f}",
                f"{row.seconds_min:.3f}–{row.seconds_max:.3f}",
                f"{row.cpu_s:.2f}",
                f"{row.idle_mib:.0f}",
                f"{row.peak_mib:.0f}",
                ratio(row.seconds, base.seconds if base else 0),
                ratio(row.cpu_s, base.cpu_s if base else 0),
                ratio(row.peak_mib, base.peak_mib if base else 0),
            )
        console.print(table)
        for row in rows:
            if row.figures:
                console.print(f"  {row.daemon}: " + ", ".join(f"{k} {v:,.6g}" for k, v in row.figures.items()))
            for problem in dict.fromkeys(row.problems):
                console.print(f"  {row.daemon} FAILED: {problem[:2000]}", markup=False)
    console.print("Settings: " + "; ".join(f"{name}: {text}" for name, text in settings.items()))
