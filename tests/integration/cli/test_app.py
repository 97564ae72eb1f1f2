"""`catbird show` and `catbird peer` as processes, against a control socket with a stand-in behind it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from integration.cli.app import with_watch_seconds
from integration.node.http_server import HttpServer
from integration.node.sockets import claim_unix_socket
from tests.integration.node.stand_in import StandIn, api_over

ROOT = Path(__file__).parents[3]


def catbird(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "integration.catbird", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, StandIn]]:
    """A stand-in behind a socket, in a thread of its own."""
    speaker = StandIn("tor1", "node-2", routes=3)
    path = str(tmp_path / "speaker.sock")
    loop = asyncio.new_event_loop()
    server = HttpServer(api_over(speaker), failed=lambda text: None)
    loop.run_until_complete(server.serve(claim_unix_socket(path)))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield path, speaker
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_peers_in_a_pipe_are_plain_text(served: tuple[str, StandIn]) -> None:
    done = catbird("show", "peers", "--socket", served[0])
    assert done.returncode == 0
    assert [line.split()[:4] for line in done.stdout.splitlines()[1:]] == [
        ["tor1", "192.0.2.1", "65000", "Established"],
        ["node-2", "192.0.2.1", "65000", "Established"],
    ]
    assert "\x1b" not in done.stdout


def test_json_and_yaml_say_the_same(served: tuple[str, StandIn]) -> None:
    path = served[0]
    for what in (["peers"], ["peer", "tor1"], ["routes"], ["status"], ["config"]):
        as_json = catbird("show", *what, "-o", "json", CATBIRD_SOCKET=path)
        as_yaml = catbird("show", *what, "-o", "yaml", CATBIRD_SOCKET=path)
        assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout), what
    assert len(json.loads(catbird("show", "routes", "-o", "json", "--socket", path).stdout)) == 3


def test_choices_of_routes_reach_the_speaker(served: tuple[str, StandIn]) -> None:
    path, speaker = served
    catbird("show", "routes", "10.1.2.3", "--peer", "tor1", "--received", "--family", "ipv4", "--socket", path)
    family = speaker.asked.pop("family")
    assert family is not None
    assert family.name == "ipv4"
    assert speaker.asked == {"prefix": "10.1.2.3/32", "peer": "tor1", "which": "received", "longest": True}


def test_commands_say_what_was_done(served: tuple[str, StandIn]) -> None:
    path, speaker = served
    assert catbird("peer", "tor1", "shutdown", "moving to rack 7", "--socket", path).stdout.startswith(
        "tor1: shut down"
    )
    assert catbird("peer", "tor1", "refresh", "--in", "--socket", path).returncode == 0
    assert speaker.told == [("tor1", "shutdown", "moving to rack 7"), ("tor1", "refresh", "in")]


def test_an_unknown_peer_is_an_error_that_names_the_known_ones(served: tuple[str, StandIn]) -> None:
    done = catbird("peer", "tor7", "reset", "--socket", served[0])
    assert done.returncode == 1
    assert done.stderr == "catbird: no peer is called 'tor7' (known: tor1, node-2)\n"


def test_a_route_that_is_not_there_is_an_error(served: tuple[str, StandIn]) -> None:
    served[1].route_count = 0
    done = catbird("show", "routes", "10.9.0.0/16", "-o", "json", "--socket", served[0])
    assert (done.returncode, done.stdout, done.stderr) == (1, "[]\n", "catbird: no route to 10.9.0.0/16\n")


def test_an_empty_table_is_no_error(served: tuple[str, StandIn]) -> None:
    served[1].route_count = 0
    assert catbird("show", "routes", "--socket", served[0]).returncode == 0


def test_host_bits_are_refused_with_a_suggestion(served: tuple[str, StandIn]) -> None:
    done = catbird("show", "routes", "10.1.0.1/26", "--socket", served[0])
    assert done.returncode == 1
    assert "did you mean 10.1.0.0/26?" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "routes", "--sent"),
        ("show", "routes", "--peer", "a", "--sent", "--received"),
        ("show", "peers", "-o", "xml"),
        ("peer", "tor1", "explode"),
        ("peer", "tor1", "reset", "because"),
        ("peer", "tor1", "reset", "--in"),
        ("fly",),
    ],
)
def test_wrong_usage_exits_2(arguments: tuple[str, ...]) -> None:
    assert catbird(*arguments).returncode == 2


def test_a_missing_socket_says_what_to_do(tmp_path: Path) -> None:
    done = catbird("show", "peers", "--socket", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "is one running" in done.stderr


def test_a_socket_that_nobody_serves_says_so(tmp_path: Path) -> None:
    claim_unix_socket(str(tmp_path / "stale")).close()
    done = catbird("show", "peers", "--socket", str(tmp_path / "stale"))
    assert done.returncode == 1
    assert "it has ended" in done.stderr


def test_a_reader_that_leaves_early_causes_no_traceback(served: tuple[str, StandIn]) -> None:
    served[1].route_count = 5000
    command = f"'{sys.executable}' -m integration.catbird show routes --socket '{served[0]}' | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.stdout.startswith("> best")
    assert done.stderr == ""


def test_help_teaches_by_example() -> None:
    text = catbird("--help").stdout
    for words in ("catbird speaker -c", "catbird show peers", "--why", "shutdown"):
        assert words in text


def test_watch_alone_means_two_seconds() -> None:
    assert list(with_watch_seconds(["show", "peers", "--watch"])) == ["show", "peers", "--watch=2"]
    assert list(with_watch_seconds(["show", "routes", "--watch", "10.0.0.0/8"]))[2] == "--watch=2"
    assert list(with_watch_seconds(["show", "peers", "--watch", "0.5"])) == ["show", "peers", "--watch", "0.5"]


def test_commands_import_only_what_they_need() -> None:
    """pydantic comes with typer's own parsing of options, whatever we do; the resource models need not."""
    heavy = "{'integration.resources.base', 'grpc', 'kubernetes', 'aiohttp', 'sqlite3', 'bgp', 'exabgp'}"
    script = (
        "import sys\nfrom integration.catbird import main\nmain(sys.argv[1:])\n"
        f"print('imported', *sorted({heavy} & set(sys.modules)))"
    )
    for arguments, imported in (
        (["show", "peers", "--socket", "/nowhere"], ""),
        (["apply", "--help"], ""),
        (["get", "nodes", "--datastore", "etcd:nonsense"], "integration.resources.base"),
        (["get", "nodes", "--datastore", f"local:{os.devnull}/x"], "integration.resources.base sqlite3"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1].partition("imported ")[2].strip() == imported, (arguments, done.stderr)
