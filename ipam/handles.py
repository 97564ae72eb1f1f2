"""Handles: how many addresses of which blocks somebody holds, so that all can be released by one name.

A handle never says less than the blocks do: it is counted up before the block is written and down after. It may say
more, when whoever counted it up died before the block was written; `release_handles` and `catbird ipam check` see that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from integration.resources.keys import Key
from ipam.errors import TooManyForHandle
from ipam.ports import BlockStore, Exists, Missing, Stored, Value
from ipam.retrying import until_unchallenged


def handle_key(handle: str) -> Key:
    return Key("IPAMHandle", handle)


def counts_of(value: Mapping[str, Any]) -> dict[str, int]:
    """Block CIDR → how many addresses; what is no count is left out."""
    blocks = value.get("block")
    if not isinstance(blocks, dict):
        return {}
    return {cidr: count for cidr, count in blocks.items() if type(count) is int and count > 0}


@dataclass(frozen=True, slots=True)
class Handles:
    store: BlockStore

    async def count_up(self, handle: str, block: str, count: int, at_most: int = 0) -> None:
        """`at_most` of the block's family for the handle, 0: any number. Raises TooManyForHandle, TooManyConflicts."""

        async def attempt() -> None:
            try:
                stored = await self.store.get(handle_key(handle))
            except Missing:
                refuse_too_many(handle, {}, block, count, at_most)
                await self.store.create(handle_key(handle), {"block": {block: count}, "deleted": False})
                return
            counts = counts_of(stored.value)
            refuse_too_many(handle, counts, block, count, at_most)
            counts[block] = counts.get(block, 0) + count
            try:
                await self._write(stored, counts)
            except Missing:
                raise Exists from None  # it was removed: begin anew

        # A handle is mostly new: one write, no read.
        if not at_most:
            try:
                await self.store.create(handle_key(handle), {"block": {block: count}, "deleted": False})
                return
            except Exists:
                pass
        await until_unchallenged(f"handle {handle}", attempt)

    async def count_down(self, handle: str, block: str, count: int) -> None:
        """Never below zero; a handle that holds nothing any more is removed. Raises TooManyConflicts."""

        async def attempt() -> None:
            stored = await self.store.get(handle_key(handle))
            counts = counts_of(stored.value)
            if block not in counts:
                return
            counts[block] -= count
            if counts[block] <= 0:
                del counts[block]
            await self._write(stored, counts)

        try:
            await until_unchallenged(f"handle {handle}", attempt)
        except Missing:
            pass  # gone meanwhile: it holds nothing

    async def forget(self, stored: Stored, blocks: Iterable[str]) -> None:
        """Take blocks out that hold nothing of the handle. Raises Changed, Missing: the handle is not as it was read."""
        counts, gone = counts_of(stored.value), set(blocks)
        await self._write(stored, {cidr: count for cidr, count in counts.items() if cidr not in gone})

    async def _write(self, stored: Stored, counts: dict[str, int]) -> None:
        if not counts:
            await self.store.delete(stored.key, stored.revision)
            return
        value: Value = {**stored.value, "block": counts}
        await self.store.update(stored.key, value, stored.revision)


def refuse_too_many(handle: str, counts: Mapping[str, int], block: str, count: int, at_most: int) -> None:
    is_ipv6 = ":" in block
    held = sum(each for cidr, each in counts.items() if (":" in cidr) == is_ipv6)
    if at_most and held + count > at_most:
        family = 6 if is_ipv6 else 4
        raise TooManyForHandle(f"handle {handle} holds {held} IPv{family} addresses and may hold {at_most}")
