"""The API servers that the tests run against: the fake one always, a real one if CATBIRD_TEST_KUBECONFIG names it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
import yaml

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
    access = ApiAccess(yaml.safe_load(Path(real_kubeconfig()).read_text()))
    try:
        yield access
    finally:
        await access.session.close()


def real_kubeconfig() -> str:
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.fail(f"{VARIABLE} names no kubeconfig: give one of an API server that may be written to", pytrace=False)
    return path


@contextlib.contextmanager
def kubeconfig_file(kubeconfig: dict[str, Any]) -> Any:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(kubeconfig, file)
        file.flush()
        yield file.name
