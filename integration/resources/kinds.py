"""Every kind that catbird stores or reads: its names, where it lives, and its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from integration.resources.base import API_VERSION, Model, Resource
from integration.resources.models import (
    bgp,
    controllers,
    endpoints,
    felix_configuration,
    ipam,
    kubernetes,
    nodes,
    policy,
)


@dataclass(frozen=True)
class Kind:
    """One kind.

    `crd` is the plural of its CustomResourceDefinition in crd.projectcalico.org/v1, None if it has none. `group` is
    `calico` (resources of projectcalico.org/v3), `ipam` (what the allocator stores, in a form of its own), or a
    Kubernetes API group: `core`, `discovery`, `networking`, `policy`. `aliases` are calicoctl's short names.
    """

    name: str
    plural: str
    model: type[Model]
    namespaced: bool = False
    crd: str | None = None
    group: str = "calico"
    api_version: str = API_VERSION
    json_kind: str = ""  # what stands in the object's `kind`, if not `name`
    aliases: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.json_kind:
            object.__setattr__(self, "json_kind", self.name)

    @property
    def is_resource(self) -> bool:
        """Has kind, apiVersion and metadata (IPAM's own kinds have not, as they lie in etcd)."""
        return issubclass(self.model, Resource)


def calico(model: type[Model], plural: str, *aliases: str, namespaced: bool = False, crd: str | None = "") -> Kind:
    return Kind(model.__name__, plural, model, namespaced, plural if crd == "" else crd, aliases=aliases)


def of_ipam(model: type[Model], plural: str, *, namespaced: bool = False, crd: str | None = None) -> Kind:
    return Kind(model.__name__, plural, model, namespaced, crd, group="ipam", api_version="")


def of_kubernetes(model: type[Model], plural: str, api_version: str, *aliases: str, namespaced: bool = True) -> Kind:
    group, slash, _ = api_version.partition("/")
    own_name = model.__name__.removeprefix("Kubernetes")
    group = group.split(".")[0] if slash else "core"
    return Kind(model.__name__, plural, model, namespaced, None, group, api_version, own_name, aliases)


ALL = (
    calico(bgp.BGPConfiguration, "bgpconfigurations", "bgpconfig", "bgpconfigs"),
    calico(bgp.BGPPeer, "bgppeers", "bgpp", "bgpps", "bp", "bps"),
    calico(bgp.BGPFilter, "bgpfilters", "bgpf", "bgpfs", "bf", "bfs"),
    calico(nodes.CalicoNodeStatus, "caliconodestatuses", "nodestatus", "nodestatuses"),
    calico(nodes.ClusterInformation, "clusterinformations", "clusterinfo", "clusterinfos"),
    calico(felix_configuration.FelixConfiguration, "felixconfigurations", "felixconfig", "felixconfigs"),
    calico(policy.GlobalNetworkPolicy, "globalnetworkpolicies", "gnp", "gnps"),
    calico(policy.StagedGlobalNetworkPolicy, "stagedglobalnetworkpolicies", "sgnp", "sgnps"),
    calico(policy.NetworkPolicy, "networkpolicies", "policy", "policies", "np", "nps", "pol", "pols",
           namespaced=True),
    calico(policy.StagedNetworkPolicy, "stagednetworkpolicies", "stagedpolicy", "stagedpolicies", "snp", "snps",
           "spol", "spols", namespaced=True),
    calico(policy.StagedKubernetesNetworkPolicy, "stagedkubernetesnetworkpolicies", "stagedkubernetespolicy",
           "stagedkubernetespolicies", "sknp", "sknps", "skpol", "skpols", namespaced=True),
    calico(policy.GlobalNetworkSet, "globalnetworksets", "gnetset", "gnetsets"),
    calico(policy.NetworkSet, "networksets", "netset", "netsets", namespaced=True),
    calico(policy.Tier, "tiers"),
    calico(endpoints.HostEndpoint, "hostendpoints", "hep", "heps"),
    calico(endpoints.WorkloadEndpoint, "workloadendpoints", "wep", "weps", namespaced=True, crd=None),
    calico(policy.Profile, "profiles", "pro", "pros", crd=None),
    calico(controllers.KubeControllersConfiguration, "kubecontrollersconfigurations", "kubecontrollersconfig",
           "kubecontrollersconfigs"),
    calico(endpoints.LiveMigration, "livemigrations", namespaced=True, crd=None),
    calico(nodes.Node, "nodes", "no", "nos", crd=None),
    calico(ipam.IPPool, "ippools", "ipp", "ipps", "pool", "pools"),
    calico(ipam.IPReservation, "ipreservations", "reservation", "reservations"),
    calico(ipam.IPAMConfiguration, "ipamconfigurations", "ipamconfig", "ipamconfigs", crd="ipamconfigs"),
    of_ipam(ipam.IPAMBlock, "ipamblocks", crd="ipamblocks"),
    of_ipam(ipam.BlockAffinity, "blockaffinities", namespaced=True, crd="blockaffinities"),
    of_ipam(ipam.IPAMHandle, "ipamhandles", crd="ipamhandles"),
    of_ipam(ipam.IPAMConfig, "ipamconfigs", crd="ipamconfigs"),
    of_ipam(ipam.IPAMHost, "ipamhosts"),
    of_kubernetes(kubernetes.Service, "services", "v1", "svc"),
    of_kubernetes(kubernetes.EndpointSlice, "endpointslices", "discovery.k8s.io/v1"),
    of_kubernetes(kubernetes.Secret, "secrets", "v1"),
    of_kubernetes(kubernetes.Namespace, "namespaces", "v1", "ns", namespaced=False),
    of_kubernetes(kubernetes.ServiceAccount, "serviceaccounts", "v1", "sa"),
    of_kubernetes(kubernetes.Pod, "pods", "v1", "po"),
    of_kubernetes(kubernetes.KubernetesNetworkPolicy, "kubernetesnetworkpolicies", "networking.k8s.io/v1"),
    of_kubernetes(kubernetes.KubernetesClusterNetworkPolicy, "kubernetesclusternetworkpolicies",
                  "policy.networking.k8s.io/v1alpha2", namespaced=False),
)  # fmt: skip

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in ALL})

# Names in any case. Where `ipamconfig` may mean two kinds, it is the resource that people write, as in calicoctl.
NAMES = {text.lower(): kind for kind in reversed(ALL) for text in (*kind.aliases, kind.plural, kind.name)}
NAMES |= {alias: kind for kind in ALL for alias in kind.aliases}
OBJECTS = {(kind.api_version, kind.json_kind): kind for kind in ALL if kind.is_resource}


def kind_of(text: str) -> Kind:
    """The kind that a person means by `text`: its name, plural or short alias, in any case. Raises ValueError."""
    try:
        return KINDS.get(text) or NAMES[text.lower()]
    except KeyError:
        raise ValueError(f"resource type {text!r} is not known") from None


def kind_of_object(api_version: str, kind: str) -> Kind:
    """The kind of a JSON object that says `apiVersion` and `kind`. Raises ValueError."""
    try:
        return OBJECTS[api_version, kind]
    except KeyError:
        raise ValueError(f"unknown resource type ({kind}) and/or version ({api_version})") from None
