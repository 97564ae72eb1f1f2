"""The etcd datastore against real servers: one, one with TLS and with users, and three of which some die."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from integration.datastore.api import Datastore
from integration.datastore.errors import (
    AlreadyExists,
    DoesNotExist,
    RevisionGone,
    Unauthorized,
    Unavailable,
    UpdateConflict,
)
from integration.datastore.etcd.connection import EtcdSettings
from integration.datastore.etcd.driver import EtcdDatastore
from integration.datastore.etcd.opening import open_etcd
from integration.datastore.settings import load_settings, open_datastore
from integration.resources.keys import Key, affinity_key, block_key
from tests.integration.datastore.contract import Contract, Opened, block, peer, peer_key, policy, run, take, told
from tests.integration.datastore.etcd_servers import Etcd, etcd

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def empty(server: Etcd) -> Etcd:
    server.ctl("del", "", "--prefix")
    return server


@asynccontextmanager
async def connected(server: Etcd, **settings: object) -> AsyncIterator[EtcdDatastore]:
    store = EtcdDatastore(EtcdSettings(endpoints=server.endpoints, **settings))  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


class TestEtcd(Contract):
    has_old_values = True

    @pytest.fixture
    def opened(self, empty: Etcd) -> Opened:
        @asynccontextmanager
        async def opening() -> AsyncIterator[Datastore]:
            async with connected(empty) as store:
                yield store

        return opening


def test_keys_and_values_are_calicos(empty: Etcd) -> None:
    async def body() -> None:
        async with connected(empty) as store:
            await store.create(peer_key("rr"), peer("rr"))
            await store.create(Key("NetworkPolicy", "p", "ns"), policy("p", "ns"))
            await store.create(block_key("10.1.0.0/26"), block("10.1.0.0/26", "node1"))
            await store.create(affinity_key("host:node1", "10.1.0.0/26"), {"state": "confirmed", "deleted": False})

    run(body())
    assert empty.ctl("get", "", "--prefix", "--keys-only").split() == [
        "/calico/ipam/v2/assignment/ipv4/block/10.1.0.0-26",
        "/calico/ipam/v2/host/node1/ipv4/block/10.1.0.0-26",
        "/calico/resources/v3/projectcalico.org/bgppeers/rr",
        "/calico/resources/v3/projectcalico.org/networkpolicies/ns/p",
    ]
    stored = empty.ctl("get", "--print-value-only", "/calico/resources/v3/projectcalico.org/bgppeers/rr")
    assert "resourceVersion" not in stored
    assert '"peerIP":"192.0.2.1"' in stored


def test_what_others_wrote_badly_is_named_and_the_rest_is_read(empty: Etcd) -> None:
    empty.ctl("put", "/calico/resources/v3/projectcalico.org/bgppeers/broken", "{half")
    empty.ctl("put", "/calico/resources/v3/projectcalico.org/bgppeers/a/b/c", "{}")

    async def body() -> None:
        async with connected(empty) as store:
            await store.create(peer_key("a"), peer("a"))
            listing = await store.list("BGPPeer")
            assert [entry.key.name for entry in listing.entries] == ["a"]
            assert [error.key.name for error in listing.unreadable] == ["broken"]

    run(body())


def test_a_list_longer_than_a_page_is_of_one_moment(empty: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integration.datastore.etcd.driver.PAGE", 7)

    async def body() -> None:
        async with connected(empty) as store:
            await asyncio.gather(*(store.create(peer_key(f"p{n:03}"), peer(f"p{n:03}")) for n in range(100)))
            listing = await store.list("BGPPeer")
            assert [entry.key.name for entry in listing.entries] == [f"p{n:03}" for n in range(100)]
            assert int(listing.revision) >= max(int(entry.revision) for entry in listing.entries)

    run(body())


def test_after_a_compaction_the_watch_says_that_it_must_list_again(empty: Etcd) -> None:
    async def body() -> None:
        async with connected(empty) as store:
            first = await store.create(peer_key("a"), peer("a"))
            for number in range(5):
                last = await store.apply(peer_key("a"), peer("a", asNumber=65000 + number))
            empty.ctl("compact", last.revision)
            with pytest.raises(RevisionGone):
                async with aclosing(store.watch("BGPPeer", revision=first.revision)) as events:
                    await take(events, 1)
            with pytest.raises(RevisionGone):
                await store.get(peer_key("a"), revision=first.revision)

    run(body())


def test_a_compaction_during_a_watch_loses_nothing(empty: Etcd) -> None:
    async def body() -> None:
        async with connected(empty) as store:
            start = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                watching = asyncio.create_task(take(events, 10))
                for number in range(10):
                    made = await store.create(peer_key(f"p{number}"), peer(f"p{number}"))
                    if number:
                        await asyncio.to_thread(empty.ctl, "compact", made.revision)
                    else:
                        await asyncio.sleep(0.2)  # the watch stands
                assert told(await watching) == [("added", f"p{number}") for number in range(10)]

    run(body())


# --- servers that come and go --------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_unavailable_and_its_watch_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server, request_s=2.0) as store:
            await store.create(peer_key("a"), peer("a"))
            start = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 2, timeout_s=50))
                await store.apply(peer_key("a"), peer("a", asNumber=65001))
                server.members[0].kill()
                with pytest.raises(Unavailable, match="no etcd server answers"):
                    await store.get(peer_key("a"))
                server.members[0].start()
                server.wait_ready()
                async with asyncio.timeout(10):
                    while True:
                        try:
                            await store.create(peer_key("b"), peer("b"))
                            break
                        except Unavailable:
                            continue
                assert told(await waiting) == [("modified", "a"), ("added", "b")]

    with etcd(tmp_path) as server:
        run(body(server))


@pytest.mark.parametrize("which", ["the leader", "a follower that is in use"])
def test_of_three_members_one_may_die(tmp_path: Path, which: str) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server) as store:
            start = (await store.list("BGPPeer")).revision
            leader = server.leader()
            in_use = server.endpoints.index(store.connection.endpoint)
            dies = leader if which == "the leader" else server.members[in_use]
            if dies is leader and which != "the leader":
                server.ctl("move-leader", _id(server, (in_use + 1) % 3), member=leader)
            acknowledged: list[str] = []
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                watching = asyncio.create_task(_names(events, "last"))
                for number in range(60):
                    if number == 20:
                        dies.kill()
                    acknowledged += await _written(store, f"p{number}")
                await _written(store, "last")
                seen = await watching
            assert set(acknowledged) <= set(seen)
            assert len(seen) == len(set(seen)), "an event came twice"
            assert len(acknowledged) >= 58
            held = {entry.key.name for entry in (await store.list("BGPPeer")).entries}
            assert set(acknowledged) <= held

    with etcd(tmp_path, members=3) as server:
        run(body(server))


async def _written(store: Datastore, name: str) -> list[str]:
    """The name, if the store says that it holds it now; a create whose outcome is unknown is repeated."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.create(peer_key(name), peer(name))
                return [name]
            except AlreadyExists:
                return [name]
            except Unavailable:
                await asyncio.sleep(0.05)


async def _names(events: AsyncIterator[object], last: str) -> list[str]:
    seen: list[str] = []
    async for event in events:
        if event.type != "bookmark":  # type: ignore[attr-defined]
            seen.append(event.entry.key.name)  # type: ignore[attr-defined]
            if seen[-1] == last:
                return seen
    return seen


def _id(server: Etcd, number: int) -> str:
    return server.ctl("endpoint", "status", "-w", "simple", member=server.members[number]).split(", ")[1]


def test_without_a_majority_nothing_hangs(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server, request_s=2.0) as store:
            await store.create(peer_key("a"), peer("a"))
            server.members[0].kill()
            server.members[1].kill()
            with pytest.raises(Unavailable):
                await store.update(peer_key("a"), peer("a"), revision="1")

    with etcd(tmp_path, members=3) as server:
        run(body(server))


# --- who may come in -----------------------------------------------------------------------------------------------


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.crt, and server, client, other (of another authority) .crt and .key."""
    made = tmp_path_factory.mktemp("certificates")
    for authority in ("ca", "otherca"):
        _openssl(
            made, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={authority}",
            "-keyout", f"{authority}.key", "-out", f"{authority}.crt",
        )  # fmt: skip
    (made / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name, authority in (("server", "ca"), ("client", "ca"), ("other", "otherca")):
        _openssl(
            made, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr",
        )  # fmt: skip
        _openssl(
            made, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", "2", "-out", f"{name}.crt", "-extfile", "names",
        )  # fmt: skip
    return made


def test_tls_with_certificates_on_both_sides(tmp_path: Path, certificates: Path) -> None:
    def settings(server: Etcd, ca: str, name: str) -> dict[str, str]:
        return {
            "ETCD_ENDPOINTS": server.endpoints[0],
            "ETCD_CA_CERT_FILE": str(certificates / ca),
            "ETCD_CERT_FILE": str(certificates / f"{name}.crt"),
            "ETCD_KEY_FILE": str(certificates / f"{name}.key"),
        }

    async def body(server: Etcd) -> None:
        store = open_datastore(load_settings(environment=settings(server, "ca.crt", "client")))
        try:
            await store.create(peer_key("a"), peer("a"))
            assert (await store.get(peer_key("a"))).value["spec"]["peerIP"] == "192.0.2.1"
        finally:
            await store.close()
        for ca, name in (("ca.crt", "other"), ("otherca.crt", "client")):
            given = open_etcd(load_settings(environment=settings(server, ca, name))).settings
            refused = EtcdDatastore(replace(given, request_s=1.0))
            try:
                with pytest.raises(Unavailable, match="certificates"):
                    await refused.check()
            finally:
                await refused.close()

    files = {
        name: str(certificates / name) for name in ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
    }
    with etcd(
        tmp_path,
        scheme="https",
        options=("--client-cert-auth", "--trusted-ca-file", files["ca.crt"],
                 "--cert-file", files["server.crt"], "--key-file", files["server.key"]),
        ctl=("--cacert", files["ca.crt"], "--cert", files["client.crt"], "--key", files["client.key"]),
    ) as server:  # fmt: skip
        run(body(server))


def test_users_and_passwords_and_tokens_that_end(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server, username="root", password="right") as store:
            await store.create(peer_key("a"), peer("a"))
            start = (await store.list("BGPPeer")).revision
            store.connection._token = "simple.0000"  # as if the server had forgotten it
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 1))
                await store.apply(peer_key("a"), peer("a", asNumber=65001))
                assert told(await waiting) == [("modified", "a")]
        for username, password in (("root", "wrong"), ("", "")):
            async with connected(server, username=username, password=password) as store:
                with pytest.raises(Unauthorized, match="ETCD_USERNAME"):
                    await store.check()

    with etcd(tmp_path) as server:
        server.ctl("user", "add", "root:right")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("auth", "enable")
        run(body(server))


def test_a_full_server_is_told_apart(tmp_path: Path) -> None:
    async def body(server: Etcd) -> None:
        async with connected(server) as store:

            async def fill() -> None:
                for number in range(200):
                    await store.create(peer_key(f"p{number}"), peer(f"p{number}", password="x" * 100_000))

            with pytest.raises(Unavailable, match=r"full.*compact"):
                await fill()
            assert (await store.list("BGPPeer")).entries  # reading goes on

    with etcd(tmp_path, options=("--quota-backend-bytes", "4000000")) as server:
        run(body(server))


@pytest.mark.parametrize("outcome", [DoesNotExist, UpdateConflict])
def test_a_lost_race_says_what_lies_there_now(empty: Etcd, outcome: type[Exception]) -> None:
    async def body() -> None:
        async with connected(empty) as store:
            made = await store.create(peer_key("a"), peer("a"))
            changed: Callable[[], Awaitable[object]] = (
                (lambda: store.delete(peer_key("a")))
                if outcome is DoesNotExist
                else (lambda: store.apply(peer_key("a"), peer("a", asNumber=65001)))
            )
            await changed()
            with pytest.raises(outcome) as raised:
                await store.update(peer_key("a"), peer("a"), revision=made.revision)
            if isinstance(raised.value, UpdateConflict):
                assert raised.value.current is not None
                assert raised.value.current.value["spec"]["asNumber"] == 65001

    run(body())
