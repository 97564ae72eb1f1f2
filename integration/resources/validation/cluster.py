"""Node, KubeControllersConfiguration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from integration.resources.base import Problem
from integration.resources.models.controllers import HostEndpointTemplate
from integration.resources.models.nodes import NodeSpec


def check_node(spec: NodeSpec, path: str) -> Iterator[Problem]:
    if spec.bgp is not None and not spec.bgp.to_json():
        yield Problem(f"{path}.bgp", None, "is empty", "at least one field, or no bgp for a node without BGP")


def check_template(template: HostEndpointTemplate, path: str) -> Iterator[Problem]:
    if not template.interface_cidrs and not template.interface_pattern:
        yield Problem(path, None, "selects no interfaces", "interfaceCIDRs or interfacePattern")


CHECKS: dict[type, Callable[[Any, str], Iterator[Problem]]] = {
    NodeSpec: check_node,
    HostEndpointTemplate: check_template,
}
