"""The selectors of policies and rules as Felix asks them of endpoints: namespaces and service accounts are labels there.

Ids of IP sets derive from the canonical text of the combination, so the combinations are built as Calico's update
processors build them, parenthesis by parenthesis (libcalico-go, lib/backend/syncersv1/updateprocessors).
"""

from __future__ import annotations

from collections.abc import Sequence

from felix.calc.reading import Invalid
from integration.resources.selector import Selector, SelectorError, parse
from integration.resources.selector.nodes import All, And, Compare, Has, InSet, Node, Not, Or

NAMESPACE = "projectcalico.org/namespace"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
OF_NAMESPACE, OF_SERVICE_ACCOUNT = "pcns.", "pcsa."
EVERYTHING = Selector(All())


def read_selector(text: str, field: str) -> Selector:
    """Raises Invalid."""
    try:
        return parse(text)
    except SelectorError as error:
        raise Invalid(field, text, str(error), "a selector such as role == 'db' && has(rack)") from None


def both(first: Selector, second: Selector) -> Selector:
    return Selector(And((first.root, second.root)))


def without(selector: Selector, excluded: Selector) -> Selector:
    return Selector(And((selector.root, Not(excluded.root))))


def in_namespace(namespace: str) -> Selector:
    return Selector(Compare(NAMESPACE, "==", namespace))


def replaced(selector: Selector, words: dict[str, str]) -> Selector:
    """With `all()` and the like replaced in the canonical text, as Calico does it: `!` before a replacement toggles."""
    text = selector.canonical
    if not any(word in text for word in words):
        return selector
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    return parse(text)


def policy_selector(
    namespace: str,
    selector: str,
    namespaces: str,
    accounts: str,
    path: str,
    accounts_field: str = "serviceAccountSelector",
) -> Selector:
    """Whom a policy is for. `namespace` is its own, empty for a global one, which alone may have `namespaces`."""
    found = read_selector(selector, f"{path}selector") if selector else None
    if namespace:
        found = both(found, in_namespace(namespace)) if found else in_namespace(namespace)
    elif namespaces:
        added = read_selector(namespaces, f"{path}namespaceSelector").prefixed(OF_NAMESPACE)
        found = replaced(both(found, added) if found else added, {"all()": f"has({NAMESPACE})"})
    if accounts:
        added = read_selector(accounts, f"{path}{accounts_field}").prefixed(OF_SERVICE_ACCOUNT)
        found = both(found, added) if found else added
        if not namespace:
            found = replaced(found, {"all()": f"has({SERVICE_ACCOUNT})"})
    return found or EVERYTHING


def entity_selector(
    namespace: str, selector: str, not_selector: str, namespaces: str, names: Sequence[str], accounts: str, path: str
) -> Selector | None:
    """Which endpoints the source or destination of a rule may be; None if it says nothing of endpoints.

    A namespaced policy means its own namespace as soon as it says anything of endpoints, `not_selector` included.
    """
    place: Selector | None = None
    if namespaces:
        place = replaced(
            read_selector(namespaces, f"{path}namespaceSelector").prefixed(OF_NAMESPACE),
            {"all()": f"has({NAMESPACE})", "global()": f"!has({NAMESPACE})"},
        )
    elif namespace:
        place = in_namespace(namespace)
    account = account_selector(names, accounts, path)
    found = read_selector(selector, f"{path}selector") if selector else None
    if account:
        found = both(account, found) if found else account
    if place and (found or not_selector or namespaces):
        return both(place, found) if found else place
    return found


def account_selector(names: Sequence[str], accounts: str, path: str) -> Selector | None:
    labels = (
        read_selector(accounts, f"{path}serviceAccounts.selector").prefixed(OF_SERVICE_ACCOUNT) if accounts else None
    )
    if not names:
        return labels
    named = Selector(InSet(SERVICE_ACCOUNT, "in", frozenset(names)))
    return both(labels, named) if labels else named


def labels_in(node: Node) -> set[str]:
    """The names of the labels that a selector asks for."""
    match node:
        case Has(label) | Compare(label) | InSet(label):
            return {label}
        case Not(operand):
            return labels_in(operand)
        case And(operands) | Or(operands):
            return set().union(*map(labels_in, operands))
    return set()


def conjuncts(node: Node) -> list[Node]:
    """What must all hold."""
    if isinstance(node, And):
        return [each for operand in node.operands for each in conjuncts(operand)]
    return [] if isinstance(node, All) else [node]
