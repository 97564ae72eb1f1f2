"""The start-up as the node's daemon uses it: `run` before the speaker, `monitor` beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bgp.ports import EventSink
from integration.datastore.client import ResourceClient
from integration.node.startup import node_name as naming
from integration.node.startup.run import monitor_addresses, start_up
from integration.node.startup.variables import StartUpError, Variables

__all__ = ["StartUp", "StartUpError", "node_name"]
AFTER_CONFLICT_S = 60.0


def node_name(environment: Mapping[str, str]) -> str:
    """Raises StartUpError."""
    return naming.node_name(Variables(environment))


class StartUp:
    def __init__(self, client: ResourceClient, name: str, environment: Mapping[str, str], log: EventSink) -> None:
        self._client = client
        self._environment = {**environment, "NODENAME": name}
        self._log = log

    async def run(self) -> None:
        """Waits as long as the datastore is away. Raises StartUpError."""
        await start_up(self._client, self._environment, self._log, patience_s=None)

    async def monitor(self) -> None:
        """Until cancelled, or at once if nothing is detected.

        After a conflict our Node has no address, so the speaker no peers; it gets one when the conflict is gone.
        """
        while True:
            try:
                await monitor_addresses(self._client, self._environment, self._environment["NODENAME"], self._log)
                return
            except StartUpError as error:
                self._log.event("node_address_conflict", level="error", error=str(error))
                await asyncio.sleep(AFTER_CONFLICT_S)
