"""The clients of a reflector, what each announces, and what each must hold in the end.

A client is a node of a cluster: an address of its own on loopback, one attribute set with its own next hop, and blocks
of 64 addresses (10.0.0.0/8 in /26, fd00:10::/32 in /122), all in one UPDATE. Next hops are not the clients' own
addresses, since some daemons take no loopback address there.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from bgp.families import Nlri
from tests.bench.bench_peer import BenchPeer
from tests.bench.judge import Judge, Verifier, route_key
from tests.bench.table import AttributeSet, Table, announcement, identity_of
from tests.bench.topology import PeerSpec, Topology

ASN = 64512
HOLD_TIME_S = 240  # connecting a thousand clients may take a while
LOCAL_PREF = 100
NODE_SET = AttributeSet(origin=0, as_path=(), med=None, communities=(), large_communities=())


def client_address(number: int) -> str:
    return f"127.10.{number // 250}.{number % 250 + 1}"


def next_hop_of(number: int, family: str) -> bytes:
    if family == "ipv4":
        return socket.inet_aton(f"198.18.{number // 250}.{number % 250 + 1}")
    return socket.inet_pton(socket.AF_INET6, f"2001:db8::{number + 1:x}")


def block_of(number: int, family: str) -> Nlri:
    if family == "ipv4":
        return b"\x1a" + (0x0A << 24 | number << 6).to_bytes(4, "big")
    return b"\x7a" + (0xFD000010 << 96 | number << 6).to_bytes(16, "big")


def client_spec(number: int) -> PeerSpec:
    return PeerSpec(f"c{number}", client_address(number), ASN, hold_time_s=HOLD_TIME_S, is_client=True)


@dataclass(frozen=True, slots=True)
class Source:
    """What one client says: its bytes, and the set number of each prefix it announces."""

    stream: bytes
    routes: dict[Nlri, int]
    prefixes: list[list[Nlri]]  # one list per set
    sets: dict[bytes, int]  # by route_key without an originator


@dataclass(frozen=True, slots=True)
class Population:
    """Clients c0, c1, …; those in `sources` announce something. `winners`: the routes everybody holds in the end."""

    count: int
    family: str
    sources: dict[str, Source]
    winners: dict[Nlri, int]

    def topology(self, listen: str, port: int) -> Topology:
        peers = tuple(client_spec(number) for number in range(self.count))
        return Topology(listen, port, peers, asn=ASN, families=(self.family,))

    def clients(self) -> list[BenchPeer]:
        return [
            BenchPeer(f"c{i}", client_address(i), ASN, HOLD_TIME_S, families=(self.family,)) for i in range(self.count)
        ]

    def verifier(self, cluster_id: str | None) -> Verifier:
        """`cluster_id` None: the bytes are only copied."""
        sets = {}
        for name, source in self.sources.items():
            originator = socket.inet_aton(client_address(int(name[1:]))) if cluster_id else b""
            sets.update({route_key(key, originator): number for key, number in source.sets.items()})
        return Verifier(dict(self.winners), sets, socket.inet_aton(cluster_id) if cluster_id else None)

    def judge(self, name: str, verifier: Verifier) -> Judge:
        source = self.sources.get(name)
        return Judge(verifier, source.routes if source else {})

    def one_prefix(self, name: str, prefix: Nlri) -> bytes:
        """One prefix of a node announced alone."""
        next_hop = next_hop_of(int(name[1:]), self.family)
        return announcement(NODE_SET.encode(next_hop, LOCAL_PREF), [prefix], next_hop)


def nodes(count: int, routes_each: int, family: str = "ipv4") -> Population:
    """Every client announces `routes_each` blocks."""
    sources, winners = {}, dict[Nlri, int]()
    for number in range(count):
        prefixes = [block_of(number * routes_each + i, family) for i in range(routes_each)]
        next_hop = next_hop_of(number, family)
        block = NODE_SET.encode(next_hop, LOCAL_PREF)
        routes = dict.fromkeys(prefixes, number)
        key = set_key(block, next_hop)
        sources[f"c{number}"] = Source(announcement(block, prefixes, next_hop), routes, [prefixes], {key: number})
        winners.update(routes)
    return Population(count, family, sources, winners)


def upstreams(tables: list[Table], next_hops: list[bytes], best: list[int] | None, receivers: int) -> Population:
    """The first clients send one table each, the others only listen. `best[i]`: the table that wins group i."""
    sources, winners = {}, dict[Nlri, int]()
    width = len(tables[0].blocks)
    for number, (table, next_hop) in enumerate(zip(tables, next_hops, strict=True)):
        first = number * width
        sets = {set_key(block, next_hop): first + i for i, block in enumerate(table.blocks)}
        routes = {prefix: first + i for i, group in enumerate(table.groups) for prefix in group}
        sources[f"c{number}"] = Source(table.stream, routes, table.groups, sets)
        for i, group in enumerate(table.groups):
            if best is None or best[i] == number:
                winners.update(dict.fromkeys(group, first + i))
    family = "ipv4" if len(next_hops[0]) == 4 else "ipv6"
    return Population(len(tables) + receivers, family, sources, winners)


def set_key(block: bytes, next_hop: bytes) -> bytes:
    return identity_of(block)[0] + b"|" + next_hop
