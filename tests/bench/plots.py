"""PNG plots of a run: one picture a scenario, and one with all of them relative to the best.

Needs matplotlib, which only the extra `bench` installs; nothing else imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from tests.bench.report import Summary

mpl.use("Agg")  # before pyplot is imported: no screen here
from matplotlib import pyplot as plt

COLOURS = {
    "copy": "#bbbbbb",
    "bird2": "#4c78a8",
    "frr": "#f58518",
    "gobgpd": "#54a24b",
    "openbgpd": "#b279a2",
    "catbird": "#e45756",
}
OTHER_COLOUR = "#72b7b2"
DPI = 110


def write_plots(directory: Path, summaries: Sequence[Summary], titles: Mapping[str, str]) -> list[Path]:
    """Write them all; returns what was written. What failed has no bar but stands in the axis with the word."""
    directory.mkdir(parents=True, exist_ok=True)
    scenarios = list(dict.fromkeys(summary.scenario for summary in summaries))
    written = [
        _scenario(directory, name, titles.get(name, name), [s for s in summaries if s.scenario == name])
        for name in scenarios
    ]
    return [*written, _overview(directory, scenarios, summaries)]


def _scenario(directory: Path, name: str, title: str, rows: Sequence[Summary]) -> Path:
    figure, axes = plt.subplots(1, 3, figsize=(12, 0.5 * len(rows) + 1.6), sharey=True)
    labels = [row.daemon if row.seconds else f"{row.daemon} (none)" for row in rows]
    colours = [COLOURS.get(row.daemon, OTHER_COLOUR) for row in rows]
    spread = [[row.seconds - row.seconds_min for row in rows], [row.seconds_max - row.seconds for row in rows]]
    axes[0].barh(labels, [row.seconds for row in rows], xerr=spread, color=colours, capsize=3)
    axes[1].barh(labels, [row.cpu_s for row in rows], color=colours)
    axes[2].barh(labels, [row.peak_mib for row in rows], color=colours)
    for axis, heading in zip(axes, ("time, s (median, min to max)", "CPU, s", "peak memory, MiB"), strict=True):
        axis.set_xlabel(heading)
        axis.grid(axis="x", alpha=0.3)
        axis.bar_label(axis.containers[-1], fmt=" %.3g", fontsize=8)
        axis.margins(x=0.15)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    path = directory / f"{name}.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path


def _overview(directory: Path, scenarios: Sequence[str], summaries: Sequence[Summary]) -> Path:
    """Time of every daemon in every scenario on one logarithmic axis."""
    daemons = list(dict.fromkeys(summary.daemon for summary in summaries))
    figure, axis = plt.subplots(figsize=(max(7.0, 1.1 * len(scenarios) + 2), 4.5))
    width = 0.8 / len(daemons)
    for number, daemon in enumerate(daemons):
        times = {s.scenario: s.seconds for s in summaries if s.daemon == daemon and s.seconds}
        places = [i + (number + 0.5) * width - 0.4 for i, name in enumerate(scenarios) if name in times]
        axis.bar(places, list(times.values()), width, label=daemon, color=COLOURS.get(daemon, OTHER_COLOUR))
    axis.set_yscale("log")
    axis.set_ylabel("time, s")
    axis.set_xticks(range(len(scenarios)), scenarios)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(ncols=len(daemons), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.1))
    figure.tight_layout()
    path = directory / "all.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path
