"""What the programmers of the tunnels' devices have in common: when a device is made anew, and how that can fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from felix.kernel.tunnels import Made
from felix.ports import Failure

Settings = TypeVar("Settings")


class Tunnel(ABC, Generic[Settings]):
    """A Programmer. Whoever learns something that matters sets `_is_stale`; what failed is tried again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._is_stale = True

    @property
    @abstractmethod
    def device(self) -> str:
        """Its name."""

    @abstractmethod
    def _make_it_so(self) -> Made:
        """May raise OSError."""

    def reconfigure(self, settings: Settings) -> None:
        self._is_stale = self._is_stale or settings != self._settings
        self._settings = settings

    async def apply(self, now: float) -> list[Failure]:
        if not self._is_stale:
            return []
        made = self._make()
        self._is_stale = bool(made.failures)
        return made.failures

    async def check(self) -> list[str]:
        """What others did to it; put right at once, as far as the kernel lets us."""
        made = self._make()
        self._is_stale = self._is_stale or bool(made.failures)
        return [*made.changes, *(f"{one.what}: {one.reason}" for one in made.failures)]

    def _make(self) -> Made:
        try:
            return self._make_it_so()
        except OSError as error:
            return Made(failures=[Failure(f"device {self.device}", error.strerror or str(error))])
