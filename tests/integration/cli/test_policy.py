"""`catbird policy`: asked of a Felix behind a socket, and computed from a store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from felix.explain.flow import ExplainSettings
from felix.explain.stats import Counted, RuleOf
from felix.health import Health
from integration.catbird import main
from integration.node.felix.control import Asked, FelixApi, no_trace
from integration.node.http_server import HttpServer
from integration.node.sockets import claim_unix_socket
from integration.resources.yaml_text import dump_all
from tests.felix.explain.test_questions import STATE
from tests.felix.explain.worlds import HOST, policy_id
from tests.felix.truth.tables import scenarios
from tests.integration.cli.commands import Commands, Done

Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, with no datastore unless it says one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = main(list(arguments))
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def felix(tmp_path: Path) -> Iterator[str]:
    """Felix' control socket, served by the part that answers about policies."""

    async def counts() -> Counted:
        return [(RuleOf(policy_id("web"), "", "in", 0), 3, 180)]

    asked = Asked(STATE, Health(time.monotonic), ExplainSettings, lambda: HOST, dict, counts, no_trace)
    path = str(tmp_path / "felix.sock")
    loop = asyncio.new_event_loop()
    server = HttpServer(FelixApi(asked), failed=lambda _text: None)
    loop.run_until_complete(server.serve(claim_unix_socket(path)))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield path
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_a_denied_flow_is_explained(run: Run, felix: str) -> None:
    done = run("policy", "explain", "--from", "default/a", "--to", "default/b", "--port", "81", "--socket", felix)
    assert done.code == 0
    assert done.lines[0] == "DENY  tcp 10.0.0.1 -> 10.0.0.2 port 81  (forwarded)"
    assert "       => 0: allow" not in done.out
    assert "end of tier: denied" in done.lines[-1]


def test_expecting_another_verdict_is_an_exit_code(run: Run, felix: str) -> None:
    asked = ("policy", "explain", "--from", "default/a", "--to", "10.0.0.2", "--port", "81", "--socket", felix)
    assert run(*asked, "--expect", "deny").code == 0
    assert run(*asked, "--expect", "allow").code == 1


def test_json_is_the_whole_answer(run: Run, felix: str) -> None:
    done = run("policy", "explain", "--from", "host", "--to", "default/b", "-o", "json", "--socket", felix)
    assert done.json["verdict"] == "allow"
    assert done.json["way"] == "from this host"


def test_an_unknown_pod_is_an_error_that_names_the_known_ones(run: Run, felix: str) -> None:
    done = run("policy", "explain", "--from", "default/x", "--to", "10.0.0.2", "--socket", felix)
    assert done.code == 1
    assert done.err.startswith("catbird: no workload default/x on this node (here: default/a, default/b")


def test_stats_by_rule(run: Run, felix: str) -> None:
    done = run("policy", "stats", "--met", "--socket", felix)
    assert [line.split() for line in done.lines][1] == ["3", "180", "GlobalNetworkPolicy", "web", "(tier", "default)"]


def test_without_a_felix_it_is_said_what_to_do(run: Run, tmp_path: Path) -> None:
    done = run("policy", "stats", "--socket", f"{tmp_path}/none.sock")
    assert done.code == 1
    assert "no felix: " in done.err
    assert "catbird felix" in done.err


TRACE = ("policy", "explain", "--from", "default/a", "--to", "default/b", "--port", "81", "--trace")


def test_a_trace_that_felix_refuses_says_why(run: Run, felix: str) -> None:
    done = run(*TRACE, "--socket", felix)
    assert done.code == 1
    assert "a trace needs the nftables renderer" in done.err
    done = run(*TRACE, "--in", "eth0", "--socket", felix)
    assert "a trace takes no inInterface" in done.err
    assert "seconds is a number up to 600" in run(*TRACE, "--for", "11m", "--socket", felix).err
    assert "no workload default/x" in run(*TRACE, "--from", "default/x", "--socket", felix).err


@pytest.mark.parametrize(
    "words",
    [
        (*TRACE, "--for", "soon"),
        (*TRACE, "--for", "0s"),
        (*TRACE, "--for", "-1"),
        (*TRACE, "--node", "node1"),
        (*TRACE[:-1], "--for", "10s"),
    ],
)
def test_a_trace_that_is_not_one_is_a_usage_error(run: Run, felix: str, words: tuple[str, ...]) -> None:
    done = run(*words, "--socket", felix)
    assert done.code == 2


@pytest.fixture
def filled(catbird: Commands) -> Commands:
    """The store holds a scenario in which an earlier tier denies."""
    scenario = next(one for one in scenarios() if one.name.startswith("an earlier tier denies"))
    first = [value for key, value in scenario.resources.items() if key.kind in ("Node", "Tier")]
    catbird.applied(dump_all([*first, *(value for value in scenario.resources.values() if value not in first)]))
    return catbird


def test_from_the_datastore_without_any_felix(filled: Commands, run: Run) -> None:
    asked = (
        "policy",
        "explain",
        "--from",
        "default/a",
        "--to",
        "default/b",
        "--port",
        "80",
        "--datastore",
        filled.store,
    )
    done = run(*asked)
    assert done.lines[:4] == ["DENY by the datastore", "", "== node node1", "DENY  tcp 10.65.0.1 -> 10.65.0.2 port 80  (forwarded)"]  # fmt: skip
    assert "GlobalNetworkPolicy security.block: denies" in done.out
    assert run(*asked, "-o", "json").json["nodes"][0]["stages"][-1]["by"].startswith("GlobalNetworkPolicy")


def test_the_datastore_knows_no_such_pod_or_node(filled: Commands, run: Run) -> None:
    store = ("--datastore", filled.store)
    assert "no workload default/z" in run("policy", "explain", "--from", "default/z", "--to", "default/b", *store).err
    done = run("policy", "explain", "--from", "10.9.9.9", "--to", "10.9.9.8", *store)
    assert "say which node with --node NAME" in done.err
    done = run("policy", "explain", "--from", "10.9.9.9", "--to", "10.9.9.8", "--node", "node7", *store)
    assert "no node is called 'node7' (known: node1)" in done.err
