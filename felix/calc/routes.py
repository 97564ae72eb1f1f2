"""Where in the cluster which addresses are (Calico's L3RouteResolver): pools, blocks, nodes and endpoints in, routes out.

What several say of one network is put together; what a network lies in gives it pool and owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from felix.calc.addresses import BITS, Net, parse_net
from felix.calc.label_index import discard
from felix.calc.nodes import NodeRecord
from felix.calc.outbox import Told
from felix.calc.pools import Block, PoolRecord
from felix.desired import Message, PoolType, Route, RouteRemove, RouteType, RouteUpdate

Tunnel: TypeAlias = Literal["vxlan", "ipip", "wireguard"]
WORKLOAD = 0
# What an address may be used for, by number: a lower one comes first where a node uses it for several.
TUNNELS: dict[int, Tunnel] = {1: "wireguard", 2: "ipip", 3: "vxlan"}


class Place:
    """All that is said of one network."""

    __slots__ = ("blocks", "hosts", "pool", "uses")

    def __init__(self) -> None:
        self.pool: PoolRecord | None = None
        self.blocks: Counter[str] = Counter()  # nodes that have it as a block, or borrow it
        self.hosts: Counter[str] = Counter()  # nodes whose own address it is
        self.uses: Counter[tuple[str, int]] = Counter()  # node, and WORKLOAD or a tunnel's number

    def is_empty(self) -> bool:
        return not (self.pool or self.blocks or self.hosts or self.uses)

    @property
    def block_node(self) -> str:
        """Where two claim it, the first by name: some answer, and the same everywhere."""
        return min(self.blocks, default="")


class Routes:
    """Everything only notes what changed; `flush` says what that means."""

    def __init__(self, node: str) -> None:
        self._node = node
        # By version and length, then by address: few lengths are in use, so all that a network lies in is found quickly.
        self._places: dict[tuple[int, int], dict[int, Place]] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._of_node: dict[str, set[Net]] = {}
        self._dirty: set[Net] = set()
        self.told: Told[Net, Route] = Told(RouteUpdate, lambda net: RouteRemove(str(net)))

    # --- what there is ----------------------------------------------------------------------------------------------

    def set_pool(self, net: Net, pool: PoolRecord | None) -> None:
        if pool is not None and pool.pool.is_load_balancer_only:
            pool = None
        place = self._place(net)
        if place.pool == pool:
            self._tidy(net, place)
            return
        place.pool = pool
        self._touch(net, place)

    def set_block(self, old: Block | None, new: Block | None) -> None:
        for block, step in ((new, 1), (old, -1)):
            if block is None:
                continue
            if block.node:
                self._count(block.net, block.node, "blocks", block.node, step)
            for net, node in block.borrowed:
                self._count(net, node, "blocks", node, step)

    def set_workload(self, node: str, old: Iterable[str], new: Iterable[str]) -> None:
        for nets, step in ((new, 1), (old, -1)):
            for text in nets:
                self._count(parse_net(text), node, "uses", (node, WORKLOAD), step)

    def set_node(self, name: str, new: NodeRecord | None) -> None:
        old = self._nodes.pop(name, None)
        if new is not None:
            self._nodes[name] = new
        if old == new:
            return
        for record, step in ((new, 1), (old, -1)):
            if record is None:
                continue
            for net in record.others:
                self._count(net, name, "hosts", name, step)
            for text, use in tunnel_addresses(record):
                self._count(parse_net(text), name, "uses", (name, use), step)
        if name == self._node and subnets(old) != subnets(new):
            self._dirty.update(self._all())  # who is in our subnet is another question now
        else:
            self._dirty |= self._of_node.get(name, set())

    def _count(self, net: Net, node: str, of: Literal["blocks", "hosts", "uses"], what: object, step: int) -> None:
        place = self._place(net)
        counter: Counter[object] = getattr(place, of)
        counter[what] += step
        if not counter[what]:
            del counter[what]
        if any(key == node for key in (*place.blocks, *place.hosts, *(use[0] for use in place.uses))):
            self._of_node.setdefault(node, set()).add(net)
        else:
            discard(self._of_node, node, net)
        self._touch(net, place, within=of == "blocks")

    def _place(self, net: Net) -> Place:
        return self._places.setdefault((net.version, net.length), {}).setdefault(net.value, Place())

    def _touch(self, net: Net, place: Place, *, within: bool = True) -> None:
        self._dirty.add(net)
        if within and not net.is_single:
            self._dirty.update(self._within(net))
        self._tidy(net, place)

    def _tidy(self, net: Net, place: Place) -> None:
        if place.is_empty():
            places = self._places[net.version, net.length]
            places.pop(net.value, None)
            if not places:
                del self._places[net.version, net.length]

    def _all(self) -> Iterator[Net]:
        for (version, length), places in self._places.items():
            for value in places:
                yield Net(version, value, length)

    def _within(self, net: Net) -> Iterator[Net]:
        """The longer networks in it of which something is said."""
        for (version, length), places in self._places.items():
            if version != net.version or length <= net.length:
                continue
            step = 1 << (BITS[version] - length)
            count = 1 << (length - net.length)
            if count <= len(places):
                candidates: Iterable[int] = range(net.value, net.value + count * step, step)
                yield from (Net(version, value, length) for value in candidates if value in places)
            else:
                last = net.value + count * step
                yield from (Net(version, value, length) for value in places if net.value <= value < last)

    # --- what it means ----------------------------------------------------------------------------------------------

    def flush(self, out: list[Message]) -> None:
        for net in sorted(self._dirty):
            place = self._places.get((net.version, net.length), {}).get(net.value)
            self.told.say(out, net, None if place is None else self._route(net, place))
        self._dirty.clear()

    def _around(self, net: Net) -> Iterator[Place]:
        """Those of the shorter networks that it lies in, the shortest first."""
        for version, length in sorted(self._places):
            if version == net.version and length < net.length:
                found = self._places[version, length].get(net.cut(length).value)
                if found is not None:
                    yield found

    def _route(self, net: Net, place: Place) -> Route:
        pool, owner, nat, cross_subnet = None, "", False, False
        for each in (*self._around(net), place):
            if each.pool is not None:
                pool = each.pool
                nat, cross_subnet = nat or pool.pool.masquerade, cross_subnet or pool.is_cross_subnet
            if each is not place:
                owner = each.block_node or owner
        node, uses = node_of(place)
        kind: PoolType = pool.type if pool else ""
        is_workload = bool(place.blocks) or uses[:1] == (WORKLOAD,)
        is_tunnel = bool(uses) and uses[0] != WORKLOAD
        is_known = bool(node)
        return Route(
            str(net),
            RouteType(
                is_known and node == self._node,
                is_known and node != self._node,
                is_workload,
                bool(place.hosts),
                is_tunnel,
            ),
            kind,
            node,
            self._nodes[node].address(net.version) if node in self._nodes else "",
            cross_subnet and self._is_near(node, net.version),
            nat,
            uses[:1] == (WORKLOAD,) and node == self._node,
            bool(owner and node and owner != node),
            frozenset(TUNNELS[use] for use in uses) if is_tunnel else frozenset(),
        )

    def _is_near(self, node: str, version: int) -> bool:
        """In our subnet."""
        ours, theirs = self._nodes.get(self._node), self._nodes.get(node)
        if ours is None or theirs is None:
            return False
        subnet, address = ours.subnet(version), theirs.ipv4 if version == 4 else theirs.ipv6
        return subnet is not None and address is not None and subnet.contains(address)


def node_of(place: Place) -> tuple[str, tuple[int, ...]]:
    """Whose it is, and for what that node uses it. Who uses an address is asked before whose address it is, and that
    before whose block it lies in."""
    if place.uses:
        node, _ = min(place.uses)
        return node, tuple(sorted(use for user, use in place.uses if user == node))
    return min(place.hosts, default="") or place.block_node, ()


def tunnel_addresses(node: NodeRecord) -> Iterator[tuple[str, int]]:
    peer = node.wireguard
    keys = (peer.address, peer.address_v6) if peer else ()
    for texts, use in ((keys, 1), ((node.ipip,), 2), ((node.vxlan, node.vxlan_v6), 3)):
        yield from ((text, use) for text in texts if text)


def subnets(node: NodeRecord | None) -> tuple[Net | None, Net | None]:
    return (node.ipv4_subnet, node.ipv6_subnet) if node else (None, None)
