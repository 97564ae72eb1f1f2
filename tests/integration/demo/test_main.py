"""What somebody meets who cannot run the demo: one line that says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integration.demo import routers
from integration.demo.main import main
from integration.demo.plan import RouterKind


def test_without_root_one_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["--once"]) == 1
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == "catbird demo: needs root: it makes network namespaces\n"


@pytest.mark.parametrize(("kind", "package"), [("bird", "bird2"), ("frr", "frr")])
def test_a_missing_daemon_is_named_with_its_package(
    kind: RouterKind, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routers, "BIRD", Path("/nowhere/bird"))
    monkeypatch.setattr(routers, "FRR_PROGRAMS", Path("/nowhere"))
    why = routers.why_missing(kind)
    assert why is not None
    assert why.endswith(f"apt-get install {package}")
    assert "\n" not in why


def test_an_impossible_number_of_nodes_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "99"]) == 2
    assert capsys.readouterr().err == "catbird demo: --nodes is 2 to 16\n"
