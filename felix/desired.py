"""What must be in this node's kernel, in Felix's terms: what the calculation says, and the dataplane programs.

Values only, frozen and compared by content. Addresses and networks are canonical text (`10.0.0.1/32`, `fd00::/64`), as
the packet filter and `ip route` write them. The calculation sends messages (the last part of this file), each of which
stands alone: it says what is so now. Source: Calico's felixbackend protocol (`felix/proto`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

Action = Literal["allow", "deny", "pass", "log"]
IPVersion = Literal[4, 6]
IPSetType = Literal["net", "ip,port"]
"""`net`: networks and addresses, `10.0.0.0/8`, `10.0.0.1/32`. `ip,port`: `10.0.0.1,tcp:80` (protocols tcp, udp, sctp)."""


class PolicyId(NamedTuple):
    """`kind` as the resource's: NetworkPolicy, GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy, KubernetesNetworkPolicy. `namespace` is empty for global ones."""

    kind: str
    namespace: str
    name: str

    @property
    def is_staged(self) -> bool:
        """Counted, never enforced."""
        return self.kind.startswith("Staged")


class WorkloadId(NamedTuple):
    """Calico's v1 key: `k8s`, `namespace/pod`, `eth0`. Sorts as Calico sorts where two claim one interface."""

    orchestrator: str
    workload: str
    endpoint: str


class PortRange(NamedTuple):
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Entity:
    """What the source, or the destination, of a packet must be like. Everything given must hold; within a tuple of nets or
    ports, and between `ports` and `named_ports`, one suffices. Several `ip_sets` must all contain the address."""

    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    ip_sets: tuple[str, ...] = ()
    not_ip_sets: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    named_ports: tuple[str, ...] = ()  # ids of `ip,port` sets
    not_named_ports: tuple[str, ...] = ()
    services: tuple[str, ...] = ()  # ids of `ip,port` sets that must contain address and port


ANYTHING = Entity()


@dataclass(frozen=True, slots=True)
class Origin:
    """What a person wrote where a rule has ids of sets; for Dikastes and for explanations."""

    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    service_account_names: tuple[str, ...] = ()
    service_account_selector: str = ""
    service: str = ""  # NAMESPACE/NAME


@dataclass(frozen=True, slots=True)
class HTTPMatch:
    methods: tuple[str, ...] = ()
    paths: tuple[tuple[Literal["exact", "prefix"], str], ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One compiled rule. Protocols and ICMP types are numbers. `icmp` None: not asked; (type, None): any code.

    A rule with `http` restricts what Dikastes lets pass; the packet filter ignores `http` itself.
    """

    action: Action
    ip_version: IPVersion | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    source: Entity = ANYTHING
    destination: Entity = ANYTHING
    icmp: tuple[int, int | None] | None = None
    not_icmp: tuple[int, int | None] | None = None
    http: HTTPMatch | None = None
    source_origin: Origin | None = None
    destination_origin: Origin | None = None
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that some local endpoint is under. `inbound` are ingress rules, in the order in which they are tried."""

    id: PolicyId
    tier: str
    inbound: tuple[PolicyRule, ...] = ()
    outbound: tuple[PolicyRule, ...] = ()
    selector: str = ""  # canonical; neighbouring policies with one selector may be grouped
    is_untracked: bool = False
    is_pre_dnat: bool = False
    applies_on_forward: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """Rules for packets that no tier decided. A profile that is missing denies (the calculation says so in its rules)."""

    name: str
    inbound: tuple[PolicyRule, ...] = ()
    outbound: tuple[PolicyRule, ...] = ()


@dataclass(frozen=True, slots=True)
class TierPolicies:
    """The policies of one tier that one endpoint is under, in order. Staged ones are among them."""

    name: str
    default_action: Literal["Deny", "Pass"] = "Deny"
    ingress: tuple[PolicyId, ...] = ()
    egress: tuple[PolicyId, ...] = ()


@dataclass(frozen=True, slots=True)
class QoS:
    """Bandwidths and bursts in bits (a second), minbursts in octets, packets a second. 0: no limit."""

    ingress_bandwidth: int = 0
    ingress_burst: int = 0
    ingress_peakrate: int = 0
    ingress_minburst: int = 0
    egress_bandwidth: int = 0
    egress_burst: int = 0
    egress_peakrate: int = 0
    egress_minburst: int = 0
    ingress_packet_rate: int = 0
    ingress_packet_burst: int = 0
    egress_packet_rate: int = 0
    egress_packet_burst: int = 0
    ingress_max_connections: int = 0
    egress_max_connections: int = 0
    dscp: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadEndpoint:
    """A workload on this node: its interface, addresses, and what is allowed."""

    id: WorkloadId
    interface: str
    is_up: bool = True  # adminstrative
    mac: str = ""
    profiles: tuple[str, ...] = ()
    tiers: tuple[TierPolicies, ...] = ()
    ipv4_nets: tuple[str, ...] = ()
    ipv6_nets: tuple[str, ...] = ()
    nats: tuple[tuple[str, str], ...] = ()  # (internal, external) addresses without length, of both versions
    ipv4_gateway: str = ""
    ipv6_gateway: str = ""
    allowed_source_prefixes: tuple[str, ...] = ()
    qos: QoS | None = None
    labels: tuple[tuple[str, str], ...] = ()  # own and inherited ones, sorted
    service_account: str = ""
    bgp_peer: str = ""  # the BGPPeer that selects it by localWorkloadSelector
    live_migration: Literal["", "source", "target", "live"] = ""


@dataclass(frozen=True, slots=True)
class HostEndpoint:
    """An interface of this host. `interface` may be empty (by `expected_ips`) or `*` (all that no other claims)."""

    name: str
    interface: str = ""
    expected_ips: tuple[str, ...] = ()  # of both versions, without length
    profiles: tuple[str, ...] = ()
    tiers: tuple[TierPolicies, ...] = ()
    untracked_tiers: tuple[TierPolicies, ...] = ()
    pre_dnat_tiers: tuple[TierPolicies, ...] = ()
    forward_tiers: tuple[TierPolicies, ...] = ()
    qos: QoS | None = None


class RouteType(NamedTuple):
    """Flags that may stand together (a host's tunnel address in a block of workloads)."""

    is_local: bool = False
    is_remote: bool = False
    is_workload: bool = False
    is_host: bool = False
    is_tunnel: bool = False


NOWHERE = RouteType()
PoolType = Literal["", "none", "vxlan", "ipip"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where the addresses of `destination` are, cluster-wide: a block, a borrowed address, a host, a tunnel address, a pool."""

    destination: str
    type: RouteType = NOWHERE
    pool: PoolType = ""  # how its pool wants packets carried
    node: str = ""
    node_ip: str = ""  # without length, of the destination's version
    same_subnet: bool = False  # cross-subnet pool, and the node's address is in our node's subnet
    nat_outgoing: bool = False
    is_local_workload: bool = False  # a single address of a local endpoint
    is_borrowed: bool = False
    tunnel_types: frozenset[Literal["vxlan", "ipip", "wireguard"]] = frozenset()


@dataclass(frozen=True, slots=True)
class VTEP:
    """A node's VXLAN tunnel endpoint. Addresses without length; empty where it has none of that version."""

    node: str
    ipv4: str = ""  # of the tunnel
    mac: str = ""
    parent_ipv4: str = ""
    ipv6: str = ""
    mac_v6: str = ""
    parent_ipv6: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """A node's addresses without length, empty if unknown; `ipv4_subnet` with its own length."""

    name: str
    ipv4: str = ""
    ipv6: str = ""
    ipv4_subnet: str = ""
    ipv6_subnet: str = ""
    ipip_address: str = ""  # its tunl0's
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    cidr: str
    masquerade: bool = False
    ipip: Literal["", "always", "cross-subnet"] = ""
    vxlan: Literal["", "always", "cross-subnet"] = ""
    is_load_balancer_only: bool = False


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """What a node says about its WireGuard devices; keys base64, addresses without length."""

    node: str
    public_key: str = ""
    address: str = ""
    public_key_v6: str = ""
    address_v6: str = ""


# --- messages, in the order in which one flush may hold them ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """The datastore's settings by Calico's parameter names (`LogSeverityScreen`), unparsed.

    `for_node` beats `by_selector` beats `everywhere`. Sent before everything else, and whenever one changes.
    """

    everywhere: dict[str, str] = field(default_factory=dict)
    by_selector: dict[str, str] = field(default_factory=dict)
    for_node: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IPSetUpdate:
    """The whole set; one of this id that was there before is replaced."""

    id: str
    type: IPSetType
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class IPSetDelta:
    id: str
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class IPSetRemove:
    id: str


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    policy: Policy


@dataclass(frozen=True, slots=True)
class PolicyRemove:
    id: PolicyId


@dataclass(frozen=True, slots=True)
class ProfileUpdate:
    profile: Profile


@dataclass(frozen=True, slots=True)
class ProfileRemove:
    name: str


@dataclass(frozen=True, slots=True)
class WorkloadUpdate:
    endpoint: WorkloadEndpoint


@dataclass(frozen=True, slots=True)
class WorkloadRemove:
    id: WorkloadId


@dataclass(frozen=True, slots=True)
class HostEndpointUpdate:
    endpoint: HostEndpoint


@dataclass(frozen=True, slots=True)
class HostEndpointRemove:
    name: str


@dataclass(frozen=True, slots=True)
class HostUpdate:
    host: Host


@dataclass(frozen=True, slots=True)
class HostRemove:
    name: str


@dataclass(frozen=True, slots=True)
class PoolUpdate:
    pool: Pool


@dataclass(frozen=True, slots=True)
class PoolRemove:
    cidr: str


@dataclass(frozen=True, slots=True)
class EncapsulationUpdate:
    """Which tunnels the pools ask for; FelixConfiguration may say otherwise."""

    ipip: bool = False
    vxlan: bool = False
    vxlan_v6: bool = False


@dataclass(frozen=True, slots=True)
class VTEPUpdate:
    vtep: VTEP


@dataclass(frozen=True, slots=True)
class VTEPRemove:
    node: str


@dataclass(frozen=True, slots=True)
class RouteUpdate:
    route: Route


@dataclass(frozen=True, slots=True)
class RouteRemove:
    destination: str


@dataclass(frozen=True, slots=True)
class WireguardUpdate:
    peer: WireguardPeer


@dataclass(frozen=True, slots=True)
class WireguardRemove:
    node: str


@dataclass(frozen=True, slots=True)
class ServiceCIDRsUpdate:
    """BGPConfiguration's networks of services; packets for these that no service claims must not loop."""

    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadPeeringUpdate:
    """BGPConfiguration's addresses at which workloads that peer with their node find it; without length, empty if none."""

    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, slots=True)
class NamespaceUpdate:
    """For Dikastes, as the next."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceRemove:
    name: str


@dataclass(frozen=True, slots=True)
class ServiceAccountUpdate:
    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceAccountRemove:
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class InSync:
    """Everything of the datastore has been told once. Exactly once; nothing is written to the kernel before."""


Message: TypeAlias = (
    ConfigUpdate
    | IPSetUpdate
    | IPSetDelta
    | IPSetRemove
    | PolicyUpdate
    | PolicyRemove
    | ProfileUpdate
    | ProfileRemove
    | WorkloadUpdate
    | WorkloadRemove
    | HostEndpointUpdate
    | HostEndpointRemove
    | HostUpdate
    | HostRemove
    | PoolUpdate
    | PoolRemove
    | EncapsulationUpdate
    | VTEPUpdate
    | VTEPRemove
    | RouteUpdate
    | RouteRemove
    | WireguardUpdate
    | WireguardRemove
    | ServiceCIDRsUpdate
    | WorkloadPeeringUpdate
    | NamespaceUpdate
    | NamespaceRemove
    | ServiceAccountUpdate
    | ServiceAccountRemove
    | InSync
)
