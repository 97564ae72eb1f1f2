"""Typed resources over a real store: what must be said, what must not, what is filled in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.client import ResourceClient
from integration.datastore.errors import (
    AlreadyExists,
    DoesNotExist,
    Invalid,
    Unreadable,
    Unsupported,
    UpdateConflict,
)
from integration.datastore.local.driver import LocalDatastore
from integration.resources.base import Resource
from integration.resources.keys import Key
from integration.resources.kinds import KINDS
from integration.resources.models.bgp import BGPPeer
from integration.resources.models.endpoints import WorkloadEndpoint
from integration.resources.models.ipam import IPPool
from integration.resources.models.policy import GlobalNetworkPolicy, NetworkSet, Tier

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


def test_one_that_is_broken_hides_no_other_and_can_be_replaced_or_removed(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        good = await client.create(peer(name="good"))
        for name in ("bad", "worse"):
            await client.datastore.apply(Key("BGPPeer", name), {"metadata": {"name": name}, "spec": {"asNumber": []}})
        assert await client.list(BGPPeer) == [good]
        found, broken = await client.listing(BGPPeer)
        assert (found, [error.key.name for error in broken]) == ([good], ["bad", "worse"])
        with pytest.raises(Unreadable, match=r"spec\.asNumber"):
            await client.get(BGPPeer, "bad")
        assert (await client.apply(peer(name="bad"))).spec.as_number == 64512
        await client.remove(Key("BGPPeer", "worse"))
        assert [one.metadata.name for one in await client.list(BGPPeer)] == ["bad", "good"]

    play(story)


def pool(name: str, cidr: str, **spec: Any) -> IPPool:
    return IPPool.from_json({"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}})


def test_pools_overlap_no_other_and_stay_as_they_were_cut(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        made = await client.create(pool("a", "10.0.0.0/16"))
        for cidr in ("10.0.128.0/20", "10.0.0.0/8"):
            with pytest.raises(Invalid, match=r"spec\.cidr = .* overlaps with the 10\.0\.0\.0/16 of IPPool a"):
                await client.apply(pool("b", cidr))
        await client.create(pool("b", "10.1.0.0/16"))
        await client.create(pool("six", "fd00::/48"))
        with pytest.raises(Invalid, match=r"spec\.cidr.*cannot be changed from 10\.0\.0\.0/16"):
            await client.apply(pool("a", "10.2.0.0/16"))
        with pytest.raises(Invalid, match=r"spec\.blockSize.*cannot be changed from 26"):
            await client.apply(pool("a", "10.0.0.0/16", blockSize=28))
        made.spec.disabled = True
        assert (await client.update(made)).spec.disabled
        assert (await client.get(IPPool, "a")).spec.cidr == "10.0.0.0/16"

    play(story)


def test_a_policy_needs_its_tier_and_a_tier_outlives_its_policies(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        policy = GlobalNetworkPolicy.from_json(
            {"metadata": {"name": "ops.web"}, "spec": {"tier": "ops", "selector": "all()"}}
        )
        with pytest.raises(Unsupported, match="its tier ops does not exist; create the Tier ops first"):
            await client.create(policy)
        await client.create(Tier.from_json({"metadata": {"name": "ops"}, "spec": {"order": 5}}))
        made = await client.create(policy)
        assert made.metadata.labels["projectcalico.org/tier"] == "ops"
        with pytest.raises(Unsupported, match=r"tier ops is not empty: GlobalNetworkPolicy ops\.web is in it"):
            await client.delete(Tier, "ops")
        await client.delete(GlobalNetworkPolicy, "ops.web")
        await client.delete(Tier, "ops")
        with pytest.raises(Unsupported, match="built in"):
            await client.delete(Tier, "default")

    play(story)


def test_an_endpoints_name_is_made_of_its_parts(play: Callable[[Story], None]) -> None:
    def endpoint(name: str) -> WorkloadEndpoint:
        spec = {
            "orchestrator": "k8s",
            "node": "node-1",
            "pod": "web",
            "endpoint": "eth0",
            "interfaceName": "cali1",
            "ipNetworks": ["10.0.0.1/32"],
        }
        return WorkloadEndpoint.from_json({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})

    async def story(client: ResourceClient) -> None:
        with pytest.raises(Invalid, match="allowed: node--1-k8s-web-eth0"):
            await client.create(endpoint("node-1-k8s-web-eth0"))
        await client.create(endpoint("node--1-k8s-web-eth0"))

    play(story)


def test_the_profile_that_allows_all_is_nobodys_to_write(play: Callable[[Story], None]) -> None:
    async def story(client: ResourceClient) -> None:
        profile = KINDS["Profile"].model.from_json({"metadata": {"name": "projectcalico-default-allow"}, "spec": {}})
        assert isinstance(profile, Resource)
        with pytest.raises(Unsupported):
            await client.apply(profile)
        with pytest.raises(Unsupported):
            await client.remove(Key("Profile", "projectcalico-default-allow"))

    play(story)
