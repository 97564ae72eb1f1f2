"""One LAN a test, gone when the test is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.lan import remove_leftovers
from tests.interop.world import DAEMONS, World, world

HERE = Path(__file__).parent
PROGRAMS = (
    "bird",
    "birdc",
    "vtysh",
    "/usr/lib/frr/zebra",
    "/usr/lib/frr/bgpd",
    "gobgpd",
    "gobgp",
    "bgpd",
    "bgpctl",
    "nft",
    "ip",
    "ss",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def surroundings() -> None:
    """Fails, and does not skip: a run that was asked for and tests nothing would look like a success."""
    if os.geteuid() != 0:
        pytest.fail("interoperability tests make network namespaces: run them as root")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.fail(f"not installed: {', '.join(missing)} (Debian: bird2 frr gobgpd openbgpd nftables iproute2)")
    remove_leftovers()


@pytest.fixture(name="world")
def one_world(surroundings: None) -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(params=DAEMONS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the other daemons in turn."""
    return str(request.param)
