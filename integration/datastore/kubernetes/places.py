"""Where each kind lies in the Kubernetes API: one Place for each collection of objects that makes resources of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from integration.datastore.api import Entry, Value
from integration.datastore.errors import Unreadable, Unsupported
from integration.datastore.kubernetes import calico_form, network_policies, nodes, pods, profiles
from integration.datastore.kubernetes.connection import KubernetesSettings
from integration.datastore.stored_form import NAMED_BY_ANNOTATION, OLD_PREFIX
from integration.resources.base import API_VERSION
from integration.resources.keys import Key
from integration.resources.kinds import KINDS, Kind
from integration.resources.models.ipam_crds import CRD_VERSION, OBJECTS, crd_object_name, from_crd, to_crd
from integration.resources.names import hostname_hash, parts_of_endpoint_name

Object = dict[str, Any]
V3_PLURALS = {"ipamconfigs": "ipamconfigurations"}
BY_HOLDER = "projectcalico.org/hostname-hash={},projectcalico.org/affinity-type={}"
# Former versions gave affinities no labels.
WITHOUT_HOLDER = "!projectcalico.org/affinity-type"


@dataclass(frozen=True)
class Collection:
    """A collection of the API, such as `ippools` of crd.projectcalico.org/v1."""

    group_version: str
    plural: str
    namespaced: bool = False

    @property
    def group_path(self) -> str:
        return f"/apis/{self.group_version}" if "/" in self.group_version else f"/api/{self.group_version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        parts = [*(("namespaces", namespace) if self.namespaced and namespace else ()), self.plural, name, subresource]
        return "/".join([self.group_path, *(quote(part, safe="") for part in parts if part)])

    def __str__(self) -> str:
        return f"{self.plural} of {self.group_version}"


class Place(Protocol):
    """How the objects of one collection read as resources of one kind."""

    @property
    def collection(self) -> Collection: ...

    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        """(namespace, name) of the objects that may be what `key` names, the likeliest first; none: not here."""
        ...

    def entry(self, found: Mapping[str, Any]) -> Entry | None:
        """What the object stands for; None if for nothing of this kind. Raises Unreadable."""
        ...

    def selectors(self, namespace: str | None) -> Sequence[str]:
        """Label selectors that together find everything in the namespace (of our keys)."""
        ...


class Custom(Place, Protocol):
    """A place that is written by creating, replacing and deleting objects."""

    def written(self, key: Key, value: Value) -> Object: ...


class Readable:
    """What most places have in common: one object, one resource, in the same namespace."""

    def __init__(self, kind: Kind, collection: Collection) -> None:
        self.kind, self.collection = kind, collection

    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        return [(key.namespace, key.name)]

    def selectors(self, namespace: str | None) -> Sequence[str]:
        return [""]

    def entry(self, found: Mapping[str, Any]) -> Entry | None:
        metadata: Mapping[str, Any] = found["metadata"]
        where = Key(self.kind.name, metadata["name"], metadata.get("namespace", ""))
        try:
            value = self.value(found)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unreadable(where, str(error), metadata["resourceVersion"]) from error
        if value is None:
            return None
        inner: Mapping[str, Any] = value["metadata"]
        # A global resource has no namespace, whatever it is made from.
        namespace = inner.get("namespace", "") if self.kind.namespaced else ""
        return Entry(Key(self.kind.name, inner["name"], namespace), value, metadata["resourceVersion"])

    def value(self, found: Mapping[str, Any]) -> Value | None:
        raise NotImplementedError


class AsIs(Readable):
    """Kubernetes' own kinds."""

    def value(self, found: Mapping[str, Any]) -> Value | None:
        metadata = calico_form.without(found["metadata"], calico_form.SERVERS_OWN)
        own = {"kind": self.kind.json_kind, "apiVersion": self.kind.api_version}
        return {**own, **found, **own, "metadata": metadata}


class CalicoResource(Readable):
    """A custom resource of either group."""

    def __init__(self, kind: Kind, collection: Collection, object_kind: str) -> None:
        super().__init__(kind, collection)
        self.object_kind = object_kind
        self.is_v3 = collection.group_version == API_VERSION

    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        found = [(key.namespace, key.name)]
        if not self.is_v3 and key.kind in NAMED_BY_ANNOTATION and not key.name.startswith(OLD_PREFIX):
            # Former versions named the object of a policy without a tier so, and kept its name in the annotation.
            found.append((key.namespace, OLD_PREFIX + key.name))
        return found

    def value(self, found: Mapping[str, Any]) -> Value | None:
        return (calico_form.from_v3 if self.is_v3 else calico_form.from_v1)(self.kind.name, found)

    def written(self, key: Key, value: Value) -> Object:
        metadata = {**(value.get("metadata") or {}), "name": key.name}
        metadata |= {"namespace": key.namespace} if key.namespace else {}
        metadata.pop("resourceVersion", None)
        value = {**value, "metadata": metadata}
        if self.is_v3:
            return calico_form.to_v3(value, self.object_kind)
        return calico_form.to_v1(key.kind, value, self.object_kind)


class IPAMObject(Readable):
    """What the allocator stores, in the form it has in etcd."""

    def __init__(self, kind: Kind, collection: Collection, object_kind: str) -> None:
        super().__init__(kind, collection)
        self.object_kind = object_kind
        self.is_v3 = collection.group_version == API_VERSION

    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        return [("", crd_object_name(key))]

    def selectors(self, namespace: str | None) -> Sequence[str]:
        if self.kind.name != "BlockAffinity" or namespace is None:
            return [""]
        holder, _, name = namespace.partition(":")
        return [BY_HOLDER.format(hostname_hash(name), holder), WITHOUT_HOLDER]

    def entry(self, found: Mapping[str, Any]) -> Entry | None:
        entry = self.stored(found)
        return None if entry.value.get("deleted") else entry

    def stored(self, found: Mapping[str, Any]) -> Entry:
        """Also what is marked as deleted: for Calico that is gone, and whoever meets it deletes it altogether."""
        metadata: Mapping[str, Any] = found["metadata"]
        try:
            key, value = from_crd({**found, "kind": self.object_kind})
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unreadable(Key(self.kind.name, metadata["name"]), str(error), metadata["resourceVersion"]) from error
        return Entry(key, value, metadata["resourceVersion"])

    def written(self, key: Key, value: Value) -> Object:
        made = to_crd(key, value)
        if not self.is_v3:
            return calico_form.to_v1(key.kind, made, self.object_kind)
        if key.kind == "BlockAffinity":
            made["spec"]["deleted"] = bool(value.get("deleted"))
        return {**made, "apiVersion": API_VERSION, "kind": self.object_kind}


class NodePlace(Readable):
    def __init__(self, kind: Kind, settings: KubernetesSettings) -> None:
        super().__init__(kind, Collection("v1", "nodes"))
        self.use_pod_cidr = settings.use_pod_cidr

    def value(self, found: Mapping[str, Any]) -> Value | None:
        return nodes.from_node(found, use_pod_cidr=self.use_pod_cidr)


class PodPlace(Readable):
    def __init__(self, kind: Kind, settings: KubernetesSettings) -> None:
        super().__init__(kind, Collection("v1", "pods", namespaced=True))
        self.interface_prefix = settings.interface_prefix

    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        try:
            parts = parts_of_endpoint_name(key.name)
        except ValueError:
            return []
        return [(key.namespace, parts.pod)] if parts.orchestrator == "k8s" else []

    def value(self, found: Mapping[str, Any]) -> Value | None:
        if not pods.is_endpoint(found):
            return None
        return pods.from_pod(found, interface_prefix=self.interface_prefix)


class NamespaceProfiles(Readable):
    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        name = profiles.namespace_of(key.name)
        return [("", name)] if name else []

    def value(self, found: Mapping[str, Any]) -> Value | None:
        return profiles.from_namespace(found)


class ServiceAccountProfiles(Readable):
    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        namespace, name = profiles.service_account_of(key.name)
        return [(namespace, name)] if name else []

    def value(self, found: Mapping[str, Any]) -> Value | None:
        return profiles.from_service_account(found)


class ConvertedPolicies(Readable):
    """Kubernetes' network policies among Calico's: `knp.default.NAME`."""

    def addresses(self, key: Key) -> Sequence[tuple[str, str]]:
        name = key.name.removeprefix(network_policies.PREFIX)
        return [(key.namespace, name)] if name and name != key.name else []

    def value(self, found: Mapping[str, Any]) -> Value | None:
        return network_policies.from_network_policy(found)


def places_of(kind_name: str, group_version: str, settings: KubernetesSettings) -> Sequence[Place]:
    """Where resources of the kind are, what is written first. Raises Unsupported for what Kubernetes has no place for."""
    kind = KINDS[kind_name]
    networking = Collection("networking.k8s.io/v1", "networkpolicies", namespaced=True)
    match kind_name:
        case "Node":
            return [NodePlace(kind, settings)]
        case "WorkloadEndpoint":
            return [PodPlace(kind, settings)]
        case "Profile":
            return [
                NamespaceProfiles(kind, Collection("v1", "namespaces")),
                ServiceAccountProfiles(kind, Collection("v1", "serviceaccounts", namespaced=True)),
            ]
        case "NetworkPolicy":
            return [calico_place(kind, group_version), ConvertedPolicies(kind, networking)]
        case "KubernetesNetworkPolicy":
            return [AsIs(kind, networking)]
        case "KubernetesClusterNetworkPolicy":
            return [AsIs(kind, Collection(kind.api_version, "clusternetworkpolicies"))]
    if kind.crd is not None:
        return [calico_place(kind, group_version)]
    if kind.group not in ("calico", "ipam"):
        return [AsIs(kind, Collection(kind.api_version, kind.plural, kind.namespaced))]
    raise Unsupported(f"Kubernetes keeps no {kind_name}")


def calico_place(kind: Kind, group_version: str) -> Custom:
    assert kind.crd is not None
    is_v3 = group_version == API_VERSION
    plural = V3_PLURALS.get(kind.crd, kind.crd) if is_v3 else kind.crd
    object_kind = kind.json_kind
    if kind.crd == "ipamconfigs":
        # One definition for what people write and what the allocator reads.
        object_kind = "IPAMConfiguration" if is_v3 else "IPAMConfig"
    is_ipam = kind.name in OBJECTS
    # An affinity's holder is a namespace in our keys only.
    collection = Collection(group_version, plural, kind.namespaced and not is_ipam)
    return (IPAMObject if is_ipam else CalicoResource)(kind, collection, object_kind)


GROUPS = (CRD_VERSION, API_VERSION)
