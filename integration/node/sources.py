"""Where the speaker's configuration comes from: a file, or (`datastore_source.py`) resources."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

from bgp.config import SpeakerConfig
from bgp.toml import load
from integration.node.config_file import POLL_S, ConfigFile


class ConfigSource(Protocol):
    where: str  # as people are told

    def load(self) -> SpeakerConfig:
        """The configuration as it is now. Raises ConfigError, OSError, ReloadRefused: the running one stays."""
        ...

    async def changed(self) -> str:
        """Returns, with the cause, when there may be something else to load."""
        ...

    def applied(self) -> None:
        """What was loaded last is in force."""
        ...

    def numbers(self) -> dict[str, float]:
        """Gauges, by name without `catbird_`."""
        ...

    def view(self) -> dict[str, Any]:
        """More for `catbird show config`."""
        ...


class FileSource:
    def __init__(self, path: str) -> None:
        self.path = path
        self.where = os.path.abspath(path)
        self._file = ConfigFile(path)
        self._file.mark_loaded()

    def load(self) -> SpeakerConfig:
        self._file.mark_loaded()
        return load(self.path)

    async def changed(self) -> str:
        while True:
            await asyncio.sleep(POLL_S)
            if self._file.has_settled_change():
                return "file changed"

    def applied(self) -> None:
        pass

    def numbers(self) -> dict[str, float]:
        return {}

    def view(self) -> dict[str, Any]:
        return {}
