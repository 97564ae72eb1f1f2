"""Programs are bounded: in time, in what they print, and by us when we are cancelled."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from felix.kernel import programs
from felix.kernel.programs import Refused, find, run

SH = "/bin/sh"


def test_a_program_gets_its_input_and_says_its_output() -> None:
    text = "x" * 300_000
    assert asyncio.run(run("/bin/cat", [], text)) == text


def test_a_complaint_is_passed_on_and_cut() -> None:
    with pytest.raises(Refused, match=r"^it is wrong$"):
        asyncio.run(run(SH, ["-c", "echo it is wrong >&2; exit 3"]))
    with pytest.raises(Refused, match="ended with 3"):
        asyncio.run(run(SH, ["-c", "exit 3"]))
    with pytest.raises(Refused) as caught:
        asyncio.run(run(SH, ["-c", "head -c 9000000 /dev/zero | tr '\\0' x >&2; exit 1"]))
    assert len(str(caught.value)) == programs.MAX_COMPLAINT


def test_a_program_that_is_not_there_is_a_complaint() -> None:
    with pytest.raises(Refused, match="No such file"):
        asyncio.run(run("/nowhere/iptables"))


def test_a_program_that_does_not_read_says_why() -> None:
    with pytest.raises(Refused, match="no thanks"):
        asyncio.run(run(SH, ["-c", "echo no thanks >&2; exit 1"], "x" * 1_000_000))


def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "TIMEOUT_S", 0.1)
    with pytest.raises(Refused, match="was not done within"):
        asyncio.run(run(SH, ["-c", f"echo $$ >{tmp_path}/pid; exec sleep 1000"]))
    assert not is_running(tmp_path)


def test_a_program_that_prints_without_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "MAX_OUTPUT", 1 << 20)
    with pytest.raises(Refused, match="printed more than 1 MiB"):
        asyncio.run(run(SH, ["-c", f"echo $$ >{tmp_path}/pid; exec cat /dev/zero"]))
    assert not is_running(tmp_path)


def test_whoever_is_cancelled_leaves_no_process_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "up")

    async def body() -> None:
        task = asyncio.create_task(run(SH, ["-c", f"echo $$ >{tmp_path}/pid; echo >{tmp_path}/up; exec sleep 1000"]))
        await asyncio.to_thread((tmp_path / "up").read_text)  # a pipe: opened for writing by then
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    assert not is_running(tmp_path)


def test_a_program_dies_with_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "up")
    ours = f"""if True:
        import asyncio
        from felix.kernel.programs import run
        asyncio.run(run("{SH}", ["-c", "echo $$ >{tmp_path}/up; exec sleep 1000"]))"""
    with subprocess.Popen([sys.executable, "-c", ours], cwd=Path(__file__).parents[3]) as process:
        pid = int((tmp_path / "up").read_text())
        handle = os.pidfd_open(pid)
        process.kill()
    ended, _, _ = select.select([handle], [], [], 10)
    os.close(handle)
    assert ended


def is_running(directory: Path) -> bool:
    return Path(f"/proc/{(directory / 'pid').read_text().strip()}").exists()


def test_a_program_that_prints_and_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "TIMEOUT_S", 0.2)
    with pytest.raises(Refused, match="was not done within"):
        asyncio.run(run(SH, ["-c", f"echo $$ >{tmp_path}/pid; exec cat /dev/zero"]))
    assert not is_running(tmp_path)


def test_programs_are_found_where_a_daemons_path_does_not_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("sh") is not None
    assert find("no-such-program-at-all") is None
