"""The nftables PacketFilter: one table `calico` of one IP version, kept as wanted, by netlink messages of our own.

A small change is one transaction. A large one, or one that was refused, goes step by step: new sets and chains, members
that come, rules, map entries, and last what is gone. A former process's table is taken over: what is equal is left alone, the
rest is replaced, each chain in one transaction.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from contextlib import suppress

from felix.desired import IPVersion
from felix.filter_rules import Table
from felix.kernel.nfnetlink import NftSocket
from felix.kernel.nft_monitor import MANY_CHAINS, Touched
from felix.kernel.nft_parts import BASE, Guard, Parts
from felix.kernel.nft_reader import ASK_EACH, NftReader, is_owned
from felix.kernel.nft_writer import NftWriter
from felix.nft_names import TABLE_NAME, chain_name
from felix.ports import Failure, RuleCount
from felix.sync.nft_table import NftTable, Owner


class NftablesFilter(NftTable):
    """Not thread-safe; `apply` and `check` one after the other, all else at any time. Needs no program and no library."""

    has_verdict_maps = True
    has_alternatives = True

    def __init__(
        self, version: IPVersion, table: str = TABLE_NAME, guard: Guard | None = None, *, owns: bool = False
    ) -> None:
        """`guard`: what stands in these hooks while all of ours is written anew, because there was nothing or others
        have been at it. `owns`: as long as this lives nobody else may alter the table, where the kernel can (Linux 6.9)."""
        super().__init__(version, table)
        self._socket = NftSocket(version, table)
        self._parts = Parts(version, table, guard, owns=owns)
        self._reader = NftReader(self, table, self._socket)
        self._writer = NftWriter(self, self._parts, self._reader, self._socket)
        self._counting = NftSocket(version, table)  # whoever asks for counters need not wait for a large write
        self._suspects = Touched()

    def close(self) -> None:
        self._socket.close()
        self._counting.close()

    @property
    def port_ids(self) -> set[int]:
        """By which the kernel's notifications of our own writes are known."""
        return {self._socket.port_id}

    # --- making it so ------------------------------------------------------------------------------------------------

    async def apply(self) -> list[Failure]:
        try:
            with self.sets_held():
                return await self._apply()
        except BaseException:
            self.is_loaded = False  # how far it went is known to the kernel alone
            raise

    async def _apply(self) -> list[Failure]:
        """As the books say, else as the kernel says, else all anew."""
        refused: OSError | None = None
        for attempt in range(3):
            try:
                if attempt == 2 or self.must_rebuild:
                    await self._writer.rebuild()
                if not self.is_loaded:
                    await self._adopt()
                await self._change()
                return self.failures()
            except OSError as error:
                self.is_loaded, refused = False, error
        assert refused is not None
        return [Failure(self.what, refused.strerror or str(refused)), *self.failures()]

    async def _adopt(self) -> None:
        state = self._reader.state()
        chains, sets = await self._reader.frame()
        if state is None or is_owned(state) is not self._parts.owns or self._reader.has_alien(chains, sets):
            await self._writer.rebuild()
            chains, sets = {}, {}
        else:
            await self._writer.make_frame(BASE.keys() - chains.keys())
        await self._reader.adopt(chains, sets)

    async def _change(self) -> None:
        self.prepare_maps()
        if not await self._writer.at_once() or self.failed:
            if not await self._reader.is_as_known():
                await self._adopt()
                self.prepare_maps()
            if self.is_breached:
                await self._writer.stand_guard()
            await self._writer.step_by_step()
        self.is_breached = False

    # --- looking -----------------------------------------------------------------------------------------------------

    def suspect(self, touched: Touched) -> None:
        """Somebody else has been at these: the next `check` looks at them alone."""
        self._suspects.add(touched)

    async def check(self) -> list[str]:
        suspects, self._suspects = self._suspects, Touched()
        if not self.is_loaded:
            return []
        try:
            if len(suspects.chains) >= MANY_CHAINS:
                with suppress(OSError):
                    await self._writer.stand_guard()  # what is the matter takes long to find out
            if suspects.is_more or not (suspects.chains or suspects.sets):
                return await self._reader.check()
            return await self._reader.check_touched(suspects)
        except OSError as error:
            self.is_loaded = False
            return [f"{self.what} cannot be read: {error}"]
        except BaseException:
            self.is_loaded = False  # comparisons were begun that nobody will end
            raise

    async def counts(self, table: Table, chains: Iterable[str]) -> list[RuleCount]:
        """Those of chains that stand as they were given. A rule that is not written, as nothing can match it, has none."""
        named = [(chain, chain_name(table, chain)) for chain in chains]
        known = [(chain, name, self.written(name)) for chain, name in named if self._stands(name)]

        def ask() -> list[RuleCount]:
            return [
                RuleCount(table, chain, at, *counter)
                for chain, name, places in known
                for at, counter in zip(places, self._counting.counters(name), strict=False)
            ]

        return await asyncio.to_thread(ask) if len(known) > ASK_EACH else ask()

    def handles(self, chain: str) -> dict[int, int]:
        """Of a chain (by the kernel's name) the place of each rule by its handle; none if it does not stand as it was given."""
        if not self._stands(chain):
            return {}
        return dict(zip(self._counting.rule_handles(chain).get(chain, []), self.written(chain), strict=False))

    def _stands(self, chain: str) -> bool:
        is_written = chain in self.known_chains and chain in self.chains and chain not in self.dirty
        return is_written and Owner("chain", chain) not in self.failed

    async def remove_everything(self) -> None:
        """Raises OSError."""
        self.is_loaded = False
        for error in self._socket.transaction([self._parts.encoder.delete_table()]).values():
            if error.errno != errno.ENOENT:
                raise error


__all__ = ["NftablesFilter"]
