"""A small HTTP/1.1 server: GET and POST, JSON, streamed lines. Behind the control socket and the metrics port.

Not aiohttp: it costs the daemon 11 to 17 MB of memory, and of its features these two ports would use none
(integration/DESIGN.md has the numbers). One request per connection, everything bounded: request line and headers,
body, time, connections. A stream is produced in slices between which the event loop gets its turn, so that a million
routes neither hold up a keepalive nor are ever in memory at once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import ssl

MAX_HEAD_OCTETS = 8192
MAX_BODY_OCTETS = 65536
REQUEST_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 30.0  # a reader that takes nothing for so long is gone
MAX_CONNECTIONS = 64
SLICE_S = 0.005  # of one turn of the event loop
SLICE_OCTETS = 65536

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: tuple[str, ...]  # decoded segments; "/" is ()
    query: Mapping[str, str]
    body: bytes = b""

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty one. Raises HttpError 400."""
        if not self.body:
            return {}
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"the body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise HttpError(400, "the body is not a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows sent as they are made, one JSON value a line. None is a breath: nothing to send, but work was done."""

    rows: Iterator[Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class LiveStream:
    """Rows that come in their own time, each sent at once, until there are no more or the client has gone; then `close`."""

    rows: AsyncIterator[Mapping[str, Any]]
    close: Callable[[], None]


class HttpError(Exception):
    """The request cannot be answered; `hint` says what would help."""

    def __init__(self, status: int, text: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, text, hint)
        self.status = status
        self.text = text
        self.hint = hint
        self.headers = headers or {}


Answer = Response | Stream | LiveStream
Application = Callable[[Request], Awaitable[Answer]]


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value, default=str).encode() + b"\n")


def error_response(error: HttpError) -> Response:
    value = {"error": error.text} | ({"hint": error.hint} if error.hint else {})
    return Response(error.status, json.dumps(value).encode() + b"\n", headers=error.headers)


class HttpServer:
    """Serves one application on the sockets it is given.

    `failed(text)` is told of exceptions in the application, which answer 500; nothing a client sends raises.
    """

    def __init__(
        self,
        application: Application,
        *,
        failed: Callable[[str], None],
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._application = application
        self._failed = failed
        self._request_timeout_s = request_timeout_s
        self._write_timeout_s = write_timeout_s
        self._max_connections = max_connections
        self._servers: list[asyncio.AbstractServer] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Takes over a bound socket."""
        start = asyncio.start_unix_server if listening.family == socket.AF_UNIX else asyncio.start_server
        within_s = self._request_timeout_s if tls else None
        self._servers.append(
            await start(
                self._accept, sock=listening, limit=MAX_HEAD_OCTETS, backlog=64, ssl=tls, ssl_handshake_timeout=within_s
            )
        )

    def stop_listening(self) -> None:
        """Take no more connections; those that are here are answered."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def close(self) -> None:
        self.stop_listening()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=4 * SLICE_OCTETS)
        try:
            if len(self._tasks) > self._max_connections:
                busy = HttpError(503, "too many connections at once", headers={"Retry-After": "1"})
                await self._send(writer, error_response(busy), chunked=False, with_body=True)
            else:
                await self._answer(reader, writer)
            if len(self._tasks) <= 2 * self._max_connections:
                await self._drain_away(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _drain_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Half-close and let the client finish: closing with unread octets would reset away the answer.

        TLS has no half: a client that waits for the end would wait for us.
        """
        if not writer.can_write_eof():
            return
        writer.write_eof()
        with_deadline = asyncio.timeout(1.0)
        try:
            async with with_deadline:
                while await reader.read(SLICE_OCTETS):
                    pass
        except TimeoutError:
            pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, chunked = "GET", True
        try:
            request, chunked = await self._read_request(reader)
            if request is None:
                return  # connected and left: a port scan, or the test whether a speaker lives
            method = request.method
            answer = await self._application(request)
        except HttpError as error:
            answer = error_response(error)
        except Exception as error:  # a fault of ours must not take the engine with it
            self._failed(f"{type(error).__name__}: {error}")
            answer = error_response(HttpError(500, f"internal error: {type(error).__name__}: {error}"))
        if isinstance(answer, LiveStream):
            await self._send_live(reader, writer, answer, chunked=chunked)
            return
        await self._send(writer, answer, chunked=chunked, with_body=method != "HEAD")

    async def _read_request(self, reader: asyncio.StreamReader) -> tuple[Request | None, bool]:
        """The request and whether its sender understands chunks. Raises HttpError."""
        try:
            async with asyncio.timeout(self._request_timeout_s):
                method, target, chunked, headers = await read_head(reader)
                body = await read_body(reader, method, headers)
        except TimeoutError:
            raise HttpError(408, "the request did not arrive in time") from None
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None, False
            raise HttpError(400, "the request ends early") from None
        return make_request(method, target, body), chunked

    async def _send(
        self, writer: asyncio.StreamWriter, answer: Response | Stream, *, chunked: bool, with_body: bool
    ) -> None:
        if isinstance(answer, Stream):
            await self._send_stream(writer, answer if with_body else Stream(iter(())), chunked=chunked)
            return
        lines = [
            f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Error')}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (answer.body if with_body else b""))
        await self._drain(writer)

    async def _send_stream(self, writer: asyncio.StreamWriter, stream: Stream, *, chunked: bool) -> None:
        writer.write(stream_head(chunked=chunked))
        try:
            for piece in in_slices(stream.rows):
                if piece:
                    writer.write(stream_piece(piece, chunked=chunked))
                    await self._drain(writer)
                await asyncio.sleep(0)
        except (OSError, TimeoutError):
            raise
        except Exception as error:
            writer.write(stream_piece(self._fault_line(error), chunked=chunked))
        if chunked:
            writer.write(b"0\r\n\r\n")
        await self._drain(writer)

    def _fault_line(self, error: Exception) -> bytes:
        """The head is out: the last line says what the status no longer can."""
        self._failed(f"{type(error).__name__}: {error}")
        return json.dumps({"error": f"internal error: {type(error).__name__}: {error}"}).encode() + b"\n"

    async def _send_live(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: LiveStream, *, chunked: bool
    ) -> None:
        try:
            sending = asyncio.ensure_future(self._send_as_they_come(writer, stream, chunked=chunked))
            gone = asyncio.ensure_future(reader.read(1))  # nothing more is to come from a client that waits for rows
            try:
                await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                sending.cancel()
                gone.cancel()
                await asyncio.gather(sending, gone, return_exceptions=True)
        finally:
            stream.close()

    async def _send_as_they_come(self, writer: asyncio.StreamWriter, stream: LiveStream, *, chunked: bool) -> None:
        writer.write(stream_head(chunked=chunked))
        await self._drain(writer)
        try:
            async for row in stream.rows:
                line = json.dumps(row, default=str).encode() + b"\n"
                writer.write(stream_piece(line, chunked=chunked))
                await self._drain(writer)
        except (OSError, TimeoutError):
            raise
        except Exception as error:
            writer.write(stream_piece(self._fault_line(error), chunked=chunked))
        if chunked:
            writer.write(b"0\r\n\r\n")
        await self._drain(writer)

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await writer.drain()


def stream_head(*, chunked: bool) -> bytes:
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n"
    return (head + ("Transfer-Encoding: chunked\r\n\r\n" if chunked else "\r\n")).encode()


def stream_piece(piece: bytes, *, chunked: bool) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece


def in_slices(rows: Iterator[Mapping[str, Any] | None]) -> Iterator[bytes]:
    """JSON lines in pieces of at most about SLICE_OCTETS, each made in about SLICE_S."""
    lines: list[str] = []
    octets = 0
    until = time.monotonic() + SLICE_S
    for row in rows:
        if row is not None:
            line = json.dumps(row, default=str)
            lines.append(line)
            octets += len(line)
        if octets >= SLICE_OCTETS or time.monotonic() >= until:
            yield "".join(f"{line}\n" for line in lines).encode()
            lines, octets = [], 0
            until = time.monotonic() + SLICE_S
    yield "".join(f"{line}\n" for line in lines).encode()


async def read_head(reader: asyncio.StreamReader) -> tuple[str, str, bool, dict[str, str]]:
    """Method, target, whether the client understands chunks, headers with lower-case names. Raises HttpError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise HttpError(431, f"request line and headers exceed {MAX_HEAD_OCTETS} octets") from None
    lines = head[:-4].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise HttpError(400, "not an HTTP request")
    if words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError(400, "a header line has no name")
        headers[name.lower()] = value.strip()
    return words[0], words[1], words[2] == "HTTP/1.1", headers


async def read_body(reader: asyncio.StreamReader, method: str, headers: Mapping[str, str]) -> bytes:
    """Raises HttpError: a length is needed, must be a number and within bounds."""
    if "transfer-encoding" in headers:
        raise HttpError(411, "a body needs Content-Length, not Transfer-Encoding")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 12):
        raise HttpError(400, "Content-Length is not a number")
    if int(length) > MAX_BODY_OCTETS:
        raise HttpError(413, f"the body exceeds {MAX_BODY_OCTETS} octets")
    if method in ("GET", "HEAD") and int(length) == 0:
        return b""
    return await reader.readexactly(int(length))


def make_request(method: str, target: str, body: bytes) -> Request:
    try:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=32))
    except ValueError as error:
        raise HttpError(400, f"the target is not understood: {error}") from None
    return Request(method, tuple(unquote(part) for part in parts.path.split("/") if part), query, body)
