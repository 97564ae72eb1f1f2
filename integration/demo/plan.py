"""What the demo consists of, and what must therefore stand in every kernel. Pure: no namespace is touched here."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bgp.families import IPAddress, IPNetwork

RouterKind = Literal["catbird", "bird", "frr"]
Role = Literal["node", "reflector", "tor"]

NODE_ASN = 64512  # Calico's default
TOR_ASN = 65000
FABRIC_IPV4 = ipaddress.IPv4Network("192.0.2.0/24")
FABRIC_IPV6 = ipaddress.IPv6Network("2001:db8::/64")
RACK_IPV4 = ipaddress.IPv4Network("198.51.100.0/24")
RACK_IPV6 = ipaddress.IPv6Network("2001:db8:100::/64")
POOL_IPV4 = ipaddress.IPv4Network("10.1.0.0/16")
POOL_IPV6 = ipaddress.IPv6Network("fd00:10:1::/64")
BLOCK_BITS_IPV4, BLOCK_BITS_IPV6 = 26, 122  # Calico's default block sizes
TENANTS = ("red", "blue")
NAMESPACE = "demo"
MAX_NODES = 16
MAX_REFLECTORS = 4


@dataclass(frozen=True, slots=True)
class Workload:
    """One pod, or the host in the rack. `interface` is its veth's end on the router.

    `is_borrowed`: its addresses are of another node's blocks, so that its node announces them one by one.
    """

    name: str
    ipv4: ipaddress.IPv4Address
    ipv6: ipaddress.IPv6Address
    interface: str
    tenant: str = ""
    is_borrowed: bool = False

    @property
    def addresses(self) -> tuple[IPAddress, IPAddress]:
        return self.ipv4, self.ipv6

    @property
    def prefixes(self) -> tuple[IPNetwork, IPNetwork]:
        """/32 and /128."""
        return ipaddress.IPv4Network(self.ipv4), ipaddress.IPv6Network(self.ipv6)


@dataclass(frozen=True, slots=True)
class Router:
    """A node, a reflector or the ToR: an address on the fabric, workloads behind it, prefixes it stands for."""

    name: str
    role: Role
    kind: RouterKind
    asn: int
    ipv4: ipaddress.IPv4Address
    ipv6: ipaddress.IPv6Address
    workloads: tuple[Workload, ...]
    aggregates: tuple[IPNetwork, ...]  # a node's blocks; the ToR's rack prefixes

    @property
    def is_tor(self) -> bool:
        return self.role == "tor"

    @property
    def is_reflector(self) -> bool:
        return self.role == "reflector"

    @property
    def is_whole(self) -> bool:
        """A node that runs all of catbird: speaker, Felix, CNI agent."""
        return self.role == "node" and self.kind == "catbird"

    @property
    def announced(self) -> frozenset[IPNetwork]:
        """What every other router must learn from this one. The rack's host hides behind its prefix, and what a node has
        of its own blocks behind these."""
        shown = [one for one in self.workloads if not self.is_tor and (one.is_borrowed or not self.is_whole)]
        return frozenset((*self.aggregates, *(prefix for one in shown for prefix in one.prefixes)))


@dataclass(frozen=True, slots=True)
class Plan:
    nodes: tuple[Router, ...]
    tor: Router
    reflectors: tuple[Router, ...] = ()
    has_policy: bool = False

    def may_reach(self, source: Workload, to: Workload) -> bool:
        """As the tenants' policies say: their own, and the rack may reach the red ones."""
        if not self.has_policy or not to.tenant:
            return True
        return source.tenant == to.tenant or (to.tenant == TENANTS[0] and not source.tenant)

    @property
    def routers(self) -> tuple[Router, ...]:
        return (*self.nodes, *self.reflectors, self.tor)

    @property
    def workloads(self) -> tuple[Workload, ...]:
        return tuple(workload for router in self.routers for workload in router.workloads)

    def sessions(self) -> Iterator[tuple[Router, Router]]:
        """Every pair that speaks BGP, once."""
        for index, router in enumerate(self.routers):
            for other in self.routers[index + 1 :]:
                if self.is_session(router, other):
                    yield router, other

    def is_session(self, one: Router, other: Router) -> bool:
        """The nodes' full mesh, or each with every reflector and these among themselves (iBGP); each with the ToR (eBGP)."""
        roles = {one.role, other.role}
        if "tor" in roles:
            return "node" in roles
        return one != other and ("reflector" in roles or not self.reflectors)

    def peers_of(self, router: Router) -> tuple[Router, ...]:
        return tuple(other for other in self.routers if self.is_session(router, other))

    def expected_in_kernel(
        self, router: Router, without: frozenset[IPNetwork] = frozenset()
    ) -> dict[IPNetwork, Router]:
        """Prefix → the router it must lead to, for all that `router` learns by BGP; `without` are withdrawn ones.

        A reflector forwards nothing and leaves its kernel alone.
        """
        others = () if router.is_reflector else tuple(other for other in self.routers if other != router)
        return {prefix: other for other in others for prefix in other.announced if prefix not in without}


def make_plan(
    nodes: int = 3,
    tor: RouterKind = "catbird",
    speaker: RouterKind = "catbird",
    reflectors: int = 0,
    *,
    has_policy: bool = False,
) -> Plan:
    """`nodes` is 2 to 16, `reflectors` 0 to 4; without any the nodes are meshed. Raises ValueError."""
    if not 2 <= nodes <= MAX_NODES:
        raise ValueError(f"--nodes is 2 to {MAX_NODES}")
    if not 0 <= reflectors <= MAX_REFLECTORS:
        raise ValueError(f"--reflectors is 0 to {MAX_REFLECTORS}")
    return Plan(
        nodes=tuple(_node(index, nodes, speaker) for index in range(nodes)),
        tor=_tor(tor),
        reflectors=tuple(_reflector(index) for index in range(reflectors)),
        has_policy=has_policy,
    )


def _node(index: int, nodes: int, kind: RouterKind) -> Router:
    """The first workload is in the node's own blocks; of a whole node the second is in the next node's."""
    name = f"node{index + 1}"
    blocks = _blocks(index)
    lent = _blocks((index + 1) % nodes) if kind == "catbird" else blocks
    workloads = tuple(
        Workload(
            name=f"w{index * 2 + number}",
            ipv4=ipaddress.IPv4Address(of[0][number]),
            ipv6=ipaddress.IPv6Address(of[1][number]),
            interface=_cali(f"w{index * 2 + number}"),
            tenant=TENANTS[number - 1],
            is_borrowed=of is not blocks,
        )
        for number, of in ((1, blocks), (2, lent))
    )
    return Router(
        name=name,
        role="node",
        kind=kind,
        asn=NODE_ASN,
        ipv4=FABRIC_IPV4[11 + index],
        ipv6=FABRIC_IPV6[0x11 + index],
        workloads=workloads,
        aggregates=blocks,
    )


def _reflector(index: int) -> Router:
    return Router(
        name=f"rr{index + 1}",
        role="reflector",
        kind="catbird",
        asn=NODE_ASN,
        ipv4=FABRIC_IPV4[2 + index],
        ipv6=FABRIC_IPV6[2 + index],
        workloads=(),
        aggregates=(),
    )


def _tor(kind: RouterKind) -> Router:
    host = Workload(name="rack", ipv4=RACK_IPV4[10], ipv6=RACK_IPV6[0x10], interface="rack0")
    return Router(
        name="tor",
        role="tor",
        kind=kind,
        asn=TOR_ASN,
        ipv4=FABRIC_IPV4[1],
        ipv6=FABRIC_IPV6[1],
        workloads=(host,),
        aggregates=(RACK_IPV4, RACK_IPV6),
    )


def _blocks(index: int) -> tuple[IPNetwork, IPNetwork]:
    return _block(POOL_IPV4, BLOCK_BITS_IPV4, index), _block(POOL_IPV6, BLOCK_BITS_IPV6, index)


def _block(pool: IPNetwork, bits: int, index: int) -> IPNetwork:
    size = 1 << (pool.max_prefixlen - bits)
    return (
        ipaddress.ip_network((int(pool.network_address) + index * size, bits))
        if pool.version == 4
        else (ipaddress.IPv6Network((int(pool.network_address) + index * size, bits)))
    )


def _cali(workload: str) -> str:
    """As Calico names a workload's veth: cali and eleven hexadecimal digits, 15 octets in all."""
    return "cali" + hashlib.sha1(f"{NAMESPACE}.{workload}".encode(), usedforsecurity=False).hexdigest()[:11]
