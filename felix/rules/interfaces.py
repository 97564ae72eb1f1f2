"""Which host endpoint is on which interface. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from felix.desired import HostEndpoint
from felix.rules.names import ANY_INTERFACE


class HostInterfaces:
    """All interfaces and their addresses; workloads' and excluded ones are left out of every answer."""

    def __init__(self, prefixes: Sequence[str], excluded: Sequence[re.Pattern[str]]) -> None:
        self.prefixes, self.excluded = tuple(prefixes), tuple(excluded)  # may change
        self._addresses: dict[str, frozenset[str]] = {}

    def change(self, name: str, state: str, addresses: frozenset[str]) -> bool:
        """Whether an answer is otherwise than before."""
        before = self._addresses.get(name)
        if state == "gone":
            self._addresses.pop(name, None)
        else:
            self._addresses[name] = addresses
        return self._addresses.get(name) != before and self._is_host(name)

    def _is_host(self, name: str) -> bool:
        return not name.startswith(self.prefixes) and not any(one.search(name) for one in self.excluded)

    def _of_host(self) -> Iterator[tuple[str, frozenset[str]]]:
        return (one for one in self._addresses.items() if self._is_host(one[0]))

    @property
    def addresses(self) -> frozenset[str]:
        """All of this host's."""
        return frozenset().union(*(its for _, its in self._of_host()))

    def endpoints(self, endpoints: Iterable[HostEndpoint]) -> dict[str, HostEndpoint]:
        """Interface, or ANY_INTERFACE, → the endpoint in force: of several the one whose name is lowest."""
        ordered = sorted(endpoints, key=lambda one: one.name)
        found: dict[str, HostEndpoint] = {}
        for name, addresses in self._of_host():
            for one in ordered:
                if one.interface == name or (not one.interface and addresses & set(one.expected_ips)):
                    found[name] = one
                    break
        everywhere = next((one for one in ordered if one.interface == "*"), None)
        if everywhere is not None:
            found[ANY_INTERFACE] = everywhere
        return found
