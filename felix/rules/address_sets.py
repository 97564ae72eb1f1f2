"""The sets of addresses that rules ask for beside those of policies: pools, nodes, this host. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from felix.desired import Host, HostRemove, HostUpdate, Pool, PoolRemove, PoolUpdate, VTEPRemove, VTEPUpdate
from felix.ports import PacketFilter
from felix.rules.static import ALL_HOSTS, ALL_POOLS, ALL_VXLAN, MASQUERADED_POOLS, THIS_HOST


class AddressSets:
    """`complete` hands over what has changed."""

    def __init__(self, packet_filter: PacketFilter, external: Iterable[str]) -> None:
        self._filter = packet_filter
        self._external = frozenset(external)
        self._pools: dict[str, Pool] = {}
        self._hosts: dict[str, Host] = {}
        self._vteps: dict[str, frozenset[str]] = {}
        self._this_host: frozenset[str] = frozenset()
        self._given: dict[str, frozenset[str]] = {}
        self._is_stale = True

    @property
    def has_masqueraded_pools(self) -> bool:
        version = self._filter.version
        return any(one.masquerade and (":" in one.cidr) == (version == 6) for one in self._pools.values())

    def set_external(self, nets: Iterable[str]) -> None:
        self._external = frozenset(nets)
        self._is_stale = True

    def set_this_host(self, addresses: frozenset[str]) -> None:
        self._this_host = addresses
        self._is_stale = True

    def take_pool(self, message: PoolUpdate | PoolRemove) -> None:
        if isinstance(message, PoolUpdate):
            self._pools[message.pool.cidr] = message.pool
        else:
            self._pools.pop(message.cidr, None)
        self._is_stale = True

    def take_node(self, message: HostUpdate | HostRemove | VTEPUpdate | VTEPRemove) -> None:
        match message:
            case HostUpdate(host):
                self._hosts[host.name] = host
            case HostRemove(name):
                self._hosts.pop(name, None)
            case VTEPUpdate(vtep):
                self._vteps[vtep.node] = frozenset(filter(None, (vtep.parent_ipv4, vtep.parent_ipv6)))
            case VTEPRemove(node):
                self._vteps.pop(node, None)
        self._is_stale = True

    def complete(self) -> None:
        if not self._is_stale:
            return
        self._is_stale = False
        hosts = {address for host in self._hosts.values() for address in (host.ipv4, host.ipv6) if address}
        pools = [one for one in self._pools.values() if not one.is_load_balancer_only]
        self._give(ALL_POOLS, (one.cidr for one in pools))
        self._give(MASQUERADED_POOLS, (one.cidr for one in pools if one.masquerade))
        self._give(ALL_HOSTS, hosts | self._external)
        self._give(ALL_VXLAN, self._external.union(*self._vteps.values()))
        self._give(THIS_HOST, self._this_host)

    def _give(self, id: str, members: Iterable[str]) -> None:
        is_six = self._filter.version == 6
        wanted = frozenset(whole(one) for one in members if (":" in one) == is_six)
        before = self._given.get(id)
        if before is None:
            self._filter.set_ip_set(id, "net", wanted)
        elif before != wanted:
            self._filter.change_ip_set(id, wanted - before, before - wanted)
        self._given[id] = wanted


def whole(text: str) -> str:
    """With its length."""
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"
