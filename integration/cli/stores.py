"""Opening the datastore that a command is about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from integration.cli.outcome import Failed, complain
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DatastoreError
from integration.datastore.settings import load_settings, open_datastore

Result = TypeVar("Result")


def with_client(url: str, config: Path | None, work: Callable[[ResourceClient], Awaitable[Result]]) -> Result:
    """What `work` returns. A DatastoreError is told to the person, and is Failed then."""

    async def run() -> Result:
        datastore = open_datastore(load_settings(url, config_file=config))
        try:
            return await work(ResourceClient(datastore))
        finally:
            await datastore.close()

    try:
        return asyncio.run(run())
    except DatastoreError as error:
        complain(error.reason + (f" ({error.hint})" if error.hint else ""))
        raise Failed from None
