"""The configuration of a node as its datastore changes, with a real store and without a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bgp.config import SpeakerConfig
from integration.bgpconfig import Environment
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.syncer import Update
from integration.logs import EventLog
from integration.node.control import ReloadRefused
from integration.node.datastore_source import DatastoreSource
from integration.resources.keys import Key

Story = Callable[[LocalDatastore, DatastoreSource, "Lines"], Awaitable[None]]


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, line: str) -> None:
        self.text += line


def node(name: str, address: str) -> tuple[Key, dict[str, object]]:
    spec = {"bgp": {"ipv4Address": address}}
    return Key("Node", name), {"kind": "Node", "metadata": {"name": name}, "spec": spec}


def peer(name: str, address: str, asn: int = 65001) -> tuple[Key, dict[str, object]]:
    spec = {"peerIP": address, "asNumber": asn}
    return Key("BGPPeer", name), {"kind": "BGPPeer", "metadata": {"name": name}, "spec": spec}


def play(directory: Path, story: Story, **more: object) -> None:
    async def main() -> None:
        store, lines = LocalDatastore(directory / "store.db"), Lines()
        await store.create(*node("n1", "10.0.0.1/24"))
        log = EventLog(lines.write, log_format="json", level="info", colors=False)
        source = DatastoreSource(store, "local", "n1", Environment(), log, writes_routes=False)
        for name, value in more.items():
            setattr(source, name, value)
        task = asyncio.create_task(source.run())
        try:
            async with asyncio.timeout(30):
                await source.in_sync.wait()
                await story(store, source, lines)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()

    asyncio.run(main())


def names(config: SpeakerConfig) -> list[str]:
    return [peer.name for peer in config.peers]


def test_a_written_peer_is_in_the_next_configuration_with_its_cause(tmp_path: Path) -> None:
    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        assert names(source.load()) == []
        await store.create(*peer("tor", "10.0.0.254"))
        assert await source.changed() == "BGPPeer tor"
        assert names(source.load()) == ["Global_10_0_0_254"]
        assert source.view()["sources"] == {"Global_10_0_0_254": ["BGPPeer tor"]}
        await store.create(*node("n2", "10.0.0.2/24"))
        assert await source.changed() == "Node n2"
        assert names(source.load()) == ["Global_10_0_0_254", "Mesh_10_0_0_2"]

    play(tmp_path, story)


def test_what_others_keep_to_themselves_is_no_change(tmp_path: Path) -> None:
    """Secrets of other namespaces are not even asked for."""

    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()
        secret = {"kind": "Secret", "metadata": {"name": "s", "namespace": "other"}, "data": {}}
        await store.create(Key("Secret", "s", "other"), secret)
        await store.create(*peer("tor", "10.0.0.254"))
        assert await source.changed() == "BGPPeer tor"

    play(tmp_path, story)


async def wakes_nobody(source: DatastoreSource, *updates: Update) -> None:
    waiting = asyncio.create_task(source.changed())
    for update in updates:
        source.updates([update])
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done(), update
    waiting.cancel()


def test_what_changes_nothing_of_the_configuration_wakes_nobody(tmp_path: Path) -> None:
    """Kubelet tells of its Node every few seconds, and of each pod several times."""

    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()
        source.applied()
        key, value = node("n1", "10.0.0.1/24")
        told = {**value, "metadata": {"name": "n1", "annotations": {"seen": "now"}, "resourceVersion": "7"}}
        pod = {"kind": "WorkloadEndpoint", "metadata": {"name": "w", "namespace": "a"}, "spec": {"node": "n1"}}
        await wakes_nobody(source, Update(key, told), Update(Key("WorkloadEndpoint", "w", "a"), pod))
        await store.create(*peer("tor", "10.0.0.254"))
        assert await source.changed() == "BGPPeer tor"

    play(tmp_path, story)


def test_what_was_refused_is_tried_again_at_the_next_change(tmp_path: Path) -> None:
    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()  # and not applied: a port is in use, say
        await store.apply(*node("n1", "10.0.0.1/24"))
        source.updates([Update(*node("n1", "10.0.0.1/24"))])
        assert await source.changed() == "Node n1"

    play(tmp_path, story)


def test_pods_of_other_nodes_are_not_kept(tmp_path: Path) -> None:
    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        for name, on in (("w1", "n1"), ("w2", "n2")):
            value = {"kind": "WorkloadEndpoint", "metadata": {"name": name, "namespace": "a"}, "spec": {"node": on}}
            source.updates([Update(Key("WorkloadEndpoint", name, "a"), value)])
        assert [key.name for key in source.kept("WorkloadEndpoint")] == ["w1"]
        source.updates([Update(Key("WorkloadEndpoint", "w1", "a"), None)])
        assert source.kept("WorkloadEndpoint") == []

    play(tmp_path, story)


def test_a_problem_is_told_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()
        await store.create(*peer("tor", "10.0.0.254", asn=0))
        await source.changed()
        for _ in range(3):
            assert names(source.load()) == []
        assert lines.text.count('"resource_problem"') == 1
        assert source.numbers()["resource_problems"] == 1
        await store.apply(*peer("tor", "10.0.0.254"))
        await source.changed()
        assert names(source.load()) == ["Global_10_0_0_254"]
        assert lines.text.count('"resource_problem_gone"') == 1
        assert source.view()["problems"] == []

    play(tmp_path, story)


def test_the_last_configuration_stays_when_our_node_is_deleted(tmp_path: Path) -> None:
    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()
        await store.delete(Key("Node", "n1"))
        await source.changed()
        with pytest.raises(ReloadRefused, match="no Node n1"):
            source.load()
        await store.create(*node("n1", "10.0.0.1/24"))
        await source.changed()
        source.load()

    play(tmp_path, story)


def test_a_storm_of_changes_leaves_rests(tmp_path: Path) -> None:
    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()
        source.applied()
        loads, writing = 0, True

        async def write() -> None:
            nonlocal writing
            for number in range(300):
                await store.create(*peer(f"p{number:03}", f"10.1.{number // 250}.{number % 250 + 1}"))
            writing = False

        task = asyncio.create_task(write())
        while writing or len(names(source.load())) < 300:
            await source.changed()
            source.load()
            await asyncio.sleep(0.02)  # what taking it over costs
            source.applied()
            loads += 1
        await task
        assert loads < 100

    play(tmp_path, story)


def test_a_fault_of_ours_is_told_and_nothing_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integration.node.following.BEGIN_AGAIN_S", 0.01)

    async def story(store: LocalDatastore, source: DatastoreSource, lines: Lines) -> None:
        source.load()
        right, has_failed = source.updates, False

        def updates(batch: list[Update]) -> None:
            nonlocal has_failed
            if not has_failed:
                has_failed = True
                raise RuntimeError("a fault")
            right(batch)

        source.updates = updates  # type: ignore[method-assign]
        await store.create(*peer("tor", "10.0.0.254"))
        await source.changed()
        while names(source.load()) != ["Global_10_0_0_254"]:
            await source.changed()
        assert "RuntimeError: a fault" in lines.text

    play(tmp_path, story)
