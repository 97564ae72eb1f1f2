"""`catbird reflector`: the speaker's daemon, with a file that has clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.node.speaker_daemon import main

TEXT = """\
[speaker]
asn = 64512
router_id = "10.0.0.1"
port = 1790

[[peer]]
name = "nodes"
range = "10.0.0.0/16"
asn = 64512
"""


def test_a_file_without_clients_is_refused_with_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reflector.toml"
    file.write_text(TEXT)
    assert main(["-c", str(file), "--check"], "reflector") == 1
    assert "reflector.toml: no peer is a client" in capsys.readouterr().err
    file.write_text(TEXT + "client = true\n")
    assert main(["-c", str(file), "--check"], "reflector") == 0
    assert main(["-c", str(file), "--check"], "speaker") == 0, "a node may reflect too"


def test_the_help_begins_with_a_file_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"], "reflector")
    text = capsys.readouterr().out
    file = tmp_path / "reflector.toml"
    file.write_text(text.split("a file to begin with:")[1].split("examples:")[0])
    assert main(["-c", str(file), "--check"], "reflector") == 0
