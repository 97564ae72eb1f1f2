"""Which host endpoint is on which interface. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from felix.desired import HostEndpoint
from felix.rules.names import ANY_INTERFACE


class HostInterfaces:
    """The host's own interfaces and their addresses; workloads' are not among them."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self.prefixes = tuple(prefixes)
        self._addresses: dict[str, frozenset[str]] = {}

    def change(self, name: str, state: str, addresses: frozenset[str]) -> bool:
        """Whether anything is otherwise than before."""
        if name.startswith(self.prefixes):
            return False
        before = self._addresses.get(name)
        if state == "gone":
            return self._addresses.pop(name, None) is not None
        self._addresses[name] = addresses
        return before != addresses

    @property
    def addresses(self) -> frozenset[str]:
        """All of this host's."""
        return frozenset().union(*self._addresses.values())

    def endpoints(self, endpoints: Iterable[HostEndpoint]) -> dict[str, HostEndpoint]:
        """Interface, or ANY_INTERFACE, → the endpoint in force: of several the one whose name is lowest."""
        ordered = sorted(endpoints, key=lambda one: one.name)
        found: dict[str, HostEndpoint] = {}
        for name, addresses in self._addresses.items():
            for one in ordered:
                if one.interface == name or (not one.interface and addresses & set(one.expected_ips)):
                    found[name] = one
                    break
        everywhere = next((one for one in ordered if one.interface == "*"), None)
        if everywhere is not None:
            found[ANY_INTERFACE] = everywhere
        return found
