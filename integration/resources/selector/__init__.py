"""Calico's label selectors: `role == "db" && tier in {"a", "b"} && !has(old)`.

`parse(text)` gives a Selector: `.matches(labels)`, `.canonical`, `.uid`, `.restrictions()`, `.prefixed(prefix)`.
"""

from integration.resources.selector.nodes import Restriction
from integration.resources.selector.parser import Selector, parse
from integration.resources.selector.tokens import SelectorError

__all__ = ["Restriction", "Selector", "SelectorError", "parse"]
