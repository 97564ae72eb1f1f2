"""The policy sync service: a Unix socket per workload, on which its Dikastes learns the policies that it is under.

Who a client is follows from the socket that it has: the CSI driver mounts `PREFIX/mount/ID` into the workload and then
says in `PREFIX/creds/ID.json` whose it is. That directory is the workload's to write in, so nothing in it is trusted: no
link is followed. Source: Calico's policysync and pod2daemon's binder. `PolicySyncPathPrefix`.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from bgp.ports import EventSink
from felix.desired import Message, WorkloadId
from integration.felixbackend import MESSAGES, SERVICE
from integration.node.policy_book import PolicyBook

LOOK_S = 0.2  # between two looks at the directory's time
FULL_LOOK_S = 2.0  # between two readings of it, whatever its time says
MAX_CREDENTIALS_OCTETS = 65_536
MAX_BACKLOG_OCTETS = 32 << 20  # beyond what a client is told at the start; then it has to start anew
LEAST_BETWEEN_JOINS_S = 0.5
MAX_CALLS = 8  # at once on one socket
OPTIONS = (
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_concurrent_streams", MAX_CALLS),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
)
SOCKET = "socket"
Report = Callable[[WorkloadId, Any], None]
"""What a client says about a connection: its workload and a DataplaneStats."""


class Backlog:
    """Outlet of the book: what one client has yet to take."""

    def __init__(self) -> None:
        self._octets: deque[bytes] = deque()
        self._size = 0
        self._most: int | None = None
        self._is_closed = False
        self.has_overflowed = False
        self._has_some = asyncio.Event()

    def send(self, octets: bytes) -> None:
        if self._is_closed:
            return
        self._octets.append(octets)
        self._size += len(octets)
        if self._most is not None and self._size > self._most:
            self.has_overflowed = self._is_closed = True
            self._octets.clear()
        self._has_some.set()

    def begin_limit(self) -> None:
        """What stands here now is what the client is told at the start, however much that is."""
        self._most = self._size + MAX_BACKLOG_OCTETS

    def close(self) -> None:
        self._is_closed = True
        self._has_some.set()

    async def next(self) -> bytes | None:
        """None: no more."""
        while not self._octets:
            if self._is_closed:
                return None
            self._has_some.clear()
            await self._has_some.wait()
        octets = self._octets.popleft()
        self._size -= len(octets)
        return octets


class PolicySync:
    """`run()` until cancelled; `on_message` from the same event loop, whether or not anybody listens."""

    def __init__(self, prefix: str, log: EventSink, report: Report | None = None) -> None:
        self.prefix = Path(prefix)
        self.book = PolicyBook(self._not_sent)
        self._log, self._report = log, report
        self._sockets: dict[str, WorkloadSocket] = {}  # by ID
        self._known: dict[str, tuple[int, int]] = {}  # credentials that were read, by ID: inode and time
        self._said: dict[str, str] = {}
        self._directory_at = -1
        self._full_look_at = 0.0

    def on_message(self, message: Message) -> None:
        self.book.on_message(message)

    def _not_sent(self, what: str, error: Exception) -> None:
        self._log.event("policy_sync_left_out", level="warning", what=what, error=f"{type(error).__name__}: {error}")

    async def run(self) -> None:
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_S)
        finally:
            await asyncio.gather(*(one.close() for one in self._sockets.values()), return_exceptions=True)
            self._sockets.clear()

    async def look(self) -> None:
        """Open and close sockets as the credentials say now."""
        creds = self.prefix / "creds"
        try:
            at = creds.stat().st_mtime_ns
            now = time.monotonic()
            if at == self._directory_at and now < self._full_look_at:
                return
            found = self._listed(creds)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):  # the driver makes it
                self._tell("", f"{creds}: {error.strerror}")
            return
        self._tell("", "")
        self._directory_at, self._full_look_at = at, now + FULL_LOOK_S
        for id in set(self._sockets) - set(found):
            await self._close(id)
        for id in set(self._known) - set(found):
            del self._known[id]
            self._said.pop(id, None)
        for id, signature in found.items():
            if self._known.get(id) != signature:
                await self._close(id)
                if await self._open(id):
                    self._known[id] = signature

    def _listed(self, creds: Path) -> dict[str, tuple[int, int]]:
        found = {}
        with os.scandir(creds) as entries:
            for entry in entries:
                id, dot, ending = entry.name.rpartition(".")
                if dot and ending == "json" and id and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        found[id] = status.st_ino, status.st_mtime_ns
        return found

    async def _open(self, id: str) -> bool:
        """What fails is told once and tried again with the next full look."""
        try:
            workload = read_credentials(self.prefix / "creds" / f"{id}.json")
            opened = WorkloadSocket(workload, self.prefix / "mount" / id, self.book, self._report, self._log)
            await opened.open()
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: gRPC cannot listen
            self._tell(id, f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error))
            return False
        self._tell(id, "")
        self._sockets[id] = opened
        self._log.event("policy_sync_open", workload=workload.workload, volume=id)
        return True

    async def _close(self, id: str) -> None:
        socket = self._sockets.pop(id, None)
        if socket is not None:
            await socket.close()
            self._log.event("policy_sync_closed", workload=socket.workload.workload, volume=id)

    def _tell(self, id: str, error: str) -> None:
        if error and self._said.get(id) != error:
            self._log.event("policy_sync_failed", volume=id or None, error=error)
        self._said[id] = error


def read_credentials(path: Path) -> WorkloadId:
    """Whose volume it is. Raises OSError and ValueError."""
    with path.open("rb") as file:
        raw = file.read(MAX_CREDENTIALS_OCTETS + 1)
    if len(raw) > MAX_CREDENTIALS_OCTETS:
        raise ValueError(f"{path}: is too large")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: is not a JSON object")
    fields = {name.lower(): text for name, text in value.items()}  # written by Go, which does not care for case
    namespace, pod = fields.get("namespace"), fields.get("workload")
    if not (isinstance(namespace, str) and namespace and isinstance(pod, str) and pod):
        raise ValueError(f"{path}: names no Namespace and Workload")
    return WorkloadId("k8s", f"{namespace}/{pod}", "eth0")


class WorkloadSocket:
    """The service on one workload's socket."""

    def __init__(
        self, workload: WorkloadId, directory: Path, book: PolicyBook, report: Report | None, log: EventSink
    ) -> None:
        self.workload, self.directory = workload, directory
        self._book, self._report, self._log = book, report, log
        self._server: Any = None
        self._descriptor = -1
        self._joined_at = float("-inf")

    async def open(self) -> None:
        """Raises OSError, and RuntimeError if gRPC cannot listen."""
        # By descriptor: no link on the way is followed later on, and the path is short enough for any ID.
        self._descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                os.unlink(SOCKET, dir_fd=self._descriptor)
            self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
            handlers = {
                "Sync": grpc.unary_stream_rpc_method_handler(self._sync),
                "Report": grpc.unary_unary_rpc_method_handler(self._take_report),
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
            self._server.add_insecure_port(f"unix:/proc/self/fd/{self._descriptor}/{SOCKET}")
            await self._server.start()
            open_to_all(SOCKET, self._descriptor)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        server, self._server = self._server, None
        descriptor, self._descriptor = self._descriptor, -1
        if server is not None:
            await server.stop(grace=None)
        if descriptor >= 0:
            with suppress(OSError):
                os.unlink(SOCKET, dir_fd=descriptor)
            os.close(descriptor)

    async def _sync(self, request: bytes, context: Any) -> None:
        loop = asyncio.get_running_loop()
        # Each join costs a snapshot; a client that joins again and again gets no more of them than one that is well.
        self._joined_at = begin_at = max(loop.time(), self._joined_at + LEAST_BETWEEN_JOINS_S)
        await asyncio.sleep(begin_at - loop.time())
        backlog = Backlog()
        self._book.connect(self.workload, backlog)
        backlog.begin_limit()
        try:
            while (octets := await backlog.next()) is not None:
                await context.write(octets)
        finally:
            self._book.disconnect(self.workload, backlog)
        if backlog.has_overflowed:
            self._log.event("policy_sync_lagging", workload=self.workload.workload)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too slow: start anew")

    async def _take_report(self, request: bytes, context: Any) -> bytes:
        try:
            stats = MESSAGES["DataplaneStats"].FromString(request)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a DataplaneStats")
        if self._report is not None:
            self._report(self.workload, stats)
        octets: bytes = MESSAGES["ReportResult"](successful=self._report is not None).SerializeToString()
        return octets


def open_to_all(name: str, directory: int) -> None:
    """Mode 0777 for a socket, and for nothing that somebody has put in its place. Raises OSError."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(0, "is no longer the socket that was made there", name)
        os.chmod(f"/proc/self/fd/{descriptor}", 0o777)
    finally:
        os.close(descriptor)
