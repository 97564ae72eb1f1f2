"""IPPools as routing sees them, and who writes their routes into the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bgp.families import IPNetwork
from integration.bgpconfig.facts import Cluster, Reader
from integration.bgpconfig.problems import Notes
from integration.resources.fields import parse_network
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool

Encapsulation = Literal["none", "ipip", "vxlan"]
Owner = Literal["speaker", "felix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """`disabled` pools are here like others: that word is for allocation only. So are selectors and uses."""

    network: IPNetwork
    name: str = ""
    encapsulation: Encapsulation = "none"
    is_exported: bool = True
    tunnels_in_subnet: bool = True  # to nodes of this node's subnet too; not with CrossSubnet


def read_pool(key: Key, pool: IPPool, notes: Notes) -> Pool | None:
    network = Reader(key, notes).read("spec.cidr", pool.spec.cidr, parse_network, "the pool is left out")
    if network is None:
        return None
    encapsulation: Encapsulation = "none"
    if pool.spec.vxlan_mode not in ("", "Never"):
        encapsulation = "vxlan"
    elif pool.spec.ipip_mode not in ("", "Never"):
        encapsulation = "ipip"
    return Pool(
        network=network,
        name=key.name,
        encapsulation=encapsulation,
        is_exported=not pool.spec.disable_bgp_export,
        tunnels_in_subnet="CrossSubnet" not in (pool.spec.ipip_mode, pool.spec.vxlan_mode),
    )


def owner_of(pool: Pool, cluster: Cluster) -> Owner:
    """Who writes the routes to the pool's other nodes. Felix's programClusterRoutes must say the opposite."""
    if pool.encapsulation == "vxlan":
        return "felix"
    return "speaker" if (cluster.programs_ipip if pool.encapsulation == "ipip" else cluster.programs_plain) else "felix"


def is_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    if inner.version != outer.version or inner.prefixlen < outer.prefixlen:
        return False
    shift = outer.max_prefixlen - outer.prefixlen
    return int(inner.network_address) >> shift == int(outer.network_address) >> shift
