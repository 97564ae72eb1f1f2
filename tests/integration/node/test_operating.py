"""What an operator does to a live session, and what both sides show then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.node.speakers import ROOT, RunningSpeaker, free_port, peer, speaker, toml, until


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RunningSpeaker, RunningSpeaker]]:
    """Two speakers with a session between them: a (AS 64512) and b (AS 65000), each with a prefix."""
    port = free_port()
    a = toml("a", tmp_path, asn=64512, listen="127.0.0.31", port=port)
    a += '[[originate]]\nprefix = "10.1.0.0/26"\n' + peer("b", "127.0.0.32", 65000, port, 'source = "127.0.0.31"')
    b = toml("b", tmp_path, asn=65000, listen="127.0.0.32", port=port)
    b += '[[originate]]\nprefix = "10.2.0.0/26"\n' + peer("a", "127.0.0.31", 64512, port, 'source = "127.0.0.32"')
    b += '[[peer]]\nname = "broken"\naddress = "127.0.0.33"\npassive = true\nasn = 65100\n'
    with speaker("a", tmp_path, a) as one, speaker("b", tmp_path, b) as two:
        one.wait_started()
        two.wait_started()
        until(lambda: one.routes() == two.routes() == {"10.1.0.0/26", "10.2.0.0/26"}, "routes are exchanged")
        yield one, two


def catbird(running: RunningSpeaker, *arguments: str) -> str:
    path = str(running.directory / f"{running.name}.sock")
    done = subprocess.run(
        [sys.executable, "-m", "integration.catbird", *arguments],
        capture_output=True, text=True, timeout=30, cwd=ROOT, check=False, env=os.environ | {"CATBIRD_SOCKET": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(running: RunningSpeaker) -> str:
    return str(running.get("peers")[0]["state"])


def test_a_shutdown_tells_the_other_side_why_and_enable_brings_the_session_back(
    pair: tuple[RunningSpeaker, RunningSpeaker],
) -> None:
    one, two = pair
    catbird(one, "peer", "b", "shutdown", "moving to rack 7")
    until(lambda: "moving to rack 7" in (two.get("peers")[0]["last_error"] or ""), "b has the text")
    until(lambda: two.routes() == {"10.2.0.0/26"}, "the routes are gone")
    assert "moving to rack 7" in catbird(two, "show", "peers")
    shown = catbird(one, "show", "peers")
    assert "Shutdown" in shown
    assert "shut down here: moving to rack 7" in shown
    catbird(one, "peer", "b", "enable")
    until(lambda: state(one) == state(two) == "Established", "the session is back")
    assert "Established" in catbird(one, "show", "peers")


def test_a_reset_ends_the_session_and_it_comes_back_by_itself(pair: tuple[RunningSpeaker, RunningSpeaker]) -> None:
    one, two = pair
    catbird(one, "peer", "b", "reset")
    until(lambda: two.get("peers")[0]["flaps"] == 1, "b saw it end")
    until(lambda: state(one) == state(two) == "Established", "the session is back")


def test_a_refresh_asks_once_more_without_a_reset(pair: tuple[RunningSpeaker, RunningSpeaker]) -> None:
    one, two = pair
    before = two.get("peers")[0]["messages"]["received"]["refresh"]
    catbird(one, "peer", "b", "refresh", "--in")
    until(lambda: two.get("peers")[0]["messages"]["received"]["refresh"] > before, "b was asked")
    assert one.get("peers")[0]["flaps"] == 0


def test_the_bytes_of_a_malformed_message_are_shown(pair: tuple[RunningSpeaker, RunningSpeaker]) -> None:
    _, two = pair
    port = two.get("config")["running"]["speaker"]["port"]
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.33", 0))
        stranger.connect(("127.0.0.32", port))
        stranger.sendall(b"\xff" * 16 + b"\x00\x13\x09")
        until(lambda: stranger.recv(4096), "an answer")
    until(lambda: two.get("peers", "broken")["malformed"], "it is counted")
    assert "0010  0013 09" in catbird(two, "show", "peer", "broken", "--malformed")
    assert "--malformed" in catbird(two, "show", "peer", "broken")


def test_why_and_single_routes_are_shown(pair: tuple[RunningSpeaker, RunningSpeaker]) -> None:
    one, _ = pair
    assert "1. > b (ebgp)" in catbird(one, "show", "routes", "10.2.0.1", "--why")
    assert "10.1.0.0/26" in catbird(one, "show", "routes", "--peer", "b", "--sent")
    assert "10.2.0.0/26" in catbird(one, "show", "routes", "--peer", "b", "--received")


def test_a_removed_control_socket_comes_back_with_a_reload(pair: tuple[RunningSpeaker, RunningSpeaker]) -> None:
    one, _ = pair
    (one.directory / "a.sock").unlink()
    one.process.send_signal(1)
    until(lambda: one.get("status"), "the socket is back")
    assert state(one) == "Established"
