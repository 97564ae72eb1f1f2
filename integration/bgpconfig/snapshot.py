"""The resources that a node's BGP is made from, by kind and key; those that cannot be read are remembered as such."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from integration.resources.base import Model, Resource, ResourceError
from integration.resources.base import Problem as FieldProblem
from integration.resources.keys import Key
from integration.resources.kinds import KINDS
from integration.resources.models.nodes import Node

AnyModel = TypeVar("AnyModel", bound=Model)

# What a node's configuration depends on; a watcher need follow no more.
WATCHED = (
    "BGPConfiguration", "BGPPeer", "BGPFilter", "Node", "IPPool", "BlockAffinity", "Service", "EndpointSlice", "Secret",
    "WorkloadEndpoint", "Profile", "Namespace", "ServiceAccount",
)  # fmt: skip
# Of these a field that cannot be read is left out, and the rest holds. Of others it might be what keeps something back.
LENIENT = ("BGPConfiguration", "Node", "Service", "EndpointSlice", "WorkloadEndpoint", "Namespace", "Profile")


class Snapshot:
    """`unreadable` are resources that no model could be made of, or not of all their fields, with what is wrong."""

    def __init__(self, resources: Iterable[Model | tuple[Key, Model]] = ()) -> None:
        self.by_kind: dict[str, dict[Key, Model]] = {kind: {} for kind in WATCHED}
        self.unreadable: dict[Key, tuple[FieldProblem, ...]] = {}
        for each in resources:
            key, resource = each if isinstance(each, tuple) else (key_of(each), each)
            self.apply(key, resource)

    def apply(self, key: Key, resource: Model | None) -> None:
        """The resource is now this; None: it is gone. Kinds that BGP does not depend on are passed over."""
        self.unreadable.pop(key, None)
        held = self.by_kind.get(key.kind)
        if held is None:
            return
        if resource is None:
            held.pop(key, None)
        else:
            held[key] = resource

    def apply_json(self, key: Key, value: Mapping[str, Any] | None) -> None:
        """The same with the JSON object as it is stored, which need not be readable."""
        if value is None or key.kind not in self.by_kind:
            self.apply(key, None)
            return
        resource, problems = read(key, value)
        self.apply(key, resource)
        if problems:
            self.unreadable[key] = problems

    def get(self, model: type[AnyModel], key: Key) -> AnyModel | None:
        found = self.by_kind[key.kind].get(key)
        return found if isinstance(found, model) else None

    def of(self, model: type[AnyModel]) -> dict[Key, AnyModel]:
        """All of one kind. Not to be changed."""
        return self.by_kind[model.__name__]  # type: ignore[return-value]

    def items(self) -> Iterator[tuple[Key, Model]]:
        for held in self.by_kind.values():
            yield from held.items()


def key_of(resource: Model) -> Key:
    """The key of a resource by what it says of itself. IPAM's kinds do not say."""
    if not isinstance(resource, Resource):
        raise ValueError(f"a {type(resource).__name__} does not say its name")
    kind = KINDS[type(resource).__name__]
    return Key(kind.name, resource.metadata.name, resource.metadata.namespace if kind.namespaced else "")


def read(key: Key, value: Mapping[str, Any]) -> tuple[Model | None, tuple[FieldProblem, ...]]:
    model = KINDS[key.kind].model
    try:
        return model.from_json(value), ()
    except ResourceError as error:
        problems = tuple(error.problems)
    if key.kind not in LENIENT:
        return None, problems
    try:
        return model.from_json(without(value, {problem.field for problem in problems})), problems
    except ResourceError:
        return None, problems


def without(value: Any, paths: set[str], path: str = "") -> Any:
    """A copy without the fields (or items) at these JSON paths."""
    if isinstance(value, Mapping):
        places = {name: f"{path}.{name}" if path else str(name) for name in value}
        return {name: without(value[name], paths, place) for name, place in places.items() if place not in paths}
    if isinstance(value, list):
        places_of_items = ((f"{path}[{at}]", item) for at, item in enumerate(value))
        return [without(item, paths, place) for place, item in places_of_items if place not in paths]
    return value


def kubernetes_name(node: Node | None, name: str) -> str:
    """What Kubernetes calls the node; endpoints are said to be on that."""
    references = node.spec.orch_refs if node is not None else []
    return next((one.node_name for one in references if one.orchestrator == "k8s" and one.node_name), name)
