"""The configuration of one router, typed and frozen. `bgp.toml` reads it from a file; later, resources become the same.

Frozen and hashable throughout: live reconfiguration is a comparison of two values (`bgp/reconfigure.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bgp.families import FAMILIES, Address, Family, IPAddress, IPNetwork

NextHopMode = Literal["auto", "self", "keep"]
RouteSource = Literal["ebgp", "ibgp", "kernel", "originate"]
MaxPrefixAction = Literal["warn", "restart", "shutdown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixMatch:
    """`network` and a range of lengths: matches a prefix inside `network` whose length is in [minimum, maximum].

    Equal is minimum = maximum = the network's own length. `negate` turns the answer round (Calico's NotEqual, NotIn).
    """

    network: IPNetwork
    minimum_bits: int
    maximum_bits: int
    negate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSetting:
    """What an accepting rule changes. None or empty = leave. Applied in this order."""

    local_pref: int | None = None
    med: int | None = None
    remove_med: bool = False
    remove_communities: bool = False  # all of them, before any is added
    add_communities: tuple[bytes, ...] = ()  # 4 octets each (RFC 1997)
    add_large_communities: tuple[bytes, ...] = ()  # 12 octets each (RFC 8092)
    add_extended_communities: tuple[bytes, ...] = ()  # 8 octets each (RFC 4360)
    prepend: tuple[int, ...] = ()  # the path starts with these, in this order
    next_hop: NextHopMode | Address | None = None  # "self", "keep" or a packed address


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """All given conditions must hold; within one tuple any may. No condition: always. The first matching rule decides.

    Among `prefixes` negated ones are refusals: any of the others (if there are others) and none of the negated.
    `label` says where the rule was written, for people; it takes no part in comparison, so a rename changes nothing.
    """

    prefixes: tuple[PrefixMatch, ...] = ()
    as_path_prefix: tuple[int, ...] = ()
    communities: tuple[bytes, ...] = ()  # 4 octets: standard; 8: extended; 12: large
    sources: tuple[RouteSource, ...] = ()
    next_hops: tuple[IPNetwork, ...] = ()
    interfaces: tuple[str, ...] = ()  # globs (* and ?) on the outgoing interface
    local_pref: int | None = None
    local_pref_above: int | None = None  # more than this; a route without LOCAL_PREF does not have it
    peer_type: Literal["ebgp", "ibgp"] | None = None  # of the session the policy runs on
    action: Literal["accept", "reject"]
    setting: RouteSetting = RouteSetting()
    label: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Ordered rules; `default` is the verdict when none matches."""

    rules: tuple[PolicyRule, ...] = ()
    default: Literal["accept", "reject"] = "reject"
    label: str = field(default="", compare=False)  # its name, for people


ACCEPT_ALL = Policy(default="accept")
REJECT_ALL = Policy(default="reject")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixLimit:
    """RFC 4486 Cease/1. `warn_percent` of `maximum` logs once; `restart_s` is the pause before the peer may return."""

    maximum: int
    warn_percent: int = 80
    action: MaxPrefixAction = "restart"
    restart_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One configured other side, or with `range` all those that connect from inside a prefix (always passive)."""

    name: str
    address: IPAddress | None = None
    range: IPNetwork | None = None
    interface: str = ""  # scope of a link-local address
    asn: int
    description: str = ""
    port: int = 179
    passive: bool = False
    local_asn: int | None = None
    password: str | None = field(default=None, repr=False)
    source: IPAddress | None = None
    multihop: int | None = None  # None: eBGP to a directly connected peer, TTL 1; else the TTL sent
    ttl_security: int | None = None  # RFC 5082: hops allowed, 1 = directly connected
    hold_time_s: int = 90  # 0 = no keepalives at all
    keepalive_s: float | None = None  # None = a third of the negotiated hold time
    connect_retry_s: float = 10.0
    idle_hold_s: float = 1.0  # first back-off after an error, doubled up to 60 s (damp peer oscillations)
    min_hold_time_s: int = 3  # a peer that offers less (but not 0) is refused, 2/6
    families: tuple[Family, ...] = FAMILIES
    next_hop: NextHopMode = "auto"
    client: bool = False  # RFC 4456: a route reflector client of ours
    import_policy: Policy | None = None  # None: iBGP accepts all; eBGP nothing unless ebgp_requires_policy is off
    export_policy: Policy | None = None
    max_prefixes: tuple[tuple[Family, PrefixLimit], ...] = ()
    allowed_own_asn: int = 0
    graceful_restart: bool = True
    restart_time_s: int = 120
    extended_next_hop: bool = True  # RFC 8950, offered for both directions
    extended_messages: bool = True  # RFC 8654
    four_octet_asn: bool = True  # RFC 6793; off only to test against or talk to very old peers
    route_refresh: bool = True
    unknown_attributes: Literal["pass", "drop"] | tuple[int, ...] | None = (
        None  # None: pass for iBGP, drop for eBGP; a tuple of codes passes
    )
    graceful_shutdown: bool = False  # RFC 8326: announce with GRACEFUL_SHUTDOWN, so that others move away first
    enforce_first_asn: bool = True  # eBGP: the leftmost AS must be the peer's
    shutdown: str | None = None  # administratively down, with the reason sent to the peer (RFC 9003)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateConfig:
    """A prefix announced from this file. `blackhole` puts a discard route into the kernel (no loop for its holes)."""

    network: IPNetwork
    blackhole: bool = False
    communities: tuple[bytes, ...] = ()  # 4 octets each (RFC 1997)
    med: int | None = None
    local_pref: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnRule:
    """Which kernel routes are originated; all given conditions must hold. The first matching rule decides."""

    protocol: int | None = None  # rtm_protocol: 3 boot, 4 static, 2 kernel (connected), 80 Felix …
    interface: str | None = None  # glob
    table: int = 254
    network: IPNetwork | None = None  # routes inside it
    blackhole: bool | None = None
    behind_peers: bool = False  # what a peer says of the same prefix wins: another program writes what we also hear
    action: Literal["accept", "reject"] = "accept"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelRule:
    """Packets to prefixes inside `network` (IPv4) go to the BGP next hop through `interface`, which takes any to it.

    IP in IP as Calico uses it: the device has no other end of its own, the route says it. Next hops inside `direct` are
    reached without the tunnel. The first rule that holds a prefix counts.
    """

    network: IPNetwork
    interface: str
    direct: IPNetwork | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    learn: tuple[LearnRule, ...] = (
        # What Felix writes: workload routes (boot or 80, on cali*) and its block blackholes (80).
        LearnRule(interface="cali*", protocol=3),
        LearnRule(interface="cali*", protocol=80),
        LearnRule(blackhole=True, protocol=80),
        LearnRule(blackhole=True, protocol=3),
    )
    program: bool = True
    route_protocol: int = 12  # RTPROT_BIRD: a node that leaves BIRD finds its routes
    table: int = 254
    metric: int = 32  # BIRD's default, so that the two never fight for one prefix and metric
    preferred_source: tuple[IPAddress, ...] = ()  # at most one per family
    # Which best routes are written: what the policy accepts (all without one). Settings mean nothing here.
    policy: Policy | None = None
    tunnels: tuple[TunnelRule, ...] = ()
    # A route's metric is this minus its LOCAL_PREF, both ways: what is learned gets LOCAL_PREF by its metric (`metric` if
    # it has none), what is written a metric by its LOCAL_PREF; and what is learned competes with peers' routes by it,
    # connected subnets excepted. None: neither says anything of the other, and what is learned wins over peers.
    priority_base: int | None = None
    persist: bool = True  # leave the routes in the kernel at exit, so that a restart or upgrade leaves no gap


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerConfig:
    asn: int
    router_id: IPAddress  # always IPv4 form
    listen: tuple[IPAddress, ...]
    port: int = 179
    control: str = "/run/catbird/speaker.sock"
    metrics: str | None = None  # host:port
    default_local_pref: int = 100
    convergence_timeout_s: float = (
        120.0  # after start: no route of an earlier run is removed before End-of-RIB from all, or this
    )
    ebgp_requires_policy: bool = True  # RFC 8212; off: eBGP without policy gives and takes all, as Calico does
    multipath_ebgp: int = 1  # at most so many equal paths into the kernel
    multipath_ibgp: int = 1
    always_compare_med: bool = False
    cluster_id: IPAddress | None = None  # IPv4 form; None: the router ID names the cluster (RFC 4456 §7)
    client_to_client: bool = True  # off: the clients are fully meshed among themselves
    peers: tuple[PeerConfig, ...] = ()
    originate: tuple[OriginateConfig, ...] = ()
    kernel: KernelConfig | None = None
