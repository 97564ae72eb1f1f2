"""The HTTP server against clients that mean no good, and against slow ones."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from integration.node.http_server import HttpServer, in_slices
from integration.node.sockets import claim_unix_socket
from tests.integration.node.stand_in import StandIn, api_over

Talk = Callable[[str], Awaitable[None]]


def run_with_server(path: Path, speaker: StandIn, talk: Talk, **limits: float) -> list[str]:
    """Serve on `path` while `talk(path)` runs; return what the server reported as its own faults."""
    faults: list[str] = []

    async def run() -> None:
        server = HttpServer(api_over(speaker), failed=faults.append, **limits)  # type: ignore[arg-type]
        await server.serve(claim_unix_socket(str(path)))
        try:
            async with asyncio.timeout(30):
                await talk(str(path))
        finally:
            await server.close()

    asyncio.run(run())
    return faults


async def exchange(path: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


HOSTILE = [
    (b"\x00\xff\x13 garbage\r\n\r\n", 400, "no HTTP at all"),
    (b"GET /v1/peers\r\n\r\n", 400, "no version"),
    (b"GET /v1/peers HTTP/9.9\r\n\r\n", 505, "a version from the future"),
    (b"GET /v1/peers HTTP/1.1\r\nno colon\r\n\r\n", 400, "a header without a colon"),
    (b"GET /v1/peers HTTP/1.1\r\nName : x\r\n\r\n", 400, "a space before the colon (request smuggling)"),
    (b"GET /v1/peers HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431, "a huge header"),
    (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431, "a huge target"),
    (b"GET /v1/nothing HTTP/1.1\r\n\r\n", 404, "an unknown path"),
    (b"GET //////v1///nothing HTTP/1.1\r\n\r\n", 404, "empty segments"),
    (b"GET http://[::1/ HTTP/1.1\r\n\r\n", 400, "a target that is no URL"),
    (b"GET /v1/peers/%ff%00 HTTP/1.1\r\n\r\n", 404, "a peer name that is no text"),
    (b"DELETE /v1/peers HTTP/1.1\r\n\r\n", 405, "a method that is not for this"),
    (b"GET /v1/peers/tor1/reset HTTP/1.1\r\n\r\n", 405, "reading what must be told"),
    (b"POST /v1/peers/tor1/explode HTTP/1.1\r\n\r\n", 404, "an unknown action"),
    (b"POST /v1/peers/tor1/reset HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "a negative length"),
    (b"POST /v1/peers/tor1/reset HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413, "a huge body"),
    (b"POST /v1/peers/tor1/reset HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400, "a huge length"),
    (b"POST /v1/peers/tor1/reset HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411, "chunks"),
    (b"POST /v1/peers/tor1/shutdown HTTP/1.1\r\nContent-Length: 1\r\n\r\n{", 400, "half of a JSON object"),
    (b"POST /v1/peers/tor1/shutdown HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1]", 400, "a list where an object must be"),
    (
        b"POST /v1/peers/tor1/shutdown HTTP/1.1\r\nContent-Length: 12\r\n\r\n" + b'{"reason":1}',
        400,
        "a number as reason",
    ),
    (b"POST /v1/peers/tor1/shutdown HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"[" * 40_000, 400, "deep nesting"),
    (b"POST /v1/peers/tor9/reset HTTP/1.1\r\n\r\n", 404, "an unknown peer"),
    (b"POST /v1/reload HTTP/1.1\r\n\r\n", 400, "a file that is refused"),
    (b"GET /v1/routes?which=worst HTTP/1.1\r\n\r\n", 400, "an unknown choice"),
    (b"GET /v1/routes?which=sent HTTP/1.1\r\n\r\n", 400, "sent, but to whom"),
    (b"GET /v1/routes?prefix=10.0.0.1/8 HTTP/1.1\r\n\r\n", 400, "host bits"),
    (b"GET /v1/routes?prefix=fish HTTP/1.1\r\n\r\n", 400, "no prefix"),
    (b"GET /v1/routes?family=ipx HTTP/1.1\r\n\r\n", 400, "an unknown family"),
    (b"GET /v1/routes?pfx=1 HTTP/1.1\r\n\r\n", 400, "an unknown parameter"),
    (b"GET /v1/routes?" + b"a=1&" * 100 + b" HTTP/1.1\r\n\r\n", 400, "a hundred parameters"),
    (b"GET /v1/routes?peer=tor9 HTTP/1.1\r\n\r\n", 404, "routes of an unknown peer"),
]


@pytest.mark.parametrize(("data", "status", "why"), HOSTILE, ids=[why for _, _, why in HOSTILE])
def test_a_bad_request_gets_its_status_and_an_error_in_json(tmp_path: Path, data: bytes, status: int, why: str) -> None:
    speaker = StandIn()

    async def talk(path: str) -> None:
        answer = await exchange(path, data)
        assert status_of(answer) == status, why
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert status_of(await exchange(path, b"GET /v1/peers HTTP/1.1\r\n\r\n")) == 200

    assert run_with_server(tmp_path / "sock", speaker, talk) == []
    assert speaker.told == []


def test_an_unknown_path_says_which_exist(tmp_path: Path) -> None:
    async def talk(path: str) -> None:
        assert b"/v1/routes" in await exchange(path, b"GET /v1/router HTTP/1.1\r\n\r\n")

    run_with_server(tmp_path / "sock", StandIn(), talk)


def test_an_unknown_peer_says_which_exist(tmp_path: Path) -> None:
    async def talk(path: str) -> None:
        assert b"known: tor1, tor2" in await exchange(path, b"GET /v1/peers/tor3 HTTP/1.1\r\n\r\n")

    run_with_server(tmp_path / "sock", StandIn("tor1", "tor2"), talk)


def test_a_client_that_sends_nothing_is_let_go_and_others_are_served_meanwhile(tmp_path: Path) -> None:
    async def talk(path: str) -> None:
        slow = asyncio.create_task(exchange(path, b"GET /v1/pee"))
        await asyncio.sleep(0)
        assert status_of(await exchange(path, b"GET /v1/peers HTTP/1.1\r\n\r\n")) == 200
        assert status_of(await slow) == 408

    run_with_server(tmp_path / "sock", StandIn(), talk, request_timeout_s=0.2)


def test_more_connections_than_allowed_are_told_so_and_room_comes_back(tmp_path: Path) -> None:
    async def talk(path: str) -> None:
        idle = [await asyncio.open_unix_connection(path) for _ in range(8)]
        assert status_of(await exchange(path, b"GET /v1/peers HTTP/1.1\r\n\r\n")) == 503
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        for _ in range(1000):
            if status_of(await exchange(path, b"GET /v1/peers HTTP/1.1\r\n\r\n")) == 200:
                return
        pytest.fail("no room came back")

    run_with_server(tmp_path / "sock", StandIn(), talk, max_connections=8)


def test_a_fault_of_ours_is_a_500_and_reported(tmp_path: Path) -> None:
    class Broken(StandIn):
        def peers_view(self, now: float) -> list[dict[str, object]]:
            raise ZeroDivisionError("seven by nothing")

    async def talk(path: str) -> None:
        assert status_of(await exchange(path, b"GET /v1/peers HTTP/1.1\r\n\r\n")) == 500

    assert run_with_server(tmp_path / "sock", Broken(), talk) == ["ZeroDivisionError: seven by nothing"]


def test_routes_are_streamed_in_slices_while_the_loop_goes_on(tmp_path: Path) -> None:
    speaker = StandIn(routes=20_000)
    worst = 0.0

    async def talk(path: str) -> None:
        nonlocal worst
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(exchange(path, b"GET /v1/routes HTTP/1.0\r\n\r\n"))
        while not reading.done():
            before = loop.time()
            await asyncio.sleep(0.001)
            worst = max(worst, loop.time() - before)
        lines = (await reading).partition(b"\r\n\r\n")[2].splitlines()
        assert len(lines) == 20_000
        assert json.loads(lines[-1])["prefix"] == "10.0.78.31/32"

    run_with_server(tmp_path / "sock", speaker, talk)
    assert worst < 0.25


def test_a_reader_that_stalls_holds_only_a_little_of_the_table(tmp_path: Path) -> None:
    speaker = StandIn(routes=200_000)

    async def talk(path: str) -> None:
        stalled = socket.socket(socket.AF_UNIX)
        stalled.connect(path)
        stalled.sendall(b"GET /v1/routes HTTP/1.1\r\n\r\n")
        before = -1
        while speaker.made != before or not speaker.made:
            before = speaker.made
            await asyncio.sleep(0.1)
        assert speaker.made < 20_000
        stalled.close()

    run_with_server(tmp_path / "sock", speaker, talk)


def test_a_failure_in_the_middle_of_a_stream_is_its_last_line(tmp_path: Path) -> None:
    class Breaking(StandIn):
        def routes_view(self, **choice: object) -> object:  # type: ignore[override]
            yield {"prefix": "10.0.0.0/8"}
            raise RuntimeError("dictionary changed size during iteration")

    async def talk(path: str) -> None:
        lines = (await exchange(path, b"GET /v1/routes HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")[2].splitlines()
        assert "dictionary changed size" in json.loads(lines[-1])["error"]

    assert len(run_with_server(tmp_path / "sock", Breaking(), talk)) == 1


def test_slices_keep_every_row_and_skip_the_breaths() -> None:
    rows = [{"prefix": str(index)} if index % 2 else None for index in range(1000)]
    lines = b"".join(in_slices(iter(rows))).splitlines()
    assert [json.loads(line) for line in lines] == [row for row in rows if row]


def test_an_address_asks_for_the_longest_match_and_a_prefix_for_itself(tmp_path: Path) -> None:
    speaker = StandIn(routes=1)

    async def talk(path: str) -> None:
        await exchange(path, b"GET /v1/routes?prefix=10.1.2.3 HTTP/1.1\r\n\r\n")
        assert (speaker.asked["prefix"], speaker.asked["longest"]) == ("10.1.2.3/32", True)
        answer = await exchange(path, b"GET /v1/routes?prefix=2001:DB8::/32&family=ipv6 HTTP/1.0\r\n\r\n")
        assert (speaker.asked["prefix"], speaker.asked["longest"]) == ("2001:db8::/32", False)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["fib"] == {"state": "programmed"}

    run_with_server(tmp_path / "sock", speaker, talk)


def test_commands_reach_the_speaker(tmp_path: Path) -> None:
    speaker = StandIn()

    async def talk(path: str) -> None:
        for action, body in (
            ("reset", b""),
            ("refresh", b'{"direction": "in"}'),
            ("shutdown", b'{"reason": "rack 7"}'),
            ("enable", b"{}"),
        ):
            head = f"POST /v1/peers/tor1/{action} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            assert status_of(await exchange(path, head.encode() + body)) == 200

    run_with_server(tmp_path / "sock", speaker, talk)
    assert speaker.told == [
        ("tor1", "reset"),
        ("tor1", "refresh", "in"),
        ("tor1", "shutdown", "rack 7"),
        ("tor1", "enable"),
    ]
