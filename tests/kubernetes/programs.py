"""Programs of the cluster: each logs into a file of its own and is ended by its pid."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# A shell's background job hands on an ignored SIGINT.
HEARING = ["env", "--default-signal=INT,TERM,HUP,PIPE"]


class Program:
    def __init__(self, name: str, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*HEARING, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
            )

    def stop(self, signal: int, patience_s: float = 15.0) -> int:
        """Exit code; killed after `patience_s`."""
        if self.process.poll() is None:
            self.process.send_signal(signal)
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(patience_s)

    def tail(self, lines: int = 25) -> str:
        return f"--- {self.name}\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(holds: Callable[[], object], what: str, patience_s: float = 60.0, pause_s: float = 0.1) -> float:
    """How long it took. Raises AssertionError."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + patience_s, f"not within {patience_s:g} s: {what}"
        time.sleep(pause_s)
    return time.monotonic() - began
