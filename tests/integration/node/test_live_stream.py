"""Rows that come in their own time, over the HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from integration.node.http_server import HttpServer, LiveStream, Request
from integration.node.sockets import claim_unix_socket

ASK = b"POST /v1/rows HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


class Rows:
    """The application: `rows.queue` is what it says; None is its end, an exception its fault."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, int] | Exception | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def __call__(self, _: Request) -> LiveStream:
        return LiveStream(self._rows(), self.closed.set)

    async def _rows(self) -> AsyncIterator[dict[str, int]]:
        while (row := await self.queue.get()) is not None:
            if isinstance(row, Exception):
                raise row
            yield row


def served(folder: Path, talk: Callable[[Rows, str, HttpServer], Awaitable[None]]) -> list[str]:
    """The faults that the server told of."""
    faults: list[str] = []

    async def run() -> None:
        rows, path = Rows(), str(folder / "socket")
        server = HttpServer(rows, failed=faults.append)
        await server.serve(claim_unix_socket(path))
        try:
            async with asyncio.timeout(10):
                await talk(rows, path, server)
                await rows.closed.wait()
        finally:
            await server.close()

    asyncio.run(run())
    return faults


async def asked(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(ASK)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"x-ndjson" in head
    return reader, writer


async def row(reader: asyncio.StreamReader) -> dict[str, object]:
    size = int(await reader.readline(), 16)
    found: dict[str, object] = json.loads((await reader.readexactly(size + 2))[:-2])
    return found


def test_a_row_is_sent_when_it_comes_and_not_with_the_next(tmp_path: Path) -> None:
    async def talk(rows: Rows, path: str, _server: HttpServer) -> None:
        reader, writer = await asked(path)
        for number in range(3):
            rows.queue.put_nowait({"row": number})
            assert await row(reader) == {"row": number}
        rows.queue.put_nowait(None)
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()

    assert served(tmp_path, talk) == []


def test_a_client_that_goes_away_ends_the_stream_though_no_row_comes(tmp_path: Path) -> None:
    async def talk(rows: Rows, path: str, _server: HttpServer) -> None:
        _, writer = await asked(path)
        assert not rows.closed.is_set()
        writer.close()
        await rows.closed.wait()

    assert served(tmp_path, talk) == []


def test_the_end_of_the_server_ends_the_stream(tmp_path: Path) -> None:
    async def talk(rows: Rows, path: str, server: HttpServer) -> None:
        _, writer = await asked(path)
        await server.close()
        assert rows.closed.is_set()
        writer.close()

    assert served(tmp_path, talk) == []


def test_a_fault_is_the_last_line_and_ends_the_stream(tmp_path: Path) -> None:
    async def talk(rows: Rows, path: str, _server: HttpServer) -> None:
        reader, writer = await asked(path)
        rows.queue.put_nowait(ValueError("no such thing"))
        assert await row(reader) == {"error": "internal error: ValueError: no such thing"}
        writer.close()

    assert served(tmp_path, talk) == ["ValueError: no such thing"]
