"""Reading resources as they come, as JSON objects, field by field, with errors that say which field is wrong.

Models, read and validated, take nine times as long, for ten thousands of objects that a node mostly does not need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isnan
from sys import intern
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]
NOTHING: Json = {}


class Invalid(ValueError):
    """A resource that cannot be used. `field` is a JSON path, `value` what stands there."""

    def __init__(self, field: str, value: object, reason: str, allowed: str = "") -> None:
        shown = "" if value is None else f" = {shortened(value)}"
        super().__init__(f"{field}{shown}: {reason}" + (f"; allowed: {allowed}" if allowed else ""))


def shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


# What a hostile resource may make a reader raise; all of it is that resource's fault and nobody else's.
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)
# Names become those of chains, files and interfaces; Kubernetes guarantees as much, other stores only promise it.
NAME = re.compile(r"[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,251}[a-zA-Z0-9])?")
NAME_WORDS = "letters, digits, and within it '-', '_' and '.', at most 253"


def checked_text(value: object, field: str) -> str:
    """A text that can be encoded: half a surrogate pair is legal in JSON, and breaks whoever writes it somewhere."""
    if not isinstance(value, str):
        raise Invalid(field, value, "is not a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(field, value, "is not Unicode") from None
    return value


def checked_name(value: str, field: str) -> str:
    if not NAME.fullmatch(value):
        raise Invalid(field, value, "is not a name", NAME_WORDS)
    return value


def part(parent: Json, name: str, path: str) -> Json:
    """An object; empty if absent."""
    value = parent.get(name)
    if value is None:
        return NOTHING
    if not isinstance(value, Mapping):
        raise Invalid(f"{path}{name}", value, "is not an object")
    return value


def text(parent: Json, name: str, path: str) -> str:
    """Empty if absent."""
    value = parent.get(name)
    if value is None:
        return ""
    return checked_text(value, f"{path}{name}")


def required(parent: Json, name: str, path: str) -> str:
    found = text(parent, name, path)
    if not found:
        raise Invalid(f"{path}{name}", None, "is required")
    return found


def flag(parent: Json, name: str, path: str) -> bool:
    value = parent.get(name)
    if value is not None and not isinstance(value, bool):
        raise Invalid(f"{path}{name}", value, "is neither true nor false")
    return bool(value)


def whole(parent: Json, name: str, path: str, low: int, high: int) -> int | None:
    value = parent.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Invalid(f"{path}{name}", value, "is not a whole number in range", f"{low} to {high}")
    return value


def order(parent: Json, name: str, path: str) -> float:
    """Absent: last."""
    value = parent.get(name)
    if value is None:
        return float("inf")
    if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value):
        raise Invalid(f"{path}{name}", value, "is not a number")
    return float(value)


def entries(parent: Json, name: str, path: str) -> list[Any]:
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise Invalid(f"{path}{name}", value, "is not a list")
    return list(value)


def parts(parent: Json, name: str, path: str) -> Iterator[tuple[Json, str]]:
    """The objects of a list, each with the path that its fields have."""
    for index, value in enumerate(entries(parent, name, path)):
        if not isinstance(value, Mapping):
            raise Invalid(f"{path}{name}[{index}]", value, "is not an object")
        yield value, f"{path}{name}[{index}]."


def texts(parent: Json, name: str, path: str) -> list[str]:
    return [checked_text(value, f"{path}{name}[{index}]") for index, value in enumerate(entries(parent, name, path))]


def names(parent: Json, name: str, path: str) -> list[str]:
    """Names of resources."""
    return [checked_name(each, f"{path}{name}[{at}]") for at, each in enumerate(texts(parent, name, path))]


def one_of(parent: Json, name: str, path: str, allowed: Mapping[str, str]) -> str:
    """What `allowed` says of the text."""
    found = text(parent, name, path)
    if found not in allowed:
        raise Invalid(f"{path}{name}", found, "is not one of the known values", ", ".join(filter(None, allowed)))
    return allowed[found]


def labels(parent: Json, name: str, path: str) -> dict[str, str]:
    """Names and values; interned, for the same few stand in thousands of resources."""
    found = part(parent, name, path)
    return {
        intern(checked_text(label, f"{path}{name}")): intern(checked_text(value, f"{path}{name}[{label!r}]"))
        for label, value in found.items()
    }
