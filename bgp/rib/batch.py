"""Messages for all members of an update group: one run of bytes, with the slices that single members skip or get alone."""

from __future__ import annotations

from bgp.rib.path import Source

Buffer = bytes | memoryview


class Batch:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0  # octets in `parts`
        self.count = 0  # messages
        # member → (start, end, count of messages, what it gets instead), in wire order
        self._special: dict[Source, list[tuple[int, int, int, list[bytes]]]] = {}
        self._whole: bytes | None = None

    def add(self, messages: list[bytes], skipped_by: Source | None = None) -> None:
        size = sum(map(len, messages))
        if skipped_by is not None and messages:
            self.skip(skipped_by, size, len(messages))
        self.parts += messages
        self.size += size
        self.count += len(messages)

    def skip(self, member: Source, octets: int, count: int = 1) -> None:
        """It does not get the messages that are added next."""
        special, start = self._special.setdefault(member, []), self.size
        if special and special[-1][1] == start and not special[-1][3]:  # one slice with what it skips before
            start, _, skipped, _ = special.pop()
            count += skipped
        special.append((start, self.size + octets, count, []))

    def add_private(self, member: Source, messages: list[bytes]) -> None:
        if messages:
            self._special.setdefault(member, []).append((self.size, self.size, 0, messages))

    def buffers_for(self, member: Source) -> tuple[list[Buffer], int]:
        """What this member gets, and how many messages that is. Nothing may be added any more: the bytes are shared."""
        if self._whole is None:
            self._whole, self.parts = b"".join(self.parts), []
        whole = self._whole
        special = self._special.get(member)
        if special is None:
            return ([whole], self.count) if whole else ([], 0)
        view = memoryview(whole)
        buffers: list[Buffer] = []
        at, left = 0, self.count
        for start, end, skipped, instead in special:
            if start > at:
                buffers.append(view[at:start])
            buffers += instead
            left += len(instead) - skipped
            at = end
        if at < len(whole):
            buffers.append(view[at:])
        return buffers, left
