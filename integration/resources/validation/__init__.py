"""Rules between fields, a module a family of kinds. Rules of one field stand beside the field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from integration.resources.base import Problem
from integration.resources.validation import bgp, cluster, endpoints, felix, policies, pools

# Model → check(object, its path): called where all fields of the object hold by themselves; also for subclasses.
CHECKS: Mapping[type, Callable[[Any, str], Iterator[Problem]]] = {
    **bgp.CHECKS,
    **cluster.CHECKS,
    **endpoints.CHECKS,
    **felix.CHECKS,
    **policies.CHECKS,
    **pools.CHECKS,
}
# Model → a function that fills in what Calico would, before the defaults of single fields; also for subclasses, the
# most special first. It replaces nothing that is said: a wrong value is for validation to refuse.
DEFAULTS: Mapping[type, Callable[[Any], None]] = {**policies.DEFAULTS, **pools.DEFAULTS}
