"""Calico's resources as custom resources: crd.projectcalico.org/v1 and projectcalico.org/v3.

In the older group the API server's metadata are not the resource's: those lie as JSON in an annotation, so that
Calico's own API can show labels, owners and names that Kubernetes knows nothing of (libcalico-go,
lib/backend/k8s/resources/resources.go).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from integration.datastore.stored_form import NAMED_BY_ANNOTATION
from integration.resources.base import API_VERSION
from integration.resources.models.ipam_crds import CRD_VERSION
from integration.resources.names import v3_uid

Object = dict[str, Any]
ANNOTATION = "projectcalico.org/metadata"
# Go writes a structure's fields in the order of their declaration.
ORDER = (
    "name", "generateName", "uid", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
)  # fmt: skip
# What says how the API server stores an object, and nothing about the object.
SERVERS_OWN = ("managedFields", "selfLink")


def is_ours(name: str) -> bool:
    """Labels and annotations that stand in the object's own metadata too, where selectors find them."""
    return "projectcalico.org/" in name or "operator.tigera.io/" in name


def to_v1(kind: str, value: Mapping[str, Any], object_kind: str) -> Object:
    """The custom resource of crd.projectcalico.org/v1 for a resource with metadata."""
    metadata: Mapping[str, Any] = value.get("metadata") or {}
    kept = {name: metadata[name] for name in ORDER if metadata.get(name) and name != "uid"}
    if kind not in NAMED_BY_ANNOTATION:
        kept.pop("name", None)
    kept.setdefault("creationTimestamp", None)
    if "ownerReferences" in kept:
        kept["ownerReferences"] = [owner_as(CRD_VERSION, owner, (API_VERSION,)) for owner in kept["ownerReferences"]]
    annotation = json.dumps({name: sorted_map(kept[name]) for name in ORDER if name in kept}, separators=(",", ":"))
    annotations = {name: text for name, text in (metadata.get("annotations") or {}).items() if is_ours(name)}
    labels = {name: text for name, text in (metadata.get("labels") or {}).items() if is_ours(name)}
    stored = {name: metadata[name] for name in ("name", "namespace", "resourceVersion") if metadata.get(name)}
    stored["annotations"] = {**annotations, ANNOTATION: annotation}
    if labels:
        stored["labels"] = labels
    if metadata.get("uid"):
        stored["uid"] = v3_uid(metadata["uid"])
    return {**value, "apiVersion": CRD_VERSION, "kind": object_kind, "metadata": stored}


def from_v1(kind: str, found: Mapping[str, Any]) -> Object:
    """The resource that such a custom resource stands for. Raises ValueError if the annotation is no JSON object."""
    outer = without(found["metadata"], SERVERS_OWN)
    if outer.get("uid"):
        outer["uid"] = v3_uid(outer["uid"])
    annotations = dict(outer.get("annotations") or {})
    text = annotations.pop(ANNOTATION, None)
    if text is None:
        return {**found, "apiVersion": API_VERSION, "kind": kind, "metadata": outer}
    inner = json.loads(text)
    if not isinstance(inner, dict):
        raise ValueError(f"the annotation {ANNOTATION} holds no JSON object")
    metadata = {name: part for name, part in inner.items() if part}
    metadata["name"] = metadata.get("name") or outer["name"]
    for name in ("namespace", "resourceVersion", "uid"):
        metadata.pop(name, None)
        if outer.get(name):
            metadata[name] = outer[name]
    # Former versions kept labels and annotations in the object's own metadata.
    for name, others in (("labels", outer.get("labels")), ("annotations", annotations)):
        if both := {**(others or {}), **(inner.get(name) or {})}:
            metadata[name] = both
    metadata.setdefault("creationTimestamp", outer.get("creationTimestamp"))
    if "ownerReferences" in metadata:
        versions = (CRD_VERSION, API_VERSION)
        metadata["ownerReferences"] = [owner_as(API_VERSION, owner, versions) for owner in metadata["ownerReferences"]]
    return {**found, "apiVersion": API_VERSION, "kind": kind, "metadata": metadata}


def to_v3(value: Mapping[str, Any], object_kind: str) -> Object:
    metadata = without(value.get("metadata") or {}, ("generation", "creationTimestamp", *SERVERS_OWN))
    return {**value, "apiVersion": API_VERSION, "kind": object_kind, "metadata": metadata}


def from_v3(kind: str, found: Mapping[str, Any]) -> Object:
    return {**found, "apiVersion": API_VERSION, "kind": kind, "metadata": without(found["metadata"], SERVERS_OWN)}


def owner_as(api_version: str, owner: Mapping[str, Any], versions: tuple[str, ...]) -> Object:
    """An owner of one of `versions`, as the other group names it; other owners unchanged."""
    if owner.get("apiVersion") not in versions:
        return dict(owner)
    return {**owner, "apiVersion": api_version, "uid": v3_uid(owner.get("uid", ""))}


def sorted_map(value: Any) -> Any:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def without(value: Mapping[str, Any], names: tuple[str, ...]) -> Object:
    return {name: part for name, part in value.items() if name not in names}
