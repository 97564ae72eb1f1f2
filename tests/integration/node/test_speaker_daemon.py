"""`catbird speaker` as a process: starting, reloading, ending, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from integration.cli.client import SpeakerError
from tests.integration.node.speakers import ROOT, RunningSpeaker, free_port, peer, speaker, toml, until

ORIGINATE = '\n[[originate]]\nprefix = "10.{}.0.0/26"\n'


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "integration.catbird", "speaker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)


def config_of(running: RunningSpeaker) -> dict[str, object]:
    view = running.get("config")
    assert isinstance(view, dict)
    return view


def replace_file(path: Path, text: str) -> None:
    """As editors and configuration tools do: a new file, renamed over the old."""
    (path.parent / "new").write_text(text)
    os.replace(path.parent / "new", path)


def test_check_accepts_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(toml("good", tmp_path, port=1790, more=peer("tor1", "192.0.2.1", 65000, 179)))
    done = run("-c", str(path), "--check")
    assert (done.returncode, done.stdout) == (0, f"{path}: ok: AS 64512, 1 peers\n")


def test_check_lists_every_problem_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[speaker]\nasn = 0\nrouter_id = 'x'\ncolour = 'red'\n")
    done = run("-c", str(path), "--check")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) >= 3
    assert f"{path}:2: speaker.asn" in done.stderr


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    done = run("-c", str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_wrong_option_is_usage(tmp_path: Path) -> None:
    assert run("--colour", "red").returncode == 2


def test_two_speakers_exchange_routes_and_see_each_other_go(tmp_path: Path) -> None:
    port = free_port()
    a = toml("a", tmp_path, asn=64512, listen="127.0.0.11", port=port)
    a += ORIGINATE.format(1) + peer("b", "127.0.0.12", 65000, port, 'source = "127.0.0.11"\npassword = "hunter22"')
    b = toml("b", tmp_path, asn=65000, listen="127.0.0.12", port=port)
    b += ORIGINATE.format(2) + peer("a", "127.0.0.11", 64512, port, 'source = "127.0.0.12"\npassword = "hunter22"')
    with speaker("a", tmp_path, a) as one, speaker("b", tmp_path, b) as two:
        for running in (one, two):
            running.wait_started()
        both = {"10.1.0.0/26", "10.2.0.0/26"}
        until(lambda: one.routes() == two.routes() == both, "both have both routes")
        assert one.stop() == 0
        until(lambda: two.routes() == {"10.2.0.0/26"} or two.get("peers")[0]["prefixes"]["ipv4"]["stale"], "b notices")
        lines = [line for line in two.log().splitlines() if "peer=a" in line and "old=Established" in line]
        assert len(lines) == 1
        assert "the speaker stops" in two.get("peers")[0]["last_error"]
        assert "hunter22" not in one.log() + two.log()
        assert two.stop() == 0


def test_a_changed_file_is_applied_without_a_signal(tmp_path: Path) -> None:
    text = toml("a", tmp_path, port=free_port())
    with speaker("a", tmp_path, text) as running:
        running.wait_started()
        replace_file(running.config, text + ORIGINATE.format(7))
        until(lambda: running.routes() == {"10.7.0.0/26"}, "the new prefix is there")


def test_sighup_reloads_at_once_and_a_bad_file_keeps_the_running_configuration(tmp_path: Path) -> None:
    text = toml("a", tmp_path, port=free_port()) + ORIGINATE.format(7)
    with speaker("a", tmp_path, text) as running:
        running.wait_started()
        running.config.write_text(text + "\n[[peer]]\nname = 5\n")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: config_of(running)["refused"], "the file is refused")
        assert running.routes() == {"10.7.0.0/26"}
        assert "config_refused" in running.log()
        shown = subprocess.run(
            [sys.executable, "-m", "integration.catbird", "show", "config", "--socket", str(tmp_path / "a.sock")],
            capture_output=True, text=True, timeout=30, cwd=ROOT, check=True,
        ).stdout  # fmt: skip
        assert "what is there now is refused:" in shown
        running.config.write_text(text + ORIGINATE.format(8))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: not config_of(running)["refused"], "a good file clears it")
        assert running.routes() == {"10.7.0.0/26", "10.8.0.0/26"}


def test_a_reload_moves_control_socket_metrics_and_port(tmp_path: Path) -> None:
    text = toml("a", tmp_path, port=free_port())
    new_port, metrics = free_port(), free_port()
    with speaker("a", tmp_path, text) as running:
        running.wait_started()
        moved = toml("b", tmp_path, port=new_port, more=f'metrics = "127.0.0.1:{metrics}"')
        replace_file(running.config, moved)
        new = RunningSpeaker("b", tmp_path, running.process)
        until(lambda: new.get("status"), "the new socket is served")
        until(lambda: not (tmp_path / "a.sock").exists(), "the old one is gone")
        with socket.create_connection(("127.0.0.1", new_port), 2):
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/healthz", timeout=5) as answer:
            assert answer.status == 200


def test_a_reload_onto_a_port_in_use_is_refused_and_everything_stays(tmp_path: Path) -> None:
    text = toml("a", tmp_path, port=free_port())
    with socket.socket() as taken, speaker("a", tmp_path, text) as running:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running.wait_started()
        running.config.write_text(toml("b", tmp_path, port=taken.getsockname()[1]))
        with pytest.raises(SpeakerError, match="in use by"):
            running.client.post("reload")
        assert running.get("status")["config_refused"]
        assert not (tmp_path / "b.sock").exists()


def test_metrics_and_readiness_over_tcp(tmp_path: Path) -> None:
    metrics = free_port()
    text = toml("a", tmp_path, port=free_port(), more=f'metrics = "127.0.0.1:{metrics}"')
    with speaker("a", tmp_path, text + peer("ghost", "127.0.0.99", 65000, free_port())) as running:
        running.wait_started()
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
            assert b'catbird_bgp_peer_state{asn="65000",peer="ghost",state="Established"} 0.0' in answer.read()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=5)
        assert caught.value.code == 503
        assert b"no session with ghost" in caught.value.read()
        caught.value.close()


def test_a_second_speaker_on_the_same_socket_is_refused(tmp_path: Path) -> None:
    with speaker("a", tmp_path, toml("a", tmp_path, port=free_port())) as first:
        first.wait_started()
        done = run("-c", str(first.config))
        assert done.returncode == 1
        assert f"served by process {first.process.pid}" in done.stderr
        assert first.get("status")["pid"] == first.process.pid


def test_a_killed_speakers_socket_is_replaced(tmp_path: Path) -> None:
    text = toml("a", tmp_path, port=free_port())
    with speaker("a", tmp_path, text) as first:
        first.wait_started()
        first.stop(signal.SIGKILL)
    assert (tmp_path / "a.sock").exists()
    with speaker("a", tmp_path, text) as second:
        second.wait_started()


def test_a_port_in_use_names_its_owner_and_leaves_no_socket(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = tmp_path / "a.toml"
        path.write_text(toml("a", tmp_path, port=taken.getsockname()[1]))
        done = run("-c", str(path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"pid {os.getpid()}" in done.stderr
    assert not (tmp_path / "a.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_promptly_although_a_peer_hangs(tmp_path: Path, number: int) -> None:
    port = free_port()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.21", port))
        deaf.listen()
        text = toml("a", tmp_path, port=port) + peer("deaf", "127.0.0.21", 65000, port)
        with speaker("a", tmp_path, text) as running:
            running.wait_started()
            connection, _ = deaf.accept()
            with connection:
                before = time.monotonic()
                assert running.stop(number) == 0
                assert time.monotonic() - before < 8
    assert "speaker_stopped" in running.log()
    assert not (tmp_path / "a.sock").exists()


def test_logs_in_json_are_one_object_a_line(tmp_path: Path) -> None:
    text = toml("a", tmp_path, port=free_port())
    with speaker("a", tmp_path, text, "--log-format", "json") as running:
        running.wait_started()
        running.stop()
    events = [json.loads(line)["event"] for line in running.log().splitlines()]
    assert "speaker_started" in events
    assert events[-1] == "speaker_stopped"


def test_the_daemon_imports_nothing_that_only_people_need(tmp_path: Path) -> None:
    script = (
        "import sys, integration.node.speaker_daemon\n"
        "heavy = {'rich', 'typer', 'aiohttp', 'pyroute2', 'prometheus_client', 'watchfiles', 'yaml', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
