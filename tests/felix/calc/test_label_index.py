from __future__ import annotations

from random import Random

import pytest

from felix.calc.label_index import LabelIndex
from integration.resources.selector import parse
from tests.felix.calc.states import SELECTORS

LABELS = ("app", "tier", "pcns.team")
VALUES = ("x", "y", "t1", "t2", "red", "blue")


class Matches:
    """An index, and who matches whom by what it told."""

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self.index: LabelIndex[str] = LabelIndex(self.started, self.stopped)

    def started(self, selector: str, item: str) -> None:
        assert (selector, item) not in self.pairs
        self.pairs.add((selector, item))

    def stopped(self, selector: str, item: str) -> None:
        self.pairs.remove((selector, item))


def random_labels(draw: Random) -> dict[str, str]:
    return {label: draw.choice(VALUES) for label in LABELS if draw.random() < 0.6}


def effective(own: dict[str, str], parents: tuple[str, ...], known: dict[str, dict[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for labels in (own, *(known.get(parent, {}) for parent in parents)):
        for label, value in labels.items():
            found.setdefault(label, value)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_the_index_agrees_with_asking_everybody(seed: int) -> None:
    draw, matches = Random(seed), Matches()
    items: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {}
    parents: dict[str, dict[str, str]] = {}
    selectors: dict[str, str] = {}
    for _ in range(300):
        name = str(draw.randrange(30))
        match draw.randrange(6):
            case 0 | 1:
                items[name] = (random_labels(draw), tuple(draw.sample("abc", draw.randrange(3))))
                matches.index.set_item(name, *items[name])
            case 2:
                items.pop(name, None)
                matches.index.remove_item(name)
            case 3:
                parent = draw.choice("abc")
                parents[parent] = draw.choice(({}, random_labels(draw)))
                matches.index.set_parent(parent, parents[parent])
            case 4:
                selectors[name] = draw.choice(SELECTORS)
                matches.index.set_selector(name, parse(selectors[name]))
            case _:
                selectors.pop(name, None)
                for item in matches.index.remove_selector(name):
                    matches.pairs.remove((name, item))
        expected = {
            (selector, item)
            for selector, text in selectors.items()
            for item, (own, given) in items.items()
            if parse(text).matches(effective(own, given, parents))
        }
        assert matches.pairs == expected
        for selector in selectors:
            assert matches.index.items(selector) == {item for name, item in expected if name == selector}
        for item, (own, given) in items.items():
            assert set(matches.index.matching(item)) == {name for name, matched in expected if matched == item}
            assert matches.index.labels(item) == effective(own, given, parents)


def test_nothing_is_left_over_when_all_is_gone() -> None:
    matches = Matches()
    for at in range(20):
        matches.index.set_parent("p", {"app": "x"})
        matches.index.set_item(str(at), {"tier": str(at)}, ("p",))
        matches.index.set_selector(str(at), parse(SELECTORS[at % len(SELECTORS)]))
    for at in range(20):
        matches.index.remove_item(str(at))
        matches.index.remove_selector(str(at))
    matches.index.set_parent("p", {})
    left = {name: value for name, value in vars(matches.index).items() if not callable(value)}
    assert all(not value for value in left.values()), left


def test_own_labels_win_then_those_of_the_first_parent() -> None:
    matches = Matches()
    matches.index.set_parent("first", {"a": "first", "b": "first", "c": "first"})
    matches.index.set_parent("second", {"a": "second", "b": "second", "d": "second"})
    matches.index.set_item("i", {"a": "own"}, ("first", "second"))
    assert matches.index.labels("i") == {"a": "own", "b": "first", "c": "first", "d": "second"}


def test_a_change_asks_few_of_many_selectors(monkeypatch: pytest.MonkeyPatch) -> None:
    from felix.calc import label_index

    matches, asked = Matches(), 0
    for at in range(5_000):
        matches.index.set_selector(f"s{at}", parse(f"app == 'app-{at}' && tier == 'web'"))
    original = label_index.Question.matches

    def counted(question: label_index.Question[str], labels: label_index.Labels) -> bool:
        nonlocal asked
        asked += 1
        return original(question, labels)

    monkeypatch.setattr(label_index.Question, "matches", counted)
    for at in range(100):
        matches.index.set_item(f"i{at}", {"app": f"app-{at}", "tier": "web"}, ())
    assert len(matches.pairs) == 100
    assert asked < 500
