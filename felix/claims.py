"""The workloads of this node, and which has an interface that several claim: the lowest id, as in Calico; the next one when
it goes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from felix.desired import Message, WorkloadEndpoint, WorkloadId, WorkloadRemove, WorkloadUpdate


class Claims:
    """`owners` is interface → workload."""

    def __init__(self) -> None:
        self._owners: dict[str, WorkloadId] = {}
        self._claims: dict[str, set[WorkloadId]] = {}
        self._interfaces: dict[WorkloadId, str] = {}

    @property
    def owners(self) -> Mapping[str, WorkloadId]:
        return self._owners

    def owns(self, id: WorkloadId) -> bool:
        interface = self._interfaces.get(id)
        return interface is not None and self._owners.get(interface) == id

    def claim(self, id: WorkloadId, interface: str) -> set[WorkloadId]:
        """The workloads whose ownership has changed by this."""
        before = self._interfaces.get(id)
        if before == interface:
            return set()
        changed = self.forget(id)
        self._interfaces[id] = interface
        self._claims.setdefault(interface, set()).add(id)
        return changed | self._arbitrate(interface)

    def forget(self, id: WorkloadId) -> set[WorkloadId]:
        interface = self._interfaces.pop(id, None)
        if interface is None:
            return set()
        self._claims[interface].discard(id)
        return self._arbitrate(interface)

    def _arbitrate(self, interface: str) -> set[WorkloadId]:
        claims = self._claims[interface]
        before, now = self._owners.get(interface), min(claims) if claims else None
        if not claims:
            del self._claims[interface]
        if now == before:
            return set()
        if now is None:
            del self._owners[interface]
        else:
            self._owners[interface] = now
        return {one for one in (before, now) if one is not None}


class LocalWorkloads:
    """As messages tell of them."""

    def __init__(self) -> None:
        self.by_id: dict[WorkloadId, WorkloadEndpoint] = {}
        self._claims = Claims()

    def on_message(self, message: Message) -> set[WorkloadId]:
        """Those it tells of, and those whose ownership of an interface has changed by it."""
        match message:
            case WorkloadUpdate(endpoint):
                self.by_id[endpoint.id] = endpoint
                return {endpoint.id} | self._claims.claim(endpoint.id, endpoint.interface)
            case WorkloadRemove(id):
                self.by_id.pop(id, None)
                return {id} | self._claims.forget(id)
        return set()

    def owns(self, id: WorkloadId) -> bool:
        """Its interface."""
        return self._claims.owns(id)

    def owner(self, interface: str) -> WorkloadEndpoint | None:
        id = self._claims.owners.get(interface)
        return None if id is None else self.by_id[id]

    def owners(self) -> Iterator[tuple[str, WorkloadEndpoint]]:
        """By interface."""
        for interface, id in self._claims.owners.items():
            yield interface, self.by_id[id]
