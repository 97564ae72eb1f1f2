"""The CustomResourceDefinitions of crd.projectcalico.org/v1, made from the models.

`python -m integration.resources.crds > integration/resources/crds/manifests.yaml` writes the file that is shipped.
Rules between fields are not in the schemas (they would need CEL, which servers before 1.25 do not have): whoever writes
through catbird has them checked, whoever reads meets what he cannot use and reports it, as with Calico's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from integration.resources.base import Model
from integration.resources.kinds import ALL
from integration.resources.models.ipam_crds import OBJECTS
from integration.resources.shapes import Shape, fields_of
from integration.resources.yaml_text import dump_all

GROUP = "crd.projectcalico.org"
MANIFESTS = Path(__file__).with_name("manifests.yaml")
SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}


def definitions() -> list[dict[str, Any]]:
    """One definition a CRD, ordered by name."""
    found: dict[str, tuple[str, bool, type[Model]]] = {}
    for kind in ALL:
        if kind.crd and (kind.group == "calico" or kind.name in OBJECTS):
            is_ipam = kind.name in OBJECTS
            # An affinity's holder is a namespace in our keys only.
            known = (kind.json_kind, kind.namespaced and not is_ipam, OBJECTS.get(kind.name, kind.model))
            if is_ipam or kind.crd not in found:
                found[kind.crd] = known
    return [definition(plural, *found[plural]) for plural in sorted(found)]


def definition(plural: str, kind: str, namespaced: bool, model: type[Model]) -> dict[str, Any]:
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if namespaced else "Cluster",
            # Without the status subresource: Calico's programs write spec and status in one go.
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root_schema(model)}}
            ],
        },
    }


def root_schema(model: type[Model]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    for field in fields_of(model):
        if field.name not in properties:
            # What a program reports is not for the API server to judge.
            properties[field.name] = schema_of(field.shape, with_rules=field.name != "status")
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": properties}


def schema_of(shape: Shape, *, with_rules: bool, is_item: bool = False) -> dict[str, Any]:
    schema = type_of(shape, with_rules=with_rules)
    if with_rules:
        for rule in shape.rules:
            schema |= rule.schema()
        if shape.has_default:
            schema["default"] = shape.default
        if not shape.is_required and not is_item:
            allow_empty(schema)
    return schema


def allow_empty(schema: dict[str, Any]) -> None:
    """A field that may be absent may be empty: to validation, and to whoever writes Go structs, that is the same."""
    if "" not in schema.get("enum", [""]):
        schema["enum"] = ["", *schema["enum"]]
    if schema.get("pattern", "").endswith(")$"):
        schema["pattern"] = schema["pattern"].removesuffix("$") + "?$"


def type_of(shape: Shape, *, with_rules: bool) -> dict[str, Any]:
    if shape.model:
        return object_schema(shape.model, with_rules=with_rules)
    if shape.types == (list,) and shape.items:
        items = schema_of(shape.items, with_rules=with_rules, is_item=True)
        return {"type": "array", "items": items | ({"nullable": True} if shape.items.is_nullable else {})}
    if shape.types == (dict,) and shape.items and shape.items.types:
        return {"type": "object", "additionalProperties": schema_of(shape.items, with_rules=with_rules, is_item=True)}
    if set(shape.types) == {int, str}:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    if set(shape.types) == {int, float}:
        return {"type": "number"}
    if shape.types and shape.types[0] in SCALARS:
        wide = {"format": "int64"} if shape.types[0] is int else {}
        return {"type": SCALARS[shape.types[0]], **wide}
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def object_schema(model: type[Model], *, with_rules: bool) -> dict[str, Any]:
    """Unknown fields are kept, so that resources of another version survive."""
    fields = fields_of(model)
    properties = {field.name: schema_of(field.shape, with_rules=with_rules) for field in fields}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": properties}
    required = [field.name for field in fields if field.shape.is_required]
    return schema | ({"required": required} if required and with_rules else {})


def manifests() -> str:
    """All definitions as YAML, a document each."""
    return dump_all(definitions())
