"""Affinities: that a host holds a block. absent → pending → confirmed → pendingDeletion → absent.

The block itself says whose it is; an affinity is the host's note of it, by which routes are announced and blocks are
found. It is written before the block is claimed (pending) and removed after the block was given up, so that nobody dies
holding a block that nothing points at. pending counts as absent for ownership and routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from integration.resources.fields import parse_network
from integration.resources.keys import affinity_key, cidr_of
from ipam.block import HostReservation, new_block
from ipam.blocks import Blocks, Held
from ipam.errors import BadSequence, BrokenBlock, ClaimConflict, NotEmpty, NotHeld, StaleAffinity
from ipam.ports import BlockStore, Changed, Clock, Exists, Missing, Stored
from ipam.retrying import until_unchallenged

State = Literal["pending", "confirmed", "pendingDeletion"]


def is_confirmed(affinity: Stored) -> bool:
    """Old versions wrote no state."""
    return affinity.value.get("state") in (None, "", "confirmed")


@dataclass(frozen=True, slots=True)
class Affinities:
    """`holder` is `host:NODE` or `virtual:NAME`, as blocks say it."""

    store: BlockStore
    blocks: Blocks
    clock: Clock

    async def get(self, holder: str, cidr: str) -> Stored:
        """Missing."""
        return await self.store.get(affinity_key(holder, cidr))

    async def pending(self, holder: str, cidr: str) -> Stored:
        """One that is at least pending; a confirmed one stays so. Changed."""
        key = affinity_key(holder, cidr)
        try:
            return await self.store.create(key, {"state": "pending", "deleted": False})
        except Exists:
            pass
        try:
            found = await self.store.get(key)
        except Missing:
            raise Changed from None
        return found if is_confirmed(found) else await self._pending(found)

    async def block_of(self, affinity: Stored, reservation: HostReservation | None = None) -> Held:
        """The block that the affinity stands for, confirmed; made if it is not there.

        Raises Changed, StaleAffinity, ClaimConflict, BrokenBlock.
        """
        holder, cidr = affinity.key.namespace, cidr_of(affinity.key)
        try:
            held = await self.blocks.get(cidr)
        except Missing:
            return await self.claim(await self._pending(affinity), reservation)
        if held.block.affinity != holder:
            await self._remove(affinity)
            raise StaleAffinity(f"block {cidr} is not of {holder}, though its affinity says so")
        if not is_confirmed(affinity):
            if affinity.value.get("state") != "pending":
                affinity = await self._pending(affinity)
                # Whoever is giving the block up at this moment fails with it now.
                await self.blocks.write(held)
            await self._confirm(affinity)
        return held

    async def claim(self, affinity: Stored, reservation: HostReservation | None = None) -> Held:
        """Make the block of a pending affinity. Raises ClaimConflict if it is somebody else's, Changed."""
        holder, cidr = affinity.key.namespace, cidr_of(affinity.key)
        try:
            held = await self.blocks.create(new_block(parse_network(cidr), holder, self.clock(), reservation))
        except Exists:
            held = await self._existing(affinity)
        await self._confirm(affinity)
        return held

    async def _existing(self, affinity: Stored) -> Held:
        holder, cidr = affinity.key.namespace, cidr_of(affinity.key)
        try:
            held = await self.blocks.get(cidr)
            owner = held.block.affinity
        except Missing:
            raise Changed from None
        except BrokenBlock as error:
            await self._remove(affinity)
            raise ClaimConflict(str(error)) from None
        if owner != holder:
            await self._remove(affinity)
            raise ClaimConflict(f"block {cidr} is {'of ' + owner if owner else 'there, and of nobody'}")
        return held

    async def release(
        self, holder: str, cidr: str, *, must_be_empty: bool = False, sequence_number: int | None = None
    ) -> None:
        """Give the block up: removed if it is empty, else left to nobody with what it has assigned.

        `sequence_number` is what the block must still have. Raises NotHeld, ClaimConflict (another's: only the affinity
        is removed), NotEmpty, BadSequence, BrokenBlock, TooManyConflicts.
        """

        async def attempt() -> None:
            try:
                affinity = await self.get(holder, cidr)
            except Missing:
                raise NotHeld(f"{holder} does not hold block {cidr}") from None
            try:
                held = await self.blocks.get(cidr)
            except Missing:
                await self._remove(affinity)
                return
            await self._give_up(affinity, held, must_be_empty, sequence_number)

        await until_unchallenged(f"affinity of {holder} for {cidr}", attempt)

    async def _give_up(self, affinity: Stored, held: Held, must_be_empty: bool, sequence_number: int | None) -> None:
        holder, block = affinity.key.namespace, held.block
        if sequence_number not in (None, block.sequence_number):
            raise BadSequence(f"block {held.cidr} was changed since it was looked at")
        if block.affinity not in (None, holder):
            await self._remove(affinity)
            raise ClaimConflict(f"block {held.cidr} is of {block.affinity}")
        is_empty = block.is_empty()
        if must_be_empty and not is_empty:
            raise NotEmpty(f"block {held.cidr} has addresses in use")
        affinity = await self._set(affinity, "pendingDeletion")
        if is_empty:
            await self.blocks.delete(held)
        else:
            block.affinity = block.claimed_at = None
            await self.blocks.write(held)
        await self._remove(affinity)

    async def _pending(self, affinity: Stored) -> Stored:
        """One that is pending stays as it is: several tasks of one host that claim the same block would otherwise keep
        each other from ever confirming it."""
        return affinity if affinity.value.get("state") == "pending" else await self._set(affinity, "pending")

    async def _confirm(self, affinity: Stored) -> None:
        try:
            await self._set(affinity, "confirmed")
        except Changed:
            # Another process of this host may have been faster, with the same in mind.
            try:
                if is_confirmed(await self.store.get(affinity.key)):
                    return
            except Missing:
                pass
            raise

    async def _set(self, affinity: Stored, state: State) -> Stored:
        """Changed: also when it is gone."""
        try:
            return await self.store.update(affinity.key, {**affinity.value, "state": state}, affinity.revision)
        except Missing:
            raise Changed from None

    async def _remove(self, affinity: Stored) -> None:
        """Unless somebody else has written it meanwhile: then it is theirs."""
        try:
            await self.store.delete(affinity.key, affinity.revision)
        except (Missing, Changed):
            pass
