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
ACCESS_HINT = "ETCD_USERNAME, ETCD_PASSWORD, its roles"
Metadata = tuple[tuple[str, str], ...]
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_OCTETS),
    ("grpc.max_send_message_length", MAX_OCTETS),
    # A server whose machine is gone is noticed though nothing is asked of it. etcd allows one ping in 5 s, and none while
    # no request is under way: it would end the connection (too_many_pings).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Of pings that measure the bandwidth: until one is answered no other is sent.
    ("grpc.http2.ping_timeout_ms", 5_000),
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
        loop = asyncio.get_running_loop()
        has_renewed = False
        while True:
            channel = await self.channel(deadline)
            endpoint, is_sent = self.endpoint, False
            metadata: Metadata = ()
            soon = min(deadline, loop.time() + ANSWER_S) if len(self.endpoints) > 1 else deadline
            try:
                metadata = await self.credentials(channel, soon)
                is_sent = True
                return await send(channel, metadata, (soon if may_repeat else deadline) - loop.time())
            except TimeoutError:  # nobody gives us a token
                self.fail_over(endpoint)
                if loop.time() + 0.1 >= deadline:
                    raise Unavailable(f"etcd at {endpoint} does not answer: no token in time") from None
            except grpc.aio.AioRpcError as error:
                if self.wants_new_token(error) and not has_renewed:
                    has_renewed = True
                    self.forget_token(metadata)
                    continue
                may_again = may_repeat or not is_sent or "no leader" in _text(error)
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.fail_over(endpoint)
                    if may_again and loop.time() + 0.1 < deadline:
                        await asyncio.sleep(0.1)
                        continue
                raise translated(error, endpoint, outcome_unknown=not may_again) from None
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
                why = await _failure(channel)
                raise Unavailable(f"no etcd server answers at {names}: {why}", hint_for(why, endpoint))
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

    async def credentials(self, channel: grpc.aio.Channel, deadline: float) -> Metadata:
        """The call's metadata. Raises TimeoutError, grpc.aio.AioRpcError."""
        if not self.settings.username:
            return ()
        # The wait for others that ask for a token counts too: one that asks a hanging server would hold up all.
        async with asyncio.timeout_at(deadline), self._authenticating:
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

    def forget_token(self, used: Metadata) -> None:
        """Of the many calls that an ended token fails, only the first has it renewed: etcd computes 0.1 s for each."""
        if ("token", self._token) in used:
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


async def _failure(channel: grpc.aio.Channel) -> str:
    """Why it does not come up. Only a call tells."""
    try:
        await channel.unary_unary("/etcdserverpb.Maintenance/Status")(b"", timeout=0.3)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return _text(error).rpartition("last error: ")[2].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")
    return "no answer in time"


def hint_for(why: str, endpoint: str) -> str:
    """What to do about a connection that fails so, in gRPC's words."""
    if any(words in why for words in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")):
        return "the server speaks plain HTTP: is it http:// instead of https://?"
    if any(words in why for words in ("CERTIFICATE", "SSL", "Ssl", "handshake", "Peer name")):
        return "are its certificates right? ETCD_CA_CERT_FILE, ETCD_CERT_FILE, ETCD_KEY_FILE"
    if "DNS" in why or "resol" in why:
        return "is the name right?"
    if any(words in why for words in ("refused", "no answer", "unreachable", "timed out")):
        return "is it running, and are address and port right?"
    if endpoint.startswith("https:"):
        return "is it running, and are its certificates right?"
    return "is it running, and does it want https://?"


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
        return Unauthorized(f"etcd at {endpoint} lets us not do this: {text}", ACCESS_HINT)
    if "database space exceeded" in text or "no space" in text:
        return Unavailable(f"etcd at {endpoint} is full: {text}", "compact and defragment it, then disarm its alarm")
    if "request is too large" in text:
        return DatastoreError(f"etcd at {endpoint}: {text}", "etcd takes 1.5 MB at a time: --max-request-bytes")
    if code in AWAY or "too many requests" in text:
        hint = "the write may have been done or not: read again" if outcome_unknown else ""
        return Unavailable(f"etcd at {endpoint} does not answer: {text or code.name.lower()}", hint)
    return DatastoreError(f"etcd at {endpoint}: {text or code.name.lower()}")
