"""Namespaces and service accounts as profiles, whose labels the endpoints in them inherit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.resources.base import API_VERSION
from integration.resources.names import v3_uid

Object = dict[str, Any]
OF_NAMESPACE, OF_SERVICE_ACCOUNT = "kns.", "ksa."
NAME_LABEL = "projectcalico.org/name"


def from_namespace(found: Mapping[str, Any]) -> Object:
    """Allows everything: that is what a pod may do that no policy speaks of."""
    outer: Mapping[str, Any] = found["metadata"]
    rules = {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}
    return profile(f"{OF_NAMESPACE}{outer['name']}", "pcns.", outer, rules)


def from_service_account(found: Mapping[str, Any]) -> Object:
    """Labels alone."""
    outer: Mapping[str, Any] = found["metadata"]
    return profile(f"{OF_SERVICE_ACCOUNT}{outer['namespace']}.{outer['name']}", "pcsa.", outer, {})


def profile(name: str, prefix: str, outer: Mapping[str, Any], rules: Object) -> Object:
    metadata = {"name": name, "resourceVersion": outer["resourceVersion"], "uid": v3_uid(outer.get("uid") or "")}
    if outer.get("creationTimestamp"):
        metadata["creationTimestamp"] = outer["creationTimestamp"]
    labels = {prefix + label: text for label, text in (outer.get("labels") or {}).items()}
    spec = {**rules, "labelsToApply": labels | {prefix + NAME_LABEL: outer["name"]}}
    return {"kind": "Profile", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec}


def namespace_of(name: str) -> str:
    """The namespace that a profile's name speaks of; empty if it speaks of none."""
    return name.removeprefix(OF_NAMESPACE) if name.startswith(OF_NAMESPACE) else ""


def service_account_of(name: str) -> tuple[str, str]:
    """(namespace, name), both empty if it speaks of no service account."""
    if not name.startswith(OF_SERVICE_ACCOUNT):
        return "", ""
    namespace, _, account = name.removeprefix(OF_SERVICE_ACCOUNT).partition(".")
    return (namespace, account) if account else ("", "")
