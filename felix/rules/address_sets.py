"""The sets of addresses that rules ask for beside those of policies: pools, nodes, this host. Pure.

Who is in a set is counted, so that one node of thousands that changes costs what that node costs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from felix.desired import HostRemove, HostUpdate, Pool, PoolRemove, PoolUpdate, VTEPRemove, VTEPUpdate
from felix.ports import PacketFilter
from felix.rules.static import ALL_HOSTS, ALL_POOLS, ALL_VXLAN, DSCP_SOURCES, MASQUERADED_POOLS, THIS_HOST

SETS = (ALL_POOLS, MASQUERADED_POOLS, ALL_HOSTS, ALL_VXLAN, THIS_HOST, DSCP_SOURCES)


class CountedSet:
    """Members that several may name; it is in as long as one does."""

    def __init__(self) -> None:
        self._named: dict[Hashable, frozenset[str]] = {}
        self._times: dict[str, int] = {}
        self._touched: dict[str, bool] = {}  # member → whether it was in when last handed over

    @property
    def members(self) -> Iterable[str]:
        return self._times.keys()

    def say(self, who: Hashable, members: frozenset[str]) -> None:
        """These, and no others, are what `who` names."""
        before = self._named.get(who, frozenset())
        if members:
            self._named[who] = members
        else:
            self._named.pop(who, None)
        for one in members - before:
            self._touched.setdefault(one, one in self._times)
            self._times[one] = self._times.get(one, 0) + 1
        for one in before - members:
            self._touched.setdefault(one, True)
            self._times[one] -= 1
            if not self._times[one]:
                del self._times[one]

    def changes(self) -> tuple[set[str], set[str]]:
        """Added and removed since the last time this was asked."""
        added = {one for one, was_in in self._touched.items() if not was_in and one in self._times}
        removed = {one for one, was_in in self._touched.items() if was_in and one not in self._times}
        self._touched.clear()
        return added, removed


class AddressSets:
    """`complete` hands over what has changed."""

    def __init__(self, packet_filter: PacketFilter, external: Iterable[str]) -> None:
        self._filter = packet_filter
        self._sets = {id: CountedSet() for id in SETS}
        self._are_given = False
        self.set_external(external)

    @property
    def has_masqueraded_pools(self) -> bool:
        return any(True for _ in self._sets[MASQUERADED_POOLS].members)

    def set_external(self, nets: Iterable[str]) -> None:
        """Nodes that are not the cluster's, and tunnel to it."""
        nets = list(nets)
        self._say(ALL_HOSTS, "external", nets)
        self._say(ALL_VXLAN, "external", nets)

    def set_this_host(self, addresses: Iterable[str]) -> None:
        self._say(THIS_HOST, "", addresses)

    def set_dscp_sources(self, nets: Iterable[str]) -> None:
        self._say(DSCP_SOURCES, "", nets)

    def take_pool(self, message: PoolUpdate | PoolRemove) -> None:
        pool = message.pool if isinstance(message, PoolUpdate) else Pool(message.cidr)
        is_there = isinstance(message, PoolUpdate)
        self._say(ALL_POOLS, pool.cidr, [pool.cidr] if is_there and not pool.is_load_balancer_only else [])
        self._say(MASQUERADED_POOLS, pool.cidr, [pool.cidr] if is_there and pool.masquerade else [])

    def take_node(self, message: HostUpdate | HostRemove | VTEPUpdate | VTEPRemove) -> None:
        match message:
            case HostUpdate(host):
                self._say(ALL_HOSTS, ("node", host.name), [host.ipv4, host.ipv6])
            case HostRemove(name):
                self._say(ALL_HOSTS, ("node", name), [])
            case VTEPUpdate(vtep):
                self._say(ALL_VXLAN, ("node", vtep.node), [vtep.parent_ipv4, vtep.parent_ipv6])
            case VTEPRemove(node):
                self._say(ALL_VXLAN, ("node", node), [])

    def _say(self, id: str, who: Hashable, members: Iterable[str]) -> None:
        is_six = self._filter.version == 6
        self._sets[id].say(who, frozenset(whole(one) for one in members if one and (":" in one) == is_six))

    def complete(self) -> None:
        changes: Mapping[str, tuple[set[str], set[str]]] = {id: one.changes() for id, one in self._sets.items()}
        for id, (added, removed) in changes.items():
            if not self._are_given:
                self._filter.set_ip_set(id, "net", frozenset(self._sets[id].members))
            elif added or removed:
                self._filter.change_ip_set(id, added, removed)
        self._are_given = True


def whole(text: str) -> str:
    """With its length."""
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"
