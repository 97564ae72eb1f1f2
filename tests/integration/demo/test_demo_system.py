"""The demo as a person runs it, and as it is interrupted."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.demo.namespaces import NETNS, RUNS, processes_in, sweep_dead_runs

pytestmark = pytest.mark.root
PROJECT = Path(__file__).resolve().parents[3]


def start_demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "integration.catbird", "demo", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def namespaces_of(demo: subprocess.Popen[str]) -> list[Path]:
    return list(NETNS.glob(f"catbird-{demo.pid}-*"))


def wait_for(what: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def daemons_run(demo: subprocess.Popen[str]) -> bool:
    return any(processes_in(path.stat().st_ino) for path in namespaces_of(demo) if path.name.endswith("-tor"))


def assert_nothing_left(demo: subprocess.Popen[str], inodes: list[int]) -> None:
    assert namespaces_of(demo) == []
    assert [pid for inode in inodes for pid in processes_in(inode)] == []
    assert not (RUNS / str(demo.pid)).exists()


def checked(*arguments: str) -> dict[str, dict[str, object]]:
    """Runs `demo --once -o json`; returns what each check measured. Fails with what the demo said."""
    demo = start_demo("--once", "-o", "json", *arguments)
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said
    assert namespaces_of(demo) == []
    report = json.loads(said[said.index("\n{\n") :])
    assert report["ok"] is True
    return {check["name"]: check["figures"] for check in report["checks"]}


@pytest.mark.parametrize("tor", ["catbird", pytest.param("bird", marks=pytest.mark.interop), "frr"])
def test_all_checks_pass_whatever_the_tor_runs(tor: str) -> None:
    figures = checked("--tor", tor)
    assert figures["BGP sessions"]["sessions"] == 6
    assert figures["packets between all workloads"]["ipv6_pairs"] == 42
    killed = figures["kill -9 and restart of node1's speaker"]
    assert (killed["packets_lost"], killed["routes_lost"], killed["stale_routes_left"]) == (0, 0, 0)


def test_six_nodes_behind_two_reflectors_lose_nothing_with_one_of_them() -> None:
    figures = checked("--nodes", "6", "--reflectors", "2")
    assert figures["BGP sessions"]["sessions"] == 6 * 2 + 1 + 6
    routes = figures["routes in each kernel"]["routes"]
    assert routes == {f"node{number}": 22 for number in range(1, 7)} | {"rr1": 0, "rr2": 0, "tor": 24}
    assert figures["packets between all workloads"]["ipv6_pairs"] == 156
    for victim in ("node1's speaker", "rr1"):
        killed = figures[f"kill -9 and restart of {victim}"]
        assert (killed["packets_lost"], killed["routes_lost"]) == (0, 0)


def test_a_single_reflector_comes_back_and_nothing_was_lost() -> None:
    killed = checked("--nodes", "2", "--reflectors", "1", "--tor", "frr")["kill -9 and restart of rr1"]
    assert (killed["packets_lost"], killed["routes_lost"]) == (0, 0)


@pytest.mark.parametrize(
    ("victim", "hint", "returned"),
    [
        ("node1", rb"kill -9 (\d+) +and no", rb"[^\n]*Established[^\n]*Established[^\n]*6 right"),
        ("rr1", rb"kill -9 (\d+) +nor", rb"[^\n]*Established[^\n]*Established[^\n]*0 right"),
    ],
)
def test_the_live_view_shows_a_killed_speaker_come_back(victim: str, hint: bytes, returned: bytes) -> None:
    screen, terminal = pty.openpty()
    reflectors = "1" if victim == "rr1" else "0"
    demo = subprocess.Popen(
        [sys.executable, "-m", "integration.catbird", "demo", "--nodes", "2", "--reflectors", reflectors],
        cwd=PROJECT,
        env=os.environ | {"COLUMNS": "160", "LINES": "50", "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    seen = _read_until(screen, hint)
    os.kill(int(seen[1]), signal.SIGKILL)
    _read_until(screen, victim.encode() + rb"[^\n]* dead ")
    after = _read_until(screen, hint, unlike=seen[1])
    _read_until(screen, victim.encode() + rb"[^\n]*" + after[1] + returned)
    demo.send_signal(signal.SIGINT)
    _read_until(screen, rb"no namespace, process or file left")
    assert demo.wait(30) == 0
    os.close(screen)


def _read_until(screen: int, pattern: bytes, unlike: bytes = b"", within_s: float = 30.0) -> re.Match[bytes]:
    """Reads the terminal until the pattern is there, and its group is not `unlike`."""
    text = b""
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0:
        if select.select([screen], [], [], left)[0]:
            text += os.read(screen, 65536)
        plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", text)
        for found in re.finditer(pattern, plain):
            if not unlike or found[1] != unlike:
                return found
    raise AssertionError(f"{pattern!r} did not show up in {text[-3000:].decode(errors='replace')}")


def test_two_nodes_are_enough() -> None:
    assert checked("--nodes", "2")["BGP sessions"]["sessions"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_removes_everything(number: signal.Signals) -> None:
    demo = start_demo("--once")
    wait_for(lambda: daemons_run(demo))
    inodes = [path.stat().st_ino for path in namespaces_of(demo)]
    demo.send_signal(number)
    demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert_nothing_left(demo, inodes)


def test_what_a_killed_demo_leaves_dies_with_it_or_is_swept_by_the_next() -> None:
    demo = start_demo("--once")
    wait_for(lambda: daemons_run(demo))
    inodes = [path.stat().st_ino for path in namespaces_of(demo)]
    demo.kill()
    demo.communicate(timeout=30)
    wait_for(lambda: not any(processes_in(inode) for inode in inodes), 5)
    names = [path.name for path in namespaces_of(demo)]
    assert names
    assert set(names) <= set(sweep_dead_runs())
    assert_nothing_left(demo, inodes)


def test_two_demos_at_once_do_not_disturb_each_other() -> None:
    first, second = start_demo("--once", "--nodes", "2"), start_demo("--once", "--nodes", "2")
    for demo in (first, second):
        said, _ = demo.communicate(timeout=110)
        assert demo.returncode == 0, said


def test_a_living_run_is_not_swept() -> None:
    demo = start_demo("--once", "--nodes", "2")
    wait_for(lambda: daemons_run(demo))
    assert not [name for name in sweep_dead_runs() if name.startswith(f"catbird-{demo.pid}-")]
    said, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, said


def test_an_ordinary_user_gets_one_line() -> None:
    # The import comes first: an ordinary user may not be able to read this interpreter's files.
    program = "import os, sys; from integration.demo.main import main; os.setuid(65534); sys.exit(main(['--once']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == "catbird demo: needs root: it makes network namespaces\n"
    assert (done.returncode, done.stdout) == (1, "")


def test_root_without_the_capability_gets_one_line() -> None:
    program = (
        "import ctypes, sys; from integration.demo.main import main; "
        # capset(2) with empty sets: root by name only, as in most containers.
        "libc = ctypes.CDLL(None); header = (ctypes.c_uint32 * 2)(0x20080522, 0); data = (ctypes.c_uint32 * 6)(); "
        "assert libc.capset(header, data) == 0; sys.exit(main(['--once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr.startswith("catbird demo: cannot make network namespaces here")
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (1, "")
