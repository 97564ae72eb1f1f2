"""Resources read once into what peers and routes are made of. What cannot be read is noted and taken as not there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from typing import TypeVar

from bgp.families import IPAddress, IPNetwork
from integration.bgpconfig.problems import Notes
from integration.resources.fields import duration_s, parse_address, parse_community, parse_network
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPConfiguration, BGPConfigurationSpec, BGPPassword, PrefixAdvertisement
from integration.resources.models.nodes import Node

DEFAULT_ASN = 64512
BGP_PORT = 179
MAX_PRIORITY = 2**31 - 1  # a route's LOCAL_PREF is this minus its priority, which is its metric in the kernel
NORMAL_PRIORITY = 1024
EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
# What may stand in programClusterRoutes: does the speaker write the routes of pools with IPIP, of pools without encapsulation?
PROGRAMMED = {
    "Disabled": (False, False),
    "EnabledNoEncapOnly": (False, True),
    "EnabledIPIPOnly": (True, False),
    "Enabled": (True, True),
}

Value = TypeVar("Value")
Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A key of a Secret in the namespace that the speaker reads secrets from."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Communities (4 or 12 octets each) for every route inside `network`."""

    network: IPNetwork
    communities: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node as BGP sees it. A family without an address is off there; nobody peers with it."""

    name: str
    asn: int | None = None  # None: the cluster's
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    cluster: str = ""  # routeReflectorClusterID as written; not empty: a route reflector
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    has_wireguard: tuple[bool, bool] = (False, False)  # IPv4, IPv6
    pod_networks: tuple[IPNetwork, ...] = ()

    def address(self, version: int) -> IPAddress | None:
        interface = self.ipv4 if version == 4 else self.ipv6
        return None if interface is None else interface.ip

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(interface.ip for interface in (self.ipv4, self.ipv6) if interface is not None)

    @property
    def is_excluded(self) -> bool:
        """Draws no traffic for services. Kubernetes looks at the label's presence; `false` is taken at its word."""
        return self.labels.get(EXCLUDE_LABEL, "false").lower() != "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The BGPConfiguration named default."""

    asn: int = DEFAULT_ASN
    is_meshed: bool = True
    port: int | None = None
    mesh_password: SecretRef | None = None
    mesh_restart_s: int | None = None
    binds_node_ip: bool = False
    ignored_interfaces: tuple[str, ...] = ()
    cluster_ips: tuple[IPNetwork, ...] = ()
    external_ips: tuple[IPNetwork, ...] = ()
    load_balancer_ips: tuple[IPNetwork, ...] = ()
    aggregates_load_balancers: bool = True
    advertisements: tuple[Advertisement, ...] = ()
    programs_ipip: bool = False
    programs_plain: bool = True
    normal_priority: tuple[int, int] = (NORMAL_PRIORITY, NORMAL_PRIORITY)  # IPv4, IPv6
    workload_peering: tuple[IPAddress, ...] = ()
    log_level: str = "info"
    is_written: bool = False

    def priority(self, version: int) -> int:
        return self.normal_priority[version == 6]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """A BGPConfiguration named node.NAME: all that it may say."""

    port: int | None = None
    advertisements: tuple[Advertisement, ...] = ()
    log_level: str = ""


class Reader:
    """Reads fields of one resource; what cannot be read is noted under its JSON path and is None."""

    def __init__(self, key: Key, notes: Notes) -> None:
        self.key = key
        self.notes = notes

    def note(self, where: str, reason: str) -> None:
        self.notes.note(self.key, where, reason)

    def read(self, where: str, text: str, parse: Callable[[str], Value], otherwise: str = "ignored") -> Value | None:
        """None if the text is empty or wrong; `otherwise` says what follows from a wrong one."""
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.note(where, f"{text!r} {error}; {otherwise}")
            return None

    def networks(self, where: str, texts: Iterable[str]) -> tuple[IPNetwork, ...]:
        found = (self.read(f"{where}[{at}].cidr", text, parse_network) for at, text in enumerate(texts))
        return tuple(dict.fromkeys(network for network in found if network is not None))

    def seconds(self, where: str, text: str | None, high: int) -> int | None:
        """Whole seconds, as BIRD takes them."""
        value = self.read(where, text or "", duration_s)
        if value is None:
            return None
        rounded = round(value)
        if not 0 <= rounded <= high:
            self.note(where, f"{text} is not between 0 and {high} s; ignored")
            return None
        return rounded

    def asn(self, where: str, value: int | None) -> int | None:
        if value == 0:
            self.note(where, "AS 0 is nobody's (RFC 7607); ignored")
        return value or None

    def secret(self, where: str, password: BGPPassword | None) -> SecretRef | None:
        if password is None or password.secret_key_ref is None:
            return None
        return SecretRef(password.secret_key_ref.name, password.secret_key_ref.key)


def read_node(key: Key, node: Node, notes: Notes) -> NodeFacts:
    reader = Reader(key, notes)
    spec = node.spec.bgp
    if spec is None:
        return NodeFacts(name=key.name, labels=node.metadata.labels)
    wireguard = node.spec.wireguard
    ipv4 = reader.read("spec.bgp.ipv4Address", spec.ipv4_address, node_interface(4), "the node has no IPv4 for BGP")
    ipv6 = reader.read("spec.bgp.ipv6Address", spec.ipv6_address, node_interface(6), "the node has no IPv6 for BGP")
    pods = (reader.read("status.podCIDRs", text, parse_network) for text in node.status.pod_cidrs)
    return NodeFacts(
        name=key.name,
        asn=reader.asn("spec.bgp.asNumber", spec.as_number),
        ipv4=ipv4 if isinstance(ipv4, IPv4Interface) else None,
        ipv6=ipv6 if isinstance(ipv6, IPv6Interface) else None,
        cluster=spec.route_reflector_cluster_id,
        labels=node.metadata.labels,
        has_wireguard=(
            bool(wireguard and wireguard.interface_ipv4_address),
            bool(wireguard and wireguard.interface_ipv6_address),
        ),
        pod_networks=tuple(network for network in pods if network is not None),
    )


def node_interface(version: int) -> Callable[[str], Interface]:
    def parse(text: str) -> Interface:
        try:
            interface = ip_interface(text)
        except ValueError:
            raise ValueError(f"is not an IPv{version} address") from None
        if interface.version != version:
            raise ValueError(f"is not an IPv{version} address")
        check_neighbour(interface.ip)
        return interface

    return parse


def check_neighbour(address: IPAddress) -> None:
    """Raises ValueError for what no BGP session can be had with over several hops."""
    if address.is_unspecified or address.is_multicast:
        raise ValueError("is no host's address")
    if address.is_link_local and address.version == 6:
        raise ValueError("is link-local, which leads nowhere without an interface")


def read_cluster(key: Key, configuration: BGPConfiguration, notes: Notes) -> Cluster:
    reader, spec = Reader(key, notes), configuration.spec
    programs = PROGRAMMED.get(spec.program_cluster_routes or "EnabledNoEncapOnly")
    if programs is None:
        reader.note(
            "spec.programClusterRoutes", f"{spec.program_cluster_routes!r} is not known; EnabledNoEncapOnly is used"
        )
    programs_ipip, programs_plain = programs or PROGRAMMED["EnabledNoEncapOnly"]
    peering = (
        reader.read("spec.localWorkloadPeeringIPV4", spec.local_workload_peering_ipv4, parse_address),
        reader.read("spec.localWorkloadPeeringIPV6", spec.local_workload_peering_ipv6, parse_address),
    )
    if "*" in spec.ignored_interfaces:
        reader.note("spec.ignoredInterfaces", "'*' would ignore every interface; this entry is ignored")
    return Cluster(
        asn=reader.asn("spec.asNumber", spec.as_number) or DEFAULT_ASN,
        is_meshed=spec.node_to_node_mesh_enabled is not False,
        port=spec.listen_port,
        mesh_password=reader.secret("spec.nodeMeshPassword", spec.node_mesh_password),
        mesh_restart_s=reader.seconds("spec.nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time, 4095),
        binds_node_ip=spec.bind_mode == "NodeIP",
        ignored_interfaces=tuple(name for name in spec.ignored_interfaces if name != "*"),
        cluster_ips=reader.networks("spec.serviceClusterIPs", (block.cidr for block in spec.service_cluster_ips)),
        external_ips=reader.networks("spec.serviceExternalIPs", (block.cidr for block in spec.service_external_ips)),
        load_balancer_ips=reader.networks(
            "spec.serviceLoadBalancerIPs", (block.cidr for block in spec.service_load_balancer_ips)
        ),
        aggregates_load_balancers=spec.service_load_balancer_aggregation != "Disabled",
        advertisements=read_advertisements(reader, spec),
        programs_ipip=programs_ipip,
        programs_plain=programs_plain,
        normal_priority=(
            read_priority(reader, "spec.ipv4NormalRoutePriority", spec.ipv4_normal_route_priority),
            read_priority(reader, "spec.ipv6NormalRoutePriority", spec.ipv6_normal_route_priority),
        ),
        workload_peering=tuple(address for address in peering if address is not None),
        log_level=read_log_level(spec.log_severity_screen),
        is_written=True,
    )


def read_node_settings(key: Key, configuration: BGPConfiguration, notes: Notes) -> NodeSettings:
    """Of a `node.NAME` object nothing else counts; validation says so of what it must not have."""
    spec = configuration.spec
    level = read_log_level(spec.log_severity_screen) if spec.log_severity_screen else ""
    return NodeSettings(
        port=spec.listen_port, advertisements=read_advertisements(Reader(key, notes), spec), log_level=level
    )


def read_log_level(text: str) -> str:
    level = text.lower() or "info"
    return level if level in ("debug", "info") else "none"


def read_priority(reader: Reader, where: str, value: int | None) -> int:
    if value is None:
        return NORMAL_PRIORITY
    if not 1 <= value < MAX_PRIORITY:
        reader.note(where, f"{value} is not between 1 and {MAX_PRIORITY - 1}; {NORMAL_PRIORITY} is used")
        return NORMAL_PRIORITY
    return value


def read_advertisements(reader: Reader, spec: BGPConfigurationSpec) -> tuple[Advertisement, ...]:
    """prefixAdvertisements, the names of communities looked up."""
    names = {community.name: community.value for community in spec.communities}
    read = (read_advertisement(reader, at, one, names) for at, one in enumerate(spec.prefix_advertisements))
    return tuple(advertisement for advertisement in read if advertisement is not None)


def read_advertisement(
    reader: Reader, at: int, written: PrefixAdvertisement, names: Mapping[str, str]
) -> Advertisement | None:
    where = f"spec.prefixAdvertisements[{at}]"
    network = reader.read(f"{where}.cidr", written.cidr, parse_network)
    if network is None:
        return None
    found: dict[bytes, None] = {}
    for number, text in enumerate(written.communities):
        place = f"{where}.communities[{number}]"
        octets = reader.read(place, names.get(text, text), community_octets, "this community is left out")
        if octets is not None:
            found[octets] = None
    return Advertisement(network, tuple(sorted(found)))


def community_octets(text: str) -> bytes:
    """4 octets of `aa:nn`, 12 of `aa:nn:mm`. Raises ValueError."""
    parts = parse_community(text)
    size = 2 if len(parts) == 2 else 4
    return b"".join(part.to_bytes(size, "big") for part in parts)


def router_id_of(facts: NodeFacts | None, name: str, wanted: str, reader: Reader) -> IPv4Address:
    """`wanted` is CALICO_ROUTER_ID: an address, `hash`, or nothing: the node's IPv4, and where it has none the hash."""
    if wanted and wanted != "hash":
        address = reader.read("CALICO_ROUTER_ID", wanted, lambda text: parse_address(text, 4), "the node's own is used")
        if isinstance(address, IPv4Address) and not address.is_unspecified:
            return address
    if wanted == "hash" or facts is None or facts.ipv4 is None:
        return hashed_router_id(name)
    return facts.ipv4.ip


def hashed_router_id(name: str) -> IPv4Address:
    """As Calico makes it of a node's name: the first octets of its SHA-256, kept out of multicast."""
    first, *rest = hashlib.sha256(name.encode()).digest()[:4]
    return IPv4Address(bytes([first - 32 if first > 223 else first, *rest]))
