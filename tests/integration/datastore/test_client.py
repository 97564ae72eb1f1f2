"""Typed resources over a real store: what must be said, what must not, what is filled in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.client import ResourceClient
from integration.datastore.errors import AlreadyExists, DoesNotExist, Invalid, UpdateConflict
from integration.datastore.local.driver import LocalDatastore
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPPeer
from integration.resources.models.ipam import IPPool
from integration.resources.models.policy import NetworkSet

Story = Callable[[ResourceClient], Awaitable[None]]


def peer(**metadata: Any) -> BGPPeer:
    return BGPPeer.from_json({"metadata": metadata, "spec": {"peerIP": "192.0.2.1", "asNumber": 64512}})


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Story], None]:
    async def main(story: Story) -> None:
        store = LocalDatastore(tmp_path / "store.db")
        try:
            await story(ResourceClient(store))
        finally:
            await store.close()

    return lambda story: asyncio.run(main(story))


def test_a_resource_is_created_with_identity_and_defaults(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        made = await client.create(IPPool.from_json({"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16"}}))
        assert len(made.metadata.uid) == 36
        assert made.metadata.creation_timestamp.endswith("Z")
        assert made.metadata.resource_version
        stored = (await client.datastore.get(Key("IPPool", "p"))).value
        assert (stored["kind"], stored["apiVersion"]) == ("IPPool", "projectcalico.org/v3")
        assert stored["spec"]["blockSize"] == 26  # Calico's default for IPv4
        assert (await client.get(IPPool, "p")) == made
        with pytest.raises(AlreadyExists):
            await client.create(IPPool.from_json({"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16"}}))

    play(story)


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        (peer(), "metadata.name"),
        (peer(name="a", namespace="n"), "metadata.namespace"),
        (peer(name="a", resourceVersion="7"), "metadata.resourceVersion"),
        (peer(generateName="a-"), "metadata.generateName"),
        (NetworkSet.from_json({"metadata": {"name": "a"}, "spec": {}}), "metadata.namespace"),
        (BGPPeer.from_json({"metadata": {"name": "a"}, "spec": {"peerIP": "no address"}}), "spec.peerIP"),
    ],
)
def test_what_cannot_be_created_names_the_field(play: Callable[[Story], None], resource: Any, field: str) -> None:
    async def story(client: ResourceClient) -> None:
        with pytest.raises(Invalid) as raised:
            await client.create(resource)
        assert field in [problem.field for problem in raised.value.problems]
        assert await client.list(type(resource)) == []

    play(story)


def test_an_update_starts_from_what_was_read_and_wins_over_nobody(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        first = await client.create(peer(name="a"))
        first.spec.as_number = 65001
        second = await client.update(first)
        assert second.metadata.uid == first.metadata.uid
        with pytest.raises(UpdateConflict):
            await client.update(first)
        with pytest.raises(Invalid, match="start from what was read"):
            await client.update(peer(name="a"))

    play(story)


def test_apply_creates_and_then_replaces_with_the_identity_kept(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        with pytest.raises(DoesNotExist):
            await client.replace(peer(name="a"))
        made = await client.apply(peer(name="a"))
        again = peer(name="a")
        again.spec.as_number = 65001
        replaced = await client.apply(again)
        assert (replaced.spec.as_number, replaced.metadata.uid) == (65001, made.metadata.uid)
        assert replaced.metadata.creation_timestamp == made.metadata.creation_timestamp
        with pytest.raises(UpdateConflict):
            await client.apply(peer(name="a", resourceVersion=made.metadata.resource_version))
        assert (await client.delete(BGPPeer, "a")).spec.as_number == 65001
        with pytest.raises(DoesNotExist):
            await client.get(BGPPeer, "a")

    play(story)


def test_many_that_apply_at_once_all_get_their_turn(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        async def apply(number: int) -> None:
            mine = peer(name="a")
            mine.metadata.labels = {"by": str(number)}
            await client.apply(mine)

        await asyncio.gather(*(apply(number) for number in range(5)))
        assert (await client.get(BGPPeer, "a")).metadata.labels["by"] in "01234"

    play(story)
