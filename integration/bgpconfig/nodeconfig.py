"""What comes out: the configuration of one node's speaker, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bgp.config import SpeakerConfig
from bgp.families import IPAddress, IPNetwork
from bgp.toml import config_to_dict, policy_to_dict
from integration.bgpconfig.problems import Problem
from integration.bgpconfig.sessions import PeerReport


@dataclass(frozen=True, slots=True)
class Environment:
    """What a node is told by its environment, not by resources.

    `router_id` is CALICO_ROUTER_ID, `secret_namespace` NAMESPACE, `cluster_ips` CALICO_ADVERTISE_CLUSTER_IPS,
    `kubernetes_node` CALICO_K8S_NODE_REF (empty: as the Node says), `uses_pod_cidr` USE_POD_CIDR.
    """

    router_id: str = ""
    secret_namespace: str = "kube-system"
    cluster_ips: str = ""
    kubernetes_node: str = ""
    uses_pod_cidr: bool = False
    workload_interfaces: tuple[str, ...] = ("cali*",)
    control: str = "/run/catbird/speaker.sock"
    metrics: str | None = None

    @classmethod
    def of_variables(cls, variables: Mapping[str, str], **others: Any) -> Environment:
        """What calico-node's environment variables say."""
        return cls(
            router_id=variables.get("CALICO_ROUTER_ID", ""),
            secret_namespace=variables.get("NAMESPACE") or "kube-system",
            cluster_ips=variables.get("CALICO_ADVERTISE_CLUSTER_IPS", ""),
            kubernetes_node=variables.get("CALICO_K8S_NODE_REF", ""),
            uses_pod_cidr=variables.get("USE_POD_CIDR", "").lower() in ("true", "1", "t"),
            **others,
        )


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A peer that is reached by a gateway of its own (reachableBy): a host route that the node needs."""

    network: IPNetwork
    gateway: IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """`peers` are in the order of `speaker.peers`. `workload_addresses` are where local workloads find their node."""

    node: str
    speaker: SpeakerConfig
    peers: tuple[PeerReport, ...] = ()
    problems: tuple[Problem, ...] = ()
    static_routes: tuple[StaticRoute, ...] = ()
    workload_addresses: tuple[IPAddress, ...] = ()
    log_level: str = "info"

    def to_json(self) -> dict[str, Any]:
        """As `catbird bgp-config -o json` prints it. Policies that peers share stand once, under `export`."""
        speaker = self.speaker
        tables = config_to_dict(speaker)
        names: dict[int, str] = {}
        told: dict[str, Any] = {}
        for report in self.peers:
            policy = report.config.export_policy
            if policy is not None and id(policy) not in names:
                names[id(policy)] = policy.label
                told[policy.label] = policy_to_dict(policy)
        return {
            "node": self.node,
            "asn": speaker.asn,
            "router_id": str(speaker.router_id),
            "cluster_id": None if speaker.cluster_id is None else str(speaker.cluster_id),
            "listen": {"addresses": [str(address) for address in speaker.listen], "port": speaker.port},
            "peers": [report.to_json() for report in self.peers],
            "originate": tables["originate"],
            "export": told,
            "kernel": tables.get("kernel"),
            "static_routes": [
                {"prefix": str(route.network), "next_hop": str(route.gateway)} for route in self.static_routes
            ],
            "workload_addresses": [str(address) for address in self.workload_addresses],
            "log_level": self.log_level,
            "problems": [{"resource": str(one.key), "field": one.field, "reason": one.reason} for one in self.problems],
        }
