"""Parts of a change, each of which the kernel may refuse without cost to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from felix.kernel.nfnetlink import WHOLE, Message, NftSocket, Refused
from felix.kernel.nft_parts import Part, messages_of
from felix.sync.nft_table import Owner

LARGE = 200  # messages; from there on in a thread, while our event loop turns


Answer: TypeAlias = "Awaitable[Mapping[int, Refused]]"


MOST_MESSAGES, MOST_OCTETS = 2000, 4 << 20  # in a transaction; the socket takes 16 MiB


def is_small(messages: Sequence[Message]) -> bool:
    return len(messages) <= MOST_MESSAGES and sum(len(said) for _, said in messages) <= MOST_OCTETS


def portions(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts in their order, as many as one transaction takes; one that is too large by itself comes in pieces."""
    portion: list[Part] = []
    count = octets = 0
    for part in parts:
        messages: list[Message] = []
        for message in part.messages:
            if count >= MOST_MESSAGES or octets >= MOST_OCTETS:
                yield [*portion, Part(part.owner, messages)]
                portion, messages, count, octets = [], [], 0, 0
            messages.append(message)
            count, octets = count + 1, octets + len(message[1])
        if messages:
            portion.append(Part(part.owner, messages))
    if portion:
        yield portion


class Transactions:
    def __init__(self, socket: NftSocket) -> None:
        self._socket = socket

    async def send(self, messages: Sequence[Message]) -> Mapping[int, Refused]:
        return await self.begin(messages)

    def begin(self, messages: Sequence[Message], *, in_thread: bool = False) -> Answer:
        """In a thread it is on its way at once, else when it is awaited."""
        if in_thread or len(messages) >= LARGE:
            return asyncio.get_running_loop().run_in_executor(None, self._socket.transaction, messages)
        return _now(lambda: self._socket.transaction(messages))

    async def must(self, messages: Sequence[Message]) -> None:
        """Raises Refused."""
        for error in (await self.send(messages)).values():
            raise error

    async def carry_out(self, parts: Sequence[Part], answer: Answer | None = None) -> dict[Owner, str]:
        """All in one transaction but for what is refused, and why. `answer`: of `begin` with just these.

        Of what is wrong only with all together (a jump in a circle is found at the end) the half is tried, and its half.
        """
        bad: dict[Owner, str] = {}
        while parts:
            refused = await (answer or self.send(messages_of(parts)))
            answer = None
            if not refused:
                break
            owners = [part.owner for part in parts for _ in part.messages]
            named = {owners[place]: str(error) for place, error in refused.items() if place != WHOLE}
            if not named:
                return bad | await self._in_halves(parts, str(refused[WHOLE]))
            bad |= named
            parts = [part for part in parts if part.owner not in named]
        return bad

    async def carry_out_all(self, parts: Iterable[Part]) -> dict[Owner, str]:
        """As many transactions as it takes."""
        bad: dict[Owner, str] = {}
        for portion in portions(parts):
            bad |= await self.carry_out([part for part in portion if part.owner not in bad])
        return bad

    async def _in_halves(self, parts: Sequence[Part], reason: str) -> dict[Owner, str]:
        owners = list(dict.fromkeys(part.owner for part in parts))
        if len(owners) == 1:
            return {owners[0]: reason}
        first = set(owners[: len(owners) // 2])
        bad = await self.carry_out([part for part in parts if part.owner in first])
        return bad | await self.carry_out([part for part in parts if part.owner not in first])


async def _now(ask: Callable[[], Mapping[int, Refused]]) -> Mapping[int, Refused]:
    return ask()
