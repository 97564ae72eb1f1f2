"""Which WireGuard peers a node has, what may come from each, and which routes lead to them. Pure.

Source: Calico's felix/wireguard. A node without a usable key is reached as without WireGuard: its networks are thrown
back to the main table.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from felix.desired import Host, IPVersion, Route, WireguardPeer


@dataclass(frozen=True, slots=True)
class Peer:
    """`key` base64. `endpoint` address and port; packets from and to `allowed` go through it."""

    key: str
    endpoint: tuple[str, int]
    allowed: frozenset[str] = frozenset()
    keep_alive_s: int = 0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the kernel says; `public_key` empty: it has none yet."""

    public_key: str = ""
    port: int = 0
    mark: int = 0
    peers: Mapping[str, Peer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reach:
    """All of one node's WireGuard. `through` networks go into the device, `thrown` ones are looked up elsewhere."""

    peers: Mapping[str, Peer]
    through: frozenset[str]
    thrown: frozenset[str]


class Cluster:
    """What the messages said: who has keys, addresses, networks."""

    def __init__(self, node: str, version: IPVersion) -> None:
        self._node, self._version = node, version
        self.keys: dict[str, WireguardPeer] = {}
        self.hosts: dict[str, Host] = {}
        self._routes: dict[str, Route] = {}

    def set_route(self, destination: str, route: Route | None) -> None:
        if (":" in destination) != (self._version == 6):
            return
        if route is not None and route.type.is_remote and (route.type.is_workload or route.type.is_tunnel):
            self._routes[destination] = route
        else:
            self._routes.pop(destination, None)

    def key_of(self, node: str) -> str:
        one = self.keys.get(node)
        return canonical_key("" if one is None else one.public_key if self._version == 4 else one.public_key_v6)

    def own_address(self) -> str:
        """Of our device; empty if we have none yet."""
        one = self.keys.get(self._node)
        return "" if one is None else one.address if self._version == 4 else one.address_v6

    def address_of(self, node: str) -> str:
        host = self.hosts.get(node)
        return "" if host is None else host.ipv4 if self._version == 4 else host.ipv6

    def reach(self, own_key: str, port: int, keep_alive_s: int, *, encrypts_host: bool) -> Reach:
        """A key that two nodes claim is nobody's: whoever copied it must not get the other's packets."""
        claims = Counter(key for node in self.keys if node != self._node and (key := self.key_of(node)))
        networks: dict[str, set[str]] = {}
        for destination, route in self._routes.items():
            networks.setdefault(route.node, set()).add(destination)
        length = 32 if self._version == 4 else 128
        peers: dict[str, Peer] = {}
        through: set[str] = set()
        thrown: set[str] = set()
        for node in sorted((self.hosts.keys() | networks.keys()) - {self._node}):
            address, key, of_node = self.address_of(node), self.key_of(node), networks.get(node, set())
            if not key or not address or claims[key] > 1 or key == own_key:
                thrown |= of_node
                continue
            if encrypts_host:
                of_node = of_node | {f"{address}/{length}"}
            peers[key] = Peer(key, (address, port), frozenset(of_node), keep_alive_s)
            through |= of_node
        return Reach(peers, frozenset(through), frozenset(thrown - through))


@lru_cache(maxsize=1 << 14)
def canonical_key(text: str) -> str:
    """Two bits of a key's last digit mean nothing, and the kernel writes them as zeros."""
    return base64.b64encode(base64.b64decode(text)).decode()


def different_peers(wanted: Mapping[str, Peer], there: Mapping[str, Peer]) -> tuple[list[Peer], list[str]]:
    """Those to be written whole, and the keys of those that go."""
    return [peer for key, peer in wanted.items() if there.get(key) != peer], sorted(there.keys() - wanted.keys())


def free_table(ranges: Iterable[tuple[int, int]]) -> int:
    """The first routing table that is none of the kernel's own. Raises ValueError if there is none."""
    for first, last in ranges:
        for table in range(max(first, 1), last + 1):
            if table not in (253, 254, 255):
                return table
    raise ValueError("RouteTableRanges has no table that may be used")
