"""The configuration file on disk: has it changed, and is it whole?

Polled with stat, twice a second: it costs microseconds and sees what inotify on one directory does not (a ConfigMap's
symlink that is swapped two levels up, network file systems). A change counts once the file has looked the same for
two polls, so that a file being written is not read half; one that is replaced by rename is whole anyway.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

POLL_S = 0.5

Signature = tuple[int, int, int, int] | None  # device, inode, size, mtime_ns; None: not there


def signature_of(path: str) -> Signature:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(slots=True)
class ConfigFile:
    path: str
    _loaded: Signature = None
    _seen: Signature = None

    def mark_loaded(self) -> None:
        """Call before reading: what changes during the read is then a change again."""
        self._loaded = self._seen = signature_of(self.path)

    def has_settled_change(self) -> bool:
        """Whether the file differs from what was loaded and did not change since the last call.

        A file that is gone is no change: the running configuration is all there is.
        """
        now = signature_of(self.path)
        settled = now == self._seen
        self._seen = now
        return settled and now is not None and now != self._loaded
