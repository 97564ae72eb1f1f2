"""Tokens → Selector, by recursive descent.

selector := "" | or          ("" is all())
or  := and ("||" and)*
and := op ("&&" op)*
op  := "!"* ( has(LABEL) | all() | global() | "(" or ")" | LABEL comparison )
comparison := ("==" | "!=" | "contains" | "starts with" | "ends with") TEXT
            | ("in" | "not in") "{" [TEXT ("," TEXT)* [","]] "}"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

from integration.resources.names import unique_id
from integration.resources.selector.nodes import All, And, Compare, Has, InSet, Node, Not, Or, Restriction
from integration.resources.selector.tokens import SelectorError, Token, tokenize

# Calico sets no bound; this one keeps a hostile selector from exhausting the stack.
MAX_DEPTH = 100


class Selector:
    """A question to labels. Two selectors are equal if their canonical texts are."""

    def __init__(self, root: Node) -> None:
        self.root = root

    def matches(self, labels: Mapping[str, str]) -> bool:
        """A label that is not there makes `!=` and `not in` true and every other comparison false."""
        return self.root.matches(labels)

    @cached_property
    def canonical(self) -> str:
        """The text by which Calico compares and names selectors; it parses to one that matches the same."""
        return str(self.root)

    @cached_property
    def uid(self) -> str:
        """`s:` and 38 characters, made of the canonical text; names of IP sets derive from it."""
        return unique_id("s", self.canonical)

    def restrictions(self) -> dict[str, Restriction]:
        """Per label what it must be like for a match to be possible; labels without a demand are left out."""
        return self.root.restrictions()

    def prefixed(self, prefix: str) -> Selector:
        """The same of labels with `prefix` before their names: a namespace's labels reach its workloads as `pcns.…`."""
        return Selector(self.root.prefixed(prefix))

    @property
    def is_global(self) -> bool:
        """Just `global()`."""
        return self.root == All("global")

    @property
    def mentions_global(self) -> bool:
        return "global" in self.functions(self.root)

    def functions(self, node: Node) -> set[str]:
        match node:
            case All(name):
                return {name}
            case Not(operand):
                return self.functions(operand)
            case And(operands) | Or(operands):
                return set().union(*map(self.functions, operands))
        return set()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __repr__(self) -> str:
        return f"Selector({self.canonical})"


@lru_cache(maxsize=8192)
def parse(text: str) -> Selector:
    """Read a selector; the empty one is `all()`. Raises SelectorError, which says where."""
    return Parser(tokenize(text)).selector()


class Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def take(self, kind: str, missing: str) -> Token:
        token = self.token
        if token.kind != kind:
            raise SelectorError(f"{missing} is missing", token.at)
        self.position += 1
        return token

    def taken(self, kind: str) -> bool:
        found = self.token.kind == kind
        self.position += found
        return found

    def selector(self) -> Selector:
        root = All() if self.token.kind == "end" else self.any_of()
        if self.token.kind != "end":
            raise SelectorError("the selector should end here", self.token.at)
        return Selector(root)

    def any_of(self) -> Node:
        operands = [self.all_of()]
        while self.taken("||"):
            operands.append(self.all_of())
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def all_of(self) -> Node:
        operands = [self.operation()]
        while self.taken("&&"):
            operands.append(self.operation())
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def operation(self) -> Node:
        negated = False
        while self.taken("!"):
            negated = not negated
        node = self.plain_operation()
        return Not(node) if negated else node

    def plain_operation(self) -> Node:
        token = self.token
        self.position += token.kind != "end"
        match token.kind:
            case "has":
                return Has(token.value)
            case "all" | "global":
                return All(token.kind)
            case "label":
                return self.comparison(token.value)
            case "(":
                self.depth += 1
                if self.depth > MAX_DEPTH:
                    raise SelectorError(f"more than {MAX_DEPTH} parentheses are open", token.at)
                node = self.any_of()
                self.take(")", "a closing )")
                self.depth -= 1
                return node
        raise SelectorError("a label, has(), all(), global(), ! or ( is missing", token.at)

    def comparison(self, label: str) -> Node:
        operator = self.token
        match operator.kind:
            case "==" | "!=" | "contains" | "starts with" | "ends with":
                self.position += 1
                return Compare(label, operator.kind, self.take("text", "a quoted text").value)
            case "in" | "not in":
                self.position += 1
                return InSet(label, operator.kind, self.texts())
        raise SelectorError("an operator is missing after the label", operator.at)

    def texts(self) -> frozenset[str]:
        self.take("{", "a { with texts")
        found = set()
        while self.token.kind == "text":
            found.add(self.take("text", "").value)
            if not self.taken(","):
                break
        self.take("}", "a closing }")
        return frozenset(found)
