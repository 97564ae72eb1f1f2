"""CalicoNodeStatus as it comes to stand in the datastore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.datastore.api import Entry, Value
from integration.datastore.client import ResourceClient
from integration.datastore.errors import Unavailable
from integration.datastore.local.driver import LocalDatastore
from integration.node.node_status import KIND, MOST_ROUTES, NodeStatusReporter, Views
from integration.resources.keys import Key
from integration.resources.models.nodes import CalicoNodeStatus
from integration.resources.validate import validate
from integration.version import VERSION
from tests.bgp.world import Told, originate
from tests.bgp.world import World as Speakers
from tests.bgp.world import peer as peer_table

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
Object = dict[str, Any]


def peer(name: str, address: str, state: str, since_s: float) -> Object:
    return {"name": name, "address": address, "state": state, "since_s": since_s}


class Speaker:
    """What it tells; tests change it."""

    def __init__(self) -> None:
        self.summary: Object | None = {"router_id": "10.0.0.1", "uptime_s": 3600.2}
        self.peers = [
            peer("Mesh_10_0_0_2", "10.0.0.2", "Established", 60.0),
            peer("Node_10_0_0_9_port_1790", "10.0.0.9", "Active", 7.0),
            peer("Global_fd00__3", "fd00::3", "Established", 1.0),
            peer("Local_Workload_10_0_0_77", "10.0.0.77", "Established", 1.0),
            peer("Node_10_0_0_8", "10.0.0.8", "Gone", 1.0),
        ]
        self.routes: list[Object | None] = [
            {"prefix": "10.1.0.0/26", "paths": [
                {"peer": "Mesh_10_0_0_2", "source": "ibgp", "state": "best", "next_hop": "10.0.0.2", "interface": "eth0"},
                {"peer": "Node_10_0_0_9_port_1790", "source": "ebgp", "state": "candidate", "next_hop": "10.0.0.9", "interface": "eth1"},
                {"peer": "Node_10_0_0_9_port_1790", "source": "ebgp", "state": "rejected", "next_hop": "10.0.0.9", "interface": ""},
            ]},
            None,
            {"prefix": "10.1.1.0/26", "paths": [
                {"peer": "originate", "source": "originate", "state": "best", "next_hop": None, "interface": ""}]},
            {"prefix": "10.1.1.1/32", "paths": [
                {"peer": "kernel", "source": "kernel", "state": "best", "next_hop": None, "interface": "cali1"}]},
            {"prefix": "fd01::/64", "paths": [
                {"peer": "Local_Workload_10_0_0_77", "source": "ebgp", "state": "best", "next_hop": "fd00::77", "interface": "cali7"}]},
        ]  # fmt: skip

    @property
    def views(self) -> Views:
        return Views(lambda: self.summary, lambda: self.peers, lambda: iter(self.routes))


class Scene:
    def __init__(self, datastore: LocalDatastore) -> None:
        self.datastore = datastore
        self.client = ResourceClient(datastore)
        self.speaker, self.log = Speaker(), Told()
        self.now = NOW

    async def ask(
        self, name: str = "s", node: str = "n1", period_s: int = 0, classes: str = "Agent BGP Routes"
    ) -> None:
        spec = {"node": node, "classes": classes.split(), "updatePeriodSeconds": period_s}
        await self.client.apply(CalicoNodeStatus.from_json({"metadata": {"name": name}, "spec": spec}))

    async def until(self, is_there: Callable[[Object], bool], name: str = "s") -> Object:
        """The resource's status, once it is as wanted."""
        async with asyncio.timeout(10):
            listing = await self.datastore.list(KIND)
            found = {entry.key.name: entry.value.get("status") or {} for entry in listing.entries}
            if is_there(found.get(name, {})):
                return found[name]
            watch = self.datastore.watch(KIND, revision=listing.revision)
            async for event in watch:
                if event.entry and event.entry.key.name == name and is_there(event.entry.value.get("status") or {}):
                    await watch.aclose()
                    status: Object = event.entry.value["status"]
                    return status
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        reporter = NodeStatusReporter(self.client, "n1", self.log, self.speaker.views, clock=lambda: self.now)
        running = asyncio.create_task(reporter.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


Story = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    async def main(story: Story, kind: type[LocalDatastore]) -> None:
        store = kind(tmp_path / "store.db")
        try:
            await story(Scene(store))
        finally:
            await store.close()

    return lambda story, kind=LocalDatastore: asyncio.run(main(story, kind))


def written(status: Object) -> bool:
    return "lastUpdated" in status


def test_all_classes_are_told_in_calicos_form(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.ask()
        async with scene.reporting():
            status = await scene.until(written)
        agent = {
            "state": "Ready", "version": f"catbird-{VERSION}", "routerID": "10.0.0.1",
            "lastBootTime": "2027-01-15T06:59:59Z", "lastReconfigurationTime": "2027-01-15T06:59:59Z",
        }  # fmt: skip
        assert status["agent"] == {"birdV4": agent, "birdV6": agent}
        assert status["bgp"] == {
            "numberEstablishedV4": 1, "numberNotEstablishedV4": 1, "numberEstablishedV6": 1, "numberNotEstablishedV6": 0,
            "peersV4": [
                {"peerIP": "10.0.0.2", "type": "NodeMesh", "state": "Established", "since": "2027-01-15T07:59:00Z"},
                {"peerIP": "10.0.0.9", "type": "NodePeer", "state": "Active", "since": "2027-01-15T07:59:53Z"},
            ],
            "peersV6": [
                {"peerIP": "fd00::3", "type": "GlobalPeer", "state": "Established", "since": "2027-01-15T07:59:59Z"}
            ],
        }  # fmt: skip
        rows = [(row["type"], row["destination"], row["gateway"], row["interface"], row["learnedFrom"])
                for row in status["routes"]["routesV4"]]  # fmt: skip
        assert rows == [
            ("FIB", "10.1.0.0/26", "10.0.0.2", "eth0", {"sourceType": "NodeMesh", "peerIP": "10.0.0.2"}),
            ("RIB", "10.1.0.0/26", "10.0.0.9", "eth1", {"sourceType": "BGPPeer", "peerIP": "10.0.0.9"}),
            ("FIB", "10.1.1.0/26", "N/A", "blackhole", {"sourceType": "Static"}),
            ("FIB", "10.1.1.1/32", "N/A", "cali1", {"sourceType": "Kernel"}),
        ]
        # A workload's route does not fail the whole report.
        assert status["routes"]["routesV6"][0]["learnedFrom"] == {"sourceType": "BGPPeer", "peerIP": "10.0.0.77"}
        assert status["lastUpdated"] == "2027-01-15T08:00:00Z"
        assert validate(await scene.client.get(CalicoNodeStatus, "s")) == []

    play(story)


def test_only_what_is_asked_for_and_only_for_this_node(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.ask("other", node="n2")
        await scene.ask("s", classes="BGP")
        async with scene.reporting():
            assert set(await scene.until(written)) == {"bgp", "lastUpdated"}
            await scene.ask("later", classes="Agent")
            assert set(await scene.until(written, "later")) == {"agent", "lastUpdated"}
        assert "status" not in (await scene.datastore.get(Key(KIND, "other"))).value

    play(story)


def test_a_period_brings_what_changed(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.ask(period_s=1, classes="BGP")
        async with scene.reporting():
            await scene.until(written)
            scene.now += 100
            scene.speaker.peers[0] = peer("Mesh_10_0_0_2", "10.0.0.2", "Idle", 3.0)
            status = await scene.until(lambda status: status["bgp"]["numberEstablishedV4"] == 0)
        assert status["bgp"]["peersV4"][0]["since"] == "2027-01-15T08:01:37Z"
        assert status["lastUpdated"] == "2027-01-15T08:01:40Z"

    play(story)


def test_nothing_is_written_if_nothing_changed(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        asked = asyncio.Event()
        await scene.ask(period_s=1, classes="BGP")
        async with scene.reporting():
            await scene.until(written)
            before = await scene.datastore.get(Key(KIND, "s"))
            # Time goes by, a little unevenly: the moments are the same ones.
            scene.now += 50
            scene.speaker.peers = [each | {"since_s": each["since_s"] + 49.4} for each in scene.speaker.peers]
            views, told = scene.speaker.peers, 0

            class Counting(list[Object]):
                def __iter__(self) -> Any:
                    nonlocal told
                    told += 1
                    if told == 2:
                        asked.set()
                    return iter(views)

            scene.speaker.peers = Counting()
            await asyncio.wait_for(asked.wait(), 10)
        assert await scene.datastore.get(Key(KIND, "s")) == before

    play(story)


def test_a_changed_spec_is_told_at_once_and_a_deleted_one_no_more(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        await scene.ask(period_s=86400, classes="BGP")
        async with scene.reporting():
            await scene.until(written)
            await scene.ask(period_s=86400, classes="Agent")
            assert "agent" in await scene.until(lambda status: "agent" in status)
            await scene.ask(period_s=1, classes="Agent")
            await scene.datastore.delete(Key(KIND, "s"))
            await scene.ask("after", classes="BGP")
            await scene.until(written, "after")
        assert [entry.key.name for entry in (await scene.datastore.list(KIND)).entries] == ["after"]
        assert scene.log.named("node_status_failed") == []

    play(story)


def test_a_speaker_that_is_not_ready(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        scene.speaker.summary = None
        await scene.ask(classes="Agent")
        async with scene.reporting():
            status = await scene.until(written)
        assert status["agent"] == {"birdV4": {"state": "NotReady"}, "birdV6": {"state": "NotReady"}}

    play(story)


class Contended(LocalDatastore):
    """Somebody writes an annotation just before our first updates; then the store is away for a moment."""

    rivals, absences = 3, 2

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        if key.kind == KIND and self.rivals:
            self.rivals -= 1
            current = (await self.get(key)).value
            current["metadata"]["annotations"] = {"rival": str(self.rivals)}
            await super().apply(key, current)
        elif key.kind == KIND and self.absences:
            self.absences -= 1
            raise Unavailable("nobody listens there")
        return await super().update(key, value, revision=revision)


def test_conflicts_and_absences_are_gone_over_and_the_rivals_write_stays(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        spec = {"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 0}
        await scene.client.create(CalicoNodeStatus.from_json({"metadata": {"name": "s"}, "spec": spec}))
        async with scene.reporting():
            await scene.until(written)
        metadata = (await scene.datastore.get(Key(KIND, "s"))).value["metadata"]
        assert metadata["annotations"] == {"rival": "0"}
        assert scene.log.named("node_status_failed") == [
            {"level": "warning", "resource": "s", "error": "nobody listens there"}
        ]

    play(story, Contended)


def test_a_view_that_fails_is_told_and_tried_again(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        good, scene.speaker.peers = scene.speaker.peers, [{"name": "Mesh_10_0_0_2"}]
        await scene.ask(classes="BGP")
        async with scene.reporting():
            async with asyncio.timeout(10):
                while not scene.log.named("node_status_failed"):  # noqa: ASYNC110 (a log has nothing to wait for)
                    await asyncio.sleep(0.01)
            scene.speaker.peers = good
            await scene.until(written)
        assert scene.log.named("node_status_failed")[0]["error"] == "KeyError: 'state'"

    play(story)


def test_more_routes_than_fit_are_cut_and_told(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        path = {"peer": "kernel", "source": "kernel", "state": "best", "next_hop": None, "interface": "cali1"}
        scene.speaker.routes = [
            {"prefix": f"10.{number >> 8}.{number & 255}.0/24", "paths": [path]} for number in range(MOST_ROUTES + 1)
        ]
        await scene.ask(classes="Routes")
        async with scene.reporting():
            status = await scene.until(written)
        assert len(status["routes"]["routesV4"]) == MOST_ROUTES
        assert scene.log.named("node_status_cut")[0]["routes"] == MOST_ROUTES

    play(story)


def test_a_real_speakers_views(play: Callable[..., None]) -> None:
    speakers = Speakers()
    mesh = {"import": "accept", "export": "accept"}
    one = speakers.node("10.0.0.1", originate("10.1.0.0/26") + peer_table(2, name="Mesh_10_0_0_2", **mesh)
                        + peer_table(3, name="Node_10_0_0_3", **mesh))  # fmt: skip
    speakers.node("10.0.0.2", originate("10.2.0.0/26") + peer_table(1, name="Mesh_10_0_0_1", **mesh))
    speakers.start()
    speakers.run(2.0)

    async def story(scene: Scene) -> None:
        speaker = one.speaker
        views = Views(
            lambda: speaker.summary(speakers.now),
            lambda: speaker.peers_view(speakers.now),
            lambda: speaker.routes_view(which="all"),
        )
        await scene.ask()
        reporter = NodeStatusReporter(scene.client, "n1", scene.log, views)
        running = asyncio.create_task(reporter.run())
        status = await scene.until(written)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert status["agent"]["birdV4"]["routerID"] == "10.0.0.1"
        peers = [(each["peerIP"], each["type"], each["state"] == "Established") for each in status["bgp"]["peersV4"]]
        assert peers == [("10.0.0.2", "NodeMesh", True), ("10.0.0.3", "NodePeer", False)]
        learned = {row["destination"]: row["learnedFrom"] for row in status["routes"]["routesV4"]}
        assert learned == {
            "10.1.0.0/26": {"sourceType": "Static"},
            "10.2.0.0/26": {"sourceType": "NodeMesh", "peerIP": "10.0.0.2"},
        }
        assert validate(await scene.client.get(CalicoNodeStatus, "s")) == []

    play(story)
