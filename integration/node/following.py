"""Following a datastore whatever happens."""

from __future__ import annotations

import asyncio

from integration.datastore.syncer import Syncer
from integration.logs import EventLog

BEGIN_AGAIN_S = 5.0


async def follow(syncer: Syncer, log: EventLog) -> None:
    """Until cancelled. A fault of ours must not leave the node deaf: it begins anew, with a list."""
    while True:
        try:
            await syncer.run()
        except Exception as error:
            cause = first_cause(error)
            log.event("syncer_failed", level="error", error=f"{type(cause).__name__}: {cause}")
            syncer.forget()
            await asyncio.sleep(BEGIN_AGAIN_S)


def first_cause(error: BaseException) -> BaseException:
    """Of errors in groups the first: one line has room for one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
