"""The etcd datastore on bad days: servers that hang, forget, were restored from a backup, or end our tokens."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from integration.datastore.errors import RevisionGone, Unavailable
from integration.datastore.etcd.connection import EtcdSettings
from integration.datastore.etcd.driver import EtcdDatastore
from integration.datastore.syncer import Syncer
from tests.integration.datastore.contract import peer, peer_key, run, take, told
from tests.integration.datastore.etcd_servers import Etcd, etcd
from tests.integration.datastore.test_syncer import Seen

pytestmark = pytest.mark.interop


@asynccontextmanager
async def connected(endpoints: tuple[str, ...], **settings: object) -> AsyncIterator[EtcdDatastore]:
    store = EtcdDatastore(EtcdSettings(endpoints=endpoints, **settings))  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


def test_a_server_that_hangs_is_left_for_another(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server.endpoints) as store:
            await store.create(peer_key("a"), peer("a"))
            in_use = server.members[server.endpoints.index(store.connection.endpoint)]
            assert in_use.process is not None
            os.kill(in_use.process.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(9):  # a request's whole time would be 10 s
                    assert (await store.get(peer_key("a"))).key == peer_key("a")
                assert store.connection.endpoint != server.endpoints[server.members.index(in_use)]
            finally:
                os.kill(in_use.process.pid, signal.SIGCONT)

    with etcd(tmp_path, members=3) as server:
        run(body(server))


def test_the_watch_of_a_server_that_hangs_goes_on_at_another(tmp_path: Path) -> None:
    """Nothing but the connection's keepalive (10 s and 5 s) tells that it hangs."""

    async def body(server: Etcd) -> None:
        async with connected(server.endpoints) as store, connected(server.endpoints) as writer:
            start = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 2, timeout_s=40))
                await writer.create(peer_key("a"), peer("a"))
                in_use = server.members[server.endpoints.index(store.connection.endpoint)]
                while writer.connection.endpoint == store.connection.endpoint:
                    writer.connection.fail_over(writer.connection.endpoint)
                assert in_use.process is not None
                os.kill(in_use.process.pid, signal.SIGSTOP)
                try:
                    async with asyncio.timeout(10):
                        while True:
                            try:
                                await writer.apply(peer_key("b"), peer("b"))
                                break
                            except Unavailable:  # the leader hangs, another is being chosen
                                continue
                    assert [name for _, name in told(await waiting)] == ["a", "b"]
                finally:
                    os.kill(in_use.process.pid, signal.SIGCONT)

    with etcd(tmp_path, members=3) as server:
        run(body(server))


def test_a_cluster_restored_from_a_backup_is_listed_again(tmp_path: Path) -> None:
    """It counts revisions from the backup's on, so that a watch from a later one would wait without a word."""
    member_folder = tmp_path / "m0"

    async def body(server: Etcd) -> None:
        async with connected(server.endpoints, request_s=2.0) as store:
            await store.create(peer_key("a"), peer("a"))
            server.ctl("snapshot", "save", str(tmp_path / "backup"))
            for number in range(20):
                await store.apply(peer_key("a"), peer("a", asNumber=65000 + number))
            start = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 2))
                await store.create(peer_key("b"), peer("b"))
                server.members[0].kill()
                shutil.rmtree(member_folder)
                restored = ("--name", "m0", "--data-dir", str(member_folder))
                peers = f"http://127.0.0.1:{server.members[0].peer_port}"
                server.ctl(
                    "snapshot", "restore", str(tmp_path / "backup"), *restored,
                    "--initial-cluster", f"m0={peers}", "--initial-advertise-peer-urls", peers,
                )  # fmt: skip
                server.members[0].start()
                server.wait_ready()
                with pytest.raises(RevisionGone):
                    await waiting
            assert [entry.key.name for entry in (await store.list("BGPPeer")).entries] == ["a"]
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:  # as after a restart of ours
                with pytest.raises(RevisionGone):
                    await take(events, 1)

    with etcd(tmp_path) as server:
        run(body(server))


def test_a_syncer_tells_what_changed_while_its_server_was_away_and_its_history_gone(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        first, second = server.members[:2]
        async with connected(server.endpoints[:1], request_s=1.0) as store, connected(server.endpoints[1:]) as writer:
            for name in ("kept", "changed", "gone"):
                await writer.create(peer_key(name), peer(name))
            seen = Seen()
            running = asyncio.create_task(Syncer(store, ("BGPPeer",), seen).run())
            await seen.until(lambda: "in-sync" in seen.statuses)
            seen.told.clear()
            first.kill()
            await seen.until(lambda: seen.statuses[-1].startswith("lost: "))
            assert set(seen.stands) == {"kept", "changed", "gone"}
            await writer.apply(peer_key("changed"), peer("changed", asNumber=65001))
            await writer.delete(peer_key("gone"))
            last = await writer.create(peer_key("new"), peer("new"))
            await asyncio.to_thread(server.ctl, "compact", last.revision, member=second)
            first.start()
            await seen.until(lambda: seen.statuses[-1] == "back" and "new" in seen.stands)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        told_now = sorted((update.key.name, update.value is None, update.is_new) for update in seen.told)
        assert told_now == [("changed", False, False), ("gone", True, False), ("new", False, True)]
        assert seen.stands["changed"]["asNumber"] == 65001

    with etcd(tmp_path, members=3) as server:
        run(body(server))


def test_a_compaction_between_two_pages_lists_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integration.datastore.etcd.driver.PAGE", 3)

    async def body(server: Etcd) -> None:
        async with connected(server.endpoints) as store:
            for number in range(10):
                await store.create(peer_key(f"p{number}"), peer(f"p{number}"))
            call = store.connection.call
            pages = 0

            async def call_with_a_compaction(method: str, request: object, *, may_repeat: bool) -> object:
                nonlocal pages
                answer = await call(method, request, may_repeat=may_repeat)
                pages += 1
                if pages == 1:
                    monkeypatch.setattr(store.connection, "call", call)
                    last = await store.apply(peer_key("p0"), peer("p0", asNumber=65001))
                    await asyncio.to_thread(server.ctl, "compact", last.revision)
                return answer

            monkeypatch.setattr(store.connection, "call", call_with_a_compaction)
            listing = await store.list("BGPPeer")
            assert [entry.key.name for entry in listing.entries] == [f"p{number}" for number in range(10)]
            assert listing.entries[0].value["spec"]["asNumber"] == 65001

    with etcd(tmp_path) as server:
        run(body(server))


def test_a_token_that_ends_is_renewed(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server.endpoints, username="catbird", password="right") as store:
            await store.create(peer_key("a"), peer("a"))
            before = store.connection._token
            start = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 1))
                await asyncio.sleep(2.5)  # the server's clock decides
                await store.apply(peer_key("a"), peer("a", asNumber=65001))
                assert told(await waiting) == [("modified", "a")]
            assert store.connection._token != before

    with etcd(tmp_path, options=("--auth-token-ttl", "1")) as server:
        for command in (
            "user add root:root", "user grant-role root root", "user add catbird:right", "role add calico",
            "role grant-permission calico readwrite /calico/ --prefix", "user grant-role catbird calico", "auth enable",
        ):  # fmt: skip
            server.ctl(*command.split())
        run(body(server))


def test_a_password_for_a_server_that_wants_none_does_no_harm(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server.endpoints, username="root", password="x") as store:
            await store.create(peer_key("a"), peer("a"))

    with etcd(tmp_path) as server:
        run(body(server))


def test_a_member_that_was_never_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        nobody = "http://127.0.0.1:1"
        for _ in range(5):  # whichever is drawn first
            async with connected((nobody, *server.endpoints, nobody)) as store, asyncio.timeout(3):
                await store.apply(peer_key("a"), peer("a"))

    with etcd(tmp_path) as server:
        run(body(server))


def test_a_task_that_is_cancelled_while_the_store_closes_is_cancelled(tmp_path: Path) -> None:
    async def body() -> None:
        async with connected(("http://192.0.2.1:2379",)) as store:
            asking = asyncio.create_task(store.get(peer_key("a")))
            await asyncio.sleep(0)
            asking.cancel()
            await store.close()
            with pytest.raises(asyncio.CancelledError):
                await asking

    run(body())


def test_the_systems_authorities_are_trusted_if_none_is_named(tmp_path: Path) -> None:
    """In a process of its own, whose system trusts ours."""
    ca, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", ca],
        check=True, capture_output=True,
    )  # fmt: skip

    async def body(server: Etcd) -> None:
        async with connected(server.endpoints, request_s=2.0) as store:
            await store.check()

    options = ("--cert-file", str(ca), "--key-file", str(key))
    with etcd(tmp_path, scheme="https", options=options, ctl=("--cacert", str(ca))) as server:
        with pytest.raises(Unavailable, match="certificates"):
            run(body(server))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(ca))
            run(body(server))
