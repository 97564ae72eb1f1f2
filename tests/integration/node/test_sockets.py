"""Claiming the control socket and the metrics port."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from integration.node.config_file import ConfigFile
from integration.node.sockets import (
    CannotListen,
    bind_metrics,
    claim_unix_socket,
    process_listening_on,
    release_unix_socket,
    why_not_bound,
)


def test_the_directory_is_made_and_only_the_owner_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "run" / "catbird" / "speaker.sock"
    with claim_unix_socket(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "speaker.sock")
    claim_unix_socket(path).close()
    with claim_unix_socket(path) as again:
        again.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_a_socket_that_is_served_is_left_alone_and_its_server_named(tmp_path: Path) -> None:
    path = str(tmp_path / "speaker.sock")
    with claim_unix_socket(path) as first:
        first.listen()
        with pytest.raises(CannotListen, match=f"served by process {os.getpid()}"):
            claim_unix_socket(path)
        assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "speaker.sock"
    path.write_text("precious")
    with pytest.raises(CannotListen, match="no socket"):
        claim_unix_socket(str(path))
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="107"):
        claim_unix_socket(str(tmp_path / ("x" * 120)))


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "speaker.sock")
    inode = 1
    with claim_unix_socket(path):
        release_unix_socket(path, inode)
        assert os.path.exists(path)


def test_a_metrics_port_in_use_names_its_owner() -> None:
    with bind_metrics("127.0.0.1:0") as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"port {port} is in use by .*pid {os.getpid()}.*metrics"):
            bind_metrics(f"127.0.0.1:{port}")
        assert str(os.getpid()) in process_listening_on(port)


@pytest.mark.parametrize(
    "where", ["127.0.0.1", "127.0.0.1:http2x", "127.0.0.1:99999", "999.1.1.1:9179", "192.0.2.77:9"]
)
def test_a_metrics_place_that_cannot_be_is_refused_in_one_line(where: str) -> None:
    with pytest.raises(CannotListen) as caught:
        bind_metrics(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "port 179 needs root .*another \\[speaker\\] port"),
        (errno.EADDRINUSE, "port 179 is in use.*another \\[speaker\\] port"),
        (errno.EADDRNOTAVAIL, "the address is not on this machine"),
    ],
)
def test_a_bgp_port_that_cannot_be_had_says_what_to_do(number: int, words: str) -> None:
    assert re.match(words, why_not_bound(OSError(number, os.strerror(number)), 179, "port"))


def test_a_changed_file_counts_once_it_has_settled(tmp_path: Path) -> None:
    path = tmp_path / "speaker.toml"
    path.write_text("one")
    file = ConfigFile(str(path))
    file.mark_loaded()
    assert not file.has_settled_change()
    path.write_text("half of tw")
    assert not file.has_settled_change()
    path.write_text("two, whole")
    os.utime(path, ns=(1, 1))
    assert not file.has_settled_change()
    assert file.has_settled_change()
    file.mark_loaded()
    assert not file.has_settled_change()


def test_a_file_replaced_by_rename_or_behind_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speaker.toml").write_text("same size")
    (tmp_path / "data").symlink_to("first")
    file = ConfigFile(str(tmp_path / "data" / "speaker.toml"))
    file.mark_loaded()
    (tmp_path / "new").symlink_to("second")
    os.replace(tmp_path / "new", tmp_path / "data")
    assert [file.has_settled_change() for _ in range(2)] == [False, True]


def test_a_file_that_is_gone_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "speaker.toml"
    path.write_text("one")
    file = ConfigFile(str(path))
    file.mark_loaded()
    path.unlink()
    assert [file.has_settled_change() for _ in range(3)] == [False, False, False]
