"""Where events go: one line each on stderr, for people or as JSON, and counters for the metrics.

What a peer says ends up in these lines (RFC 9003 texts, malformed data), so nothing here trusts a value: control and
invisible characters are shown escaped, values are cut, passwords are blotted out, and a flood is thinned. Nothing is
logged per route.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Literal, TextIO

from integration.lean import hidden

with hidden("rich"):  # 5 MB, for tracebacks that we never draw
    import structlog

LogFormat = Literal["console", "json"]
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

WARNING_WORDS = (
    "conflict", "down", "dropped", "error", "failed", "lag", "limit", "malformed", "notification", "refused", "rejected"
)  # fmt: skip

MAX_VALUE_CHARACTERS = 1000
MAX_QUEUED_LINES = 2000

FLOOD_LINES = 20  # of one event of one peer within FLOOD_S; the rest is counted
FLOOD_S = 10.0
MAX_FLOOD_KEYS = 4096

SECRET_FIELDS = ("password", "secret", "key")
BLOTTED = "***"


def printable(text: str) -> str:
    """`text` with everything that is not a visible character or a plain space escaped, cut to a bounded length."""
    if len(text) > MAX_VALUE_CHARACTERS:
        text = f"{text[:MAX_VALUE_CHARACTERS]}… ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


class LineWriter:
    """Lines to a stream from a thread of its own: a reader of our stderr that stalls must not stall a keepalive.

    When the queue is full lines are dropped and counted; when the stream is gone everything is dropped.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._is_wanted = threading.Event()
        self._is_closed = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        if len(self._lines) >= MAX_QUEUED_LINES:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._is_wanted.is_set():  # waking the thread for each of a thousand lines costs more than writing them
            self._is_wanted.set()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, within a bound."""
        self._is_closed = True
        self._is_wanted.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._lines or not self._is_closed:
            self._is_wanted.wait()
            self._is_wanted.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                continue
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # closed pipe, full disk: nowhere left to say so
                self.dropped += len(lines)


class FloodGate:
    """At most FLOOD_LINES of one key in FLOOD_S; says how many were held back when it opens again."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], list[float]] = {}  # key → [since, passed, held back]

    def admit(self, key: tuple[str, str], now: float) -> tuple[bool, int]:
        window = self._windows.get(key)
        if window is None or now - window[0] >= FLOOD_S:
            held_back = int(window[2]) if window else 0
            if len(self._windows) >= MAX_FLOOD_KEYS:
                self._windows.clear()
            self._windows[key] = [now, 1, 0]
            return True, held_back
        if window[1] < FLOOD_LINES:
            window[1] += 1
            return True, 0
        window[2] += 1
        return False, 0


class EventLog:
    """The daemon's EventSink. `write` takes finished lines (LineWriter.write)."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        log_format: LogFormat = "console",
        level: str = "info",
        colors: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._threshold = LEVELS[level]
        self._clock = clock
        self._gate = FloodGate()
        self._secrets: tuple[str, ...] = ()
        self._last_why: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._render = _json_renderer() if log_format == "json" else _console_renderer(colors)

    def hide(self, secrets: Iterable[str | None]) -> None:
        """Passwords in use: blotted out wherever they turn up. Longer ones first, one may contain another."""
        self._secrets = tuple(
            sorted({secret for secret in secrets if secret and len(secret) > 3}, key=len, reverse=True)
        )

    def event(self, name: str, **fields: Any) -> None:
        """One line. `level` among the fields overrides what the name suggests. Never raises."""
        self.counts[name] += 1
        try:
            self._tell(name, fields)
        except Exception as error:  # a log line is never worth a session
            self._write(f"a log line could not be made: {name!r}: {type(error).__name__}")

    def _tell(self, name: str, fields: dict[str, Any]) -> None:
        level = str(fields.pop("level", "")) or self._level_of(name, fields)
        if LEVELS.get(level, 20) < self._threshold:
            return
        admitted, held_back = self._gate.admit((name, str(fields.get("peer", ""))), self._clock())
        if not admitted:
            return
        if held_back:
            fields["similar_lines_held_back"] = held_back
        line: MutableMapping[str, Any] = {"event": self._clean(name)} | {
            key: self._clean_value(key, value) for key, value in fields.items() if value is not None
        }
        line["level"] = level
        line["timestamp"] = timestamp(time.time())
        self._write(self._render(line))

    def _level_of(self, name: str, fields: Mapping[str, Any]) -> str:
        """A session that leaves Established, or what sounds like trouble, is a warning; a defect is ours."""
        if name == "defect":
            return "error"
        if name == "peer_state" and "Established" not in (fields.get("old"), fields.get("new")):
            return self._level_of_attempt(fields)
        if fields.get("old") == "Established" or any(word in name for word in WARNING_WORDS):
            return "warning"
        return "info"

    def _level_of_attempt(self, fields: Mapping[str, Any]) -> str:
        """A peer that is not there is tried for ever: said once, and again when the reason changes."""
        peer, why = str(fields.get("peer", "")), str(fields.get("why", ""))
        if not why or self._last_why.get(peer) == why:
            return "debug"
        if len(self._last_why) >= MAX_FLOOD_KEYS:
            self._last_why.clear()
        self._last_why[peer] = why
        return "info"

    def _clean_value(self, key: str, value: object) -> object:
        if any(key == secret or key.endswith(f"_{secret}") for secret in SECRET_FIELDS):
            return BLOTTED
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(str(item)) for item in value]
        return self._clean(value.hex() if isinstance(value, bytes) else str(value))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, BLOTTED)
        return printable(text)


def timestamp(at: float) -> str:
    """Seconds since the epoch → `2031-05-04T10:11:12.123Z`."""
    return f"{_second(int(at))}.{int(at * 1000) % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _console_renderer(colors: bool) -> Callable[[MutableMapping[str, Any]], str]:
    """Own columns: structlog's would put values through repr and so escape the escapes."""
    styles = structlog.dev.ConsoleRenderer.get_default_column_styles(colors)

    def column(key: str, style: str, width: int = 0) -> structlog.dev.Column:
        return structlog.dev.Column(
            key, structlog.dev.KeyValueColumnFormatter(None, style, styles.reset, str, width=width)
        )

    level_styles = {"warning": styles.level_warn, "error": styles.level_error} if colors else {}
    columns = [
        column("timestamp", styles.timestamp),
        structlog.dev.Column(
            "level", lambda key, value: _styled(f"{value:<7}", level_styles.get(str(value), ""), styles)
        ),
        column("event", styles.bright, width=20),
        structlog.dev.Column(
            "", structlog.dev.KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, _quoted)
        ),
    ]
    draw = structlog.dev.ConsoleRenderer(columns=columns, sort_keys=False)
    return lambda line: str(draw(None, "", line)).rstrip()


def _styled(text: str, style: str, styles: structlog.dev.ColumnStyles) -> str:
    return f"{style}{text}{styles.reset}" if style else text


def _quoted(value: object) -> str:
    """`text` as one word: quoted where spaces or quotes would make it several."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return '"' + text.replace('"', "'") + '"' if not text or " " in text or '"' in text else text


def _json_renderer() -> Callable[[MutableMapping[str, Any]], str]:
    draw = structlog.processors.JSONRenderer()
    return lambda line: str(draw(None, "", dict(line)))
