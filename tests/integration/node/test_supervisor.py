"""Child programs that are kept running: real processes, which end in every way."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from integration.node.supervisor import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    QUICK_RESTARTS,
    RESTART_CODE,
    WELL_S,
    BackOff,
    Program,
    ProgramState,
    Supervisor,
    end_text,
)
from tests.integration.node import speakers
from tests.integration.node.waiting import Log, until

ROOT = Path(__file__).parents[3]


def shell(script: str, name: str = "felix") -> Program:
    return Program(name, ["/bin/sh", "-c", script])


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def supervise(
    programs: list[Program], scene: Callable[[Supervisor, Log], Awaitable[None]], *, grace_s: float = 10.0
) -> Log:
    """Run the scene beside the supervisor, then stop it. Nothing may be left."""
    log = Log()

    async def run() -> None:
        supervisor = Supervisor(programs, log, grace_s=grace_s)
        running = asyncio.create_task(supervisor.run())
        try:
            await scene(supervisor, log)
            supervisor.stop()
            async with asyncio.timeout(15):
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert {state.phase for state in supervisor.states} == {"stopped"}

    asyncio.run(run())
    pids = [fields["pid"] for fields in log.named("program_started")]
    assert not [pid for pid in pids if is_alive(pid)]
    return log


def test_a_program_that_dies_is_started_again_and_the_other_is_not_touched() -> None:
    async def scene(supervisor: Supervisor, log: Log) -> None:
        await until(lambda: all(state.phase == "running" for state in supervisor.states))
        felix, speaker = supervisor.states
        first, other = felix.pid, speaker.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: felix.pid not in (0, first), "it runs again")
        assert felix.last_end == "killed by SIGKILL"
        assert (speaker.pid, speaker.starts) == (other, 1)

    log = supervise([shell("exec sleep 100"), shell("exec sleep 100", "speaker")], scene)
    (failed,) = log.named("program_failed")
    assert (failed["program"], failed["end"], failed["restart_in_s"]) == ("felix", "killed by SIGKILL", FIRST_PAUSE_S)


def test_a_program_that_asks_for_it_is_started_again_at_once(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def scene(supervisor: Supervisor, log: Log) -> None:
        (state,) = supervisor.states
        await until(lambda: state.phase == "running" and state.starts == 2)

    script = f"test -e {marker} && exec sleep 100; touch {marker}; exit {RESTART_CODE}"
    log = supervise([shell(script)], scene)
    (restart,) = log.named("program_restarts")
    assert restart["restart_in_s"] == 0.0
    assert log.named("program_failed") == []


def test_stopping_waits_for_a_program_to_end_by_itself(tmp_path: Path) -> None:
    marker = tmp_path / "said-goodbye"
    ready = tmp_path / "ready"

    async def scene(supervisor: Supervisor, log: Log) -> None:
        await until(ready.exists)

    supervise(
        [shell(f"trap 'sleep 0.3; touch {marker}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done")], scene
    )
    assert marker.exists()


def test_a_program_that_does_not_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    async def scene(supervisor: Supervisor, log: Log) -> None:
        await until(ready.exists)

    log = supervise([shell(f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done")], scene, grace_s=0.3)
    assert log.named("program_killed")[0]["after_s"] == 0.3


def test_what_a_program_started_goes_with_it(tmp_path: Path) -> None:
    left = tmp_path / "left"

    async def scene(supervisor: Supervisor, log: Log) -> None:
        (state,) = supervisor.states
        await until(lambda: state.phase == "waiting")
        pid = int(left.read_text())
        await until(lambda: not is_alive(pid), "its child is gone")

    supervise([shell(f"sleep 100 & echo $! > {left}; exit 3")], scene)


def test_a_program_that_cannot_be_run_is_tried_again_and_said_so() -> None:
    async def scene(supervisor: Supervisor, log: Log) -> None:
        (state,) = supervisor.states
        await until(lambda: state.starts == 2)
        assert state.last_end == "exit code 1"

    log = supervise([Program("felix", ["/there/is/no/such/program"])], scene)
    assert [fields["restart_in_s"] for fields in log.named("program_failed")][:1] == [FIRST_PAUSE_S]


def test_stopping_does_not_wait_for_the_next_start() -> None:
    async def scene(supervisor: Supervisor, log: Log) -> None:
        (state,) = supervisor.states
        await until(lambda: state.phase == "waiting")
        state.next_start_at += 1000
        began_at = asyncio.get_running_loop().time()
        supervisor.stop()
        await until(lambda: state.phase == "stopped")
        assert asyncio.get_running_loop().time() - began_at < FIRST_PAUSE_S

    supervise([shell("exit 1")], scene)


def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    async def scene(supervisor: Supervisor, log: Log) -> None:
        await until(ready.exists)
        supervisor.stop()
        supervisor.kill()
        await until(lambda: supervisor.states[0].phase == "stopped")

    supervise([shell(f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done")], scene, grace_s=1000)


def test_a_cancelled_supervisor_leaves_no_child() -> None:
    async def run() -> int:
        supervisor = Supervisor([shell("trap '' TERM; while :; do sleep 0.05; done")], Log())
        running = asyncio.create_task(supervisor.run())
        await until(lambda: supervisor.states[0].pid)
        pid = supervisor.states[0].pid
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return pid

    assert not is_alive(asyncio.run(run()))


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"""
        import asyncio
        from integration.node.supervisor import Program, Supervisor
        from tests.integration.node.waiting import Log
        command = ["/bin/sh", "-c", "trap '' TERM HUP; echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; while :; do sleep 0.05; done"]
        asyncio.run(Supervisor([Program("felix", command)], Log()).run())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT)
    try:
        speakers.until(pid_file.exists, "the child runs")
        pid = int(pid_file.read_text())
        assert is_alive(pid)
        process.kill()
        process.wait()
        speakers.until(lambda: not is_alive(pid), "the child is gone")
    finally:
        process.kill()
        process.wait()


def test_as_process_1_no_zombies_gather(tmp_path: Path) -> None:
    left = tmp_path / "left"
    script = f"""
        import asyncio, ctypes
        from integration.node.supervisor import Program, Supervisor
        from tests.integration.node.waiting import Log
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come to us, as to process 1
        command = ["/bin/sh", "-c", "sleep 100 & echo $! > {left}.new; mv {left}.new {left}; exit 3"]
        asyncio.run(Supervisor([Program("felix", command)], Log()).run())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT)
    try:
        speakers.until(left.exists, "the child has run")
        orphan = int(left.read_text())
        speakers.until(lambda: not Path(f"/proc/{orphan}").exists(), "not even its zombie is there")
    finally:
        process.kill()
        process.wait()


def test_a_child_has_a_session_of_its_own_and_the_environment_that_it_is_given(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = Program("felix", ["/bin/sh", "-c", f'echo "$NAME" > {out}; exec sleep 100'], {"NAME": "value"})

    async def scene(supervisor: Supervisor, log: Log) -> None:
        await until(lambda: out.exists() and out.read_text())
        assert out.read_text() == "value\n"
        pid = supervisor.states[0].pid
        assert os.getsid(pid) == os.getpgid(pid) == pid

    supervise([program], scene)


def test_without_a_descriptor_left_nothing_is_started_and_nothing_breaks() -> None:
    async def scene(supervisor: Supervisor, log: Log) -> None:
        (state,) = supervisor.states
        await until(lambda: state.phase == "running")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            os.kill(state.pid, signal.SIGKILL)
            await until(lambda: state.phase == "waiting" and "not started" in state.last_end)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await until(lambda: state.phase == "running", "it runs again")

    log = supervise([shell("exec sleep 100")], scene)
    assert "not started: Too many open files" in [fields["end"] for fields in log.named("program_failed")]


def test_a_broken_pipe_ends_a_child_as_it_ends_any_program(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def scene(supervisor: Supervisor, log: Log) -> None:
        await until(lambda: out.exists() and out.read_text())

    supervise([shell(f"grep SigIgn /proc/self/status > {out}; exec sleep 100")], scene)
    assert int(out.read_text().split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_the_pause_grows_and_starts_anew_after_a_good_run() -> None:
    back_off = BackOff()
    pauses = [back_off.after(1, 1.0) for _ in range(10)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert back_off.after(1, WELL_S) == FIRST_PAUSE_S


def test_a_program_that_does_nothing_but_ask_for_a_restart_is_slowed_down() -> None:
    back_off = BackOff()
    pauses = [back_off.after(RESTART_CODE, 0.1) for _ in range(QUICK_RESTARTS + 2)]
    assert pauses == [0.0] * QUICK_RESTARTS + [0.5, 1.0]
    assert back_off.after(RESTART_CODE, 10.0) == 0.0


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit code 0"), (129, "exit code 129"), (-11, "killed by SIGSEGV"), (-63, "killed by signal 63")],
)
def test_an_end_is_said_in_words(code: int, text: str) -> None:
    assert end_text(code) == text


def test_a_state_is_shown() -> None:
    state = ProgramState("felix", "waiting", since=10.0, starts=2, last_end="exit code 1", next_start_at=14.5)
    assert state.view(12.0) == {
        "name": "felix", "state": "waiting", "since_s": 2.0, "starts": 2, "last_end": "exit code 1", "next_start_s": 2.5,
    }  # fmt: skip
