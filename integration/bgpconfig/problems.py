"""What is wrong with the resources, said so that a person can mend it; and where readers put it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from integration.resources.keys import Key


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is not used as it is written. `field` is a JSON path; `reason` says what is wrong and what follows."""

    key: Key
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.field}: {self.reason}" if self.field else f"{self.key}: {self.reason}"


@dataclass(slots=True)
class Notes:
    """The problems that one reading found."""

    found: list[Problem] = field(default_factory=list)

    def note(self, key: Key, where: str, reason: str) -> None:
        self.found.append(Problem(key, where, reason))

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.found)
