"""The README's commands on resources do what they are said to."""

from __future__ import annotations

import re
from pathlib import Path

from tests.integration.cli.commands import Commands

ROOT = Path(__file__).parents[3]


def test_the_readmes_resource_commands_work_as_written(catbird: Commands) -> None:
    section = (ROOT / "README.md").read_text().partition("## Configure a cluster")[2].partition("\n## ")[0]
    commands = re.findall(r"^    \./dev catbird (.*) --datastore \$STORE$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["apply", "get", "bgp-config", "plan"]
    said = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    for command in commands:
        done = catbird(*command.replace("docs/", f"{ROOT}/docs/").split())
        assert (done.code, done.err) == (0, ""), command
    assert done.out == said[0]
