"""The datastore's layers of Felix' configuration, BGPConfiguration's service networks, and which node a peer is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from felix.calc.addresses import read_address, read_net
from felix.calc.reading import Json, part, parts, required, text
from felix.calc.selectors import read_selector
from felix.config_layers import parameters_of
from felix.desired import ConfigUpdate, IPVersion, ServiceCIDRsUpdate, WorkloadPeeringUpdate
from integration.resources.keys import Key
from integration.resources.selector import Selector

EVERYWHERE = "default"
OF_NODE = "node."


class Layer(NamedTuple):
    """A FelixConfiguration. `selector` only counts for those that are named neither `default` nor `node.…`."""

    parameters: Mapping[str, str]
    selector: Selector | None


def read_layer(key: Key, value: Json) -> Layer:
    spec = part(value, "spec", "")
    is_selected = key.name != EVERYWHERE and not key.name.startswith(OF_NODE)
    given = text(spec, "nodeSelector", "spec.")
    annotations = part(part(value, "metadata", ""), "annotations", "metadata.")
    selector = read_selector(given, "spec.nodeSelector") if given and is_selected else None
    return Layer(parameters_of(spec, {name: str(each) for name, each in annotations.items()}), selector)


def cluster_parameters(_: Key, value: Json) -> Mapping[str, str]:
    """ClusterInformation's."""
    spec = part(value, "spec", "")
    found = {
        name: text(spec, field, "spec.")
        for name, field in (
            ("ClusterGUID", "clusterGUID"),
            ("ClusterType", "clusterType"),
            ("CalicoVersion", "calicoVersion"),
        )
    }
    return {name: each for name, each in found.items() if each}


def config_update(
    node: str,
    layers: Mapping[str, Layer],
    cluster: Mapping[str, str],
    node_labels: Mapping[str, str] | None,
    node_parameters: Mapping[str, str],
) -> ConfigUpdate:
    """`node_labels` None: our node is not known, and no selector can match it.

    Where two that match set one parameter, the first by name wins (Calico leaves that open).
    """
    everywhere = layers.get(EVERYWHERE)
    own = layers.get(OF_NODE + node)
    by_selector: dict[str, str] = {}
    for name in sorted(layers, reverse=True):
        selector = layers[name].selector
        if selector is not None and node_labels is not None and selector.matches(node_labels):
            by_selector.update(layers[name].parameters)
    return ConfigUpdate(
        {**cluster, **(everywhere.parameters if everywhere else {})},
        by_selector,
        {**(own.parameters if own else {}), **node_parameters},
    )


class BgpConfiguration(NamedTuple):
    """What of it concerns the dataplane."""

    cidrs: ServiceCIDRsUpdate = ServiceCIDRsUpdate()
    peering: WorkloadPeeringUpdate = WorkloadPeeringUpdate()


def read_bgp_configuration(_: Key, value: Json) -> BgpConfiguration:
    spec = part(value, "spec", "")
    return BgpConfiguration(
        ServiceCIDRsUpdate(*(cidrs(spec, f"service{kind}IPs") for kind in ("Cluster", "External", "LoadBalancer"))),
        WorkloadPeeringUpdate(peering_address(spec, 4), peering_address(spec, 6)),
    )


def peering_address(spec: Json, version: IPVersion) -> str:
    field = f"localWorkloadPeeringIPV{version}"
    return read_address(text(spec, field, "spec."), f"spec.{field}", version)


def cidrs(spec: Json, field: str) -> tuple[str, ...]:
    found = [str(read_net(required(each, "cidr", path), f"{path}cidr")) for each, path in parts(spec, field, "spec.")]
    return tuple(dict.fromkeys(found))


class LocalPeer(NamedTuple):
    """A BGPPeer that peers with workloads."""

    node: str
    nodes: Selector
    workloads: Selector

    def is_for(self, node: str, labels: Mapping[str, str]) -> bool:
        return self.node == node if self.node else self.nodes.matches(labels)


def read_local_peer(_: Key, value: Json) -> LocalPeer | None:
    """None: it has nothing to do with workloads."""
    spec = part(value, "spec", "")
    workloads = text(spec, "localWorkloadSelector", "spec.")
    if not workloads:
        return None
    return LocalPeer(
        text(spec, "node", "spec."),
        read_selector(text(spec, "nodeSelector", "spec."), "spec.nodeSelector"),
        read_selector(workloads, "spec.localWorkloadSelector"),
    )
