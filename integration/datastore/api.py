"""The one interface that every datastore offers. Everything above knows only this file and `errors.py`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from integration.datastore.errors import Unreadable
from integration.resources.keys import Key

Value = dict[str, Any]
"""A resource as its JSON object (kind, apiVersion, metadata, spec…); for IPAM's kinds the form they have in etcd."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a key.

    `revision` is opaque: it changes with every write, and is what `update` and `delete` compare. It also stands in
    `value["metadata"]["resourceVersion"]` of what is read, though never in what is stored.
    """

    key: Key
    value: Value
    revision: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries of a kind at one moment, ordered by namespace and name; a watch from `revision` misses nothing that came after.

    `unreadable`: what lies there and could not be understood; it is in no entry.
    """

    entries: list[Entry]
    revision: str
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Event:
    """One change, or a bookmark: nothing happened up to `revision`, but a watch may go on from there.

    `entry` is what lies there now; after `deleted` what lay there last, with the revision of its last write, as far as
    the datastore knows (else an empty value). `unreadable` events carry `error` instead. `revision` is where to go on; who
    goes on within a transaction sees all of it again.
    """

    type: Literal["added", "modified", "deleted", "bookmark", "unreadable"]
    entry: Entry | None
    revision: str
    error: Unreadable | None = None


MAX_STEPS = 128  # in a transaction: etcd's own limit


@dataclass(frozen=True, slots=True)
class Step:
    """One write of a transaction.

    `value` None removes. `revision` is what must lie there: one that was read, "" for nothing (create), None: whatever
    lies there, or for a removal anything.
    """

    key: Key
    value: Value | None
    revision: str | None = None


class Datastore(Protocol):
    """A store of resources with compare-and-swap and watches.

    Every method raises DatastoreError and its kinds alone: Unavailable if the store cannot be reached in time,
    Unauthorized if it lets us not in, Unsupported for what it can never do with this kind. Values given are neither
    kept nor changed; a `metadata.resourceVersion` in them is ignored. Safe for many tasks of one event loop.
    """

    async def get(self, key: Key, *, revision: str = "") -> Entry:
        """What lies at the key, now or (etcd only, else Unsupported) at a revision. DoesNotExist, Unreadable."""
        ...

    async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
        """All of a kind (`Kind.name`), in one namespace or in all."""
        ...

    async def create(self, key: Key, value: Value, *, ttl_s: float | None = None) -> Entry:
        """Write where nothing lies. AlreadyExists. It vanishes after `ttl_s` (not on Kubernetes: Unsupported)."""
        ...

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        """Overwrite what still has that revision. DoesNotExist, UpdateConflict."""
        ...

    async def apply(self, key: Key, value: Value) -> Entry:
        """Create or overwrite, whatever lies there."""
        ...

    async def delete(self, key: Key, *, revision: str = "") -> Entry:
        """Remove it, if a revision is given only if it still has that; returns what lay there.

        DoesNotExist, UpdateConflict.
        """
        ...

    async def transact(self, steps: Sequence[Step]) -> Sequence[Entry]:
        """All of them or none; returns what was written or, of removals, lay there. Not on Kubernetes: Unsupported.

        A key may come once, and MAX_STEPS at most (Invalid). AlreadyExists, DoesNotExist, UpdateConflict: of the first
        change that cannot be made.
        """
        ...

    def watch(self, kind: str, *, revision: str, namespace: str | None = None) -> AsyncGenerator[Event, None]:
        """Changes after `revision`, in order, each once; goes on until closed (`contextlib.aclosing`).

        Short interruptions are bridged without loss. RevisionGone: list again. Unavailable: watch again later from the
        last event's revision. Synthetic entries (the default-allow profile) are listed but never appear here.
        """
        ...

    async def check(self) -> None:
        """Returns if the store is reachable and lets us in; raises DatastoreError that says what is in the way."""
        ...

    async def close(self) -> None:
        """Ends watches and connections. Afterwards every method but this raises Unavailable."""
        ...
