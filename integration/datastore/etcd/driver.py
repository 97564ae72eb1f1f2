"""The etcd datastore: Calico's keys and values, byte for byte.

Revisions are etcd's: a key's is its mod_revision, a listing's the store's. Source: libcalico-go/lib/backend/etcdv3.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from integration.datastore.api import Entry, Event, Listing, Step, Value
from integration.datastore.errors import (
    AlreadyExists,
    DatastoreError,
    DoesNotExist,
    Invalid,
    RevisionGone,
    Unauthorized,
    Unavailable,
    Unreadable,
    UpdateConflict,
)
from integration.datastore.etcd.connection import ACCESS_HINT, AWAY, Connection, EtcdSettings, Metadata, translated
from integration.datastore.etcd.messages import DELETE, EQUAL, GREATER, MESSAGES, MOD, VERSION
from integration.datastore.etcd.status_keys import EtcdStatusKeys
from integration.datastore.stored_form import (
    DEFAULT_ALLOW,
    check_steps,
    decode,
    default_allow_profile,
    encode,
    path_of,
    revision_number,
)
from integration.resources.base import Problem
from integration.resources.keys import Key, etcd_prefix, etcd_prefixes, key_of_etcd_path

PAGE = 2_000
LIST_TRIES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
NO_LEADER = (("hasleader", "true"),)  # a server cut off from the others ends the watch, so that we go to another

RangeRequest = MESSAGES["RangeRequest"]
TxnRequest = MESSAGES["TxnRequest"]
RequestOp = MESSAGES["RequestOp"]
Compare = MESSAGES["Compare"]


class EtcdDatastore:
    """`Datastore` over etcd's v3 API. Nothing is connected before the first call."""

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.connection = Connection(settings)

    async def get(self, key: Key, *, revision: str = "") -> Entry:
        if key == DEFAULT_ALLOW:
            return default_allow_profile()
        request = RangeRequest(key=_path(key), revision=revision_number(key, revision) if revision else 0)
        try:
            answer = await self.connection.call("KV/Range", request, may_repeat=True)
        except RevisionGone:
            raise RevisionGone(revision) from None
        if not answer.kvs:
            raise DoesNotExist(key)
        return _entry(key, answer.kvs[0])

    async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
        for tries_left in reversed(range(LIST_TRIES)):
            try:
                return await self._list(kind, namespace, name_prefix)
            except RevisionGone:  # compacted between two pages
                if not tries_left:
                    raise Unavailable("etcd compacts faster than it can be listed") from None
        raise AssertionError("unreachable")

    async def _list(self, kind: str, namespace: str | None, name_prefix: str) -> Listing:
        entries: list[Entry] = []
        unreadable: list[Unreadable] = []
        revision = 0
        for prefix in _prefixes(kind, namespace):
            start, end = prefix, prefix_end(prefix)
            while True:
                request = RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
                answer = await self.connection.call("KV/Range", request, may_repeat=True)
                revision = revision or answer.header.revision
                for stored in answer.kvs:
                    key = _key(kind, stored.key)
                    if key is None or not key.name.startswith(name_prefix) or key == DEFAULT_ALLOW:
                        continue
                    try:
                        entries.append(_entry(key, stored))
                    except Unreadable as error:
                        unreadable.append(error)
                if not answer.more:
                    break
                start = answer.kvs[-1].key + b"\0"
        if kind == DEFAULT_ALLOW.kind and DEFAULT_ALLOW.name.startswith(name_prefix):
            entries.append(default_allow_profile())
        entries.sort(key=lambda entry: (entry.key.namespace, entry.key.name))
        return Listing(entries, str(revision), unreadable)

    async def create(self, key: Key, value: Value, *, ttl_s: float | None = None) -> Entry:
        path, stored = _path(key), encode(key, value)
        lease = await self._lease(ttl_s) if ttl_s is not None else 0
        absent = Compare(result=EQUAL, target=VERSION, key=path, version=0)
        try:
            answer = await self._transact(absent, _put(path, stored, lease), path)
        except BaseException:
            await self._revoke(lease)
            raise
        if answer.succeeded:
            return decode(key, stored, str(answer.header.revision))
        await self._revoke(lease)
        raise AlreadyExists(key, _entry_or_none(key, answer))

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        path, stored = _path(key), encode(key, value)
        same = Compare(result=EQUAL, target=MOD, key=path, mod_revision=revision_number(key, revision))
        answer = await self._transact(same, _put(path, stored), path)
        if answer.succeeded:
            return decode(key, stored, str(answer.header.revision))
        raise _lost_race(key, answer)

    async def apply(self, key: Key, value: Value) -> Entry:
        stored = encode(key, value)
        request = MESSAGES["PutRequest"](key=_path(key), value=stored)
        answer = await self.connection.call("KV/Put", request, may_repeat=True)
        return decode(key, stored, str(answer.header.revision))

    async def delete(self, key: Key, *, revision: str = "") -> Entry:
        path = _path(key)
        remove = RequestOp(request_delete_range=MESSAGES["DeleteRangeRequest"](key=path, prev_kv=True))
        # Without a revision: whatever lies there, if anything does.
        compare = None
        if revision:
            compare = Compare(result=EQUAL, target=MOD, key=path, mod_revision=revision_number(key, revision))
        answer = await self._transact(compare, remove, path)
        if not answer.succeeded:
            raise _lost_race(key, answer)
        return _removed(key, answer.responses[0])

    async def transact(self, steps: Sequence[Step]) -> Sequence[Entry]:
        check_steps(steps)
        asked = [_requests(step) for step in steps]
        request = TxnRequest(
            compare=[compare for compare, _, _ in asked if compare is not None],
            success=[then for _, then, _ in asked],
            failure=[RequestOp(request_range=RangeRequest(key=_path(step.key))) for step in steps],
        )
        answer = await self.connection.call("KV/Txn", request, may_repeat=False)
        made: list[Entry] = []
        for step, (_, _, stored), response in zip(steps, asked, answer.responses, strict=True):
            if not answer.succeeded:
                _raise_if_refused(step, response.response_range.kvs)
            elif step.value is None:
                made.append(_removed(step.key, response))
            else:
                made.append(decode(step.key, stored, str(answer.header.revision)))
        if not answer.succeeded:
            raise AssertionError("etcd refused a transaction of which every condition holds")
        return made

    async def _transact(self, compare: Any, then: Any, path: bytes) -> Any:
        """`then` if `compare` holds, else what lies there."""
        look = RequestOp(request_range=RangeRequest(key=path))
        request = TxnRequest(compare=[] if compare is None else [compare], success=[then], failure=[look])
        return await self.connection.call("KV/Txn", request, may_repeat=False)

    async def _lease(self, ttl_s: float) -> int:
        request = MESSAGES["LeaseGrantRequest"](TTL=max(1, math.ceil(ttl_s)))
        return int((await self.connection.call("Lease/LeaseGrant", request, may_repeat=True)).ID)

    async def _revoke(self, lease: int) -> None:
        if lease:
            try:
                await self.connection.call(
                    "Lease/LeaseRevoke", MESSAGES["LeaseRevokeRequest"](ID=lease), may_repeat=False
                )
            except DatastoreError:
                pass  # it ends by itself

    # --- watching ---------------------------------------------------------------------------------------------------

    async def watch(self, kind: str, *, revision: str, namespace: str | None = None) -> AsyncGenerator[Event, None]:
        at = revision_number(Key(kind, ""), revision) + 1
        prefix = _watched_prefix(kind, namespace)
        loop = asyncio.get_running_loop()
        pause_s, broken_at = FIRST_PAUSE_S, 0.0
        cluster = 0
        has_renewed = False
        while True:
            try:
                async with aclosing(self._answers(prefix, at)) as answers:
                    async for answer in answers:
                        if answer.created:
                            has_renewed = False
                            cluster = await self._checked_cluster(answer, cluster, at)
                            pause_s, broken_at = FIRST_PAUSE_S, 0.0
                            continue
                        for made in _events(kind, answer.events):
                            yield made
                        if answer.events:
                            at = answer.events[-1].kv.mod_revision + 1
                        elif answer.header.revision >= at:
                            at = answer.header.revision + 1
                            yield Event("bookmark", None, str(at - 1))
            except RevisionGone:
                raise RevisionGone(str(at - 1)) from None
            except Unauthorized:
                # etcd 3.4 says "permission denied" of a token that has ended, too.
                if has_renewed or not self.settings.username:
                    raise
                has_renewed = True
            except Unavailable:
                if self.connection.is_closed:
                    raise
                broken_at = broken_at or loop.time()
                if loop.time() - broken_at > self.settings.bridged_s:
                    raise
                pause_s = min(LONGEST_PAUSE_S, random.uniform(FIRST_PAUSE_S, pause_s * 3))
                await asyncio.sleep(pause_s)

    async def _checked_cluster(self, created: Any, before: int, at: int) -> int:
        """The cluster's id. Raises RevisionGone if it is another than before, or knows nothing of the revision yet.

        Restored from a backup, it counts from there again, and a watch would wait in silence until it has caught up.
        """
        cluster: int = created.header.cluster_id
        if before not in (0, cluster):
            raise RevisionGone(str(at - 1))
        if created.header.revision < at - 1:  # or is it a member that lags? Only the leader knows.
            request = RangeRequest(key=b"/calico/", count_only=True)
            answer = await self.connection.call("KV/Range", request, may_repeat=True)
            if answer.header.revision < at - 1:
                raise RevisionGone(str(at - 1))
        return cluster

    async def _answers(self, prefix: bytes, revision: int) -> AsyncGenerator[Any, None]:
        """Whole answers of one stream, first the one that is `created`. It ends with an error.

        Raises RevisionGone, Unavailable, Unauthorized.
        """
        loop, connection = asyncio.get_running_loop(), self.connection
        deadline = loop.time() + min(self.settings.request_s, 5.0)
        channel = await connection.channel(deadline)
        endpoint = connection.endpoint
        stream = None
        metadata: Metadata = ()
        try:
            metadata = await connection.credentials(channel, deadline)
            stream = channel.stream_stream(
                "/etcdserverpb.Watch/Watch",
                request_serializer=MESSAGES["WatchRequest"].SerializeToString,
                response_deserializer=MESSAGES["WatchResponse"].FromString,
            )(metadata=(*NO_LEADER, *metadata))
            wanted = MESSAGES["WatchCreateRequest"](
                key=prefix, range_end=prefix_end(prefix), start_revision=revision,
                progress_notify=True, prev_kv=True, fragment=True,
            )  # fmt: skip
            await stream.write(MESSAGES["WatchRequest"](create_request=wanted))
            whole: Any = None
            async for answer in stream:
                if answer.canceled:
                    raise _cancelled(answer, endpoint)
                if answer.created:
                    yield answer  # its revision says nothing of what was told
                    continue
                if whole is None:
                    whole = answer
                else:
                    whole.events.extend(answer.events)
                if not answer.fragment:
                    yield whole
                    whole = None
            raise Unavailable(f"etcd at {endpoint} has ended the watch")
        except Unauthorized:
            connection.forget_token(metadata)
            raise
        except TimeoutError:
            connection.fail_over(endpoint)
            raise Unavailable(f"etcd at {endpoint} does not answer: no token in time") from None
        except grpc.aio.AioRpcError as error:
            if connection.wants_new_token(error):
                connection.forget_token(metadata)
            if error.code() in AWAY:
                connection.fail_over(endpoint)
            raise translated(error, endpoint) from None
        except asyncio.CancelledError:
            connection.raise_if_closed()
            raise
        finally:
            if stream is not None:
                stream.cancel()

    def status_keys(self) -> EtcdStatusKeys:
        return EtcdStatusKeys(self.connection)

    async def check(self) -> None:
        await self.connection.call("KV/Range", RangeRequest(key=b"/calico/", count_only=True), may_repeat=True)

    async def close(self) -> None:
        await self.connection.close()


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin so."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def _path(key: Key) -> bytes:
    return path_of(key).encode()


def _prefixes(kind: str, namespace: str | None) -> Iterable[bytes]:
    try:
        return [prefix.encode() for prefix in etcd_prefixes(kind, namespace or "")]
    except ValueError as error:
        raise Invalid(Key(kind, ""), [Problem("kind", kind, str(error))]) from None


def _watched_prefix(kind: str, namespace: str | None) -> bytes:
    try:
        return etcd_prefix(kind, namespace or "").encode()
    except ValueError as error:
        raise Invalid(Key(kind, ""), [Problem("kind", kind, str(error))]) from None


def _key(kind: str, path: bytes) -> Key | None:
    """None for what is of another kind, or nothing we know."""
    try:
        key = key_of_etcd_path(path.decode())
    except UnicodeDecodeError:
        return None
    return key if key is not None and key.kind == kind else None


def _entry(key: Key, stored: Any) -> Entry:
    return decode(key, stored.value, str(stored.mod_revision))


def _entry_or_none(key: Key, answer: Any) -> Entry | None:
    found = answer.responses[0].response_range.kvs if answer.responses else ()
    try:
        return _entry(key, found[0]) if found else None
    except Unreadable:
        return None


def _lost_race(key: Key, answer: Any) -> DoesNotExist | UpdateConflict:
    if not answer.responses[0].response_range.kvs:
        return DoesNotExist(key)
    return UpdateConflict(key, _entry_or_none(key, answer))


def _removed(key: Key, response: Any) -> Entry:
    """Raises DoesNotExist."""
    gone = response.response_delete_range.prev_kvs
    if not gone:
        raise DoesNotExist(key)
    try:
        return _entry(key, gone[0])
    except Unreadable:
        return Entry(key, {}, str(gone[0].mod_revision))


def _requests(step: Step) -> tuple[Any, Any, bytes]:
    """The condition (None: there is none), the request, and what it writes."""
    path = _path(step.key)
    compare = None
    if step.revision:
        compare = Compare(result=EQUAL, target=MOD, key=path, mod_revision=revision_number(step.key, step.revision))
    elif step.revision == "":
        compare = Compare(result=EQUAL, target=VERSION, key=path, version=0)
    elif step.value is None:
        compare = Compare(result=GREATER, target=VERSION, key=path, version=0)
    if step.value is None:
        return compare, RequestOp(request_delete_range=MESSAGES["DeleteRangeRequest"](key=path, prev_kv=True)), b""
    stored = encode(step.key, step.value)
    return compare, _put(path, stored), stored


def _raise_if_refused(step: Step, found: Sequence[Any]) -> None:
    current: Entry | None = None
    if found:
        try:
            current = _entry(step.key, found[0])
        except Unreadable:
            pass
    if step.revision == "" and found:
        raise AlreadyExists(step.key, current)
    if not found and (step.revision or step.value is None):
        raise DoesNotExist(step.key)
    if step.revision and found[0].mod_revision != revision_number(step.key, step.revision):
        raise UpdateConflict(step.key, current)


def _put(path: bytes, stored: bytes, lease: int = 0) -> Any:
    return RequestOp(request_put=MESSAGES["PutRequest"](key=path, value=stored, lease=lease))


def _events(kind: str, told: Sequence[Any]) -> Iterator[Event]:
    for number, event in enumerate(told):
        revision = event.kv.mod_revision
        # Of what one transaction did, only the last may say that all was told.
        if number + 1 < len(told) and told[number + 1].kv.mod_revision == revision:
            revision -= 1
        key = _key(kind, event.kv.key)
        if key is not None and key != DEFAULT_ALLOW:
            yield _event(key, event, str(revision))


def _event(key: Key, event: Any, revision: str) -> Event:
    if event.type == DELETE:
        try:
            was = _entry(key, event.prev_kv) if event.prev_kv.key else Entry(key, {}, "")
        except Unreadable:
            was = Entry(key, {}, str(event.prev_kv.mod_revision))
        return Event("deleted", was, revision)
    try:
        entry = _entry(key, event.kv)
    except Unreadable as error:
        return Event("unreadable", None, revision, error)
    return Event("added" if event.kv.create_revision == event.kv.mod_revision else "modified", entry, revision)


def _cancelled(answer: Any, endpoint: str) -> DatastoreError:
    if answer.compact_revision:
        return RevisionGone("")
    why = answer.cancel_reason.rpartition("etcdserver: ")[2] or "no reason given"
    if "permission" in why or "auth" in why:
        return Unauthorized(f"etcd at {endpoint} lets us not watch this: {why}", ACCESS_HINT)
    return Unavailable(f"etcd at {endpoint} has ended the watch: {why}")
