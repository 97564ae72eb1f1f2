"""What calicoctl's tables show of each kind, from the JSON objects as they are stored: those need not be valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from integration.cli.columns import visible

Value = Mapping[str, Any]
Show = Callable[[Value], object]
GAP = 3
LEAST_WIDTH = 5
LONGEST_LIST = 80
CLUSTER_ASN = "asn of the cluster"  # where a Node says none; put into its object before it is shown


def at(*path: str, otherwise: object = "") -> Show:
    """The value at a path, or `otherwise` if there is nothing."""

    def show(value: Value) -> object:
        found: object = value
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return otherwise if found is None or found == "" else found

    return show


def spec(*path: str, otherwise: object = "") -> Show:
    return at("spec", *path, otherwise=otherwise)


def joined(*path: str) -> Show:
    show = at(*path, otherwise=[])

    def shown(value: Value) -> object:
        found = show(value)
        return ",".join(map(text_of, found)) if isinstance(found, list) else found

    return shown


def shortened(*path: str) -> Show:
    show = joined(*path)

    def shown(value: Value) -> object:
        text = str(show(value))
        return text if len(text) <= LONGEST_LIST else text[:LONGEST_LIST] + "..."

    return shown


def count(*path: str) -> Show:
    show = at(*path, otherwise=[])

    def shown(value: Value) -> object:
        found = show(value)
        return len(found) if isinstance(found, list) else 0

    return shown


def labels(*path: str) -> Show:
    show = at(*path, otherwise={})

    def shown(value: Value) -> object:
        found = show(value)
        return ",".join(f"{name}={found[name]}" for name in sorted(found)) if isinstance(found, Mapping) else found

    return shown


def nats(value: Value) -> object:
    found = spec("ipNATs", otherwise=[])(value)
    if not isinstance(found, list):
        return ""
    return ",".join(f"{nat.get('internalIP')}:{nat.get('externalIP')}" for nat in found if isinstance(nat, Mapping))


def peer_node(value: Value) -> object:
    return spec("node")(value) or spec("nodeSelector")(value) or "(global)"


def node_asn(value: Value) -> object:
    if not isinstance(spec("bgp", otherwise=None)(value), Mapping):
        return ""
    return spec("bgp", "asNumber")(value) or f"({value.get(CLUSTER_ASN)})"


def workload(value: Value) -> object:
    return spec("pod")(value) or spec("workload")(value) or spec("containerID")(value)


NAME = at("metadata", "name")
NAMESPACE = at("metadata", "namespace")
TIER = {"TIER": spec("tier", otherwise="default")}
POLICY = {**TIER, "ORDER": spec("order"), "SELECTOR": spec("selector")}
NETS = {"NETS": shortened("spec", "nets")}
SHORT: dict[str, dict[str, Show]] = {
    "BGPConfiguration": {
        "LOGSEVERITY": spec("logSeverityScreen"),
        "MESHENABLED": spec("nodeToNodeMeshEnabled", otherwise="-"),
        "ASNUMBER": spec("asNumber", otherwise="-"),
    },
    "BGPFilter": {
        "NUMEXPORTV4": count("spec", "exportV4"),
        "NUMIMPORTV4": count("spec", "importV4"),
        "NUMEXPORTV6": count("spec", "exportV6"),
        "NUMIMPORTV6": count("spec", "importV6"),
    },
    "BGPPeer": {"PEERIP": spec("peerIP"), "NODE": peer_node, "ASN": spec("asNumber", otherwise=0)},
    "CalicoNodeStatus": {"NODE": spec("node")},
    "ClusterInformation": {
        "CLUSTERGUID": spec("clusterGUID"),
        "CLUSTERTYPE": spec("clusterType"),
        "CALICOVERSION": spec("calicoVersion"),
        "DATASTOREREADY": spec("datastoreReady"),
    },
    "GlobalNetworkPolicy": TIER,
    "StagedGlobalNetworkPolicy": TIER,
    "NetworkPolicy": TIER,
    "StagedNetworkPolicy": TIER,
    "HostEndpoint": {"NODE": spec("node")},
    "IPAMConfiguration": {
        "STRICTAFFINITY": spec("strictAffinity", otherwise=False),
        "AUTOALLOCATEBLOCKS": spec("autoAllocateBlocks", otherwise=False),
    },
    "IPPool": {"CIDR": spec("cidr"), "SELECTOR": spec("nodeSelector")},
    "Tier": {"ORDER": spec("order")},
    "WorkloadEndpoint": {
        "NODE": spec("node"),
        "NETWORKS": joined("spec", "ipNetworks"),
        "INTERFACE": spec("interfaceName"),
    },
    "Service": {"TYPE": spec("type"), "CLUSTER-IP": spec("clusterIP")},
}
# What -o wide shows in place of, or with the columns above first.
WIDE: dict[str, dict[str, Show]] = {
    "CalicoNodeStatus": {"CLASSES": joined("spec", "classes")},
    "GlobalNetworkPolicy": POLICY,
    "StagedGlobalNetworkPolicy": POLICY,
    "NetworkPolicy": POLICY,
    "StagedNetworkPolicy": POLICY,
    "StagedKubernetesNetworkPolicy": {"PODSELECTOR": labels("spec", "podSelector", "matchLabels")},
    "GlobalNetworkSet": NETS,
    "NetworkSet": NETS,
    "HostEndpoint": {
        "INTERFACE": spec("interfaceName"),
        "IPS": joined("spec", "expectedIPs"),
        "PROFILES": joined("spec", "profiles"),
    },
    "IPAMConfiguration": {"MAXBLOCKSPERHOST": spec("maxBlocksPerHost", otherwise=0)},
    "IPReservation": {"CIDRS": shortened("spec", "reservedCIDRs")},
    "Node": {"ASN": node_asn, "IPV4": spec("bgp", "ipv4Address"), "IPV6": spec("bgp", "ipv6Address")},
    "Profile": {"LABELS": labels("spec", "labelsToApply")},
    "WorkloadEndpoint": {"PROFILES": joined("spec", "profiles"), "NATS": nats},
}
WIDE_POOL: dict[str, Show] = {
    "CIDR": spec("cidr"),
    "NAT": spec("natOutgoing", otherwise=False),
    "IPIPMODE": spec("ipipMode", otherwise="Never"),
    "VXLANMODE": spec("vxlanMode", otherwise="Never"),
    "DISABLED": spec("disabled", otherwise=False),
    "DISABLEBGPEXPORT": spec("disableBGPExport", otherwise=False),
    "SELECTOR": spec("nodeSelector"),
    "ASSIGNMENTMODE": spec("assignmentMode"),
}


def columns_of(kind: str, *, is_wide: bool, with_namespace: bool) -> dict[str, Show]:
    found: dict[str, Show] = {"NAMESPACE": NAMESPACE} if with_namespace else {}
    if kind == "WorkloadEndpoint":
        found |= {"NAME": NAME} if is_wide else {}
        found |= {"WORKLOAD": workload}
    else:
        found |= {"NAME": NAME}
    if kind == "IPPool" and is_wide:
        return found | WIDE_POOL
    return found | SHORT.get(kind, {}) | (WIDE.get(kind, {}) if is_wide else {})


def table(columns: Mapping[str, Show], values: Iterable[Value]) -> Iterator[str]:
    """As calicoctl's tab writer lays it out, with an empty line after it."""
    rows: list[Sequence[str]] = [tuple(columns)]
    rows += [tuple(text_of(show(value)) for show in columns.values()) for value in values]
    widths = [max(LEAST_WIDTH, *(len(row[at]) + GAP for row in rows)) for at in range(len(columns))]
    for row in rows:
        yield "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""


def text_of(shown: object) -> str:
    if isinstance(shown, bool):
        return "true" if shown else "false"
    if isinstance(shown, float) and shown.is_integer():
        return str(int(shown))
    return visible(shown)
