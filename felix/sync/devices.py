"""What a tunnel's device must be like, and how what is there differs from it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from felix.desired import VTEP, IPVersion

Kind = Literal["vxlan", "ipip", "wireguard"]


@dataclass(frozen=True, slots=True)
class VxlanParameters:
    """What cannot be changed while the device lives. `local` is its packets' source, `parent` the index of the interface
    that they leave by."""

    vni: int
    port: int
    local: str
    parent: int
    learns: bool = False

    def __str__(self) -> str:
        return f"VNI {self.vni}, port {self.port}, {self.local} on interface {self.parent}"


@dataclass(frozen=True, slots=True)
class WantedDevice:
    """`version` is that of the addresses that are ours to add and remove; they have their length. `mac` empty: whatever;
    `mtu` 0: the kernel's choice."""

    name: str
    kind: Kind
    mtu: int
    version: IPVersion
    addresses: frozenset[str]
    mac: str = ""
    vxlan: VxlanParameters | None = None


class Neighbour(NamedTuple):
    address: str
    mac: str


class FdbEntry(NamedTuple):
    """Frames for `mac` go to `node`, an address below the tunnel."""

    mac: str
    node: str


def unicast_mac(text: str) -> str:
    """As the kernel writes it; empty for one that no device can have: all zeros (in a forwarding table that is "everything
    else"), or a group's. `text` may have hyphens."""
    mac = text.replace("-", ":").lower()
    is_group = bool(mac) and int(mac[:2], 16) & 1
    return "" if is_group or mac == "00:00:00:00:00:00" else mac


def neighbours_of(vteps: Iterable[VTEP], version: IPVersion) -> tuple[set[Neighbour], set[FdbEntry]]:
    """For each of the other nodes' tunnel endpoints. Of two that claim an address or a MAC the first by node's name has it."""
    by_address: dict[str, Neighbour] = {}
    by_mac: dict[str, FdbEntry] = {}
    for vtep in sorted(vteps, key=lambda one: one.node):
        address, mac, node = (
            (vtep.ipv4, vtep.mac, vtep.parent_ipv4) if version == 4 else (vtep.ipv6, vtep.mac_v6, vtep.parent_ipv6)
        )
        mac = unicast_mac(mac)
        if address and mac and node:
            by_address.setdefault(address, Neighbour(address, mac))
            by_mac.setdefault(mac, FdbEntry(mac, node))
    return set(by_address.values()), set(by_mac.values())


def stale_addresses(wanted: WantedDevice, there: Collection[str]) -> set[str]:
    """Those of the device's version that are not wanted. IPv6 link-local ones are the kernel's."""
    ours = {one for one in there if (":" in one) == (wanted.version == 6) and not one.startswith("fe80:")}
    return ours - wanted.addresses
