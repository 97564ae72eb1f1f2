"""Child programs that are kept running: Felix beside the speaker. The death of one touches nobody else.

A child has a session of its own, so that a terminal's Ctrl-C reaches us alone; it goes with us however we end, and
what it started goes with it. Its streams are ours.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from bgp.ports import EventSink

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
WELL_S = 60.0  # who ran for so long has nothing to do with its last failure
GRACE_S = 25.0  # between SIGTERM and SIGKILL: Kubernetes gives us 30
RESTART_CODE = 129  # Felix': its configuration has changed in a way that it cannot take over running
REAP_TRIES = 50  # 1 s
QUICK_S, QUICK_RESTARTS = 5.0, 3  # such an end counts as a failure if it comes so soon, for the fourth time in a row

# Between fork and exec no Python may run here, where gRPC has threads; so it runs in the child's own interpreter, 20 ms long.
# The kernel kills it when the thread that started it ends, and its exec keeps that; it must not have ended already.
WITH_US = (
    "import ctypes,os,signal,sys\n"
    "ctypes.CDLL(None).prctl(1,signal.SIGKILL)\n"
    "if os.getppid()!=int(sys.argv[1]): os._exit(1)\n"
    "for one in signal.SIGPIPE,signal.SIGXFSZ: signal.signal(one,signal.SIG_DFL)\n"
    "try: os.execvp(sys.argv[2],sys.argv[2:])\n"
    "except OSError as error: sys.exit(f'{sys.argv[2]}: {error.strerror}')\n"
)

Phase = Literal["starting", "running", "waiting", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Program:
    """`environment` replaces ours; None: ours."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = None


@dataclass(slots=True)
class ProgramState:
    """For health and `catbird show`. `since` is monotonic seconds of the last change of phase."""

    name: str
    phase: Phase = "starting"
    pid: int = 0
    since: float = 0.0
    starts: int = 0
    last_end: str = ""  # `exit code 1`, `killed by SIGSEGV`
    next_start_at: float = 0.0  # while waiting

    def view(self, now: float) -> dict[str, object]:
        found: dict[str, object] = {
            "name": self.name, "state": self.phase, "since_s": round(now - self.since, 1), "starts": self.starts,
        }  # fmt: skip
        if self.pid:
            found["pid"] = self.pid
        if self.last_end:
            found["last_end"] = self.last_end
        if self.phase == "waiting":
            found["next_start_s"] = round(max(0.0, self.next_start_at - now), 1)
        return found


@dataclass(slots=True)
class BackOff:
    """How long to wait before the next start. Pure."""

    pause_s: float = FIRST_PAUSE_S
    quick_restarts: int = field(default=0)

    def after(self, code: int, ran_s: float) -> float:
        """Seconds until the next start, of one that ended with `code` after `ran_s`."""
        if ran_s >= WELL_S:
            self.pause_s = FIRST_PAUSE_S
        if code == RESTART_CODE:
            self.quick_restarts = self.quick_restarts + 1 if ran_s < QUICK_S else 0
            if self.quick_restarts <= QUICK_RESTARTS:
                return 0.0
        pause_s, self.pause_s = self.pause_s, min(LONGEST_PAUSE_S, self.pause_s * 2)
        return pause_s


class Supervisor:
    """`run()` from the main thread's event loop, until `stop` or cancellation; either leaves no child."""

    def __init__(
        self,
        programs: Sequence[Program],
        log: EventSink,
        *,
        grace_s: float = GRACE_S,
        changed: Callable[[ProgramState], None] = lambda state: None,
    ) -> None:
        """`changed` is told of each change of a program's phase; it must neither block nor raise."""
        self._children = [_Child(program, log, grace_s, changed) for program in programs]

    @property
    def states(self) -> list[ProgramState]:
        return [child.state for child in self._children]

    def view(self) -> list[dict[str, object]]:
        return [state.view(time.monotonic()) for state in self.states]

    async def run(self) -> None:
        tasks = [asyncio.create_task(child.run(), name=child.state.name) for child in self._children]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """SIGTERM to all; SIGKILL to those that are there after the grace. `run` returns when none is."""
        for child in self._children:
            child.stop()

    def kill(self) -> None:
        """At once, for a second signal."""
        for child in self._children:
            child.kill()


class _Child:
    """One program, one process at a time."""

    def __init__(
        self, program: Program, log: EventSink, grace_s: float, changed: Callable[[ProgramState], None]
    ) -> None:
        self.program, self.state = program, ProgramState(program.name, since=time.monotonic())
        self._log, self._grace_s, self._changed = log, grace_s, changed
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = asyncio.Event()
        self._back_off = BackOff()

    async def run(self) -> None:
        while not self._is_stopping.is_set():
            began_at = time.monotonic()
            code = await self._once()
            if self._is_stopping.is_set():
                break
            ran_s = time.monotonic() - began_at
            pause_s = self._back_off.after(code, ran_s)
            is_wanted = code == RESTART_CODE
            self._log.event(
                "program_restarts" if is_wanted else "program_failed",
                program=self.program.name, end=self.state.last_end, ran_s=round(ran_s, 1), restart_in_s=pause_s,
            )  # fmt: skip
            self.state.next_start_at = time.monotonic() + pause_s
            self._enter("waiting")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._is_stopping.wait()
        self._enter("stopped")

    async def _once(self) -> int:
        """Start it and wait for its end: its exit code, or minus the signal that ended it."""
        self.state.starts += 1
        try:
            process, watch = self._started()
        except OSError as error:  # no memory, no processes or descriptors left
            self.state.last_end = f"not started: {error.strerror}"
            return -1
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(watch, ended.set)
        self._process = process
        self.state.pid = process.pid
        self._enter("running")
        self._log.event("program_started", program=self.program.name, pid=process.pid)
        try:
            await self._until(ended)
        finally:
            loop.remove_reader(watch)
            os.close(watch)
            self._signal_group(signal.SIGKILL)  # it and whatever it has left behind
            code = process.wait()
            self._process, self.state.pid = None, 0
            self.state.last_end = end_text(code)
        await reap_group(process.pid)
        return code

    async def _until(self, ended: asyncio.Event) -> None:
        stop = asyncio.create_task(self._is_stopping.wait())
        end = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait((stop, end), return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                return
            self._enter("stopping")
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)
            await asyncio.wait((end,), timeout=self._grace_s)
            if not end.done():
                self._log.event("program_killed", level="warning", program=self.program.name, after_s=self._grace_s)
        finally:
            for task in (stop, end):
                task.cancel()

    def _started(self) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and a descriptor that is readable when it has ended. Raises OSError.

        While nobody has waited for it the process keeps its number, and with it the group: no signal goes astray.
        """
        wrapped = [sys.executable, "-I", "-S", "-c", WITH_US, str(os.getpid()), *self.program.command]
        environment = None if self.program.environment is None else dict(self.program.environment)
        process = subprocess.Popen(wrapped, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        try:
            return process, os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise

    def stop(self) -> None:
        self._is_stopping.set()

    def kill(self) -> None:
        self._is_stopping.set()
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _enter(self, phase: Phase) -> None:
        self.state.phase, self.state.since = phase, time.monotonic()
        self._changed(self.state)


async def reap_group(group: int) -> None:
    """In a container we may be process 1: what a child leaves behind becomes ours, and has been killed just now."""
    for _ in range(REAP_TRIES):
        try:
            while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:  # noqa: ASYNC222 (WNOHANG)
                pass
        except ChildProcessError:  # there is none (any more)
            return
        await asyncio.sleep(0.02)


def end_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
