"""Is a resource what Calico allows, and what does it mean where it says nothing?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from integration.resources.base import Model, Problem, Resource
from integration.resources.shapes import Shape, fields_of
from integration.resources.validation import CHECKS, DEFAULTS
from integration.resources.validation.metadata import check_metadata

AnyResource = TypeVar("AnyResource", bound=Resource)

__all__ = ["Problem", "defaulted", "validate"]


def validate(resource: Resource) -> list[Problem]:
    """All that is wrong with a resource; [] if nothing is. Defaults need not be filled in.

    Rules that need other resources (pools that overlap, filters that do not exist) are not ours to see.
    """
    return [*check_metadata(resource), *problems_in(resource, "")]


def problems_in(model: Model, path: str) -> Iterator[Problem]:
    """Rules of the fields, and where all of them hold the rules between them."""
    found: list[Problem] = []
    for field in fields_of(type(model)):
        if field.attribute == "metadata" and isinstance(model, Resource):
            continue  # check_metadata
        place = f"{path}.{field.name}" if path else field.name
        found += problems_of_value(getattr(model, field.attribute), field.shape, place)
    yield from found
    if not found:
        for kind in type(model).__mro__:
            yield from (CHECKS[kind](model, path) if kind in CHECKS else ())


def problems_of_value(value: Any, shape: Shape, place: str, *, is_item: bool = False) -> Iterator[Problem]:
    """An empty field is as good as none; an empty item of a list is an item like any other."""
    if value is None or value in ("", [], {}):
        if shape.is_required:
            yield Problem(place, None, "is required")
        if shape.is_required or not is_item:
            return
    for rule in shape.rules:
        if found := rule.problem(value):
            yield Problem(place, value, *found)
            return
    if isinstance(value, Model):
        yield from problems_in(value, place)
    elif isinstance(value, list) and shape.items:
        for index, item in enumerate(value):
            yield from problems_of_value(item, shape.items, f"{place}[{index}]", is_item=True)
    elif isinstance(value, dict) and shape.items and shape.items.types:
        for name, item in value.items():
            yield from problems_of_value(item, shape.items, f"{place}[{name!r}]", is_item=True)


def defaulted(resource: AnyResource) -> AnyResource:
    """A copy with Calico's defaults written where nothing, or an empty text, is said."""
    filled = resource.model_copy(deep=True)
    fill_in(filled)
    return filled


def fill_in(model: Model) -> None:
    for kind in type(model).__mro__:
        if kind in DEFAULTS:
            DEFAULTS[kind](model)
    for field in fields_of(type(model)):
        if field.attribute == "status" and isinstance(model, Resource):
            continue  # says what is, not what is wished
        value = getattr(model, field.attribute)
        if field.shape.has_default and (value in (None, "") or field.attribute not in model.model_fields_set):
            setattr(model, field.attribute, copy.copy(field.shape.default))
        elif isinstance(value, Model):
            fill_in(value)
            if value.model_fields_set and field.attribute not in model.model_fields_set:
                setattr(model, field.attribute, value)  # it says something now, so it is to be written
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Model):
                    fill_in(item)
