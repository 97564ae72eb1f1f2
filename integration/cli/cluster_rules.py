"""Rules that a resource alone does not show: what has to be there already, and what may not be beside it."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_network

from integration.datastore.api import Datastore, Value
from integration.datastore.errors import DoesNotExist, Invalid, Unsupported
from integration.resources.base import Problem, Resource, ResourceError
from integration.resources.keys import Key
from integration.resources.models.ipam import IPPool
from integration.resources.models.policy import (
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
)
from integration.resources.validate import defaulted

BUILT_IN_TIERS = ("default", "kube-admin", "kube-baseline")
KUBERNETES_POLICY = "knp.default."
TIERED = (NetworkPolicy, GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy)


def refuse_what_is_not_ours(key: Key) -> None:
    if key.kind == "ClusterInformation":
        raise Unsupported(f"{key}: resource is readonly", "catbird node writes it")
    if key.kind.endswith("NetworkPolicy") and key.name.startswith(KUBERNETES_POLICY):
        raise Unsupported(f"{key}: kubernetes network policies must be managed through the kubernetes API")


def refuse_what_stays(key: Key) -> None:
    if key.kind == "Tier" and key.name in BUILT_IN_TIERS:
        raise Unsupported(f"the tier {key.name} is built in and cannot be deleted")


async def refuse_to_create(datastore: Datastore, key: Key, resource: Resource, coming: Collection[Key] = ()) -> None:
    """As Calico's client: a policy needs its tier, a pool must not overlap another. `coming`: created just before."""
    if isinstance(resource, TIERED) and (tier := resource.spec.tier) and tier not in BUILT_IN_TIERS:
        if Key("Tier", tier) in coming:
            return
        try:
            await datastore.get(Key("Tier", tier))
        except DoesNotExist:
            raise Unsupported(f"its tier {tier} does not exist", f"create the Tier {tier} first") from None
    if isinstance(resource, IPPool):
        for entry in (await datastore.list("IPPool")).entries:
            if entry.key != key and overlap(resource, entry.value):
                reason = f"overlaps with the {entry.value['spec']['cidr']} of {entry.key}"
                raise Invalid(key, [Problem("spec.cidr", resource.spec.cidr, reason)])


def refuse_to_change(key: Key, resource: Resource, before: Value) -> None:
    """Of a pool addresses are in use: neither its CIDR nor the size of its blocks may change."""
    if not isinstance(resource, IPPool):
        return
    try:
        old, new = defaulted(IPPool.from_json(before)).spec, defaulted(resource).spec
    except ResourceError:
        return  # what is there is no pool
    problems = [
        Problem(field, now, f"cannot be changed from {was}", "another pool")
        for field, was, now in (
            ("spec.cidr", old.cidr, new.cidr),
            ("spec.blockSize", old.block_size, new.block_size),
        )
        if was != now
    ]
    if problems:
        raise Invalid(key, problems)


def overlap(pool: IPPool, other: Value) -> bool:
    try:
        one, two = ip_network(pool.spec.cidr), ip_network(other["spec"]["cidr"])
    except (ValueError, LookupError, TypeError):
        return False  # one of them is no pool; others say so
    return one.version == two.version and one.overlaps(two)
