"""Requests to one of several etcd servers: fail-over, credentials, deadlines, errors in our words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from integration.datastore.errors import DatastoreError, RevisionGone, Unauthorized, Unavailable
from integration.datastore.etcd.messages import MESSAGES

MAX_OCTETS = 256 << 20
CONNECT_S = 2.0  # until the next server is tried
ANSWER_S = 3.0  # likewise, of a server that stands and says nothing
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_OCTETS),
    ("grpc.max_send_message_length", MAX_OCTETS),
    # A server whose machine is gone is noticed though nothing is asked of it. etcd allows one ping in 5 s, and none while
    # no request is under way: it would end the connection (too_many_pings).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    (
        "grpc.http2.ping_timeout_ms",
        5_000,
    ),  # of pings that measure the bandwidth: until one is answered no other is sent
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
# UNKNOWN and INTERNAL: a stream that broke with its server.
AWAY = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL,
}  # fmt: skip
NOT_AUTHENTICATED = ("invalid auth token", "auth store is old", "revision in header is old", "user name is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """`endpoints` are http:// or https:// URLs. Certificates are PEM; without `ca` the system's are trusted.

    `request_s`: after so long a request is Unavailable. `bridged_s`: likewise a watch that cannot be taken up again.
    """

    endpoints: tuple[str, ...] = ()
    discovery: str = ""  # a domain whose SRV records name the endpoints
    username: str = ""
    password: str = field(default="", repr=False)
    ca: bytes = b""
    cert: bytes = b""
    key: bytes = field(default=b"", repr=False)
    request_s: float = 10.0
    bridged_s: float = 3.0


def read_pem(path: str) -> bytes:
    """Raises DatastoreError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DatastoreError(f"{path}: {error.strerror}", "etcd's certificates are read from there") from None


def system_authorities() -> bytes | None:
    """The PEM that this system trusts; None: gRPC's own, if the system has none (gRPC would not look)."""
    import ssl  # 4 MB that only https pays for

    path = ssl.get_default_verify_paths().cafile
    return read_pem(path) if path else None


class Connection:
    """One at a time of the endpoints is in use; the next one as soon as it does not answer.

    The first is drawn, or a cluster's thousand nodes would all ask the same server.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.endpoints = settings.endpoints
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._at = random.randrange(max(1, len(settings.endpoints)))
        self._token = ""
        self._authenticating = asyncio.Lock()
        self.is_closed = False

    @property
    def endpoint(self) -> str:
        return self.endpoints[self._at % len(self.endpoints)]

    async def call(self, method: str, request: Any, *, may_repeat: bool) -> Any:
        """`method` as `KV/Range`. What must not happen twice is sent once, to a server that stands.

        What may be repeated goes to the next server soon, for one that hangs is seen by nothing else.

        Raises Unavailable, Unauthorized, RevisionGone, DatastoreError.
        """
        deadline = asyncio.get_running_loop().time() + self.settings.request_s
        service, name = method.split("/")

        async def send(channel: grpc.aio.Channel, metadata: Any, left_s: float) -> Any:
            stub = channel.unary_unary(
                f"/etcdserverpb.{service}/{name}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=MESSAGES[f"{name}Response"].FromString,
            )
            return await stub(request, timeout=left_s, metadata=metadata)

        return await self._tried(send, deadline, may_repeat=may_repeat)

    async def _tried(
        self, send: Callable[[grpc.aio.Channel, Any, float], Awaitable[Any]], deadline: float, *, may_repeat: bool
    ) -> Any:
        has_renewed = False
        while True:
            channel = await self.channel(deadline)
            endpoint, left_s = self.endpoint, deadline - asyncio.get_running_loop().time()
            try:
                if may_repeat and len(self.endpoints) > 1:
                    left_s = min(left_s, ANSWER_S)
                return await send(channel, await self.credentials(channel), left_s)
            except grpc.aio.AioRpcError as error:
                if self.wants_new_token(error) and not has_renewed:
                    has_renewed, self._token = True, ""
                    continue
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.fail_over(endpoint)
                    left_s = deadline - asyncio.get_running_loop().time()
                    if (may_repeat or "no leader" in _text(error)) and left_s > 0.1:
                        await asyncio.sleep(0.1)
                        continue
                raise translated(error, endpoint, outcome_unknown=not may_repeat) from None
            except asyncio.CancelledError:
                self.raise_if_closed()
                raise

    async def channel(self, deadline: float) -> grpc.aio.Channel:
        """A channel that stands, to one of the endpoints. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        tried = 0
        while True:
            self.raise_if_closed()
            if self.settings.discovery and (not self.endpoints or (tried and tried % len(self.endpoints) == 0)):
                await self.discover(max(0.1, min(CONNECT_S, deadline - loop.time())))
            endpoint = self.endpoint
            channel = self._channels.get(endpoint)
            if channel is None:
                channel = self._channels[endpoint] = self._opened(endpoint)
            if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
                return channel
            try:
                async with asyncio.timeout(max(0.05, min(CONNECT_S, deadline - loop.time()))):
                    if await _stands(channel):
                        return channel
            except TimeoutError:
                pass
            tried += 1
            self.fail_over(endpoint)
            if loop.time() >= deadline or (tried >= len(self.endpoints) and loop.time() + 0.2 >= deadline):
                names = ", ".join(self.endpoints)
                raise Unavailable(
                    f"no etcd server answers at {names}", "is it running, and are its certificates right?"
                )
            if tried % len(self.endpoints) == 0:
                await asyncio.sleep(0.1)

    async def discover(self, timeout_s: float) -> None:
        """Ask the DNS who the servers are; as long as it does not say, those that are known. Raises Unavailable."""
        from integration.datastore.etcd.discovery import discovered

        try:
            self.endpoints = await discovered(self.settings.discovery, timeout_s)
        except Unavailable:
            if not self.endpoints:
                raise

    def _opened(self, endpoint: str) -> grpc.aio.Channel:
        scheme, _, host = endpoint.partition("://")
        host = host.rstrip("/")
        if ":" not in host.rpartition("]")[2]:
            host += ":2379"
        if scheme != "https":
            return grpc.aio.insecure_channel(host, options=OPTIONS)
        settings = self.settings
        authorities = settings.ca or system_authorities()
        credentials = grpc.ssl_channel_credentials(authorities, settings.key or None, settings.cert or None)
        return grpc.aio.secure_channel(host, credentials, options=OPTIONS)

    def fail_over(self, endpoint: str) -> None:
        """The next one, unless somebody else has already gone on."""
        if endpoint == self.endpoint and len(self.endpoints) > 1:
            self._at += 1

    def raise_if_closed(self) -> None:
        """Closing cancels the calls that are under way; that is not a cancellation of the task that waits for one."""
        task = asyncio.current_task()
        if self.is_closed and not (task and task.cancelling()):
            raise Unavailable("the datastore was closed") from None

    # --- credentials ------------------------------------------------------------------------------------------------

    async def credentials(self, channel: grpc.aio.Channel) -> tuple[tuple[str, str], ...]:
        """The call's metadata. Raises Unauthorized, grpc.aio.AioRpcError."""
        if not self.settings.username:
            return ()
        async with self._authenticating:
            if not self._token:
                request = MESSAGES["AuthenticateRequest"](name=self.settings.username, password=self.settings.password)
                call = channel.unary_unary(
                    "/etcdserverpb.Auth/Authenticate",
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=MESSAGES["AuthenticateResponse"].FromString,
                )
                try:
                    self._token = (await call(request, timeout=self.settings.request_s)).token
                except grpc.aio.AioRpcError as error:
                    if "authentication is not enabled" in _text(error):
                        return ()
                    raise
            return (("token", self._token),)

    def wants_new_token(self, error: grpc.aio.AioRpcError) -> bool:
        return bool(self.settings.username) and any(words in _text(error) for words in NOT_AUTHENTICATED)

    def forget_token(self) -> None:
        self._token = ""

    async def close(self) -> None:
        self.is_closed = True
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))


async def _stands(channel: grpc.aio.Channel) -> bool:
    """Whether it comes up; False as soon as it cannot."""
    while True:
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return True
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            return False
        await channel.wait_for_state_change(state)


def _text(error: grpc.aio.AioRpcError) -> str:
    return error.details() or ""


def translated(error: grpc.aio.AioRpcError, endpoint: str, *, outcome_unknown: bool = False) -> DatastoreError:
    """RevisionGone without its revision: who asked knows it."""
    code, text = error.code(), _text(error).removeprefix("etcdserver: ")
    if "compacted" in text or "future revision" in text:
        return RevisionGone("")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or any(
        words in text for words in ("authentication failed", *NOT_AUTHENTICATED)
    ):
        return Unauthorized(
            f"etcd at {endpoint} lets us not do this: {text}", "ETCD_USERNAME, ETCD_PASSWORD, its roles"
        )
    if "database space exceeded" in text or "no space" in text:
        return Unavailable(f"etcd at {endpoint} is full: {text}", "compact and defragment it, then disarm its alarm")
    if code in AWAY:
        hint = "the write may have been done or not: read again" if outcome_unknown else ""
        return Unavailable(f"etcd at {endpoint} does not answer: {text or code.name.lower()}", hint)
    return DatastoreError(f"etcd at {endpoint}: {text or code.name.lower()}")
