"""Several kinds of a datastore as one ordered stream of changes, kept going whatever the datastore does.

Each kind is listed and then watched. What a list says is compared with what was told before, so that after a gap only
differences are told. The order within a kind is the datastore's; kinds arrive side by side.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, Protocol

from integration.datastore.api import Datastore, Event, Listing, Value
from integration.datastore.errors import (
    DatastoreError,
    DoesNotExist,
    RevisionGone,
    Unauthorized,
    Unavailable,
    Unreadable,
    Unsupported,
)
from integration.resources.keys import Key

Status = Literal["wait-for-datastore", "resync", "in-sync"]

UPDATES_AT_ONCE = 1000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
MISSING_KIND_S = 60.0  # a CRD that is not installed yet
ERRORS_PER_REVISION = 5  # then the list may say more than the watch


@dataclass(frozen=True, slots=True)
class Update:
    """What lies at the key now; `value` None: nothing (any more), or nothing that can be read, and then `error` says why."""

    key: Key
    value: Value | None
    revision: str = ""
    is_new: bool = False  # was not told before
    error: Unreadable | None = None


class Sink(Protocol):
    """Whom a Syncer tells, from the event loop; must not block."""

    def updates(self, batch: list[Update]) -> None:
        """In order, at most UPDATES_AT_ONCE."""
        ...

    def status(self, status: Status) -> None:
        """`in-sync` once every kind has been told whole; after that never anything else."""
        ...

    def datastore_lost(self, error: DatastoreError) -> None:
        """It cannot be reached, or refuses. What was told stands. Once until `datastore_back`."""
        ...

    def datastore_back(self, after_s: float) -> None: ...

    def kind_refused(self, kind: str, error: DatastoreError) -> None:
        """A dispensable kind may not be read, and counts as empty. Once until it may."""
        ...


@dataclass(slots=True)
class Followed:
    """One kind (of one namespace), and what was told of it."""

    kind: str
    namespace: str | None = None
    told: dict[Key, str] = field(default_factory=dict)  # key → revision
    revision: str = ""  # watch from here; "": list first
    is_in_sync: bool = False
    errors: int = 0  # in a row
    is_lost: bool = False
    is_away: bool = False  # it did not answer at all
    is_refused: bool = False  # counts as empty, since we may not read it
    is_there: bool = False  # was listed
    missing_at: float | None = None  # since when the datastore says that it has no such kind, though it was there


class Syncer:
    """`run()` until cancelled. Errors of the datastore never end it: it goes on trying, with growing pauses."""

    def __init__(
        self,
        datastore: Datastore,
        kinds: Iterable[str | tuple[str, str]],
        sink: Sink,
        *,
        dispensable: Collection[str] = (),
    ) -> None:
        """`kinds`: names, or (name, namespace) to follow one namespace alone.

        `dispensable` are those that are told as empty if we may not read them from the start: others are waited for, since a
        policy that we may not read is still a policy.
        """
        self._datastore = datastore
        self._dispensable = frozenset(dispensable)
        self._followed = [Followed(kind) if isinstance(kind, str) else Followed(*kind) for kind in kinds]
        self._sink = sink
        self._pending: list[Update] = []
        self._is_told = asyncio.Event()  # there is something for the sink
        self._status: Status = "wait-for-datastore"
        self._lost_at: float | None = None

    async def run(self) -> None:
        self._sink.status(self._status)
        async with asyncio.TaskGroup() as tasks:
            for followed in self._followed:
                tasks.create_task(self._follow(followed), name=f"follow {followed.kind}")
            tasks.create_task(self._deliver(), name="deliver")

    def retract(self) -> None:
        """Tell that everything is gone, for whoever must not go on with what it was told. After `run` has ended."""
        for followed in self._followed:
            gone = [Update(key, None) for key in followed.told]
            followed.told.clear()
            followed.revision = ""
            for at in range(0, len(gone), UPDATES_AT_ONCE):
                self._sink.updates(gone[at : at + UPDATES_AT_ONCE])

    def forget(self) -> None:
        """What was told: `run` begins with lists again, and tells all of them. After `run` has ended."""
        self._pending.clear()
        for followed in self._followed:
            followed.told.clear()
            followed.revision = ""

    # --- one kind ---------------------------------------------------------------------------------------------------

    async def _follow(self, followed: Followed) -> None:
        while True:
            try:
                if not followed.revision:
                    await self._list(followed)
                    self._answered(followed)
                    self._in_sync(followed)
                elif followed.is_away:
                    await self._datastore.check()  # a watch on which nothing happens does not say that it stands
                    self._answered(followed)
                await self._watch(followed)
            except RevisionGone:
                followed.revision = ""
                await self._pause(followed)
            except (DoesNotExist, Unsupported) as error:
                if self._may_come_back(followed):
                    followed.revision = ""
                    self._lost(followed, error)
                    await self._pause(followed)
                    continue
                # The kind is not there: nothing of it is, until it comes.
                await self._do_without(followed)
            except DatastoreError as error:
                if isinstance(error, Unauthorized) and followed.kind in self._dispensable and not followed.told:
                    self._refused(followed, error)
                    await self._do_without(followed)
                    continue
                if (followed.errors + 1) % ERRORS_PER_REVISION == 0 and not isinstance(error, Unavailable):
                    followed.revision = ""
                self._lost(followed, error)
                followed.is_away = isinstance(error, Unavailable)
                await self._pause(followed)

    async def _list(self, followed: Followed) -> None:
        """Apart from the watch, which lasts: nothing of what was listed is held meanwhile."""
        listing = await self._datastore.list(followed.kind, namespace=followed.namespace)
        self._set_status("resync")
        self._compare(followed, listing)
        followed.revision = listing.revision
        followed.is_refused, followed.is_there = False, True

    def _may_come_back(self, followed: Followed) -> bool:
        """A server that has just started does not know yet what definitions add to it: policies are not gone by that."""
        if not followed.is_there:
            return False
        now = asyncio.get_running_loop().time()
        followed.missing_at = now if followed.missing_at is None else followed.missing_at
        return now - followed.missing_at < MISSING_KIND_S

    async def _do_without(self, followed: Followed) -> None:
        followed.is_there = False
        self._compare(followed, Listing([], ""))
        self._answered(followed)
        self._in_sync(followed)
        followed.revision = ""
        await asyncio.sleep(MISSING_KIND_S)

    async def _pause(self, followed: Followed) -> None:
        """Longer each time in a row, and scattered: a thousand nodes must not come back in one moment."""
        followed.errors += 1
        most = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(followed.errors, 10))
        await asyncio.sleep(random.uniform(most / 2, most))

    async def _watch(self, followed: Followed) -> None:
        watch = self._datastore.watch(followed.kind, revision=followed.revision, namespace=followed.namespace)
        async with aclosing(watch) as events:
            async for event in events:
                self._answered(followed)
                self._take(followed, event)
                followed.revision = event.revision or followed.revision

    def _take(self, followed: Followed, event: Event) -> None:
        """What is told follows from what was told, not from what the datastore calls it."""
        if event.error is not None:
            self._tell(followed, Update(event.error.key, None, event.error.revision, error=event.error))
        elif event.entry is not None:
            entry = event.entry
            if event.type == "deleted":
                self._tell(followed, Update(entry.key, None, event.revision))
            else:
                self._tell(followed, Update(entry.key, entry.value, entry.revision))

    def _compare(self, followed: Followed, listing: Listing) -> None:
        unseen = set(followed.told)
        for entry in listing.entries:
            unseen.discard(entry.key)
            self._tell(followed, Update(entry.key, entry.value, entry.revision))
        for error in listing.unreadable:
            unseen.discard(error.key)
            self._tell(followed, Update(error.key, None, error.revision, error=error))
        for key in unseen:
            self._tell(followed, Update(key, None))

    def _tell(self, followed: Followed, update: Update) -> None:
        known = followed.told.get(update.key)
        if update.value is None and update.error is None:
            if followed.told.pop(update.key, None) is None:
                return
        elif known is not None and known == update.revision:
            return
        else:
            followed.told[update.key] = update.revision
            if known is None:
                update = Update(update.key, update.value, update.revision, True, update.error)
        self._pending.append(update)
        self._is_told.set()

    # --- how it stands ----------------------------------------------------------------------------------------------

    def _in_sync(self, followed: Followed) -> None:
        followed.is_in_sync = True
        if all(one.is_in_sync for one in self._followed):
            self._is_told.set()

    def _set_status(self, status: Status) -> None:
        if self._status not in ("in-sync", status):
            self._status = status
            self._sink.status(status)

    def _answered(self, followed: Followed) -> None:
        followed.errors, followed.missing_at = 0, None
        if followed.is_lost:
            followed.is_lost = followed.is_away = False
            if self._lost_at is not None and not any(one.is_lost for one in self._followed):
                after_s = asyncio.get_running_loop().time() - self._lost_at
                self._lost_at = None
                self._sink.datastore_back(after_s)

    def _lost(self, followed: Followed, error: DatastoreError) -> None:
        followed.is_lost = True
        if self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
            self._sink.datastore_lost(error)

    def _refused(self, followed: Followed, error: DatastoreError) -> None:
        if not followed.is_refused:
            followed.is_refused = True
            self._sink.kind_refused(followed.kind, error)

    async def _deliver(self) -> None:
        """What came while the sink was busy goes in one batch."""
        while True:
            await self._is_told.wait()
            self._is_told.clear()
            while self._pending:
                batch, self._pending = self._pending[:UPDATES_AT_ONCE], self._pending[UPDATES_AT_ONCE:]
                self._sink.updates(batch)
                del batch  # it would be held until the next
                await asyncio.sleep(0)
            if all(one.is_in_sync for one in self._followed):
                self._set_status("in-sync")
