"""Which selectors match which labelled items, kept up as either changes, without asking every selector of every item.

Items inherit labels of parents (profiles): their own win, then those of the first parent. Items are found by what their
labels are, selectors by what they demand of labels: a selector is filed under one demand, the one that fewest others are
filed under, so a change asks only selectors that could have an opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from sys import intern
from typing import Generic, TypeAlias, TypeVar

from felix.calc.selectors import conjuncts, labels_in
from integration.resources.selector import Selector
from integration.resources.selector.nodes import Compare, Node

S = TypeVar("S", bound=Hashable)
Labels: TypeAlias = Mapping[str, str]
Demand: TypeAlias = tuple[str, str | None]  # label and value; None: any value
NO_LABELS: Labels = {}
FEW = 16


class Question(Generic[S]):
    """A selector in the form in which it is quickly asked, and whom it matches."""

    __slots__ = ("asked_for", "filed", "id", "items", "others", "required")

    def __init__(self, id: S, selector: Selector) -> None:
        self.id = id
        self.items: set[str] = set()
        self.asked_for = tuple(map(intern, labels_in(selector.root)))
        equal, others = [], []
        for node in conjuncts(selector.root):
            if isinstance(node, Compare) and node.operator == "==":
                equal.append((intern(node.label), intern(node.text)))
            else:
                others.append(node)
        self.required: frozenset[tuple[str, str]] = frozenset(equal)
        self.others: tuple[Node, ...] = tuple(others)
        self.filed: tuple[Demand, ...] | None = None  # None: it demands nothing

    def matches(self, labels: Labels) -> bool:
        if not self.required <= labels.items():
            return False
        return all(node.matches(labels) for node in self.others)


class Item:
    __slots__ = ("labels", "own", "parents")

    def __init__(self, own: Labels, parents: tuple[str, ...], labels: Labels) -> None:
        self.own, self.parents, self.labels = own, parents, labels


class LabelIndex(Generic[S]):
    """`started` and `stopped` are called with selector and item as soon as a change makes it so."""

    def __init__(self, started: Callable[[S, str], None], stopped: Callable[[S, str], None]) -> None:
        self._started, self._stopped = started, stopped
        self._items: dict[str, Item] = {}
        self._children: dict[str, set[str]] = {}
        self._parents: dict[str, Labels] = {}
        self._labelled: dict[str, dict[str, set[str]]] = {}  # label → value → items
        self._questions: dict[S, Question[S]] = {}
        self._filed: dict[Demand, set[Question[S]]] = {}
        self._undemanding: set[Question[S]] = set()
        self._asking: dict[str, set[Question[S]]] = {}  # label → who asks for it

    # --- items ------------------------------------------------------------------------------------------------------

    def labels(self, item: str) -> Labels:
        """Own and inherited ones."""
        return self._items[item].labels

    def set_item(self, name: str, own: Labels, parents: tuple[str, ...]) -> None:
        item = self._items.get(name)
        if item is None:
            item = self._items[name] = Item(own, parents, self._merged(own, parents))
            self._adopt(name, (), parents)
            for pair in item.labels.items():
                self._list(name, *pair)
            for question in self._candidates(item.labels):
                if question.matches(item.labels):
                    question.items.add(name)
                    self._started(question.id, name)
            return
        self._adopt(name, item.parents, parents)
        item.own, item.parents = own, parents
        self._relabel(name, item)

    def remove_item(self, name: str) -> None:
        item = self._items.pop(name, None)
        if item is None:
            return
        self._adopt(name, item.parents, ())
        for pair in item.labels.items():
            self._unlist(name, *pair)
        for question in self._candidates(item.labels):
            if name in question.items:
                question.items.discard(name)
                self._stopped(question.id, name)

    def set_parent(self, name: str, labels: Labels) -> None:
        """No labels: it is gone, or has none."""
        if self._parents.get(name, NO_LABELS) == labels:
            return
        if labels:
            self._parents[name] = labels
        else:
            self._parents.pop(name, None)
        for child in tuple(self._children.get(name, ())):
            self._relabel(child, self._items[child])

    def matching(self, item: str) -> Iterator[S]:
        """The selectors that match it."""
        for question in self._candidates(self._items[item].labels):
            if item in question.items:
                yield question.id

    def _merged(self, own: Labels, parents: tuple[str, ...]) -> Labels:
        inherited = [labels for parent in reversed(parents) if (labels := self._parents.get(parent))]
        if not inherited:
            return own
        merged: dict[str, str] = {}
        for labels in inherited:
            merged.update(labels)
        merged.update(own)
        return merged

    def _adopt(self, name: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        for parent in old:
            if parent not in new and (children := self._children.get(parent)):
                children.discard(name)
                if not children:
                    del self._children[parent]
        for parent in new:
            self._children.setdefault(parent, set()).add(name)

    def _list(self, name: str, label: str, value: str) -> None:
        self._labelled.setdefault(label, {}).setdefault(value, set()).add(name)

    def _unlist(self, name: str, label: str, value: str) -> None:
        values = self._labelled[label]
        items = values[value]
        items.discard(name)
        if not items:
            del values[value]
            if not values:
                del self._labelled[label]

    def _relabel(self, name: str, item: Item) -> None:
        old, new = item.labels, self._merged(item.own, item.parents)
        item.labels = new
        changed = old.items() ^ new.items()
        if not changed:
            return
        for label, value in changed:
            if old.get(label) == value:
                self._unlist(name, label, value)
            else:
                self._list(name, label, value)
        for question in self._concerned({label for label, _ in changed}, old, new):
            was, now = name in question.items, question.matches(new)
            if now and not was:
                question.items.add(name)
                self._started(question.id, name)
            elif was and not now:
                question.items.discard(name)
                self._stopped(question.id, name)

    # --- selectors --------------------------------------------------------------------------------------------------

    def set_selector(self, id: S, selector: Selector) -> None:
        """Anew; what it matched and still matches is not told again."""
        old = self._questions.get(id)
        question = Question(id, selector)
        if old is not None:
            self._unfile(old)
        self._questions[id] = question
        self._file(question, selector)
        items = self._items
        question.items = {name for name in self._possible(selector) if question.matches(items[name].labels)}
        before = old.items if old is not None else set()
        for name in question.items - before:
            self._started(id, name)
        for name in before - question.items:
            self._stopped(id, name)

    def remove_selector(self, id: S) -> set[str]:
        """Whom it matched; `stopped` is not called."""
        question = self._questions.pop(id, None)
        if question is None:
            return set()
        self._unfile(question)
        return question.items

    def items(self, id: S) -> set[str]:
        """Whom the selector matches; not to be changed."""
        question = self._questions.get(id)
        return question.items if question is not None else set()

    def __len__(self) -> int:
        """How many selectors."""
        return len(self._questions)

    def _file(self, question: Question[S], selector: Selector) -> None:
        best: tuple[Demand, ...] | None = None
        least = -1
        for label, restriction in selector.restrictions().items():
            if not restriction.present:
                continue
            values = (None,) if restriction.values is None else sorted(restriction.values)
            demands: tuple[Demand, ...] = tuple((label, value) for value in values)
            crowd = sum(len(self._filed.get(demand, ())) for demand in demands) + len(demands)
            if restriction.values is None:
                crowd += len(self._asking.get(label, ()))  # any value is the weakest demand there is
            if best is None or crowd < least:
                best, least = demands, crowd
        question.filed = best
        if best is None:
            self._undemanding.add(question)
        else:
            for demand in best:
                self._filed.setdefault(demand, set()).add(question)
        for label in question.asked_for:
            self._asking.setdefault(label, set()).add(question)

    def _unfile(self, question: Question[S]) -> None:
        if question.filed is None:
            self._undemanding.discard(question)
        else:
            for demand in question.filed:
                discard(self._filed, demand, question)
        for label in question.asked_for:
            discard(self._asking, label, question)

    def _possible(self, selector: Selector) -> Iterable[str]:
        """The fewest items among which all are that it can match."""
        best: list[set[str]] | None = None
        least = len(self._items)
        for label, restriction in selector.restrictions().items():
            if not restriction.present:
                continue
            values = self._labelled.get(label, {})
            if restriction.values is None:
                found = list(values.values())
            else:
                found = [values[value] for value in restriction.values if value in values]
            if (count := sum(map(len, found))) <= least:
                best, least = found, count
        if best is None:
            return self._items
        return best[0] if len(best) == 1 else set().union(*best)

    def _candidates(self, labels: Labels) -> Iterator[Question[S]]:
        """All that could match these labels, each once: an item has one value of a label."""
        yield from tuple(self._undemanding)
        filed = self._filed
        for pair in labels.items():
            if pair in filed:
                yield from tuple(filed[pair])
            if (any_value := (pair[0], None)) in filed:
                yield from tuple(filed[any_value])

    def _concerned(self, changed: set[str], old: Labels, new: Labels) -> Iterable[Question[S]]:
        """All that the change of these labels could concern, by the shorter way."""
        asking = [found for label in changed if (found := self._asking.get(label))]
        if not asking:
            return ()
        if (count := sum(map(len, asking))) <= FEW:
            return set().union(*asking)
        filed = self._filed
        pairs = [*new.items(), *(old.items() - new.items())]
        short = [found for pair in pairs for key in (pair, (pair[0], None)) if (found := filed.get(key))]
        short.append(self._undemanding)
        if sum(map(len, short)) >= count:
            return set().union(*asking)
        if len(asking) == 1:
            return set().union(*(found & asking[0] for found in short))
        return {each for found in short for each in found if not changed.isdisjoint(each.asked_for)}


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)


def discard(sets: dict[K, set[V]], key: K, value: V) -> None:
    """Take it out of one of the sets, and the set with its last value."""
    if found := sets.get(key):
        found.discard(value)
        if not found:
            del sets[key]
