"""The addresses of this node's tunnel devices: held in IPAM, written into our Node. Calico: node/pkg/allocateip."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

from bgp.ports import EventSink
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DatastoreError, DoesNotExist, UpdateConflict
from integration.datastore.syncer import Update
from integration.ipam.store import open_allocator
from integration.resources.base import Model
from integration.resources.fields import Address, parse_address
from integration.resources.models.nodes import Node, NodeBGPSpec, NodeWireguardSpec
from ipam.errors import IpamError
from ipam.ports import Pools
from ipam.tunnels import TunnelKind, assign_tunnel_address, held_by, release_tunnel_address, tunnel_handle, tunnel_pools

KINDS: tuple[TunnelKind, ...] = ("ipip", "vxlan", "vxlan-v6", "wireguard", "wireguard-v6")
RECHECK_S = 300.0  # nobody tells us of an address that is released behind our back
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
RACES = 20  # against others who write our Node


@dataclass(slots=True)
class PoolUnreadable(Exception):
    """Which pools there are is not known, so what a Node has must stay."""

    names: str

    def __str__(self) -> str:
        return f"pool {self.names} cannot be read: the address stays until it can"


class TunnelAddresses:
    """`run()` beside the speaker, from when our Node is there; `updates` tells it what the Syncer tells.

    Each kind of tunnel stands for itself: what fails for one (no address left, a broken block) is told once, tried again
    with growing pauses, and keeps no other waiting. The datastore may go away at any time.
    """

    def __init__(self, client: ResourceClient, node: str, log: EventSink) -> None:
        self.client, self.node, self.log = client, node, log
        self.allocator = open_allocator(client.datastore)
        self._is_due = asyncio.Event()
        self._told: dict[TunnelKind, str] = {}  # what failed last

    def updates(self, batch: Iterable[Update]) -> None:
        for update in batch:
            if update.key.kind == "IPPool" or (update.key.kind == "Node" and update.key.name == self.node):
                self._is_due.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._is_due.clear()
            if await self.settle():
                pause_s, wait_s = FIRST_PAUSE_S, RECHECK_S
            else:
                wait_s, pause_s = pause_s, min(LONGEST_PAUSE_S, pause_s * 2)
            try:
                # Scattered: a thousand nodes that failed together must not try again together.
                async with asyncio.timeout(random.uniform(wait_s / 2, wait_s)):
                    await self._is_due.wait()
            except TimeoutError:
                pass

    async def settle(self) -> bool:
        """Make every tunnel's address what the pools ask for; whether all of them are."""
        return all([await self._settled(kind) for kind in KINDS])

    async def _settled(self, kind: TunnelKind) -> bool:
        try:
            await self._settle(kind)
        except DoesNotExist:
            return True  # no Node: whoever deleted it releases, whoever makes it wakes us
        except Exception as error:  # the speaker is not to suffer from it, nor the other tunnels
            known = isinstance(error, DatastoreError | IpamError | PoolUnreadable)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            if self._told.get(kind) != text:
                self._told[kind] = text
                self.log.event("tunnel_address_failed", level="warning", tunnel=kind, error=text)
            return False
        if self._told.pop(kind, None) is not None:
            self.log.event("tunnel_address_recovered", tunnel=kind)
        return True

    async def _settle(self, kind: TunnelKind) -> None:
        node = await self.client.get(Node, self.node)
        text = written_address(node, kind)
        pools = await self.allocator.access.store.pools()
        if not is_needed(node, kind, pools):
            if pools.unreadable and text:
                raise PoolUnreadable(", ".join(name for name, _ in pools.unreadable))
            await self._release(kind, text)
            return
        if pools.unreadable and text and await held_by(self.allocator, tunnel_handle(self.node, kind)):
            return  # it may be in the one that cannot be read
        address = await assign_tunnel_address(self.allocator, self.node, kind, address_or_none(text))
        found = "" if address is None else str(address)
        if address_or_none(text) != address:
            await self._write(kind, found)
            self.log.event("tunnel_address_assigned", tunnel=kind, address=found, before=text or None)

    async def _release(self, kind: TunnelKind, text: str) -> None:
        if text:
            # First the Node: others must not send to an address that somebody else gets.
            await self._write(kind, "")
            self.log.event("tunnel_address_released", tunnel=kind, address=text)
        await release_tunnel_address(self.allocator, self.node, kind)

    async def _write(self, kind: TunnelKind, text: str) -> None:
        """Raises DoesNotExist, UpdateConflict if it never stands still."""
        for tries_left in reversed(range(RACES)):
            node = await self.client.get(Node, self.node)
            write_address(node, kind, text)
            try:
                await self.client.update(node)
                return
            except UpdateConflict:
                if not tries_left:
                    raise


def is_needed(node: Node, kind: TunnelKind, pools: Pools) -> bool:
    """WireGuard is on where Felix has published a key (Calico)."""
    keys = {"wireguard": node.status.wireguard_public_key, "wireguard-v6": node.status.wireguard_public_key_v6}
    return bool(keys.get(kind, "-")) and bool(tunnel_pools(pools.found, kind, node.metadata.labels or {}))


def address_or_none(text: str) -> Address | None:
    """None also for what is no address: it is written over."""
    try:
        return parse_address(text)
    except ValueError:
        return None


def written_address(node: Node, kind: TunnelKind) -> str:
    spec = node.spec
    match kind:
        case "ipip":
            return spec.bgp.ipv4_ipip_tunnel_addr if spec.bgp else ""
        case "vxlan":
            return spec.ipv4_vxlan_tunnel_addr
        case "vxlan-v6":
            return spec.ipv6_vxlan_tunnel_addr
        case "wireguard":
            return spec.wireguard.interface_ipv4_address if spec.wireguard else ""
        case "wireguard-v6":
            return spec.wireguard.interface_ipv6_address if spec.wireguard else ""


def write_address(node: Node, kind: TunnelKind, text: str) -> None:
    """Parts that say nothing any more are taken away (Calico): an empty `bgp` would be a node that takes part in BGP."""
    spec = node.spec
    match kind:
        case "ipip":
            spec.bgp = spec.bgp or NodeBGPSpec()
            put(spec.bgp, "ipv4_ipip_tunnel_addr", text)
            spec.bgp = None if spec.bgp == NodeBGPSpec() else spec.bgp
        case "vxlan":
            put(spec, "ipv4_vxlan_tunnel_addr", text)
        case "vxlan-v6":
            put(spec, "ipv6_vxlan_tunnel_addr", text)
        case "wireguard" | "wireguard-v6":
            spec.wireguard = spec.wireguard or NodeWireguardSpec()
            put(spec.wireguard, f"interface_ip{'v6' if kind == 'wireguard-v6' else 'v4'}_address", text)
            spec.wireguard = None if spec.wireguard == NodeWireguardSpec() else spec.wireguard


def put(part: Model, name: str, text: str) -> None:
    """With "" as if it had never been set: not stored."""
    setattr(part, name, text)
    if not text:
        part.model_fields_set.discard(name)
