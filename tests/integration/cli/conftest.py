from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.commands import Commands


@pytest.fixture
def catbird(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command line against a local store that is empty."""
    return Commands(tmp_path, f"local:{tmp_path}/store.db", capsys, monkeypatch)
