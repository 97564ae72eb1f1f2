"""HTTP to an API server: where it is, who we are, when to try again, and what it answers."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from integration.datastore.errors import DatastoreError, Unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MERGE_PATCH = "application/merge-patch+json"
RETRIED = {429, 503}  # the server asks for patience, and has done nothing


@dataclass(frozen=True)
class KubernetesSettings:
    """Where the API server is, and how to use it. With nothing given: the pod's service account.

    `kubeconfig` may be several files with `:` between; what is given beside it wins over it, as in Calico.
    """

    kubeconfig: str = ""
    kubeconfig_inline: str = ""
    context: str = ""
    api_endpoint: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    token: str = ""
    insecure_skip_tls_verify: bool = False
    service_account: Path = SERVICE_ACCOUNT
    # crd.projectcalico.org/v1, projectcalico.org/v3, or empty: v3 if the server has it and not v1.
    api_group: str = ""
    use_pod_cidr: bool = False
    interface_prefix: str = "cali"
    request_timeout_s: float = 10.0
    # How long a watch tries to go on by itself before it is Unavailable.
    bridged_s: float = 30.0


class ApiError(Exception):
    """An answer that is no success, as the server words it (a Status of meta/v1)."""

    def __init__(self, code: int, status: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.code = code
        self.reason = str(status.get("reason") or "")
        self.message = str(status.get("message") or f"HTTP {code}")
        self.details: Mapping[str, Any] = status.get("details") or {}
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    @property
    def causes(self) -> list[Mapping[str, Any]]:
        return list(self.details.get("causes") or [])

    @property
    def is_gone(self) -> bool:
        """The revision is too old, or of another store than this one."""
        return self.code == 410 or any(cause.get("reason") == "ResourceVersionTooLarge" for cause in self.causes)


class Backoff:
    """Growing, scattered pauses, so that a thousand nodes do not come back in one moment."""

    def __init__(self, first_s: float = 0.05, longest_s: float = 5.0) -> None:
        self.first_s, self.longest_s = first_s, longest_s
        self.last_s = first_s

    def next_s(self) -> float:
        self.last_s = min(self.longest_s, random.uniform(self.first_s, self.last_s * 3))
        return self.last_s

    def reset(self) -> None:
        self.last_s = self.first_s


class Connection:
    """Requests with the settings' credentials; these are read again when the server no longer takes them."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self.settings = settings
        self.closed = asyncio.Event()
        self.client: Client | None = None
        self.retired: list[Client] = []
        self.streams: set[Any] = set()
        self.opening = asyncio.Lock()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        media: str = "application/json",
    ) -> dict[str, Any]:
        """The JSON object that the server answers. Raises ApiError, Unavailable, or DatastoreError for bad credentials."""
        loop, backoff = asyncio.get_running_loop(), Backoff()
        deadline = loop.time() + self.settings.request_timeout_s
        while True:
            timeout_s = max(0.1, deadline - loop.time())
            try:
                async with self.response(method, path, params, body, media, timeout_s) as response:
                    return parsed(await response.read())
            except ApiError as error:
                if error.code not in RETRIED:
                    raise
                pause_s = max(error.retry_after_s or 0.0, backoff.next_s())
                if loop.time() + pause_s >= deadline:
                    raise Unavailable(f"the API server is too busy: {error.message}") from error
            await self.pause(pause_s)

    async def is_ready(self) -> bool:
        """Whether all of the server's own parts have started, as it says itself."""
        try:
            async with self.response("GET", "/readyz", None, None, "application/json", self.settings.request_timeout_s):
                return True
        except ApiError as error:
            return error.code < 500  # it may be forbidden to ask

    @asynccontextmanager
    async def lines(
        self, path: str, params: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The lines of a stream, of any length, until the server ends it. Raises as `request` does."""
        async with self.response("GET", path, params, None, "application/json", timeout_s, is_stream=True) as response:
            keep_alive(response)
            self.streams.add(response)
            try:
                yield split_lines(response.content.iter_any())
            finally:
                self.streams.discard(response)

    @asynccontextmanager
    async def response(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Any,
        media: str,
        timeout_s: float,
        *,
        is_stream: bool = False,
    ) -> AsyncIterator[Any]:
        """A response that is a success, with its body still to be read."""
        import aiohttp

        if is_stream:
            timeout = aiohttp.ClientTimeout(total=timeout_s, connect=self.settings.request_timeout_s)
        else:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            used = await self.opened()
            while True:
                headers = {"Accept": "application/json", "Content-Type": media, **await used.headers()}
                url = used.host + path + (f"?{urlencode(params)}" if params else "")
                answer = await used.rest.request(method, url, headers=headers, body=body, _request_timeout=timeout)
                async with answer.response as response:
                    if response.status == 401 and (other := await self.renewed(used)):
                        used = other
                        continue
                    if response.status >= 400:
                        raise await failure(response)
                    yield response
                    return
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:
            self.raise_if_closed()
            if isinstance(error, RuntimeError) and "closed" not in str(error):
                raise
            what = "does not answer in time" if isinstance(error, TimeoutError) else f"cannot be reached: {error}"
            raise Unavailable(f"the API server {what}") from error

    async def opened(self) -> Client:
        async with self.opening:
            self.raise_if_closed()
            if self.client is None:
                self.client = await Client.open(self.settings)
            return self.client

    async def renewed(self, refused: Client) -> Client | None:
        """A client with credentials read anew; None if they are the ones that were refused."""
        async with self.opening:
            self.raise_if_closed()
            if self.client is not refused:
                return self.client
            found = await Client.open(self.settings)
            if await found.credentials() == await refused.credentials():
                await found.rest.close()
                return None
            self.retired.append(refused)  # watches may go on with it
            self.client = found
            return found

    async def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until this is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self.closed.wait()
        except TimeoutError:
            return
        self.raise_if_closed()

    def raise_if_closed(self) -> None:
        if self.closed.is_set():
            raise Unavailable("the datastore was closed")

    async def close(self) -> None:
        self.closed.set()
        for response in self.streams:
            # Closing the connection alone wakes nobody who waits for more of a body.
            response.content.set_exception(ConnectionResetError("closed"))
        async with self.opening:
            for client in (*self.retired, *([self.client] if self.client else [])):
                await client.rest.close()


class Client:
    """The library's HTTP client with its configuration."""

    def __init__(self, configuration: Any, rest: Any) -> None:
        self.configuration, self.rest = configuration, rest
        self.host: str = configuration.host.rstrip("/")
        self.certificate = Path(configuration.cert_file).read_bytes() if configuration.cert_file else b""

    @classmethod
    async def open(cls, settings: KubernetesSettings) -> Client:
        # Half a second of imports: not before they are needed, and not in the event loop.
        await asyncio.to_thread(importlib.import_module, "kubernetes.aio.config")
        from kubernetes.aio.client.rest import RESTClientObject
        from kubernetes.aio.config import ConfigException

        try:
            configuration = await configured(settings)
            configuration.connection_pool_maxsize = 0  # each watch keeps a connection to itself
            return cls(configuration, RESTClientObject(configuration))
        except (ConfigException, ssl.SSLError, OSError, ValueError, yaml.YAMLError) as error:
            raise DatastoreError(f"the access to Kubernetes is not usable: {error}", "see the kubeconfig") from error

    async def headers(self) -> dict[str, str]:
        # A service account's token is read again every minute by this call.
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token} if token else {}

    async def credentials(self) -> object:
        return await self.headers(), self.certificate


async def configured(settings: KubernetesSettings) -> Any:
    """The library's Configuration for these settings."""
    from kubernetes.aio import config
    from kubernetes.aio.client.configuration import Configuration
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader

    made = Configuration()
    context = settings.context or None
    if settings.kubeconfig_inline:
        found = yaml.safe_load(settings.kubeconfig_inline)
        await config.load_kube_config_from_dict(found, context=context, client_configuration=made)
    elif settings.kubeconfig:
        await config.load_kube_config(
            settings.kubeconfig, context=context, client_configuration=made, persist_config=False
        )
    elif not settings.api_endpoint:
        token, authority = settings.service_account / "token", settings.service_account / "ca.crt"
        InClusterConfigLoader(str(token), str(authority), environ=os.environ).load_and_set(made)
    given = {
        "host": settings.api_endpoint,
        "ssl_ca_cert": settings.ca_file,
        "cert_file": settings.cert_file,
        "key_file": settings.key_file,
    }
    for name, value in given.items():
        if value:
            setattr(made, name, value)
    if settings.token:
        made.api_key["BearerToken"] = f"Bearer {settings.token}"
    if settings.insecure_skip_tls_verify:
        made.verify_ssl = False
    return made


def parsed(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Unavailable(f"the API server answers no JSON: {text[:80]!r}") from error
    if not isinstance(value, dict):
        raise Unavailable(f"the API server answers no JSON object: {text[:80]!r}")
    return value


async def failure(response: Any) -> ApiError:
    text = await response.read()
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text.decode(errors="replace").strip()[:200]}
    try:
        retry_after_s = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        retry_after_s = None
    return ApiError(response.status, status if isinstance(status, dict) else {}, retry_after_s)


def keep_alive(response: Any) -> None:
    """Notice within half a minute that the other side is gone: a quiet watch sends nothing that could fail."""
    connection = response.connection
    found = connection.transport.get_extra_info("socket") if connection and connection.transport else None
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
            found.setsockopt(socket.IPPROTO_TCP, option, value)


async def split_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines without their ends; what comes after the last end was cut off and is dropped."""
    parts: list[bytes] = []
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*parts, line))
            parts.clear()
        if rest:
            parts.append(rest)
