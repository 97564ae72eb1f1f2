"""Enough of an API server to say whether it would take a schema, and an object under it.

The rules of structural schemas are those of apiextensions.k8s.io/v1 (Kubernetes' reference, "Specifying a structural
schema").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

WORDS = {
    "type", "format", "properties", "additionalProperties", "items", "required", "enum", "pattern", "default", "nullable",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "anyOf", "x-kubernetes-list-type",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "object": (dict,)
}  # fmt: skip
INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def unstructural(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Why the API server would refuse the schema."""
    yield from (f"{path}: the word {word}" for word in schema.keys() - WORDS)
    if schema.get("x-kubernetes-int-or-string"):
        if "type" in schema or schema.get("anyOf") != INT_OR_STRING:
            yield f"{path}: int-or-string is written otherwise"
    elif schema.get("type") not in TYPES or "anyOf" in schema:
        yield f"{path}: no type"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}: properties and additionalProperties"
    if ("properties" in schema or "additionalProperties" in schema) and schema["type"] != "object":
        yield f"{path}: fields of what is no object"
    if (schema.get("type") == "array") != ("items" in schema):
        yield f"{path}: items"
    if schema.get("x-kubernetes-list-type", "atomic") == "set" and schema["items"].get("type") in ("object", "array"):
        yield f"{path}: a set of what is no scalar"
    if set(schema.get("required", [])) - schema.get("properties", {}).keys():
        yield f"{path}: requires a field it does not have"
    if "pattern" in schema:
        compiled(schema["pattern"])
    if "default" in schema:
        yield from refusals(schema["default"], schema, f"{path}.default")
    for name, inner in schema.get("properties", {}).items():
        yield from unstructural(inner, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from unstructural(schema[word], f"{path}.{word}")


def compiled(pattern: str) -> re.Pattern[str]:
    # Go takes a flag after ^, Python only before it.
    return re.compile(re.sub(r"^\^\(\?i\)", "(?i)^", pattern))


def refusals(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Why the API server would refuse the value."""
    if value is None and schema.get("nullable"):
        return
    types = (int, str) if schema.get("x-kubernetes-int-or-string") else TYPES[schema["type"]]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        yield f"{path}: {value!r} is no {types}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not in {schema['enum']}"
    if isinstance(value, int | float):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: {value} is out of range"
    elif isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{path}: length"
        if "pattern" in schema and not compiled(schema["pattern"]).search(value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path}: number of items"
        for index, item in enumerate(value):
            yield from refusals(item, schema["items"], f"{path}[{index}]")
    elif isinstance(value, dict):
        yield from refusals_of_object(value, schema, path)


def refusals_of_object(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value)
    properties = schema.get("properties", {})
    for name, item in value.items():
        inner = properties.get(name) or schema.get("additionalProperties")
        if inner:
            yield from refusals(item, inner, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields") and path != ".metadata":
            yield f"{path}.{name} would be dropped"
