"""What a pod's and its namespace's annotations ask of the network. Pure; a pod's word goes before its namespace's."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.cni.errors import GENERIC, CNIError
from integration.cni.network_config import NetworkConfig

PREFIX = "cni.projectcalico.org/"


@dataclass(frozen=True, slots=True)
class Wishes:
    """Addresses without length."""

    families: tuple[int, ...] = (4,)
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()  # from IPAM
    addresses_without_ipam: tuple[str, ...] = ()
    floating: tuple[str, ...] = ()
    mac: str = ""
    allowed_sources: tuple[str, ...] = ()
    namespace_labels: Mapping[str, str] = field(default_factory=dict)

    def pools(self, version: int) -> tuple[str, ...]:
        return self.ipv6_pools if version == 6 else self.ipv4_pools


def wishes_of(
    config: NetworkConfig, pod: Mapping[str, Any] | None, namespace: Mapping[str, Any] | None, explicit_ip: str = ""
) -> Wishes:
    """`explicit_ip` is CNI_ARGS' IP. Raises CNIError that names the annotation."""
    own, outer = _annotations(pod), _annotations(namespace)

    def either(name: str) -> tuple[str, ...]:
        return _texts(own, name) or _texts(outer, name)

    addresses = _addresses(own, "ipAddrs") or ((_address(explicit_ip, "CNI_ARGS: IP"),) if explicit_ip else ())
    without_ipam = _addresses(own, "ipAddrsNoIpam")
    if addresses and without_ipam:
        raise CNIError(GENERIC, f"{PREFIX}ipAddrs and {PREFIX}ipAddrsNoIpam exclude each other")
    if without_ipam and not config.allows_addresses_without_ipam:
        raise CNIError(
            GENERIC, f"{PREFIX}ipAddrsNoIpam is not enabled",
            'set feature_control.ip_addrs_no_ipam in the network configuration',
        )  # fmt: skip
    floating = _addresses(own, "floatingIPs")
    if floating and not config.allows_floating_ips:
        raise CNIError(
            GENERIC, f"{PREFIX}floatingIPs is not enabled",
            'set feature_control.floating_ips in the network configuration',
        )  # fmt: skip
    for name, given in (("ipAddrs", addresses), ("ipAddrsNoIpam", without_ipam)):
        if len({":" in one for one in given}) < len(given):
            raise CNIError(GENERIC, f"{PREFIX}{name}: one address of each version at most")
    return Wishes(
        _families(either("ipFamilies"), config),
        either("ipv4pools") or config.ipv4_pools,
        either("ipv6pools") or config.ipv6_pools,
        addresses,
        without_ipam,
        floating,
        own.get(PREFIX + "hwAddr", ""),
        _texts(own, "allowedSourcePrefixes"),
        dict((namespace or {}).get("metadata", {}).get("labels") or {}),
    )


def _annotations(resource: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((resource or {}).get("metadata") or {}).get("annotations") or {}


def _texts(annotations: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = annotations.get(PREFIX + name)
    if not text:
        return ()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise CNIError(GENERIC, f"the annotation {PREFIX}{name} is no JSON list of texts: {text!r}")
    return tuple(value)


def _addresses(annotations: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(_address(text, f"the annotation {PREFIX}{name}") for text in _texts(annotations, name))


def _address(text: str, where: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise CNIError(GENERIC, f"{where}: {text!r} is no IP address") from None


def _families(said: tuple[str, ...], config: NetworkConfig) -> tuple[int, ...]:
    if unknown := [one for one in said if one not in ("IPv4", "IPv6")]:
        raise CNIError(GENERIC, f"the annotation {PREFIX}ipFamilies has {unknown[0]!r}", "IPv4 and IPv6")
    if said:
        return tuple(version for version, name in ((4, "IPv4"), (6, "IPv6")) if name in said)
    return tuple(version for version, wanted in ((4, config.assigns_ipv4), (6, config.assigns_ipv6)) if wanted)
