"""Rules that one resource alone cannot show broken: they need what else is stored. Source: libcalico-go/lib/clientv3.

They read before the write, so that two writers at the same moment may both pass: as in Calico.
"""

from __future__ import annotations

from collections.abc import Iterator

from integration.datastore.api import Datastore, Value
from integration.datastore.errors import DoesNotExist, Invalid, Unreadable, Unsupported
from integration.resources.base import Problem, Resource, ResourceError
from integration.resources.fields import parse_network
from integration.resources.keys import Key
from integration.resources.models.endpoints import WorkloadEndpoint
from integration.resources.models.ipam import IPPool
from integration.resources.models.policy import (
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
)
from integration.resources.names import WorkloadEndpointName
from integration.resources.validation.policies import RESERVED_TIERS
from integration.resources.validation.pools import block_size_of

POLICIES = (NetworkPolicy, GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy)
DEFAULT_ALLOW = Key("Profile", "projectcalico-default-allow")


def check_write(key: Key, resource: Resource) -> None:
    """Raises Invalid, Unsupported."""
    if key == DEFAULT_ALLOW:
        raise Unsupported(f"{key} is built in and cannot be written")
    if isinstance(resource, WorkloadEndpoint) and (problems := list(name_problems(resource))):
        raise Invalid(key, problems)


def name_problems(endpoint: WorkloadEndpoint) -> Iterator[Problem]:
    """The name says what the spec says: whoever looks for a pod's endpoint goes by it."""
    spec = endpoint.spec
    parts = WorkloadEndpointName(
        spec.node, spec.orchestrator, spec.pod, spec.container_id, spec.workload, spec.endpoint
    )
    try:
        wanted = parts.name
    except ValueError as error:
        yield Problem("spec", None, str(error))
        return
    if endpoint.metadata.name != wanted:
        yield Problem("metadata.name", endpoint.metadata.name, "is not what the spec's parts make", wanted)


async def check_create(datastore: Datastore, key: Key, resource: Resource) -> None:
    """Raises Invalid, Unsupported."""
    if isinstance(resource, POLICIES) and (tier := resource.spec.tier) and tier not in RESERVED_TIERS:
        try:
            await datastore.get(Key("Tier", tier))
        except DoesNotExist:
            raise Unsupported(f"its tier {tier} does not exist", f"create the Tier {tier} first") from None
    if isinstance(resource, IPPool):
        cidr = parse_network(resource.spec.cidr)
        for other in (await datastore.list("IPPool")).entries:
            if other.key != key and (theirs := cidr_of(other.value)) and cidr.overlaps(parse_network(theirs)):
                field = Problem("spec.cidr", resource.spec.cidr, f"overlaps {theirs} of the {other.key}")
                raise Invalid(key, [field])


async def check_update(datastore: Datastore, key: Key, resource: Resource) -> None:
    """Blocks are cut from a pool as it was made. Raises Invalid, DoesNotExist."""
    if not isinstance(resource, IPPool):
        return
    try:
        was = IPPool.from_json((await datastore.get(key)).value).spec
        before: tuple[object, object] = (parse_network(was.cidr), block_size_of(was))
    except (ResourceError, ValueError, Unreadable):
        return  # of what cannot be read nothing was cut
    spec = resource.spec
    if parse_network(spec.cidr) != before[0]:
        raise Invalid(key, [Problem("spec.cidr", spec.cidr, "cannot be changed", was.cidr)])
    if block_size_of(spec) != before[1]:
        raise Invalid(key, [Problem("spec.blockSize", spec.block_size, "cannot be changed", str(before[1]))])


async def check_delete(datastore: Datastore, key: Key) -> None:
    """Raises Unsupported."""
    if key == DEFAULT_ALLOW:
        raise Unsupported(f"{key} is built in and cannot be deleted")
    if key.kind != "Tier":
        return
    if key.name in RESERVED_TIERS:
        raise Unsupported(f"the tier {key.name} is built in and cannot be deleted")
    for model in POLICIES:
        for entry in (await datastore.list(model.__name__)).entries:
            if (entry.value.get("spec") or {}).get("tier") == key.name:
                raise Unsupported(
                    f"the tier {key.name} is not empty: {entry.key} is in it", "delete its policies first"
                )


def cidr_of(pool: Value) -> str:
    """Empty if there is none that can be read."""
    try:
        cidr = IPPool.from_json(pool).spec.cidr
        parse_network(cidr)
    except (ResourceError, ValueError):
        return ""
    return cidr
