"""Eight nodes that assign and release at random over an etcd cluster that loses members all the time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.ipam.storm import PROCESSES, storm

DURATION_S = float(os.environ.get("CATBIRD_STORM_S", "12"))


@pytest.mark.root
@pytest.mark.interop
def test_every_container_keeps_its_addresses_while_members_die(tmp_path: Path) -> None:
    outcome = storm(tmp_path, DURATION_S)
    print(outcome.figures)
    assert outcome.problems == []
    assert outcome.findings.problems == 0
    # It was a storm: members died, nodes got in each other's way, and work was done all the same.
    assert outcome.figures["kills"] >= 2
    assert outcome.figures["write_conflicts"] > 0
    assert outcome.figures["allocations"] > 20 * PROCESSES
    assert outcome.figures["borrowed"] > 0
