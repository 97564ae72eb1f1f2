"""BGPPeer → who peers with whom: a forward record where a BGPPeer selects this node, a reverse one where another node,
which a BGPPeer has peer with us, is to be peered with in return.

A record says what the resources say; `sessions.py` makes a PeerConfig of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bgp.config import NextHopMode
from bgp.families import IPAddress
from integration.bgpconfig.facts import BGP_PORT, Cluster, NodeFacts, NodeSettings, Reader, SecretRef, check_neighbour
from integration.bgpconfig.problems import Notes
from integration.resources.fields import parse_address, parse_address_and_port
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPPeer, BGPPeerSpec
from integration.resources.selector import Selector, SelectorError, parse

Scope = Literal["Global", "Local_Workload", "Mesh", "Node"]
"""What a peer's name begins with, as in Calico. Of two for one address and port the first in this order is used."""

KEEPALIVE_HIGH_S = 239  # below the hold time that we offer
RESTART_HIGH_S = 4095  # 12 bits (RFC 4724 §3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One wanted peer of this node. `rank` decides between several for one address and port: the lowest."""

    scope: Scope
    address: IPAddress
    port: int | None = None  # None: 179, and not said in the peer's name
    asn: int
    origin: tuple[Key, ...]
    is_reverse: bool = False
    local_asn: int | None = None
    uses_node_ip: bool = True
    password: SecretRef | None = None
    restart_s: int | None = None
    keepalive_s: int | None = None
    ttl_security: int | None = None
    next_hop: NextHopMode | None = None  # None: auto, unless
    keeps_external: bool = False  # the next hop is kept on eBGP sessions
    filters: tuple[str, ...] = ()
    remote_cluster: str = ""
    elects_passive: bool = False  # both ends are nodes: the one with the lower address, read as text, dials
    is_passive: bool = False
    allowed_own_asn: int = 0
    reachable_by: IPAddress | None = None

    @property
    def end(self) -> tuple[IPAddress, int]:
        return self.address, self.port or BGP_PORT

    @property
    def rank(self) -> tuple[str, bool, str]:
        return self.scope, self.is_reverse, self.origin[0].name


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """A BGPPeer, read. At most one of `address`, `peers` and `workloads` is there: which other ends it means."""

    key: Key
    node: str = ""
    nodes: Selector | None = None  # wins over `node`; neither: all nodes
    address: IPAddress | None = None
    port: int | None = None
    peers: Selector | None = None
    workloads: Selector | None = None
    asn: int = 0
    local_asn: int | None = None
    is_reversed: bool = True
    template: Mapping[str, object]  # of every record
    filters: tuple[str, ...] = ()

    @property
    def is_global(self) -> bool:
        return self.nodes is None and not self.node

    def selects(self, node: NodeFacts) -> bool:
        if self.nodes is not None:
            return self.nodes.matches(node.labels)
        return not self.node or self.node == node.name


def read_peer(peer_key: Key, peer: BGPPeer, notes: Notes) -> PeerFacts | None:
    """None if it names no other end that we could peer with; that is noted."""
    reader, spec = Reader(peer_key, notes), peer.spec
    try:
        # An unreadable selector selects nothing, so the whole BGPPeer does.
        nodes = read_selector(reader, "spec.nodeSelector", spec.node_selector)
        peers = read_selector(reader, "spec.peerSelector", spec.peer_selector)
        workloads = read_selector(reader, "spec.localWorkloadSelector", spec.local_workload_selector)
    except SelectorError:
        return None
    address = port = None
    asn = spec.as_number or 0
    if workloads is None and peers is None:
        if not spec.peer_ip:
            reader.note("spec", "names no other end; allowed: peerIP, peerSelector or localWorkloadSelector")
            return None
        found = reader.read("spec.peerIP", spec.peer_ip, neighbour, "this peer is left out")
        if found is None:
            return None
        address, port = found
    if peers is None and not asn:
        reader.note("spec.asNumber", "is required: AS 0 is nobody's (RFC 7607); this peer is left out")
        return None
    return PeerFacts(
        key=peer_key,
        node=spec.node,
        nodes=nodes,
        address=address,
        port=port,
        peers=None if workloads is not None else peers,
        workloads=workloads,
        asn=asn,
        local_asn=reader.asn("spec.localASNumber", spec.local_as_number),
        is_reversed=spec.reverse_peering != "Manual" and workloads is None,
        template={} if workloads is not None else read_template(reader, spec, address),
        filters=tuple(spec.filters),
    )


def neighbour(text: str) -> tuple[IPAddress, int | None]:
    address, port = parse_address_and_port(text)
    check_neighbour(address)
    return address, port


def read_selector(reader: Reader, where: str, text: str) -> Selector | None:
    if not text:
        return None
    try:
        return parse(text)
    except SelectorError as error:
        reader.note(where, f"{text!r} is no selector: {error}; it selects nothing")
        raise


def read_template(reader: Reader, spec: BGPPeerSpec, address: IPAddress | None) -> dict[str, object]:
    """What is the same in all records but those of workloads."""
    ttl_security = spec.ttl_security or None
    if ttl_security is not None and not 1 <= ttl_security <= 254:
        reader.note("spec.ttlSecurity", f"{ttl_security} is not between 1 and 254; ignored")
        ttl_security = None
    reachable_by = reader.read("spec.reachableBy", spec.reachable_by, parse_address)
    if reachable_by is not None and (address is None or reachable_by.version != address.version):
        reader.note("spec.reachableBy", f"{reachable_by} is not of peerIP's family; ignored")
        reachable_by = None
    next_hops: dict[str, NextHopMode] = {"Self": "self", "Keep": "keep"}
    return {
        "uses_node_ip": spec.source_address != "None",
        "password": reader.secret("spec.password", spec.password),
        "restart_s": reader.seconds("spec.maxRestartTime", spec.max_restart_time, RESTART_HIGH_S),
        "keepalive_s": reader.seconds("spec.keepaliveTime", spec.keepalive_time, KEEPALIVE_HIGH_S) or None,
        "ttl_security": ttl_security,
        "next_hop": next_hops.get(spec.next_hop_mode),
        "keeps_external": spec.keep_original_next_hop and not spec.next_hop_mode,
        # Of peerIP's own records only:
        "reachable_by": reachable_by,
        "allowed_own_asn": min(spec.num_allowed_local_as_numbers or 0, 255),
    }


class Records:
    """Asks what a BGPPeer means for this node `me`, one other end at a time, so that a change asks only about its own."""

    def __init__(self, me: NodeFacts, cluster: Cluster, settings: Mapping[str, NodeSettings]) -> None:
        self.me = me
        self.cluster = cluster
        self.settings = settings  # node → its own BGPConfiguration

    def reach(self, peer: PeerFacts) -> tuple[bool, tuple[int, ...]]:
        """Does this node seek others by the BGPPeer's selector; in which families do others seek this node by it?"""
        is_seeking = peer.peers is not None and peer.selects(self.me)
        return is_seeking, self.is_meant(peer) if peer.is_reversed else ()

    def with_node(self, peer: PeerFacts, other: NodeFacts, reach: tuple[bool, tuple[int, ...]]) -> Iterator[Record]:
        """Records whose other end is `other` because a selector, or the reverse of a BGPPeer, says so."""
        is_seeking, versions = reach
        if other.name == self.me.name or (not other.addresses):
            return
        if is_seeking and peer.peers is not None and peer.peers.matches(other.labels):
            for address in other.addresses:
                yield self.between_nodes(peer, other, address, "Global" if peer.is_global else "Node")
        if versions and peer.selects(other):
            for address in other.addresses:
                if address.version in versions:
                    yield self.between_nodes(peer, other, address, "Node", is_reverse=True)

    def is_meant(self, peer: PeerFacts) -> tuple[int, ...]:
        """The families in which this node is the other end that the BGPPeer names."""
        if peer.peers is not None:
            return (4, 6) if peer.peers.matches(self.me.labels) else ()
        if peer.address is None or peer.address not in self.me.addresses:
            return ()
        port = self.port_of(self.me)
        if peer.asn != self.asn_of(self.me) or (peer.port is not None and peer.port != (port or BGP_PORT)):
            return ()
        return (peer.address.version,)

    def between_nodes(
        self, peer: PeerFacts, other: NodeFacts, address: IPAddress, scope: Scope, *, is_reverse: bool = False
    ) -> Record:
        # The other end of a peerIP session speaks as its localASNumber says, and expects us to know.
        own_as = peer.local_asn if is_reverse and peer.peers is None else None
        template = dict(peer.template) | {"allowed_own_asn": 0, "reachable_by": None}
        return Record(
            scope=scope,
            address=address,
            port=self.port_of(other),
            asn=own_as or self.asn_of(other),
            origin=(peer.key, Key("Node", other.name)),
            is_reverse=is_reverse,
            filters=peer.filters,
            remote_cluster=other.cluster,
            **template,  # type: ignore[arg-type]
        )

    def with_address(self, peer: PeerFacts, owners: list[NodeFacts]) -> Iterator[Record]:
        """The record of a peerIP; `owners` are the nodes that have this address, by name."""
        if peer.address is None or not peer.selects(self.me):
            return
        node = next((owner for owner in owners if self.asn_of(owner) == peer.asn), None)
        port = peer.port if peer.port is not None or node is None else self.port_of(node)
        yield Record(
            scope="Global" if peer.is_global else "Node",
            address=peer.address,
            port=port,
            asn=peer.asn,
            origin=(peer.key, *(Key("Node", owner.name) for owner in owners[:1])),
            local_asn=peer.local_asn,
            elects_passive=peer.is_global and bool(owners),
            filters=peer.filters,
            **peer.template,  # type: ignore[arg-type]
        )

    def with_workload(self, peer: PeerFacts, workload: Key, address: IPAddress) -> Record:
        return Record(
            scope="Local_Workload",
            address=address,
            asn=peer.asn,
            origin=(peer.key, workload),
            local_asn=peer.local_asn,
            uses_node_ip=False,
            is_passive=True,
            filters=peer.filters,
        )

    def in_mesh(self, other: NodeFacts) -> Iterator[Record]:
        if not self.cluster.is_meshed or self.me.cluster or other.cluster or other.name == self.me.name:
            return
        default = (Key("BGPConfiguration", "default"),) if self.cluster.is_written else ()
        for address in other.addresses:
            yield Record(
                scope="Mesh",
                address=address,
                port=self.port_of(other),
                asn=self.asn_of(other),
                origin=(Key("Node", other.name), *default),
                password=self.cluster.mesh_password,
                restart_s=self.cluster.mesh_restart_s,
                elects_passive=True,
            )

    def asn_of(self, node: NodeFacts) -> int:
        return node.asn or self.cluster.asn

    def port_of(self, node: NodeFacts) -> int | None:
        own = self.settings.get(node.name)
        return (own.port if own is not None else None) or self.cluster.port
