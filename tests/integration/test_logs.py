"""Log lines: what a peer says cannot forge one, passwords are never in one, floods are thinned."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading

import pytest

from integration.logs import FLOOD_LINES, FLOOD_S, EventLog, LineWriter, printable


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(log_format: str = "console", level: str = "debug") -> tuple[EventLog, list[str], Clock]:
    lines: list[str] = []
    clock = Clock()
    log = EventLog(lines.append, log_format=log_format, level=level, clock=clock)  # type: ignore[arg-type]
    return log, lines, clock


def test_a_session_change_is_one_line_with_old_new_and_why() -> None:
    log, lines, _ = make()
    log.event("peer_state", peer="tor1", old="OpenConfirm", new="Established", why="KEEPALIVE received")
    assert len(lines) == 1
    assert lines[0].split(" ", 1)[1] == (
        'info    peer_state           peer=tor1 old=OpenConfirm new=Established why="KEEPALIVE received"'
    )


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_a_peer_says_stays_on_its_line(log_format: str) -> None:
    log, lines, _ = make(log_format)
    log.event(
        "notification_received", peer="tor1", text='bye\r\n2031 info peer_state peer=x" \x1b[31m\u202e\u2028\x00\x9b'
    )
    (line,) = lines
    assert line.isprintable()


def test_values_are_cut() -> None:
    assert len(printable("x" * 100_000)) < 1100


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_passwords_are_blotted_out(log_format: str) -> None:
    log, lines, _ = make(log_format)
    log.hide(["hunter2", None, "hunter2-longer"])
    log.event("config_reloaded", what=["password hunter2-longer -> hunter2"], password="abc", peer_password=b"abc")
    assert "hunter" not in lines[0]
    assert "abc" not in lines[0]


def test_json_lines_carry_level_time_and_fields() -> None:
    log, lines, _ = make("json")
    log.event("speaker_started", asn=64512, peers=["a", "b"], nothing=None)
    line = json.loads(lines[0])
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "speaker_started", "asn": 64512, "peers": ["a", "b"], "level": "info"}


@pytest.mark.parametrize(
    ("name", "fields", "level"),
    [
        ("peer_state", {"old": "Established", "new": "Idle", "why": "x"}, "warning"),
        ("peer_state", {"old": "OpenConfirm", "new": "Established"}, "info"),
        ("peer_state", {"old": "Idle", "new": "Connect", "why": ""}, "debug"),
        ("notification_received", {}, "warning"),
        ("malformed_message", {}, "warning"),
        ("defect", {}, "error"),
        ("speaker_started", {}, "info"),
        ("anything", {"level": "error"}, "error"),
    ],
)
def test_levels(name: str, fields: dict[str, str], level: str) -> None:
    log, lines, _ = make("json")
    log.event(name, **fields)
    assert json.loads(lines[0])["level"] == level


def test_a_peer_that_is_not_there_is_reported_once_and_again_when_the_reason_changes() -> None:
    log, lines, _ = make(level="info")
    for why in ("refused", "refused", "no route", "no route"):
        log.event("peer_state", peer="tor1", old="Connect", new="Active", why=why)
    assert len(lines) == 2


def test_a_flood_is_thinned_per_peer_and_counted() -> None:
    log, lines, clock = make()
    for _ in range(100):
        log.event("malformed_message", peer="bad")
    log.event("malformed_message", peer="good")
    assert len(lines) == FLOOD_LINES + 1
    clock.now += FLOOD_S
    log.event("malformed_message", peer="bad")
    assert "similar_lines_held_back=80" in lines[-1]
    assert log.counts["malformed_message"] == 102


def test_a_value_that_cannot_be_shown_does_not_reach_the_engine() -> None:
    class Spiteful:
        def __str__(self) -> str:
            raise RuntimeError

    log, lines, _ = make()
    log.event("peer_state", peer=Spiteful())
    log.event("other", value=Spiteful())
    assert all("could not be made" in line for line in lines)


def test_a_stalled_reader_of_stderr_stalls_nobody() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    writer = LineWriter(stream)
    done = threading.Event()

    def flood() -> None:
        for _ in range(10_000):
            writer.write("x" * 100)
        done.set()

    threading.Thread(target=flood).start()
    assert done.wait(5)
    assert writer.dropped > 0
    os.close(reading)
    writer.close()
    with contextlib.suppress(OSError):  # what is still in its buffer has nowhere to go
        stream.close()


def test_closing_writes_what_is_queued() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(100):
        writer.write(str(number))
    writer.close()
    assert stream.getvalue().split() == [str(number) for number in range(100)]
