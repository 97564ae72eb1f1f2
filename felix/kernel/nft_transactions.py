"""Parts of a change, each of which the kernel may refuse without cost to the others."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from felix.kernel.nfnetlink import WHOLE, Message, NftSocket, Refused
from felix.kernel.nft_parts import Part, messages_of
from felix.sync.nft_table import Owner

LARGE = 200  # messages; from there on in a thread, while our event loop turns


Answer: TypeAlias = "Awaitable[Mapping[int, Refused]]"


# A jump in a circle or too deep, a rule that has no place where it is led to: once the table has such a thing, the kernel
# says it of each rule that follows.
OF_THE_WHOLE = frozenset({errno.EMLINK, errno.ELOOP, errno.EOPNOTSUPP})
MOST_SUSPECTED = 100
MOST_MESSAGES, MOST_OCTETS = 2000, 1 << 20  # in a transaction; the socket takes 16 MiB


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
        """All in one transaction but for what is refused, and why. `answer`: of `begin` with just these."""
        bad: dict[Owner, str] = {}
        suspects: list[Part] = []
        while parts or suspects:
            if not parts:
                if len(bad) >= MOST_SUSPECTED:
                    return bad | {part.owner: "refused with others" for part in suspects}
                parts, suspects = suspects, []
            refused = await (answer or self.send(messages_of(parts)))
            answer = None
            if not refused:
                parts = []
                continue
            guilty, suspected = _whose(parts, refused)
            if not guilty:
                bad |= await self._in_halves(parts, str(refused[WHOLE]))
                parts = []
                continue
            bad |= guilty
            suspects += [part for part in parts if part.owner in suspected]
            parts = [part for part in parts if part.owner not in guilty and part.owner not in suspected]
        return bad

    async def carry_out_all(self, parts: Iterable[Part]) -> dict[Owner, str]:
        """As many transactions as it takes."""
        bad: dict[Owner, str] = {}
        for portion in portions(parts):
            bad |= await self.carry_out([part for part in portion if part.owner not in bad])
        return bad

    async def _in_halves(self, parts: Sequence[Part], reason: str) -> dict[Owner, str]:
        """Of what is wrong only with all together the half is tried, and its half."""
        owners = list(dict.fromkeys(part.owner for part in parts))
        if len(owners) == 1:
            return {owners[0]: reason}
        first = set(owners[: len(owners) // 2])
        bad = await self.carry_out([part for part in parts if part.owner in first])
        return bad | await self.carry_out([part for part in parts if part.owner not in first])


def _whose(parts: Sequence[Part], refused: Mapping[int, Refused]) -> tuple[dict[Owner, str], set[Owner]]:
    """Who is refused for what it is, and who perhaps only for what came before it."""
    owners = [part.owner for part in parts for _ in part.messages]
    guilty: dict[Owner, str] = {}
    suspected: set[Owner] = set()
    has_closed = False
    for place in sorted(place for place in refused if place != WHOLE):
        owner, error = owners[place], refused[place]
        if error.errno in OF_THE_WHOLE and has_closed and owner not in guilty:
            suspected.add(owner)
        else:
            has_closed = has_closed or error.errno in OF_THE_WHOLE
            guilty.setdefault(owner, str(error))
    return guilty, suspected - guilty.keys()


async def _now(ask: Callable[[], Mapping[int, Refused]]) -> Mapping[int, Refused]:
    return ask()
