"""What a model's fields are made of, read off its annotations once: for validation, defaults and CRD schemas."""

from __future__ import annotations

import types
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from integration.resources.base import Model
from integration.resources.rules import Default, Required, Rule


@dataclass(frozen=True)
class Shape:
    """Of one value. `types` are its Python types; `items` is the shape of a list's items or an object's values."""

    types: tuple[type, ...] = ()
    rules: tuple[Rule, ...] = ()
    default: Any = None
    has_default: bool = False
    is_required: bool = False
    model: type[Model] | None = None
    items: Shape | None = field(default=None)
    is_nullable: bool = False


@dataclass(frozen=True)
class FieldShape:
    attribute: str
    name: str  # in JSON
    shape: Shape


@cache
def fields_of(model: type[Model]) -> tuple[FieldShape, ...]:
    """The fields in the order in which they are written."""
    return tuple(
        FieldShape(attribute, info.alias or attribute, with_metadata(shape_of(info.annotation), info.metadata))
        for attribute, info in model.model_fields.items()
    )


def shape_of(annotation: Any) -> Shape:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return with_metadata(shape_of(inner), metadata)
    if origin in (Union, types.UnionType):
        branches = [shape_of(branch) for branch in get_args(annotation) if branch is not type(None)]
        nullable = len(branches) < len(get_args(annotation))
        kinds = tuple(kind for branch in branches for kind in branch.types)
        return replace(branches[0], types=kinds, is_nullable=nullable)
    if origin is list:
        return Shape((list,), items=shape_of(get_args(annotation)[0]))
    if origin is dict:
        return Shape((dict,), items=shape_of(get_args(annotation)[1]))
    if annotation is Any:
        return Shape()
    return Shape((annotation,), model=annotation if issubclass(annotation, Model) else None)


def with_metadata(shape: Shape, metadata: list[Any]) -> Shape:
    for entry in metadata:
        if isinstance(entry, Required):
            shape = replace(shape, is_required=True)
        elif isinstance(entry, Rule):
            shape = replace(shape, rules=(*shape.rules, entry))
        elif isinstance(entry, Default):
            shape = replace(shape, default=entry.value, has_default=True)
    return shape
