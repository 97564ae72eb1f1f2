"""A node for the start-up's tests: a network namespace, a local store, an environment, and what was logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from integration.datastore.client import ResourceClient
from integration.datastore.local.driver import LocalDatastore
from integration.node.startup import start_up
from integration.resources.keys import Key
from tests.bgp.world import Told
from tests.netns import Namespace

T = TypeVar("T")
Story = Callable[[ResourceClient], Coroutine[Any, Any, T]]


class World:
    """`namespace` None: this process's own, for what looks at no interface that matters."""

    def __init__(self, folder: Path, namespace: Namespace | None = None) -> None:
        self.store = folder / "store.db"
        self.name_file = folder / "nodename"
        self.namespace = namespace
        self.log = Told()

    def play(self, story: Story[T]) -> T:
        """Run it in an event loop inside the namespace."""

        async def main() -> T:
            datastore = LocalDatastore(self.store)
            try:
                return await story(ResourceClient(datastore))
            finally:
                await datastore.close()

        return self.namespace.call(lambda: asyncio.run(main())) if self.namespace else asyncio.run(main())

    def environment(self, **variables: str) -> dict[str, str]:
        return {"NODENAME": "n1", "CALICO_NODENAME_FILE": str(self.name_file)} | variables

    def start(self, **variables: str) -> str:
        return self.play(lambda client: start_up(client, self.environment(**variables), self.log, patience_s=0.3))

    def value(self, kind: str, name: str) -> dict[str, Any]:
        async def read(client: ResourceClient) -> dict[str, Any]:
            return (await client.datastore.get(Key(kind, name))).value

        return self.play(read)

    def names(self, kind: str) -> list[str]:
        async def read(client: ResourceClient) -> list[str]:
            return [entry.key.name for entry in (await client.datastore.list(kind)).entries]

        return self.play(read)

    def spec(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.value(kind, name)["spec"]
        return found

    def bgp(self, node: str = "n1") -> dict[str, Any]:
        found: dict[str, Any] = self.spec("Node", node).get("bgp", {})
        return found

    def put(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
        value = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name, "uid": "u",
                 "creationTimestamp": "2020-01-01T00:00:00Z", **metadata}, "spec": spec}  # fmt: skip

        async def write(client: ResourceClient) -> None:
            await client.datastore.apply(Key(kind, name), value)

        self.play(write)
