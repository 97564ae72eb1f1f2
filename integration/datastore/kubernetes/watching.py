"""One watch that outlives the connections it is made of."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from integration.datastore.errors import RevisionGone, Unavailable
from integration.datastore.kubernetes.connection import ApiError, Backoff, Connection
from integration.datastore.kubernetes.places import Collection

Object = dict[str, Any]
# How long the server may serve one watch; scattered, lest all of a cluster's nodes ask again in one moment.
SHORTEST_S, LONGEST_S = 240, 300
# The client waits a bit longer than it asked the server to serve.
GRACE_S = 15


@dataclass(frozen=True, slots=True)
class Change:
    """What the server sent; `value` of a bookmark has metadata alone."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    value: Object
    revision: str


async def changes(
    connection: Connection, collection: Collection, namespace: str, revision: str
) -> AsyncGenerator[Change, None]:
    """Changes after `revision`, without end. Raises RevisionGone, Unavailable, ApiError (what trying again cannot mend)."""
    loop, backoff = asyncio.get_running_loop(), Backoff()
    last_heard_at = loop.time()
    while True:
        began_at, stands = loop.time(), asyncio.Event()
        try:
            async with aclosing(one_watch(connection, collection, namespace, revision, stands)) as events:
                async for change in events:
                    revision = change.revision
                    backoff.reset()
                    yield change
                    last_heard_at = loop.time()
            # It ended as it was asked to, or was cut.
            pause_s = 0.0 if loop.time() - began_at > 1 else backoff.next_s()
            last_heard_at = loop.time()
        except ApiError as error:
            if error.is_gone:
                raise RevisionGone(revision) from error
            if error.code < 500 and error.code != 429:
                raise
            pause_s = max(error.retry_after_s or 0.0, backoff.next_s())
            raise_if_late(connection, last_heard_at, pause_s, error.message, error)
        except Unavailable as error:
            connection.raise_if_closed()
            if stands.is_set() and loop.time() - began_at > 1:
                last_heard_at = loop.time()  # a watch on which nothing happened for long stood until now
            pause_s = backoff.next_s()
            raise_if_late(connection, last_heard_at, pause_s, error.reason, error)
        await connection.pause(pause_s)


def raise_if_late(connection: Connection, heard_at: float, pause_s: float, why: str, error: Exception) -> None:
    silent_s = asyncio.get_running_loop().time() + pause_s - heard_at
    if silent_s > connection.settings.bridged_s:
        raise Unavailable(f"the watch was interrupted {silent_s:.0f} s ago: {why}") from error


async def one_watch(
    connection: Connection, collection: Collection, namespace: str, revision: str, stands: asyncio.Event
) -> AsyncGenerator[Change, None]:
    """Changes after `revision`, until the server ends the watch or the connection breaks. `stands`: it had begun."""
    served_s = random.randint(SHORTEST_S, LONGEST_S)
    params = {
        "watch": "1",
        "resourceVersion": revision,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(served_s),
    }
    async with connection.lines(collection.path(namespace), params, served_s + GRACE_S) as lines:
        stands.set()
        async for line in lines:
            if line:
                yield parsed(line)


def parsed(line: bytes) -> Change:
    try:
        event = json.loads(line)
        kind, value = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(value.get("code") or 500), value)
        return Change(kind, value, value["metadata"]["resourceVersion"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unavailable(f"the API server sends no watch event: {line[:80]!r}") from error
