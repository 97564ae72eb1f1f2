"""What can go wrong with a datastore. Each error says what is in the way (`reason`) and what to do (`hint`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from integration.resources.base import Problem
from integration.resources.keys import Key

if TYPE_CHECKING:
    from integration.datastore.api import Entry


class DatastoreError(Exception):
    """Anything a datastore refuses or fails to do. `hint` is "" where nothing useful can be advised."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason = reason
        self.hint = hint
        super().__init__(f"{reason}; {hint}" if hint else reason)


class DoesNotExist(DatastoreError):
    """Nothing lies at the key."""

    def __init__(self, key: Key) -> None:
        self.key = key
        super().__init__(f"{key} does not exist")


class AlreadyExists(DatastoreError):
    """Something lies at the key already; `existing` is what, unless the datastore does not say."""

    def __init__(self, key: Key, existing: Entry | None = None) -> None:
        self.key = key
        self.existing = existing
        super().__init__(f"{key} already exists")


class UpdateConflict(DatastoreError):
    """It was changed since it was read; `current` is what lies there now, unless the datastore does not say."""

    def __init__(self, key: Key, current: Entry | None = None) -> None:
        self.key = key
        self.current = current
        super().__init__(f"{key} was changed by somebody else", "read it again and repeat the change")


class Invalid(DatastoreError):
    """The resource itself is wrong; `problems` says field by field why. Nothing was written."""

    def __init__(self, key: Key, problems: Sequence[Problem]) -> None:
        self.key = key
        self.problems = list(problems)
        super().__init__(f"{key} is not valid: " + "; ".join(map(str, self.problems)))


class Unreadable(DatastoreError):
    """What lies at the key cannot be understood: it is no JSON object, for one."""

    def __init__(self, key: Key, why: str, revision: str = "") -> None:
        self.key = key
        self.why = why
        self.revision = revision
        super().__init__(f"{key} cannot be read: {why}", "replace or delete it")


class Unsupported(DatastoreError):
    """This datastore cannot do that, ever."""


class Unauthorized(DatastoreError):
    """The datastore is there, but does not let us in, or not do this."""


class RevisionGone(DatastoreError):
    """What happened since that revision is no longer known (compacted, HTTP 410): list again."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        super().__init__(f"the datastore no longer knows what happened since revision {revision}", "list again")


class Unavailable(DatastoreError):
    """The datastore does not answer, or cannot work now (no quorum, disk full). The same request may do later."""


class BrokenStore(DatastoreError):
    """The store itself is damaged, or was written by another program or a newer version. Trying again is useless."""
