"""What one flush says: only differences to what was said before, in an order that is safe at every step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from felix import desired as d
from felix.desired import Message

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Whatever refers to something comes after it, and goes before it.
ORDER: tuple[type[Message], ...] = (
    d.ConfigUpdate,
    d.IPSetUpdate, d.IPSetDelta, d.PolicyUpdate, d.ProfileUpdate, d.WorkloadUpdate, d.HostEndpointUpdate,
    d.WorkloadRemove, d.HostEndpointRemove, d.ProfileRemove, d.PolicyRemove, d.IPSetRemove,
    d.RouteRemove, d.VTEPRemove, d.VTEPUpdate, d.RouteUpdate,
    d.HostRemove, d.HostUpdate, d.PoolRemove, d.PoolUpdate, d.WireguardRemove, d.WireguardUpdate,
    d.EncapsulationUpdate, d.ServiceCIDRsUpdate, d.WorkloadPeeringUpdate,
    d.NamespaceRemove, d.NamespaceUpdate, d.ServiceAccountRemove, d.ServiceAccountUpdate,
    d.InSync,
)  # fmt: skip
RANK = {kind: rank for rank, kind in enumerate(ORDER)}


def in_order(messages: Iterable[Message]) -> list[Message]:
    """Those of one kind stay as they are."""
    return sorted(messages, key=lambda message: RANK[type(message)])


class Told(Generic[K, V]):
    """What was said of one kind of object."""

    def __init__(self, update: Callable[[V], Message], remove: Callable[[K], Message]) -> None:
        self._update, self._remove = update, remove
        self.values: dict[K, V] = {}

    def say(self, out: list[Message], key: K, value: V | None) -> None:
        """None: it is gone. Nothing is said twice."""
        if value is None:
            if self.values.pop(key, None) is not None:
                out.append(self._remove(key))
        elif self.values.get(key) != value:
            self.values[key] = value
            out.append(self._update(value))
