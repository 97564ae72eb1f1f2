"""The policy sync service with real gRPC clients on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from felix.desired import (
    InSync,
    IPSetDelta,
    IPSetUpdate,
    NamespaceUpdate,
    TierPolicies,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from integration.felixbackend import MESSAGES
from integration.node import policy_sync
from integration.node.policy_sync import Backlog, PolicySync, read_credentials
from tests.integration.node.test_policy_book import ONE, net, policy, short
from tests.integration.node.waiting import Log, until

POD = WorkloadId("k8s", "ns/pod", "eth0")
WORKLOAD = WorkloadUpdate(WorkloadEndpoint(POD, "cali1", tiers=(TierPolicies("default", ingress=(ONE,)),)))


def mount(prefix: Path, id: str = "csi-1", pod: str = "pod") -> Path:
    """As the CSI driver does: the directory first, then whose it is."""
    directory = prefix / "mount" / id
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)
    (prefix / "creds").mkdir(exist_ok=True)
    written = prefix / f".{id}"
    written.write_text(json.dumps({"UID": "u", "Workload": pod, "Namespace": "ns", "ServiceAccount": "sa"}))
    written.rename(prefix / "creds" / f"{id}.json")
    return directory / "socket"


class Stream:
    """A Dikastes."""

    def __init__(self, socket: Path) -> None:
        # A pool of its own: gRPC would share one connection between channels to one address.
        self.channel = grpc.aio.insecure_channel(f"unix:{socket}", options=(("grpc.use_local_subchannel_pool", 1),))
        self.call = self.channel.unary_stream("/felix.PolicySync/Sync")(b"")

    async def next(self) -> str:
        return short(MESSAGES["ToDataplane"].FromString(await self.octets()))

    async def octets(self) -> bytes:
        async with asyncio.timeout(10):
            octets = await self.call.read()
        if octets is grpc.aio.EOF:
            raise EOFError
        assert isinstance(octets, bytes)
        return octets

    async def until(self, last: str) -> list[str]:
        found = [await self.next()]
        while found[-1] != last:
            found.append(await self.next())
        return found


def run(prefix: Path, scene: Callable[[PolicySync, Log], Awaitable[None]], report: Any = None) -> Log:
    log = Log()

    async def running() -> None:
        sync = PolicySync(str(prefix), log, report)
        task = asyncio.create_task(sync.run())
        try:
            await scene(sync, log)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(running())
    return log


@pytest.fixture(autouse=True)
def joins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_sync, "LEAST_BETWEEN_JOINS_S", 0.0)


def test_a_client_is_told_the_policies_of_the_workload_whose_socket_it_has(tmp_path: Path) -> None:
    socket = mount(tmp_path)

    async def scene(sync: PolicySync, log: Log) -> None:
        for message in (net("a", "10.0.0.1/32"), policy(ONE, "a"), WORKLOAD, NamespaceUpdate("ns")):
            sync.on_message(message)
        await until(socket.exists, "the socket is there")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o777
        client = Stream(socket)
        assert await client.until("namespace ns") == ["set a", "policy one", "workload ns/pod", "namespace ns"]
        sync.on_message(InSync())
        assert await client.next() == "in_sync"
        sync.on_message(IPSetDelta("a", frozenset({"10.0.0.2/32"})))
        assert await client.next() == "delta a"
        sync.on_message(WorkloadRemove(POD))
        assert await client.next() == "-workload ns/pod"
        with pytest.raises(EOFError):
            await client.next()

    log = run(tmp_path, scene)
    assert log.named("policy_sync_open") == [{"workload": "ns/pod", "volume": "csi-1"}]
    assert not socket.exists()


def test_a_second_client_of_a_workload_ends_the_first(tmp_path: Path) -> None:
    socket = mount(tmp_path)

    async def scene(sync: PolicySync, log: Log) -> None:
        sync.on_message(InSync())
        await until(socket.exists)
        first = Stream(socket)
        assert await first.next() == "in_sync"
        second = Stream(socket)
        assert await second.next() == "in_sync"
        with pytest.raises(EOFError):
            await first.next()
        sync.on_message(NamespaceUpdate("ns"))
        assert await second.next() == "namespace ns"

    run(tmp_path, scene)


def test_a_client_that_leaves_is_forgotten(tmp_path: Path) -> None:
    socket = mount(tmp_path)

    async def scene(sync: PolicySync, log: Log) -> None:
        sync.on_message(InSync())
        await until(socket.exists)
        client = Stream(socket)
        assert await client.next() == "in_sync"
        assert len(sync.book._clients) == 1
        await client.channel.close()
        await until(lambda: not sync.book._clients, "it is forgotten")

    run(tmp_path, scene)


def test_sockets_come_and_go_with_the_credentials(tmp_path: Path) -> None:
    async def scene(sync: PolicySync, log: Log) -> None:
        sockets = [mount(tmp_path, f"csi-{number}", f"pod-{number}") for number in range(3)]
        await until(lambda: all(socket.exists() for socket in sockets), "all are there")
        (tmp_path / "creds" / "csi-1.json").unlink()
        await until(lambda: not sockets[1].exists(), "one is gone")
        assert sockets[0].exists()
        assert mount(tmp_path, "csi-1", "pod-9") == sockets[1]
        await until(sockets[1].exists, "and there again")
        await until(lambda: len(log.named("policy_sync_open")) == 4, "all are told")
        opened = [fields["workload"] for fields in log.named("policy_sync_open")]
        assert sorted(opened) == ["ns/pod-0", "ns/pod-1", "ns/pod-2", "ns/pod-9"]

    run(tmp_path, scene)


def test_other_credentials_for_a_volume_end_its_clients(tmp_path: Path) -> None:
    socket = mount(tmp_path)

    async def scene(sync: PolicySync, log: Log) -> None:
        sync.on_message(InSync())
        await until(socket.exists)
        client = Stream(socket)
        assert await client.next() == "in_sync"
        mount(tmp_path, pod="other")
        with pytest.raises((EOFError, grpc.aio.AioRpcError)):
            await client.next()
        await until(lambda: len(log.named("policy_sync_open")) == 2)
        assert log.named("policy_sync_open")[1]["workload"] == "ns/other"

    run(tmp_path, scene)


def test_what_lies_in_the_sockets_place_is_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    socket = mount(tmp_path)
    socket.symlink_to(secret)

    async def scene(sync: PolicySync, log: Log) -> None:
        await until(lambda: socket.exists() and stat.S_ISSOCK(socket.lstat().st_mode), "a socket stands there")

    run(tmp_path, scene)
    assert secret.read_text() == "x"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_link_put_in_the_sockets_place_at_the_last_moment_gets_no_mode(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    (tmp_path / "socket").symlink_to(secret)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="no longer the socket"):
        policy_sync.open_to_all("socket", directory)
    os.close(directory)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_mount_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mount(tmp_path)
    (tmp_path / "mount" / "csi-1").rmdir()
    (tmp_path / "mount" / "csi-1").symlink_to(elsewhere)

    async def scene(sync: PolicySync, log: Log) -> None:
        await until(lambda: log.named("policy_sync_failed"), "it is told")

    run(tmp_path, scene)
    assert list(elsewhere.iterdir()) == []


def test_one_broken_volume_is_told_once_and_harms_no_other(tmp_path: Path) -> None:
    mount(tmp_path, "bad")
    (tmp_path / "creds" / "bad.json").write_text("{")
    mount(tmp_path, "long" * 50)
    good = mount(tmp_path, "good", "fine")
    (tmp_path / "creds" / "no-mount.json").write_text((tmp_path / "creds" / "good.json").read_text())
    (tmp_path / "creds" / "notes.txt").write_text("not ours")

    async def scene(sync: PolicySync, log: Log) -> None:
        await until(good.exists)
        for _ in range(3):
            sync._full_look_at = 0
            await sync.look()
        (tmp_path / "mount" / "no-mount").mkdir()
        sync._full_look_at = 0
        await sync.look()
        assert (tmp_path / "mount" / "no-mount" / "socket").exists()
        assert (tmp_path / "mount" / ("long" * 50) / "socket").exists()

    log = run(tmp_path, scene)
    assert sorted(str(fields["volume"]) for fields in log.named("policy_sync_failed")) == ["bad", "no-mount"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"Namespace": "ns"}', '{"Namespace": "", "Workload": "p"}', '{"Namespace": 1, "Workload": 2}',
             "[" * 60_000, " " * 70_000]
)  # fmt: skip
def test_broken_credentials_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json"):
        read_credentials(path)


def test_credentials_are_read_whatever_their_case(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"Uid": "u", "namespace": "ns", "WORKLOAD": "pod"}')
    assert read_credentials(path) == POD


def test_reports_reach_who_wants_them_and_garbage_is_refused(tmp_path: Path) -> None:
    socket = mount(tmp_path)
    reports: list[tuple[WorkloadId, Any]] = []

    async def scene(sync: PolicySync, log: Log) -> None:
        await until(socket.exists)
        report = grpc.aio.insecure_channel(f"unix:{socket}").unary_unary("/felix.PolicySync/Report")
        answer = await report(MESSAGES["DataplaneStats"](src_ip="1.2.3.4").SerializeToString(), timeout=5)
        assert MESSAGES["ReportResult"].FromString(answer).successful
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await report(b"\xff\xff", timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(tmp_path, scene, lambda workload, stats: reports.append((workload, stats)))
    assert [(workload, stats.src_ip) for workload, stats in reports] == [(POD, "1.2.3.4")]


def test_a_client_that_takes_nothing_holds_up_nobody_and_must_start_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_sync, "MAX_BACKLOG_OCTETS", 1 << 20)
    slow_socket, quick_socket = mount(tmp_path), mount(tmp_path, "csi-2", "quick")
    members = frozenset(f"10.0.{number >> 8}.{number & 255}/32" for number in range(60_000))

    async def scene(sync: PolicySync, log: Log) -> None:
        for message in (policy(ONE, "a"), WORKLOAD, net("a"), InSync()):
            sync.on_message(message)
        await until(lambda: slow_socket.exists() and quick_socket.exists())
        slow, quick = Stream(slow_socket), Stream(quick_socket)
        await slow.until("in_sync")
        await quick.until("in_sync")
        for _ in range(30):  # 1 MB each, far more than sockets and gRPC hold
            sync.on_message(IPSetUpdate("a", "net", members))
            await asyncio.sleep(0)
        sync.on_message(NamespaceUpdate("ns"))
        assert await quick.next() == "namespace ns"
        await until(lambda: log.named("policy_sync_lagging"), "it is noticed")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await slow.until("nothing that ever comes")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        again = Stream(slow_socket)
        assert (await again.until("in_sync"))[0] == "set a"

    run(tmp_path, scene)


def test_what_a_client_is_told_at_the_start_may_be_larger_than_the_limit() -> None:
    async def scene() -> None:
        backlog = Backlog()
        for _ in range(3):
            backlog.send(bytes(policy_sync.MAX_BACKLOG_OCTETS))
        backlog.begin_limit()
        backlog.send(b"x")
        backlog.close()
        sizes = []
        while (octets := await backlog.next()) is not None:
            sizes.append(len(octets))
        assert sizes == [policy_sync.MAX_BACKLOG_OCTETS] * 3 + [1]

    asyncio.run(scene())


def test_a_client_that_joins_again_and_again_is_slowed_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_sync, "LEAST_BETWEEN_JOINS_S", 0.2)
    socket = mount(tmp_path)

    async def scene(sync: PolicySync, log: Log) -> None:
        sync.on_message(InSync())
        await until(socket.exists)
        began_at = asyncio.get_running_loop().time()
        for _ in range(4):
            assert await Stream(socket).next() == "in_sync"
        assert asyncio.get_running_loop().time() - began_at >= 0.6

    run(tmp_path, scene)
