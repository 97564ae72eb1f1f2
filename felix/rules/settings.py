"""What the rules depend on beside the calculation: Felix' configuration, as plain typed values. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from felix.desired import IPVersion, PortRange

DenyAction = Literal["DROP", "REJECT"]
AllowAction = Literal["ACCEPT", "RETURN"]


class Failsafe(NamedTuple):
    """A port of this host that no policy may close. `net` empty: whoever is at the other end."""

    protocol: int
    port: int
    net: str = ""


class Tunnel(NamedTuple):
    """A device whose packets leave by this host: `tunl0`, `vxlan.calico`."""

    device: str
    version: IPVersion


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """Names as Calico's parameters in felix.config. Interface prefixes without wildcard (`cali`)."""

    interface_prefixes: tuple[str, ...] = ("cali",)
    mark_mask: int = 0xFFFF0000
    filter_allow: AllowAction = "ACCEPT"
    mangle_allow: AllowAction = "ACCEPT"
    deny: DenyAction = "DROP"
    endpoint_to_host: Literal["DROP", "REJECT", "RETURN", "ACCEPT"] = "DROP"
    log_prefix: str = "calico-packet"
    log_rate: str = ""
    log_burst: int = 5
    denied_group: int = 0  # NFLOG group for denied packets; 0: they are not reported
    denied_rate: str = "10/second"
    denied_burst: int = 50
    failsafe_in: tuple[Failsafe, ...] = ()
    failsafe_out: tuple[Failsafe, ...] = ()
    checks_invalid: bool = True
    inserts: bool = True  # our rules before others' in the kernel's chains
    vxlan_port: int = 4789
    has_vxlan: bool = False
    has_vxlan_v6: bool = False
    has_ipip: bool = False
    wireguard_port: int = 0  # 0: no WireGuard
    wireguard_device: str = "wireguard.cali"
    wireguard_port_v6: int = 0
    wireguard_device_v6: str = "wg-v6.cali"
    wireguard_encrypts_host: bool = False
    allows_vxlan_from_workloads: bool = False
    allows_ipip_from_workloads: bool = False
    service_loop: Literal["Drop", "Reject", "Disabled"] = "Drop"
    nat_ports: PortRange | None = None
    nat_address: str = ""
    nat_excludes_hosts: bool = False
    nat_interface: str = ""
    has_floating_ips: bool = False
    is_openstack: bool = False
    metadata_address: str = ""
    metadata_port: int = 8775
    allows_spoofing: bool = False
    leaves_routes: bool = False  # a workload's may outlast its endpoint
    external_nodes: tuple[str, ...] = ()
    interface_exclude: tuple[re.Pattern[str], ...] = ()  # searched for in names: not this host's interfaces
    node_ports: tuple[PortRange, ...] = (PortRange(30000, 32767),)  # kube-proxy's, where it uses IPVS

    def has_vxlan_of(self, version: IPVersion) -> bool:
        return self.has_vxlan if version == 4 else self.has_vxlan_v6
