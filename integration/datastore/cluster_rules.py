"""Rules that one resource alone cannot show broken: they need what else is stored. Source: libcalico-go/lib/clientv3.

They read before the write, so that two writers at the same moment may both pass: as in Calico.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from integration.datastore.api import Datastore, Value
from integration.datastore.errors import DoesNotExist, Invalid, Unsupported
from integration.resources.base import Problem, Resource, ResourceError
from integration.resources.fields import Network, parse_network
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


async def check_create(datastore: Datastore, key: Key, resource: Resource, coming: Collection[Key] = ()) -> None:
    """A policy needs its tier, a pool must not overlap another. `coming`: will have been created.

    Raises Invalid, Unsupported.
    """
    if isinstance(resource, POLICIES) and (tier := resource.spec.tier) and tier not in RESERVED_TIERS:
        if Key("Tier", tier) in coming:
            return
        try:
            await datastore.get(Key("Tier", tier))
        except DoesNotExist:
            raise Unsupported(f"its tier {tier} does not exist", f"create the Tier {tier} first") from None
    if isinstance(resource, IPPool):
        cidr = parse_network(resource.spec.cidr)
        for other in (await datastore.list("IPPool")).entries:
            theirs = network_of(other.value)
            if other.key != key and theirs is not None and cidr.version == theirs.version and cidr.overlaps(theirs):
                reason = f"overlaps with the {theirs} of {other.key}"
                raise Invalid(key, [Problem("spec.cidr", resource.spec.cidr, reason)])


def check_change(key: Key, resource: Resource, before: Value) -> None:
    """Of a pool addresses are in use: neither its CIDR nor the size of its blocks may change. Raises Invalid."""
    if not isinstance(resource, IPPool):
        return
    try:
        old = IPPool.from_json(before).spec
        was, size = parse_network(old.cidr), block_size_of(old)
    except (ResourceError, ValueError):
        return  # what is there is no pool
    problems = []
    if parse_network(resource.spec.cidr) != was:
        reason = f"cannot be changed from {was}"
        problems.append(Problem("spec.cidr", resource.spec.cidr, reason, "another pool"))
    if block_size_of(resource.spec) != size:
        reason = f"cannot be changed from {size}"
        problems.append(Problem("spec.blockSize", resource.spec.block_size, reason, "another pool"))
    if problems:
        raise Invalid(key, problems)


async def check_delete(datastore: Datastore, key: Key, gone: Collection[Key] = ()) -> None:
    """What is built in stays, and a tier that has policies. `gone`: will have been deleted. Raises Unsupported."""
    if key == DEFAULT_ALLOW:
        raise Unsupported(f"{key} is built in and cannot be deleted")
    if key.kind != "Tier":
        return
    if key.name in RESERVED_TIERS:
        raise Unsupported(f"the tier {key.name} is built in and cannot be deleted")
    for model in POLICIES:
        for entry in (await datastore.list(model.__name__)).entries:
            if (entry.value.get("spec") or {}).get("tier") == key.name and entry.key not in gone:
                raise Unsupported(
                    f"the tier {key.name} is not empty: {entry.key} is in it", "delete its policies first"
                )


def network_of(pool: Value) -> Network | None:
    """None if it is no pool: others say so."""
    try:
        return parse_network(IPPool.from_json(pool).spec.cidr)
    except (ResourceError, ValueError):
        return None
