"""Which workload has an interface that several claim: the lowest id, as in Calico; the next one when it goes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from felix.desired import WorkloadId


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
