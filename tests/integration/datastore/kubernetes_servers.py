"""The API servers that the tests run against: the fake one always, a real one if CATBIRD_TEST_KUBECONFIG names it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import os
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiohttp
import pytest
import yaml

from integration.datastore.kubernetes.connection import KubernetesSettings
from integration.resources.base import API_VERSION
from integration.resources.crds import definitions
from integration.resources.models.ipam_crds import CRD_VERSION
from tests.integration.datastore.fake_apiserver import FakeApiServer

VARIABLE = "CATBIRD_TEST_KUBECONFIG"
Which = Literal["fake", "real"]
BOTH = [pytest.param("fake", id="fake"), pytest.param("real", id="real", marks=pytest.mark.kubernetes)]
# A definition without it is somebody's, and so are its objects.
MADE_BY_TESTS = {"catbird-test": "true"}


@dataclass
class Answer:
    status: int
    body: dict[str, Any]
    text: str

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))


@dataclass
class ApiAccess:
    """Plain HTTP to an API server with a kubeconfig's address, certificate authority and token."""

    kubeconfig: dict[str, Any]
    fake: FakeApiServer | None = None
    session: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.kubeconfig["clusters"][0]["cluster"]["server"]
        self.session = aiohttp.ClientSession()

    def _options(self) -> dict[str, Any]:
        token = self.kubeconfig["users"][0]["user"]["token"]
        authority = _authority(self.kubeconfig["clusters"][0]["cluster"])
        options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}"}}
        return options | ({"ssl": authority} if authority else {})

    async def __call__(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json", **query: Any
    ) -> Answer:
        options = self._options()
        options["headers"]["Content-Type"] = media
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, self.url + path, data=data, params=query, **options) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return Answer(response.status, json.loads(text) if is_json else {}, text)

    async def watch(self, path: str, **query: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(type, object) of each event until the server ends the stream."""
        async with self.session.get(self.url + path, params={"watch": "1", **query}, **self._options()) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                event = json.loads(line)
                yield event["type"], event["object"]


def _authority(cluster: dict[str, Any]) -> ssl.SSLContext | None:
    if not cluster["server"].startswith("https"):
        return None
    if data := cluster.get("certificate-authority-data"):
        return ssl.create_default_context(cadata=base64.b64decode(data).decode())
    return ssl.create_default_context(cafile=cluster.get("certificate-authority"))


@contextlib.asynccontextmanager
async def api_access(which: Which) -> AsyncIterator[ApiAccess]:
    if which == "fake":
        async with FakeApiServer() as server:
            access = ApiAccess(server.kubeconfig(), server)
            try:
                yield access
            finally:
                await access.session.close()
        return
    access = ApiAccess(real_kubeconfig())
    try:
        yield access
    finally:
        await access.session.close()


def real_kubeconfig() -> dict[str, Any]:
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.fail(f"{VARIABLE} names no kubeconfig: give one of an API server that may be written to", pytrace=False)
    found: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    return found


@contextlib.contextmanager
def kubeconfig_file(kubeconfig: dict[str, Any]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(kubeconfig, file)
        file.flush()
        yield file.name


# The datastore's cluster

T = TypeVar("T")
Version = Literal["v1", "v3"]
GROUPS: dict[Version, str] = {"v1": CRD_VERSION, "v3": API_VERSION}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMESPACES = ("one", "two", "ns", "mine", "minefield", "other")
# What the tests write: all of it is deleted before each.
WRITTEN = (
    "bgppeers", "bgpfilters", "networksets", "networkpolicies", "ippools", "ipamblocks", "blockaffinities", "ipamhandles",
    "ipamconfigs", "ipamconfigurations", "clusterinformations",
)  # fmt: skip
WITH_STATUS = ("ippools", "kubecontrollersconfigurations", "caliconodestatuses", "tiers")


def server_params(*versions: Version) -> list[Any]:
    marks: dict[Which, Any] = {"fake": (), "real": (pytest.mark.kubernetes,)}
    return [
        pytest.param((which, version), id=f"{which}-{version}", marks=mark)
        for which, mark in marks.items()
        for version in versions
    ]


@dataclass
class Cluster:
    """An API server with Calico's definitions, in a thread of its own, so that it outlives a test's event loops."""

    kubeconfig: dict[str, Any]
    version: Version
    loop: asyncio.AbstractEventLoop
    fake: FakeApiServer | None = None

    @property
    def group_version(self) -> str:
        return GROUPS[self.version]

    def settings(self, **others: Any) -> KubernetesSettings:
        given = {"kubeconfig_inline": yaml.safe_dump(self.kubeconfig), "api_group": self.group_version}
        return KubernetesSettings(**(given | others))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        async def called() -> Answer:
            access = ApiAccess(self.kubeconfig, self.fake)
            try:
                return await access(method, path, body, **query)
            finally:
                await access.session.close()

        return self.do(called())

    def make(self, path: str, body: Any) -> dict[str, Any]:
        made = self.call("POST", path, body)
        assert made.status in (201, 409), made.text
        return made.body


@contextlib.contextmanager
def running_cluster(which: Which, version: Version) -> Iterator[Cluster]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    fake = None
    try:
        if which == "fake":
            fake = asyncio.run_coroutine_threadsafe(started(), loop).result(10)
            kubeconfig = fake.kubeconfig()
        else:
            kubeconfig = real_kubeconfig()
        cluster = Cluster(kubeconfig, version, loop, fake)
        prepare(cluster)
        yield cluster
    finally:
        if fake is not None:
            asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def started() -> FakeApiServer:
    server = FakeApiServer()
    await server.start()
    return server


def prepare(cluster: Cluster) -> None:
    """Definitions and namespaces that are not there yet are made, and what tests wrote is deleted."""
    for name in NAMESPACES:
        cluster.make("/api/v1/namespaces", {"metadata": {"name": name}})
    group, _, version = cluster.group_version.partition("/")
    found = {item["metadata"]["name"]: item for item in cluster.call("GET", DEFINITIONS).body["items"]}
    wanted = {each["metadata"]["name"]: each for each in calico_definitions(cluster.version)}
    for name, definition in wanted.items():
        if name not in found:
            cluster.make(DEFINITIONS, definition)
        else:
            assert found[name]["metadata"].get("labels") == MADE_BY_TESTS, f"{name} is in use: give another cluster"
    served = {definition["spec"]["names"]["plural"] for definition in wanted.values()}
    for plural in sorted(served & set(WRITTEN)):
        path = f"/apis/{group}/{version}/{plural}"
        for item in served_list(cluster, path):
            place = item["metadata"]
            inside = f"namespaces/{place['namespace']}/" if "namespace" in place else ""
            cluster.call("DELETE", f"/apis/{group}/{version}/{inside}{plural}/{place['name']}")


def served_list(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    """A definition is served some time after it was made."""

    async def wait() -> list[dict[str, Any]]:
        access = ApiAccess(cluster.kubeconfig, cluster.fake)
        try:
            async with asyncio.timeout(30):
                while (answer := await access("GET", path)).status != 200:  # noqa: ASYNC110 (only asking tells)
                    await asyncio.sleep(0.05)
            return list(answer.body["items"])
        finally:
            await access.session.close()

    return cluster.do(wait())


def calico_definitions(version: Version) -> list[dict[str, Any]]:
    """Those we ship; for v3 the same with the names that Calico's native resources have."""
    found = copy.deepcopy(definitions())
    for each in found:
        each["metadata"]["labels"] = MADE_BY_TESTS
        if version == "v3":
            as_v3(each)
    return found


def as_v3(definition: dict[str, Any]) -> None:
    spec = definition["spec"]
    group, _, served = API_VERSION.partition("/")
    if spec["names"]["plural"] == "ipamconfigs":
        spec["names"] = {
            "kind": "IPAMConfiguration",
            "listKind": "IPAMConfigurationList",
            "plural": "ipamconfigurations",
            "singular": "ipamconfiguration",
        }
    plural = spec["names"]["plural"]
    spec["group"] = group
    definition["metadata"]["name"] = f"{plural}.{group}"
    spec["versions"][0]["name"] = served
    if plural in WITH_STATUS:
        spec["versions"][0]["subresources"] = {"status": {}}
    if plural == "blockaffinities":
        properties = spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        properties["spec"]["properties"]["deleted"] = {"type": "boolean"}
