"""What every datastore must do, whatever it is made of. `class TestX(Contract)` runs it, with a fixture `opened`.

`opened()` opens a connection to one and the same store, which is empty at the start of each test. What a datastore
cannot do by its nature it says in the class attributes, and the test then wants Unsupported.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import pytest

from integration.datastore.api import Datastore, Event, Step, Value
from integration.datastore.errors import (
    AlreadyExists,
    DatastoreError,
    DoesNotExist,
    Invalid,
    Unavailable,
    Unsupported,
    UpdateConflict,
)
from integration.resources.keys import Key, affinity_key, block_key

Opened = Callable[[], AbstractAsyncContextManager[Datastore]]
Body = Callable[..., Awaitable[None]]
TIMEOUT_S = 20.0


def peer(name: str, **spec: Any) -> Value:
    return {
        "kind": "BGPPeer",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name},
        "spec": {"peerIP": "192.0.2.1", "asNumber": 64512, **spec},
    }


def network_set(name: str, namespace: str, *nets: str) -> Value:
    return {
        "kind": "NetworkSet",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nets": list(nets)},
    }


def policy(name: str, namespace: str, **spec: Any) -> Value:
    return {
        "kind": "NetworkPolicy",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"note": "kept"}},
        "spec": {"selector": "all()", "types": ["Ingress"], **spec},
    }


def block(cidr: str, node: str) -> Value:
    return {
        "cidr": cidr,
        "affinity": f"host:{node}",
        "allocations": [0, None, None, None],
        "unallocated": [1, 2, 3],
        "attributes": [{"handle_id": "h", "secondary": {"node": node}}],
        "sequenceNumber": 7,
        "sequenceNumberForAllocation": {"0": 7},
        "deleted": False,
    }


def peer_key(name: str) -> Key:
    return Key("BGPPeer", name)


def spec(value: Value) -> Value:
    """What a test compares: the store adds to metadata."""
    return value["spec"]  # type: ignore[no-any-return]


async def take(events: AsyncGenerator[Event, None], count: int, timeout_s: float = TIMEOUT_S) -> list[Event]:
    """The next `count` events that are no bookmarks."""
    found: list[Event] = []
    async with asyncio.timeout(timeout_s):
        while len(found) < count:
            event = await anext(events)
            if event.type != "bookmark":
                found.append(event)
    return found


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.entry.key.name if event.entry else "") for event in events]


def run(body: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await body

    asyncio.run(limited())


class Contract:
    has_ttl = True
    has_old_values = False  # get at a revision
    has_numbered_revisions = True  # a revision that is no number is Invalid at once
    may_write_profiles = True
    has_transactions = True
    keeps_nulls = True  # null in a field that is known to be something else

    def test_nothing_is_not_found(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                await store.check()
                with pytest.raises(DoesNotExist) as caught:
                    await store.get(peer_key("nobody"))
                assert caught.value.key == peer_key("nobody")
                assert (await store.list("BGPPeer")).entries == []
                with pytest.raises(DoesNotExist):
                    await store.update(peer_key("nobody"), peer("nobody"), revision="5")
                with pytest.raises(DoesNotExist):
                    await store.delete(peer_key("nobody"))

        run(body())

    def test_what_was_created_is_read_as_it_was_written(self, opened: Opened) -> None:
        async def body() -> None:
            value = peer("ä", somethingNew={"deep": [1, 2.5, None, True, "ü\u2028\x00"]})
            if self.keeps_nulls:
                value["spec"]["password"] = None
            value["metadata"] |= {"labels": {"a": "b"}, "name": "tor.1", "resourceVersion": "999999"}
            before = copy.deepcopy(value)
            async with opened() as store, opened() as other:
                created = await store.create(peer_key("tor.1"), value)
                assert value == before
                found = await other.get(peer_key("tor.1"))
                assert found == created
                assert spec(found.value) == spec(value)
                assert found.value["metadata"]["labels"] == {"a": "b"}
                assert found.value["metadata"]["resourceVersion"] == found.revision != "999999"
                assert (await other.list("BGPPeer")).entries == [created]

        run(body())

    def test_create_never_overwrites(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                first = await store.create(peer_key("a"), peer("a"))
                with pytest.raises(AlreadyExists) as caught:
                    await store.create(peer_key("a"), peer("a", asNumber=1))
                assert caught.value.existing in (first, None)
                assert await store.get(peer_key("a")) == first

        run(body())

    def test_update_is_compare_and_swap(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                first = await store.create(peer_key("a"), peer("a"))
                second = await store.update(peer_key("a"), peer("a", asNumber=2), revision=first.revision)
                assert second.revision != first.revision
                with pytest.raises(UpdateConflict) as caught:
                    await store.update(peer_key("a"), peer("a", asNumber=3), revision=first.revision)
                assert caught.value.current in (second, None)
                assert spec((await store.get(peer_key("a"))).value)["asNumber"] == 2

        run(body())

    def test_a_revision_that_is_none_is_refused(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                await store.create(peer_key("a"), peer("a"))
                expected = Invalid if self.has_numbered_revisions else (Invalid, UpdateConflict)
                with pytest.raises(expected):
                    await store.update(peer_key("a"), peer("a", asNumber=3), revision="x")

        run(body())

    def test_apply_writes_whatever_is_there(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                first = await store.apply(peer_key("a"), peer("a"))
                second = await store.apply(peer_key("a"), peer("a", asNumber=9))
                assert first.revision != second.revision
                assert await store.get(peer_key("a")) == second
                assert spec(second.value)["asNumber"] == 9

        run(body())

    def test_delete_gives_back_what_lay_there_and_compares_if_asked(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                first = await store.create(peer_key("a"), peer("a"))
                second = await store.update(peer_key("a"), peer("a", asNumber=2), revision=first.revision)
                with pytest.raises(UpdateConflict):
                    await store.delete(peer_key("a"), revision=first.revision)
                gone = await store.delete(peer_key("a"), revision=second.revision)
                assert spec(gone.value) == spec(second.value)
                with pytest.raises(DoesNotExist):
                    await store.get(peer_key("a"))
                assert (await store.create(peer_key("a"), peer("a"))).revision not in (first.revision, second.revision)

        run(body())

    def test_names_that_lead_elsewhere_are_refused(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                for key in (peer_key("a/b"), peer_key(""), Key("NetworkSet", "a"), Key("BGPPeer", "a", "ns")):
                    with pytest.raises(Invalid):
                        await store.create(key, peer("a"))
                    with pytest.raises(Invalid):
                        await store.get(key)

        run(body())

    def test_list_takes_all_namespaces_one_or_a_beginning_of_the_name(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                for namespace, name in (("two", "b"), ("one", "net-b"), ("one", "net-a"), ("one", "other")):
                    await store.create(Key("NetworkSet", name, namespace), network_set(name, namespace, "10.0.0.0/8"))
                await store.create(peer_key("net-x"), peer("net-x"))

                async def names(**options: Any) -> list[str]:
                    listing = await store.list("NetworkSet", **options)
                    return [f"{entry.key.namespace}/{entry.key.name}" for entry in listing.entries]

                assert await names() == ["one/net-a", "one/net-b", "one/other", "two/b"]
                assert await names(namespace="one") == ["one/net-a", "one/net-b", "one/other"]
                assert await names(namespace="on") == []
                assert await names(namespace="one", name_prefix="net") == ["one/net-a", "one/net-b"]
                assert await names(name_prefix="b") == ["two/b"]

        run(body())

    def test_a_watch_from_a_listing_misses_nothing_and_doubles_nothing(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store, opened() as other:
                await store.create(peer_key("before"), peer("before"))
                listing = await store.list("BGPPeer")
                first = await other.create(peer_key("a"), peer("a"))  # before the watch begins
                async with aclosing(store.watch("BGPPeer", revision=listing.revision)) as events:
                    assert told(await take(events, 1)) == [("added", "a")]
                    second = await other.update(peer_key("a"), peer("a", asNumber=2), revision=first.revision)
                    await other.create(Key("NetworkSet", "n", "ns"), network_set("n", "ns"))
                    await other.delete(peer_key("a"))
                    await other.create(peer_key("b"), peer("b"))
                    seen = await take(events, 3)
                    assert told(seen) == [("modified", "a"), ("deleted", "a"), ("added", "b")]
                    assert seen[0].entry == second
                    assert seen[1].entry is not None
                    assert spec(seen[1].entry.value)["asNumber"] == 2

        run(body())

    def test_a_watch_resumes_at_any_event(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                start = (await store.list("BGPPeer")).revision
                for number in range(10):
                    await store.apply(peer_key(f"p{number % 3}"), peer(f"p{number % 3}", asNumber=number))
                async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                    whole = await take(events, 10)
                for done in (1, 5, 9):
                    async with aclosing(store.watch("BGPPeer", revision=whole[done - 1].revision)) as events:
                        assert await take(events, 10 - done) == whole[done:]

        run(body())

    def test_a_watch_can_be_of_one_namespace(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                start = (await store.list("NetworkSet")).revision
                async with aclosing(store.watch("NetworkSet", revision=start, namespace="mine")) as events:
                    for number, namespace in enumerate(("minefield", "mine", "other", "mine")):
                        value = network_set("n", namespace, f"10.{number}.0.0/16")
                        await store.apply(Key("NetworkSet", "n", namespace), value)
                    seen = await take(events, 2)
                    assert [event.entry and event.entry.key.namespace for event in seen] == ["mine", "mine"]
                    assert [event.type for event in seen] == ["added", "modified"]

        run(body())

    def test_concurrent_increments_are_all_counted(self, opened: Opened) -> None:
        async def increment(store: Datastore, times: int) -> None:
            for _ in range(times):
                while True:
                    found = await store.get(peer_key("counter"))
                    value = peer("counter", asNumber=spec(found.value)["asNumber"] + 1)
                    try:
                        await store.update(peer_key("counter"), value, revision=found.revision)
                        break
                    except UpdateConflict:
                        continue

        async def body() -> None:
            async with opened() as store, opened() as other:
                await store.create(peer_key("counter"), peer("counter", asNumber=0))
                await asyncio.gather(*(increment(which, 10) for which in (store, other, store, other)))
                assert spec((await store.get(peer_key("counter"))).value)["asNumber"] == 40

        run(body())

    def test_one_of_many_creates_wins(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store, opened() as other:
                outcomes = await asyncio.gather(
                    *((store, other)[i % 2].create(peer_key("a"), peer("a", asNumber=i)) for i in range(12)),
                    return_exceptions=True,
                )
                won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
                lost = [outcome for outcome in outcomes if isinstance(outcome, AlreadyExists)]
                assert (len(won), len(lost)) == (1, 11)
                assert await store.get(peer_key("a")) == won[0]

        run(body())

    def test_ipam_keeps_its_own_form(self, opened: Opened) -> None:
        async def body() -> None:
            value = block("10.0.0.0/30", "node1")
            key, claim = block_key("10.0.0.0/30"), affinity_key("host:node1", "10.0.0.0/30")
            async with opened() as store:
                start = (await store.list("IPAMBlock")).revision
                first = await store.create(key, value)
                await store.create(block_key("fd00::/126"), block("fd00::/126", "node1"))
                await store.create(claim, {"state": "confirmed", "deleted": False})
                await store.create(Key("IPAMHandle", "h"), {"block": {"10.0.0.0/30": 1}, "deleted": False})
                assert (await store.get(key)).value == value
                freed = {**value, "affinity": None}
                second = await store.update(key, freed, revision=first.revision)
                with pytest.raises(UpdateConflict):
                    await store.update(key, value, revision=first.revision)
                assert (await store.get(key)).value == freed
                listed = await store.list("IPAMBlock")
                assert {entry.key.name for entry in listed.entries} == {"10.0.0.0-30", "fd00::-126"}
                assert [e.key for e in (await store.list("BlockAffinity", namespace="host:node1")).entries] == [claim]
                assert (await store.list("BlockAffinity", namespace="host:node2")).entries == []
                async with aclosing(store.watch("IPAMBlock", revision=start)) as events:
                    seen = await take(events, 3)
                    assert seen[2].entry == second

        run(body())

    def test_a_policy_keeps_its_name_and_its_annotations(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                for name in ("default.allow-dns", "allow-dns"):
                    await store.create(Key("NetworkPolicy", name, "ns"), policy(name, "ns"))
                for entry in (await store.list("NetworkPolicy")).entries:
                    assert entry.value["metadata"]["name"] == entry.key.name
                    assert entry.value["metadata"]["annotations"] == {"note": "kept"}

        run(body())

    def test_the_default_allow_profile_is_always_there(self, opened: Opened) -> None:
        async def body() -> None:
            key = Key("Profile", "projectcalico-default-allow")
            async with opened() as store:
                found = await store.get(key)
                assert spec(found.value) == {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}
                assert found in (await store.list("Profile")).entries
                other = Key("Profile", "a")
                value = {"kind": "Profile", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "a"}, "spec": {}}
                if not self.may_write_profiles:
                    with pytest.raises(Unsupported):
                        await store.create(other, value)
                    return
                start = (await store.list("Profile")).revision
                await store.create(other, value)
                assert [entry.key for entry in (await store.list("Profile")).entries] == [other, key]
                async with aclosing(store.watch("Profile", revision=start)) as events:
                    assert told(await take(events, 1)) == [("added", "a")]

        run(body())

    def test_what_has_a_time_to_live_vanishes_and_says_so(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                if not self.has_ttl:
                    with pytest.raises(Unsupported):
                        await store.create(peer_key("short"), peer("short"), ttl_s=1)
                    return
                start = (await store.list("BGPPeer")).revision
                await store.create(peer_key("short"), peer("short"), ttl_s=1)
                await store.create(peer_key("long"), peer("long"), ttl_s=1000)
                kept = await store.create(peer_key("kept"), peer("kept"), ttl_s=1)
                await store.update(peer_key("kept"), peer("kept"), revision=kept.revision)  # without: for ever
                async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                    seen = await take(events, 5)
                assert told(seen)[4] == ("deleted", "short")
                assert [entry.key.name for entry in (await store.list("BGPPeer")).entries] == ["kept", "long"]

        run(body())

    def test_old_values_only_where_they_are_kept(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                first = await store.create(peer_key("a"), peer("a"))
                await store.apply(peer_key("a"), peer("a", asNumber=2))
                if self.has_old_values:
                    assert await store.get(peer_key("a"), revision=first.revision) == first
                else:
                    with pytest.raises(Unsupported):
                        await store.get(peer_key("a"), revision=first.revision)

        run(body())

    def test_a_transaction_is_made_whole_or_not_at_all(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                if not self.has_transactions:
                    with pytest.raises(Unsupported):
                        await store.transact([Step(peer_key("a"), peer("a"))])
                    return
                kept = await store.create(peer_key("kept"), peer("kept"))
                old = await store.create(peer_key("old"), peer("old"))
                start = (await store.list("BGPPeer")).revision
                refused: list[tuple[Step, type[DatastoreError]]] = [
                    (Step(peer_key("kept"), peer("kept"), ""), AlreadyExists),
                    (Step(peer_key("kept"), peer("kept"), old.revision), UpdateConflict),
                    (Step(peer_key("kept"), None, old.revision), UpdateConflict),
                    (Step(peer_key("none"), peer("none"), old.revision), DoesNotExist),
                    (Step(peer_key("none"), None), DoesNotExist),
                    (Step(peer_key("new"), None), Invalid),  # twice
                    (Step(peer_key("a/b"), peer("a")), Invalid),
                ]
                for change, error in refused:
                    with pytest.raises(error):
                        await store.transact(
                            [Step(peer_key("new"), peer("new"), ""), Step(peer_key("old"), None), change]
                        )
                assert [entry.key.name for entry in (await store.list("BGPPeer")).entries] == ["kept", "old"]

                made = await store.transact(
                    [
                        Step(peer_key("new"), peer("new"), ""),
                        Step(peer_key("kept"), peer("kept", asNumber=2), kept.revision),
                        Step(peer_key("old"), None, old.revision),
                        Step(peer_key("any"), peer("any")),
                    ]
                )
                assert [entry.key.name for entry in made] == ["new", "kept", "old", "any"]
                assert made[2] == old
                assert (await store.list("BGPPeer")).entries == [made[3], made[1], made[0]]
                async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                    whole = await take(events, 4)
                happened = {("added", "new"), ("modified", "kept"), ("deleted", "old"), ("added", "any")}
                assert set(told(whole)) == happened
                await store.apply(peer_key("end"), peer("end"))
                for number in range(3):  # whoever stopped in the middle misses nothing of the rest
                    seen: list[tuple[str, str]] = []
                    async with aclosing(store.watch("BGPPeer", revision=whole[number].revision)) as events:
                        while ("added", "end") not in seen:
                            seen += told(await take(events, 1))
                    assert set(told(whole[number + 1 :])) <= set(seen)

        run(body())

    def test_after_close_nothing_works_and_watches_end(self, opened: Opened) -> None:
        async def body() -> None:
            async with opened() as store:
                start = (await store.list("BGPPeer")).revision
                events = store.watch("BGPPeer", revision=start)
                waiting = asyncio.create_task(take(events, 1))
                await store.apply(peer_key("a"), peer("a"))
                assert told(await waiting) == [("added", "a")]
                waiting = asyncio.create_task(take(events, 1))
                await asyncio.sleep(0)
                await store.close()
                with pytest.raises(Unavailable):
                    await waiting
                with pytest.raises(Unavailable):
                    await store.get(peer_key("a"))
                with pytest.raises(Unavailable):
                    await store.apply(peer_key("a"), peer("a"))

        run(body())
