"""The house itself: our packages are the ones imported, everything is pinned, and no text names where it was made."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import bgp.toml

PROJECT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PACKAGES: list[str] = PYPROJECT["tool"]["setuptools"]["packages"]
SKIPPED = {".git", ".venv", ".tox", ".hypothesis", "__pycache__", "build", "dist"}
MAX_FILE_LINES = 550
LONGER_FILES = {
    "bgp/speaker.py": 850,  # the engine's whole surface in one place, most of it calls to where the work is
    "felix/kernel/nftables.py": 650,  # one transaction: what is wanted, what is there, and the steps between
}
MAX_FUNCTION_LINES = 60


def our_files() -> Iterator[Path]:
    for path in sorted(PROJECT.rglob("*")):
        inside = path.relative_to(PROJECT).parts
        if path.is_file() and not any(part in SKIPPED or part.endswith(("_cache", ".egg-info")) for part in inside):
            yield path


def our_modules() -> Iterator[Path]:
    return (
        path
        for name in ("bgp", "felix", "integration", "ipam", "reflector")
        for path in sorted((PROJECT / name).rglob("*.py"))
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_the_imported_package_is_ours(name: str) -> None:
    # Other people publish packages called bgp and felix.
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).is_relative_to(PROJECT)


def test_every_package_is_listed_for_installation() -> None:
    folders = {path.parent.relative_to(PROJECT) for path in our_modules()}
    assert {".".join(folder.parts) for folder in folders} == set(PACKAGES)


def test_every_package_is_importable() -> None:
    missing = {path.parent for path in our_modules()} - {
        path.parent for path in our_modules() if path.stem == "__init__"
    }
    assert missing == set()


def test_constraints_agree_with_what_the_project_asks_for() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["bench"]]
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pinned = {_normal(line) for line in lines if line and not line.startswith("#")}
    assert {_normal(line) for line in wanted} <= pinned
    assert all("==" in line for line in pinned)


def _normal(requirement: str) -> str:
    name, _, version = requirement.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_arrows_between_packages_point_down() -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint_imports], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


# Where it was made and where packages come from is nobody's business here. Split, so that this file may be read too.
FORBIDDEN = [
    r"pypi\." + "org",
    r"pythonhosted\." + "org",
    r"registry\.npmjs",
    r"deb\.debian\." + "org",
    r"proxy\.golang\." + "org",
    r"\b(?:ghcr|quay|docker)\." + "io",
    r"(?<![\w.])/" + r"work/",
    r"(?<![\w.])/" + r"root/",
    r"\bissue #?\d",
]


def test_no_file_names_a_registry_or_the_machine_it_was_made_on() -> None:
    forbidden = re.compile("|".join(FORBIDDEN), re.IGNORECASE)
    found = []
    for path in our_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(PROJECT)}: {match[0]}" for match in forbidden.finditer(text)]
    assert found == []


def test_files_are_short_enough_to_read() -> None:
    lines = {str(path.relative_to(PROJECT)): len(path.read_text().splitlines()) for path in our_modules()}
    assert {name: count for name, count in lines.items() if count > LONGER_FILES.get(name, MAX_FILE_LINES)} == {}


def test_functions_are_short_enough_to_read() -> None:
    long = []
    for path in our_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(PROJECT)}: {node.name} has {count} lines")
    assert long == []


def test_the_readme_speaks_of_files_that_exist() -> None:
    text = (PROJECT / "README.md").read_text()
    named = re.findall(r"`((?:bgp|felix|integration|ipam|tests)/[\w./*-]+)`", text)
    assert named
    assert [name for name in named if not list(PROJECT.glob(name))] == []


def test_the_readmes_configuration_is_accepted() -> None:
    text = (PROJECT / "README.md").read_text()
    found = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found
    assert bgp.toml.loads(found[1]).peers[0].name == "tor1"


def test_ci_runs_the_readmes_test_line() -> None:
    command = (PROJECT / ".ci/run").read_text().splitlines()[-1].removeprefix("exec ")
    assert f"\n{command}\n" in (PROJECT / "README.md").read_text().replace("    ", "")
