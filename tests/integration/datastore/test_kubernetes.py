"""The Kubernetes datastore: the contract, against the fake API server and against a real one if there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from integration.datastore.api import Datastore
from integration.datastore.kubernetes.driver import KubernetesDatastore
from tests.integration.datastore.contract import Contract, Opened
from tests.integration.datastore.kubernetes_servers import Cluster, running_cluster, server_params


@pytest.fixture(params=server_params("v1", "v3"))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    which, version = request.param
    with running_cluster(which, version) as found:
        yield found


@pytest.fixture
def opened(cluster: Cluster) -> Opened:
    @asynccontextmanager
    async def opening() -> AsyncIterator[Datastore]:
        store = KubernetesDatastore(cluster.settings())
        try:
            yield store
        finally:
            await store.close()

    return opening


class TestKubernetes(Contract):
    has_ttl = False
    has_transactions = False
    may_write_profiles = False
    keeps_nulls = False
