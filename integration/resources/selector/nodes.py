"""What a selector is made of: matching, canonical text, and what it demands of labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Restriction:
    """What a label must be like for a selector to match at all; an index asks this before it asks the selector.

    `values`: the label must have one of these; None: any value. An empty set can never match.
    """

    present: bool = False
    absent: bool = False
    values: frozenset[str] | None = None

    def and_also(self, other: Restriction) -> Restriction:
        if self.values is None or other.values is None:
            values = other.values if self.values is None else self.values
        else:
            values = self.values & other.values
        return Restriction(self.present or other.present, self.absent or other.absent, values)

    def or_else(self, other: Restriction) -> Restriction | None:
        """What holds in both cases; None if that is nothing."""
        present, absent = self.present and other.present, self.absent and other.absent
        values = None
        if present and self.values is not None and other.values is not None:
            values = self.values | other.values
        return Restriction(present, absent, values) if present or absent else None


def quoted(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'


class Node(ABC):
    """Immutable. `str(node)` is its canonical text."""

    @abstractmethod
    def matches(self, labels: Mapping[str, str]) -> bool: ...

    def restrictions(self) -> dict[str, Restriction]:
        return {}

    def prefixed(self, prefix: str) -> Self:
        """The same question about labels with `prefix` before their names."""
        return self


@dataclass(frozen=True, slots=True)
class All(Node):
    name: str = "all"  # or `global`, which only has a meaning where it is replaced before anything is matched

    def __str__(self) -> str:
        return f"{self.name}()"

    def matches(self, labels: Mapping[str, str]) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Has(Node):
    label: str

    def __str__(self) -> str:
        return f"has({self.label})"

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.label in labels

    def restrictions(self) -> dict[str, Restriction]:
        return {self.label: Restriction(present=True)}

    def prefixed(self, prefix: str) -> Self:
        return replace(self, label=prefix + self.label)


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """One label against one text. A label that is missing is unequal to every text, and nothing else."""

    label: str
    operator: str
    text: str

    def __str__(self) -> str:
        return f"{self.label} {self.operator} {quoted(self.text)}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.label)
        match self.operator:
            case "==":
                return value == self.text
            case "!=":
                return value != self.text
            case "contains":
                return value is not None and self.text in value
            case "starts with":
                return value is not None and value.startswith(self.text)
            case _:
                return value is not None and value.endswith(self.text)

    def restrictions(self) -> dict[str, Restriction]:
        if self.operator == "!=":
            return {}
        values = frozenset({self.text}) if self.operator == "==" else None
        return {self.label: Restriction(present=True, values=values)}

    def prefixed(self, prefix: str) -> Self:
        return replace(self, label=prefix + self.label)


@dataclass(frozen=True, slots=True)
class InSet(Node):
    label: str
    operator: str  # `in`, `not in`
    texts: frozenset[str]

    def __str__(self) -> str:
        # Sorted by octets, as Go sorts.
        ordered = sorted(self.texts, key=lambda text: text.encode("utf-8", "surrogatepass"))
        return f"{self.label} {self.operator} {{{', '.join(map(quoted, ordered))}}}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        return (labels.get(self.label) in self.texts) == (self.operator == "in")

    def restrictions(self) -> dict[str, Restriction]:
        return {self.label: Restriction(present=True, values=self.texts)} if self.operator == "in" else {}

    def prefixed(self, prefix: str) -> Self:
        return replace(self, label=prefix + self.label)


@dataclass(frozen=True, slots=True)
class Not(Node):
    operand: Node

    def __str__(self) -> str:
        return f"!{self.operand}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        return not self.operand.matches(labels)

    def restrictions(self) -> dict[str, Restriction]:
        # `a == "b"` needs the label a, but its opposite does not need its absence.
        return {self.operand.label: Restriction(absent=True)} if isinstance(self.operand, Has) else {}

    def prefixed(self, prefix: str) -> Self:
        return replace(self, operand=self.operand.prefixed(prefix))


@dataclass(frozen=True, slots=True)
class And(Node):
    operands: tuple[Node, ...]

    def __str__(self) -> str:
        return f"({' && '.join(map(str, self.operands))})"

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(operand.matches(labels) for operand in self.operands)

    def restrictions(self) -> dict[str, Restriction]:
        found: dict[str, Restriction] = {}
        for operand in self.operands:
            for label, restriction in operand.restrictions().items():
                found[label] = found[label].and_also(restriction) if label in found else restriction
        return found

    def prefixed(self, prefix: str) -> Self:
        return replace(self, operands=tuple(operand.prefixed(prefix) for operand in self.operands))


@dataclass(frozen=True, slots=True)
class Or(Node):
    operands: tuple[Node, ...]

    def __str__(self) -> str:
        return f"({' || '.join(map(str, self.operands))})"

    def matches(self, labels: Mapping[str, str]) -> bool:
        return any(operand.matches(labels) for operand in self.operands)

    def restrictions(self) -> dict[str, Restriction]:
        first, *others = (operand.restrictions() for operand in self.operands)
        for other in others:
            both = {label: first[label].or_else(other[label]) for label in first.keys() & other.keys()}
            first = {label: restriction for label, restriction in both.items() if restriction}
        return first

    def prefixed(self, prefix: str) -> Self:
        return replace(self, operands=tuple(operand.prefixed(prefix) for operand in self.operands))
