"""Files that tell the CNI plugin which workloads are ready: `PREFIX/endpoint-status/`, one for each that is up.

Names and contents are those of Calico's Felix, whose CNI plugin waits for them. Unlike Felix a file is written beside and
renamed, so that nobody reads half of one. `EndpointStatusPathPrefix`; source: libcalico-go/lib/epstatusfile.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from bgp.ports import EventSink
from felix.desired import Message, WorkloadEndpoint, WorkloadId, WorkloadRemove, WorkloadUpdate
from felix.endpoint_status import EndpointId, Status

DIRECTORY = "endpoint-status"
UNFINISHED = ".writing-"  # beginning of a name; no workload's file begins so, for an orchestrator comes first
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
SAFE = "$&+=:@"  # what Go's PathEscape leaves, beyond letters, digits and -_.~


def file_name(id: WorkloadId) -> str:
    """`k8s ns%2Fpod eth0`. An escape never yields a blank, so that the three parts stay apart."""
    return " ".join(quote(part, safe=SAFE) for part in id)


def content(endpoint: WorkloadEndpoint) -> str:
    value = {
        "ifaceName": endpoint.interface,
        "mac": endpoint.mac,
        "ipv4Nets": list(endpoint.ipv4_nets),
        "ipv6Nets": list(endpoint.ipv6_nets),
        "bgpPeerName": endpoint.bgp_peer,
    }
    return json.dumps({name: part for name, part in value.items() if part})


class StatusFiles:
    """`on_message`, `told` and `in_sync` note what is wanted; `run` writes it, and again after a failure. One event loop."""

    def __init__(self, prefix: str, log: EventSink) -> None:
        self.directory = Path(prefix) / DIRECTORY
        self.log = log
        self._endpoints: dict[WorkloadId, WorkloadEndpoint] = {}
        self._up: set[WorkloadId] = set()
        self._to_do: set[WorkloadId] = set()
        self._is_in_sync = self._has_swept = False
        self._is_due = asyncio.Event()
        self._disk = _Disk(self.directory)

    def on_message(self, message: Message) -> None:
        if isinstance(message, WorkloadUpdate):
            self._endpoints[message.endpoint.id] = message.endpoint
            self._note(message.endpoint.id)
        elif isinstance(message, WorkloadRemove):
            self._endpoints.pop(message.id, None)
            self._note(message.id)

    def told(self, changes: Mapping[EndpointId, Status | None]) -> None:
        """Changed statuses, as EndpointStates says them."""
        for id, status in changes.items():
            if isinstance(id, WorkloadId):
                (self._up.add if status == "up" else self._up.discard)(id)
                self._note(id)

    def in_sync(self) -> None:
        """Every workload is known and has its status: what else a former process left may go."""
        self._is_in_sync = True
        self._is_due.set()

    def _note(self, id: WorkloadId) -> None:
        self._to_do.add(id)
        self._is_due.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause_s, said = FIRST_PAUSE_S, ""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            error = await self.write_once()
            if not error:
                if said:
                    self.log.event("endpoint_files_written_again", directory=str(self.directory))
                pause_s, said = FIRST_PAUSE_S, ""
                continue
            if error != said:
                said = error
                self.log.event("endpoint_files_failed", error=error, directory=str(self.directory))
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            self._is_due.set()

    async def write_once(self) -> str:
        """Write and remove what differs, beside the event loop; what fails stays to do. The first error, or nothing."""
        to_do, self._to_do = self._to_do, set()
        batch = {id: self._text(id) for id in to_do}
        is_sweep = self._is_in_sync and not self._has_swept
        kept = {file_name(id) for id in self._up if id in self._endpoints} if is_sweep else None
        try:
            failed, error = await asyncio.to_thread(self._disk.write, batch, kept)
        except OSError as problem:  # the directory itself
            self._to_do |= to_do
            return f"{problem.filename}: {problem.strerror}"
        self._has_swept = self._has_swept or (is_sweep and not error)
        self._to_do |= failed
        if failed and not self._disk.is_read:  # somebody has removed the directory with all that was in it
            self._to_do |= self._up
        return error

    def _text(self, id: WorkloadId) -> str | None:
        return content(self._endpoints[id]) if id in self._up and id in self._endpoints else None


class _Disk:
    """What lies in the directory. Used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_read = False
        self.written: dict[str, str] = {}

    def write(self, batch: Mapping[WorkloadId, str | None], kept: set[str] | None) -> tuple[set[WorkloadId], str]:
        """None: no file. With `kept` every other file goes. What failed, and the first reason. Raises OSError."""
        if not self.is_read:
            self._read()
        failed, first = set(), ""
        for id, text in batch.items():
            try:
                self._put(file_name(id), text)
            except OSError as error:
                failed.add(id)
                first = first or f"{file_name(id)[:80]}: {error.strerror}"
                self.is_read = self.directory.is_dir()
        for name in set(self.written) - kept if kept is not None else ():
            try:
                self._put(name, None)
            except OSError as error:
                first = first or f"{name[:80]}: {error.strerror}"
        return failed, first

    def _read(self) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.written.clear()
        for path in self.directory.iterdir():
            if path.name.startswith(UNFINISHED):
                path.unlink(missing_ok=True)
            elif path.is_file():
                self.written[path.name] = path.read_text(errors="replace")
        self.is_read = True

    def _put(self, name: str, text: str | None) -> None:
        if text is None:
            (self.directory / name).unlink(missing_ok=True)
            self.written.pop(name, None)
        elif self.written.get(name) != text:
            # Beside under a name of its own: the workload's behind a prefix may be longer than a name can be.
            beside = self.directory / f"{UNFINISHED}{os.getpid()}"
            try:
                beside.write_text(text)
                beside.chmod(0o644)
                beside.rename(self.directory / name)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
            self.written[name] = text
