"""Which addresses of services a node announces.

Ranges are announced whole by every node. A single service is announced where its traffic must or may go straight to this
node: one with externalTrafficPolicy Local by the nodes that have an endpoint of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from bgp.families import IPAddress, IPNetwork
from integration.bgpconfig.facts import Cluster, Reader
from integration.bgpconfig.pools import is_inside
from integration.bgpconfig.problems import Notes
from integration.resources.fields import parse_address
from integration.resources.keys import Key
from integration.resources.models.kubernetes import EndpointSlice, Service

TYPES = ("", "ClusterIP", "NodePort", "LoadBalancer")  # empty: ClusterIP


def is_single(network: IPNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def ranges_announced(cluster: Cluster) -> tuple[IPNetwork, ...]:
    """What a node that takes part announces whatever services there are."""
    whole = [network for network in cluster.external_ips if not is_single(network)]
    if cluster.aggregates_load_balancers:
        whole += [network for network in cluster.load_balancer_ips if not is_single(network)]
    return tuple(dict.fromkeys((*cluster.cluster_ips, *whole)))


def all_ranges(cluster: Cluster) -> tuple[IPNetwork, ...]:
    """Every range of service addresses: no route inside one belongs into the kernel, where the service proxy rules."""
    return tuple(dict.fromkeys((*cluster.cluster_ips, *cluster.external_ips, *cluster.load_balancer_ips)))


def networks_announced(
    key: Key, service: Service, slices: Iterable[EndpointSlice], cluster: Cluster, node: str, notes: Notes
) -> tuple[IPNetwork, ...]:
    """The single addresses of this service that the node called `node` by Kubernetes announces."""
    spec = service.spec
    reader = Reader(key, notes)
    if spec.type not in TYPES or not spec.cluster_ip or spec.cluster_ip == "None":
        return ()
    externals = addresses(reader, "spec.externalIPs", spec.external_ips)
    ingress = [entry.ip for entry in service.status.load_balancer.ingress if entry.ip]
    balanced = addresses(reader, "status.loadBalancer.ingress", ingress) if spec.type == "LoadBalancer" else []
    wanted = addresses(reader, "spec.loadBalancerIP", [spec.load_balancer_ip] if spec.load_balancer_ip else [])
    is_single_address = spec.external_traffic_policy == "Cluster" and (
        any_single((*balanced, *(wanted if spec.type == "LoadBalancer" else ())), cluster.load_balancer_ips)
        or any_single(externals, cluster.external_ips)
    )
    if not is_single_address and not has_endpoint(service, slices, cluster, node):
        return ()
    found = [
        network_of(address) for address in addresses(reader, "spec.clusterIPs", spec.cluster_ips or [spec.cluster_ip])
    ]
    found = found if cluster.cluster_ips else []
    found += within(externals, cluster.external_ips)
    found += within(addresses(reader, "status.loadBalancer.ingress", ingress), cluster.load_balancer_ips)
    return tuple(dict.fromkeys(found))


def has_endpoint(service: Service, slices: Iterable[EndpointSlice], cluster: Cluster, node: str) -> bool:
    is_local = service.spec.external_traffic_policy == "Local"
    if not is_local and cluster.aggregates_load_balancers:
        return False  # the range says enough
    families = service.spec.ip_families or ["IPv4", "IPv6"]
    return any(
        endpoint.conditions.ready is not False and (not is_local or endpoint.node_name == node)
        for one in slices
        if one.address_type in families
        for endpoint in one.endpoints
    )


def addresses(reader: Reader, where: str, texts: Iterable[str]) -> list[IPAddress]:
    found = (reader.read(f"{where}[{at}]", text, parse_address) for at, text in enumerate(texts))
    return [address for address in found if address is not None]


def network_of(address: IPAddress) -> IPNetwork:
    return ip_network(address)


def any_single(found: Iterable[IPAddress], allowed: Iterable[IPNetwork]) -> bool:
    singles = {network.network_address for network in allowed if is_single(network)}
    return any(address in singles for address in found)


def within(found: Iterable[IPAddress], allowed: Iterable[IPNetwork]) -> list[IPNetwork]:
    networks = [network_of(address) for address in found]
    return [network for network in networks if any(is_inside(network, outer) for outer in allowed)]
