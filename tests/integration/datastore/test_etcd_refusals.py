"""What the etcd datastore says when it is refused, and how soon; servers that are stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from integration.datastore.errors import DatastoreError, Unauthorized, Unavailable
from integration.datastore.etcd.connection import EtcdSettings, hint_for
from integration.datastore.etcd.driver import EtcdDatastore
from tests.integration.datastore.contract import peer, peer_key, run, take, told
from tests.integration.datastore.etcd_servers import Etcd, etcd
from tests.integration.node.speakers import free_port

pytestmark = pytest.mark.interop


@asynccontextmanager
async def connected(*endpoints: str, **settings: object) -> AsyncIterator[EtcdDatastore]:
    store = EtcdDatastore(EtcdSettings(endpoints=endpoints, **settings))  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with etcd(tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """Users catbird, who may use Calico's keys, and other, who may not."""
    with etcd(tmp_path_factory.mktemp("guarded")) as server:
        for command in (
            "user add root:root", "user grant-role root root",
            "user add catbird:right", "role add calico", "user grant-role catbird calico",
            "role grant-permission calico readwrite /calico/ --prefix",
            "user add other:right", "role add other", "user grant-role other other",
            "role grant-permission other readwrite /other/ --prefix", "auth enable",
        ):  # fmt: skip
            server.ctl(*command.split())
        yield server


def test_a_watch_without_permission_is_unauthorized_at_once(guarded: Etcd) -> None:
    async def body() -> None:
        async with connected(*guarded.endpoints, username="other", password="right") as store:
            async with asyncio.timeout(2):  # an outage would be bridged for 3 s, and be called one
                with pytest.raises(Unauthorized, match=r"permission denied.*roles"):
                    async with aclosing(store.watch("BGPPeer", revision="1")) as events:
                        await take(events, 1)

    run(body())


def test_who_waits_for_anothers_token_waits_no_longer_than_for_an_answer(guarded: Etcd) -> None:
    async def body() -> None:
        async with connected(*guarded.endpoints, username="catbird", password="right", request_s=1.0) as store:
            await store.apply(peer_key("a"), peer("a"))
            store.connection._token = ""
            server = guarded.members[0].process
            assert server
            os.kill(server.pid, signal.SIGSTOP)
            began = time.monotonic()
            try:
                outcomes = await asyncio.gather(*(store.get(peer_key("a")) for _ in range(10)), return_exceptions=True)
            finally:
                os.kill(server.pid, signal.SIGCONT)
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 10
            assert time.monotonic() - began < 2.0

    run(body())


def test_a_call_that_learns_late_that_its_token_has_ended_takes_the_new_one(guarded: Etcd) -> None:
    async def body() -> None:
        async with connected(*guarded.endpoints, username="catbird", password="right") as store:
            await store.apply(peer_key("a"), peer("a"))
            store.connection._token = "simple.0000"  # as if the server had forgotten it
            credentials = store.connection.credentials
            has_token, is_renewed = asyncio.Event(), asyncio.Event()
            tokens: list[str] = []

            async def slow_the_first_time(*arguments: object) -> object:
                made = await credentials(*arguments)  # type: ignore[arg-type]
                tokens.append(made[0][1])
                if not has_token.is_set():
                    has_token.set()
                    await is_renewed.wait()
                return made

            store.connection.credentials = slow_the_first_time  # type: ignore[assignment, method-assign]
            late = asyncio.create_task(store.get(peer_key("a")))
            await has_token.wait()
            await store.get(peer_key("a"))
            is_renewed.set()
            await late
            assert tokens[0] == tokens[1] == "simple.0000"
            assert tokens[2] == tokens[3]  # what one call had renewed, the other has not thrown away

    run(body())


def test_it_is_said_why_there_is_no_connection(open_server: Etcd) -> None:
    async def refusal(endpoint: str) -> Unavailable:
        async with connected(endpoint, request_s=1.0) as store:
            with pytest.raises(Unavailable) as raised:
                await store.check()
            return raised.value

    async def body() -> None:
        nobody = await refusal(f"http://127.0.0.1:{free_port()}")
        assert "refused" in nobody.reason
        assert "running" in nobody.hint
        unknown = await refusal("http://no-such-name.invalid:2379")
        assert "no-such-name.invalid" in unknown.reason
        assert unknown.hint == "is the name right?"
        plain = await refusal(open_server.endpoints[0].replace("http:", "https:"))
        assert "certificates" in plain.hint

    run(body())


@pytest.mark.parametrize(
    ("why", "hint"),
    [
        ("Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "ETCD_CA_CERT_FILE"),
        ("Peer name 10.0.0.1 is not in peer certificate", "certificates"),
        ("SSL_ERROR_SSL: WRONG_VERSION_NUMBER", "http://"),
        ("connection attempt timed out before receiving SETTINGS frame", "running"),
        ("Socket closed", "https://"),
    ],
)
def test_each_failure_has_its_hint(why: str, hint: str) -> None:
    assert hint in hint_for(why, "http://etcd:2379")


def test_a_value_that_etcd_does_not_take_is_not_an_outage(open_server: Etcd) -> None:
    async def body() -> None:
        async with connected(*open_server.endpoints) as store:
            with pytest.raises(DatastoreError, match=r"too large.*--max-request-bytes") as raised:
                await store.create(peer_key("big"), peer("big", password="x" * 2_000_000))
            assert not isinstance(raised.value, Unavailable)

    run(body())


def test_a_value_nested_too_deep_hides_no_other(open_server: Etcd) -> None:
    async def body() -> None:
        async with connected(*open_server.endpoints) as store:
            await store.apply(peer_key("good"), peer("good"))
            start = (await store.list("BGPPeer")).revision
            path = "/calico/resources/v3/projectcalico.org/bgppeers/deep"
            await asyncio.to_thread(open_server.ctl, "put", path, "[" * 100_000)
            listing = await store.list("BGPPeer")
            assert [entry.key.name for entry in listing.entries] == ["good"]
            assert [error.key.name for error in listing.unreadable] == ["deep"]
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                assert [event.type for event in await take(events, 1)] == ["unreadable"]

    run(body())


def test_members_restarted_in_turn_are_not_noticed_by_who_reads_and_watches(tmp_path: Path) -> None:
    """An upgrade of etcd, member by member."""

    async def body(server: Etcd) -> None:
        async with connected(*server.endpoints) as store, connected(*server.endpoints) as writer:
            await writer.apply(peer_key("start"), peer("start"))
            start = (await store.list("BGPPeer")).revision
            is_over = asyncio.Event()

            async def read() -> int:
                count = 0
                while not is_over.is_set():
                    await store.get(peer_key("start"))
                    count += 1
                return count

            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                watching = asyncio.create_task(take(events, len(server.members), timeout_s=40))
                reading = asyncio.create_task(read())
                for member in server.members:
                    await asyncio.to_thread(member.stop)
                    await writer.apply(peer_key(member.name), peer(member.name))
                    member.start()
                    await asyncio.to_thread(server.wait_ready)
                assert told(await watching) == [("added", member.name) for member in server.members]
            is_over.set()
            assert await reading >= len(server.members)  # none of them failed

    with etcd(tmp_path, members=3) as server:
        run(body(server))
