"""IPPool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

from integration.resources.base import Problem
from integration.resources.fields import Network, parse_network
from integration.resources.models.ipam import IPPool, IPPoolSpec

BLOCK_SIZES = {4: (20, 32, 26), 6: (116, 128, 122)}  # family → shortest, longest, default
LINK_LOCAL: dict[int, Network] = {4: ip_network("169.254.0.0/16"), 6: ip_network("fe80::/10")}


def block_size_of(spec: IPPoolSpec) -> int:
    """The prefix length of the pool's blocks, also if the pool does not say it."""
    return spec.block_size or BLOCK_SIZES[parse_network(spec.cidr).version][2]


def check_pool(spec: IPPoolSpec, path: str) -> Iterator[Problem]:
    cidr = parse_network(spec.cidr)
    shortest, longest, _ = BLOCK_SIZES[cidr.version]
    size = block_size_of(spec)
    if not shortest <= size <= longest:
        allowed = f"{shortest} to {longest} for IPv{cidr.version}"
        yield Problem(f"{path}.blockSize", size, "is no size of a block", allowed)
    elif not spec.disabled and cidr.prefixlen > size:
        yield Problem(f"{path}.cidr", spec.cidr, f"is smaller than a block (/{size})", f"/{size} or larger")
    link_local = LINK_LOCAL[cidr.version]
    if cidr.overlaps(link_local):
        yield Problem(f"{path}.cidr", spec.cidr, f"overlaps the link-local range {link_local}")
    if spec.ipip is not None:
        yield Problem(f"{path}.ipip", None, "is of the v1 API and cannot be set", "ipipMode")
    is_ipip, is_vxlan = is_on(spec.ipip_mode), is_on(spec.vxlan_mode)
    if is_ipip and cidr.version == 6:
        yield Problem(f"{path}.ipipMode", spec.ipip_mode, "is not supported on an IPv6 pool", "Never")
    if is_ipip and is_vxlan:
        yield Problem(f"{path}.ipipMode", spec.ipip_mode, f"cannot be on while vxlanMode is {spec.vxlan_mode}", "Never")
    if "LoadBalancer" in spec.allowed_uses:
        yield from check_load_balancer_pool(spec, path)
    if "Tunnel" in spec.allowed_uses and spec.namespace_selector:
        reason = "cannot be set on a pool for tunnels, which belong to no namespace"
        yield Problem(f"{path}.namespaceSelector", spec.namespace_selector, reason, "with allowedUses [Workload]")


def check_load_balancer_pool(spec: IPPoolSpec, path: str) -> Iterator[Problem]:
    if spec.allowed_uses != ["LoadBalancer"]:
        yield Problem(
            f"{path}.allowedUses", spec.allowed_uses, "LoadBalancer excludes other uses", "LoadBalancer alone"
        )
    for name, value in (("ipipMode", spec.ipip_mode), ("vxlanMode", spec.vxlan_mode)):
        if is_on(value):
            yield Problem(f"{path}.{name}", value, "cannot be on for a LoadBalancer pool", "Never")
    if spec.disable_bgp_export:
        yield Problem(f"{path}.disableBGPExport", True, "cannot be set for a LoadBalancer pool", "false")
    if spec.node_selector not in ("", "all()"):
        reason = "cannot select nodes for a LoadBalancer pool"
        yield Problem(f"{path}.nodeSelector", spec.node_selector, reason, "all()")


def is_on(mode: str) -> bool:
    return mode not in ("", "Never")


def default_pool(pool: IPPool) -> None:
    """What Calico writes into a new pool; of a pool whose CIDR cannot be read, the CIDR and block size stay."""
    spec = pool.spec
    spec.ipip_mode = spec.ipip_mode or "Never"
    spec.vxlan_mode = spec.vxlan_mode or "Never"
    spec.node_selector = spec.node_selector or "all()"
    # Tunnel addresses belong to no namespace, so that a pool of some namespaces is not for them.
    spec.allowed_uses = spec.allowed_uses or (["Workload"] if spec.namespace_selector else ["Workload", "Tunnel"])
    try:
        network = parse_network(spec.cidr, masked=True)
    except ValueError:
        return
    spec.cidr = str(network)
    spec.block_size = block_size_of(spec)


CHECKS: dict[type, Callable[[Any, str], Iterator[Problem]]] = {
    IPPoolSpec: check_pool,
}
DEFAULTS: dict[type, Callable[[Any], None]] = {IPPool: default_pool}
