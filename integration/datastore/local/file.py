"""The SQLite file: its tables, and transactions on them. Blocking; every connection belongs to one thread at a time.

Several processes work on one file at once (WAL). The revision is one counter over all objects, as in etcd: the number
of the change in the table `log`, which watches read and which keeps the latest changes only.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from integration.datastore.api import Entry, Event, Listing
from integration.datastore.errors import (
    AlreadyExists,
    BrokenStore,
    DatastoreError,
    DoesNotExist,
    RevisionGone,
    Unauthorized,
    Unavailable,
    Unreadable,
    UpdateConflict,
)
from integration.datastore.stored_form import decode
from integration.resources.keys import Key

APPLICATION_ID = 0x63617462  # "catb"
FORMAT = 1
FIRST_REVISION = 1  # a listing of an empty store has it: 0 would say "from nowhere"
SCHEMA = f"""
CREATE TABLE objects (kind TEXT, namespace TEXT, name TEXT, value BLOB NOT NULL, revision INTEGER NOT NULL,
                      expires_at REAL, PRIMARY KEY (kind, namespace, name));
CREATE INDEX expiring ON objects (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE log (revision INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, kind TEXT, namespace TEXT, name TEXT,
                  value BLOB NOT NULL, last_revision INTEGER);
INSERT INTO sqlite_sequence (name, seq) VALUES ('log', {FIRST_REVISION});
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""
HEAD = "SELECT seq FROM sqlite_sequence WHERE name = 'log'"
LOCK_WAIT_S = 10.0
PRUNED_EVERY = 500  # changes
MAKING = threading.Lock()  # no thread connects to a file that another is about to close

Action = Literal["create", "update", "apply", "delete"]
Synchronous = Literal["full", "normal"]


@dataclass(frozen=True, slots=True)
class Write:
    """A change that is wanted. `revision` is what must still be there (update, delete), None: whatever.

    `expires_at` is seconds since the epoch: it must mean the same to other processes and after a restart.
    """

    action: Action
    key: Key
    value: bytes = b""
    revision: int | None = None
    expires_at: float | None = None


Outcome = Entry | DatastoreError
Row = tuple[bytes, int]


class StoreFile:
    """Connections to one store file. `kept_changes` and `kept_octets` bound what a watch can be resumed from.

    `synchronous`: with "full" a write is acknowledged once it is on the disk; with "normal" it survives the end of any
    process, but the last ones may be lost if the machine loses power (nothing is ever torn).
    """

    def __init__(
        self, path: Path, synchronous: Synchronous = "full", kept_changes: int = 10_000, kept_octets: int = 64 << 20
    ) -> None:
        self.path = path
        self.synchronous = synchronous
        self.kept_changes = kept_changes
        self.kept_octets = kept_octets
        self.identity: tuple[int, int] | None = None

    def connect(self, lock_wait_s: float = LOCK_WAIT_S) -> sqlite3.Connection:
        """A connection for any one thread; creates the file (for its owner's eyes only) if there is none."""
        with self.explained():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with MAKING:
                try:
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                except FileExistsError:
                    pass  # not opened: closing it would end the locks that SQLite has on it in this process (POSIX)
            connection = sqlite3.connect(
                self.path, timeout=lock_wait_s, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            try:
                # Who makes the file, or is the last to leave, locks all of it for a moment, reading included.
                retry_while_busy(lambda: self.prepare(connection))
            except BaseException:
                connection.close()
                raise
            return connection

    def prepare(self, connection: sqlite3.Connection) -> None:
        self.check_format(connection)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {16 << 20}")
        if not format_of(connection):
            with transaction(connection):
                if not format_of(connection):  # nobody was faster
                    for statement in SCHEMA.strip().split(";\n"):
                        connection.execute(statement.removesuffix(";"))
        if self.identity is None:
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise self.broken(f"is damaged ({' '.join(damage.split())})")
            self.identity = self.found_identity()

    def check_format(self, connection: sqlite3.Connection) -> None:
        with transaction(connection, "DEFERRED"):  # somebody may be making it at this moment
            is_empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = format_of(connection)
        if application != APPLICATION_ID and not (is_empty and not version):
            raise BrokenStore(f"{self.path} is another program's SQLite file", "give another path")
        if version > FORMAT:
            raise BrokenStore(f"{self.path} was written by a newer version of catbird", "use that version")

    def found_identity(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def check_identity(self) -> None:
        """A file put in place of the one we have open must not be written with the old one's WAL."""
        try:
            if self.found_identity() == self.identity:
                return
        except OSError:
            raise BrokenStore(f"{self.path} was removed while in use", "put it back if you can, and restart") from None
        raise BrokenStore(f"{self.path} was replaced while in use", "restart to use the new one")

    def broken(self, why: str) -> BrokenStore:
        return BrokenStore(
            f"{self.path} {why}",
            "put a backup in its place, or move it away with its -wal and -shm files to begin anew",
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """SQLite's and the system's errors as ours, with what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.explain(error) from error
        except OSError as error:
            kind = Unauthorized if isinstance(error, PermissionError) else Unavailable
            raise kind(f"{self.path} cannot be opened: {error.strerror}") from error

    def explain(self, error: sqlite3.Error) -> DatastoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        match code:
            case sqlite3.SQLITE_FULL:
                return Unavailable(f"no space left for {self.path}; nothing was written", "make room on its disk")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return Unavailable(f"{self.path} is locked by another process for {LOCK_WAIT_S:.0f} s", "look who")
            case sqlite3.SQLITE_CORRUPT:
                return self.broken("is damaged")
            case sqlite3.SQLITE_NOTADB:
                return self.broken("is no SQLite file, or its beginning is damaged")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return Unauthorized(f"{self.path} may not be written", "it and its directory must be writable")
            case sqlite3.SQLITE_CANTOPEN:
                return Unavailable(f"{self.path} cannot be opened", "its directory must exist and be writable")
            case sqlite3.SQLITE_IOERR:
                return Unavailable(
                    f"reading or writing {self.path} failed ({error})", "look at its disk and free space"
                )
        return DatastoreError(f"{self.path}: {error}")

    # Reading. `now` is seconds since the epoch.

    def get(self, connection: sqlite3.Connection, key: Key, now: float) -> Entry:
        """Raises DoesNotExist, Unreadable."""
        with self.explained():
            self.check_identity()
            row = living_row(connection, key, now)
        if row is None:
            raise DoesNotExist(key)
        return decode(key, row[0], str(row[1]))

    def listing(
        self, connection: sqlite3.Connection, kind: str, namespace: str | None, prefix: str, now: float
    ) -> Listing:
        where = "kind = ? AND (expires_at IS NULL OR expires_at > ?) AND substr(name, 1, ?) = ?"
        values: tuple[object, ...] = (kind, now, len(prefix), prefix)
        if namespace:
            where += " AND namespace = ?"
            values += (namespace,)
        with self.explained(), transaction(connection, "DEFERRED"):
            self.check_identity()
            rows = connection.execute(
                f"SELECT namespace, name, value, revision FROM objects WHERE {where} ORDER BY namespace, name", values
            ).fetchall()
            head = connection.execute(HEAD).fetchone()[0]
        listing = Listing([], str(head))
        for space, name, value, revision in rows:
            try:
                listing.entries.append(decode(Key(kind, name, space), value, str(revision)))
            except Unreadable as error:
                listing.unreadable.append(error)
        return listing

    def changes(
        self, connection: sqlite3.Connection, kind: str, namespace: str | None, since: int, limit: int
    ) -> list[Event]:
        """What happened to the kind after revision `since`, oldest first. Raises RevisionGone."""
        only = "AND namespace = ?" if namespace else ""
        values = (since, kind, namespace) if namespace else (since, kind)
        with self.explained(), transaction(connection, "DEFERRED"):
            self.check_identity()
            head = connection.execute(HEAD).fetchone()[0]
            oldest = connection.execute("SELECT min(revision) FROM log").fetchone()[0] or head + 1
            if not oldest - 1 <= since <= head:
                raise RevisionGone(str(since))
            rows = connection.execute(
                "SELECT revision, type, namespace, name, value, last_revision FROM log "
                f"WHERE revision > ? AND kind = ? {only} ORDER BY revision LIMIT {limit}",
                values,
            ).fetchall()
        return [event_of(kind, *row) for row in rows]

    def changed_kinds(self, connection: sqlite3.Connection, since: int) -> tuple[int, dict[str, int], float | None]:
        """The head revision, of each kind that changed after `since` its latest, and when the next object expires."""
        with self.explained(), transaction(connection, "DEFERRED"):
            head = connection.execute(HEAD).fetchone()[0]
            rows = connection.execute("SELECT kind, max(revision) FROM log WHERE revision > ? GROUP BY kind", (since,))
            latest = dict(rows.fetchall())
            expiry = connection.execute("SELECT min(expires_at) FROM objects WHERE expires_at IS NOT NULL")
            return head, latest, expiry.fetchone()[0]

    # Writing.

    def write(self, connection: sqlite3.Connection, writes: Sequence[Write], now: float) -> list[Outcome]:
        """All writes in one transaction, each with its own outcome: what was written (deleted: what lay there)."""
        with self.explained():
            self.check_identity()
            with transaction(connection):
                before = connection.execute(HEAD).fetchone()[0]
                self.expire_in(connection, now)
                outcomes = [change(connection, write) for write in writes]
                head = connection.execute(HEAD).fetchone()[0]
                if head // PRUNED_EVERY != before // PRUNED_EVERY:
                    self.prune(connection, head)
            return outcomes

    def write_all(self, connection: sqlite3.Connection, writes: Sequence[Write], now: float) -> list[Entry]:
        """All or none: raises the outcome of the first that cannot be made."""
        with self.explained():
            self.check_identity()
            with transaction(connection):
                self.expire_in(connection, now)
                made: list[Entry] = []
                for write in writes:
                    outcome = change(connection, write)
                    if isinstance(outcome, DatastoreError):
                        raise outcome
                    made.append(outcome)
            return made

    def expire_in(self, connection: sqlite3.Connection, now: float) -> None:
        for kind, namespace, name in connection.execute(
            "SELECT kind, namespace, name FROM objects WHERE expires_at IS NOT NULL AND expires_at <= ?", (now,)
        ).fetchall():
            change(connection, Write("delete", Key(kind, name, namespace)))

    def prune(self, connection: sqlite3.Connection, head: int) -> None:
        connection.execute("DELETE FROM log WHERE revision <= ?", (head - self.kept_changes,))
        too_old = connection.execute(
            "SELECT max(revision) FROM (SELECT revision, sum(length(value)) OVER (ORDER BY revision DESC) AS octets "
            "FROM log) WHERE octets > ?",
            (self.kept_octets,),
        ).fetchone()[0]
        if too_old is not None:
            connection.execute("DELETE FROM log WHERE revision <= ?", (too_old,))


def format_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def living_row(connection: sqlite3.Connection, key: Key, now: float) -> Row | None:
    found: Row | None = connection.execute(
        "SELECT value, revision FROM objects WHERE kind = ? AND namespace = ? AND name = ? "
        "AND (expires_at IS NULL OR expires_at > ?)",
        (key.kind, key.namespace, key.name, now),
    ).fetchone()
    return found


def change(connection: sqlite3.Connection, write: Write) -> Outcome:
    """One write, inside a transaction in which nothing expired is left."""
    key = write.key
    row = living_row(connection, key, 0.0)
    if row is None and write.action in ("update", "delete"):
        return DoesNotExist(key)
    if row is not None:
        if write.action == "create":
            return AlreadyExists(key, readable(key, row))
        if write.revision not in (None, row[1]):
            return UpdateConflict(key, readable(key, row))
    if write.action == "delete":
        assert row is not None
        log(connection, "deleted", key, *row)
        connection.execute(
            "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (key.kind, key.namespace, key.name)
        )
        return readable(key, row) or Entry(key, {}, str(row[1]))
    revision = log(connection, "added" if row is None else "modified", key, write.value, None)
    connection.execute(
        "INSERT INTO objects (kind, namespace, name, value, revision, expires_at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision, "
        "expires_at = excluded.expires_at",
        (key.kind, key.namespace, key.name, write.value, revision, write.expires_at),
    )
    return decode(key, write.value, str(revision))


def log(connection: sqlite3.Connection, happened: str, key: Key, value: bytes, last_revision: int | None) -> int:
    cursor = connection.execute(
        "INSERT INTO log (type, kind, namespace, name, value, last_revision) VALUES (?, ?, ?, ?, ?, ?)",
        (happened, key.kind, key.namespace, key.name, value, last_revision),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def readable(key: Key, row: Row) -> Entry | None:
    try:
        return decode(key, row[0], str(row[1]))
    except Unreadable:
        return None


def event_of(
    kind: str,
    revision: int,
    happened: Literal["added", "modified", "deleted"],
    namespace: str,
    name: str,
    value: bytes,
    last_revision: int | None,
) -> Event:
    key = Key(kind, name, namespace)
    if happened == "deleted":
        last = readable(key, (value, last_revision or 0))
        return Event("deleted", last or Entry(key, {}, str(last_revision or 0)), str(revision))
    try:
        return Event(happened, decode(key, value, str(revision)), str(revision))
    except Unreadable as error:
        return Event("unreadable", None, str(revision), error)


@contextmanager
def transaction(connection: sqlite3.Connection, mode: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    if mode == "IMMEDIATE":
        retry_while_busy(lambda: connection.execute("BEGIN IMMEDIATE"))
    else:
        connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back when the disk is full
            connection.execute("ROLLBACK")
        raise


def retry_while_busy(action: Callable[[], object]) -> None:
    """SQLite's own wait for a lock sleeps up to 100 ms at a time; with several writers that is most of the time."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.0001, 0.0006))
