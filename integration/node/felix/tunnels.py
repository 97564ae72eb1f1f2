"""The tunnels of this node put together: how large packets may be decides about each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from felix.config import FelixConfig
from felix.dataplane.ipip import IpipTunnel
from felix.dataplane.loop import Check
from felix.dataplane.mtu import MtuKeeper, Mtus
from felix.dataplane.vxlan import VxlanTunnel
from felix.desired import EncapsulationUpdate, IPVersion
from felix.ports import InterfaceListener, Programmer
from integration.node.felix.settings import ipip_settings, mtu_settings, vxlan_settings

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
    ) -> None:
        """`pools`: what is on, the configuration considered."""
        self._config, self._pools, self._node, self._mtu_file = config, pools, node, mtu_file
        self.mtu = MtuKeeper(mtu_settings(config, pools, node, mtu_file), self._mtus_changed, told)
        mtus = self.mtu.now
        self.vxlan = {
            version: VxlanTunnel(version, vxlan_settings(config, pools, node, version, mtus)) for version in VERSIONS
        }
        self.ipip = IpipTunnel(ipip_settings(config, pools, node, mtus))

    @property
    def parts(self) -> dict[str, Programmer]:
        return {"mtu": self.mtu, "vxlan": self.vxlan[4], "vxlan-v6": self.vxlan[6], "ipip": self.ipip}

    @property
    def listeners(self) -> list[InterfaceListener]:
        return [self.mtu, *self.vxlan.values(), self.ipip]

    def checks(self) -> dict[str, Check]:
        made = {
            "mtu": self.mtu.check,
            "vxlan": self.vxlan[4].check,
            "vxlan-v6": self.vxlan[6].check,
            "ipip": self.ipip.check,
        }
        return {name: Check(run, self._config.route_refresh_interval_s) for name, run in made.items()}

    def reconfigure(self, config: FelixConfig, pools: EncapsulationUpdate) -> None:
        self._config, self._pools = config, pools
        self.mtu.reconfigure(mtu_settings(config, pools, self._node, self._mtu_file))
        self._mtus_changed(self.mtu.now)

    def _mtus_changed(self, mtus: Mtus) -> None:
        config, pools, node = self._config, self._pools, self._node
        for version, tunnel in self.vxlan.items():
            tunnel.reconfigure(vxlan_settings(config, pools, node, version, mtus))
        self.ipip.reconfigure(ipip_settings(config, pools, node, mtus))

    def close(self) -> None:
        self.mtu.close()
        for tunnel in self.vxlan.values():
            tunnel.close()
        self.ipip.close()
