"""The CNI specification as a table: operation, version, error; executed by the real plugin through the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cni.conformance import executed, table


@pytest.mark.root
def test_each_operation_answers_as_the_specification_says_in_each_version(tmp_path: Path) -> None:
    cells = executed(tmp_path)
    print("\n".join(["", *table(cells)]))
    assert [f"{one.case.command} {one.version}, {one.case.when}: {one.wrong}" for one in cells if one.wrong] == []
    assert {one.code for one in cells} == {0, 1, 2, 3, 4, 5, 6, 7, 11, 50}
