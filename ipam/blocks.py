"""Reading and writing blocks, and remembering those that this process wrote last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from integration.resources.keys import Key, block_key, cidr_of
from ipam.block import Block, read_block
from ipam.errors import BrokenBlock
from ipam.ports import BlockStore, Changed, Clock, Missing, Stored

REMEMBERED = 64


@dataclass(slots=True)
class Held:
    """A block as it was read or written, changed since then perhaps, and the revision that the next write compares."""

    key: Key
    block: Block
    revision: str

    @property
    def cidr(self) -> str:
        return cidr_of(self.key)


@dataclass(slots=True)
class Memory:
    """Blocks as this process wrote them last: the next write needs no read, and fails if somebody else was there.

    Taken out by whoever works with them, so that no two tasks change one object.
    """

    blocks: OrderedDict[Key, Held] = field(default_factory=OrderedDict)

    def take(self, key: Key) -> Held | None:
        return self.blocks.pop(key, None)

    def put(self, held: Held) -> None:
        self.blocks[held.key] = held
        if len(self.blocks) > REMEMBERED:
            self.blocks.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Blocks:
    """`cooldown_s`: how long a released address rests."""

    store: BlockStore
    clock: Clock
    cooldown_s: int
    memory: Memory

    async def get(self, cidr: str) -> Held:
        """With what has cooled down freed, in memory: a later write stores that. Missing, BrokenBlock."""
        self.memory.take(block_key(cidr))
        return self.of(await self.store.get(block_key(cidr)))

    def of(self, stored: Stored) -> Held:
        """Raises BrokenBlock."""
        block = read_block(stored.value, cidr_of(stored.key))
        block.collect(self.clock(), self.cooldown_s)
        return Held(stored.key, block, stored.revision)

    def remembered(self, cidr: str) -> Held | None:
        held = self.memory.take(block_key(cidr))
        if held is not None:
            held.block.collect(self.clock(), self.cooldown_s)
        return held

    async def all(self) -> tuple[list[Held], list[BrokenBlock]]:
        found, broken = [], []
        listed = await self.store.list("IPAMBlock")
        for stored in listed.found:
            try:
                found.append(self.of(stored))
            except BrokenBlock as error:
                broken.append(error)
        broken += [BrokenBlock(cidr_of(key), why) for key, why in listed.unreadable]
        return found, broken

    async def create(self, block: Block) -> Held:
        """Exists."""
        key = block_key(str(block.cidr))
        stored = await self.store.create(key, block.to_json())
        return Held(key, block, stored.revision)

    async def write(self, held: Held) -> None:
        """Changed: also when it is gone; `held` is of no use any more then."""
        try:
            stored = await self.store.update(held.key, held.block.to_json(), held.revision)
        except Missing:
            raise Changed from None
        held.revision = stored.revision

    async def delete(self, held: Held) -> None:
        """Changed: also when it is gone."""
        try:
            await self.store.delete(held.key, held.revision)
        except Missing:
            raise Changed from None
