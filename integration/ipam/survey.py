"""Everything that `catbird ipam check` compares: what IPAM has stored, and who uses addresses.

Calico looks at IPv4 tunnel addresses only, so that those of IPv6 tunnels seem leaked; here both families count.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.datastore.api import Datastore, Value
from integration.datastore.errors import DoesNotExist, Unsupported
from integration.ipam.store import DatastoreBlocks
from integration.resources.fields import Address, parse_address, parse_network
from integration.resources.keys import Key
from ipam.checking import Evidence
from ipam.pools import read_pools

TUNNEL_FIELDS = (
    ("VXLAN", ("ipv4VXLANTunnelAddr",)),
    ("VXLAN", ("ipv6VXLANTunnelAddr",)),
    ("IPIP", ("bgp", "ipv4IPIPTunnelAddr")),
    ("WireGuard", ("wireguard", "interfaceIPv4Address")),
    ("WireGuard", ("wireguard", "interfaceIPv6Address")),
)
LOAD_BALANCER_CLASS = "calico"


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Of ClusterInformation. `revision` "": there is none."""

    guid: str = ""
    type: str = ""
    is_locked: bool = False
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """`unread`: what might use addresses and could not be read; then nothing can be called leaked for sure."""

    evidence: Evidence
    cluster: ClusterFacts
    node_addresses: Mapping[Address, Sequence[str]]
    workload_addresses: Mapping[Address, Sequence[str]]
    service_addresses: Mapping[Address, Sequence[str]]
    unread: Sequence[str]


async def survey(datastore: Datastore) -> Survey:
    """Raises DatastoreError. Who uses addresses is read after the blocks, so that an address which is assigned meanwhile seems used by somebody at worst, never leaked."""
    store = DatastoreBlocks(datastore)
    handles, affinities, blocks = [await store.list(kind) for kind in ("IPAMHandle", "BlockAffinity", "IPAMBlock")]
    pools = await store.pools()
    unread = [f"IPPool {name}: {why}" for name, why in pools.unreadable]
    nodes, services = await values(datastore, "Node", unread), await values(datastore, "Service", unread)
    workloads = await values(datastore, "WorkloadEndpoint", unread)
    tunnels = by_address(pair for node in nodes for pair in tunnels_of(node))
    endpoints = by_address(pair for workload in workloads for pair in workload_addresses(workload, unread))
    balanced = by_address(pair for service in services for pair in ingress_of(service))
    in_use: dict[Address, list[str]] = {}
    for users in (tunnels, endpoints, balanced):
        for address, who in users.items():
            in_use.setdefault(address, []).extend(who)
    enabled = [pool for pool in read_pools(pools.found) if pool.is_enabled]
    names = frozenset(map(name_of, nodes))
    evidence = Evidence(blocks, affinities, handles, enabled, in_use, names, time.time_ns())
    return Survey(evidence, await cluster_facts(datastore), tunnels, endpoints, balanced, unread)


def by_address(pairs: Iterable[tuple[Address, str]]) -> dict[Address, list[str]]:
    found: dict[Address, list[str]] = {}
    for address, user in pairs:
        found.setdefault(address, []).append(user)
    return found


async def values(datastore: Datastore, kind: str, unread: list[str]) -> list[Value]:
    try:
        listing = await datastore.list(kind)
    except Unsupported:
        return []
    unread += [str(error) for error in listing.unreadable]
    return [entry.value for entry in listing.entries]


async def cluster_facts(datastore: Datastore) -> ClusterFacts:
    try:
        entry = await datastore.get(Key("ClusterInformation", "default"))
    except DoesNotExist:
        return ClusterFacts()
    spec = entry.value.get("spec") or {}
    return ClusterFacts(
        str(spec.get("clusterGUID", "")),
        str(spec.get("clusterType", "")),
        spec.get("datastoreReady") is False,
        entry.revision,
    )


def name_of(value: Value) -> str:
    return str((value.get("metadata") or {}).get("name", ""))


def tunnels_of(node: Value) -> Iterator[tuple[Address, str]]:
    for kind, path in TUNNEL_FIELDS:
        place: Any = node.get("spec") or {}
        for part in path:
            place = place.get(part) if isinstance(place, Mapping) else None
        if address := address_or_none(place):
            yield address, f"{kind} tunnel of node {name_of(node)}"


def workload_addresses(workload: Value, unread: list[str]) -> Iterator[tuple[Address, str]]:
    metadata, spec = workload.get("metadata") or {}, workload.get("spec") or {}
    who = spec.get("pod") or spec.get("workload") or metadata.get("name")
    for text in spec.get("ipNetworks") or []:
        try:
            network = parse_network(text)
        except (ValueError, TypeError, AttributeError):
            unread.append(
                f"WorkloadEndpoint {metadata.get('namespace')}/{metadata.get('name')}: {text!r} is no network"
            )
            continue
        yield network.network_address, f"workload {metadata.get('namespace')}/{who} on node {spec.get('node')}"


def ingress_of(service: Value) -> Iterator[tuple[Address, str]]:
    """Addresses that a load balancer of Calico's may have given."""
    metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
    if spec.get("type") != "LoadBalancer" or spec.get("loadBalancerClass") not in (None, "", LOAD_BALANCER_CLASS):
        return
    for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []:
        if address := address_or_none(ingress.get("ip")):
            yield address, f"service {metadata.get('namespace')}/{metadata.get('name')}"


def address_or_none(text: object) -> Address | None:
    """Some fields have a prefix length."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return parse_address(text.partition("/")[0])
    except ValueError:
        return None
