"""The local datastore: the contract, and what is particular to a file that processes share."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from integration.datastore.api import Datastore
from integration.datastore.errors import BrokenStore, DatastoreError, RevisionGone, Unauthorized, Unavailable
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.local.file import PRUNED_EVERY, StoreFile
from tests.integration.datastore.contract import Contract, Opened, peer, peer_key, run, spec, take, told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "store.db"


@pytest.fixture
def opened(path: Path) -> Opened:
    @asynccontextmanager
    async def opening() -> AsyncIterator[Datastore]:
        store = LocalDatastore(path)
        try:
            yield store
        finally:
            await store.close()

    return opening


class TestLocal(Contract):
    pass


@asynccontextmanager
async def store_at(path: Path, kept_changes: int = 10_000) -> AsyncIterator[LocalDatastore]:
    store = LocalDatastore(path, kept_changes=kept_changes)
    try:
        yield store
    finally:
        await store.close()


def child(path: Path, body: str) -> subprocess.Popen[str]:
    """A process of its own that runs `body` (async, `store` is open) and may print."""
    code = f"""
import asyncio, sys, time
from pathlib import Path
from integration.datastore.local.driver import LocalDatastore
from integration.datastore.errors import UpdateConflict
from tests.integration.datastore.contract import peer, peer_key, spec
async def main():
    store = LocalDatastore(Path({str(path)!r}))
{textwrap.indent(textwrap.dedent(body), "    ")}
    await store.close()
asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_killed_while_writing_nothing_acknowledged_is_lost(path: Path) -> None:
    for _ in range(3):
        writer = child(
            path,
            """
            async def write(number):
                done = 0
                while True:
                    await store.apply(peer_key(f"w{number}"), peer(f"w{number}", asNumber=(done := done + 1)))
                    print(number, done, flush=True)
            await asyncio.gather(*map(write, range(4)))
            """,
        )
        assert writer.stdout
        acknowledged: dict[int, int] = {}
        for line in writer.stdout:
            if not line.endswith("\n"):
                break  # killed while it said so
            number, done = map(int, line.split())
            acknowledged[number] = done
            if done == 200:
                os.kill(writer.pid, signal.SIGKILL)  # what it printed meanwhile is read to the end
        assert writer.wait() == -signal.SIGKILL

        async def body(acknowledged: dict[int, int] = acknowledged) -> None:
            async with store_at(path) as store:
                for number, done in acknowledged.items():
                    found = spec((await store.get(peer_key(f"w{number}"))).value)["asNumber"]
                    assert found in (done, done + 1)  # written, and killed before it could say so
                listing = await store.list("BGPPeer")
                for entry in listing.entries:
                    await store.delete(entry.key)

        run(body())


def test_whoever_closes_the_file_leaves_it_to_those_that_have_it_open(path: Path) -> None:
    """The last to leave removes SQLite's log. A process that opens and closes the file beside SQLite loses its locks."""
    writer = child(
        path,
        """
        await store.apply(peer_key("a"), peer("a", asNumber=1))
        await store.get(peer_key("a"))
        print("open", flush=True)
        sys.stdin.readline()
        await store.apply(peer_key("a"), peer("a", asNumber=2))
        print("written", flush=True)
        sys.stdin.readline()
        """,
    )
    assert writer.stdin
    assert writer.stdout
    assert writer.stdout.readline() == "open\n"

    async def number() -> int:
        async with store_at(path) as store:
            return int(spec((await store.get(peer_key("a"))).value)["asNumber"])

    assert asyncio.run(number()) == 1
    writer.stdin.write("\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "written\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert asyncio.run(number()) == 2


def test_those_that_make_the_file_together_agree(tmp_path: Path) -> None:
    """Connections know nothing of each other, in one process as in several."""
    count = 6
    with ThreadPoolExecutor(count) as threads:
        for attempt in range(30):
            path, together = tmp_path / str(attempt) / "store.db", threading.Barrier(count)

            def make(path: Path = path, together: threading.Barrier = together) -> None:
                together.wait()
                StoreFile(path).connect().close()

            for made in [threads.submit(make) for _ in range(count)]:
                made.result()


def test_a_write_of_another_process_is_seen_in_less_than_20_ms(path: Path) -> None:
    async def body() -> None:
        async with store_at(path) as store:
            start = (await store.list("BGPPeer")).revision
            writer = child(
                path,
                """
                for number in range(100):
                    await asyncio.sleep(0.007)
                    await store.apply(peer_key("a"), peer("a", asNumber=number, at=time.time()))
                """,
            )
            late: list[float] = []
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                for _ in range(100):
                    (event,) = await take(events, 1)
                    assert event.entry
                    late.append(time.time() - spec(event.entry.value)["at"])
            assert await asyncio.to_thread(writer.wait) == 0
            # The middle one: what the slowest take beside other work says nothing of the watch.
            assert sorted(late)[50] < 0.02, sorted(late)

    run(body())


def test_several_processes_count_together(path: Path) -> None:
    async def body() -> None:
        async with store_at(path) as store:
            await store.create(peer_key("counter"), peer("counter", asNumber=0))
            others = [
                child(
                    path,
                    """
                    for _ in range(50):
                        while True:
                            found = await store.get(peer_key("counter"))
                            value = peer("counter", asNumber=spec(found.value)["asNumber"] + 1)
                            try:
                                await store.update(peer_key("counter"), value, revision=found.revision)
                                break
                            except UpdateConflict:
                                pass
                    """,
                )
                for _ in range(3)
            ]
            for other in others:
                assert await asyncio.to_thread(other.wait) == 0
            assert spec((await store.get(peer_key("counter"))).value)["asNumber"] == 150

    run(body())


def test_a_waiting_watch_costs_next_to_nothing(path: Path) -> None:
    watcher = child(
        path,
        """
        start = (await store.list("BGPPeer")).revision
        watches = [store.watch(kind, revision=start) for kind in ("BGPPeer", "IPPool", "Node", "BGPFilter")]
        waiting = [asyncio.create_task(anext(watch)) for watch in watches]
        await asyncio.sleep(0.5)
        before = time.process_time()
        await asyncio.sleep(2)
        print((time.process_time() - before) / 2)
        for task in waiting:
            task.cancel()
        """,
    )
    cpu = float(watcher.communicate(timeout=30)[0])
    assert cpu < 0.1


def test_a_long_wait_for_the_disk_does_not_stop_the_event_loop(path: Path) -> None:
    async def body() -> None:
        async with store_at(path) as store:
            await store.apply(peer_key("a"), peer("a"))
            blocker = sqlite3.connect(path, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(store.apply(peer_key("a"), peer("a", asNumber=2)))
            gaps = []
            for _ in range(50):
                before = time.monotonic()
                await asyncio.sleep(0.005)
                gaps.append(time.monotonic() - before)
                assert spec((await store.get(peer_key("a"))).value)["asNumber"] == 64512  # readers go on
            assert not writing.done()
            assert sorted(gaps)[45] < 0.05
            blocker.execute("ROLLBACK")
            blocker.close()
            assert spec((await writing).value)["asNumber"] == 2

    run(body())


def test_changes_long_past_are_gone_and_say_so(path: Path) -> None:
    async def body() -> None:
        async with store_at(path, kept_changes=50) as store:
            start = (await store.list("BGPPeer")).revision
            writes = 2 * PRUNED_EVERY + 40
            await asyncio.gather(*(store.apply(peer_key(f"p{n % 7}"), peer("x", asNumber=n)) for n in range(writes)))
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                with pytest.raises(RevisionGone):
                    await take(events, 1)
            head = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=str(int(head) - 40))) as events:
                assert len(await take(events, 40)) == 40
            async with aclosing(store.watch("BGPPeer", revision=str(int(head) + 1))) as events:
                with pytest.raises(RevisionGone):  # from a store that was since restored from a backup
                    await take(events, 1)

    run(body())


def test_a_watch_of_a_quiet_kind_outlives_the_log(path: Path) -> None:
    async def body() -> None:
        async with store_at(path, kept_changes=50) as store:
            start = (await store.list("IPPool")).revision
            async with aclosing(store.watch("IPPool", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 1))
                for _ in range(3):
                    writes = (store.apply(peer_key(f"p{n % 7}"), peer("x")) for n in range(PRUNED_EVERY))
                    await asyncio.gather(*writes)
                    await asyncio.sleep(0.02)
                pool = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "a"}, "spec": {}}
                await store.create(type(peer_key(""))("IPPool", "a"), pool)
                assert told(await waiting) == [("added", "a")]

    run(body())


def refused(path: Path) -> DatastoreError:
    async def attempt() -> DatastoreError:
        async with store_at(path) as store:
            with pytest.raises(DatastoreError) as caught:
                await store.check()
            with pytest.raises(type(caught.value)):
                await store.list("BGPPeer")
            async with aclosing(store.watch("BGPPeer", revision="1")) as events:
                with pytest.raises(type(caught.value)):
                    await take(events, 1)
            return caught.value

    return asyncio.run(attempt())


def filled(path: Path) -> None:
    async def body() -> None:
        async with store_at(path) as store:
            for number in range(200):
                await store.apply(peer_key(f"p{number}"), peer(f"p{number}", description="x" * 500))

    run(body())


def test_another_programs_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    error = refused(path)
    assert isinstance(error, BrokenStore)
    assert "another program's SQLite file" in str(error)
    assert path.read_bytes() == before


def test_a_text_file_is_no_store(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("peers:\n" * 100)
    error = refused(path)
    assert isinstance(error, BrokenStore)
    assert "is no SQLite file" in error.reason
    assert path.read_text() == "peers:\n" * 100


def test_a_half_written_file_is_reported(path: Path) -> None:
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    error = refused(path)
    assert isinstance(error, BrokenStore)
    assert str(path) in error.reason
    assert "backup" in error.hint


def test_a_file_with_an_overwritten_page_is_reported(path: Path) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * 4096)
    assert isinstance(refused(path), BrokenStore)


def test_a_torn_end_of_the_log_loses_only_what_was_not_acknowledged(path: Path) -> None:
    writer = child(
        path,
        """
        for number in range(20):
            await store.apply(peer_key("a"), peer("a", asNumber=number))
        print("done", flush=True)
        await asyncio.sleep(60)
        """,
    )
    assert writer.stdout
    assert writer.stdout.readline() == "done\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    with Path(f"{path}-wal").open("ab") as file:
        file.write(os.urandom(3000))

    async def body() -> None:
        async with store_at(path) as store:
            assert spec((await store.get(peer_key("a"))).value)["asNumber"] == 19

    run(body())


HARM = [(Path.unlink, "was removed"), (lambda path: path.with_name("other.db").replace(path), "was replaced")]


@pytest.mark.parametrize(("harm", "what"), HARM)
def test_a_file_that_goes_away_under_us_is_noticed(path: Path, harm: Callable[[Path], object], what: str) -> None:
    async def body() -> None:
        async with store_at(path) as store, store_at(path.with_name("other.db")) as other:
            await store.apply(peer_key("a"), peer("a"))
            await other.apply(peer_key("b"), peer("b"))
            start = (await store.list("BGPPeer")).revision
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                waiting = asyncio.create_task(take(events, 1))
                await asyncio.sleep(0.05)
                harm(path)
                with pytest.raises(BrokenStore, match=what):
                    await store.apply(peer_key("a"), peer("a"))
                with pytest.raises(BrokenStore, match=what):
                    await waiting
            for name in ("other.db", "store.db"):
                path.with_name(name).touch()  # so that the other can be closed in peace

    run(body())


def test_what_is_unreadable_is_reported_and_hides_nothing_else(path: Path) -> None:
    async def body() -> None:
        async with store_at(path) as store:
            start = (await store.list("BGPPeer")).revision
            await store.apply(peer_key("bad"), peer("bad"))
            await store.apply(peer_key("good"), peer("good"))
            connection = sqlite3.connect(path)
            connection.execute("UPDATE objects SET value = x'ff7b' WHERE name = 'bad'")
            connection.execute("UPDATE log SET value = '[]' WHERE name = 'bad'")
            connection.commit()
            connection.close()
            listing = await store.list("BGPPeer")
            assert [entry.key.name for entry in listing.entries] == ["good"]
            assert [error.key.name for error in listing.unreadable] == ["bad"]
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                seen = await take(events, 2)
            assert [event.type for event in seen] == ["unreadable", "added"]
            assert seen[0].error is not None
            assert seen[0].error.key == peer_key("bad")
            await store.delete(peer_key("bad"))
            assert (await store.list("BGPPeer")).unreadable == []

    run(body())


@pytest.mark.root
def test_a_full_disk_is_reported_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """In a mount namespace of its own, on a file system of 1 MiB."""
    code = f"""
import asyncio, os
from pathlib import Path
from integration.datastore.errors import Unavailable
from integration.datastore.local.driver import LocalDatastore
from tests.integration.datastore.contract import peer, peer_key, spec
async def main():
    ballast = Path({str(tmp_path)!r}) / "ballast"
    ballast.write_bytes(bytes(500_000))
    store = LocalDatastore(Path({str(tmp_path)!r}) / "store.db")
    written = []
    try:
        for number in range(10_000):
            await store.apply(peer_key(f"p{{number}}"), peer("p", description="x" * 4000))
            written.append(number)
    except Unavailable as error:
        print(error)
    ballast.unlink()
    await store.apply(peer_key("after"), peer("after"))
    found = {{entry.key.name for entry in (await store.list("BGPPeer")).entries}}
    assert found == {{f"p{{number}}" for number in written}} | {{"after"}}
    await store.close()
asyncio.run(main())
"""
    code_file = tmp_path.parent / "full_disk.py"
    code_file.write_text(code)
    mount = f"mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} {code_file}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    assert "no space left" in done.stdout or "free space" in done.stdout


def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    error = refused(blocked / "store.db")
    assert isinstance(error, Unavailable | Unauthorized)
    assert str(blocked / "store.db") in error.reason


def test_only_the_owner_may_read_it(path: Path) -> None:
    """It holds passwords."""
    filled(path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
