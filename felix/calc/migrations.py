"""LiveMigrations: which endpoint is where a virtual machine comes from, which where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from felix.calc.reading import Json, part, text
from felix.calc.selectors import read_selector
from felix.desired import WorkloadId
from integration.resources.keys import Key
from integration.resources.selector import Selector


class Named(NamedTuple):
    """A workload, or one endpoint of it. Kubernetes' workloads have unique names, so there `node` is not compared."""

    node: str
    orchestrator: str
    workload: str
    endpoint: str  # empty: any

    def is_meant(self, node: str, id: WorkloadId) -> bool:
        return (
            (self.orchestrator, self.workload) == (id.orchestrator, id.workload)
            and self.endpoint in ("", id.endpoint)
            and (self.orchestrator == "k8s" or self.node == node)
        )


class Migration(NamedTuple):
    source: Named | None
    target: Named | None
    target_selector: Selector | None


def read_migration(_: Key, value: Json) -> Migration:
    spec = part(value, "spec", "")
    source, target = part(spec, "source", "spec."), part(spec, "target", "spec.")
    selector = text(target, "selector", "spec.target.")
    return Migration(
        read_named(source, "workload", "spec.source.") or read_named(source, "workloadEndpoint", "spec.source."),
        read_named(target, "workloadEndpoint", "spec.target."),
        read_selector(selector, "spec.target.selector") if selector else None,
    )


def read_named(parent: Json, name: str, path: str) -> Named | None:
    if not parent.get(name):
        return None
    found, path = part(parent, name, path), f"{path}{name}."
    fields = ("hostname", "orchestratorID", "workloadID", "endpointID")
    return Named(*(text(found, field, path) for field in fields))


def role(
    migrations: Iterable[Migration], node: str, id: WorkloadId, labels: Mapping[str, str]
) -> Literal["", "source", "target"]:
    """Being a target outweighs being a source."""
    is_source = False
    for each in migrations:
        if each.target_selector and each.target_selector.matches(labels):
            return "target"
        if each.target and each.target.is_meant(node, id):
            return "target"
        is_source = is_source or bool(each.source and each.source.is_meant(node, id))
    return "source" if is_source else ""
