"""What a node announces of itself, and what its speaker and the kernel say to each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from bgp.config import KernelConfig, OriginateConfig, TunnelRule
from bgp.families import IPNetwork
from integration.bgpconfig.facts import MAX_PRIORITY, Advertisement, Cluster, NodeFacts, NodeSettings
from integration.bgpconfig.policies import (
    IPIP_TUNNEL,
    ExportInputs,
    host,
    kernel_policy,
    learn_rules,
    of_version,
)
from integration.bgpconfig.pools import Pool, is_inside, owner_of
from integration.bgpconfig.services import all_ranges, is_single, ranges_announced
from integration.resources.fields import parse_network
from integration.resources.keys import Key, cidr_of
from integration.resources.models.ipam import BlockAffinity


def own_blocks(affinities: Mapping[Key, BlockAffinity]) -> dict[IPNetwork, bool]:
    """Block → is it confirmed; those that are only pending are not there yet. A key that is no CIDR is passed over."""
    blocks: dict[IPNetwork, bool] = {}
    for key, affinity in sorted(affinities.items()):
        if affinity.deleted or affinity.state == "pending":
            continue
        with suppress(ValueError):
            blocks[parse_network(cidr_of(key))] = affinity.state != "pendingDeletion"
    return blocks


def advertisements(cluster: Cluster, settings: NodeSettings | None) -> tuple[Advertisement, ...]:
    """A node's own list takes the place of the cluster's, family by family: where it says nothing, the cluster's holds."""
    own = settings.advertisements if settings is not None else ()
    families = {one.network.version for one in own}
    return (*own, *(one for one in cluster.advertisements if one.network.version not in families))


def export_inputs(
    version: int,
    me: NodeFacts,
    cluster: Cluster,
    settings: NodeSettings | None,
    pools: Sequence[Pool],
    blocks: Mapping[IPNetwork, bool],
) -> ExportInputs:
    return ExportInputs(
        pools=tuple(pool for pool in pools if pool.network.version == version),
        blocks=of_version(version, (block for block, is_confirmed in blocks.items() if is_confirmed)),
        service_ranges=of_version(version, ranges_announced(cluster)),
        reflected=of_version(version, (*cluster.load_balancer_ips, *cluster.external_ips)),
        advertisements=tuple(one for one in advertisements(cluster, settings) if one.network.version == version),
        normal_priority=cluster.priority(version),
        is_excluded=me.is_excluded,
        is_reflector=bool(me.cluster),
        programs_ipip=cluster.programs_ipip,
    )


def originated(
    me: NodeFacts,
    cluster: Cluster,
    pools: Sequence[Pool],
    blocks: Mapping[IPNetwork, bool],
    services: Iterable[IPNetwork],
) -> tuple[OriginateConfig, ...]:
    """Own blocks, service ranges and single services, in families that this node speaks.

    A block's blackhole is ours to write if its pool's routes are. Service addresses are announced without one: it would
    take their packets before the service proxy sees them.
    """
    versions = {address.version for address in me.addresses}
    found: dict[IPNetwork, bool] = {}
    for block in blocks:
        if not is_single(block):
            pool = next((pool for pool in pools if is_inside(block, pool.network)), None)
            found[block] = pool is None or owner_of(pool, cluster) == "speaker"
    if not me.is_excluded:
        for network in (*ranges_announced(cluster), *services):
            found.setdefault(network, False)
    return tuple(
        OriginateConfig(
            network=network,
            blackhole=blackhole,
            local_pref=MAX_PRIORITY - cluster.priority(network.version),
        )
        for network, blackhole in sorted(found.items(), key=lambda item: sort_key(item[0]))
        if network.version in versions
    )


def sort_key(network: IPNetwork) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def kernel_config(
    me: NodeFacts, cluster: Cluster, pools: Sequence[Pool], others: Iterable[NodeFacts], interfaces: Sequence[str]
) -> KernelConfig:
    """`others` are asked for only if this node has WireGuard."""
    guarded: list[IPNetwork] = []
    if any(me.has_wireguard):
        for other in others:
            for has_it, we_have_it, version in zip(other.has_wireguard, me.has_wireguard, (4, 6), strict=True):
                address = other.address(version)
                if has_it and we_have_it and address is not None and other.name != me.name:
                    guarded.append(host(address))
    return KernelConfig(
        learn=learn_rules(cluster, interfaces),
        metric=cluster.priority(4),
        policy=kernel_policy(pools, cluster, all_ranges(cluster), sorted(guarded, key=sort_key)),
        tunnels=tuple(
            TunnelRule(
                network=pool.network,
                interface=IPIP_TUNNEL,
                direct=None if pool.tunnels_in_subnet or me.ipv4 is None else me.ipv4.network,
            )
            for pool in pools
            if pool.encapsulation == "ipip" and pool.network.version == 4 and owner_of(pool, cluster) == "speaker"
        ),
        priority_base=MAX_PRIORITY,
    )
