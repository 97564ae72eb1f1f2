"""Network namespaces of one run: made, entered, and removed even if the run was killed.

A run owns a lock file in RUNS; whoever finds it unlocked may sweep what it left. A namespace is called
catbird-<run>-<name>, so that `ip netns` shows it and no two runs meet.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns

T = TypeVar("T")

RUNS = Path("/run/catbird-demo")
NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """An open network namespace. What was opened inside it, a socket say, stays inside for good."""

    def __init__(self, name: str, file_name: str) -> None:
        self.name = name
        self.file_name = file_name
        netns.create(file_name)
        self.fd = os.open(NETNS / file_name, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(self.fd).st_dev == NETNS.stat().st_dev:
            raise PermissionError(f"cannot mount {NETNS / file_name}")

    @property
    def inode(self) -> int:
        return os.fstat(self.fd).st_ino

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` inside, in a thread of its own, and return what it returns or raise what it raises.

        A pyroute2 object must be made *and* used within one call: it opens a socket per thread, so that one carried
        out would speak to this process's own namespace.
        """
        answer: list[T] = []
        failure: list[BaseException] = []

        def enter_and_work() -> None:
            try:
                _setns(self.fd)
                answer.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter_and_work, name=f"in {self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return answer[0]

    def child_setup(self) -> Callable[[], None]:
        """For subprocess's preexec_fn: into this namespace, and to die with the demo even if that is killed.

        Only two system calls through names bound beforehand: nothing that a lock held at fork could block.
        """
        setns, prctl, fd = _libc.setns, _libc.prctl, self.fd

        def setup() -> None:
            if setns(fd, CLONE_NEWNET) != 0 or prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
                os._exit(127)

        return setup

    def close(self) -> None:
        os.close(self.fd)
        netns.remove(self.file_name)


class Run:
    """One run's claim on names and folders. Context manager: at exit all of it goes, whatever happened in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(os.getpid())
        self.namespaces: dict[str, Namespace] = {}
        RUNS.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._lock_path = RUNS / self.name
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write_lock()

    def add(self, name: str) -> Namespace:
        made = Namespace(name, f"catbird-{self.name}-{name}")
        self.namespaces[name] = made
        return made

    def close(self, keep_folder: bool = False) -> None:
        for namespace in self.namespaces.values():
            end_processes_in(namespace.inode)
        for namespace in reversed(self.namespaces.values()):
            with suppress(OSError):
                namespace.close()
        # One that a signal interrupted between making and noting it.
        for path in NETNS.glob(f"catbird-{self.name}-*"):
            _remove_namespace(path)
        if not keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        with suppress(OSError):
            RUNS.rmdir()

    def _write_lock(self) -> None:
        os.pwrite(self._lock, json.dumps({"folders": [str(self.folder)]}).encode(), 0)


def sweep_dead_runs() -> list[str]:
    """Remove what runs left behind that were killed before they could; returns the names of the namespaces."""
    swept = []
    for path in sorted(NETNS.glob("catbird-*")) if NETNS.exists() else []:
        found = re.fullmatch(r"catbird-(\d+)-\w+", path.name)
        if found and not _is_alive(found[1]):
            _remove_namespace(path)
            swept.append(path.name)
    for path in RUNS.iterdir() if RUNS.exists() else []:
        if not _is_alive(path.name):
            with suppress(OSError, ValueError, KeyError):
                for folder in json.loads(path.read_text())["folders"]:
                    shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)
    return swept


def end_processes_in(inode: int, patience_s: float = 3.0) -> list[int]:
    """End every process that lives in the namespace with this inode, first kindly; returns their pids."""
    ended: list[int] = []
    for how in (signal.SIGTERM, signal.SIGKILL):
        pids = processes_in(inode)
        ended += [pid for pid in pids if pid not in ended]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        deadline = time.monotonic() + patience_s
        while processes_in(inode) and time.monotonic() < deadline:
            time.sleep(0.02)
    return ended


def processes_in(inode: int) -> list[int]:
    """Pids of the living processes, this one excepted; a zombie has no namespace any more."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.stat(path / "ns/net").st_ino == inode and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def _remove_namespace(path: Path) -> None:
    # An empty file is a namespace whose maker was killed between creating and mounting it.
    if path.stat().st_dev != NETNS.stat().st_dev:
        end_processes_in(path.stat().st_ino)
    with suppress(OSError):
        netns.remove(path.name)
    path.unlink(missing_ok=True)


def _is_alive(run: str) -> bool:
    try:
        lock = os.open(RUNS / run, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def why_not_here() -> str | None:
    """None, or one line that says why namespaces cannot be made here."""
    if os.geteuid() != 0:
        return "needs root: it makes network namespaces"
    refused: list[str] = []

    def try_it() -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            refused.append(os.strerror(ctypes.get_errno()))

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return f"cannot make network namespaces here ({refused[0]}): CAP_SYS_ADMIN is needed" if refused else None
