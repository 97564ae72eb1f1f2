"""The addresses of a node's tunnel devices. Calico: node/pkg/allocateip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from integration.resources.fields import Address
from integration.resources.models.ipam import IPPool
from ipam.allocator import Allocator
from ipam.assigning import Request
from ipam.errors import AddressTaken, ClaimConflict, NoPool, NotAssigned
from ipam.pools import Pool, read_pool
from ipam.releasing import Release

TunnelKind = Literal["ipip", "vxlan", "vxlan-v6", "wireguard", "wireguard-v6"]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """`type` is what stands in the address's attributes, `mode` the field of a pool that turns the tunnel on ("": none)."""

    prefix: str
    type: str
    version: int
    mode: Literal["ipip_mode", "vxlan_mode", ""]


TUNNELS: Mapping[str, Tunnel] = {
    "ipip": Tunnel("ipip-tunnel-addr-", "ipipTunnelAddress", 4, "ipip_mode"),
    "vxlan": Tunnel("vxlan-tunnel-addr-", "vxlanTunnelAddress", 4, "vxlan_mode"),
    "vxlan-v6": Tunnel("vxlan-v6-tunnel-addr-", "vxlanV6TunnelAddress", 6, "vxlan_mode"),
    "wireguard": Tunnel("wireguard-tunnel-addr-", "wireguardTunnelAddress", 4, ""),
    "wireguard-v6": Tunnel("wireguard-v6-tunnel-addr-", "wireguardV6TunnelAddress", 6, ""),
}


def tunnel_handle(node: str, kind: TunnelKind) -> str:
    return TUNNELS[kind].prefix + node


def tunnel_pools(resources: Iterable[IPPool], kind: TunnelKind, labels: Mapping[str, str]) -> list[Pool]:
    """The enabled pools of this node that the tunnel serves and that have addresses for tunnels, by name."""
    tunnel = TUNNELS[kind]
    found = []
    for resource in resources:
        if tunnel.mode and getattr(resource.spec, tunnel.mode) in ("", "Never"):
            continue
        found += [
            pool
            for pool in read_pool(resource)
            if pool.version == tunnel.version
            and pool.is_enabled
            and "Tunnel" in pool.uses
            and pool.selects_node(labels)
        ]
    return sorted(found, key=lambda pool: pool.name)


async def assign_tunnel_address(
    allocator: Allocator, node: str, kind: TunnelKind, current: Address | None = None
) -> Address | None:
    """The address for the node's tunnel device; `current` is what its Node says, and stays if it may.

    None: no pool needs the tunnel here, and what was held is released. One that somebody else holds meanwhile, or that is
    in none of the tunnel's pools, is replaced. Raises PartlyAssigned if there is none to be had, NoNode, and the store's errors.
    """
    tunnel, handle, access = TUNNELS[kind], tunnel_handle(node, kind), allocator.access
    labels = await access.store.node_labels(node)
    pools = tunnel_pools((await access.store.pools()).found, kind, labels or {})
    if labels is None or not pools:
        await release_tunnel_address(allocator, node, kind)
        return None
    attributes = {"node": node, "type": tunnel.type}
    held = await held_by(allocator, handle)
    usable = [address for address in held if any(address in pool.cidr for pool in pools)]
    if current in usable:
        return current
    if current is not None and any(pool.version == current.version and current in pool.cidr for pool in pools):
        try:
            # Other hosts have routes to it: it is taken back where nobody has it.
            again = await allocator.assign_address(current, node, handle, attributes, "Tunnel")
            await release_others(allocator, handle, again.ip)
            return again.ip
        except (AddressTaken, ClaimConflict, NoPool):
            pass
    if usable:
        return usable[0]
    if held:
        await release_tunnel_address(allocator, node, kind)
    request = Request(node, tunnel.version, 1, handle, attributes, "Tunnel", tuple(str(pool.cidr) for pool in pools))
    [address] = (await allocator.assign(request)).whole()
    return address.ip


async def held_by(allocator: Allocator, handle: str) -> list[Address]:
    try:
        return await allocator.handle_addresses(handle)
    except NotAssigned:
        return []


async def release_others(allocator: Allocator, handle: str, kept: Address) -> None:
    others = [address for address in await held_by(allocator, handle) if address != kept]
    if others:
        await allocator.release([Release(address, handle) for address in others])


async def release_tunnel_address(allocator: Allocator, node: str, kind: TunnelKind) -> None:
    """Also where there is none."""
    try:
        await allocator.release_handle(tunnel_handle(node, kind))
    except NotAssigned:
        pass
