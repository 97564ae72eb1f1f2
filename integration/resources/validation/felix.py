"""FelixConfiguration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from integration.resources.base import Problem
from integration.resources.fields import LABEL
from integration.resources.models.felix_configuration import (
    FelixConfiguration,
    FelixConfigurationSpec,
    RouteTableIDRange,
    RouteTableRange,
)

MAX_REGION = 63 - len("openstack-region-")  # the region becomes part of a namespace's name
RESERVED_TABLES = range(253, 256)  # default, main, local
MAX_TABLES = 0xFFFF


def check_configuration(configuration: FelixConfiguration, path: str) -> Iterator[Problem]:
    name = configuration.metadata.name
    if configuration.spec.node_selector and (name == "default" or name.startswith("node.")):
        reason = f"has no place in a FelixConfiguration named {name}"
        yield Problem("spec.nodeSelector", configuration.spec.node_selector, reason, "another name")


def check_spec(spec: FelixConfigurationSpec, path: str) -> Iterator[Problem]:
    region = spec.openstack_region
    if region and (len(region) > MAX_REGION or not re.fullmatch(LABEL, region)):
        allowed = f"lower-case letters, digits and inner '-', at most {MAX_REGION}"
        yield Problem(f"{path}.openstackRegion", region, "is malformed or too long", allowed)
    if spec.route_table_range is not None and spec.route_table_ranges is not None:
        yield Problem(f"{path}.routeTableRange", None, "cannot be set together with routeTableRanges")
    tables = sum((each.max or 0) - (each.min or 0) + 1 for each in spec.route_table_ranges or [])
    if tables > MAX_TABLES:
        yield Problem(f"{path}.routeTableRanges", None, f"name {tables} tables", f"at most {MAX_TABLES}")


def check_table_range(tables: RouteTableRange | RouteTableIDRange, path: str) -> Iterator[Problem]:
    low, high = tables.min or 0, tables.max or 0
    if low > high:
        yield Problem(f"{path}.min", low, f"is above max, which is {high}")
    elif low < RESERVED_TABLES.stop and high >= RESERVED_TABLES.start:
        yield Problem(path, f"{low}-{high}", "touches the kernel's own tables", "tables other than 253 to 255")


CHECKS: dict[type, Callable[[Any, str], Iterator[Problem]]] = {
    FelixConfiguration: check_configuration,
    FelixConfigurationSpec: check_spec,
    RouteTableRange: check_table_range,
    RouteTableIDRange: check_table_range,
}
