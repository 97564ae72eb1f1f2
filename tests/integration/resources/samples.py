"""Random JSON, and random resources made of each model's own fields."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from integration.resources.base import Model
from integration.resources.rules import OneOf
from integration.resources.shapes import Shape, fields_of

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
scalars = st.one_of(
    texts, st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
# What a field of some kind may mean something by.
MEANINGFUL = (
    "", "0.0.0.0/0", "10.0.0.0/8", "10.0.0.1", "10.0.0.1/32", "fd00::/64", "::/0", "fd00::1", "10.0.0.1:179", "all()", "global()",
    "has(a) && global()", "TCP", "ICMPv6", "6", "80:90", "http", "1:2", "eth0", "*", "90s", "node1", "*/", "a/b", "/x",
)  # fmt: skip
# Names that no model has: unknown fields.
unknown_names = st.from_regex(r"x[A-Z][a-z]{1,5}", fullmatch=True)
json_values = st.recursive(
    st.one_of(scalars, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
# null on the level of a model means absent, and is not kept.
unknown_fields = st.dictionaries(unknown_names, json_values.filter(lambda value: value is not None), max_size=2)


def objects(model: type[Model], depth: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects that the model can read, with some of its fields and some that it does not know."""
    known = {
        each.name: values(each.shape, depth) for each in fields_of(model) if each.name not in ("kind", "apiVersion")
    }
    chosen = st.fixed_dictionaries({}, optional=known)
    return st.builds(lambda own, others: own | others, chosen, unknown_fields)


def values(shape: Shape, depth: int) -> st.SearchStrategy[Any]:
    if shape.model:
        return objects(shape.model, depth - 1) if depth else st.just({})
    if shape.types == (list,) and shape.items:
        return st.lists(values(shape.items, depth - 1), max_size=2) if depth else st.just([])
    if shape.types == (dict,) and shape.items and shape.items.types:
        return st.dictionaries(texts, values(shape.items, depth - 1), max_size=2)
    if shape.types in ((), (dict,)):
        return st.dictionaries(texts, json_values, max_size=2)
    choices = [st.sampled_from(rule.values) for rule in shape.rules if isinstance(rule, OneOf)]
    kinds = {
        str: st.one_of(texts, st.sampled_from(MEANINGFUL), *choices),
        int: st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 8)),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
    }
    return st.one_of([kinds[kind] for kind in shape.types])
