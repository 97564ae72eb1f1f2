"""Kubernetes' NetworkPolicies among Calico's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.resources.base import API_VERSION
from integration.resources.names import v3_uid
from integration.resources.network_policies import spec_of_network_policy

Object = dict[str, Any]
PREFIX = "knp.default."


def from_network_policy(found: Mapping[str, Any]) -> Object:
    """The NetworkPolicy `knp.default.NAME`. Rules that make no sense are left out, and allow nothing."""
    outer: Mapping[str, Any] = found["metadata"]
    metadata = {"name": PREFIX + outer["name"], "uid": v3_uid(outer.get("uid") or "")}
    metadata |= {name: outer[name] for name in ("namespace", "resourceVersion", "creationTimestamp") if outer.get(name)}
    spec = spec_of_network_policy(found.get("spec") or {})
    return {"kind": "NetworkPolicy", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec}
