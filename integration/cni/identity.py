"""Who a container is to Calico: which endpoint, which interface on the host, which handle in IPAM. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from integration.cni.errors import INVALID_ENVIRONMENT, CNIError
from integration.cni.network_config import NetworkConfig
from integration.cni.request import Request
from integration.resources.keys import Key
from integration.resources.names import WorkloadEndpointName, workload_interface

DEFAULT_NAMESPACE = "default"
HOST_PREFIX = "cali"


@dataclass(frozen=True, slots=True)
class Identity:
    """`orchestrator` is `k8s` if the runtime names a pod and its namespace, else `cni`; `pod` is empty then."""

    node: str
    orchestrator: str
    namespace: str
    pod: str
    container_id: str
    endpoint: str  # the container's interface
    network: str
    interface_prefix: str = HOST_PREFIX

    @property
    def is_kubernetes(self) -> bool:
        return self.orchestrator == "k8s"

    @property
    def workload(self) -> str:
        return self.pod if self.is_kubernetes else self.container_id

    @property
    def key(self) -> Key:
        return Key("WorkloadEndpoint", self._name(self.endpoint).name, self.namespace)

    @property
    def prefix(self) -> str:
        """What the names of all endpoints of this workload begin with."""
        return self._name("").prefix

    def _name(self, endpoint: str) -> WorkloadEndpointName:
        return WorkloadEndpointName(
            node=self.node, orchestrator=self.orchestrator, pod=self.pod, container_id=self.container_id, endpoint=endpoint
        )  # fmt: skip

    @property
    def host_interface(self) -> str:
        if self.is_kubernetes:
            return workload_interface(self.namespace, self.pod, self.interface_prefix)
        return (self.interface_prefix + self.container_id[:11])[:15]

    @property
    def handle(self) -> str:
        return f"{self.network}.{self.container_id}"

    @property
    def former_handles(self) -> tuple[str, ...]:
        """What earlier versions of the plugin called it: released as well."""
        return (f"{self.namespace}.{self.pod}",) if self.is_kubernetes else (self.container_id,)

    @property
    def attributes(self) -> dict[str, str]:
        """What IPAM notes of the allocation; its garbage collection and Felix read these."""
        who = {"namespace": self.namespace, "pod": self.pod} if self.is_kubernetes else {}
        return {"node": self.node, **who}


def identity_of(request: Request, node: str, interface_prefix: str = HOST_PREFIX) -> Identity:
    """Raises CNIError 4 if the names cannot make an endpoint's."""
    pod, namespace = request.arguments.get("K8S_POD_NAME", ""), request.arguments.get("K8S_POD_NAMESPACE", "")
    is_kubernetes = bool(pod and namespace)
    identity = Identity(
        node,
        "k8s" if is_kubernetes else "cni",
        namespace if is_kubernetes else DEFAULT_NAMESPACE,
        pod if is_kubernetes else "",
        request.container_id,
        request.interface,
        request.config.name,
        interface_prefix,
    )
    try:
        _ = identity.key
    except ValueError as error:
        raise CNIError(INVALID_ENVIRONMENT, f"this container cannot be named: {error}") from None
    return identity


def node_of(config: NetworkConfig, default: str) -> str:
    """The configuration's, the file's that the node agent writes, or the agent's own; the file must be there unless optional.

    Raises CNIError 11: the node agent is not up yet.
    """
    try:
        written = Path(config.node_file).read_text().strip()
    except OSError:
        written = ""
    found = config.node or written or default
    if not found and not config.node_file_is_optional:
        raise CNIError(
            11, f"{config.node_file} is not there: the node agent has not started yet",
            "check that catbird node runs on this node",
        )  # fmt: skip
    return found
