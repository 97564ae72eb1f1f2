"""What the API server does with a custom resource before it stores it: names, unknown fields, defaults, validation."""

from __future__ import annotations

import copy
import re
from typing import Any

from tests.integration.datastore.api_store import ApiFailure, Object
from tests.integration.resources.openapi import refusals

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# These are the API server's own business, whatever the schema says of them.
OWN = ("apiVersion", "kind", "metadata")


def check_name(qualified: str, name: str) -> None:
    if len(name) > 253 or not SUBDOMAIN.fullmatch(name):
        raise invalid(
            qualified, name, [("metadata.name", f'Invalid value: "{name}": a lowercase RFC 1123 subdomain …')]
        )


def admitted(value: Object, schema: Object, qualified: str) -> Object:
    """The object as it is stored. Raises 422 Invalid with a cause for each field that is wrong."""
    specified = {name: part for name, part in value.items() if name not in OWN}
    specified = completed(specified, schema)
    causes = []
    for problem in refusals(specified, {**schema, "required": []}):
        field, _, why = problem.lstrip(".").partition(": ")
        causes.append((field, why or problem))
    if causes:
        raise invalid(qualified, value["metadata"]["name"], causes)
    return {**{name: value[name] for name in OWN if name in value}, **specified}


def completed(value: Any, schema: Object) -> Any:
    """Without fields that the schema does not know, unless it keeps them, and with defaults where nothing is."""
    if isinstance(value, list):
        return [completed(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    found: Object = {}
    for name, item in value.items():
        inner = properties.get(name) or others
        if item is None and inner and not inner.get("nullable"):
            continue
        if inner:
            found[name] = completed(item, inner)
        elif keeps:
            found[name] = item
    for name, inner in properties.items():
        if name not in found and "default" in inner:
            found[name] = copy.deepcopy(inner["default"])
    return found


def invalid(qualified: str, name: str, causes: list[tuple[str, str]]) -> ApiFailure:
    listed = [{"reason": "FieldValueInvalid", "message": why, "field": field} for field, why in causes]
    message = f'{qualified} "{name}" is invalid: ' + ", ".join(f"{field}: {why}" for field, why in causes)
    return ApiFailure(422, "Invalid", message, {"name": name, "causes": listed})
