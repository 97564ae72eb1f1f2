"""The node agent's side of the plugins: a Unix socket on which a warm process does their work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from integration.cni.errors import CNIError
from integration.cni.serving import Performer, RawCall, answer_call, parse_call

DEFAULT_SOCKET = Path("/run/catbird/cni.sock")
MAX_REQUEST_OCTETS = 4 << 20
REQUEST_TIMEOUT_S = 10.0  # until the request has come whole
WORK_TIMEOUT_S = 100.0  # runtimes give up after some minutes; the plugin itself after 120 s
_BACKLOG = 1024
_CREDENTIALS = struct.Struct("=3i")  # pid, uid, gid


class Agent:
    """`async with Agent(worker, path, told): …` listens until the block ends, and then finishes what it has begun."""

    def __init__(self, performer: Performer, path: Path, told: Callable[..., None]) -> None:
        self._performer = performer
        self._path = path
        self._told = told
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Agent:
        """Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        beside.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listening.bind(str(beside))
        finally:
            os.umask(mask)
        listening.listen(_BACKLOG)
        beside.replace(self._path)  # in place of a dead agent's: there is no moment without a socket
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept(listening), name="cni accept")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._socket is not None:
            self._socket.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=WORK_TIMEOUT_S)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # out of descriptors
                self._told("cni_accept_failed", level="error", error=str(error))
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        namespace: int | None = None
        with connection:
            connection.setblocking(False)
            try:
                if not _is_trusted(connection):
                    return
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    data, namespace = await _receive(connection)
                code, text = await self._work(data, namespace)
                await loop.sock_sendall(connection, f"{code}\n{text}".encode())
            except (TimeoutError, OSError) as error:
                self._told("cni_connection_failed", level="warning", error=str(error) or "no request came")
            finally:
                if namespace is not None:
                    os.close(namespace)

    async def _work(self, data: bytes, namespace: int | None) -> tuple[int, str]:
        began_at = time.monotonic()
        try:
            call = parse_call(data)
        except CNIError as error:
            call = RawCall("", {}, "")
            code, text = 1, f'{{"cniVersion": "1.0.0", "code": {error.code}, "msg": "{error.text}"}}\n'
        else:
            try:
                async with asyncio.timeout(WORK_TIMEOUT_S):
                    code, text = await answer_call(call, self._performer, namespace)
            except TimeoutError:
                code, text = 1, '{"cniVersion": "1.0.0", "code": 11, "msg": "not done within 100 s"}\n'
        environment = call.environment
        self._told(
            "cni_call", level="info" if code == 0 else "warning", command=environment.get("CNI_COMMAND"),
            container=environment.get("CNI_CONTAINERID"), arguments=environment.get("CNI_ARGS"),
            took_ms=round(1000 * (time.monotonic() - began_at), 1), error=None if code == 0 else text.strip(),
        )  # fmt: skip
        return code, text


def _is_trusted(connection: socket.socket) -> bool:
    """The socket's mode says so already; a namespace that shares it might not."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return uid in (0, os.geteuid())


async def _receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Everything until the other side has ended, and the namespace that comes with the first octets."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection.fileno())
    first, descriptors, _, _ = socket.recv_fds(connection, 65536, 1, socket.MSG_CMSG_CLOEXEC)
    namespace = descriptors[0] if descriptors else None
    try:
        parts = [first]
        octets = len(first)
        while chunk := await loop.sock_recv(connection, 65536):
            parts.append(chunk)
            octets += len(chunk)
            if octets > MAX_REQUEST_OCTETS:
                raise OSError("the request is larger than 4 MiB")
        return b"".join(parts), namespace
    except BaseException:
        if namespace is not None:
            os.close(namespace)
        raise
