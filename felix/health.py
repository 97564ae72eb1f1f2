"""Whether Felix lives and is ready: what its parts report, and when they should have. Pure: the clock is given.

Source: Calico's health aggregation, its states and the text that `kubectl describe` and `calicoctl` people know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

HEADINGS = ("COMPONENT", "TIMEOUT", "LIVENESS", "READINESS", "DETAIL")


class Verdict(NamedTuple):
    is_ok: bool
    text: str


@dataclass(slots=True)
class _Reporter:
    says_live: bool  # whether this one reports liveness at all, and readiness
    says_ready: bool
    timeout_s: float
    reported_at: float
    live: bool = True  # until it says something: it has just begun
    ready: bool = False
    detail: str = ""


class Health:
    """Parts register, then report again and again; one that falls silent is neither live nor ready.

    Safe to report from any thread. `overrides`: seconds by name, beating what the part asks for (HealthTimeoutOverrides).
    """

    def __init__(self, clock: Callable[[], float], overrides: Iterable[tuple[str, float]] = ()) -> None:
        self._clock = clock
        self._overrides = dict(overrides)
        self._reporters: dict[str, _Reporter] = {}

    def override(self, overrides: Iterable[tuple[str, float]]) -> None:
        """Replace all overrides, at once and for all parts."""
        self._overrides = dict(overrides)

    def register(self, name: str, *, live: bool = True, ready: bool = True, timeout_s: float = 0.0) -> None:
        """`live`, `ready`: what it will report. `timeout_s` 0: once reported, for ever."""
        self._reporters[name] = _Reporter(live, ready, timeout_s, self._clock())

    def report(self, name: str, *, live: bool = True, ready: bool = True, detail: str = "") -> None:
        """`detail` says why not, on one line. Nobody of that name: ignored, for its owner may have ended already."""
        reporter = self._reporters.get(name)
        if reporter is not None:
            reporter.live, reporter.ready, reporter.detail = live, ready, detail
            reporter.reported_at = self._clock()

    def remove(self, name: str) -> None:
        self._reporters.pop(name, None)

    def liveness(self) -> Verdict:
        return self._verdict("live")

    def readiness(self) -> Verdict:
        """False while nobody has registered: nothing has begun."""
        return self._verdict("ready")

    def _verdict(self, of: Literal["live", "ready"]) -> Verdict:
        now = self._clock()
        is_ok = of == "live" or any(reporter.says_ready for reporter in self._reporters.values())
        rows = [HEADINGS]
        for name, reporter in sorted(self._reporters.items()):
            timeout_s = self._overrides.get(name, reporter.timeout_s)
            is_late = timeout_s > 0 and now - reporter.reported_at > timeout_s
            says, holds = (reporter.says_live, reporter.live) if of == "live" else (reporter.says_ready, reporter.ready)
            is_ok = is_ok and (not says or (holds and not is_late))
            rows.append(
                (
                    name,
                    duration_text(timeout_s) if timeout_s > 0 else "-",
                    _state("live", reporter.says_live, reporter.live, is_late),
                    _state("ready", reporter.says_ready, reporter.ready, is_late),
                    reporter.detail.replace("\n", " "),
                )
            )
        return Verdict(is_ok, drawn(rows))


def _state(word: str, says: bool, holds: bool, is_late: bool) -> str:
    if not says:
        return "-"
    if is_late:
        return "timed out"
    return f"reporting {word}" if holds else f"reporting non-{word}"


def duration_text(seconds: float) -> str:
    """As Go writes it: `1m30s`, `20s`, `1h0m0s`, `500ms`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{round(rest, 3):g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def drawn(rows: Sequence[Sequence[str]]) -> str:
    """A table of text; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    line = "+".join(["", *("-" * (width + 2) for width in widths), ""])
    body = [
        "|".join(["", *(f" {cell:<{width}} " for cell, width in zip(row, widths, strict=True)), ""]) for row in rows
    ]
    return "\n".join([line, body[0], line, *body[1:], line, ""])
