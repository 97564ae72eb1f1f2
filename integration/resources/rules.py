"""What a field may hold, said once where the field is declared; validation and the CRD schemas both read it.

Rules stand in `Annotated`. Reading a resource does not apply them: a stored resource that breaks one is still readable,
so that it can be shown, reported and isolated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """`problem(value)` is (reason, allowed) or None; `schema` the OpenAPI v3 words for it."""

    def problem(self, value: Any) -> tuple[str, str] | None:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Required(Rule):
    """May be neither absent nor empty."""

    def problem(self, value: Any) -> tuple[str, str] | None:
        return ("is required", "") if value is None or value in ("", []) else None


@dataclass(frozen=True)
class Default:
    """What the API server, and we in etcd mode, put in where nothing is said."""

    value: Any

    def schema(self) -> dict[str, Any]:
        return {"default": self.value}


@dataclass(frozen=True, init=False)
class OneOf(Rule):
    values: tuple[str, ...]
    ignore_case: bool = False

    def __init__(self, *values: str, ignore_case: bool = False) -> None:
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "ignore_case", ignore_case)

    def problem(self, value: Any) -> tuple[str, str] | None:
        known = {name.lower() for name in self.values} if self.ignore_case else set(self.values)
        given = value.lower() if self.ignore_case else value
        return None if given in known else ("is not one of the known values", ", ".join(filter(None, self.values)))

    def schema(self) -> dict[str, Any]:
        if self.ignore_case:
            names = "|".join(re.escape(name) for name in self.values if name)
            return {"pattern": f"^(?i)({names}){'?' if '' in self.values else ''}$"}
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class Range(Rule):
    low: int | None = None
    high: int | None = None

    def problem(self, value: Any) -> tuple[str, str] | None:
        low, high = self.low, self.high
        if (low is None or value >= low) and (high is None or value <= high):
            return None
        if high is None:
            return "is too small", f"{low} or more"
        return "is out of range", f"{low} to {high}" if low is not None else f"{high} or less"

    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.low, "maximum": self.high}
        return {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Length(Rule):
    """Of a text, in characters."""

    high: int
    low: int = 0

    def problem(self, value: Any) -> tuple[str, str] | None:
        if len(value) > self.high:
            return f"has {len(value)} characters", f"at most {self.high}"
        return (f"has {len(value)} characters", f"at least {self.low}") if len(value) < self.low else None

    def schema(self) -> dict[str, Any]:
        return {"maxLength": self.high} | ({"minLength": self.low} if self.low else {})


@dataclass(frozen=True)
class Items(Rule):
    """How many a list may have, and whether one may occur twice."""

    high: int | None = None
    low: int = 0
    unique: bool = False

    def problem(self, value: Any) -> tuple[str, str] | None:
        if self.high is not None and len(value) > self.high:
            return f"has {len(value)} items", f"at most {self.high}"
        if len(value) < self.low:
            return f"has {len(value)} items", f"at least {self.low}"
        if self.unique and (twice := [item for index, item in enumerate(value) if item in value[:index]]):
            return f"names {twice[0]!r} twice", "each item once"
        return None

    def schema(self) -> dict[str, Any]:
        counts = {"maxItems": self.high, "minItems": self.low or None}
        shape: dict[str, Any] = {name: count for name, count in counts.items() if count is not None}
        return shape | ({"x-kubernetes-list-type": "set"} if self.unique else {})


@dataclass(frozen=True)
class Pattern(Rule):
    """The whole text matches `regex`; `allowed` says so in words."""

    regex: str
    allowed: str
    reason: str = "is malformed"
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", re.compile(self.regex))

    def problem(self, value: Any) -> tuple[str, str] | None:
        return None if self.compiled.fullmatch(value) else (self.reason, self.allowed)

    def schema(self) -> dict[str, Any]:
        return {"pattern": f"^(?:{self.regex})$"}


@dataclass(frozen=True)
class Checked(Rule):
    """A text (or number) that `check` can read; it raises ValueError with the reason if not.

    `words` are what OpenAPI can say of it, if anything.
    """

    check: Callable[[Any], object]
    allowed: str
    words: tuple[tuple[str, Any], ...] = ()

    def problem(self, value: Any) -> tuple[str, str] | None:
        try:
            self.check(value)
        except ValueError as error:
            return str(error) or "is malformed", self.allowed
        return None

    def schema(self) -> dict[str, Any]:
        return dict(self.words)
