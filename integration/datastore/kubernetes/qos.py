"""Annotations of a pod that limit its bandwidth, packet rate and connections.

A limit that is out of range is the nearest one in range; one that cannot be read, or lacks what it depends on, is none
(libcalico-go, lib/backend/k8s/conversion/workload_endpoint_default.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from integration.resources.fields import check_dscp

QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE])?)")
UNITS = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
# What follows the direction in the annotation and in the field → smallest, largest.
RANGES = {
    "Bandwidth": (10**3, 10**15),  # bits a second
    "Burst": (10**3, (2**32 - 1) * 8),  # bits
    "Peakrate": (1010, 1_010_000_000_000_000),
    "Minburst": (10**3, 10**8),  # octets
    "PacketRate": (1, 10**4),
    "PacketBurst": (1, 10**4),
    "MaxConnections": (1, 2**32 - 1),
}
DEFAULT_BURST = 4 * 2**30
DEFAULT_PACKET_BURST = 5


def quantity(text: str) -> int:
    """A quantity as Kubernetes writes it (`10M`, `1.5Gi`, `100m`), rounded up. Raises ValueError."""
    found = QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no quantity")
    exact = Decimal(found[1]) * (Decimal(10) ** int(found[2]) if found[2] else UNITS[found[3] or ""])
    return int(exact.to_integral_value(rounding="ROUND_CEILING"))


def qos_controls(annotations: Mapping[str, str]) -> dict[str, Any]:
    """The limits that a pod has, in the resource's names; empty if it has none."""
    found: dict[str, Any] = {}
    for direction in ("ingress", "egress"):
        limits = {name: limit(annotations, direction, name) for name in RANGES}
        complete(limits)
        found |= {direction + name: value for name, value in limits.items() if value}
    dscp = annotations.get("qos.projectcalico.org/dscp", "")
    if dscp:
        try:
            value = int(dscp) if dscp.isdigit() else dscp
            check_dscp(value)
            found["dscp"] = value
        except ValueError:
            pass
    return found


def limit(annotations: Mapping[str, str], direction: str, name: str) -> int:
    """0: none."""
    text = annotations.get(f"qos.projectcalico.org/{direction}{name}")
    if text is None and name == "Bandwidth":
        text = annotations.get(f"kubernetes.io/{direction}-bandwidth")
    if text is None:
        return 0
    smallest, largest = RANGES[name]
    try:
        return min(max(quantity(text), smallest), largest)
    except ValueError:
        return 0


def complete(limits: dict[str, int]) -> None:
    if not limits["Bandwidth"]:
        limits["Burst"] = limits["Peakrate"] = 0
    if limits["Peakrate"] <= limits["Bandwidth"]:
        limits["Peakrate"] = 0
    if not limits["Peakrate"]:
        limits["Minburst"] = 0
    if not limits["PacketRate"]:
        limits["PacketBurst"] = 0
    if limits["Bandwidth"]:
        limits["Burst"] = limits["Burst"] or DEFAULT_BURST
    if limits["PacketRate"]:
        limits["PacketBurst"] = limits["PacketBurst"] or DEFAULT_PACKET_BURST
