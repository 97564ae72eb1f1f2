"""Going on while the datastore is away, and in whose name to give up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bgp.ports import EventSink
from integration.datastore.errors import (
    AlreadyExists,
    DatastoreError,
    DoesNotExist,
    Unauthorized,
    Unavailable,
    UpdateConflict,
)
from integration.node.startup.variables import StartUpError
from integration.resources.base import ResourceError

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
RACES = 20  # against others who write the same resource
WAIT = "WAIT_FOR_DATASTORE"


class Patience:
    """Does work again until the datastore takes it: for ever, or for `limit_s` seconds without any success."""

    def __init__(self, limit_s: float | None, log: EventSink) -> None:
        self.limit_s = limit_s
        self.log = log

    async def until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work` reads anew what it compares with. Raises StartUpError."""
        loop = asyncio.get_running_loop()
        since, told, pause_s, races = loop.time(), "", FIRST_PAUSE_S, 0
        while True:
            try:
                done = await work()
                if told:
                    self.log.event("datastore_back", after_s=round(loop.time() - since, 3))
                return done
            except (UpdateConflict, AlreadyExists, DoesNotExist) as error:
                races += 1
                if races == RACES:
                    raise given_up(error) from error
            except Unavailable as error:
                if self.limit_s is not None and loop.time() - since >= self.limit_s:
                    raise away(error, self.limit_s) from error
                if str(error) != told:
                    told = str(error)
                    self.log.event("datastore_away", level="warning", error=told)
            except Unauthorized as error:
                raise StartUpError(
                    "DATASTORE_TYPE", f"the datastore does not let this node in: {error}",
                    "correct its credentials (ETCD_USERNAME, ETCD_CERT_FILE, KUBECONFIG) or the rights they give",
                ) from error  # fmt: skip
            except (DatastoreError, ResourceError) as error:
                raise given_up(error) from error
            # Scattered: a thousand nodes that wait must not come back in one moment.
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)


def away(error: DatastoreError, limit_s: float) -> StartUpError:
    reason = f"the datastore did not answer for {limit_s:g} s: {error}"
    return StartUpError(WAIT, reason, f"start it, correct DATASTORE_TYPE and its address, or set {WAIT}=true to wait")


def given_up(error: Exception) -> StartUpError:
    return StartUpError("DATASTORE_TYPE", f"the datastore refuses: {error}", "correct what it says, then start again")
