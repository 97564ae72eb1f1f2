"""What IPAM needs from outside: a store with compare-and-swap, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool, IPReservation

Value = dict[str, Any]
Result = TypeVar("Result")
Clock = Callable[[], int]
"""Nanoseconds since 1970 in UTC: what blocks' sequence numbers and times are made from."""


class StoreConflict(Exception):
    """The store was not as the writer believed. It is certain that nothing was written."""


class Missing(StoreConflict):
    """Nothing lies at the key."""


class Exists(StoreConflict):
    """Something lies at the key already."""


class Changed(StoreConflict):
    """It was written by somebody else since it was read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the form it has in etcd (integration.resources.models.ipam), and the revision of its last write."""

    key: Key
    value: Value
    revision: str


@dataclass(frozen=True, slots=True)
class Listed:
    """`unreadable`: what lies there and is no JSON object, with the reason."""

    found: Sequence[Stored]
    unreadable: Sequence[tuple[Key, str]] = ()


@dataclass(frozen=True, slots=True)
class Pools:
    """`unreadable`: the names of pools that cannot be understood, with the reason."""

    found: Sequence[IPPool]
    unreadable: Sequence[tuple[str, str]] = field(default=())


class BlockStore(Protocol):
    """Where blocks, affinities, handles and the configuration are, and what they depend on.

    Kinds are IPAMBlock, BlockAffinity, IPAMHandle, IPAMConfig and IPAMHost. Values handed in are neither kept nor
    changed, values handed out belong to the caller. Whatever else goes wrong is raised as the store's own error, and
    then a write may have happened or not.
    """

    async def get(self, key: Key) -> Stored:
        """Missing."""
        ...

    async def list(self, kind: str, holder: str = "") -> Listed:
        """All of a kind, ordered by key; of affinities those of one holder (`host:node1`)."""
        ...

    async def create(self, key: Key, value: Value) -> Stored:
        """Exists."""
        ...

    async def update(self, key: Key, value: Value, revision: str) -> Stored:
        """Overwrite what still has that revision. Missing, Changed."""
        ...

    async def delete(self, key: Key, revision: str) -> None:
        """Remove what still has that revision. Missing, Changed."""
        ...

    async def pools(self) -> Pools:
        """All pools, also disabled ones, ordered by name."""
        ...

    async def reservations(self) -> Sequence[IPReservation]: ...

    async def node_labels(self, node: str) -> Mapping[str, str] | None:
        """None: there is no such Node."""
        ...

    async def together(self, jobs: Sequence[Coroutine[Any, Any, Result]]) -> Sequence[Result | Exception]:
        """Run all, at the same time where the store gains from it; what each returned or raised, in order."""
        ...
