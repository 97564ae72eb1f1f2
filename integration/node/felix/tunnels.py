"""The tunnels of this node put together: how large packets may be decides about each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from felix.config import FelixConfig
from felix.dataplane.ipip import IpipTunnel
from felix.dataplane.loop import Check
from felix.dataplane.mtu import MtuKeeper, Mtus
from felix.dataplane.vxlan import VxlanTunnel
from felix.dataplane.wireguard import KeyKnown, WireguardTunnel
from felix.desired import EncapsulationUpdate, IPVersion
from felix.ports import InterfaceListener, Programmer
from integration.node.felix.settings import ipip_settings, mtu_settings, vxlan_settings, wireguard_settings

Tunnel: TypeAlias = MtuKeeper | VxlanTunnel | IpipTunnel | WireguardTunnel
VERSIONS: tuple[IPVersion, ...] = (4, 6)


class Tunnels:
    """`parts` apply in their order, before the routes that lead through them. Made in the namespace that they are for."""

    def __init__(
        self,
        config: FelixConfig,
        pools: EncapsulationUpdate,
        node: str,
        mtu_file: Path | None,
        told: Callable[..., None],
        key_known: KeyKnown,
    ) -> None:
        """`pools`: what is on, the configuration considered."""
        self._config, self._pools, self._node, self._mtu_file = config, pools, node, mtu_file
        self._mtu = MtuKeeper(mtu_settings(config, pools, node, mtu_file), self._mtus_changed, told)
        mtus = self._mtu.now
        self._vxlan = {
            version: VxlanTunnel(version, vxlan_settings(config, pools, node, version, mtus)) for version in VERSIONS
        }
        self._ipip = IpipTunnel(ipip_settings(config, pools, node, mtus))
        self._wireguard = {
            version: WireguardTunnel(version, wireguard_settings(config, node, version, mtus), key_known)
            for version in VERSIONS
        }
        self._all: dict[str, Tunnel] = {
            "mtu": self._mtu,
            "vxlan": self._vxlan[4],
            "vxlan-v6": self._vxlan[6],
            "ipip": self._ipip,
            "wireguard": self._wireguard[4],
            "wireguard-v6": self._wireguard[6],
        }

    @property
    def parts(self) -> dict[str, Programmer]:
        return dict(self._all)

    @property
    def listeners(self) -> list[InterfaceListener]:
        return list(self._all.values())

    def checks(self) -> dict[str, Check]:
        return {name: Check(one.check, self._config.route_refresh_interval_s) for name, one in self._all.items()}

    def reconfigure(self, config: FelixConfig, pools: EncapsulationUpdate) -> None:
        self._config, self._pools = config, pools
        self._mtu.reconfigure(mtu_settings(config, pools, self._node, self._mtu_file))
        self._mtus_changed(self._mtu.now)

    def _mtus_changed(self, mtus: Mtus) -> None:
        config, pools, node = self._config, self._pools, self._node
        for version in VERSIONS:
            self._vxlan[version].reconfigure(vxlan_settings(config, pools, node, version, mtus))
            self._wireguard[version].reconfigure(wireguard_settings(config, node, version, mtus))
        self._ipip.reconfigure(ipip_settings(config, pools, node, mtus))

    def close(self) -> None:
        for one in self._all.values():
            one.close()
