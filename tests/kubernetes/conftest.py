"""One cluster for all tests of this folder, with pods that stand all the while: a server and a client on each node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.cluster import Cluster, running_cluster
from tests.kubernetes.programs import wait_until
from tests.kubernetes.scene import NODES, POOL, pod, run, server

HERE = Path(__file__).parent
PLACE = "CATBIRD_CLUSTER"
REASON = "runs in the namespaces that tests/kubernetes/run.sh makes"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            for mark in (
                pytest.mark.root,
                pytest.mark.timeout(300),
                pytest.mark.skipif(PLACE not in os.environ, reason=REASON),
            ):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(nodes=len(NODES)) as made:
        for each in made.nodes.values():
            each.install_plugins(made.account("catbird-cni-plugin"))
            each.start_catbird(made.account("catbird-node"), NO_DEFAULT_POOLS="true")
        made.catbird("apply", "-f", "-", stdin=yaml.safe_dump(POOL))
        for name in NODES:
            wait_until(lambda name=name: made.is_node_ready(name), f"{name} is Ready")  # type: ignore[misc]
        for number, name in enumerate(NODES, 1):
            run(made, server(f"web{number}", name), pod(f"client{number}", name))
        yield made
        if request.session.testsfailed:
            print(made.logs(), *(node.state() for node in made.nodes.values()), sep="\n")
