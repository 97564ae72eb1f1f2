"""One stream from several kinds, over a real store; a gate in front of it fails when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import integration.datastore.syncer
from integration.datastore.api import Event, Listing
from integration.datastore.errors import (
    DatastoreError,
    RevisionGone,
    Unauthorized,
    Unavailable,
    Unreadable,
    Unsupported,
)
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.syncer import Syncer, Update
from tests.integration.datastore.contract import peer, peer_key

KINDS = ("BGPPeer", "IPPool")


class Gate(LocalDatastore):
    """The store, with what a bad day does to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.failure: DatastoreError | None = None
        self.without: set[str] = set()
        self.forbidden: set[str] = set()
        self.missing: set[str] = set()
        self.lists = 0
        self.broken: list[Unreadable] = []
        self.failed = asyncio.Event()

    async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
        self.refuse()
        if kind in self.without:
            raise Unsupported(f"no {kind} here")
        if kind in self.forbidden:
            raise Unauthorized(f"{kind} is not for us")
        if kind in self.missing:
            raise Unsupported(f"no {kind} at the moment")
        self.lists += 1
        listing = await super().list(kind, namespace=namespace, name_prefix=name_prefix)
        broken = [error for error in self.broken if error.key.kind == kind]
        names = {error.key for error in broken}
        return Listing([entry for entry in listing.entries if entry.key not in names], listing.revision, broken)

    async def watch(self, kind: str, *, revision: str, namespace: str | None = None) -> AsyncGenerator[Event, None]:
        self.refuse()
        async with contextlib.aclosing(super().watch(kind, revision=revision, namespace=namespace)) as events:
            async for event in events:
                self.refuse()
                yield event

    def refuse(self) -> None:
        if self.failure is not None:
            self.failed.set()
            raise self.failure


class Seen:
    """A sink that keeps what stands, and what it was told."""

    def __init__(self) -> None:
        self.stands: dict[str, Any] = {}
        self.told: list[Update] = []
        self.statuses: list[str] = []
        self.largest = 0

    def updates(self, batch: list[Update]) -> None:
        self.largest = max(self.largest, len(batch))
        for update in batch:
            self.told.append(update)
            if update.value is None:
                self.stands.pop(str(update.key.name), None)
            else:
                self.stands[update.key.name] = update.value["spec"]

    def status(self, status: str) -> None:
        self.statuses.append(status)

    def datastore_lost(self, error: DatastoreError) -> None:
        self.statuses.append(f"lost: {error.reason}")

    def datastore_back(self, after_s: float) -> None:
        self.statuses.append("back")

    def kind_refused(self, kind: str, error: DatastoreError) -> None:
        self.statuses.append(f"refused: {kind}")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


Story = Callable[[Gate, Seen, Syncer], Awaitable[None]]


def play(path: Path, story: Story, before: Callable[[Gate], Awaitable[None]] | None = None) -> Seen:
    async def main() -> Seen:
        store, seen = Gate(path / "store.db"), Seen()
        if before is not None:
            await before(store)
        syncer = Syncer(store, KINDS, seen, dispensable={"IPPool"})
        task = asyncio.create_task(syncer.run())
        try:
            await story(store, seen, syncer)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()
        return seen

    return asyncio.run(main())


async def two_peers(store: Gate) -> None:
    await store.create(peer_key("a"), peer("a"))
    await store.create(peer_key("b"), peer("b"))


def test_what_is_there_comes_before_in_sync_and_changes_after(tmp_path: Path) -> None:
    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        assert set(seen.stands) == {"a", "b"}
        assert [update.is_new for update in seen.told] == [True, True]
        await store.apply(peer_key("a"), peer("a", asNumber=65001))
        await store.create(peer_key("c"), peer("c"))
        await store.delete(peer_key("b"))
        await seen.until(lambda: set(seen.stands) == {"a", "c"} and seen.stands["a"]["asNumber"] == 65001)
        assert [update.is_new for update in seen.told[2:]] == [False, True, False]

    seen = play(tmp_path, story, two_peers)
    assert seen.statuses == ["wait-for-datastore", "resync", "in-sync"]


class Value(dict[str, Any]):
    """A dict that can be looked for."""


def test_what_has_been_told_is_kept_by_nobody(tmp_path: Path) -> None:
    """Ten thousands of resources as JSON took a quarter of a daemon's memory, as long as it watched."""
    listed: list[weakref.ref[Value]] = []

    class Listed(Gate):
        async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
            listing = await super().list(kind, namespace=namespace, name_prefix=name_prefix)
            entries = [replace(entry, value=Value(entry.value)) for entry in listing.entries]
            listed.extend(weakref.ref(entry.value) for entry in entries if isinstance(entry.value, Value))
            return Listing(entries, listing.revision, [])

    async def main() -> None:
        store, seen = Listed(tmp_path / "store.db"), Seen()
        await two_peers(store)
        syncer = Syncer(store, KINDS, seen)
        task = asyncio.create_task(syncer.run())
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        seen.told.clear()
        await store.create(peer_key("c"), peer("c"))
        await seen.until(lambda: "c" in seen.stands)
        seen.told.clear()
        gc.collect()
        assert len(listed) == 2
        assert [one for one in listed if one() is not None] == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()

    asyncio.run(main())


def test_after_a_gap_only_what_differs_is_told(tmp_path: Path) -> None:
    """Compacted away while the watch was down: a new list, compared with what was told."""

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        seen.told.clear()
        store.failure = RevisionGone("1")
        await store.apply(peer_key("a"), peer("a", asNumber=65001))
        await store.failed.wait()
        await store.delete(peer_key("b"))
        await store.create(peer_key("c"), peer("c"))
        store.failure = None
        await seen.until(lambda: set(seen.stands) == {"a", "c"})
        assert sorted((update.key.name, update.value is None) for update in seen.told) == [
            ("a", False),
            ("b", True),
            ("c", False),
        ]

    assert "in-sync" in play(tmp_path, story, two_peers).statuses


def test_a_datastore_that_is_away_is_told_once_and_nothing_is_forgotten(tmp_path: Path) -> None:
    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        store.failure = Unavailable("no route to host")
        await store.apply(peer_key("a"), peer("a", asNumber=65001))
        await store.failed.wait()
        await seen.until(lambda: seen.statuses[-1] == "lost: no route to host")
        assert set(seen.stands) == {"a", "b"}
        lists = store.lists
        store.failure = None
        await seen.until(lambda: seen.stands["a"]["asNumber"] == 65001)
        assert store.lists == lists  # the watch went on where it was
        await seen.until(lambda: seen.statuses[-1] == "back")  # of the pools nothing was heard

    seen = play(tmp_path, story, two_peers)
    assert seen.statuses == ["wait-for-datastore", "resync", "in-sync", "lost: no route to host", "back"]


def test_a_datastore_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        await two_peers(store)
        store.failure = Unavailable("connection refused")

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses == ["wait-for-datastore", "lost: connection refused"])
        store.failure = None
        await seen.until(lambda: seen.statuses[-1] == "in-sync")
        assert set(seen.stands) == {"a", "b"}

    assert "back" in play(tmp_path, story, before).statuses


def test_a_kind_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        await two_peers(store)
        store.without.add("IPPool")

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        assert set(seen.stands) == {"a", "b"}

    play(tmp_path, story, before)


def test_a_kind_that_is_not_there_is_an_answer_too(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        store.without.add("IPPool")
        store.failure = Unavailable("connection refused")

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: "lost: connection refused" in seen.statuses)
        store.failure = None
        await seen.until(lambda: seen.statuses[-2:] == ["back", "in-sync"])

    play(tmp_path, story, before)


def test_a_dispensable_kind_that_is_not_for_us_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        await two_peers(store)
        store.forbidden.add("IPPool")

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        assert set(seen.stands) == {"a", "b"}

    statuses = play(tmp_path, story, before).statuses
    assert sorted(statuses) == ["in-sync", "refused: IPPool", "resync", "wait-for-datastore"]
    assert statuses[-1] == "in-sync"


async def lose_the_watches(store: Gate, seen: Seen) -> None:
    """Kinds are listed anew once they notice."""
    store.failure = RevisionGone("1")
    await store.apply(peer_key("z"), peer("z"))
    await store.failed.wait()
    store.failure = None


def test_a_kind_that_was_there_is_not_gone_because_a_server_that_starts_does_not_know_it_yet(tmp_path: Path) -> None:
    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        store.missing.add("BGPPeer")
        await lose_the_watches(store, seen)
        await seen.until(lambda: "lost: no BGPPeer at the moment" in seen.statuses)
        assert set(seen.stands) == {"a", "b"}
        store.missing.clear()
        await seen.until(lambda: set(seen.stands) == {"a", "b", "z"})
        assert seen.statuses[-1] == "back"

    play(tmp_path, story, two_peers)


def test_an_empty_kind_that_was_there_is_soon_followed_again(tmp_path: Path) -> None:
    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        store.missing.add("BGPPeer")
        await lose_the_watches(store, seen)
        await seen.until(lambda: "lost: no BGPPeer at the moment" in seen.statuses)
        store.missing.clear()
        await seen.until(lambda: set(seen.stands) == {"z"})

    play(tmp_path, story)


def test_a_kind_that_stays_away_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration.datastore.syncer, "MISSING_KIND_S", 0.3)

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        store.missing.add("BGPPeer")
        await lose_the_watches(store, seen)
        await seen.until(lambda: not seen.stands)
        store.missing.clear()
        await seen.until(lambda: set(seen.stands) == {"a", "b", "z"})

    play(tmp_path, story, two_peers)


def test_any_other_kind_that_is_not_for_us_is_waited_for(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        await two_peers(store)
        store.forbidden.add("BGPPeer")

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: "lost: BGPPeer is not for us" in seen.statuses)
        store.forbidden.clear()
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        assert set(seen.stands) == {"a", "b"}

    play(tmp_path, story, before)


def test_what_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        await two_peers(store)
        store.broken.append(Unreadable(peer_key("b"), "no JSON", "7"))

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        assert set(seen.stands) == {"a"}
        (broken,) = [update for update in seen.told if update.error]
        assert (broken.key.name, broken.error and broken.error.why) == ("b", "no JSON")

    play(tmp_path, story, before)


def test_many_changes_come_in_few_batches(tmp_path: Path) -> None:
    async def before(store: Gate) -> None:
        await asyncio.gather(*(store.create(peer_key(f"p{n}"), peer(f"p{n}")) for n in range(2500)))

    async def story(store: Gate, seen: Seen, syncer: Syncer) -> None:
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        assert len(seen.stands) == 2500

    assert 500 < play(tmp_path, story, before).largest <= 1000


@pytest.mark.parametrize("with_retraction", [False, True])
def test_who_must_not_go_on_is_told_that_all_is_gone(tmp_path: Path, with_retraction: bool) -> None:
    async def main() -> Seen:
        store, seen = Gate(tmp_path / "store.db"), Seen()
        await two_peers(store)
        syncer = Syncer(store, KINDS, seen)
        task = asyncio.create_task(syncer.run())
        await seen.until(lambda: seen.statuses[-1:] == ["in-sync"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
        if with_retraction:
            syncer.retract()
        return seen

    assert set(asyncio.run(main()).stands) == (set() if with_retraction else {"a", "b"})
