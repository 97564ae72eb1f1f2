"""Of Kubernetes' own kinds, the fields that Calico reads; the rest stays with the object as it came."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from integration.resources.base import Model, Resource


class ServicePort(Model):
    name: str = ""
    protocol: str = ""
    port: int = 0
    target_port: int | str | None = None
    node_port: int = 0


class ServiceSpec(Model):
    type: str = ""  # ClusterIP if empty
    cluster_ip: str = ""  # "None": headless
    cluster_ips: list[str] = []
    external_ips: list[str] = []
    load_balancer_ip: str = ""
    load_balancer_class: str | None = None
    external_traffic_policy: str = ""  # Cluster, Local
    internal_traffic_policy: str | None = None
    ip_families: list[str] = []  # IPv4, IPv6
    ports: list[ServicePort] = []
    selector: dict[str, str] = {}


class LoadBalancerIngress(Model):
    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(Model):
    ingress: list[LoadBalancerIngress] = []


class ServiceStatus(Model):
    load_balancer: LoadBalancerStatus = Field(default_factory=LoadBalancerStatus)


class Service(Resource):
    spec: ServiceSpec = Field(default_factory=ServiceSpec)
    status: ServiceStatus = Field(default_factory=ServiceStatus)


class EndpointConditions(Model):
    ready: bool | None = None  # absent: ready
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Model):
    addresses: list[str] = []
    conditions: EndpointConditions = Field(default_factory=EndpointConditions)
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None


class SlicePort(Model):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(Resource):
    """The service it belongs to is in the label `kubernetes.io/service-name`."""

    address_type: str = ""  # IPv4, IPv6, FQDN
    endpoints: list[SliceEndpoint] = []
    ports: list[SlicePort] = []

    @property
    def service(self) -> str:
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class Secret(Resource):
    """`data` is base64, `string_data` plain text and wins (only in what people write)."""

    type: str = ""
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}


class Namespace(Resource):
    pass


class ServiceAccount(Resource):
    pass


class ContainerPort(Model):
    name: str = ""
    container_port: int = 0
    host_port: int = 0
    protocol: str = ""


class Container(Model):
    name: str = ""
    ports: list[ContainerPort] = []


class PodSpec(Model):
    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []


class PodIP(Model):
    ip: str = ""


class PodStatus(Model):
    phase: str = ""
    reason: str = ""
    pod_ip: str = ""
    pod_ips: list[PodIP] = []


class Pod(Resource):
    spec: PodSpec = Field(default_factory=PodSpec)
    status: PodStatus = Field(default_factory=PodStatus)


class KubernetesNetworkPolicy(Resource):
    """networking.k8s.io/v1 NetworkPolicy."""

    spec: dict[str, Any] = {}


class KubernetesClusterNetworkPolicy(Resource):
    """policy.networking.k8s.io ClusterNetworkPolicy."""

    spec: dict[str, Any] = {}
