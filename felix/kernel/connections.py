"""Forgetting tracked connections of an address that has moved away: an old entry would send packets where it was."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable

TIMEOUT_S = 5.0


class Connections:
    """By the program `conntrack`: the kernel deletes by whole tuples only, so that all must be read, and it reads them well."""

    def __init__(self, told: Callable[..., None]) -> None:
        self._told = told
        self._program = shutil.which("conntrack")
        if self._program is None:
            told(
                "conntrack_missing", level="warning", fix="apt-get install conntrack", effect="old connections live on"
            )

    async def forget(self, address: str) -> None:
        """Both directions. A failure is told, and nothing else comes of it."""
        if self._program is None:
            return
        family = "ipv6" if ":" in address else "ipv4"
        for direction in ("--orig-src", "--orig-dst", "--reply-src", "--reply-dst"):
            process = await asyncio.create_subprocess_exec(
                self._program, "-f", family, "-D", direction, address,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                _, complaint = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
                self._told("conntrack_failed", level="warning", address=address, error="timeout")
                return
            # 1 with "0 flow entries have been deleted" is success.
            if process.returncode not in (0, 1):
                self._told(
                    "conntrack_failed",
                    level="warning",
                    address=address,
                    error=complaint.decode(errors="replace").strip(),
                )
                return
